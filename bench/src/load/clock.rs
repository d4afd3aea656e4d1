//! One clock for all processes of a run.

use rustix::time::{ClockId, clock_gettime};

/// The machine's monotonic clock, nanoseconds from some moment that all its processes share.
#[must_use]
pub fn now_ns() -> u64 {
    read_ns(ClockId::Monotonic)
}

/// The processor time of this thread, nanoseconds: what it would take if nobody else used the machine.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    read_ns(ClockId::ThreadCPUTime)
}

fn read_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // It starts at zero with the machine.
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}
