//! Requests that wait at the edge for a slot: who is next.
//!
//! First by class: interactive before batch. Then fair between applications: the one that has been given the least
//! work goes first (start-time fair queueing with the predicted work as the cost: Goyal, Vin and Cheng, 1996). Within
//! an application the shortest predicted work, less the time it has waited already, so that short requests pass long
//! ones and nothing starves.
//!
//! Everything here is bounded by [`QueueLimits`]; deadlines are kept by those who wait.

mod pass;

use std::collections::{HashMap, HashSet};

pub use pass::{Pass, RESERVED_MS, Turn, Turned, group, pass};

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

/// One request that waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waiter {
    /// Its number, unique among all that ever waited.
    pub id: u64,
    /// How urgent it is.
    pub class: Class,
    /// Whose it is: requests of one application share its part.
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

/// Applications whose share is remembered while nothing of theirs waits.
const APPS_REMEMBERED: usize = 1_024;

/// All that wait.
#[derive(Debug, Default)]
pub struct Queue {
    waiters: Vec<Waiter>,
    /// Work given to each application, on a common virtual clock of milliseconds.
    given_ms: HashMap<u64, f64>,
    /// Where the clock stands: nobody is behind it, so that idleness earns no credit.
    clock_ms: f64,
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

    /// Everyone who waits, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter()
    }

    /// How many wait for `model`.
    #[must_use]
    pub fn waiting_for(&self, model: u64) -> usize {
        self.waiters.iter().filter(|waiter| waiter.model == model).count()
    }

    /// Lets `waiter` wait.
    ///
    /// # Errors
    /// When as many wait as may.
    pub fn admit(&mut self, waiter: Waiter, limits: &QueueLimits) -> Result<(), QueueFull> {
        if self.waiters.len() >= limits.max_waiting {
            return Err(QueueFull::All(limits.max_waiting));
        }
        if self.waiting_for(waiter.model) >= limits.max_waiting_per_model {
            return Err(QueueFull::Model(limits.max_waiting_per_model));
        }
        self.waiters.push(waiter);
        Ok(())
    }

    /// Takes the request `id` out: its client left, or its time is over.
    pub fn remove(&mut self, id: u64) -> Option<Waiter> {
        let index = self.waiters.iter().position(|waiter| waiter.id == id)?;
        Some(self.waiters.swap_remove(index))
    }

    /// Takes the request `id` out because it is served, which its application pays for.
    pub fn serve(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.remove(id)?;
        let start_ms = self.start_ms(waiter.app);
        self.clock_ms = self.clock_ms.max(start_ms);
        if self.given_ms.len() >= APPS_REMEMBERED {
            let clock_ms = self.clock_ms;
            self.given_ms.retain(|_, given_ms| *given_ms > clock_ms);
        }
        if self.given_ms.len() < APPS_REMEMBERED || self.given_ms.contains_key(&waiter.app) {
            self.given_ms.insert(waiter.app, start_ms + cost_ms(&waiter));
        }
        Some(waiter)
    }

    fn start_ms(&self, app: u64) -> f64 {
        self.given_ms.get(&app).copied().unwrap_or(0.0).max(self.clock_ms)
    }

    /// Who is next among those whose group is not `blocked`.
    #[must_use]
    pub fn next(&self, blocked: &HashSet<u64>, limits: &QueueLimits, now_ms: u64) -> Option<&Waiter> {
        let open = self.waiters.iter().filter(|waiter| !blocked.contains(&waiter.group));
        open.min_by(|a, b| self.compare(a, b, limits, now_ms))
    }

    /// Who of `group` would be served last.
    #[must_use]
    pub fn last_of(&self, group: u64, limits: &QueueLimits, now_ms: u64) -> Option<&Waiter> {
        let members = self.waiters.iter().filter(|waiter| waiter.group == group);
        members.max_by(|a, b| self.compare(a, b, limits, now_ms))
    }

    /// How many that wait for the same model would be served before `id`.
    #[must_use]
    pub fn ahead_of(&self, id: u64, limits: &QueueLimits, now_ms: u64) -> usize {
        let Some(own) = self.waiters.iter().find(|waiter| waiter.id == id) else { return 0 };
        let rivals = self.waiters.iter().filter(|waiter| waiter.model == own.model && waiter.id != id);
        rivals.filter(|rival| self.compare(rival, own, limits, now_ms).is_lt()).count()
    }

    fn compare(&self, a: &Waiter, b: &Waiter, limits: &QueueLimits, now_ms: u64) -> std::cmp::Ordering {
        let waited_ms = |waiter: &Waiter| now_ms.saturating_sub(waiter.since_ms);
        let class = |waiter: &Waiter| {
            if waited_ms(waiter) >= limits.batch_ages_after_ms { Class::Interactive } else { waiter.class }
        };
        let left_ms = |waiter: &Waiter| cost_ms(waiter) - waited_ms(waiter) as f64;
        class(a)
            .cmp(&class(b))
            .then_with(|| self.start_ms(a.app).total_cmp(&self.start_ms(b.app)))
            .then_with(|| left_ms(a).total_cmp(&left_ms(b)))
            .then(a.id.cmp(&b.id))
    }
}

/// What a request costs its application: an unknown or absurd prediction must not upset the clock.
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
        Waiter { id, class: Class::Interactive, app: 0, model: 1, group: 1, expected_ms: 1_000.0, since_ms: 0 }
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
        while let Some(next) = queue.next(&HashSet::new(), &LIMITS, now_ms).map(|waiter| waiter.id) {
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
            let id = queue.next(&HashSet::new(), &LIMITS, 0).map(|waiter| waiter.id)?;
            queue.serve(id);
            Some(id)
        };
        assert_eq!([next(), next(), next()], [Some(20), Some(3), Some(21)]);
    }

    #[test]
    fn blocked_groups_are_passed_by() {
        let queue = queue(&[waiter(1), Waiter { group: 2, model: 2, ..waiter(2) }]);
        let next = |blocked: &[u64]| queue.next(&blocked.iter().copied().collect(), &LIMITS, 0).map(|w| w.id);
        assert_eq!((next(&[]), next(&[1]), next(&[1, 2])), (Some(1), Some(2), None));
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
        assert_eq!(queue.admit(waiter(100), &LIMITS), Ok(()));
    }

    #[test]
    fn the_last_is_the_one_with_all_others_ahead() {
        let queue = queue(&[waiter(1), waiter(2), Waiter { expected_ms: 1.0, ..waiter(3) }]);
        assert_eq!(queue.last_of(1, &LIMITS, 0).map(|waiter| waiter.id), Some(2));
        let ahead = |id| queue.ahead_of(id, &LIMITS, 0);
        assert_eq!((ahead(3), ahead(1), ahead(2), ahead(9)), (0, 1, 2, 0));
    }

    proptest! {
        #[test]
        fn everybody_is_served_once_whatever_was_predicted(
            waiters in prop::collection::vec((any::<bool>(), 0_u64..5, any::<f64>(), 0_u64..20_000), 1..40),
        ) {
            let waiters: Vec<Waiter> = waiters.into_iter().zip(0..).map(|((batch, app, expected_ms, since_ms), id)| Waiter {
                class: if batch { Class::Batch } else { Class::Interactive }, app, expected_ms, since_ms, ..waiter(id)
            }).collect();
            let mut queue = queue(&waiters);
            let mut served = HashSet::new();
            while let Some(id) = queue.next(&HashSet::new(), &LIMITS, 20_000).map(|waiter| waiter.id) {
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
                let Some(next) = queue.next(&HashSet::new(), &LIMITS, 0).copied() else { break };
                queue.serve(next.id);
                given[usize::try_from(next.app).unwrap()] += next.expected_ms;
                let spread = given.iter().copied().fold(0.0, f64::max) - given.iter().copied().fold(f64::MAX, f64::min);
                prop_assert!(spread <= 2.0 * 5_000.0, "{given:?}");
            }
        }
    }
}
