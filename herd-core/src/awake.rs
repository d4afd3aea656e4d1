//! Time as this process has lived it: the monotonic clock without the stretches in which the process did not run.
//!
//! A process that is stopped (a debugger, `SIGSTOP`, a paused virtual machine, a laptop that sleeps) wakes to a clock
//! that has run on. Whatever it judges by age then looks dead: nodes whose heartbeats lie unread in a socket, streams
//! whose bytes do, requests that have waited. None of them was late; the judge was. Ages that are taken from an
//! [`AwakeClock`] do not grow while nobody could look, so that what has arrived meanwhile is read first.
//!
//! Somebody beats the clock at least every [`BEAT_MS`]; a reading that comes more than [`ASLEEP_AFTER_MS`] after the last
//! beat finds that the process was asleep, and leaves the gap out.

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Mutex, PoisonError};

/// Longest time between two beats in a process that runs, milliseconds.
pub const BEAT_MS: u64 = 500;
/// Time without a beat after which the process counts as having been asleep, milliseconds: several beats, because a busy
/// machine runs them late. A shorter sleep counts as time.
pub const ASLEEP_AFTER_MS: u64 = 2_500;

/// A monotonic clock that stands still while the process does not run. It never goes back.
///
/// ```
/// use herd_core::awake::AwakeClock;
///
/// let clock = AwakeClock::default();
/// (0..=10).for_each(|beat| clock.beat(beat * 500));
/// assert_eq!(clock.read(|| 5_400), 5_400);
/// // Stopped for 130 s: of the gap, one beat's time is left.
/// assert_eq!(clock.read(|| 135_000), 5_500);
/// assert_eq!((clock.slept_ms(), clock.sleeps()), (129_500, 1));
/// assert_eq!(clock.read(|| 135_200), 5_700);
/// ```
#[derive(Debug, Default)]
pub struct AwakeClock {
    /// The last beat on the raw clock; 0 = none yet, and no gap is looked for before there is one.
    beat_at_ms: AtomicU64,
    slept_ms: AtomicU64,
    sleeps: AtomicU64,
    /// Held while a gap is counted.
    counting: Mutex<()>,
}

impl AwakeClock {
    /// Now, milliseconds; `raw` reads the monotonic clock of the system. Does not wait, but for another reader that is
    /// counting a sleep.
    pub fn read(&self, raw: impl Fn() -> u64) -> u64 {
        loop {
            let slept_ms = self.slept_ms.load(Acquire);
            let raw_ms = raw();
            self.notice(raw_ms);
            // The process may have slept between the two, and another reader may have counted that.
            if self.slept_ms.load(Acquire) == slept_ms {
                return raw_ms.saturating_sub(slept_ms);
            }
        }
    }

    /// Says that the process runs, at `raw_ms` on the system's clock; returns how long it has slept, milliseconds, if this
    /// beat is the first to notice.
    pub fn beat(&self, raw_ms: u64) -> Option<u64> {
        let slept_ms = self.notice(raw_ms);
        self.beat_at_ms.fetch_max(raw_ms.max(1), AcqRel);
        slept_ms
    }

    /// All time that was slept through, milliseconds.
    #[must_use]
    pub fn slept_ms(&self) -> u64 {
        self.slept_ms.load(Acquire)
    }

    /// How often the process has slept.
    #[must_use]
    pub fn sleeps(&self) -> u64 {
        self.sleeps.load(Acquire)
    }

    fn notice(&self, raw_ms: u64) -> Option<u64> {
        self.gap_ms(raw_ms)?;
        let _counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        // Another reader may have counted it.
        let slept_ms = self.gap_ms(raw_ms)?.saturating_sub(BEAT_MS);
        // In this order: who sees the new beat sees that the gap is left out.
        self.slept_ms.fetch_add(slept_ms, AcqRel);
        self.sleeps.fetch_add(1, AcqRel);
        self.beat_at_ms.store(raw_ms, Release);
        Some(slept_ms)
    }

    /// The time since the last beat, if it is longer than in a process that runs.
    fn gap_ms(&self, raw_ms: u64) -> Option<u64> {
        let beat_at_ms = self.beat_at_ms.load(Acquire);
        Some(raw_ms.saturating_sub(beat_at_ms)).filter(|gap_ms| beat_at_ms > 0 && *gap_ms > ASLEEP_AFTER_MS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clock_that_nobody_beats_yet_runs_on() {
        let clock = AwakeClock::default();
        assert_eq!((clock.read(|| 60_000), clock.slept_ms()), (60_000, 0));
        clock.beat(60_000);
        assert_eq!(clock.read(|| 190_000), 60_500);
    }

    #[test]
    fn a_sleep_is_told_once_by_whoever_notices() {
        let clock = AwakeClock::default();
        clock.beat(1_000);
        assert_eq!((clock.beat(131_000), clock.beat(131_500)), (Some(129_500), None));
        clock.read(|| 262_000);
        assert_eq!((clock.beat(262_100), clock.sleeps()), (None, 2));
    }

    #[test]
    fn readers_in_many_threads_agree_on_a_sleep() {
        let clock = AwakeClock::default();
        clock.beat(1_000);
        let seen: Vec<u64> = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..8)
                .map(|late| {
                    scope.spawn({
                        let clock = &clock;
                        move || clock.read(|| 131_000 + late)
                    })
                })
                .collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        assert_eq!(clock.sleeps(), 1);
        assert!(seen.iter().all(|now_ms| (1_490..=1_510).contains(now_ms)), "{seen:?}");
    }

    proptest! {
        #[test]
        fn it_never_goes_back_and_leaves_out_only_what_was_slept(
            steps in prop::collection::vec((any::<bool>(), 1_u64..400_000), 1..60),
        ) {
            let clock = AwakeClock::default();
            clock.beat(1);
            let (mut raw_ms, mut last_ms, mut lived_ms) = (1, 1, 1_u64);
            for (sleeps, step_ms) in steps {
                let step_ms = if sleeps { step_ms + ASLEEP_AFTER_MS } else { step_ms % BEAT_MS };
                raw_ms += step_ms;
                lived_ms += if sleeps { BEAT_MS } else { step_ms };
                let now_ms = clock.read(|| raw_ms);
                prop_assert!(now_ms >= last_ms);
                prop_assert_eq!(now_ms, lived_ms);
                last_ms = now_ms;
                clock.beat(raw_ms);
            }
        }
    }
}
