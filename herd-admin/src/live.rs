//! `GET /dashboard/api/requests`: requests under way; `DELETE /dashboard/api/requests/{request_id}` ends one.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use herd_core::name::ModelName;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::answer::{JSON, json};
use crate::guard::Operator;
use crate::history::{self, Ask};
use crate::refusal::Refusal;
use crate::state::AdminState;

/// Most requests in one answer.
const REQUESTS_MAX: usize = 1_000;
/// And when nothing is said.
const REQUESTS: usize = 200;

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LivePhase {
    /// It waits at the edge.
    Queued,
    /// A node is asked and has not answered yet: it loads or reads the prompt.
    Prefill,
    /// Its answer comes.
    Decode,
}

impl LivePhase {
    /// The phase of which `as u8` made `number`; anything else counts as queued.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Prefill,
            2 => Self::Decode,
            _ => Self::Queued,
        }
    }
}

/// One request under way.
#[derive(Debug, Clone)]
pub struct LiveView {
    /// Its id.
    pub request_id: Arc<str>,
    /// The API that it came in on.
    pub surface: &'static str,
    /// The model that it asks for.
    pub model: ModelName,
    /// The node that is asked; `None` = none yet.
    pub node_id: Option<String>,
    /// How far it is.
    pub phase: LivePhase,
    /// `interactive` or `batch`.
    pub class: &'static str,
    /// Whether its answer is streamed.
    pub stream: bool,
    /// Estimated tokens of its prompt.
    pub prompt_tokens: u64,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it began, by the edge's clock.
    pub began_ms: u64,
    /// Bytes of its answer so far.
    pub response_bytes: u64,
}

#[derive(Serialize)]
struct Requests {
    total: usize,
    requests: Vec<LiveRequest>,
}

#[derive(Serialize)]
struct LiveRequest {
    request_id: String,
    surface: &'static str,
    model: String,
    node_id: Option<String>,
    phase: LivePhase,
    class: &'static str,
    stream: bool,
    prompt_tokens: u64,
    tags: Vec<String>,
    age_ms: u64,
    response_bytes: u64,
}

impl LiveRequest {
    fn of(view: LiveView, now_ms: u64) -> Self {
        Self {
            request_id: view.request_id.to_string(),
            surface: view.surface,
            model: view.model.to_string(),
            node_id: view.node_id,
            phase: view.phase,
            class: view.class,
            stream: view.stream,
            prompt_tokens: view.prompt_tokens,
            tags: view.tags,
            age_ms: now_ms.saturating_sub(view.began_ms),
            response_bytes: view.response_bytes,
        }
    }
}

/// Requests under way, oldest first. `limit` is clamped to 1 to 1,000.
pub(crate) async fn requests(
    State(state): State<AdminState>,
    ask: Ask,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let most = ask
        .number("limit", 1, REQUESTS_MAX as u64)?
        .map_or(REQUESTS, |most| usize::try_from(most).unwrap_or(REQUESTS_MAX));
    Ok(history::told(&ask, &headers, &under_way(&state, most), "requests"))
}

/// The same, for events.
pub(crate) fn told(state: &AdminState, most: usize) -> serde_json::Value {
    serde_json::to_value(under_way(state, most)).unwrap_or_default()
}

fn under_way(state: &AdminState, most: usize) -> Requests {
    let (now_ms, (total, live)) = (state.source().now_ms(), state.source().live(most));
    Requests { total, requests: live.into_iter().map(|view| LiveRequest::of(view, now_ms)).collect() }
}

#[derive(Serialize)]
struct Cancelled {
    request_id: String,
    cancelled: usize,
}

/// Ends a request: its node is let go, its slot freed, and its client told.
pub(crate) async fn cancel(
    State(state): State<AdminState>,
    operator: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let unknown = || Refusal::not_found("unknown_request", "no request of that id is under way");
    let Path(request_id) = id.map_err(|_| unknown())?;
    let cancelled = state.source().cancel(&request_id);
    if cancelled == 0 {
        return Err(unknown());
    }
    state.audit(&operator.actor, "request_cancel", &request_id, "");
    Ok(json(StatusCode::OK, JSON, &Cancelled { request_id, cancelled }))
}
