//! Whether the wall clock is believed, over restarts.

use std::time::Duration;

use herd_core::wall::{Step, WallClock};
use rusqlite::{Connection, OptionalExtension};

use super::{from_db, to_db};

/// Where the wall clock is kept that was last believed, in `herd_upkeep`.
const BELIEVED: &str = "clock_believed_ms";

/// How much later than it stands there it is written again, milliseconds: a start compares it in days, and upkeep that has
/// much to do comes here hundreds of times a second.
const WRITE_EVERY_MS: u64 = 60_000;

/// The clocks of this machine.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    watch: Option<WallClock>,
    /// The believed clock as it was written last, Unix milliseconds; 0 = not yet.
    written_ms: u64,
}

impl Clocks {
    /// Whether the wall clock was believed at the last look.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn is_trusted(&self) -> bool {
        self.watch.is_some_and(|watch| watch.is_trusted())
    }

    /// The last time that it was set; `None` = it was not.
    pub(super) fn last_step(&self) -> Option<Step> {
        self.watch.and_then(|watch| watch.last_step())
    }

    /// Looks at both clocks; returns the wall clock, Unix milliseconds, if it is believed.
    pub(super) fn look(
        &mut self,
        connection: &Connection,
        steady_ms: u64,
        unix_ms: u64,
    ) -> rusqlite::Result<Option<u64>> {
        let watch = match &mut self.watch {
            Some(watch) => watch,
            None => self.watch.insert(WallClock::new(believed(connection)?)),
        };
        if let Some(step) = watch.look(steady_ms, unix_ms) {
            tracing::warn!(target: "herd::store", by_ms = step.by_ms, "the clock was set: nothing is deleted by age for a day");
        }
        if !watch.is_trusted() {
            return Ok(None);
        }
        if unix_ms.abs_diff(self.written_ms) < WRITE_EVERY_MS {
            return Ok(Some(unix_ms));
        }
        let sql =
            "INSERT INTO herd_upkeep (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
        connection.prepare_cached(sql)?.execute((BELIEVED, to_db(unix_ms)))?;
        self.written_ms = unix_ms;
        Ok(Some(unix_ms))
    }
}

fn believed(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let mut statement = connection.prepare_cached("SELECT value FROM herd_upkeep WHERE name = ?1")?;
    Ok(statement.query_row([BELIEVED], |row| row.get(0)).optional()?.map(from_db))
}

/// A clock that nobody sets and that counts the sleep of the machine, milliseconds.
pub(super) fn steady_ms() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = nix::time::ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    let now = nix::time::clock_gettime(clock).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file;

    #[test]
    fn the_believed_clock_is_written_once_a_minute() {
        const NOON_MS: u64 = 1_795_348_800_000;
        let connection = file::in_memory().unwrap();
        let mut clocks = Clocks::default();
        let mut written = |steady_ms: u64| {
            assert!(clocks.look(&connection, steady_ms, NOON_MS + steady_ms).unwrap().is_some());
            believed(&connection).unwrap().map(|unix_ms| unix_ms - NOON_MS)
        };
        let seen = [0, 5, 59_999, 60_000, 60_005, 130_000].map(&mut written);
        assert_eq!(seen, [0, 0, 0, 60_000, 60_000, 130_000].map(Some));
    }
}
