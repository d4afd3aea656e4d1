//! `GET /fleet/queue`: what waits at the edge for a slot, and what the nodes have; `GET /fleet/limits`: every bound.

mod view;

use axum::extract::State;
use axum::response::Response;
use herd_core::spot::{runner_occupancy, usable_slots};
use http::HeaderMap;
use serde::Serialize;

pub use view::{Limit, QueueView, WaitingView};

use crate::history::{self, Ask};
use crate::state::AdminState;
use crate::view::View;

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
