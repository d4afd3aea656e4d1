//! Time of a node: one monotonic clock, and wall time derived from it.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

/// The clock of one node. Wall time moves with tokio's clock, so that tests with paused time see it stand still.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    started_wall: Duration,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        let started_wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_wall }
    }

    /// Since the node started.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The moment `at` after the start, to sleep until.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.started + at
    }

    /// Sleeps until `at` after the start; does not even yield when that is past.
    pub(crate) async fn wait_until(self, at: Duration) {
        if self.now() < at {
            sleep_until(self.instant(at)).await;
        }
    }

    /// Wall time `at` after the start, since the Unix epoch.
    pub(crate) fn wall(&self, at: Duration) -> Duration {
        self.started_wall.saturating_add(at)
    }

    /// Wall time now, since the Unix epoch.
    pub(crate) fn wall_now(&self) -> Duration {
        self.wall(self.now())
    }

    /// Now, as Ollama writes it.
    pub(crate) fn timestamp(&self) -> String {
        rfc3339(self.wall_now())
    }
}

/// `since_epoch` as Go writes a UTC time: nanoseconds without trailing zeros.
pub(crate) fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let fraction = match since_epoch.subsec_nanos() {
        0 => String::new(),
        nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Year, month and day of a number of days since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        #[track_caller]
        fn check(seconds: u64, nanos: u32, expected: &str) {
            assert_eq!(rfc3339(Duration::new(seconds, nanos)), expected);
        }
        check(0, 0, "1970-01-01T00:00:00Z");
        check(951_827_696, 500_000_000, "2000-02-29T12:34:56.5Z");
        check(1_795_352_091, 139_494_872, "2026-11-22T12:54:51.139494872Z");
        check(4_107_542_400, 0, "2100-03-01T00:00:00Z");
    }
}
