//! `GET /dashboard/api/traces` and `/traces/{request_id}`: single requests.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use herd_store::TraceFilter;
use http::HeaderMap;
use serde::Serialize;

use super::ask::Ask;
use super::shapes::{OneTrace, TraceRow};
use super::told;
use crate::answer::{JSON, json_if_changed};
use crate::refusal::Refusal;
use crate::state::AdminState;

/// Most requests of a page.
const PAGE_MAX: u64 = 1_000;
/// And when nothing is said.
const PAGE: u32 = 100;

#[derive(Serialize)]
struct Page<'a> {
    traces: Vec<TraceRow<'a>>,
    next_cursor: Option<&'a str>,
}

/// The newest first. A page can be short, or empty, and yet not be the last: `next_cursor` is null then only.
pub(crate) async fn traces(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Result<Response, Refusal> {
    let span = ask.span()?;
    // `format` names the form of the answer too.
    let surface = ask.text("surface").or_else(|| ask.text("format").filter(|one| one != "csv" && one != "json"));
    let filter = TraceFilter {
        model: ask.text("model"),
        node_id: ask.text("node"),
        status: ask.text("status"),
        tag: ask.text("tag"),
        app: ask.text("app"),
        format: surface,
        client_ip: ask.text("client"),
        key_id: ask.text("key"),
        benchmark: Some(ask.flag("benchmark")),
        from_ms: span.map(|(from_ms, _)| from_ms),
        to_ms: span.map(|(_, to_ms)| to_ms),
    };
    let limit = ask.number("limit", 1, PAGE_MAX)?.map_or(PAGE, |limit| u32::try_from(limit).unwrap_or(PAGE));
    let cursor = ask.text("cursor");
    let page = state.store()?.traces(filter, cursor.as_deref(), limit).await;
    let page = page.map_err(|error| state.store_refusal(&error))?;
    let answer =
        Page { traces: page.traces.iter().map(TraceRow::from).collect(), next_cursor: page.next_cursor.as_deref() };
    Ok(told(&ask, &headers, &answer, "traces"))
}

/// One request with its attempts, and the signals of all nodes that were ranked for it.
pub(crate) async fn trace(
    State(state): State<AdminState>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let unknown = || Refusal::not_found("unknown_request", "no request of that id is kept");
    let Path(request_id) = id.map_err(|_| unknown())?;
    let found = state.store()?.trace(&request_id).await.map_err(|error| state.store_refusal(&error))?;
    let record = found.ok_or_else(unknown)?;
    Ok(json_if_changed(&headers, JSON, &OneTrace::from(&record)))
}
