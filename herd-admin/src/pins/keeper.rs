//! Loads pinned models that are not in memory, and sees to it that Ollama keeps them there, and no others for ever.

use std::time::Duration;

use futures_util::StreamExt as _;
use herd_core::fleet::{Model, Node, Resident};
use herd_core::launch::Signature;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::book::{Pin, Trouble, size_of};
use crate::node_facts::{model_named, shown_name, takes_requests};
use crate::nodes::{NodeError, ask_node};
use crate::state::AdminState;
use crate::stop::stopped;
use crate::time;

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

/// Has Ollama keep a model until it is unloaded by force.
const FOR_EVER: i64 = -1;
/// And as long as it keeps models by itself, unless its environment says otherwise, which no heartbeat tells.
const BY_DEFAULT: &str = "5m";
/// A model that Ollama keeps for longer than this, seconds, is kept for ever. Two clocks are compared here that may
/// differ by hours; Ollama's own "for ever" ends in some centuries.
const LONG_S: i64 = 365 * 86_400;

/// Keeps pinned models loaded until `shutdown`.
pub(crate) async fn run(state: AdminState, mut shutdown: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looks = async {
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = state.pins().change() => {}
            }
            look(&state).await;
        }
    };
    tokio::select! {
        biased;
        () = stopped(&mut shutdown) => {}
        () = looks => {}
    }
}

/// One look: loads what is missing, one model of a node at a time.
pub(crate) async fn look(state: &AdminState) {
    state.pins().restore(state.config().store.as_ref()).await;
    state.pins().mark(&state.view().snapshot);
    for pin in state.pins().leaving() {
        let_go(state, &pin).await;
    }
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
    if let Some(resident) = &model.resident {
        return stay(state, pin, &before, (node, model, resident)).await;
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

/// Has a model that is in memory stay there: who loaded it, or used it since without herd, said for how long.
async fn stay(state: &AdminState, pin: &Pin, before: &Trouble, at: (&Node, &Model, &Resident)) {
    let (node, model, resident) = at;
    let is_busy = model.load.in_flight() > 0 || resident.busy_by_others > 0;
    // A busy runner shows an old time.
    let is_kept = is_busy || lasts(&resident.expires_at, state.view().unix_ms);
    if is_kept || !is_known(model, resident) {
        return state.pins().set_trouble(pin, None);
    }
    match keep_for(state, (node, model), &FOR_EVER.into(), state.config().node_timeout).await {
        Ok(()) => state.pins().set_trouble(pin, None),
        Err(error) => fails(state, pin, before, error.to_string()),
    }
}

/// Has a model that is no longer pinned go when it is idle. Of a node that does not answer this is tried again.
async fn let_go(state: &AdminState, pin: &Pin) {
    let view = state.view();
    let node = view.snapshot.node(&pin.node_id);
    let model = node.and_then(|node| model_named(node, &pin.model));
    let resident = model.and_then(|model| model.resident.as_ref());
    let Some(((node, model), resident)) = node.zip(model).zip(resident) else {
        return state.pins().left(pin);
    };
    // Another of its names may still be pinned.
    if model.load.is_pinned() || !is_known(model, resident) {
        return state.pins().left(pin);
    }
    match keep_for(state, (node, model), &BY_DEFAULT.into(), state.config().node_timeout).await {
        Ok(()) => state.pins().left(pin),
        Err(error) => {
            let (node_id, model) = (&pin.node_id, &pin.model);
            tracing::warn!(target: "herd::pins", node_id, model, %error, "a model that is no longer pinned stays loaded");
        }
    }
}

/// Whether a runner is kept for ever, by when it would be unloaded.
fn lasts(expires_at: &str, unix_ms: u64) -> bool {
    let now_s = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
    time::parse(expires_at).is_some_and(|at| at.seconds > now_s.saturating_add(LONG_S))
}

/// Whether a request can be made that surely does not load the runner anew.
fn is_known(model: &Model, resident: &Resident) -> bool {
    let launched = model.load.launched();
    resident.context_length.is_some() && launched.is_none_or(|signature| signature == Signature::DEFAULT)
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

/// Has the node load the model, to stay.
async fn load(state: &AdminState, node: &Node, model: &Model) -> Result<(), NodeError> {
    keep_for(state, (node, model), &FOR_EVER.into(), LOAD_LIMIT).await
}

/// Has the node keep the model for `keep_alive`, and load it for that where it is not in memory. A request without a
/// prompt does that; it asks for the window that is loaded, as any other would load the model anew.
async fn keep_for(
    state: &AdminState,
    (node, model): (&Node, &Model),
    keep_alive: &Value,
    limit: Duration,
) -> Result<(), NodeError> {
    let name = shown_name(model);
    let embeds =
        model.capabilities.has("embedding") == Some(true) && model.capabilities.has("completion") != Some(true);
    let (path, mut body) = if embeds {
        ("/api/embed", json!({ "model": name, "input": "", "keep_alive": keep_alive }))
    } else {
        ("/api/generate", json!({ "model": name, "keep_alive": keep_alive, "stream": false }))
    };
    if let Some(tokens) = model.resident.as_ref().and_then(|resident| resident.context_length) {
        body["options"] = json!({ "num_ctx": tokens });
    }
    ask_node(state, node, http::Method::POST, path, &body, limit).await
}
