//! `GET /fleet/status`: the whole truth about the fleet, as clients of the Python project read it and more.

mod convert;
mod types;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use crate::answer::{JSON, json};
use crate::state::AdminState;

/// The fleet now. Without an `ETag`: ages make every answer another.
pub(crate) async fn status(State(state): State<AdminState>) -> Response {
    let (view, waiting) = (state.view(), state.source().queue().total);
    json(StatusCode::OK, JSON, &convert::fleet_status(&view, waiting, &state.config().version))
}

/// The same, for events.
pub(crate) fn told(state: &AdminState) -> serde_json::Value {
    let (view, waiting) = (state.view(), state.source().queue().total);
    serde_json::to_value(convert::fleet_status(&view, waiting, &state.config().version)).unwrap_or_default()
}
