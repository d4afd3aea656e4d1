//! The fleet at one moment.

use std::sync::Arc;

use herd_core::decide::Policy;
use herd_core::fleet::{FleetSnapshot, Model, Node};
use herd_core::name::ModelName;

/// One picture of the fleet at one moment: all that an answer may depend on.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The fleet.
    pub(crate) snapshot: Arc<FleetSnapshot>,
    /// How requests are decided.
    pub(crate) policy: Arc<Policy>,
    /// The edge is stopping.
    pub(crate) draining: bool,
    /// The edge's monotonic clock.
    pub(crate) now_ms: u64,
    /// The wall clock, for display.
    pub(crate) unix_ms: u64,
    /// Wall clock, Unix milliseconds, at the start of the edge's monotonic clock.
    pub(crate) epoch_unix_ms: u64,
    /// Which models catalogues leave out.
    pub(crate) hides: fn(&ModelName) -> bool,
}

impl View {
    /// The models of `node` that catalogues show.
    pub(crate) fn models<'a>(&self, node: &'a Node) -> impl Iterator<Item = &'a Model> + use<'a> {
        let hides = self.hides;
        node.models.iter().filter(move |model| !model.unlisted && !hides(&model.name))
    }

    /// The same for the model named `name`.
    pub(crate) fn model<'a>(&self, node: &'a Node, name: &ModelName) -> Option<&'a Model> {
        node.model(name).filter(|model| !model.unlisted && !(self.hides)(&model.name))
    }

    /// A moment of the edge's clock in Unix milliseconds. The same for the same moment as long as the process lives,
    /// whatever happens to the wall clock.
    pub(crate) fn unix_ms_at(&self, edge_ms: u64) -> u64 {
        self.epoch_unix_ms.saturating_add(edge_ms)
    }
}
