//! `GET /fleet/queue`: what waits at the edge for a slot, and what the nodes have; `GET /fleet/limits`: every bound.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use herd_core::name::ModelName;
use herd_core::spot::{runner_occupancy, usable_slots};
use http::HeaderMap;
use serde::Serialize;

use crate::history::{self, Ask};
use crate::state::{AdminState, View};

/// What waits at the edge.
#[derive(Debug, Clone, Default)]
pub struct QueueView {
    /// How many wait.
    pub total: usize,
    /// Those that have waited longest, a bounded number.
    pub waiting: Vec<WaitingView>,
    /// When this was so, by the edge's clock.
    pub at_ms: u64,
}

/// One request that waits.
#[derive(Debug, Clone)]
pub struct WaitingView {
    /// Its id.
    pub request_id: Arc<str>,
    /// The model that it asks for.
    pub model: ModelName,
    /// `interactive` or `batch`.
    pub class: &'static str,
    /// What it waits for: `busy`, `loading`, `occupied`, `hold` and so on.
    pub reason: &'static str,
    /// When it began to wait, by the edge's clock.
    pub since_ms: u64,
    /// Until it is predicted to start, milliseconds.
    pub predicted_ms: f64,
}

/// One bound and how much of it is used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    /// Its key in the configuration.
    pub name: String,
    /// It.
    pub limit: f64,
    /// How much is used now; null = it is not a matter of use.
    pub used: Option<f64>,
}

#[derive(Serialize)]
struct QueueAnswer {
    waiting: usize,
    requests: Vec<Waiting>,
    runners: Vec<RunnerSlots>,
}

#[derive(Serialize)]
struct Waiting {
    request_id: String,
    model: String,
    class: &'static str,
    reason: &'static str,
    queue_ms: u64,
    predicted_wait_ms: u64,
}

#[derive(Serialize)]
struct RunnerSlots {
    node_id: String,
    model: String,
    in_flight: u32,
    busy_by_others: u32,
    slots: u32,
}

#[derive(Serialize)]
struct LimitsAnswer {
    limits: Vec<Limit>,
}

/// What waits, longest first, and how the slots of loaded models are taken.
pub(crate) async fn queue(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Response {
    history::told(&ask, &headers, &answer(&state), "requests")
}

/// The same, for events.
pub(crate) fn told(state: &AdminState) -> serde_json::Value {
    serde_json::to_value(answer(state)).unwrap_or_default()
}

fn answer(state: &AdminState) -> QueueAnswer {
    let (queue, view) = (state.source().queue(), state.view());
    let requests = queue.waiting.iter().map(|one| waiting(one, view.now_ms)).collect();
    QueueAnswer { waiting: queue.total, requests, runners: runners(&view) }
}

/// Every bound, by its key in the configuration.
pub(crate) async fn limits(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Response {
    history::told(&ask, &headers, &LimitsAnswer { limits: state.source().limits() }, "limits")
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a prediction; saturates")]
fn waiting(one: &WaitingView, now_ms: u64) -> Waiting {
    Waiting {
        request_id: one.request_id.to_string(),
        model: one.model.to_string(),
        class: one.class,
        reason: one.reason,
        queue_ms: now_ms.saturating_sub(one.since_ms),
        predicted_wait_ms: one.predicted_ms as u64,
    }
}

fn runners(view: &View) -> Vec<RunnerSlots> {
    let nodes = view.snapshot.nodes.iter();
    let loaded = nodes.flat_map(|node| node.runners().map(move |(model, resident)| (node, model, resident)));
    loaded
        .map(|(node, model, resident)| RunnerSlots {
            node_id: node.id.to_string(),
            model: model.name.to_string(),
            in_flight: runner_occupancy(model).saturating_sub(resident.busy_by_others),
            busy_by_others: resident.busy_by_others,
            slots: usable_slots(node, model, view.now_ms),
        })
        .collect()
}
