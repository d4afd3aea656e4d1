//! `HEAD` and `POST /api/blobs/{digest}`: files of a model that is to be created, on the node of the client's sequence.
//!
//! They may be tens of gigabytes, and pass through here and the edge piece by piece.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use herd_core::fleet::Node;
use herd_core::pull::disk_available;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};

use super::pick::{About, named, node_named, one};
use crate::caller::Caller;
use crate::catalogue::reachable;
use crate::guard::ModelOperator;
use crate::node_calls::error_of;
use crate::nodes::NodeError;
use crate::ollama::{ASKS_OF_ONE, Holder, response};
use crate::refusal::Refusal;
use crate::state::AdminState;
use crate::view::View;

/// Longest time in which a client sends nothing of its file, or its node takes nothing.
const SILENCE: Duration = Duration::from_mins(1);
/// Longest that one file may take.
const LIMIT: Duration = Duration::from_hours(24);
/// Longest that a node may take to say whether it has a file.
const LOOK: Duration = Duration::from_secs(5);
/// Nodes that are asked for a file at a time.
const AT_A_TIME: usize = 16;

/// `HEAD /api/blobs/{digest}`: whether the node of the client's sequence has the file. A client that is in none begins one
/// at a node that has it, so that it need not be sent again.
pub(crate) async fn has_blob(
    State(state): State<AdminState>,
    caller: Caller,
    headers: HeaderMap,
    digest: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let digest = checked(digest)?;
    let view = state.view();
    let sequences = state.sequences();
    let settled = named(None, &headers).is_some() || sequences.node(caller.ip, view.now_ms).is_some();
    let found = if settled { None } else { find(&state, &view, &digest).await };
    let node = match found {
        Some(node) => node,
        None => one(&state, &view, &caller, &about(&headers))?,
    };
    let id = node.id.as_str();
    let there = found.is_some() || is_there(&state, node, &digest).await?;
    sequences.goes_on(caller.ip, id, view.now_ms);
    if there {
        sequences.has_file(&digest, id);
        return Ok(response(StatusCode::OK, id, Body::empty()));
    }
    Ok(response(StatusCode::NOT_FOUND, id, Body::empty()))
}

/// `POST /api/blobs/{digest}`
pub(crate) async fn put_blob(
    State(state): State<AdminState>,
    operator: ModelOperator,
    headers: HeaderMap,
    digest: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let digest = checked(digest)?;
    let view = state.view();
    let node = one(&state, &view, &operator.caller, &about(&headers))?;
    let length: Option<u64> = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    has_room(&state, node, length)?;
    let holder = Holder::of(node);
    let busy = |full| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", format!("{full} at node {}", node.id));
    let _place = state.asks().take_for(holder.id.clone(), ASKS_OF_ONE).map_err(busy)?;
    state.sequences().goes_on(operator.caller.ip, &holder.id, view.now_ms);
    let sent = state.nodes().post(holder.url(&format!("/api/blobs/{digest}"))).timeout(LIMIT);
    let sent = match length {
        Some(length) => sent.header(CONTENT_LENGTH, length),
        None => sent,
    };
    let answer = sent.body(pieces(request.into_body())).send().await;
    let answer = answer.map_err(|error| NodeError::Silent(error.without_url().to_string()).refusal())?;
    let status = answer.status();
    if status.is_success() {
        state.sequences().has_file(&digest, &holder.id);
        // The sequence goes on from here, however long the file took.
        state.sequences().goes_on(operator.caller.ip, &holder.id, state.source().now_ms());
        state.audit(&operator.actor, "blob_put", &digest, &format!("on {}", holder.id));
        return Ok(response(status, &holder.id, Body::empty()));
    }
    let told = tokio::time::timeout(LOOK, error_of(answer)).await.unwrap_or_default();
    let said = if told.is_empty() { "the node refused the file".to_owned() } else { told };
    Err(Refusal::new(status, "blob_refused", said))
}

/// The client's file, piece by piece.
fn pieces(body: Body) -> reqwest::Body {
    let pieces = stream::unfold(body.into_data_stream(), |mut pieces| async move {
        let next = tokio::time::timeout(SILENCE, pieces.next()).await;
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the client sent nothing for too long");
        let piece: io::Result<Bytes> = match next {
            Ok(None) => return None,
            Ok(Some(piece)) => piece.map_err(io::Error::other),
            Err(_) => Err(late()),
        };
        Some((piece, pieces))
    });
    reqwest::Body::wrap_stream(pieces)
}

fn about(headers: &HeaderMap) -> About<'_> {
    About { node: named(None, headers), ..About::default() }
}

/// A digest as Ollama writes it.
fn checked(digest: Result<Path<String>, PathRejection>) -> Result<String, Refusal> {
    let invalid = || Refusal::bad_request("invalid_request", "invalid digest format");
    let Path(digest) = digest.map_err(|_| invalid())?;
    let hex = digest.strip_prefix("sha256").and_then(|rest| rest.strip_prefix([':', '-'])).unwrap_or_default();
    let is_hex = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Both spellings are one file.
    is_hex.then(|| format!("sha256:{}", hex.to_ascii_lowercase())).ok_or_else(invalid)
}

/// Whether the disk of `node` holds `length` bytes more, as far as is known.
fn has_room(state: &AdminState, node: &Node, length: Option<u64>) -> Result<(), Refusal> {
    let (Some(length), Some(available)) = (length, disk_available(node)) else { return Ok(()) };
    let reserve = state.pulls().policy().disk_reserve_bytes;
    if length.saturating_add(reserve) <= available {
        return Ok(());
    }
    let message = format!("the file has {length} bytes, and node {} has {available} left on its disk", node.id);
    Err(Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "no_space", message))
}

/// A node that has the file.
async fn find<'a>(state: &AdminState, view: &'a View, digest: &str) -> Option<&'a Node> {
    if let Some(id) = state.sequences().node_with_files(&[digest]) {
        return node_named(view, &id).ok();
    }
    let nodes = reachable(view).filter(|node| node.same_ollama_as.is_none());
    let nodes: Vec<Node> = nodes.cloned().collect();
    let mut answers = stream::iter(nodes)
        .map(|node| {
            let (state, digest) = (state.clone(), digest.to_owned());
            async move { is_there(&state, &node, &digest).await.ok()?.then(|| node.id.to_string()) }
        })
        .buffer_unordered(AT_A_TIME);
    while let Some(found) = answers.next().await {
        if let Some(id) = found {
            return node_named(view, &id).ok();
        }
    }
    None
}

async fn is_there(state: &AdminState, node: &Node, digest: &str) -> Result<bool, Refusal> {
    let holder = Holder::of(node);
    let asked = state.nodes().head(holder.url(&format!("/api/blobs/{digest}"))).timeout(LOOK).send().await;
    let answer = asked.map_err(|error| NodeError::Silent(error.without_url().to_string()).refusal())?;
    Ok(answer.status().is_success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_checked_and_have_one_spelling() {
        let check = |text: &str| checked(Ok(Path(text.to_owned()))).ok();
        let (lower, upper) = ("ab".repeat(32), "AB".repeat(32));
        assert_eq!(check(&format!("sha256:{lower}")), Some(format!("sha256:{lower}")));
        assert_eq!(check(&format!("sha256-{upper}")), Some(format!("sha256:{lower}")));
        for bad in ["", "sha256:", "sha256:..%2f", "md5:00", &lower, &format!("sha256:{lower}0"), "sha256:zz"] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }
}
