//! Loads pinned models that are not in memory.

use std::time::Duration;

use futures_util::StreamExt as _;
use herd_core::fleet::{Model, Node};
use serde_json::json;
use tokio::sync::watch;

use super::book::{Pin, Trouble, size_of};
use crate::node_facts::{model_named, shown_name, takes_requests};
use crate::nodes::{NodeError, ask_node};
use crate::serve::repeated;
use crate::state::AdminState;

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(30);
/// Longest load.
const LOAD_LIMIT: Duration = Duration::from_mins(5);
/// Loads at a time, each on another node.
const AT_A_TIME: usize = 8;
/// First pause after a failure; it doubles with each one.
const PAUSE_MS: u64 = 30_000;
/// Longest pause.
const PAUSE_MAX_MS: u64 = 30 * 60_000;

/// Keeps pinned models loaded until `shutdown`.
pub(crate) async fn run(state: AdminState, shutdown: watch::Receiver<bool>) {
    repeated(EVERY, shutdown, || look(&state)).await;
}

/// One look: loads what is missing, one model of a node at a time.
pub(crate) async fn look(state: &AdminState) {
    state.pins().restore(state).await;
    let mut nodes: Vec<(String, Vec<Pin>)> = Vec::new();
    for pin in state.pins().all() {
        match nodes.iter_mut().find(|(node_id, _)| *node_id == pin.node_id) {
            Some((_, pins)) => pins.push(pin),
            None => nodes.push((pin.node_id.clone(), vec![pin])),
        }
    }
    let each = |(_, pins): (String, Vec<Pin>)| async move {
        for pin in pins {
            keep(state, &pin).await;
        }
    };
    futures_util::stream::iter(nodes).for_each_concurrent(AT_A_TIME, each).await;
}

async fn keep(state: &AdminState, pin: &Pin) {
    let view = state.view();
    let before = state.pins().trouble(pin).unwrap_or_default();
    if view.now_ms < before.again_at_ms {
        return;
    }
    let Some(node) = view.snapshot.node(&pin.node_id) else { return };
    if !takes_requests(node, &view.policy, view.now_ms) {
        return;
    }
    let Some(model) = model_named(node, &pin.model) else {
        return fails(state, pin, &before, "the node no longer has the model".into());
    };
    if model.resident.is_some() {
        return state.pins().set_trouble(pin, None);
    }
    if let Some(why) = no_room(node, model) {
        return fails(state, pin, &before, why);
    }
    tracing::info!(target: "herd::pins", node_id = pin.node_id, model = pin.model, "loading a pinned model");
    match load(state, node, model).await {
        Ok(()) => state.pins().set_trouble(pin, None),
        Err(error) => fails(state, pin, &before, error.to_string()),
    }
}

fn no_room(node: &Node, model: &Model) -> Option<String> {
    let (free, size) = (node.device.free_bytes?, size_of(model)?);
    (size > free).then(|| format!("it takes {size} bytes, and {free} are free"))
}

fn fails(state: &AdminState, pin: &Pin, before: &Trouble, reason: String) {
    if before.reason != reason {
        tracing::warn!(target: "herd::pins", node_id = pin.node_id, model = pin.model, reason, "a pinned model is not loaded");
    }
    let failures = before.failures.saturating_add(1);
    let pause_ms = PAUSE_MS.saturating_mul(1 << before.failures.min(10)).min(PAUSE_MAX_MS);
    let again_at_ms = state.source().now_ms().saturating_add(pause_ms);
    state.pins().set_trouble(pin, Some(Trouble { failures, again_at_ms, reason }));
}

/// Has the node load the model, to stay. A request without a prompt does that.
async fn load(state: &AdminState, node: &Node, model: &Model) -> Result<(), NodeError> {
    let name = shown_name(model);
    let embeds =
        model.capabilities.has("embedding") == Some(true) && model.capabilities.has("completion") != Some(true);
    let (path, body) = if embeds {
        ("/api/embed", json!({ "model": name, "input": "", "keep_alive": -1 }))
    } else {
        ("/api/generate", json!({ "model": name, "keep_alive": -1, "stream": false }))
    };
    ask_node(state, node, http::Method::POST, path, &body, LOAD_LIMIT).await
}
