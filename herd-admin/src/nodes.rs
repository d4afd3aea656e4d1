//! What an operator does to a node: take it out for new requests and put it back, unload or delete one of its models,
//! or forget it.

use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use herd_core::fleet::{Model, ModelChange, Node};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::answer::{JSON, json as answer};
use crate::guard::Operator;
use crate::node_calls::error_of;
use crate::node_facts::shown_name;
use crate::ollama::ModelAsk;
use crate::refusal::Refusal;
use crate::state::AdminState;
use crate::view::View;

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
    let Path(id) = id.map_err(|_| unknown())?;
    if !state.source().set_cordon(&id, cordoned) {
        return Err(unknown());
    }
    state.audit(&operator.actor, if cordoned { "node_drain" } else { "node_undrain" }, &id, "");
    Ok(answer(StatusCode::OK, JSON, &Cordon { node_id: &id, cordoned }))
}

fn unknown() -> Refusal {
    Refusal::not_found("unknown_node", "there is no node of that id")
}

#[derive(Serialize)]
struct Removed<'a> {
    node_id: &'a str,
    removed: bool,
}

/// Forgets a node. Its requests finish; it is back with its next heartbeat, so stop its agent first, or drain it.
pub(crate) async fn remove(
    State(state): State<AdminState>,
    operator: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(id) = id.map_err(|_| unknown())?;
    if !state.source().remove(&id) {
        return Err(unknown());
    }
    state.audit(&operator.actor, "node_remove", &id, "");
    Ok(answer(StatusCode::OK, JSON, &Removed { node_id: &id, removed: true }))
}

#[derive(Serialize)]
struct Done<'a> {
    node_id: &'a str,
    model: &'a str,
    unloaded: bool,
}

/// Takes a model out of the node's memory. Not while it works or is pinned, unless `force` is true.
pub(crate) async fn unload(
    State(state): State<AdminState>,
    operator: Operator,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path(id) = id.map_err(|_| unknown())?;
    let asked = ModelAsk::of(&state, request).await?;
    let view = state.view();
    let (node, model) = model_on(&view, &id, &asked)?;
    if !asked.flag("force") {
        is_free(&state, node, model)?;
    }
    // A request without a prompt that keeps the model for no time unloads it.
    let body = json!({ "model": shown_name(model), "keep_alive": 0, "stream": false });
    let limit = state.config().node_timeout;
    ask_node(&state, node, Method::POST, "/api/generate", &body, limit).await.map_err(|error| error.refusal())?;
    state.source().model_changed(&id, &model.name, ModelChange::Unloaded);
    state.audit(&operator.actor, "model_unload", model.name.as_str(), &format!("on {id}"));
    Ok(answer(StatusCode::OK, JSON, &Done { node_id: &id, model: model.name.as_str(), unloaded: true }))
}

#[derive(Serialize)]
struct Gone<'a> {
    /// For scripts of ollama-herd.
    ok: bool,
    deleted: bool,
    node_id: &'a str,
    model: &'a str,
}

/// `POST /dashboard/api/delete`: deletes a model from a node's disk. Not while it works or is pinned, unless `force`.
pub(crate) async fn delete_model(
    State(state): State<AdminState>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let asked = ModelAsk::of(&state, request).await?;
    let id = asked.text("node_id").ok_or_else(|| Refusal::bad_request("invalid_request", "node_id is required"))?;
    let view = state.view();
    let (node, model) = model_on(&view, id, &asked)?;
    if !asked.flag("force") {
        is_free(&state, node, model)?;
    }
    let body = json!({ "model": shown_name(model) });
    let limit = state.config().node_timeout;
    ask_node(&state, node, Method::DELETE, "/api/delete", &body, limit).await.map_err(|error| error.refusal())?;
    state.source().model_changed(id, &model.name, ModelChange::Removed);
    state.audit(&operator.actor, "model_delete", model.name.as_str(), &format!("on {id}"));
    Ok(answer(StatusCode::OK, JSON, &Gone { ok: true, deleted: true, node_id: id, model: model.name.as_str() }))
}

fn model_on<'a>(view: &'a View, id: &str, asked: &ModelAsk) -> Result<(&'a Node, &'a Model), Refusal> {
    let node = view.snapshot.node(id).ok_or_else(unknown)?;
    let missing = || Refusal::not_found("model_not_found", format!("model '{}' is not on {id}", asked.name));
    Ok((node, node.model(&asked.name).ok_or_else(missing)?))
}

/// Whether nobody would miss the model there.
fn is_free(state: &AdminState, node: &Node, model: &Model) -> Result<(), Refusal> {
    let conflict = |code, message: &str| Refusal::new(StatusCode::CONFLICT, code, message);
    let by_others = model.resident.as_ref().map_or(0, |resident| resident.busy_by_others);
    if model.load.in_flight() > 0 || by_others > 0 {
        return Err(conflict("busy", "the model answers requests there; force: true does it all the same"));
    }
    if state.pins().is_pinned(node.id.as_str(), model.name.as_str()) {
        return Err(conflict("pinned", "the model is pinned there; unpin it first"));
    }
    Ok(())
}

/// Why a node did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// It did not answer.
    #[error("the node did not answer: {0}")]
    Silent(String),
    /// It answered with an error.
    #[error("the node answered {status}: {message}")]
    Refused { status: StatusCode, message: String },
}

impl NodeError {
    pub(crate) fn refusal(&self) -> Refusal {
        Refusal::new(StatusCode::BAD_GATEWAY, "node_failed", self.to_string())
    }
}

/// Has the Ollama of `node` do something that has no answer but whether it worked.
pub(crate) async fn ask_node(
    state: &AdminState,
    node: &Node,
    method: Method,
    path: &str,
    body: &Value,
    limit: Duration,
) -> Result<(), NodeError> {
    let request = state.nodes().request(method, format!("http://{}{path}", node.address));
    let request = request.header(CONTENT_TYPE, JSON).body(body.to_string()).timeout(limit);
    let silent = |error: reqwest::Error| NodeError::Silent(error.without_url().to_string());
    let response = request.send().await.map_err(silent)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    Err(NodeError::Refused { status, message: error_of(response).await })
}
