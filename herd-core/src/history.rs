//! How long requests took, remembered with decay.

/// Buckets are a quarter of a doubling wide, so that a quantile is right within about 9 %.
const BUCKETS_PER_DOUBLING: f64 = 4.0;
/// From 1 ms to 2^22 ms, over an hour.
const BUCKETS: usize = 22 * 4 + 1;
/// Every observation weighs this much less than the one after it: the last eight are worth half of the memory, so
/// that a node that silently became slow is noticed within a few requests.
const DECAY_PER_OBSERVATION: f64 = 0.917;
/// Half-life in time: what was slow an hour ago has mostly been forgotten, so that a node earns its way back.
const HALF_LIFE_MS: f64 = 30.0 * 60_000.0;

/// A histogram of durations in logarithmic buckets whose weights decay with time and with newer observations.
#[derive(Debug, Clone, Default)]
pub struct LatencyHistory {
    weights: Box<[f32]>,
    observed_at_ms: u64,
}

impl LatencyHistory {
    /// Adds one duration. Not finite or negative ones count as the nearest bucket.
    pub fn observe(&mut self, duration_ms: f64, now_ms: u64) {
        if self.weights.is_empty() {
            self.weights = vec![0.0; BUCKETS].into();
        }
        let idle_ms = now_ms.saturating_sub(self.observed_at_ms) as f64;
        #[expect(clippy::cast_possible_truncation, reason = "a weight needs no more precision")]
        let keep = (DECAY_PER_OBSERVATION * (-idle_ms / HALF_LIFE_MS).exp2()) as f32;
        self.weights.iter_mut().for_each(|weight| *weight *= keep);
        self.weights[bucket(duration_ms)] += 1.0;
        self.observed_at_ms = self.observed_at_ms.max(now_ms);
    }

    /// The `q` quantile (0-1) in milliseconds; `None` = nothing observed.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total: f64 = self.weights.iter().map(|w| f64::from(*w)).sum();
        if total <= 0.0 {
            return None;
        }
        let mut below = 0.0;
        let index = self.weights.iter().position(|weight| {
            below += f64::from(*weight);
            below >= q.clamp(0.0, 1.0) * total
        });
        Some(middle(index.unwrap_or(BUCKETS - 1)))
    }
}

fn bucket(duration_ms: f64) -> usize {
    if duration_ms.is_nan() || duration_ms <= 1.0 {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; saturates for infinity")]
    let index = (duration_ms.log2() * BUCKETS_PER_DOUBLING).round() as usize;
    index.min(BUCKETS - 1)
}

fn middle(bucket: usize) -> f64 {
    (bucket as f64 / BUCKETS_PER_DOUBLING).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(actual: Option<f64>, expected: f64) {
        let actual = actual.unwrap();
        assert!((actual / expected - 1.0).abs() < 0.1, "{actual} is not near {expected}");
    }

    #[test]
    fn quantiles_are_right_within_a_bucket() {
        let mut history = LatencyHistory::default();
        assert_eq!(history.quantile(0.75), None);
        for duration in [100.0, 100.0, 100.0, 5_000.0] {
            history.observe(duration, 0);
        }
        near(history.quantile(0.5), 100.0);
        near(history.quantile(0.99), 5_000.0);
    }

    #[test]
    fn a_node_that_became_slow_is_noticed_within_a_few_requests() {
        let mut history = LatencyHistory::default();
        for _ in 0..500 {
            history.observe(200.0, 0);
        }
        for _ in 0..4 {
            history.observe(4_000.0, 0);
        }
        near(history.quantile(0.75), 4_000.0);
    }

    #[test]
    fn odd_durations_do_no_harm() {
        let mut history = LatencyHistory::default();
        for duration in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            history.observe(duration, 7);
        }
        history.observe(1.0, 0); // a clock that went back
        assert!(history.quantile(0.75).unwrap().is_finite());
    }
}
