//! What outlives its entry in the fleet: counts of requests that still run where a node or a model has been removed.
//!
//! A slot is returned to the count that it was taken from. An entry that comes back with a count of its own would show
//! nothing in flight and be filled beyond its slots.

use std::sync::Arc;

use super::node::{Model, Node};
use crate::load::{ModelLoad, NodeLoad};
use crate::name::{ModelName, NodeId};

/// Most removed nodes that are remembered. Each has at least one request in flight; beyond this the oldest is dropped,
/// and returns without its count.
const DEPARTED_MAX: usize = 4_096;

/// Nodes that were removed while requests were in flight on them, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Departed(Vec<Arc<Node>>);

impl Departed {
    /// Remembers `node`, which is being removed, if requests are in flight on it.
    pub(super) fn add(&mut self, node: &Arc<Node>) {
        if !is_busy(node) {
            return;
        }
        self.take(&node.id);
        if self.0.len() >= DEPARTED_MAX {
            self.0.remove(0);
        }
        self.0.push(Arc::clone(node));
    }

    /// The removed node named `id`.
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Node>> {
        self.0.iter().find(|node| node.id.as_str() == id)
    }

    /// Forgets the node named `id`: it has returned.
    pub(super) fn take(&mut self, id: &NodeId) {
        self.0.retain(|node| node.id != *id);
    }

    /// Forgets the nodes on which nothing is in flight any more.
    pub(super) fn forget_idle(&mut self) {
        self.0.retain(is_busy);
    }

    /// Whether [`Self::forget_idle`] would forget any.
    pub(super) fn has_idle(&self) -> bool {
        !self.0.iter().all(is_busy)
    }

    /// Requests in flight on removed nodes.
    pub(super) fn in_flight(&self) -> u32 {
        self.0.iter().map(|node| node.load.in_flight()).sum()
    }
}

fn is_busy(node: &Arc<Node>) -> bool {
    node.load.in_flight() > 0
}

/// The load of a node at `address` that was `before`: a move keeps what runs there and nothing else; see
/// [`NodeLoad::at_another_address`]. A node that was removed starts like one that moved.
pub(super) fn load_at(address: std::net::SocketAddr, known: Option<&Node>, departed: Option<&Node>) -> Arc<NodeLoad> {
    match known.or(departed) {
        Some(before) if known.is_some() && before.address == address => Arc::clone(&before.load),
        Some(before) => Arc::new(before.load.at_another_address()),
        None => Arc::default(),
    }
}

/// What this edge counts for the model `name` on a node that was `before`, whether or not the node still listed it.
pub(super) fn model_load(before: Option<&Node>, name: &ModelName) -> Option<Arc<ModelLoad>> {
    let before = before?;
    let listed = before.model(name).map(|model| &model.load);
    let left = || before.left_models.iter().find(|(left, _)| left == name).map(|(_, load)| load);
    listed.or_else(left).map(Arc::clone)
}

/// The counts that requests are in flight on and that none of `models` has, by the names under which they were taken.
pub(super) fn left_models(before: Option<&Node>, models: &[Model]) -> Vec<(ModelName, Arc<ModelLoad>)> {
    let Some(before) = before else { return Vec::new() };
    let listed = before.models.iter().map(|model| (&model.name, &model.load));
    let earlier = before.left_models.iter().map(|(name, load)| (name, load));
    let mut left: Vec<(ModelName, Arc<ModelLoad>)> = Vec::new();
    for (name, load) in listed.chain(earlier).filter(|(_, load)| load.in_flight() > 0) {
        let is_kept = models.iter().map(|model| &model.load).any(|kept| Arc::ptr_eq(kept, load));
        let is_noted = left.iter().any(|(_, noted)| Arc::ptr_eq(noted, load));
        if !is_kept && !is_noted {
            left.push((name.clone(), Arc::clone(load)));
        }
    }
    left
}
