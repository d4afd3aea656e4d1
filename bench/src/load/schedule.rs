//! When the requests of an open loop are due.

/// Due times at a fixed rate, whatever becomes of the requests: who is late is late, and its latency counts from when
/// it was due. (A generator that waits for answers before it asks again leaves out the requests that would have
/// suffered most; Gil Tene calls that coordinated omission.)
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    start_ns: u64,
    per_s: f64,
}

impl Schedule {
    /// `per_s` requests a second from `start_ns` on.
    #[must_use]
    pub fn new(start_ns: u64, per_s: f64) -> Self {
        Self { start_ns, per_s: per_s.max(1e-3) }
    }

    /// When request number `index` is due.
    #[must_use]
    pub fn due_ns(&self, index: u64) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturates")]
        let after = (index as f64 / self.per_s * 1e9) as u64;
        self.start_ns.saturating_add(after)
    }

    /// How many are due by `now_ns`.
    #[must_use]
    pub fn due_by(&self, now_ns: u64) -> u64 {
        let Some(after_ns) = now_ns.checked_sub(self.start_ns) else { return 0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturates")]
        let guess = (after_ns as f64 / 1e9 * self.per_s) as u64;
        // Rounding may put it one beside.
        (guess.saturating_sub(1)..=guess + 1).find(|index| self.due_ns(*index) > now_ns).unwrap_or(guess + 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_depend_on_when_one_looks() {
        let schedule = Schedule::new(1_000, 1_000.0);
        assert_eq!((schedule.due_ns(0), schedule.due_ns(3)), (1_000, 3_001_000));
        assert_eq!(schedule.due_by(999), 0);
        assert_eq!(schedule.due_by(1_000), 1);
        assert_eq!(schedule.due_by(3_000_999), 3);
        assert_eq!(schedule.due_by(3_001_000), 4);
        // After a stall of a second, all that it held up are due, each since its own time.
        assert_eq!(schedule.due_by(1_003_001_000), 1_004);
    }

    #[test]
    fn what_is_due_and_when_agree_at_odd_rates() {
        for per_s in [0.7, 3.0, 333.3, 12_345.0] {
            let schedule = Schedule::new(17, per_s);
            for index in [0, 1, 2, 99, 100_000] {
                let due_ns = schedule.due_ns(index);
                assert!(schedule.due_by(due_ns) > index, "{per_s} {index}");
                assert!(schedule.due_by(due_ns - 1) <= index, "{per_s} {index}");
            }
        }
    }
}
