//! `GET /dashboard/api/recommendations`: what to pull, keep, move and unload.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use herd_core::health::Value;
use herd_core::recommend::{Action, Gain, Kind, Priority, Recommendation};
use http::HeaderMap;
use serde::Serialize;
use serde_json::json;

use crate::history::{Ask, told};
use crate::state::AdminState;

#[derive(Serialize)]
struct List {
    recommendations: Vec<Advice>,
}

#[derive(Serialize)]
struct Advice {
    id: String,
    kind: Kind,
    priority: Priority,
    model: String,
    node_id: String,
    from_node_id: Option<String>,
    size_bytes: Option<u64>,
    memory_bytes: Option<u64>,
    reason: String,
    evidence: BTreeMap<String, Value>,
    expected_gain: Gain,
    action: Call,
    then: Option<Call>,
}

/// The request that does it.
#[derive(Serialize)]
struct Call {
    method: &'static str,
    path: String,
    body: serde_json::Value,
}

impl From<&Action> for Call {
    fn from(action: &Action) -> Self {
        let (path, body) = match action {
            Action::Pull { model, node_id } => {
                ("/dashboard/api/pull".to_owned(), json!({ "model": model, "node_id": node_id }))
            }
            Action::Pin { model, node_id } => ("/fleet/pin".to_owned(), json!({ "model": model, "node_id": node_id })),
            Action::Unload { model, node_id } => {
                (format!("/fleet/nodes/{}/unload", escaped(node_id)), json!({ "model": model }))
            }
        };
        Self { method: "POST", path, body }
    }
}

/// One segment of a path.
fn escaped(segment: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    segment.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl From<&Recommendation> for Advice {
    fn from(one: &Recommendation) -> Self {
        Self {
            id: one.id.clone(),
            kind: one.kind,
            priority: one.priority,
            model: one.model.clone(),
            node_id: one.node_id.clone(),
            from_node_id: one.from_node_id.clone(),
            size_bytes: one.size_bytes,
            memory_bytes: one.memory_bytes,
            reason: one.reason.clone(),
            evidence: one.evidence.clone(),
            expected_gain: one.expected_gain,
            action: (&one.action).into(),
            then: one.then.as_ref().map(Call::from),
        }
    }
}

/// As of the last minute.
pub(crate) async fn recommendations(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Response {
    let recommendations = state.checks().advice().iter().map(Advice::from).collect();
    told(&ask, &headers, &List { recommendations }, "recommendations")
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_stay_within_their_segment() {
        assert_eq!(super::escaped("a/../b c"), "a%2F..%2Fb%20c");
    }
}
