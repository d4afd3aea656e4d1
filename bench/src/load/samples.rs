//! Exact percentiles: a run has a few million samples at most, so that all of them are kept.

/// Times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples(Vec<u64>);

impl Samples {
    /// Adds one.
    pub fn add(&mut self, ns: u64) {
        self.0.push(ns);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The `q` quantile (0 to 1) by nearest rank: the smallest sample that at least that share is not above.
    /// `None` = there are no samples.
    #[must_use]
    pub fn quantile(&mut self, q: f64) -> Option<u64> {
        let last = self.0.len().checked_sub(1)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
        let rank = (q.clamp(0.0, 1.0) * self.0.len() as f64).ceil() as usize;
        let index = rank.saturating_sub(1).min(last);
        Some(*self.0.select_nth_unstable(index).1)
    }

    /// The same in microseconds.
    #[must_use]
    pub fn quantile_us(&mut self, q: f64) -> Option<f64> {
        self.quantile(q).map(|ns| ns as f64 / 1e3)
    }
}

/// The middle of `values`, or the mean of the two in the middle; `None` = there are none. What is not finite does not
/// count.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(samples: &[u64], q: f64, expected: Option<u64>) {
        assert_eq!(Samples(samples.to_vec()).quantile(q), expected);
    }

    #[test]
    fn quantiles_are_samples_by_nearest_rank() {
        check(&[], 0.5, None);
        check(&[7], 0.99, Some(7));
        check(&[5, 1, 4, 2, 3], 0.5, Some(3));
        check(&[4, 1, 3, 2], 0.5, Some(2));
        check(&[4, 1, 3, 2], 0.0, Some(1));
        check(&[4, 1, 3, 2], 1.0, Some(4));
        let hundred: Vec<u64> = (1..=100).rev().collect();
        check(&hundred, 0.99, Some(99));
        check(&hundred, 0.991, Some(100));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
        assert_eq!(median([f64::NAN, 1.0]), Some(1.0));
        assert_eq!(median([]), None);
    }
}
