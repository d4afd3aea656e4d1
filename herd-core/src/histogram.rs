//! Many measurements in a few bytes: counts in logarithmic buckets, from which quantiles are read and which add up.
//!
//! Unlike [`crate::history`] nothing decays: two of these merge into exactly what one of all their values would be, in
//! any order, so that an hour's become a day's. Values are kept in thousandths of their unit, whole numbers all the
//! way, and a quantile is right within about 3 %; count, sum, least and greatest are exact.

/// Buckets for each doubling.
const PER_DOUBLING: u64 = 16;
/// Greatest value in thousandths: over 500 years in milliseconds. What is beyond counts as this.
const GREATEST: u64 = (1 << 44) - 1;
/// How many buckets that makes.
const BUCKETS: usize = 656;
/// Thousandths.
const SCALE: f64 = 1_000.0;

/// Measurements in logarithmic buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    count: u64,
    sum: u64,
    least: u64,
    greatest: u64,
    /// The bucket of the first of `counts`.
    first: usize,
    /// Neither the first nor the last is 0.
    counts: Vec<u64>,
}

impl Histogram {
    /// Adds one measurement. Below 0 counts as 0; what is no number does not count.
    pub fn observe(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts from floats saturate")]
        let value = ((value * SCALE).round() as u64).min(GREATEST);
        self.widen(value, value, 1);
        self.sum = self.sum.saturating_add(value);
        self.add(bucket(value), 1);
    }

    /// Adds all of `other`'s measurements.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.widen(other.least, other.greatest, other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.cover(other.first, other.first + other.counts.len() - 1);
        for (at, count) in other.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.add(other.first + at, *count);
        }
    }

    fn widen(&mut self, least: u64, greatest: u64, more: u64) {
        self.least = if self.count == 0 { least } else { self.least.min(least) };
        self.greatest = self.greatest.max(greatest);
        self.count = self.count.saturating_add(more);
    }

    fn add(&mut self, bucket: usize, count: u64) {
        self.cover(bucket, bucket);
        let sum = &mut self.counts[bucket - self.first];
        *sum = sum.saturating_add(count);
    }

    /// Makes room for the buckets from `first` to `last`.
    fn cover(&mut self, first: usize, last: usize) {
        if self.counts.is_empty() {
            self.first = first;
        } else if first < self.first {
            self.counts.splice(0..0, std::iter::repeat_n(0, self.first - first));
            self.first = first;
        }
        if last - self.first >= self.counts.len() {
            self.counts.resize(last - self.first + 1, 0);
        }
    }

    /// How many measurements there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum as f64 / SCALE
    }

    /// Their average; `None` = there are none.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum() / self.count as f64)
    }

    /// The least; `None` = there are none.
    #[must_use]
    pub fn min(&self) -> Option<f64> {
        (self.count > 0).then_some(self.least as f64 / SCALE)
    }

    /// The greatest; `None` = there are none.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        (self.count > 0).then_some(self.greatest as f64 / SCALE)
    }

    /// The `q` quantile (0-1); `None` = there are no measurements.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * self.count as f64).max(1.0);
        let mut below = 0_u64;
        let at = self.counts.iter().position(|count| {
            below = below.saturating_add(*count);
            below as f64 >= rank
        });
        let middle = middle(self.first + at.unwrap_or(self.counts.len().saturating_sub(1)));
        Some(middle.clamp(self.least, self.greatest) as f64 / SCALE)
    }

    /// A compact form, a few bytes for a few measurements; empty for none.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.count == 0 {
            return bytes;
        }
        for number in [self.sum, self.least, self.greatest - self.least] {
            put(&mut bytes, number);
        }
        let mut next = 0;
        for (at, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let bucket = self.first + at;
            put(&mut bytes, (bucket - next) as u64);
            put(&mut bytes, *count);
            next = bucket + 1;
        }
        bytes
    }

    /// Adds the measurements that [`Self::to_bytes`] wrote. Returns whether `bytes` are such; of others, what could be
    /// read has been added.
    pub fn merge_bytes(&mut self, mut bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let (Some(sum), Some(least), Some(width)) = (take(&mut bytes), take(&mut bytes), take(&mut bytes)) else {
            return false;
        };
        let greatest = least.saturating_add(width).min(GREATEST);
        let least = least.min(greatest);
        let mut pairs = false;
        let mut next = 0_u64;
        while !bytes.is_empty() {
            let (Some(gap), Some(count)) = (take(&mut bytes), take(&mut bytes)) else { return false };
            let place = next.saturating_add(gap);
            let Some(index) = usize::try_from(place).ok().filter(|index| *index < BUCKETS) else { return false };
            if !pairs {
                // All at once: one by one the buckets would move at each step.
                self.cover(bucket(least), bucket(greatest));
                pairs = true;
            }
            self.widen(least, greatest, count);
            self.add(index, count);
            next = place + 1;
        }
        self.sum = self.sum.saturating_add(sum);
        true
    }
}

fn bucket(value: u64) -> usize {
    let doublings = u64::from(value.max(PER_DOUBLING).ilog2() - PER_DOUBLING.ilog2());
    let index = doublings * PER_DOUBLING + (value >> doublings);
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doublings = (bucket / PER_DOUBLING).saturating_sub(1);
    let lowest = (bucket - doublings * PER_DOUBLING) << doublings;
    lowest + (1 << doublings) / 2
}

/// Appends `number`, seven bits a byte, the lowest first; the eighth bit says that more follow.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.observe(*value);
        }
        histogram
    }

    #[test]
    fn buckets_are_in_order_and_their_middles_are_near() {
        let mut last = 0;
        for value in (0..4_000).chain((0..44).map(|bit| 1_u64 << bit)).chain([GREATEST]) {
            let index = bucket(value);
            assert!(index < BUCKETS && (value < 4_000 || index >= last), "{value}");
            last = index;
            let error = middle(index).abs_diff(value) as f64;
            assert!(error <= value as f64 / 32.0, "{value} is in bucket {index} of {}", middle(index));
        }
        assert_eq!(bucket(GREATEST), BUCKETS - 1);
    }

    #[test]
    fn one_value_is_told_exactly() {
        let one = of(&[360.2]);
        for q in [0.0, 0.5, 1.0] {
            assert_eq!(one.quantile(q), Some(360.2));
        }
        assert_eq!((one.count(), one.sum(), one.mean()), (1, 360.2, Some(360.2)));
        assert!(one.to_bytes().len() <= 10, "{}", one.to_bytes().len());
    }

    #[test]
    fn nothing_has_no_quantile_and_no_bytes() {
        let none = Histogram::default();
        assert_eq!((none.quantile(0.5), none.mean(), none.min(), none.max()), (None, None, None, None));
        assert!(none.to_bytes().is_empty());
        assert!(Histogram::default().merge_bytes(&[]));
    }

    #[test]
    fn odd_values_do_no_harm() {
        let odd = of(&[f64::NAN, f64::INFINITY, -1.0, 0.0]);
        assert_eq!((odd.count(), odd.min()), (3, Some(0.0)));
        assert!(odd.quantile(0.99).unwrap().is_finite());
    }

    proptest! {
        #[test]
        fn quantiles_are_right_within_a_bucket(mut values in prop::collection::vec(0.0..1e6_f64, 1..200), q in 0.0..1.0_f64) {
            let told = of(&values).quantile(q).unwrap();
            values.sort_by(f64::total_cmp);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 200")]
            let rank = (q * values.len() as f64).ceil().max(1.0) as usize;
            let exact = values[rank - 1];
            prop_assert!((told - exact).abs() <= exact / 30.0 + 0.001, "{told} is not near {exact}");
        }

        #[test]
        fn parts_add_up_in_any_order(a in prop::collection::vec(0.0..1e9_f64, 0..50), b in prop::collection::vec(0.0..1e3_f64, 0..50)) {
            let whole = of(&[a.clone(), b.clone()].concat());
            let (a, b) = (of(&a), of(&b));
            let (mut merged, mut read) = (a.clone(), b.clone());
            merged.merge(&b);
            prop_assert_eq!(&merged, &whole);
            prop_assert!(read.merge_bytes(&a.to_bytes()));
            prop_assert_eq!(&read, &whole);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut histogram = of(&[1.0]);
            histogram.merge_bytes(&bytes);
            prop_assert!(histogram.quantile(0.5).unwrap().is_finite());
            prop_assert!(histogram.to_bytes().len() > 4);
        }
    }
}
