//! The wall clock held against one that runs evenly, so that a step of it is noticed.
//!
//! A wall clock is set: by hand, by a time server, by a battery that ran out. What is kept by age must not be deleted because
//! the clock was a month ahead for a minute. Whoever looks at both clocks now and then, [`WallClock`] tells whether the wall
//! clock may be believed: after a step only once it has held for [`HOLDS_AFTER_MS`].

/// A difference between what the two clocks ran from one look to the next that counts as a step, milliseconds.
pub const STEP_MS: u64 = 60_000;
/// Time after a step until the wall clock is believed again, milliseconds.
pub const HOLDS_AFTER_MS: u64 = 86_400_000;
/// Difference between the wall clock at a start and when it was last believed that is no step, milliseconds: nobody tells
/// how long a process did not run.
pub const STOPPED_MS: u64 = 86_400_000;

/// A step of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// By how much the clock was set, milliseconds; negative = back.
    pub by_ms: i64,
}

/// Watches the wall clock.
///
/// ```
/// use herd_core::wall::{HOLDS_AFTER_MS, WallClock};
///
/// const DAY_MS: u64 = 86_400_000;
/// let mut clock = WallClock::new(None);
/// assert!(clock.look(0, 1_000 * DAY_MS).is_none() && clock.is_trusted());
/// // 40 days ahead, a minute later.
/// assert_eq!(clock.look(60_000, 1_040 * DAY_MS + 60_000).map(|step| step.by_ms), Some(40 * 86_400_000));
/// assert!(!clock.is_trusted());
/// clock.look(60_000 + HOLDS_AFTER_MS, 1_041 * DAY_MS + 60_000);
/// assert!(clock.is_trusted(), "it has held for a day");
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct WallClock {
    /// Both clocks at the last look: steady, wall.
    last: Option<(u64, u64)>,
    /// When the wall clock was last believed before the start, Unix milliseconds.
    believed_ms: Option<u64>,
    /// On the steady clock.
    stepped_at_ms: Option<u64>,
    step: Option<Step>,
}

impl WallClock {
    /// Watches from now on. `believed_ms` is the wall clock when an earlier process last believed it, Unix milliseconds;
    /// `None` = there was none.
    #[must_use]
    pub fn new(believed_ms: Option<u64>) -> Self {
        Self { believed_ms, ..Self::default() }
    }

    /// Looks at both clocks, in milliseconds: a steady one, which counts the sleep of the machine too, and the wall clock.
    /// Returns the step since the last look, if there was one.
    pub fn look(&mut self, steady_ms: u64, unix_ms: u64) -> Option<Step> {
        let step = match self.last.replace((steady_ms, unix_ms)) {
            Some((last_steady_ms, last_unix_ms)) => {
                let expected_ms = last_unix_ms.saturating_add(steady_ms.saturating_sub(last_steady_ms));
                stepped(expected_ms, unix_ms, STEP_MS, STEP_MS)
            }
            None => self.believed_ms.and_then(|believed_ms| stepped(believed_ms, unix_ms, STEP_MS, STOPPED_MS)),
        };
        if step.is_some() {
            self.stepped_at_ms = Some(steady_ms);
            self.step = step;
        }
        let has_held = |at_ms: &u64| steady_ms.saturating_sub(*at_ms) >= HOLDS_AFTER_MS;
        if self.stepped_at_ms.as_ref().is_some_and(has_held) {
            self.stepped_at_ms = None;
        }
        step
    }

    /// Whether the wall clock may be believed: it has been looked at, and has not stepped lately.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.last.is_some() && self.stepped_at_ms.is_none()
    }

    /// The last step; `None` = there was none.
    #[must_use]
    pub fn last_step(&self) -> Option<Step> {
        self.step
    }
}

/// The step from `expected_ms` to `unix_ms`, if it is more than `back_ms` back or `ahead_ms` ahead.
fn stepped(expected_ms: u64, unix_ms: u64, back_ms: u64, ahead_ms: u64) -> Option<Step> {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let (ahead, back) = (unix_ms.saturating_sub(expected_ms), expected_ms.saturating_sub(unix_ms));
    if ahead > ahead_ms {
        Some(Step { by_ms: signed(ahead) })
    } else if back > back_ms {
        Some(Step { by_ms: -signed(back) })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_795_348_800_000;
    const DAY: u64 = 86_400_000;

    #[test]
    fn a_clock_that_runs_evenly_or_is_trimmed_is_believed() {
        let mut clock = WallClock::new(None);
        assert!(!clock.is_trusted(), "nobody has looked yet");
        for minute in 0..5_000 {
            let drift = minute * 20;
            assert_eq!(clock.look(minute * 60_000, NOON + minute * 60_000 + drift), None);
            assert!(clock.is_trusted());
        }
    }

    #[test]
    fn a_step_and_the_way_back_are_two_and_each_takes_a_day() {
        let mut clock = WallClock::new(None);
        clock.look(0, NOON);
        assert!(clock.look(60_000, NOON + 40 * DAY).is_some());
        let back = clock.look(120_000, NOON + 120_000).unwrap();
        assert!(back.by_ms < -39 * 86_400_000);
        assert_eq!(clock.last_step(), Some(back));
        clock.look(DAY, NOON + DAY);
        assert!(!clock.is_trusted(), "the step back was two minutes later");
        clock.look(DAY + 120_000, NOON + DAY + 120_000);
        assert!(clock.is_trusted());
    }

    #[test]
    fn a_start_far_from_when_the_clock_was_last_believed_is_a_step() {
        let first = |believed_ms, unix_ms| {
            let mut clock = WallClock::new(Some(believed_ms));
            clock.look(7, unix_ms);
            clock.is_trusted()
        };
        assert!(first(NOON, NOON + DAY) && first(NOON, NOON + 5) && first(NOON, NOON - 60_000));
        assert!(!first(NOON, NOON + DAY + 1) && !first(NOON, NOON - 60_001));
    }
}
