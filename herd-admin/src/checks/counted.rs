//! Counts that only ever rise, from the start of the process, and by how much they rose lately.

use std::collections::VecDeque;

use herd_store::{DAY_MS, HOUR_MS};

/// What the edge has counted since its start, of what no trace tells. Benchmarks are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EdgeCounts {
    /// Requests that were refused because too many waited already.
    pub queue_refused: u64,
    /// Requests that were given up because they waited too long.
    pub queue_timeouts: u64,
    /// Retries that the fleet-wide budget forbade.
    pub retry_budget_exhausted: u64,
    /// Loads that nodes told of and the edge had not foreseen.
    pub unforeseen_loads: u64,
    /// Bodies that were refused as too large, too slow or too many at a time.
    pub bodies_refused: u64,
    /// Times that the process did not run for some seconds.
    pub sleeps: u64,
    /// Requests that a proxy on this machine seems to have forwarded without saying so.
    pub unmarked_proxies: u64,
}

/// The same with what the trace store counts, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) edge: EdgeCounts,
    /// Traces that were lost.
    pub(super) dropped: u64,
}

/// Fewest milliseconds between two moments that are kept: a day has at most 1,440 of them.
const EVERY_MS: u64 = 60_000;

/// Moments of the last day at which something had been counted, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Counts(VecDeque<(u64, Counted)>);

impl Counts {
    /// Takes what is counted now; returns by how much that is more than an hour and a day ago. What the process has not
    /// lived through counts as nothing.
    pub(super) fn take(&mut self, now: Counted, now_ms: u64) -> [Counted; 2] {
        let known = &mut self.0;
        // The last moment from before the day stays: it says from what the day began.
        while known.get(1).is_some_and(|(at, _)| now_ms.saturating_sub(*at) >= DAY_MS) {
            known.pop_front();
        }
        let before = |span_ms: u64| {
            let old = known.iter().rev().find(|(at, _)| now_ms.saturating_sub(*at) >= span_ms);
            old.map_or_else(Counted::default, |(_, counted)| *counted)
        };
        let since = [HOUR_MS, DAY_MS].map(|span_ms| now.since(&before(span_ms)));
        let is_due = known.back().is_none_or(|(at, _)| now_ms.saturating_sub(*at) >= EVERY_MS);
        if is_due && known.back().is_none_or(|(_, counted)| *counted != now) {
            known.push_back((now_ms, now));
        }
        since
    }
}

impl Counted {
    fn since(&self, before: &Self) -> Self {
        let (now, old) = (&self.edge, &before.edge);
        Self {
            edge: EdgeCounts {
                queue_refused: now.queue_refused.saturating_sub(old.queue_refused),
                queue_timeouts: now.queue_timeouts.saturating_sub(old.queue_timeouts),
                retry_budget_exhausted: now.retry_budget_exhausted.saturating_sub(old.retry_budget_exhausted),
                unforeseen_loads: now.unforeseen_loads.saturating_sub(old.unforeseen_loads),
                bodies_refused: now.bodies_refused.saturating_sub(old.bodies_refused),
                sleeps: now.sleeps.saturating_sub(old.sleeps),
                unmarked_proxies: now.unmarked_proxies.saturating_sub(old.unmarked_proxies),
            },
            dropped: self.dropped.saturating_sub(before.dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(counts: &mut Counts, dropped: u64, at_min: u64) -> [u64; 2] {
        let now = Counted { dropped, ..Counted::default() };
        counts.take(now, 1_000_000 + at_min * 60_000).map(|since| since.dropped)
    }

    #[test]
    fn a_burst_is_told_for_an_hour_and_for_a_day() {
        let mut counts = Counts::default();
        let mut seen = Vec::new();
        for minute in 0..=1_600 {
            let [hour, day] = dropped(&mut counts, if minute < 10 { 0 } else { 5 }, minute);
            seen.push((hour, day));
        }
        assert_eq!(seen[9], (0, 0));
        assert!(seen[10..=69].iter().all(|told| *told == (5, 5)), "{:?}", &seen[..80]);
        assert_eq!(seen[70], (0, 5));
        assert_eq!(seen[1_449], (0, 5));
        assert_eq!(seen[1_450], (0, 0));
    }

    #[test]
    fn what_rises_all_day_is_bounded_and_right() {
        let mut counts = Counts::default();
        for third in 0..3 * 3_000_u64 {
            let now = Counted { dropped: third, ..Counted::default() };
            let [hour, day] = counts.take(now, third * 20_000).map(|since| since.dropped);
            assert_eq!((hour, day), (told(third, 180), told(third, 4_320)), "{third}");
        }
        assert!(counts.0.len() <= 1_442, "{}", counts.0.len());
    }

    /// Of a look each 20 s, as many as fit; kept moments are a minute apart.
    fn told(now: u64, looks: u64) -> u64 {
        if now < looks { now } else { now - (now - looks) / 3 * 3 }
    }
}
