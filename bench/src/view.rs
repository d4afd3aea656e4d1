//! The fleet at one moment of virtual time, as choices are made from it.

use std::cell::Cell;
use std::sync::Arc;

use herd_core::choice::{self, FleetView, Freed, Outcome, Place};
use herd_core::decide::{Decision, Policy};
use herd_core::exchange::Chooser;
use herd_core::fleet::FleetSnapshot;
use herd_core::request::RequestProfile;

/// What choices are made from.
#[derive(Debug)]
pub(crate) struct View {
    /// The fleet.
    pub(crate) snapshot: Arc<FleetSnapshot>,
    /// How requests are decided.
    pub(crate) policy: Arc<Policy>,
    /// The clock.
    pub(crate) now_ms: u64,
    tickets: Cell<u64>,
    /// Told of each slot that is free again.
    freed: Option<Arc<dyn Freed>>,
}

impl View {
    /// An empty fleet at the start of time.
    pub(crate) fn new(policy: Policy, freed: Option<Arc<dyn Freed>>) -> Self {
        Self { snapshot: Arc::default(), policy: Arc::new(policy), now_ms: 0, tickets: Cell::new(0), freed }
    }
}

impl FleetView for View {
    fn snapshot(&self) -> Arc<FleetSnapshot> {
        Arc::clone(&self.snapshot)
    }

    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn ticket(&self) -> u64 {
        self.tickets.set(self.tickets.get() + 1);
        self.tickets.get()
    }

    fn freed(&self) -> Option<Arc<dyn Freed>> {
        self.freed.clone()
    }
}

impl Chooser for View {
    fn choose(&self, profile: &RequestProfile, tried: &[u32], place: Place) -> Outcome {
        choice::choose(self, profile, tried, place, |_, _| None)
    }

    fn look(&self, profile: &RequestProfile, tried: &[u32], place: Place) -> Decision {
        choice::look(self, profile, tried, place)
    }

    fn now_ms(&self) -> u64 {
        self.now_ms
    }
}
