//! What Prometheus asks for.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use prometheus::{Encoder, TextEncoder};

use crate::caller::Caller;
use crate::refusal::{Refusal, unknown_path};
use crate::state::AdminState;

/// `GET /metrics`, on the admin listener alone: the port that clients reach need not tell them about the fleet.
pub(crate) async fn metrics(State(state): State<AdminState>, caller: Caller) -> Result<Response, Refusal> {
    if caller.via_edge {
        return Err(unknown_path().await);
    }
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    encoder.encode(&state.registry().gather(), &mut text).map_err(|error| {
        tracing::error!(%error, "metrics could not be written");
        Refusal::new(http::StatusCode::INTERNAL_SERVER_ERROR, "internal", "metrics could not be written")
    })?;
    Ok(([(CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response())
}
