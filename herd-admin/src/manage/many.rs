//! `DELETE /api/delete` and `POST /api/copy`: on every node that has the model, with one answer.

use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use herd_core::fleet::{ModelChange, Node};
use herd_core::name::ModelName;
use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::pick::{named, node_named};
use crate::answer::{OLLAMA_JSON, json as answer};
use crate::body;
use crate::catalogue::reachable;
use crate::guard::ModelOperator;
use crate::node_facts::shown_name;
use crate::nodes::{NodeError, ask_node};
use crate::ollama::{BODY_BYTES, ModelAsk, fields, text};
use crate::refusal::Refusal;
use crate::state::AdminState;
use crate::view::View;

/// Nodes that are asked at a time.
const AT_A_TIME: usize = 16;

/// What came of a change on one node.
#[derive(Debug, Serialize)]
struct Outcome {
    node_id: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The status with which the node refused.
    #[serde(skip)]
    refused: Option<StatusCode>,
}

impl Outcome {
    fn of(node: &Node, done: Result<(), NodeError>) -> Self {
        let refused = match &done {
            Err(NodeError::Refused { status, .. }) => Some(*status),
            _ => None,
        };
        let error = done.err().map(|error| error.to_string());
        Self { node_id: node.id.to_string(), ok: error.is_none(), error, refused }
    }

    /// Takes a refusal with `status` for success.
    fn forgive(&mut self, status: StatusCode) {
        if self.refused == Some(status) {
            (self.ok, self.error) = (true, None);
        }
    }
}

/// What came of it on all.
#[derive(Serialize)]
struct Outcomes {
    status: &'static str,
    /// Where it failed, for clients that read nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    nodes: Vec<Outcome>,
}

/// `DELETE /api/delete`
pub(crate) async fn delete(
    State(state): State<AdminState>,
    operator: ModelOperator,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    let asked = ModelAsk::of(&state, request).await?;
    let view = state.view();
    let nodes = holders(&view, &asked.name, named(asked.text("node_id"), &headers))?;
    if nodes.is_empty() {
        return Err(Refusal::not_found("model_not_found", format!("model '{}' not found", asked.spelling)));
    }
    let body = |node: &Node| json!({ "model": node.model(&asked.name).map_or(asked.spelling.as_str(), shown_name) });
    let mut outcomes = on_each(&state, Method::DELETE, "/api/delete", &nodes, body).await;
    for outcome in &mut outcomes {
        // It is gone there already.
        outcome.forgive(StatusCode::NOT_FOUND);
        if outcome.ok {
            state.source().model_changed(&outcome.node_id, &asked.name, ModelChange::Removed);
        }
    }
    state.audit(&operator.actor, "model_delete", asked.name.as_str(), &told(&outcomes));
    Ok(together(outcomes))
}

/// `POST /api/copy`
pub(crate) async fn copy(
    State(state): State<AdminState>,
    operator: ModelOperator,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    let body = body::read(request.into_body(), BODY_BYTES, state.config().body_timeout).await?;
    let fields = fields(&body)?;
    let (source, destination) = (text(&fields, "source"), text(&fields, "destination"));
    let (source, destination) = (source.unwrap_or_default(), destination.unwrap_or_default());
    let name = |key: &str, spelling: &str| {
        let invalid = |_| Refusal::bad_request("invalid_request", format!("{key} {spelling:?} is invalid"));
        ModelName::asked(spelling).map_err(invalid)
    };
    let (from, to) = (name("source", source)?, name("destination", destination)?);
    let view = state.view();
    let nodes = holders(&view, &from, named(text(&fields, "node_id"), &headers))?;
    if nodes.is_empty() {
        return Err(Refusal::not_found("model_not_found", format!("model {source:?} not found")));
    }
    let body =
        |node: &Node| json!({ "source": node.model(&from).map_or(source, shown_name), "destination": destination });
    let outcomes = on_each(&state, Method::POST, "/api/copy", &nodes, body).await;
    for outcome in outcomes.iter().filter(|outcome| outcome.ok) {
        state.source().model_changed(&outcome.node_id, &to, ModelChange::Copied { from: &from });
    }
    state.audit(&operator.actor, "model_copy", from.as_str(), &format!("to {to}: {}", told(&outcomes)));
    Ok(together(outcomes))
}

/// The nodes that have `model` and can be reached: all, or the one named `id` if it has it.
fn holders<'a>(view: &'a View, model: &ModelName, id: Option<&str>) -> Result<Vec<&'a Node>, Refusal> {
    if let Some(id) = id {
        let node = node_named(view, id)?;
        return Ok(view.model(node, model).map(|_| node).into_iter().collect());
    }
    // Two agents of one Ollama are one Ollama.
    let once = |node: &&Node| node.same_ollama_as.is_none();
    Ok(reachable(view).filter(once).filter(|node| view.model(node, model).is_some()).collect())
}

/// Asks each of `nodes` on `path`, with the body that is made for it.
async fn on_each(
    state: &AdminState,
    method: Method,
    path: &'static str,
    nodes: &[&Node],
    body: impl Fn(&Node) -> Value,
) -> Vec<Outcome> {
    let calls: Vec<_> = nodes.iter().map(|node| ((*node).clone(), body(node))).collect();
    let each = stream::iter(calls).map(|(node, body)| {
        let (state, method) = (state.clone(), method.clone());
        async move {
            let limit = state.config().node_timeout;
            Outcome::of(&node, ask_node(&state, &node, method, path, &body, limit).await)
        }
    });
    each.buffered(AT_A_TIME).collect().await
}

/// For the audit log.
fn told(outcomes: &[Outcome]) -> String {
    let each = outcomes.iter().map(|outcome| match &outcome.error {
        None => format!("on {}", outcome.node_id),
        Some(error) => format!("not on {} ({error})", outcome.node_id),
    });
    each.collect::<Vec<_>>().join(", ")
}

/// One answer: an error as soon as one node failed, as the model is there and is not what was asked for.
fn together(nodes: Vec<Outcome>) -> Response {
    let failed: Vec<String> =
        nodes.iter().filter_map(|node| Some(format!("{}: {}", node.node_id, node.error.as_ref()?))).collect();
    let (code, status, error) = match failed.as_slice() {
        [] => (StatusCode::OK, "success", None),
        failed => {
            let done = nodes.iter().filter(|node| node.ok).map(|node| node.node_id.as_str()).collect::<Vec<_>>();
            let done = if done.is_empty() { "nowhere".to_owned() } else { format!("on {}", done.join(", ")) };
            (StatusCode::BAD_GATEWAY, "failed", Some(format!("done {done}; failed on {}", failed.join("; "))))
        }
    };
    answer(code, OLLAMA_JSON, &Outcomes { status, error, nodes })
}
