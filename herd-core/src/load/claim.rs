//! One slot, counted until its guard is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Loading, ModelLoad, NodeLoad};

/// What a choice was made on, so that a claim can tell whether it still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// In-flight of the node.
    pub in_flight: u32,
    /// In-flight of the model there: of two counts that are read one after the other, either may have moved.
    pub on_model: u32,
    /// The load that the request will cause there; `None` = it causes none.
    pub load: Option<Loading>,
}

/// One slot of a (node, model), counted until this is dropped; with it the node's place for a load, if the request
/// causes one, and the trial of an ejected node, if it is that.
#[derive(Debug)]
#[must_use = "dropping the claim gives the slot back"]
pub struct Claim {
    node: Arc<NodeLoad>,
    model: Arc<ModelLoad>,
    loads: bool,
    trial: bool,
    ticket: u64,
}

impl Claim {
    /// Takes a slot if the node is still as it was `seen`; `ticket` counts choices.
    ///
    /// `None` = others claimed meanwhile: choose again.
    pub fn try_take(node: &Arc<NodeLoad>, model: &Arc<ModelLoad>, seen: &Seen, ticket: u64) -> Option<Self> {
        let after = seen.in_flight.saturating_add(1);
        node.counts.in_flight.compare_exchange(seen.in_flight, after, Relaxed, Relaxed).ok()?;
        let (mut claim, on_model) = Self::counted(node, model, ticket);
        if on_model != seen.on_model {
            return None;
        }
        if let Some(load) = seen.load {
            claim.loads = node.begin_load(load);
            if !claim.loads {
                return None;
            }
        }
        Some(claim)
    }

    /// Takes a slot whatever others did meanwhile.
    pub fn take(node: &Arc<NodeLoad>, model: &Arc<ModelLoad>, ticket: u64) -> Self {
        node.counts.in_flight.fetch_add(1, Relaxed);
        Self::counted(node, model, ticket).0
    }

    /// The claim, and how many the model had before it.
    fn counted(node: &Arc<NodeLoad>, model: &Arc<ModelLoad>, ticket: u64) -> (Self, u32) {
        let before = model.claimed();
        node.counts.last_chosen.fetch_max(ticket, Relaxed);
        node.counts.tickets.fetch_add(ticket, Relaxed);
        let trial = node.needs_trial() && !node.on_trial.swap(true, Relaxed);
        (Self { node: Arc::clone(node), model: Arc::clone(model), loads: false, trial, ticket }, before)
    }

    /// When the load began that this request has caused; `None` = it has caused none, or that is over.
    #[must_use]
    pub fn loading_since_ms(&self) -> Option<u64> {
        self.node.loading().filter(|_| self.loads).map(|load| load.since_ms)
    }

    /// Says that the load is over, as the first byte of the answer shows; returns when it began.
    pub fn load_ended(&mut self) -> Option<u64> {
        if !std::mem::take(&mut self.loads) {
            return None;
        }
        let load = self.node.loading();
        self.node.end_load();
        load.map(|load| load.since_ms)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.load_ended();
        if self.trial {
            self.node.on_trial.store(false, Relaxed);
        }
        self.node.counts.tickets.fetch_sub(self.ticket, Relaxed);
        self.model.in_flight.fetch_sub(1, Relaxed);
        self.node.counts.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle() -> (Arc<NodeLoad>, Arc<ModelLoad>) {
        (Arc::default(), Arc::default())
    }

    fn seen(in_flight: u32) -> Seen {
        Seen { in_flight, on_model: in_flight, load: None }
    }

    #[test]
    fn a_claim_counts_until_dropped() {
        let (node, model) = idle();
        let first = Claim::try_take(&node, &model, &seen(0), 1).unwrap();
        assert!(Claim::try_take(&node, &model, &seen(0), 2).is_none(), "the choice was made on another count");
        let second = Claim::take(&node, &model, 3);
        assert_eq!((node.in_flight(), model.in_flight()), (2, 2));
        drop((first, second));
        assert_eq!((node.in_flight(), model.in_flight(), node.turn()), (0, 0, 3));
    }

    #[test]
    fn the_idle_one_chosen_longest_ago_goes_first_and_then_the_one_whose_work_is_youngest() {
        let nodes: [_; 4] = std::array::from_fn(|_| idle());
        let take = |place: usize, ticket| Claim::take(&nodes[place].0, &nodes[place].1, ticket);
        let order = || {
            let mut order = [0, 1, 2, 3];
            order.sort_by_key(|place: &usize| nodes[*place].0.turn());
            order
        };
        drop((take(0, 2), take(1, 1)));
        let (_older, younger) = (take(2, 3), take(3, 4));
        assert_eq!(order(), [1, 0, 3, 2]);
        let _beside = take(2, 9);
        assert_eq!(order(), [1, 0, 2, 3], "the mean of 3 and 9 is more than 4");
        drop(younger);
        assert_eq!(order(), [1, 0, 3, 2]);
    }

    #[test]
    fn a_node_does_one_load_at_a_time() {
        let (node, model) = idle();
        let load = Loading { model: 7, since_ms: 5, until_ms: 9 };
        let loads = |in_flight| Seen { load: Some(load), ..seen(in_flight) };
        let mut first = Claim::try_take(&node, &model, &loads(0), 1).unwrap();
        assert_eq!((first.loading_since_ms(), node.loading()), (Some(5), Some(load)));
        assert!(Claim::try_take(&node, &model, &loads(1), 2).is_none());
        assert_eq!((node.in_flight(), model.in_flight()), (1, 1), "a refused claim leaves nothing behind");
        assert_eq!((first.load_ended(), node.loading(), first.load_ended()), (Some(5), None, None));
        let second = Claim::try_take(&node, &model, &loads(1), 3).unwrap();
        drop(first);
        assert_eq!(node.loading(), Some(load), "the load is the second's");
        drop(second);
        assert_eq!((node.loading(), node.in_flight()), (None, 0));
    }

    #[test]
    fn one_request_tries_an_ejected_node() {
        let (node, model) = idle();
        (0..3).for_each(|_| node.failed(0));
        let trial = Claim::take(&node, &model, 1);
        assert!(node.on_trial());
        drop(Claim::take(&node, &model, 2));
        assert!(node.on_trial(), "the trial is the first's");
        drop(trial);
        assert!(!node.on_trial());
    }

    #[test]
    fn claims_from_many_threads_never_pass_what_they_saw() {
        let (node, model) = idle();
        let won: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|ticket| {
                    let (node, model) = (&node, &model);
                    scope.spawn(move || {
                        let claim = Claim::try_take(node, model, &seen(0), ticket);
                        let won = usize::from(claim.is_some());
                        std::mem::forget(claim);
                        won
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((won, node.in_flight()), (1, 1));
    }
}
