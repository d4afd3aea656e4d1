//! `POST /api/show`: the model card, asked of a node that has the model; and `GET /api/status`.

use std::cmp::Reverse;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use herd_core::name::ModelName;
use http::{Method, StatusCode};

use super::relay::{ATTEMPTS, Holder, ask};
use crate::body;
use crate::catalogue::reachable;
use crate::health::NO_NODES;
use crate::node_facts::takes_requests;
use crate::ollama::ModelAsk;
use crate::refusal::Refusal;
use crate::state::AdminState;
use crate::view::View;

/// Asks the best node, then the next when it does not answer, fails, or has lost the model. The last answer stands.
pub(crate) async fn show(State(state): State<AdminState>, request: Request) -> Result<Response, Refusal> {
    let config = state.config();
    let body = body::read(request.into_body(), config.show_body_bytes, config.body_timeout).await?;
    let name = ModelAsk::read(&body)?.name;
    let nodes = holders(&state.view(), &name);
    if nodes.is_empty() {
        return Err(Refusal::not_found("model_not_found", format!("model '{name}' not found")));
    }
    // One limit over all attempts: a client waits no longer because more nodes are out.
    let asked = tokio::time::timeout(config.node_timeout, ask(&state, &nodes, Method::POST, "/api/show", &body)).await;
    asked.ok().flatten().ok_or_else(|| {
        let message = format!("no node with model '{name}' answered, or they answer many already");
        Refusal::new(StatusCode::BAD_GATEWAY, "no_answer", message)
    })
}

/// `GET /api/status`: whether Ollama's cloud is on, as the first node says that answers.
pub(crate) async fn status(State(state): State<AdminState>) -> Result<Response, Refusal> {
    let view = state.view();
    let mut nodes: Vec<_> = reachable(&view).collect();
    if nodes.is_empty() {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no_nodes", NO_NODES));
    }
    nodes.sort_by_key(|node| Reverse(takes_requests(node, &view.policy, view.now_ms)));
    let nodes: Vec<Holder> = nodes.into_iter().take(ATTEMPTS).map(Holder::of).collect();
    let nothing = Bytes::new();
    let ask = ask(&state, &nodes, Method::GET, "/api/status", &nothing);
    let asked = tokio::time::timeout(state.config().node_timeout, ask).await;
    asked.ok().flatten().ok_or_else(|| Refusal::new(StatusCode::BAD_GATEWAY, "no_answer", "no node answered"))
}

/// The nodes to ask, in order: those that take requests, those with the model in memory, the least busy.
fn holders(view: &View, name: &ModelName) -> Vec<Holder> {
    let mut nodes: Vec<_> = reachable(view).filter_map(|node| Some((node, node.model(name)?))).collect();
    nodes.sort_by_key(|(node, model)| {
        let ready = takes_requests(node, &view.policy, view.now_ms);
        (Reverse(ready), Reverse(model.resident.is_some()), node.load.in_flight())
    });
    nodes.into_iter().take(ATTEMPTS).map(|(node, _)| Holder::of(node)).collect()
}
