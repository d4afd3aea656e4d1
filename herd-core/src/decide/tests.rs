//! Helpers that the tests share; the tests themselves stand by idea in the modules.

use std::sync::Arc;

use super::*;
use crate::fleet::{Loaded, Model, Node};
use crate::inspect::{InspectLimits, inspect};
use crate::launch::Signature;
use crate::load::{Claim, Loading};
use crate::protect::ContextAction;
use crate::request::Surface;
use crate::testing::{GIB, NodeSpec, fleet};

mod claims;
mod large;
mod launch;
mod laws;
mod loads;
mod mixture;
mod ranking;
mod refusals;
mod resolve;
mod waiting;

const NOW: u64 = 10_000;

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

fn profile(body: &str) -> RequestProfile {
    inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap()
}

fn chat() -> RequestProfile {
    profile(r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#)
}

fn asking(num_ctx: u64) -> RequestProfile {
    RequestProfile { num_ctx: Some(num_ctx), ..chat() }
}

fn policy() -> Policy {
    Policy { auto_upgrade: true, ..Policy::default() }
}

/// A first-come request under the usual policy.
fn question<'a>(snapshot: &'a FleetSnapshot, profile: &'a RequestProfile, policy: &'a Policy) -> Question<'a> {
    Question {
        snapshot,
        profile,
        policy,
        tried: &[],
        ahead: 0,
        waited_ms: 0,
        draw: Some(0),
        allow_any_substitute: false,
        now_ms: NOW,
    }
}

fn choose(snapshot: &FleetSnapshot, profile: &RequestProfile) -> Decision {
    question(snapshot, profile, &policy()).decide()
}

fn decide(snapshot: &FleetSnapshot, profile: &RequestProfile, tried: &[u32], now_ms: u64) -> Decision {
    Question { tried, now_ms, ..question(snapshot, profile, &policy()) }.decide()
}

/// The snapshot with the node `id` changed.
fn edited(snapshot: &FleetSnapshot, id: &str, edit: impl FnOnce(&mut Node)) -> FleetSnapshot {
    let mut node = snapshot.node(id).unwrap().as_ref().clone();
    edit(&mut node);
    snapshot.with(node)
}

/// Claims that are never given back: a test's node stays busy.
fn occupy(node: &Node, count: u32) {
    let model = node.models.first().map(|model| Arc::clone(&model.load)).unwrap_or_default();
    for _ in 0..count {
        std::mem::forget(Claim::take(&node.load, &model, 0));
    }
}

fn model<'a>(snapshot: &'a FleetSnapshot, id: &str, model: &str) -> (&'a Node, &'a Model) {
    let node = snapshot.node(id).unwrap();
    (node, node.model(&name(model)).unwrap())
}

/// A request of ours that runs `running` on `id`.
fn run(snapshot: &FleetSnapshot, id: &str, running: &str) -> Claim {
    let (node, model) = model(snapshot, id, running);
    Claim::take(&node.load, &model.load, 0)
}

/// A request of ours that loads `loading` on `id`, from [`NOW`] for so long.
fn load(snapshot: &FleetSnapshot, id: &str, loading: &str, for_ms: u64) -> Claim {
    let (node, model) = model(snapshot, id, loading);
    let load = Loading { model: model.key, since_ms: NOW, until_ms: NOW + for_ms };
    let seen = Seen { in_flight: node.load.in_flight(), on_model: model.load.in_flight(), load: Some(load) };
    Claim::try_take(&node.load, &model.load, &seen, 0).unwrap()
}

/// The ids of the nodes that the request may go to now, in order.
fn goes<'a>(decision: &Decision, snapshot: &'a FleetSnapshot) -> Vec<&'a str> {
    decision.ready().map(|candidate| snapshot.nodes[candidate.node].id.as_str()).collect()
}

/// The candidate of the node `id`.
#[track_caller]
fn at<'a>(decision: &'a Decision, snapshot: &FleetSnapshot, id: &str) -> &'a Candidate {
    let is = |candidate: &&Candidate| snapshot.nodes[candidate.node].id.as_str() == id;
    decision.candidates.iter().find(is).unwrap()
}
