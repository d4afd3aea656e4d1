//! One pass over all that wait: everybody in turn, as long as there is room.

use std::collections::HashSet;
use std::sync::Arc;

use herd_core::decide::Decision;
use herd_core::fleet::FleetSnapshot;
use herd_core::launch::Signature;
use herd_core::ready::Readiness;

use super::{Ask, Dispatcher, Handed};
use crate::selector::{Outcome, Place};

/// A reservation is renewed with every pass; it ends soon after whom it was for has left.
const RESERVED_MS: u64 = 1_000;

/// Who is tried in a pass.
struct Turn {
    id: u64,
    group: u64,
    /// Others for the same model that wait before it.
    ahead: u32,
    /// How long it has waited.
    waited_ms: u64,
    ask: Arc<Ask>,
}

/// What came of a turn.
#[derive(PartialEq)]
enum Turned {
    /// It waits no longer.
    Served,
    /// It still waits, and so do all that are decided alike.
    Waits,
}

impl Dispatcher {
    /// Hands out what is free. Decisions are made outside the lock: who leaves meanwhile is not kept waiting, and what
    /// was claimed for somebody who has left is given back.
    pub(super) fn pass(&self) {
        let mut blocked = HashSet::new();
        while let Some(turn) = self.next(&blocked) {
            if self.take(&turn) == Turned::Waits {
                blocked.insert(turn.group);
                self.spread(&turn);
            }
        }
        self.publish_view();
    }

    /// There is no room for the first of a group. The last may still be better off where a load is worth its wait.
    fn spread(&self, first: &Turn) {
        while let Some(last) = self.last(first.group).filter(|last| last.id != first.id) {
            if self.take(&last) == Turned::Waits {
                return;
            }
        }
    }

    fn next(&self, blocked: &HashSet<u64>) -> Option<Turn> {
        let (state, now_ms) = (self.lock(), self.fleet.now_ms());
        let waiter = state.queue.next(blocked, &self.config.now().queue, now_ms)?;
        let ask = Arc::clone(&state.parked.get(&waiter.id)?.ask);
        let waited_ms = now_ms.saturating_sub(waiter.since_ms);
        Some(Turn { id: waiter.id, group: waiter.group, ahead: 0, waited_ms, ask })
    }

    fn last(&self, group: u64) -> Option<Turn> {
        let (state, now_ms) = (self.lock(), self.fleet.now_ms());
        let waiter = state.queue.last_of(group, &self.config.now().queue, now_ms)?;
        let ask = Arc::clone(&state.parked.get(&waiter.id)?.ask);
        let others = state.queue.waiting_for(waiter.model).saturating_sub(1);
        let waited_ms = now_ms.saturating_sub(waiter.since_ms);
        Some(Turn { id: waiter.id, group, ahead: u32::try_from(others).unwrap_or(u32::MAX), waited_ms, ask })
    }

    fn take(&self, turn: &Turn) -> Turned {
        let place = Place { ahead: turn.ahead, waited_ms: turn.waited_ms, desperate: false };
        match self.selector.choose(&turn.ask.profile, &turn.ask.tried, place) {
            Outcome::Chosen(choice) => {
                choice.node().load.unreserve();
                self.hand(turn.id, Handed::Chosen(choice));
                Turned::Served
            }
            Outcome::Full(full) => {
                self.still_waits(turn, &full.0, &full.1);
                Turned::Waits
            }
            Outcome::Nobody(nobody) => {
                let since_ms = self.holds_since(turn.id);
                if self.may_hold(&turn.ask, &nobody.0, &nobody.1, since_ms) {
                    return Turned::Waits;
                }
                if turn.ask.awaits_unreached {
                    self.hand(turn.id, Handed::Nobody(nobody));
                    return Turned::Served;
                }
                match self.last_chance(&turn.ask.profile, &turn.ask.tried) {
                    Outcome::Full(_) => return Turned::Waits,
                    Outcome::Chosen(choice) => self.hand(turn.id, Handed::Chosen(choice)),
                    Outcome::Nobody(_) => self.hand(turn.id, Handed::Nobody(nobody)),
                }
                Turned::Served
            }
        }
    }

    fn hand(&self, id: u64, handed: Handed) {
        let mut state = self.lock();
        state.queue.serve(id);
        let parked = state.parked.remove(&id);
        drop(state);
        if let Some(parked) = parked {
            self.wake.leave();
            // Whoever has left in this moment gives its slot back by dropping it.
            drop(parked.hand.send(handed));
        }
    }

    /// Since when no node could serve the request `id`.
    fn holds_since(&self, id: u64) -> Option<u64> {
        let now_ms = self.fleet.now_ms();
        let mut state = self.lock();
        let parked = state.parked.get_mut(&id)?;
        parked.reason = "hold";
        Some(*parked.held_since_ms.get_or_insert(now_ms))
    }

    /// Notes what a request waits for; after a long wait for a node to be idle, has it kept free.
    fn still_waits(&self, turn: &Turn, decision: &Decision, snapshot: &FleetSnapshot) {
        let Some(best) = decision.candidates.first() else { return };
        let now_ms = self.fleet.now_ms();
        let mut state = self.lock();
        let Some(parked) = state.parked.get_mut(&turn.id) else { return };
        parked.held_since_ms = None;
        parked.reason = best.readiness.name();
        parked.predicted_ms = decision.until_start_ms().unwrap_or(0.0);
        drop(state);
        if best.readiness == Readiness::Occupied && turn.waited_ms >= self.config.now().queue.reserve_after_ms {
            let signature = Signature::new(&turn.ask.profile.launch);
            snapshot.nodes[best.node].load.reserve(decision.model.key(), signature, now_ms + RESERVED_MS);
        }
    }
}
