//! `POST /api/show`: the model card, asked of a node that has the model.

use std::cmp::Reverse;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use herd_core::fleet::Node;
use herd_core::name::ModelName;
use herd_core::places::Place;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::answer::{JSON, OLLAMA_JSON};
use crate::body;
use crate::catalogue::reachable;
use crate::node_facts::takes_requests;
use crate::ollama::ModelAsk;
use crate::refusal::Refusal;
use crate::state::{AdminState, View};

/// The header that names the node which answered.
const FLEET_NODE: HeaderName = HeaderName::from_static("x-fleet-node");
/// Requests that one node is asked at a time.
const ASKS_OF_ONE: usize = 16;
/// Nodes that are asked before the client is told that none answers.
const ATTEMPTS: usize = 4;

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
    let asked = tokio::time::timeout(config.node_timeout, ask(&state, &nodes, &body)).await;
    asked.ok().flatten().ok_or_else(|| {
        let message = format!("no node with model '{name}' answered, or they answer many already");
        Refusal::new(StatusCode::BAD_GATEWAY, "no_answer", message)
    })
}

/// Where a model card can be had.
struct Holder {
    id: String,
    url: String,
}

/// The nodes to ask, in order: those that take requests, those with the model in memory, the least busy.
fn holders(view: &View, name: &ModelName) -> Vec<Holder> {
    let mut nodes: Vec<_> = reachable(view).filter_map(|node| Some((node, node.model(name)?))).collect();
    nodes.sort_by_key(|(node, model)| {
        let ready = takes_requests(node, &view.policy, view.now_ms);
        (Reverse(ready), Reverse(model.resident.is_some()), node.load.in_flight())
    });
    nodes.into_iter().take(ATTEMPTS).map(|(node, _)| holder(node)).collect()
}

fn holder(node: &Node) -> Holder {
    Holder { id: node.id.to_string(), url: format!("http://{}/api/show", node.address) }
}

/// `None` = none of them answered at all.
async fn ask(state: &AdminState, nodes: &[Holder], body: &Bytes) -> Option<Response> {
    let mut last = None;
    for node in nodes {
        // One that drips its answers keeps those waiting who ask it, and not all that ask at all.
        let Ok(place) = state.asks().take_for(node.id.clone(), ASKS_OF_ONE) else { continue };
        // A request of our own with the client's body: none of its headers. Ollama refuses foreign Hosts and Origins.
        let request = state.nodes().post(&node.url).header(CONTENT_TYPE, JSON).body(body.clone());
        match request.send().await {
            Ok(answer) => {
                let is_final = !answer.status().is_server_error() && answer.status() != StatusCode::NOT_FOUND;
                last = Some(passed_on(answer, &node.id, place));
                if is_final {
                    break;
                }
            }
            Err(error) => tracing::warn!(node_id = node.id, %error, "a node did not answer /api/show"),
        }
    }
    last
}

/// The node's answer, its body streamed. What it is comes from us: a node could say that it is a page.
fn passed_on(answer: reqwest::Response, node_id: &str, place: Place<String>) -> Response {
    let status = answer.status();
    let length = answer.headers().get(CONTENT_LENGTH).cloned();
    let pieces = answer.bytes_stream().inspect(move |_| _ = &place);
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, OLLAMA_JSON);
    response.headers_mut().extend(length.map(|length| (CONTENT_LENGTH, length)));
    if let Ok(id) = HeaderValue::try_from(node_id) {
        response.headers_mut().insert(FLEET_NODE, id);
    }
    response
}
