//! How many requests may be sent a second time, over the whole fleet: an outage must not be multiplied by retries.
//!
//! A token bucket as in Finagle's retry budget: every request pays in a share, every retry takes one out, and a small
//! steady income keeps a quiet fleet able to retry.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bounds on retries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetLimits {
    /// Retries that each request earns, 0-1.
    pub ratio: f64,
    /// Retries per second that are earned besides.
    pub per_s: f64,
    /// Most retries that are saved up.
    pub burst: f64,
}

impl Default for BudgetLimits {
    /// A fifth of the requests, as in Finagle and Envoy; the burst is what a dying node may have had in flight.
    fn default() -> Self {
        Self { ratio: 0.2, per_s: 10.0, burst: 100.0 }
    }
}

/// Retries that may still be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    limits: BudgetLimits,
    saved: f64,
    at_ms: u64,
}

impl RetryBudget {
    /// A full one.
    #[must_use]
    pub fn new(limits: BudgetLimits) -> Self {
        Self { limits, saved: limits.burst, at_ms: 0 }
    }

    /// A request begins.
    pub fn earn(&mut self) {
        self.saved = (self.saved + self.limits.ratio).min(self.limits.burst);
    }

    /// Takes one retry out; false = there is none.
    pub fn spend(&mut self, now_ms: u64) -> bool {
        self.saved = self.left(now_ms);
        self.at_ms = self.at_ms.max(now_ms);
        let may = self.saved >= 1.0;
        if may {
            self.saved -= 1.0;
        }
        may
    }

    /// Retries that are left at `now_ms`.
    #[must_use]
    pub fn left(&self, now_ms: u64) -> f64 {
        let since_ms = now_ms.saturating_sub(self.at_ms);
        (self.saved + since_ms as f64 / 1e3 * self.limits.per_s).min(self.limits.burst)
    }
}

/// A budget that many requests share.
#[derive(Debug)]
pub struct Retries(Mutex<RetryBudget>);

impl Retries {
    /// A full budget.
    #[must_use]
    pub fn new(limits: BudgetLimits) -> Self {
        Self(Mutex::new(RetryBudget::new(limits)))
    }

    /// A request begins.
    pub fn earn(&self) {
        self.lock().earn();
    }

    /// Retries that are left at `now_ms`.
    #[must_use]
    pub fn left(&self, now_ms: u64) -> f64 {
        self.lock().left(now_ms)
    }

    /// Takes one retry out; false = there is none.
    #[must_use]
    pub fn spend(&self, now_ms: u64) -> bool {
        self.lock().spend(now_ms)
    }

    fn lock(&self) -> MutexGuard<'_, RetryBudget> {
        // A panic while it is held leaves a budget that is still a budget.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_requests_once_the_burst_is_spent() {
        let mut budget = RetryBudget::new(BudgetLimits { ratio: 0.25, per_s: 0.0, burst: 3.0 });
        let spent = |budget: &mut RetryBudget| (0..10).filter(|_| budget.spend(0)).count();
        assert_eq!(spent(&mut budget), 3);
        (0..8).for_each(|_| budget.earn());
        assert_eq!(spent(&mut budget), 2);
    }

    #[test]
    fn time_earns_some_and_a_clock_that_goes_back_earns_none() {
        let mut budget = RetryBudget::new(BudgetLimits { ratio: 0.0, per_s: 1.0, burst: 2.0 });
        assert!(budget.spend(0) && budget.spend(0) && !budget.spend(0));
        assert!(!budget.spend(999) && budget.spend(1_001));
        assert!(!budget.spend(0) && !budget.spend(1_001));
        assert!(budget.left(1_501) - budget.left(1_001) > 0.499 && budget.left(99_000) > 1.999);
        assert!(budget.spend(1_000_000) && budget.spend(1_000_000) && !budget.spend(1_000_000));
    }
}
