//! `POST /api/pull` as Ollama has it, and the list of pulls.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use herd_core::pull::PullRefusal;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;

use super::state::{FailureKind, PullPhase, PullState};
use super::{PullAsk, PullHandle, PullInfo, PullReason};
use crate::answer::{JSON, NDJSON, OLLAMA_JSON, json};
use crate::guard::{ModelOperator, Operator};
use crate::history::{self, Ask};
use crate::ollama::ModelAsk;
use crate::refusal::Refusal;
use crate::state::AdminState;

/// Pulls a model onto the node that it fits best, or onto `node_id`. With `stream: false` the answer comes at the end.
///
/// As with Ollama the pull ends when the client goes; not so when others wait for it, or a request wants it.
pub(crate) async fn pull(
    State(state): State<AdminState>,
    operator: ModelOperator,
    request: Request,
) -> Result<Response, Refusal> {
    let asked = ModelAsk::of(&state, request).await?;
    let mut handle = begun(&state, &operator, &asked)?;
    if asked.streams() {
        return Ok(streamed(handle));
    }
    let end = handle.finished().await;
    match failed(&end.phase) {
        Some(refusal) => Err(refusal),
        None => Ok(json(StatusCode::OK, OLLAMA_JSON, &line_of(&end, handle.node_id.as_str()))),
    }
}

#[derive(Serialize)]
struct Started<'a> {
    /// It has begun; for scripts of ollama-herd.
    ok: bool,
    id: u64,
    model: &'a str,
    node_id: &'a str,
}

/// `POST /dashboard/api/pull`: starts a pull that goes on by itself.
pub(crate) async fn start(
    State(state): State<AdminState>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let asked = ModelAsk::of(&state, request).await?;
    let handle = begun(&state, &operator, &asked)?;
    let started = Started { ok: true, id: handle.id, model: handle.model.as_str(), node_id: handle.node_id.as_str() };
    let response = json(StatusCode::ACCEPTED, JSON, &started);
    handle.keep_running();
    Ok(response)
}

/// Starts the pull that `operator` asks for, or joins the one that runs.
fn begun(state: &AdminState, operator: &Operator, asked: &ModelAsk) -> Result<PullHandle, Refusal> {
    let reason = PullReason::Manual { caller: operator.caller.ip.to_string() };
    let mut ask = PullAsk::new(&asked.name, reason).spelled(&asked.spelling).insecure(asked.flag("insecure"));
    if let Some(id) = asked.text("node_id") {
        ask = ask.on(id);
    }
    let handle = state.pulls().start(ask).map_err(|refusal| refused(&refusal))?;
    state.audit(&operator.actor, "model_pull", &asked.spelling, &format!("on {}", handle.node_id));
    Ok(handle)
}

/// Why no pull was started.
fn refused(refusal: &PullRefusal) -> Refusal {
    let status = match refusal {
        PullRefusal::UnknownNode | PullRefusal::UnknownModel { .. } => StatusCode::NOT_FOUND,
        PullRefusal::Disabled | PullRefusal::NotAllowed { .. } => StatusCode::FORBIDDEN,
        PullRefusal::AlreadyThere | PullRefusal::Busy => StatusCode::CONFLICT,
        PullRefusal::TooLarge { .. } | PullRefusal::NoMemory { .. } | PullRefusal::NoDisk { .. } => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        PullRefusal::NodeUnavailable { .. }
        | PullRefusal::NoNode
        | PullRefusal::TooMany { .. }
        | PullRefusal::DayIsFull { .. }
        | PullRefusal::BackingOff { .. }
        | PullRefusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    let told = Refusal::new(status, refusal.name(), refusal.to_string());
    match refusal {
        PullRefusal::BackingOff { retry_after_ms, .. } => {
            told.with_header(RETRY_AFTER, HeaderValue::from(retry_after_ms.div_ceil(1000)))
        }
        _ => told,
    }
}

/// Why a pull ended without the model. What Ollama itself said has the status that Ollama gives it.
fn failed(phase: &PullPhase) -> Option<Refusal> {
    let (status, code) = match phase {
        PullPhase::Failed(failure) => match failure.kind {
            FailureKind::UnknownModel | FailureKind::Ollama => (StatusCode::INTERNAL_SERVER_ERROR, "pull_failed"),
            FailureKind::TooLarge | FailureKind::NoDisk => (StatusCode::INSUFFICIENT_STORAGE, "no_space"),
            FailureKind::NoProgress => (StatusCode::GATEWAY_TIMEOUT, "no_progress"),
            FailureKind::Node => (StatusCode::BAD_GATEWAY, "node_failed"),
        },
        _ => (StatusCode::SERVICE_UNAVAILABLE, "pull_cancelled"),
    };
    phase.error().map(|message| Refusal::new(status, code, message))
}

#[derive(Serialize)]
struct StatusLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<u64>,
    node_id: &'a str,
}

/// `state` as Ollama would say it.
fn line_of<'a>(state: &'a PullState, node_id: &'a str) -> StatusLine<'a> {
    let error = state.phase.error();
    let layer = state.layer.as_ref().filter(|_| error.is_none());
    StatusLine {
        status: error.is_none().then_some(state.status.as_str()),
        error,
        digest: layer.map(|layer| layer.digest.as_str()),
        total: layer.map(|layer| layer.total_bytes),
        completed: layer.and_then(|layer| layer.completed_bytes),
        node_id,
    }
}

/// One line for each change; a client that reads slowly is told the latest only.
fn streamed(mut handle: PullHandle) -> Response {
    // What is so already is news to this client.
    handle.progress.mark_changed();
    let lines = stream::unfold(Some(handle), |handle| async move {
        let mut handle = handle?;
        loop {
            let state = handle.changed().await;
            if state.phase.is_over() {
                return Some((Ok::<_, Infallible>(line(&state, &handle)), None));
            }
            if !state.status.is_empty() {
                return Some((Ok(line(&state, &handle)), Some(handle)));
            }
        }
    });
    ([(CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
}

fn line(state: &PullState, handle: &PullHandle) -> Bytes {
    let mut text = serde_json::to_vec(&line_of(state, handle.node_id.as_str())).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

#[derive(Serialize)]
struct List {
    /// Models that requests ask for are pulled.
    auto_pull: bool,
    /// The oldest first.
    running: Vec<PullInfo>,
    /// The latest first.
    recent: Vec<PullInfo>,
}

/// All of them as one table.
#[derive(Serialize)]
struct Pulls {
    pulls: Vec<PullInfo>,
}

/// `GET /fleet/pulls`
pub(crate) async fn list(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Response {
    let all = all(&state);
    if !ask.wants_csv() {
        return history::told(&ask, &headers, &all, "recent");
    }
    let pulls = all.running.into_iter().chain(all.recent).collect();
    history::told(&ask, &headers, &Pulls { pulls }, "pulls")
}

/// The same, for events.
pub(crate) fn told(state: &AdminState) -> serde_json::Value {
    serde_json::to_value(all(state)).unwrap_or_default()
}

fn all(state: &AdminState) -> List {
    let (running, recent) = state.pulls().list();
    List { auto_pull: state.pulls().policy().enabled, running, recent }
}

#[derive(Serialize)]
struct Cancelled {
    id: u64,
    cancelled: bool,
}

/// `DELETE /fleet/pulls/{id}`: stops a pull, for all who wait for it.
pub(crate) async fn cancel(
    State(state): State<AdminState>,
    operator: Operator,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Response, Refusal> {
    let unknown = || Refusal::not_found("unknown_pull", "there is no pull of that id under way");
    let Path(id) = id.map_err(|_| unknown())?;
    if !state.pulls().cancel(id, &format!("cancelled by {}", operator.caller.ip)) {
        return Err(unknown());
    }
    state.audit(&operator.actor, "pull_cancel", &id.to_string(), "");
    Ok(json(StatusCode::OK, JSON, &Cancelled { id, cancelled: true }))
}
