//! A decayed average that is read without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Weight of the newest observation: the last eight are worth most of the average, so that a node which silently
/// became slow is noticed within a few requests.
const NEWEST: f64 = 0.25;

/// An exponentially weighted average of positive numbers; unknown until the first one.
#[derive(Debug, Default)]
pub(super) struct Rate(AtomicU64);

impl Rate {
    /// The average; `None` = nothing observed.
    pub(super) fn get(&self) -> Option<f64> {
        let bits = self.0.load(Relaxed);
        (bits != 0).then(|| f64::from_bits(bits))
    }

    /// Takes one more in. What is not finite or not positive is passed over.
    pub(super) fn observe(&self, value: f64) {
        if !(value.is_finite() && value > 0.0) {
            return;
        }
        let next = self.get().map_or(value, |average| average + NEWEST * (value - average));
        // A lost race loses one observation of many.
        self.0.store(next.to_bits(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_what_is_observed_and_ignores_nonsense() {
        let rate = Rate::default();
        assert_eq!(rate.get(), None);
        for nonsense in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            rate.observe(nonsense);
        }
        assert_eq!(rate.get(), None);
        rate.observe(100.0);
        assert_eq!(rate.get(), Some(100.0));
        (0..16).for_each(|_| rate.observe(10.0));
        assert!(rate.get().is_some_and(|average| (10.0..11.0).contains(&average)));
    }
}
