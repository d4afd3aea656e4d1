//! Requests that wait at the edge for a slot, and which is next.
//!
//! First by class: interactive before batch. Then fair between clients, and between the applications of one: who has
//! been given the least work goes first (start-time fair queueing with the predicted work as the cost: Goyal, Vin and
//! Cheng, 1996). Within an application the shortest predicted work, less the time it has waited already, so that short
//! requests pass long ones and nothing starves. A client is known by what it cannot make up: a key, else its address.
//!
//! Everything here is bounded by [`QueueLimits`]: for a newcomer to a full queue, the client with the most requests
//! gives up its last. Deadlines are the requests' own.

mod given;
mod pass;
mod sweep;

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use given::Given;
pub use pass::{Pass, Turn, Turned, group, groups_max, pass};
pub use sweep::Sweep;

words! {
    /// Priority classes of requests, the more urgent first.
    #[derive(Default)]
    pub enum Class {
        /// Somebody looks at the screen.
        #[default]
        Interactive = "interactive",
        /// It may take its time.
        Batch = "batch",
    }
}

/// Bounds on what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Most requests that wait in all; 0 = none waits.
    pub max_waiting: usize,
    /// Most that wait for one model.
    pub max_waiting_per_model: usize,
    /// Longest that one waits.
    pub max_wait_ms: u64,
    /// After this wait a batch request counts as interactive.
    pub batch_ages_after_ms: u64,
    /// After this wait a node that must become idle for a request is kept from others.
    pub reserve_after_ms: u64,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            max_waiting: 4_096,
            max_waiting_per_model: 1_024,
            max_wait_ms: 300_000,
            batch_ages_after_ms: 60_000,
            reserve_after_ms: 5_000,
        }
    }
}

/// Fairness key of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// A hash of the key that it showed, else of the address that it came from.
    pub client: u64,
    /// Which application of that client's, as it says itself.
    pub app: u64,
}

/// One request that waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waiter {
    /// Its number, unique among all that ever waited.
    pub id: u64,
    /// Priority class.
    pub class: Class,
    /// Fairness key: a hash of the API key that it showed, else of the address that it came from.
    pub client: u64,
    /// Which application of that client's, as it says itself: its requests share a part of the client's.
    pub app: u64,
    /// The model that it waits for, by its key.
    pub model: u64,
    /// Requests of one group are decided alike: where one finds no slot, neither does the other.
    pub group: u64,
    /// Predicted time that it will occupy a slot, milliseconds.
    pub expected_ms: f64,
    /// When it began to wait.
    pub since_ms: u64,
}

/// Why a request may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueFull {
    /// Too many wait in all.
    #[error("{0} requests wait already (queue.max_waiting)")]
    All(usize),
    /// Too many wait for its model.
    #[error("{0} requests wait for this model already (queue.max_waiting_per_model)")]
    Model(usize),
}

/// All that wait.
#[derive(Debug, Default)]
pub struct Queue {
    waiters: Vec<Waiter>,
    /// How many of them wait for each model, by its key.
    waiting_for: HashMap<u64, usize>,
    /// Work given to each client and application.
    given: Given,
    /// Groups that passes have found to wait since one has looked at all.
    waited: HashSet<u64>,
}

impl Queue {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// All requests that wait, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter()
    }

    /// How many wait for `model`.
    #[must_use]
    pub fn waiting_for(&self, model: u64) -> usize {
        self.waiting_for.get(&model).copied().unwrap_or(0)
    }

    /// Lets `waiter` wait. Returns the request that was displaced for it, and why.
    ///
    /// # Errors
    /// When as many wait as may, and no client has more of them than the newcomer's would have.
    pub fn admit(&mut self, waiter: Waiter, limits: &QueueLimits) -> Result<Option<(Waiter, QueueFull)>, QueueFull> {
        let displaced = if self.waiting_for(waiter.model) >= limits.max_waiting_per_model {
            // Who leaves makes room in both respects.
            let full = QueueFull::Model(limits.max_waiting_per_model);
            Some((self.displace(waiter.client, |other| other.model == waiter.model).ok_or(full)?, full))
        } else if self.waiters.len() >= limits.max_waiting {
            let full = QueueFull::All(limits.max_waiting);
            Some((self.displace(waiter.client, |_| true).ok_or(full)?, full))
        } else {
            None
        };
        *self.waiting_for.entry(waiter.model).or_default() += 1;
        self.waiters.push(waiter);
        Ok(displaced)
    }

    /// Takes out the newest request of the client that has the most `among` those that wait, batch before interactive;
    /// `None` = that client would then have no more than `client`, for whose sake it is.
    fn displace(&mut self, client: u64, among: impl Fn(&Waiter) -> bool) -> Option<Waiter> {
        let mut counts: HashMap<u64, usize> = HashMap::new();
        for waiter in self.waiters.iter().filter(|waiter| among(waiter)) {
            *counts.entry(waiter.client).or_default() += 1;
        }
        let own = counts.get(&client).copied().unwrap_or(0);
        // Among equals any, but always the same.
        let (largest, most) = counts.into_iter().max_by_key(|(client, count)| (*count, *client))?;
        if most <= own + 1 {
            return None;
        }
        let of_largest = self.waiters.iter().filter(|waiter| waiter.client == largest && among(waiter));
        let last = of_largest.max_by_key(|waiter| (waiter.class, waiter.since_ms, waiter.id))?.id;
        self.remove(last)
    }

    /// Takes the request `id` out: its client left, or its time is over.
    pub fn remove(&mut self, id: u64) -> Option<Waiter> {
        let index = self.waiters.iter().position(|waiter| waiter.id == id)?;
        let waiter = self.waiters.swap_remove(index);
        if let Some(waiting) = self.waiting_for.get_mut(&waiter.model) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting_for.remove(&waiter.model);
            }
        }
        Some(waiter)
    }

    /// Takes the request `id` out because it is served, which its client and application pay for.
    pub fn serve(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.remove(id)?;
        self.given.give(waiter.client, waiter.app, cost_ms(&waiter));
        Some(waiter)
    }

    /// The place of `waiter` in the order in which requests are served, as it is at `now_ms`.
    fn rank(&self, waiter: &Waiter, limits: &QueueLimits, now_ms: u64) -> Rank {
        let waited_ms = now_ms.saturating_sub(waiter.since_ms);
        let class = if waited_ms >= limits.batch_ages_after_ms { Class::Interactive } else { waiter.class };
        let left_ms = cost_ms(waiter) - waited_ms as f64;
        let (client_ms, app_ms) = self.given.start_ms(waiter.client, waiter.app);
        Rank { class, client_ms, app_ms, left_ms, id: waiter.id }
    }
}

/// A place in the order in which requests are served; the smaller goes first.
#[derive(Debug, Clone, Copy)]
struct Rank {
    class: Class,
    /// Virtual time at which its client is due. It only grows while others are served.
    client_ms: f64,
    /// The same for the application among those of the client.
    app_ms: f64,
    /// Predicted work less the time waited.
    left_ms: f64,
    id: u64,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.class.cmp(&other.class))
            .then_with(|| self.client_ms.total_cmp(&other.client_ms))
            .then_with(|| self.app_ms.total_cmp(&other.app_ms))
            .then_with(|| self.left_ms.total_cmp(&other.left_ms))
            .then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}

/// What a request costs whoever sent it: an unknown or absurd prediction must not upset the clock.
fn cost_ms(waiter: &Waiter) -> f64 {
    if waiter.expected_ms.is_finite() { waiter.expected_ms.clamp(1.0, 3_600_000.0) } else { 1_000.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: QueueLimits = QueueLimits {
        max_waiting: 100,
        max_waiting_per_model: 50,
        max_wait_ms: 60_000,
        batch_ages_after_ms: 10_000,
        reserve_after_ms: 5_000,
    };

    fn waiter(id: u64) -> Waiter {
        Waiter {
            id,
            class: Class::Interactive,
            client: 0,
            app: 0,
            model: 1,
            group: 1,
            expected_ms: 1_000.0,
            since_ms: 0,
        }
    }

    fn queue(waiters: &[Waiter]) -> Queue {
        let mut queue = Queue::default();
        for waiter in waiters {
            queue.admit(*waiter, &LIMITS).unwrap();
        }
        queue
    }

    #[track_caller]
    fn served(waiters: &[Waiter], now_ms: u64, expected: &[u64]) {
        let mut queue = queue(waiters);
        let mut order = Vec::new();
        let mut sweep = queue.begin(&LIMITS, now_ms);
        while let Some(next) = queue.first(&mut sweep).map(|turn| turn.id) {
            queue.serve(next);
            order.push(next);
        }
        assert_eq!(order, expected);
    }

    #[test]
    fn who_came_first_goes_first_among_equals() {
        served(&[waiter(1), waiter(2), waiter(3)], 0, &[1, 2, 3]);
        served(&[Waiter { since_ms: 5, ..waiter(1) }, waiter(2)], 10, &[2, 1]);
    }

    #[test]
    fn interactive_goes_before_batch_until_that_has_waited_long() {
        let batch = Waiter { class: Class::Batch, ..waiter(1) };
        let late = Waiter { since_ms: 9_000, ..waiter(2) };
        served(&[batch, late], 9_999, &[2, 1]);
        served(&[batch, late], 10_000, &[1, 2]);
    }

    #[test]
    fn short_work_passes_long_work_which_does_not_starve() {
        let long = Waiter { expected_ms: 30_000.0, ..waiter(1) };
        let short = |since_ms| Waiter { since_ms, ..waiter(2) };
        served(&[long, short(28_000)], 28_500, &[2, 1]);
        served(&[long, short(29_500)], 29_600, &[1, 2]);
    }

    #[test]
    fn applications_share_the_fleet_however_many_requests_they_send() {
        let flood = (0..6).map(|id| Waiter { app: 7, ..waiter(id) });
        let few = (10..12).map(|id| Waiter { app: 8, since_ms: 50, ..waiter(id) });
        served(&flood.chain(few).collect::<Vec<_>>(), 100, &[0, 10, 1, 11, 2, 3, 4, 5]);
        let costly = (0..3).map(|id| Waiter { app: 7, expected_ms: 4_000.0, ..waiter(id) });
        let cheap = (10..15).map(|id| Waiter { app: 8, ..waiter(id) });
        served(&costly.chain(cheap).collect::<Vec<_>>(), 0, &[10, 0, 11, 12, 13, 14, 1, 2]);
    }

    #[test]
    fn idleness_earns_no_credit() {
        let mut queue = queue(&(0..4).map(|id| Waiter { app: 7, ..waiter(id) }).collect::<Vec<_>>());
        for id in 0..3 {
            assert!(queue.serve(id).is_some());
        }
        queue.admit(Waiter { app: 8, ..waiter(20) }, &LIMITS).unwrap();
        queue.admit(Waiter { app: 8, ..waiter(21) }, &LIMITS).unwrap();
        let mut next = || {
            let mut sweep = queue.begin(&LIMITS, 0);
            let id = queue.first(&mut sweep)?.id;
            queue.serve(id);
            Some(id)
        };
        assert_eq!([next(), next(), next()], [Some(20), Some(3), Some(21)]);
    }

    #[test]
    fn clients_share_the_fleet_whatever_they_say_of_themselves() {
        let flood = (0..6).map(|id| Waiter { client: 7, app: 100 + id, ..waiter(id) });
        let few = (10..12).map(|id| Waiter { client: 8, since_ms: 50, ..waiter(id) });
        served(&flood.chain(few).collect::<Vec<_>>(), 100, &[0, 10, 1, 11, 2, 3, 4, 5]);
    }

    #[test]
    fn the_applications_of_each_client_share_what_it_gets() {
        let of = |client, apps: [u64; 4], first: u64| {
            apps.into_iter().zip(first..).map(move |(app, id)| Waiter { client, app, ..waiter(id) })
        };
        let waiters: Vec<Waiter> = of(1, [5, 5, 5, 5], 0).chain(of(2, [5, 5, 5, 6], 10)).collect();
        served(&waiters, 0, &[0, 10, 13, 1, 11, 2, 12, 3]);
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_last_of_who_has_the_most() {
        let mut queue = Queue::default();
        for id in 0..50 {
            let class = if id == 3 { Class::Batch } else { Class::Interactive };
            queue.admit(Waiter { client: 7, app: id, class, ..waiter(id) }, &LIMITS).unwrap();
        }
        let mut leaves = |client, id, model| {
            let admitted = queue.admit(Waiter { client, model, ..waiter(id) }, &LIMITS);
            admitted.map(|displaced| displaced.map(|(waiter, _)| waiter.id))
        };
        assert_eq!(leaves(7, 50, 1), Err(QueueFull::Model(50)), "it has the most itself");
        assert_eq!(leaves(8, 51, 1), Ok(Some(3)), "what may take its time goes first");
        assert_eq!(leaves(8, 52, 1), Ok(Some(49)));
        for id in 53..75 {
            assert!(leaves(8, id, 1).is_ok_and(|displaced| displaced.is_some()), "{id}");
        }
        // Of 26 and 24 another would make 25 each, which is no more than fair.
        assert_eq!(leaves(8, 75, 1), Ok(Some(26)));
        assert_eq!(leaves(8, 76, 1), Err(QueueFull::Model(50)));
        for id in 100..150 {
            assert_eq!(leaves(9, id, 2), Ok(None));
        }
        assert_eq!(leaves(10, 150, 3), Ok(Some(149)), "of all models together");
        assert_eq!(leaves(9, 151, 3), Err(QueueFull::All(100)));
    }

    #[test]
    fn blocked_groups_are_passed_by() {
        let mut queue = queue(&[waiter(1), waiter(3), Waiter { group: 2, model: 2, ..waiter(2) }]);
        let mut sweep = queue.begin(&LIMITS, 0);
        assert_eq!(queue.first(&mut sweep).map(|turn| turn.id), Some(1));
        sweep.block(1);
        assert_eq!(queue.first(&mut sweep).map(|turn| turn.id), Some(2));
        assert_eq!(queue.first(&mut sweep), None);
    }

    #[test]
    fn both_limits_hold_and_are_named() {
        let mut queue = Queue::default();
        for id in 0..50 {
            queue.admit(waiter(id), &LIMITS).unwrap();
        }
        assert_eq!(queue.admit(waiter(50), &LIMITS), Err(QueueFull::Model(50)));
        for id in 50..100 {
            queue.admit(Waiter { model: 2, ..waiter(id) }, &LIMITS).unwrap();
        }
        assert_eq!(queue.admit(Waiter { model: 3, ..waiter(100) }, &LIMITS), Err(QueueFull::All(100)));
        assert!(queue.remove(7).is_some() && queue.remove(7).is_none());
        assert_eq!(queue.admit(waiter(100), &LIMITS), Ok(None));
    }

    #[test]
    fn the_last_is_the_one_with_all_others_ahead() {
        let mut queue = queue(&[waiter(1), waiter(2), Waiter { expected_ms: 1.0, ..waiter(3) }]);
        let mut sweep = queue.begin(&LIMITS, 0);
        let last = queue.last(&mut sweep, 1).unwrap();
        assert_eq!((last.id, last.ahead), (2, 2));
    }

    proptest! {
        /// One sweep serves in the order in which one would who looks at all of them anew for everyone.
        #[test]
        fn a_sweep_serves_in_order_while_the_shares_move(
            waiters in prop::collection::vec((any::<bool>(), 0_u64..5, 1.0..9_000.0_f64, 0_u64..20_000), 1..40),
        ) {
            let waiters: Vec<Waiter> = waiters.into_iter().zip(0..).map(|((batch, app, expected_ms, since_ms), id)| Waiter {
                class: if batch { Class::Batch } else { Class::Interactive }, app, expected_ms, since_ms, ..waiter(id)
            }).collect();
            let mut queue = queue(&waiters);
            let mut sweep = queue.begin(&LIMITS, 20_000);
            while let Some(turn) = queue.first(&mut sweep) {
                let first = queue.iter().min_by_key(|waiter| queue.rank(waiter, &LIMITS, 20_000)).map(|waiter| waiter.id);
                prop_assert_eq!(Some(turn.id), first);
                queue.serve(turn.id);
            }
            prop_assert!(queue.is_empty());
        }

        /// The counts of each model are right whoever comes, leaves, is served or gives up its place.
        #[test]
        fn who_waits_for_a_model_is_counted(
            steps in prop::collection::vec((0_u8..3, 0_usize..8, 0_u64..4, 0_u64..3), 1..120),
        ) {
            let limits = QueueLimits { max_waiting: 6, max_waiting_per_model: 4, ..LIMITS };
            let mut queue = Queue::default();
            for (number, (step, place, client, model)) in (0..).zip(steps) {
                let one = queue.iter().nth(place).map_or(0, |waiter| waiter.id);
                match step {
                    0 => drop(queue.admit(Waiter { client, model, ..waiter(1_000 + number) }, &limits)),
                    1 => _ = queue.serve(one),
                    _ => _ = queue.remove(one),
                }
                for model in 0..3 {
                    let counted = queue.iter().filter(|waiter| waiter.model == model).count();
                    prop_assert_eq!(queue.waiting_for(model), counted);
                }
                prop_assert!(queue.waiting_for.values().all(|waiting| *waiting > 0));
            }
        }

        #[test]
        fn everybody_is_served_once_whatever_was_predicted(
            waiters in prop::collection::vec((any::<bool>(), 0_u64..5, any::<f64>(), 0_u64..20_000), 1..40),
        ) {
            let waiters: Vec<Waiter> = waiters.into_iter().zip(0..).map(|((batch, app, expected_ms, since_ms), id)| Waiter {
                class: if batch { Class::Batch } else { Class::Interactive }, app, expected_ms, since_ms, ..waiter(id)
            }).collect();
            let mut queue = queue(&waiters);
            let mut served = HashSet::new();
            let mut sweep = queue.begin(&LIMITS, 20_000);
            while let Some(id) = queue.first(&mut sweep).map(|turn| turn.id) {
                prop_assert!(queue.serve(id).is_some() && served.insert(id));
            }
            prop_assert_eq!(served.len(), waiters.len());
        }

        #[test]
        fn no_application_falls_behind_another_that_also_waits(
            costs in prop::collection::vec((0_u64..3, 1.0..5_000.0_f64), 30..50),
        ) {
            let waiters: Vec<Waiter> = costs.iter().zip(0..).map(|(&(app, expected_ms), id)| Waiter { app, expected_ms, ..waiter(id) }).collect();
            let mut queue = queue(&waiters);
            let mut given = [0.0_f64; 3];
            loop {
                let waiting = [0, 1, 2].map(|app| queue.iter().any(|waiter| waiter.app == app));
                if waiting.iter().filter(|waits| **waits).count() < 3 { break }
                let mut sweep = queue.begin(&LIMITS, 0);
                let Some(turn) = queue.first(&mut sweep) else { break };
                let next = queue.serve(turn.id).unwrap();
                given[usize::try_from(next.app).unwrap()] += next.expected_ms;
                let spread = given.iter().copied().fold(0.0, f64::max) - given.iter().copied().fold(f64::MAX, f64::min);
                prop_assert!(spread <= 2.0 * 5_000.0, "{given:?}");
            }
        }
    }
}
