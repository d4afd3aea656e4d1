//! How much has been pulled within the last day.

use std::collections::VecDeque;

const HOUR_MS: u64 = 3_600_000;
/// Hours that are kept: those of a day, and the one that is under way.
const HOURS: u64 = 25;

/// Bytes by the hour.
///
/// ```
/// use herd_core::pull::Daily;
///
/// let mut daily = Daily::default();
/// daily.add(10, 0);
/// daily.add(5, 3_600_000);
/// assert_eq!(daily.bytes(3_600_000), 15);
/// assert_eq!(daily.bytes(25 * 3_600_000), 5, "the first hour is more than a day ago");
/// ```
#[derive(Debug, Default)]
pub struct Daily {
    /// The number of an hour and its bytes, the oldest first.
    hours: VecDeque<(u64, u64)>,
}

impl Daily {
    /// Notes that `bytes` were pulled at `now_ms`.
    pub fn add(&mut self, bytes: u64, now_ms: u64) {
        let hour = now_ms / HOUR_MS;
        self.hours.retain(|(kept, _)| hour.saturating_sub(*kept) < HOURS);
        match self.hours.back_mut() {
            Some((last, sum)) if *last == hour => *sum = sum.saturating_add(bytes),
            _ => self.hours.push_back((hour, bytes)),
        }
    }

    /// The bytes of the last 24 to 25 hours before `now_ms`.
    #[must_use]
    pub fn bytes(&self, now_ms: u64) -> u64 {
        let hour = now_ms / HOUR_MS;
        let recent = self.hours.iter().filter(|(kept, _)| hour.saturating_sub(*kept) < HOURS);
        recent.map(|(_, bytes)| *bytes).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_kept_and_no_more() {
        let mut daily = Daily::default();
        for hour in 0..1_000 {
            daily.add(1, hour * HOUR_MS);
            daily.add(1, hour * HOUR_MS + 9);
        }
        assert_eq!((daily.hours.len(), daily.bytes(999 * HOUR_MS)), (25, 50));
        assert_eq!(daily.bytes(2_000 * HOUR_MS), 0);
    }
}
