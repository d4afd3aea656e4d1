//! The room in which requests wait for a slot, and their turns.
//!
//! Whoever keeps a room hands out the slots of one fleet ([`Dispatch`]): the edge behind a lock and on a task of its own,
//! the simulator in virtual time. Requests that wait no longer are taken out with [`WaitingRoom::leave`].

use std::collections::HashMap;
use std::sync::Arc;

use super::{Chooser, Hold, InTurn, Offer, Seek};
use crate::choice::Place;
use crate::decide::Decision;
use crate::queue::{self, Pass, Queue, QueueLimits, Sweep, Turn, Turned, Waiter, groups_max};

/// How often waiting requests are decided anew though nothing has changed, milliseconds: back-offs, ejections and ages end
/// by time alone.
pub const TICK_MS: u64 = 200;

/// What is said of a request that waits for nodes that are away.
const HOLD: &str = "hold";

/// Requests that wait for a slot. `C` is how the keeper of the room reaches one of them.
#[derive(Debug)]
pub struct WaitingRoom<C> {
    queue: Queue,
    parked: HashMap<u64, Parked<C>>,
}

/// A request that waits.
#[derive(Debug)]
pub struct Parked<C> {
    /// How it is reached.
    pub caller: C,
    /// What it takes and waits for.
    pub seek: Arc<Seek>,
    /// What it waits for, for observers (the admin API).
    pub reason: &'static str,
    /// Predicted time until it starts, milliseconds.
    pub predicted_ms: f64,
    /// Start of the hold period, when no node could serve it; `None` = some could.
    hold_since_ms: Option<u64>,
}

impl<C> Parked<C> {
    /// The request of `seek`, which waits after `decision`; `None` = no node can serve it now.
    #[must_use]
    pub fn new(seek: Seek, decision: Option<&Decision>, caller: C) -> Self {
        let best = decision.and_then(|decision| decision.candidates.first());
        Self {
            caller,
            hold_since_ms: seek.hold_since_ms,
            seek: Arc::new(seek),
            reason: best.map_or("queue", |best| best.readiness.name()),
            predicted_ms: decision.and_then(Decision::until_start_ms).unwrap_or(0.0),
        }
    }
}

impl<C> Default for WaitingRoom<C> {
    fn default() -> Self {
        Self { queue: Queue::default(), parked: HashMap::new() }
    }
}

impl<C> WaitingRoom<C> {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many wait for the model of this key.
    #[must_use]
    pub fn waiting_for(&self, model: u64) -> usize {
        self.queue.waiting_for(model)
    }

    /// All that wait, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Waiter, &Parked<C>)> {
        self.queue.iter().filter_map(|waiter| Some((waiter, self.parked.get(&waiter.id)?)))
    }

    /// The request `id`, if it waits.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Parked<C>> {
        self.parked.get(&id)
    }

    /// Lets a request wait. Returns the caller of the request that was displaced for it, with the answer to that.
    ///
    /// # Errors
    /// With the answer to a request that may not wait.
    pub fn enter(
        &mut self,
        waiter: Waiter,
        parked: Parked<C>,
        limits: &QueueLimits,
    ) -> Result<Option<(C, Offer)>, Offer> {
        let displaced = self.queue.admit(waiter, limits).map_err(|full| {
            let longest_ms = self.parked.values().map(|other| other.predicted_ms).fold(parked.predicted_ms, f64::max);
            Offer::QueueFull(full, longest_ms)
        })?;
        self.parked.insert(waiter.id, parked);
        Ok(displaced.and_then(|(displaced, full)| {
            let left = self.parked.remove(&displaced.id)?;
            Some((left.caller, Offer::QueueFull(full, left.predicted_ms)))
        }))
    }

    /// Takes the request `id` out: it waits no longer. False = it did not.
    pub fn leave(&mut self, id: u64) -> bool {
        self.queue.remove(id);
        self.parked.remove(&id).is_some()
    }

    /// Takes all out.
    pub fn clear(&mut self) -> Vec<C> {
        let parked = std::mem::take(&mut self.parked);
        for id in parked.keys() {
            self.queue.remove(*id);
        }
        parked.into_values().map(|parked| parked.caller).collect()
    }

    /// Takes the request `id` out because it is served.
    fn serve(&mut self, id: u64) -> Option<C> {
        self.queue.serve(id);
        self.parked.remove(&id).map(|parked| parked.caller)
    }

    /// Notes that the request `id` waits for nodes that are away.
    fn holds(&mut self, id: u64, now_ms: u64) {
        if let Some(parked) = self.parked.get_mut(&id) {
            parked.hold_since_ms.get_or_insert(now_ms);
            parked.reason = HOLD;
        }
    }

    /// Notes what the request `id` waits for; false = it has left.
    fn waits(&mut self, id: u64, decision: &Decision) -> bool {
        let (Some(parked), Some(best)) = (self.parked.get_mut(&id), decision.candidates.first()) else { return false };
        parked.hold_since_ms = None;
        parked.reason = best.readiness.name();
        parked.predicted_ms = decision.until_start_ms().unwrap_or(0.0);
        true
    }
}

/// Whoever keeps a waiting room and hands out the slots of a fleet.
pub trait Dispatch {
    /// How a request that waits is reached.
    type Caller;
    /// Lets `act` use the room, for no longer than it takes. Decisions are made outside of it: a request that leaves
    /// meanwhile is not kept waiting.
    fn room<R>(&self, act: impl FnOnce(&mut WaitingRoom<Self::Caller>) -> R) -> R;
    /// Chooses nodes.
    fn chooser(&self) -> &impl Chooser;
    /// Bounds on what waits.
    fn queue_limits(&self) -> QueueLimits;
    /// How long nodes that are away are waited for.
    fn hold(&self) -> Hold;
    /// Gives an offer to a request that was in the room. Where it is gone, its slot is given back by dropping the offer.
    fn hand(&self, caller: Self::Caller, offer: Offer);
}

/// Hands out what is free among `nodes` to all that wait, in turn; true = all have had theirs, else another pass is due at
/// once.
pub fn pass(dispatch: &impl Dispatch, nodes: usize) -> bool {
    queue::pass(&mut Turns(dispatch), groups_max(nodes))
}

struct Turns<'a, D>(&'a D);

impl<D: Dispatch> Pass for Turns<'_, D> {
    fn begin(&mut self) -> Sweep {
        let (limits, now_ms) = (self.0.queue_limits(), self.0.chooser().now_ms());
        self.0.room(|room| room.queue.begin(&limits, now_ms))
    }

    fn first(&mut self, sweep: &mut Sweep) -> Option<Turn> {
        self.0.room(|room| room.queue.first(sweep))
    }

    fn last(&mut self, sweep: &mut Sweep, group: u64) -> Option<Turn> {
        self.0.room(|room| room.queue.last(sweep, group))
    }

    fn take(&mut self, turn: &Turn) -> Turned {
        let (dispatch, chooser) = (self.0, self.0.chooser());
        let found = dispatch.room(|room| room.parked.get(&turn.id).map(|p| (Arc::clone(&p.seek), p.hold_since_ms)));
        // It has left meanwhile.
        let Some((seek, hold_since_ms)) = found else { return Turned::Served };
        let place = Place { ahead: turn.ahead, waited_ms: turn.waited_ms, ..Place::default() };
        match seek.in_turn(chooser, place, hold_since_ms, &dispatch.hold()) {
            InTurn::Offer(offer) => {
                if let Some(caller) = dispatch.room(|room| room.serve(turn.id)) {
                    dispatch.hand(caller, offer);
                }
                Turned::Served
            }
            InTurn::Waits(full) => {
                // After a long wait for a node to be idle it is kept free.
                if dispatch.room(|room| room.waits(turn.id, &full.0)) {
                    turn.reserve(&full.0, &full.1, &seek.profile, &dispatch.queue_limits(), chooser.now_ms());
                }
                Turned::Waits
            }
            InTurn::Holds => {
                dispatch.room(|room| room.holds(turn.id, chooser.now_ms()));
                Turned::Waits
            }
        }
    }

    fn end(&mut self, sweep: Sweep) -> bool {
        self.0.room(|room| room.queue.end(sweep))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Mode, Seek};
    use super::*;
    use crate::fleet::FleetSnapshot;
    use crate::inspect::{InspectLimits, inspect};
    use crate::queue::{Class, Owner, QueueFull};
    use crate::request::Surface;

    /// What a request of `client` for `model` is told, and who had to leave for it with what.
    fn enter(room: &mut WaitingRoom<u64>, client: u64, model: &str, id: u64) -> Result<Option<(u64, String)>, String> {
        let body = format!(r#"{{"model":"{model}"}}"#);
        let seek = Seek {
            profile: Arc::new(inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap()),
            tried: Vec::new(),
            class: Class::Interactive,
            fairness_key: Owner { client, app: 0 },
            holds: true,
            hold_since_ms: None,
            awaits_unreachable: false,
            mode: Mode::Queue,
        };
        let limits = QueueLimits { max_waiting: 4, max_waiting_per_model: 3, ..QueueLimits::default() };
        let waiter = seek.waiter(id, None, &FleetSnapshot::default(), 0);
        let told = |offer| match offer {
            Offer::QueueFull(QueueFull::All(limit), _) => format!("all {limit}"),
            Offer::QueueFull(QueueFull::Model(limit), _) => format!("model {limit}"),
            other => format!("{other:?}"),
        };
        let entered = room.enter(waiter, Parked::new(seek, None, id), &limits);
        entered.map(|displaced| displaced.map(|(id, offer)| (id, told(offer)))).map_err(told)
    }

    #[test]
    fn who_leaves_for_a_newcomer_is_told_which_limit_was_hit() {
        let mut room = WaitingRoom::default();
        for id in 1..=3 {
            assert_eq!(enter(&mut room, 1, "m", id), Ok(None));
        }
        assert_eq!(enter(&mut room, 1, "m", 4), Err("model 3".into()));
        assert_eq!(enter(&mut room, 2, "m", 5), Ok(Some((3, "model 3".into()))));
        assert_eq!(enter(&mut room, 1, "other", 6), Ok(None));
        assert_eq!(enter(&mut room, 1, "another", 7), Err("all 4".into()));
        assert_eq!(enter(&mut room, 3, "another", 8), Ok(Some((6, "all 4".into()))));
        assert_eq!((room.len(), room.iter().count()), (4, 4));
        assert!(room.leave(8) && !room.leave(8) && room.clear().len() == 3 && room.is_empty());
    }
}
