//! Single requests.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{csv, refused, store};
use crate::answer::{JSON, json};
use crate::refusal::Refusal;
use crate::state::AdminState;
use crate::store::{AttemptRecord, TraceFilter, TraceRecord};

/// Traces of a page when no number is said.
const PAGE: u32 = 100;
/// Most traces of a page.
const PAGE_MAX: u32 = 1_000;

/// Which requests. Those of benchmarks only when they are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ask {
    model: Option<String>,
    node: Option<String>,
    status: Option<String>,
    tag: Option<String>,
    app: Option<String>,
    surface: Option<String>,
    client: Option<String>,
    key_id: Option<String>,
    benchmark: bool,
    from_unix_ms: Option<u64>,
    to_unix_ms: Option<u64>,
    limit: Option<u32>,
    cursor: Option<String>,
    format: Option<String>,
}

impl Ask {
    fn csv(&self) -> bool {
        self.format.as_deref() == Some("csv")
    }

    fn filter(&self) -> TraceFilter {
        TraceFilter {
            model: self.model.clone(),
            node_id: self.node.clone(),
            status: self.status.clone(),
            tag: self.tag.clone(),
            app: self.app.clone(),
            format: self.surface.clone(),
            client_ip: self.client.clone(),
            key_id: self.key_id.clone(),
            benchmark: Some(self.benchmark),
            from_ms: self.from_unix_ms,
            to_ms: self.to_unix_ms,
        }
    }
}

#[derive(Serialize)]
struct Page {
    traces: Vec<Row>,
    next_cursor: Option<String>,
}

/// One request in a list.
#[derive(Serialize)]
struct Row {
    request_id: String,
    at_unix_ms: u64,
    surface: String,
    original_model: String,
    model: String,
    node_id: String,
    status: String,
    http_status: u16,
    latency_ms: f64,
    queue_ms: Option<f64>,
    /// From the request read to the first byte of its answer.
    ttft_ms: Option<f64>,
    load_ms: Option<f64>,
    predicted_ms: Option<f64>,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    score: Option<f64>,
    retry_count: u32,
    stand_in: Option<String>,
    context_action: Option<String>,
    reload_cause: Option<String>,
    num_ctx: Option<u64>,
    context_length: Option<u64>,
    app: String,
    tags: Vec<String>,
    client_ip: String,
    error_message: Option<String>,
    stream: Option<bool>,
    benchmark: bool,
}

fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl From<TraceRecord> for Row {
    fn from(trace: TraceRecord) -> Self {
        let ttft_ms = trace.time_to_first_token_ms.map(|ms| ms + trace.queue_ms.unwrap_or_default());
        Self {
            request_id: trace.request_id,
            at_unix_ms: trace.timestamp_ms,
            surface: trace.original_format,
            original_model: trace.original_model,
            model: trace.model,
            node_id: trace.node_id,
            status: trace.status,
            http_status: trace.http_status,
            latency_ms: trace.latency_ms,
            queue_ms: trace.queue_ms,
            ttft_ms,
            load_ms: trace.load_ms,
            predicted_ms: trace.predicted_ms,
            prompt_tokens: trace.prompt_tokens,
            completion_tokens: trace.completion_tokens,
            score: trace.score,
            retry_count: trace.retry_count,
            stand_in: said(trace.stand_in),
            context_action: said(trace.context_action),
            reload_cause: said(trace.reload_cause),
            num_ctx: trace.num_ctx,
            context_length: trace.context_length,
            app: trace.app,
            tags: trace.tags,
            client_ip: trace.client_ip,
            error_message: trace.error_message,
            stream: trace.stream,
            benchmark: trace.benchmark,
        }
    }
}

/// `GET /dashboard/api/traces`: requests that are over, the newest first, page by page.
pub(crate) async fn traces(
    State(state): State<AdminState>,
    asked: Result<Query<Ask>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(ask) = asked.map_err(|error| Refusal::bad_request("query", error.body_text()))?;
    if !matches!(ask.format.as_deref(), None | Some("json" | "csv")) {
        return Err(Refusal::bad_request("format", "`format` is `json` or `csv`"));
    }
    let limit = ask.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let page = store(&state)?.traces(ask.filter(), ask.cursor.as_deref(), limit).await.map_err(refused)?;
    let traces: Vec<_> = page.traces.into_iter().map(Row::from).collect();
    if ask.csv() {
        return Ok(csv::table(&traces));
    }
    Ok(json(StatusCode::OK, JSON, &Page { traces, next_cursor: page.next_cursor }))
}

#[derive(Serialize)]
struct Whole {
    trace: More,
    attempts: Vec<AttemptRecord>,
    /// As they were ranked, the best first; null = nothing was ranked, or it was too much to keep.
    candidates: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct More {
    request_bytes: u64,
    response_bytes: u64,
    user_agent: String,
    key_id: Option<String>,
    priority: String,
    finish_reason: Option<String>,
    estimated_tokens: Option<u64>,
    #[serde(flatten)]
    row: Row,
}

/// `GET /dashboard/api/traces/{request_id}`: one request, its attempts, and why it went where.
pub(crate) async fn trace(
    State(state): State<AdminState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let unknown = || Refusal::not_found("unknown_trace", "no request of that id is over and kept");
    let Path(request_id) = id.map_err(|_| unknown())?;
    let mut trace = store(&state)?.trace(&request_id).await.map_err(refused)?.ok_or_else(unknown)?;
    let candidates = trace.scores_breakdown.take().and_then(|json| RawValue::from_string(json).ok());
    let attempts = std::mem::take(&mut trace.attempts);
    let more = More {
        request_bytes: trace.request_bytes,
        response_bytes: trace.response_bytes,
        user_agent: std::mem::take(&mut trace.user_agent),
        key_id: said(std::mem::take(&mut trace.key_id)),
        priority: std::mem::take(&mut trace.priority),
        finish_reason: said(std::mem::take(&mut trace.finish_reason)),
        estimated_tokens: trace.estimated_tokens,
        row: trace.into(),
    };
    Ok(json(StatusCode::OK, JSON, &Whole { trace: more, attempts, candidates }))
}
