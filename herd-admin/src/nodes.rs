//! What an operator does to a node: take it out for new requests, and put it back.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use crate::answer::{JSON, json};
use crate::guard::Operator;
use crate::refusal::Refusal;
use crate::state::AdminState;

#[derive(Serialize)]
struct Cordon<'a> {
    node_id: &'a str,
    cordoned: bool,
}

/// No new requests for the node; running ones finish. It stays so through its next heartbeats.
pub(crate) async fn drain(
    State(state): State<AdminState>,
    operator: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    cordon(&state, &operator, id, true)
}

/// The node takes requests again.
pub(crate) async fn undrain(
    State(state): State<AdminState>,
    operator: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    cordon(&state, &operator, id, false)
}

fn cordon(
    state: &AdminState,
    operator: &Operator,
    id: Result<Path<String>, PathRejection>,
    cordoned: bool,
) -> Result<Response, Refusal> {
    let unknown = || Refusal::not_found("unknown_node", "there is no node of that id");
    let Path(id) = id.map_err(|_| unknown())?;
    if !state.source().set_cordon(&id, cordoned) {
        return Err(unknown());
    }
    state.audit(&operator.actor, if cordoned { "node_drain" } else { "node_undrain" }, &id, "");
    Ok(json(StatusCode::OK, JSON, &Cordon { node_id: &id, cordoned }))
}
