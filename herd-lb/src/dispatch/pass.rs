//! One pass over all that wait: herd-core says whose turn it is.

use std::sync::Arc;

use herd_core::decide::Decision;
use herd_core::exchange::{InTurn, Offer};
use herd_core::fleet::FleetSnapshot;
use herd_core::queue::{self, Pass, Sweep, Turn, Turned};

use super::{Ask, Dispatcher};
use crate::selector::Place;

impl Pass for &Dispatcher {
    fn begin(&mut self) -> Sweep {
        self.lock().queue.begin(&self.config.now().queue, self.fleet.now_ms())
    }

    fn first(&mut self, sweep: &mut Sweep) -> Option<Turn> {
        self.lock().queue.first(sweep)
    }

    fn last(&mut self, sweep: &mut Sweep, group: u64) -> Option<Turn> {
        self.lock().queue.last(sweep, group)
    }

    fn end(&mut self, sweep: Sweep) -> bool {
        self.lock().queue.end(sweep)
    }

    fn take(&mut self, turn: &Turn) -> Turned {
        let ask = self.lock().parked.get(&turn.id).map(|parked| Arc::clone(&parked.ask));
        match ask {
            Some(ask) => self.decide(turn, &ask),
            // It has left meanwhile.
            None => Turned::Served,
        }
    }
}

impl Dispatcher {
    /// Hands out what is free. Decisions are made outside the lock: who leaves meanwhile is not kept waiting, and what
    /// was claimed for somebody who has left is given back.
    pub(super) fn pass(&self) {
        let groups_max = queue::groups_max(self.fleet.snapshot().nodes.len());
        if !queue::pass(&mut &*self, groups_max) {
            self.wake.nudge();
        }
        self.publish_view();
    }

    fn decide(&self, turn: &Turn, ask: &Ask) -> Turned {
        let place = Place { ahead: turn.ahead, waited_ms: turn.waited_ms, allow_any_substitute: false };
        match ask.seek.in_turn(&self.selector, place, self.hold_since(turn.id), &self.hold()) {
            InTurn::Offer(offer) => self.hand(turn.id, offer),
            InTurn::Waits(full) => {
                self.still_waits(turn, ask, &full.0, &full.1);
                Turned::Waits
            }
            InTurn::Holds => {
                self.holds(turn.id);
                Turned::Waits
            }
        }
    }

    fn hand(&self, id: u64, offer: Offer) -> Turned {
        let mut state = self.lock();
        state.queue.serve(id);
        let parked = state.parked.remove(&id);
        drop(state);
        if let Some(parked) = parked {
            self.wake.leave();
            // Whoever has left in this moment gives its slot back by dropping it.
            drop(parked.hand.send(offer));
        }
        Turned::Served
    }

    /// Start of the hold period of the request `id`; `None` = it has not begun.
    fn hold_since(&self, id: u64) -> Option<u64> {
        self.lock().parked.get(&id)?.hold_since_ms
    }

    /// Notes that the request `id` waits for nodes that are away.
    fn holds(&self, id: u64) {
        let now_ms = self.fleet.now_ms();
        if let Some(parked) = self.lock().parked.get_mut(&id) {
            parked.hold_since_ms.get_or_insert(now_ms);
            parked.reason = "hold";
        }
    }

    /// Notes what a request waits for; after a long wait for a node to be idle, has it kept free.
    fn still_waits(&self, turn: &Turn, ask: &Ask, decision: &Decision, snapshot: &FleetSnapshot) {
        let Some(best) = decision.candidates.first() else { return };
        let mut state = self.lock();
        let Some(parked) = state.parked.get_mut(&turn.id) else { return };
        parked.hold_since_ms = None;
        parked.reason = best.readiness.name();
        parked.predicted_ms = decision.until_start_ms().unwrap_or(0.0);
        drop(state);
        turn.reserve(decision, snapshot, &ask.seek.profile, &self.config.now().queue, self.fleet.now_ms());
    }
}
