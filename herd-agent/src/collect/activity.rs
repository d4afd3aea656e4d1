//! Whether runners work, told by what their processes use of the machine. Pure.
//!
//! On every system this is seen of a runner, also where its slots cannot be read: a runner that works uses the CPU or a
//! GPU, and one that loads reads its model or grows. One that stands still does nothing of that.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use herd_core::wire::Gpu;

/// CPU time that counts as work, as a share of the time that has passed: a tenth of what a runner takes of it that leaves
/// all to a GPU.
const CPU_SHARE: f64 = 0.005;
/// Least CPU time that counts, milliseconds: to be asked for its slots takes a runner less.
const CPU_LEAST_MS: f64 = 20.0;
/// Bytes read, or by which its memory has changed, that count as work.
const BYTES: u64 = 1 << 20;
/// Busy share of a GPU that counts as work, 0-100: a desktop takes less.
const GPU_BUSY_PCT: f64 = 5.0;
/// A look that comes sooner after the last one tells only of work, not of the lack of it.
const LOOK: Duration = Duration::from_secs(1);

/// What a process, with its children, has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time, milliseconds; 0 = it cannot be read.
    pub(super) cpu_ms: u64,
    /// Bytes read from disk.
    pub(super) read_bytes: u64,
    /// Memory that it has now, bytes.
    pub(super) memory_bytes: u64,
    /// It is stopped by a signal, or dead: a GPU that is busy is so with something else.
    pub(super) stopped: bool,
}

/// A runner process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) pid: u32,
    /// The weights that it runs, `<models>/blobs/sha256-...`; empty = its command line does not say.
    pub(super) model: String,
    pub(super) usage: Usage,
}

/// What was seen of one runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// The weights that it runs; empty = not known.
    pub(super) model: String,
    /// Looks that found it at work.
    pub(super) steps: u64,
    /// Whether a look would show that it stands still.
    pub(super) conclusive: bool,
}

/// Looks at runners, and remembers what it saw last.
#[derive(Debug, Default)]
pub(super) struct Activity {
    seen: HashMap<u32, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    usage: Usage,
    at: Instant,
    steps: u64,
    /// Looked at more than once.
    again: bool,
}

impl Activity {
    /// What has become of `workers` on a machine with `gpus`. Those that are gone are forgotten.
    pub(super) fn look(&mut self, workers: &[Worker], gpus: &[Gpu], now: Instant) -> Vec<Work> {
        self.seen.retain(|pid, _| workers.iter().any(|worker| worker.pid == *pid));
        let gpu_busy = gpus.iter().filter_map(|gpu| gpu.utilization_pct).any(|pct| pct >= GPU_BUSY_PCT);
        let gpus_known = gpus.iter().all(|gpu| gpu.utilization_pct.is_some());
        let mut work = Vec::with_capacity(workers.len());
        for worker in workers {
            let usage = worker.usage;
            let first = Seen { usage, at: now, steps: 0, again: false };
            let seen = self.seen.entry(worker.pid).or_insert(first);
            let since = now.saturating_duration_since(seen.at);
            let works = seen.usage.has_worked(&usage, since) || (gpu_busy && !usage.stopped);
            if works || since >= LOOK {
                let steps = seen.steps.saturating_add(u64::from(works));
                *seen = Seen { usage, at: now, steps, again: true };
            }
            let conclusive = seen.again && usage.cpu_ms > 0 && gpus_known;
            work.push(Work { model: worker.model.clone(), steps: seen.steps, conclusive });
        }
        work
    }
}

impl Usage {
    /// Whether a process that had used `self` and has used `now`, some time later, has worked meanwhile.
    fn has_worked(&self, now: &Self, since: Duration) -> bool {
        let cpu_ms = now.cpu_ms.saturating_sub(self.cpu_ms) as f64;
        let least_ms = (since.as_secs_f64() * 1_000.0 * CPU_SHARE).max(CPU_LEAST_MS);
        cpu_ms >= least_ms
            || now.read_bytes.saturating_sub(self.read_bytes) >= BYTES
            || now.memory_bytes.abs_diff(self.memory_bytes) >= BYTES
    }
}

impl std::iter::Sum for Usage {
    /// What processes have used together; they are stopped when all are.
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let none = Self { stopped: true, ..Self::default() };
        all.fold(none, |sum, one| Self {
            cpu_ms: sum.cpu_ms.saturating_add(one.cpu_ms),
            read_bytes: sum.read_bytes.saturating_add(one.read_bytes),
            memory_bytes: sum.memory_bytes.saturating_add(one.memory_bytes),
            stopped: sum.stopped && one.stopped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Usage = Usage { cpu_ms: 1_000, read_bytes: 0, memory_bytes: 4 << 30, stopped: false };

    /// Steps counted, and whether they are conclusive, when a runner that is `IDLE` has used `then` five seconds later.
    #[track_caller]
    fn check(then: Usage, gpus: &[Option<f64>], expected: (u64, bool)) {
        let gpu = |pct: &Option<f64>| Gpu { utilization_pct: *pct, ..Gpu::default() };
        let gpus: Vec<Gpu> = gpus.iter().map(gpu).collect();
        let worker = |usage| [Worker { pid: 7, model: "m".into(), usage }];
        let (mut activity, now) = (Activity::default(), Instant::now());
        let first = activity.look(&worker(IDLE), &[], now);
        assert_eq!(first, [Work { model: "m".into(), steps: 0, conclusive: false }]);
        let second = activity.look(&worker(then), &gpus, now + Duration::from_secs(5));
        assert_eq!((second[0].steps, second[0].conclusive), expected, "{then:?} {gpus:?}");
    }

    #[test]
    fn work_of_any_kind_is_counted_and_standing_still_is_not() {
        check(IDLE, &[], (0, true));
        check(Usage { cpu_ms: 1_010, ..IDLE }, &[], (0, true));
        check(Usage { cpu_ms: 1_025, ..IDLE }, &[], (1, true));
        check(Usage { read_bytes: 1 << 30, ..IDLE }, &[], (1, true));
        check(Usage { memory_bytes: 5 << 30, ..IDLE }, &[], (1, true));
        check(Usage { memory_bytes: 3 << 30, ..IDLE }, &[], (1, true));
        check(IDLE, &[Some(0.0), Some(60.0)], (1, true));
        check(Usage { stopped: true, ..IDLE }, &[Some(60.0)], (0, true));
    }

    #[test]
    fn what_cannot_be_read_is_no_proof_that_a_runner_stands_still() {
        check(IDLE, &[None], (0, false));
        check(IDLE, &[Some(0.0), None], (0, false));
        check(Usage { cpu_ms: 2_000, ..IDLE }, &[None], (1, false));
        check(Usage { cpu_ms: 0, ..IDLE }, &[], (0, false));
    }

    #[test]
    fn looks_that_follow_each_other_closely_add_up() {
        let (mut activity, now) = (Activity::default(), Instant::now());
        let mut steps = 0;
        for look in 0..=20_u64 {
            let usage = Usage { cpu_ms: 1_000 + look * 10, ..IDLE };
            let at = now + Duration::from_millis(look * 250);
            steps = activity.look(&[Worker { pid: 7, model: String::new(), usage }], &[], at)[0].steps;
        }
        assert_eq!(steps, 10);
        assert!(activity.look(&[], &[], now).is_empty() && activity.seen.is_empty());
    }

    #[test]
    fn a_process_and_its_children_are_stopped_when_all_are() {
        let stopped = Usage { stopped: true, ..IDLE };
        assert!(!([IDLE, stopped].into_iter().sum::<Usage>()).stopped);
        let both: Usage = [stopped, stopped].into_iter().sum();
        assert_eq!(both, Usage { cpu_ms: 2_000, memory_bytes: 8 << 30, read_bytes: 0, stopped: true });
    }
}
