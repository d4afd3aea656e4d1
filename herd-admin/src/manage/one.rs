//! `POST /api/create` and `POST /api/push`: on one node, whose lines are passed on.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use herd_core::fleet::{ModelChange, Node};
use herd_core::name::ModelName;
use herd_core::places::Place;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::pick::{About, named, one};
use crate::answer::{JSON, NDJSON, OLLAMA_JSON};
use crate::body;
use crate::guard::ModelOperator;
use crate::nodes::NodeError;
use crate::ollama::{ASKS_OF_ONE, Holder, ModelAsk, response};
use crate::refusal::Refusal;
use crate::state::AdminState;

/// Largest body of a create: a template, a system prompt and a licence. Files are sent before it.
const CREATE_BODY_BYTES: usize = 1 << 20;
/// Longest silence of a node that creates or pushes a model: it says nothing while it converts or quantises a layer.
const SILENCE: Duration = Duration::from_mins(10);
/// Longest that either may take: what is pushed may be hundreds of gigabytes.
const LIMIT: Duration = Duration::from_hours(24);
/// The last word of a node that has done it. It comes in one piece with its line, or in two.
const SUCCESS: &[u8] = br#""status":"success""#;

/// `POST /api/create`
pub(crate) async fn create(
    State(state): State<AdminState>,
    operator: ModelOperator,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    let body = body::read(request.into_body(), CREATE_BODY_BYTES, state.config().body_timeout).await?;
    let asked = ModelAsk::read(&body)?;
    let files: Vec<&str> = asked.texts_of("files").chain(asked.texts_of("adapters")).collect();
    let from = asked.text("from").and_then(|from| ModelName::asked(from).ok());
    let about = About {
        node: named(asked.text("node_id"), &headers),
        files: &files,
        needs: from.as_ref(),
        makes: Some(&asked.name),
    };
    let view = state.view();
    let node = one(&state, &view, &operator.caller, &about)?;
    state.sequences().goes_on(operator.caller.ip, node.id.as_str(), view.now_ms);
    state.audit(&operator.actor, "model_create", asked.name.as_str(), &format!("on {}", node.id));
    let made = {
        let (state, id, name) = (state.clone(), node.id.clone(), asked.name.clone());
        move || state.source().model_changed(id.as_str(), &name, ModelChange::Added { from: from.as_ref() })
    };
    relayed(&state, node, "/api/create", body, made).await
}

/// `POST /api/push`
pub(crate) async fn push(
    State(state): State<AdminState>,
    operator: ModelOperator,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    let body = body::read(request.into_body(), CREATE_BODY_BYTES, state.config().body_timeout).await?;
    let asked = ModelAsk::read(&body)?;
    let view = state.view();
    let about = About { node: named(asked.text("node_id"), &headers), needs: Some(&asked.name), ..About::default() };
    let node = one(&state, &view, &operator.caller, &about)?;
    if view.model(node, &asked.name).is_none() {
        return Err(Refusal::not_found("model_not_found", format!("model '{}' not found", asked.spelling)));
    }
    state.audit(&operator.actor, "model_push", asked.name.as_str(), &format!("from {}", node.id));
    relayed(&state, node, "/api/push", body, || {}).await
}

/// The answer of `node` to `body` on `path`; `succeeded` is called before the client hears of success.
async fn relayed(
    state: &AdminState,
    node: &Node,
    path: &str,
    body: Bytes,
    succeeded: impl FnOnce() + Send + 'static,
) -> Result<Response, Refusal> {
    let holder = Holder::of(node);
    let busy = |full| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", format!("{full} at node {}", node.id));
    let place = state.asks().take_for(holder.id.clone(), ASKS_OF_ONE).map_err(busy)?;
    let request = state.nodes().post(holder.url(path)).header(CONTENT_TYPE, JSON).body(body).timeout(LIMIT);
    let answer = tokio::time::timeout(SILENCE, request.send()).await;
    let silent = |why: String| NodeError::Silent(why).refusal();
    let answer = answer.map_err(|_| silent("it said nothing in time".to_owned()))?;
    let answer = answer.map_err(|error| silent(error.without_url().to_string()))?;
    let (status, kind) = (answer.status(), kind(&answer));
    let lines = Lines { answer, tail: Vec::new(), succeeded: Some(succeeded), _place: place };
    let pieces = stream::unfold(Some(lines), |lines| async move {
        let mut lines = lines?;
        match lines.next().await.transpose()? {
            Ok(piece) => Some((Ok(piece), Some(lines))),
            // Only a connection that breaks off tells the client.
            Err(error) => Some((Err(error), None)),
        }
    });
    let mut response = response(status, &holder.id, Body::from_stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// What the answer is: lines, or one object; a node could say that it is a page.
fn kind(answer: &reqwest::Response) -> HeaderValue {
    let said = answer.headers().get(CONTENT_TYPE).and_then(|said| said.to_str().ok()).unwrap_or_default();
    if said.starts_with("application/x-ndjson") { NDJSON } else { OLLAMA_JSON }
}

/// The lines of a node on their way.
struct Lines<F> {
    answer: reqwest::Response,
    /// The end of what has passed.
    tail: Vec<u8>,
    succeeded: Option<F>,
    _place: Place<String>,
}

impl<F: FnOnce()> Lines<F> {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let piece = match tokio::time::timeout(SILENCE, self.answer.chunk()).await {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Err(io::Error::other(error.without_url())),
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the node said nothing for too long")),
        };
        let Some(piece) = piece else { return Ok(None) };
        self.tail.extend_from_slice(&piece);
        let says_so = self.tail.windows(SUCCESS.len()).any(|window| window == SUCCESS);
        if says_so && let Some(succeeded) = self.succeeded.take() {
            succeeded();
        }
        let kept = self.tail.len().saturating_sub(SUCCESS.len());
        self.tail.drain(..kept);
        Ok(Some(piece))
    }
}
