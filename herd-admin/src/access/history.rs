//! `GET /dashboard/api/audit`: who changed what, from the store.

use axum::extract::State;
use axum::response::Response;
use herd_store as store;
use http::HeaderMap;
use serde::Serialize;

use crate::history::{Ask, told};
use crate::refusal::Refusal;
use crate::state::AdminState;

/// Entries of an answer when nothing is said.
const ENTRIES: u64 = 100;
/// And at the most.
const ENTRIES_MAX: u64 = 1_000;

#[derive(Serialize)]
struct Page {
    entries: Vec<Entry>,
    /// Where the next, older entries begin; null = there are none.
    next_cursor: Option<u64>,
}

#[derive(Serialize)]
struct Entry {
    id: u64,
    at_unix_ms: u64,
    actor: String,
    action: String,
    target: String,
    detail: String,
}

impl From<store::AuditEntry> for Entry {
    fn from(entry: store::AuditEntry) -> Self {
        let store::AuditEntry { id, timestamp_ms, actor, action, target, detail } = entry;
        Self { id, at_unix_ms: timestamp_ms, actor, action, target, detail }
    }
}

/// The latest changes, newest first; `cursor` goes on where an answer ended.
pub(crate) async fn audit(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Result<Response, Refusal> {
    let limit = ask.number("limit", 1, ENTRIES_MAX)?.unwrap_or(ENTRIES);
    let before = ask.number("cursor", 0, u64::MAX)?;
    let rows = u32::try_from(limit).unwrap_or(u32::MAX);
    let entries = state.store()?.audit(before, rows).await.map_err(|error| state.store_refusal(&error))?;
    let is_full = entries.len() as u64 == limit;
    let next_cursor = entries.last().filter(|_| is_full).map(|entry| entry.id);
    let page = Page { entries: entries.into_iter().map(Entry::from).collect(), next_cursor };
    Ok(told(&ask, &headers, &page, "entries"))
}
