//! `POST /fleet/pin`, `DELETE /fleet/pin/{model}` and `GET /dashboard/api/pinned-models`.

use std::cmp::Reverse;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use herd_core::fleet::{Model, Node};
use herd_core::name::ModelName;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::book::{Pin, objection, size_of};
use crate::answer::{JSON, json};
use crate::guard::Operator;
use crate::history::{Ask, told};
use crate::node_facts::{model_named, takes_requests};
use crate::ollama::ModelAsk;
use crate::refusal::Refusal;
use crate::state::AdminState;
use crate::view::View;
use herd_store::unix_ms;

#[derive(Serialize)]
struct Pinned<'a> {
    model: &'a str,
    node_id: &'a str,
    /// It holds after a restart.
    persisted: bool,
}

/// Keeps a model in the memory of `node_id`, or of the node that suits best. `force` = whatever memory there is.
pub(crate) async fn pin(
    State(state): State<AdminState>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let asked = ModelAsk::of(&state, request).await?;
    state.pins().restore(state.config().store.as_ref()).await;
    let view = state.view();
    let (node, model) = place(&view, &asked.name, asked.text("node_id"))?;
    if !asked.flag("force")
        && let Some(why) = objection(node, model, &state.pins().all())
    {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            "no_memory",
            format!("{why}; force: true pins it all the same"),
        ));
    }
    let (model, node_id) = (model.name.to_string(), node.id.to_string());
    let by = operator.actor.to_string();
    let pin = Pin { model: model.clone(), node_id: node_id.clone(), since_unix_ms: unix_ms(), by };
    if !state.pins().add(pin) {
        return Err(Refusal::new(StatusCode::CONFLICT, "too_many", "there are too many pins"));
    }
    state.pins().changed(&view.snapshot);
    let persisted = state.pins().save(state.config().store.as_ref()).await;
    state.audit(&operator.actor, "model_pin", &model, &format!("on {node_id}"));
    Ok(json(StatusCode::OK, JSON, &Pinned { model: &model, node_id: &node_id, persisted }))
}

fn place<'a>(view: &'a View, name: &ModelName, node_id: Option<&str>) -> Result<(&'a Node, &'a Model), Refusal> {
    let no_model = |place: &str| Refusal::not_found("model_not_found", format!("model '{name}' is not on {place}"));
    if let Some(id) = node_id {
        let node = view.snapshot.node(id);
        let node = node.ok_or_else(|| Refusal::not_found("unknown_node", "there is no node of that id"))?;
        return Ok((node, node.model(name).ok_or_else(|| no_model(id))?));
    }
    let holders = view.snapshot.nodes.iter().filter_map(|node| Some((node.as_ref(), node.model(name)?)));
    // Where it is already, else where most memory is free; of equals the first.
    let best = holders.min_by_key(|(node, model)| {
        let ready = takes_requests(node, &view.policy, view.now_ms);
        (Reverse(ready), Reverse(model.resident.is_some()), Reverse(node.device.free_bytes))
    });
    best.ok_or_else(|| no_model("any node"))
}

#[derive(Serialize)]
struct Unpinned<'a> {
    model: &'a str,
    nodes: Vec<String>,
    persisted: bool,
}

/// The model may be unloaded again, on `?node_id` only if that is given. It is not unloaded for that, and goes when it
/// has been idle for as long as Ollama keeps models.
pub(crate) async fn unpin(
    State(state): State<AdminState>,
    operator: Operator,
    model: Result<Path<String>, PathRejection>,
    ask: Ask,
) -> Result<Response, Refusal> {
    let unknown = || Refusal::not_found("not_pinned", "no such model is pinned");
    let Path(model) = model.map_err(|_| unknown())?;
    let name = ModelName::new(&model).map_err(|_| unknown())?;
    state.pins().restore(state.config().store.as_ref()).await;
    let nodes = state.pins().remove(name.as_str(), ask.text("node_id").as_deref());
    if nodes.is_empty() {
        return Err(unknown());
    }
    state.pins().changed(&state.view().snapshot);
    let persisted = state.pins().save(state.config().store.as_ref()).await;
    state.audit(&operator.actor, "model_unpin", name.as_str(), &format!("on {}", nodes.join(", ")));
    Ok(json(StatusCode::OK, JSON, &Unpinned { model: name.as_str(), nodes, persisted }))
}

#[derive(Serialize)]
struct List {
    pinned: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    pin: Pin,
    loaded: bool,
    size_bytes: Option<u64>,
    failures: u32,
    /// Why it is not loaded; null = it is, or will be.
    trouble: Option<String>,
}

/// All pins, and how they fare.
pub(crate) async fn list(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Response {
    let view = state.view();
    let row = |pin: Pin| {
        let model = view.snapshot.node(&pin.node_id).and_then(|node| model_named(node, &pin.model));
        let trouble = state.pins().trouble(&pin);
        Row {
            loaded: model.is_some_and(|model| model.resident.is_some()),
            size_bytes: model.and_then(size_of),
            failures: trouble.as_ref().map_or(0, |trouble| trouble.failures),
            trouble: trouble.map(|trouble| trouble.reason),
            pin,
        }
    };
    let pinned = state.pins().all().into_iter().map(row).collect();
    told(&ask, &headers, &List { pinned }, "pinned")
}
