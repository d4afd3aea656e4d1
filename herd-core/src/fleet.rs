//! The fleet: one immutable picture of all nodes, and the pure transitions from one picture to the next.

mod apply;
mod changed;
mod check;
mod departed;
mod loaded;
mod node;
mod remote;
mod serial;
mod share;
mod twins;

use std::sync::Arc;

use crate::name::{ModelName, NodeId};
use departed::Departed;
use twins::place;

pub use apply::{Applied, Sender};
pub use changed::ModelChange;
pub use check::{HeartbeatError, HeartbeatLimits};
pub use loaded::Loaded;
pub use node::{Capabilities, Condition, Device, LifeLimits, Model, Node, NodeState, Resident, Trend};
pub use serial::SERIAL_FAMILIES;

/// One immutable picture of the fleet. A request reads it once.
#[derive(Debug, Clone, Default)]
pub struct FleetSnapshot {
    /// The nodes in the order of their ids.
    pub nodes: Vec<Arc<Node>>,
    /// Counts the pictures: a larger number is newer.
    pub version: u64,
    /// Number that the next new node gets.
    next_number: u32,
    /// Removed nodes with requests still in flight.
    departed: Departed,
    /// When silence counts against a node, as of the last heartbeat.
    life: LifeLimits,
}

impl FleetSnapshot {
    /// The node named `id`.
    #[must_use]
    pub fn node(&self, id: &str) -> Option<&Arc<Node>> {
        self.position(id).ok().map(|index| &self.nodes[index])
    }

    fn position(&self, id: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|node| node.id.as_str().cmp(id))
    }

    /// This picture with `node` in it, new or in place of the one of the same id.
    #[must_use]
    pub fn with(&self, node: Node) -> Self {
        self.with_in(node, self.life)
    }

    /// The same, where silence counts against nodes as `life` says.
    fn with_in(&self, mut node: Node, life: LifeLimits) -> Self {
        node.sum_up();
        let mut next = Self { life, ..self.next() };
        let mut changed: Vec<_> = place(&node).into_iter().collect();
        match self.position(node.id.as_str()) {
            Ok(index) => {
                changed.extend(place(&self.nodes[index]));
                node.number = self.nodes[index].number;
                next.nodes[index] = Arc::new(node);
            }
            Err(index) => {
                node.number = self.next_number;
                next.next_number = self.next_number.wrapping_add(1);
                next.departed.take(&node.id);
                next.nodes.insert(index, Arc::new(node));
            }
        }
        next.mark_twins(&changed);
        next
    }

    /// This picture as the start of the next one.
    fn next(&self) -> Self {
        let mut next = Self { version: self.version + 1, ..self.clone() };
        next.departed.forget_idle();
        next
    }

    /// This picture without the nodes that have been silent for longer than `life` allows; `None` = nothing changes.
    #[must_use]
    pub fn expired(&self, now_ms: u64, life: &LifeLimits) -> Option<Self> {
        let stays = |node: &Arc<Node>| now_ms.saturating_sub(node.heartbeat_at_ms) <= life.gone_after_ms;
        if self.nodes.iter().all(stays) && !self.departed.has_idle() {
            return None;
        }
        let mut next = Self { life: *life, ..self.next() };
        next.nodes.retain(stays);
        self.nodes.iter().filter(|node| !stays(node)).for_each(|node| next.departed.add(node));
        next.mark_twins(&[]);
        Some(next)
    }

    /// This picture without the node named `id`; `None` = it was not there. What is in flight on it stays counted: the
    /// node returns with it.
    #[must_use]
    pub fn without(&self, id: &NodeId) -> Option<Self> {
        let index = self.position(id.as_str()).ok()?;
        let mut next = self.next();
        let node = next.nodes.remove(index);
        next.departed.add(&node);
        next.mark_twins(&[]);
        Some(next)
    }

    /// The contexts, in tokens and in order, by which requests for `model` are told apart: those that its runners have,
    /// those that nodes give it unasked, and the largest that it can have.
    #[must_use]
    pub fn windows(&self, model: &ModelName) -> Vec<u64> {
        let key = model.key();
        let of_node = |node: &Arc<Node>| {
            let model = node.model_by_key(key)?;
            let loaded = model.resident.as_ref().and_then(|resident| resident.context_length);
            Some([loaded, node.env.context_length, model.context_length_max])
        };
        let mut windows: Vec<u64> = self.nodes.iter().filter_map(of_node).flatten().flatten().collect();
        windows.sort_unstable();
        windows.dedup();
        windows
    }

    /// The node with that number.
    #[must_use]
    pub fn by_number(&self, number: u32) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.number == number)
    }

    /// Requests in flight over all nodes, those that were removed meanwhile included.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        let known: u32 = self.nodes.iter().map(|node| node.load.in_flight()).sum();
        known.saturating_add(self.departed.in_flight())
    }
}

#[cfg(test)]
mod tests;
