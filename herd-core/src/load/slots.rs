//! How many requests a runner works on at once, learned from what it really did.
//!
//! A node that tells its slots is believed, until it says that it is busy or lets requests wait inside. One that does not
//! tell is taken to have as few as Ollama may start it with, and is tried with one more now and then, when a request has
//! waited long: answers that were written at the same time prove that there are so many.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::lock;

/// First pause after a node answered "busy"; it doubles with every further one in a row.
pub const BUSY_BACKOFF_BASE_MS: u64 = 250;
/// Longest such pause.
pub const BUSY_BACKOFF_MAX_MS: u64 = 8_000;
/// Time after which a slot that was learned away is tried again. A judgement: long against a burst of other clients,
/// short against a change of the node's settings.
pub const SLOT_REGAIN_MS: u64 = 60_000;
/// First pause after a slot was tried that is not known to be there; it doubles with every further try in vain.
pub const SLOT_TRY_BASE_MS: u64 = 60_000;
/// Longest such pause: one request an hour waits inside a node that has no more slots.
pub const SLOT_TRY_MAX_MS: u64 = 3_600_000;
/// How long a proof of slots holds: the node's settings may change.
pub const SLOT_PROOF_MS: u64 = 3_600_000;
/// Most slots that are looked for where the node does not say how many it has.
pub const SLOTS_TRIED_MAX: u32 = 16;
/// Requests in a row that must have waited inside a node before it is taken to have fewer slots: a single one may have
/// waited for something else.
const WAITS_IN_A_ROW: u32 = 2;
/// Two answers were written side by side when they overlap by this much, milliseconds: clocks and networks blur less.
const OVERLAP_MS: u64 = 100;
/// Answers whose times are remembered: more than run side by side anywhere.
const RUNS: usize = 32;

/// Slots of a runner, as its node tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// So many it has for certain.
    pub known: u32,
    /// So many it may have; the same where the node tells.
    pub possible: u32,
}

impl Slots {
    /// Slots that the node tells.
    #[must_use]
    pub const fn told(slots: u32) -> Self {
        Self { known: slots, possible: slots }
    }
}

/// What was learned of one runner's slots.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// Slots that were left when it was busy or let a request wait; 0 = never learned.
    left: AtomicU32,
    left_at_ms: AtomicU64,
    waits_in_a_row: AtomicU32,
    /// "Busy" answers in a row, and until when it rests after them.
    refusals: AtomicU32,
    rests_until_ms: AtomicU64,
    /// Most answers that were written side by side; 0 = never seen.
    proven: AtomicU32,
    proven_at_ms: AtomicU64,
    /// Tries in vain in a row, and when the next is due.
    tries: AtomicU32,
    try_at_ms: AtomicU64,
    runs: Mutex<Runs>,
}

/// When the last answers were written, from and to.
#[derive(Debug, Default)]
struct Runs {
    last: [(u64, u64); RUNS],
    next: usize,
}

impl Learned {
    /// It answered "busy" to a request, beside which it ran `others`.
    pub(super) fn refused(&self, others: u32, now_ms: u64) {
        self.leave(others, now_ms);
        let before = self.refusals.fetch_add(1, Relaxed);
        let pause = BUSY_BACKOFF_BASE_MS.saturating_mul(1 << before.min(16)).min(BUSY_BACKOFF_MAX_MS);
        self.rests_until_ms.fetch_max(now_ms.saturating_add(pause), Relaxed);
    }

    pub(super) fn accepted(&self) {
        self.refusals.store(0, Relaxed);
        self.rests_until_ms.store(0, Relaxed);
    }

    pub(super) fn rests_for_ms(&self, now_ms: u64) -> u64 {
        self.rests_until_ms.load(Relaxed).saturating_sub(now_ms)
    }

    /// A request was sent while `others` of ours ran there, and did or did not wait for them inside the node.
    pub(super) fn waited(&self, waited: bool, others: u32, now_ms: u64) {
        if others == 0 {
            return;
        }
        if !waited {
            self.waits_in_a_row.store(0, Relaxed);
        } else if self.waits_in_a_row.fetch_add(1, Relaxed).saturating_add(1) >= WAITS_IN_A_ROW {
            self.waits_in_a_row.store(0, Relaxed);
            self.leave(others, now_ms);
        }
    }

    fn leave(&self, others: u32, now_ms: u64) {
        let left = others.max(1);
        self.left.store(left, Relaxed);
        self.left_at_ms.store(now_ms, Relaxed);
        // What it did before it did not do now.
        self.proven.fetch_min(left, Relaxed);
    }

    /// An answer was written from `from_ms` to `to_ms`.
    pub(super) fn ran(&self, from_ms: u64, to_ms: u64, now_ms: u64) {
        let side_by_side = lock(&self.runs).add(from_ms, to_ms);
        let proven = self.proven(now_ms);
        if side_by_side < proven.max(2) {
            return;
        }
        self.proven.store(side_by_side, Relaxed);
        self.proven_at_ms.store(now_ms, Relaxed);
        if side_by_side > proven {
            self.tries.store(0, Relaxed);
            self.try_at_ms.store(now_ms, Relaxed);
        }
        if self.left.load(Relaxed) < side_by_side {
            self.left.store(0, Relaxed);
        }
    }

    fn proven(&self, now_ms: u64) -> u32 {
        let age_ms = now_ms.saturating_sub(self.proven_at_ms.load(Relaxed));
        if age_ms < SLOT_PROOF_MS { self.proven.load(Relaxed) } else { 0 }
    }

    pub(super) fn usable(&self, slots: Slots, now_ms: u64) -> u32 {
        let there = if slots.possible > slots.known {
            slots.known.max(self.proven(now_ms).min(slots.possible))
        } else {
            slots.known
        };
        let left = self.left.load(Relaxed);
        if left == 0 {
            return there;
        }
        let regained = now_ms.saturating_sub(self.left_at_ms.load(Relaxed)) / SLOT_REGAIN_MS;
        there.min(left.saturating_add(u32::try_from(regained).unwrap_or(u32::MAX)))
    }

    pub(super) fn may_try(&self, slots: Slots, now_ms: u64) -> bool {
        self.usable(slots, now_ms) < slots.possible && now_ms >= self.try_at_ms.load(Relaxed)
    }

    pub(super) fn tried(&self, now_ms: u64) {
        let before = self.tries.fetch_add(1, Relaxed);
        let pause_ms = SLOT_TRY_BASE_MS.saturating_mul(1 << before.min(16)).min(SLOT_TRY_MAX_MS);
        self.try_at_ms.store(now_ms.saturating_add(pause_ms), Relaxed);
    }
}

impl Runs {
    /// Adds one; returns how many of those that are remembered ran at one time with it, itself included.
    fn add(&mut self, from_ms: u64, to_ms: u64) -> u32 {
        let overlap = |one: (u64, u64)| (one.0.max(from_ms), one.1.min(to_ms));
        let beside = || self.last.iter().map(|one| overlap(*one)).filter(|(from, to)| from + OVERLAP_MS <= *to);
        // The most run side by side at the moment when one of them began.
        let at = |moment: u64| beside().filter(|(from, to)| *from <= moment && moment + OVERLAP_MS <= *to).count();
        let most = beside().map(|(from, _)| at(from)).max().unwrap_or(0);
        self.last[self.next] = (from_ms, to_ms);
        self.next = (self.next + 1) % RUNS;
        u32::try_from(most).unwrap_or(u32::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: Slots = Slots { known: 1, possible: SLOTS_TRIED_MAX };

    #[test]
    fn busy_answers_teach_fewer_slots_that_come_back() {
        let (learned, four) = (Learned::default(), Slots::told(4));
        assert_eq!(learned.usable(four, 0), 4);
        learned.refused(2, 1_000);
        assert_eq!((learned.usable(four, 1_000), learned.rests_for_ms(1_000)), (2, 250));
        learned.refused(2, 1_000);
        assert_eq!(learned.rests_for_ms(1_000), 500);
        (0..20).for_each(|_| learned.refused(2, 1_000));
        assert_eq!(learned.rests_for_ms(1_000), BUSY_BACKOFF_MAX_MS);
        learned.accepted();
        assert_eq!(learned.rests_for_ms(1_000), 0);
        assert_eq!(learned.usable(four, 1_000 + SLOT_REGAIN_MS), 3);
        assert_eq!(learned.usable(four, 1_000 + 9 * SLOT_REGAIN_MS), 4);
    }

    #[test]
    fn answers_written_side_by_side_prove_slots() {
        let learned = Learned::default();
        learned.ran(0, 10_000, 10_000);
        assert_eq!(learned.usable(UNKNOWN, 10_000), 1, "one alone proves nothing");
        learned.ran(10_010, 20_000, 20_000);
        learned.ran(19_950, 30_000, 30_000);
        assert_eq!(learned.usable(UNKNOWN, 30_000), 1, "nor do answers in a row, however close");
        learned.ran(15_000, 31_000, 31_000);
        assert_eq!(learned.usable(UNKNOWN, 31_000), 2, "it ran beside each of two, which were not beside each other");
        learned.ran(21_000, 30_500, 31_500);
        assert_eq!(learned.usable(UNKNOWN, 31_500), 3);
        assert_eq!(learned.usable(Slots { known: 1, possible: 2 }, 31_500), 2);
        assert_eq!(learned.usable(Slots::told(1), 31_500), 1, "a node that tells is believed");
        assert_eq!(learned.usable(UNKNOWN, 31_500 + SLOT_PROOF_MS), 1, "and proofs grow old");
    }

    #[test]
    fn a_slot_that_is_not_there_is_tried_more_and_more_seldom() {
        let learned = Learned::default();
        assert!(learned.may_try(UNKNOWN, 0) && !learned.may_try(Slots::told(1), 0));
        let mut now_ms = 0;
        let pauses: Vec<u64> = (0..9)
            .map(|_| {
                learned.tried(now_ms);
                let began_ms = now_ms;
                now_ms = (0..1_000)
                    .map(|minute| began_ms + minute * 60_000)
                    .find(|at| learned.may_try(UNKNOWN, *at))
                    .unwrap();
                (now_ms - began_ms) / 60_000
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        learned.ran(now_ms, now_ms + 5_000, now_ms + 5_000);
        learned.ran(now_ms + 1_000, now_ms + 6_000, now_ms + 6_000);
        assert!(learned.may_try(UNKNOWN, now_ms + 6_000), "one that is there makes the next worth a try");
    }

    #[test]
    fn requests_that_waited_inside_take_slots_away_that_were_believed() {
        let (learned, four) = (Learned::default(), Slots::told(4));
        learned.waited(true, 0, 0);
        learned.waited(true, 0, 0);
        assert_eq!(learned.usable(four, 0), 4, "they waited for somebody else's");
        learned.waited(true, 1, 0);
        learned.waited(false, 1, 0);
        learned.waited(true, 1, 0);
        assert_eq!(learned.usable(four, 0), 4, "once may be chance");
        learned.waited(true, 1, 0);
        assert_eq!(learned.usable(four, 0), 1);
        learned.ran(0, 5_000, 5_000);
        learned.ran(1_000, 6_000, 6_000);
        assert_eq!(learned.usable(four, 6_000), 4, "and come back when it is seen to run two");
        learned.waited(true, 1, 7_000);
        learned.waited(true, 1, 7_000);
        assert_eq!(learned.usable(UNKNOWN, 7_000), 1, "the later word counts");
    }
}
