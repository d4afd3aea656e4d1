//! A model on a node at one moment: what a decision reads of both, read once.

use crate::fleet::{Model, Node};
use crate::load::Loading;

/// A model on a node at one moment. Counts move while a decision is made; all that it concludes of this node, it concludes
/// of the same ones.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    /// The node.
    pub node: &'a Node,
    /// The model there.
    pub model: &'a Model,
    /// The moment, on the receiver's monotonic clock.
    pub now_ms: u64,
    /// Requests of this edge on the node.
    pub in_flight: u32,
    /// Those of them that are for the model.
    pub on_model: u32,
    /// Requests that the node's device works on: ours, counted, but for those that it hands on, and others', as reported. A slot of another model is not
    /// this model's slot, but it is the same device.
    pub occupancy: u32,
    /// Requests on the runner of the model: ours and others'.
    pub runner_occupancy: u32,
    /// [`usable_slots`] of the model.
    pub slots: u32,
    /// The load in progress that this edge started on the node.
    pub loading: Option<Loading>,
}

impl<'a> Spot<'a> {
    /// Reads `model` on `node` at `now_ms`.
    #[must_use]
    pub fn read(node: &'a Node, model: &'a Model, now_ms: u64) -> Self {
        // These two first: a claim holds them against what is so by then, and so vouches for all that is read after.
        let (in_flight, on_model) = (node.load.in_flight(), model.load.in_flight());
        Self {
            node,
            model,
            now_ms,
            in_flight,
            on_model,
            occupancy: in_flight.saturating_sub(node.handed_on()).saturating_add(node.busy_by_others()),
            runner_occupancy: on_model.saturating_add(model.busy_by_others()),
            slots: usable_slots(node, model, now_ms),
            loading: node.load.loading(),
        }
    }

    /// Whether a request more would run beside those that run.
    #[must_use]
    pub fn has_slot(&self) -> bool {
        self.runner_occupancy < self.slots
    }
}

/// Requests on the runner of `model` on this node: ours and others'.
#[must_use]
pub fn runner_occupancy(model: &Model) -> u32 {
    model.load.in_flight().saturating_add(model.busy_by_others())
}

/// Slots that `model` has for us on `node` at `now_ms`: as reported, and as it was seen to have.
#[must_use]
pub fn usable_slots(node: &Node, model: &Model, now_ms: u64) -> u32 {
    model.load.usable_slots(model.slot_range(&node.env), now_ms)
}
