//! Logs of the programs: compact lines on standard error for people, and JSON lines in rotated files for programs.
//!
//! Neither ever keeps a caller waiting: lines go to a bounded buffer that a thread of its own empties, and what finds
//! that full is dropped and counted. A terminal that is stopped or a disk that is full costs lines, never requests.
//!
//! `tracing-appender` rotates by time alone, makes files that others can read and does not say what it lost, hence
//! the few lines of our own.

mod console;
mod fields;
mod files;
mod line;
mod people;
mod sink;

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use console::Console;
use files::Files;
use line::JsonLines;
use people::PeopleLines;
use sink::{Sink, Worker};

/// Lines that were dropped over the life of the process.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Target of what somebody changed.
const AUDIT: &str = "herd::audit";
/// Name of the files of the audit log.
const AUDIT_FILE: &str = "audit";
/// Bounds on the audit log: about a year of days, whatever else is logged meanwhile.
const AUDIT_FILES: LogFiles = LogFiles { max_bytes: 10 << 20, keep_files: 400 };

/// The folder below the data folder.
const FOLDER: &str = "logs";

/// Bounds on the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFiles {
    /// Size at which the file is rotated.
    pub max_bytes: u64,
    /// Most rotated files that are kept.
    pub keep_files: usize,
}

impl LogFiles {
    /// What [`Self::max_bytes`] may be.
    pub const MAX_BYTES: std::ops::RangeInclusive<u64> = 65_536..=1 << 40;
    /// What [`Self::keep_files`] may be.
    pub const KEEP_FILES: std::ops::RangeInclusive<usize> = 0..=10_000;
}

impl Default for LogFiles {
    fn default() -> Self {
        Self { max_bytes: 50 << 20, keep_files: 14 }
    }
}

/// Where logs go.
#[derive(Debug, Clone, Copy)]
pub struct Logging<'a> {
    /// The program's name, also that of its files.
    pub program: &'static str,
    /// `error`, `warn`, `info`, `debug`, `trace`, and pairs of target and level.
    pub filter: &'a str,
    /// Files are in `logs/` below this folder.
    pub data_dir: &'a Path,
    /// Bounds on the files; `None` = there are none.
    pub files: Option<LogFiles>,
    /// What goes to standard error.
    pub stderr: StderrLines,
}

/// Which events have a line on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StderrLines {
    /// All on a terminal, and where there are no files; else warnings and errors: the files have the rest.
    #[default]
    Auto,
    /// All that the filter lets pass.
    All,
    /// Warnings and errors.
    Warn,
}

impl StderrLines {
    /// Every one with its name in the configuration.
    pub const NAMES: [(&'static str, Self); 3] = [("auto", Self::Auto), ("all", Self::All), ("warn", Self::Warn)];

    /// The least grave of what is shown, where standard error is a terminal or not, and there are files or not.
    fn most(self, is_terminal: bool, has_files: bool) -> Level {
        match self {
            Self::All => Level::TRACE,
            Self::Auto if is_terminal || !has_files => Level::TRACE,
            Self::Auto | Self::Warn => Level::WARN,
        }
    }
}

/// Writes what is left when it is dropped.
#[must_use = "dropping it ends the logs"]
#[derive(Debug)]
pub struct Logs {
    /// Dropped in this order, so that the console can still tell what went wrong with the files.
    _workers: Vec<Worker>,
}

impl Logging<'_> {
    /// Starts logging for the whole process. A host program may have its own subscriber; then this one is not needed.
    pub fn start(self) -> Logs {
        let filter: Targets = self.filter.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
        let (console, console_worker) = Sink::start("log-console", Console);
        let is_terminal = std::io::stderr().is_terminal();
        let colours = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        let people = PeopleLines { sink: console, colours, most: self.stderr.most(is_terminal, self.files.is_some()) };
        let mut workers = Vec::new();
        let mut to_files = |thread, name, limits| {
            let (sink, worker) = Sink::start(thread, Files::new(&self.data_dir.join(FOLDER), name, limits));
            workers.push(worker);
            JsonLines(sink)
        };
        let lines = self.files.map(|limits| to_files("log-file", self.program, limits).with_filter(filter.clone()));
        // Files of their own, which no flood of other lines pushes out, at any level of the log.
        let audit = self.files.map(|_| to_files("log-audit", AUDIT_FILE, AUDIT_FILES).with_filter(audit_filter()));
        let people = people.with_filter(filter);
        workers.push(console_worker);
        drop(tracing_subscriber::registry().with(people).with(lines).with(audit).try_init());
        Logs { _workers: workers }
    }
}

/// Starts the audit log alone, for a command that changes something while no program of `data_dir` may run.
pub fn audit_only(data_dir: &Path) -> Logs {
    let (sink, worker) = Sink::start("log-audit", Files::new(&data_dir.join(FOLDER), AUDIT_FILE, AUDIT_FILES));
    drop(tracing_subscriber::registry().with(JsonLines(sink).with_filter(audit_filter())).try_init());
    Logs { _workers: vec![worker] }
}

fn audit_filter() -> Targets {
    Targets::new().with_target(AUDIT, tracing::Level::INFO)
}

/// Lines that were dropped since the process began, for the buffer was full or nothing could be written.
#[must_use]
pub fn lost_lines() -> u64 {
    LOST.load(Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_on_standard_error_where_somebody_looks_or_nothing_else_has_them() {
        let [auto, all, warn] = StderrLines::NAMES.map(|(_, lines)| lines);
        for (lines, is_terminal, has_files, most) in [
            (auto, true, true, Level::TRACE),
            (auto, false, false, Level::TRACE),
            (auto, false, true, Level::WARN),
            (all, false, true, Level::TRACE),
            (warn, true, false, Level::WARN),
        ] {
            assert_eq!(lines.most(is_terminal, has_files), most, "{lines:?} {is_terminal} {has_files}");
        }
    }
}
