//! The store of all that was: one row for each request, roll-ups for percentiles of any range, and the audit log,
//! settings and benchmark runs beside them, in one `SQLite` file.
//!
//! Traffic never waits for it. [`StoreHandle::record`] leaves a record in a bounded queue, or counts it as dropped and
//! gives it back; one thread of its own writes in batches. A file that is corrupt is set aside and never deleted; one
//! that is locked, or a disk that is full or not writable, is a finding in [`StoreHandle::health`], and is tried again
//! with growing pauses. Reads have their own connections and a deadline each.

mod backfill;
mod book;
mod clock;
mod columns;
mod error;
mod file;
mod handle;
mod health;
mod query;
mod queue;
mod reader;
mod recent;
mod record;
mod retention;
mod rollup;
mod schema;
mod sieve;
mod vocabulary;
mod write;
mod writer;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use book::{AuditEntry, BenchmarkRun};
pub use error::StoreError;
pub use handle::{Store, StoreHandle, StoreThread};
pub use health::{StoreHealth, StoreState};
pub use query::{
    AppDay, Apps, Asker, ContextUsage, DaySums, GroupBy, HealthScore, ModelDay, ModelShare, ModelUsage, Models,
    Overview, PairDay, Range, RecentLatency, Residency, Spread, Summary, TraceFilter, TracePage, TrendFilter,
    TrendPoint, Trends, Usage, UsageRow,
};
pub use recent::{Asked, Details, LastHour, Work};

/// The file's name in the data directory: the one of ollama-herd, so that its users' scripts find it.
pub const FILE_NAME: &str = "latency.db";

/// Steps of `SQLite`'s machine from one time that it lets us look at the clock, or others go first, to the next: some ten
/// microseconds.
const STEPS: i32 = 1_000;

/// How the store behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Days for which single requests are kept.
    pub raw_days: u32,
    /// Days for which roll-ups are kept.
    pub rollup_days: u32,
    /// Largest size of the database: beyond it what is missed least goes before its time, the oldest first: minutes, then
    /// hours of more than a month ago, then single requests but for the newest.
    pub max_bytes: u64,
    /// Records that may wait to be written.
    pub queue: usize,
    /// Longest time for one query, waiting for its turn included.
    pub query_deadline: Duration,
    /// Most pages of the file, for tests of a full disk; `None` = as many as the disk has.
    pub(crate) max_pages: Option<u32>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            raw_days: 30,
            rollup_days: 400,
            max_bytes: 2 << 30,
            queue: 8_192,
            query_deadline: Duration::from_secs(2),
            max_pages: None,
        }
    }
}

/// Where the store lives, and how it behaves.
#[derive(Debug, Clone)]
struct Place {
    dir: PathBuf,
    settings: StoreSettings,
}

impl Place {
    fn file(&self) -> PathBuf {
        self.dir.join(FILE_NAME)
    }
}

/// An hour, milliseconds.
pub const HOUR_MS: u64 = 3_600_000;
/// A day, milliseconds.
pub const DAY_MS: u64 = 24 * HOUR_MS;

/// The wall clock in Unix milliseconds; 0 when it is set before 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A number as `SQLite` holds it; what does not fit becomes the greatest that does.
fn to_db(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// And back; negative ones, which only others write, become 0.
fn from_db(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
