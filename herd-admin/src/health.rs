//! Whether this process lives, and whether it can serve anybody.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

use crate::answer::{self, JSON};
use crate::node_facts::{takes_requests, why};
use crate::state::AdminState;
use crate::view::View;

/// What to do about a fleet without nodes.
pub const NO_NODES: &str = "no node has joined yet: start Ollama on this machine, or run \"herd-agent --router-url \
                            http://THIS-MACHINE:11435\" on a machine that runs it";

/// Nodes that are named when none can serve.
const NODES_NAMED: usize = 16;

/// The process is up. Restart it when this does not answer, for no other reason.
pub(crate) async fn healthz() -> Response {
    answer::json(StatusCode::OK, JSON, &json!({ "status": "ok" }))
}

/// Whether new requests can be served here: not while the edge drains, nor without one node that takes them.
pub(crate) async fn readyz(State(state): State<AdminState>) -> Response {
    let readiness = readiness(&state.view());
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::json(status, JSON, &readiness)
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Readiness {
    ready: bool,
    /// Nodes that take requests.
    nodes_ready: usize,
    nodes_total: usize,
    /// Why not; empty when ready.
    reasons: Vec<Reason>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Reason {
    code: &'static str,
    message: String,
}

fn readiness(view: &View) -> Readiness {
    let nodes = &view.snapshot.nodes;
    let nodes_ready = nodes.iter().filter(|node| takes_requests(node, &view.policy, view.now_ms)).count();
    let mut reasons = Vec::new();
    if view.draining {
        reasons.push(Reason { code: "draining", message: "this edge is stopping".into() });
    }
    if nodes.is_empty() {
        reasons.push(Reason { code: "no_nodes", message: NO_NODES.into() });
    } else if nodes_ready == 0 {
        let named = nodes.iter().take(NODES_NAMED).filter_map(|node| {
            let why = why(node, &view.policy, view.now_ms)?;
            Some(Reason { code: why.code, message: format!("{}: {}", node.id, why.message) })
        });
        reasons.extend(named);
    }
    Readiness { ready: reasons.is_empty(), nodes_ready, nodes_total: nodes.len(), reasons }
}
