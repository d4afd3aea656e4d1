//! What the dashboard reads of requests that are over: sums over a range, and single requests.
//!
//! Sums come in whole hours, as the store keeps them: a range is widened to the hours that it touches.

mod ask;
mod csv;
mod shape;
mod totals;
mod traces;

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::answer::{JSON, json_if_changed};
use crate::refusal::Refusal;
use crate::state::AdminState;
use crate::store::{StoreError, StoreHandle};

pub(crate) use totals::{apps, apps_daily, context_usage, models, overview, trends, usage};
pub(crate) use traces::{trace, traces};

fn store(state: &AdminState) -> Result<&StoreHandle, Refusal> {
    let none = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no_store", "this herd keeps no traces");
    state.config().store.as_ref().ok_or_else(none)
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn refused(error: StoreError) -> Refusal {
    let (status, code) = match error {
        StoreError::Cursor => (StatusCode::BAD_REQUEST, "invalid_cursor"),
        StoreError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        StoreError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "store_busy"),
        StoreError::Deadline => (StatusCode::SERVICE_UNAVAILABLE, "store_deadline"),
        StoreError::Damaged | StoreError::Failed(_) => {
            tracing::error!(%error, "the trace store did not answer");
            let message = "the trace store failed; the log says how";
            return Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", message);
        }
    };
    Refusal::new(status, code, error.to_string())
}

/// `whole` as JSON, or its `rows` alone as CSV.
fn told(headers: &HeaderMap, as_csv: bool, whole: &impl Serialize, rows: &[impl Serialize]) -> Response {
    if as_csv { csv::table(rows) } else { json_if_changed(headers, JSON, whole) }
}
