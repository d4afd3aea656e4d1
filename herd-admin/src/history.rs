//! What was: the trace store as the dashboard and scripts ask it. All of it only reads.

mod apps;
mod ask;
mod models;
mod overview;
mod shapes;
mod traces;

use axum::response::{IntoResponse, Response};
use herd_store::{StoreError, StoreHandle};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;

pub(crate) use apps::{apps, daily, usage};
pub(crate) use ask::Ask;
pub(crate) use models::{context_usage, models};
pub(crate) use overview::{Now, overview, trends};
pub(crate) use shapes::TraceRow;
pub(crate) use traces::{trace, traces};

use crate::answer::{JSON, json_if_changed};
use crate::csv::csv;
use crate::refusal::Refusal;
use crate::state::AdminState;

impl AdminState {
    /// The trace store.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn store(&self) -> Result<&StoreHandle, Refusal> {
        self.config().store.as_ref().ok_or_else(|| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "store_disabled", "the trace store is switched off")
        })
    }

    /// Why the store did not answer, with what is wrong with it.
    pub(crate) fn store_refusal(&self, error: &StoreError) -> Refusal {
        if *error == StoreError::Cursor {
            return Refusal::bad_request("invalid_cursor", error.to_string());
        }
        let health = self.config().store.as_ref().map(StoreHandle::health);
        let reason = health.and_then(|health| health.last_error);
        let message = reason.map_or_else(|| error.to_string(), |reason| format!("{error}: {reason}"));
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message)
    }
}

/// `value` as JSON, or its list `rows` as CSV when the request wants that.
pub(crate) fn told(ask: &Ask, headers: &HeaderMap, value: &impl Serialize, rows: &'static str) -> Response {
    if !ask.wants_csv() {
        return json_if_changed(headers, JSON, value);
    }
    let value = serde_json::to_value(value).unwrap_or_default();
    let rows = value.get(rows).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"herd.csv\"")),
    ];
    (headers, csv(rows)).into_response()
}
