//! How the store is, for health checks and metrics.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use herd_core::record::RequestRecord;
use serde::Serialize;
use tokio::sync::watch;

use super::error::Trouble;
use super::recent::{LastHour, Recent};

/// What the writer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreState {
    /// Opens the database, or brings an older one up to date.
    Opening,
    /// Writes.
    Ready,
    /// Another process holds the database; tried again.
    Locked,
    /// The disk is full; tried again.
    Full,
    /// The file cannot be opened or written; tried again.
    Unwritable,
    /// A newer herd made the database; it is left alone.
    Newer,
    /// Writing fails for another reason; tried again.
    Failing,
    /// The writer has ended.
    Closed,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreHealth {
    /// What the writer is doing.
    pub state: StoreState,
    /// Records written since the start.
    pub written: u64,
    /// Records lost since the start: the queue was full, or the writer ended before it could write them.
    pub dropped: u64,
    /// Records that wait to be written.
    pub queue_len: usize,
    /// How many may.
    pub queue_limit: usize,
    /// Bytes of the database and its log on the disk.
    pub file_bytes: u64,
    /// Bytes that the database holds, without free pages: what `max_bytes` is about.
    pub used_bytes: u64,
    /// Most bytes that it may hold before the oldest go ahead of their time (`store.max_bytes`).
    pub max_bytes: u64,
    /// Refused requests since the start that are counted without a row of their own.
    pub counted_only: u64,
    /// By how much the wall clock was set within the last day, milliseconds: nothing is deleted by age until it has held for a
    /// day; null = it was not.
    pub clock_step_ms: Option<i64>,
    /// Bytes that are free on their disk; null = unknown.
    pub disk_free_bytes: Option<u64>,
    /// Requests of an older database that are not yet in the roll-ups.
    pub backfill_left: u64,
    /// Queries that were cut at their deadline since the start.
    pub deadlines: u64,
    /// The last failure; null = none.
    pub last_error: Option<String>,
    /// When it was, Unix milliseconds; 0 = never.
    pub last_error_ms: u64,
    /// Where the last corrupt file was put; null = there was none.
    pub set_aside: Option<String>,
}

/// What the handle, the writer and the readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: watch::Sender<StoreState>,
    pub(super) written: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) queue_len: AtomicUsize,
    pub(super) file_bytes: AtomicU64,
    pub(super) used_bytes: AtomicU64,
    pub(super) max_bytes: u64,
    pub(super) counted_only: AtomicU64,
    /// 0 = it was not set.
    pub(super) clock_step_ms: AtomicI64,
    /// [`UNKNOWN`] where the system does not tell.
    pub(super) disk_free_bytes: AtomicU64,
    pub(super) backfill_left: AtomicU64,
    pub(super) deadlines: AtomicU64,
    /// Which file the readers should have open: another after one was set aside; 0 = none yet.
    pub(super) generation: AtomicU64,
    /// A reader met damage: the writer should look.
    pub(super) suspected: AtomicBool,
    failure: Mutex<Failure>,
    /// Only the writer and health checks take this lock, never a request.
    recent: Mutex<Recent>,
}

/// A size that is not known.
const UNKNOWN: u64 = u64::MAX;

#[derive(Debug, Default)]
struct Failure {
    message: Option<String>,
    at_ms: u64,
    set_aside: Option<String>,
}

impl Shared {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            state: watch::Sender::new(StoreState::Opening),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            queue_len: AtomicUsize::new(0),
            file_bytes: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
            max_bytes,
            counted_only: AtomicU64::new(0),
            clock_step_ms: AtomicI64::new(0),
            disk_free_bytes: AtomicU64::new(UNKNOWN),
            backfill_left: AtomicU64::new(0),
            deadlines: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            suspected: AtomicBool::new(false),
            failure: Mutex::default(),
            recent: Mutex::default(),
        }
    }

    pub(super) fn health(&self, queue_limit: usize) -> StoreHealth {
        let failure = self.failure();
        StoreHealth {
            state: *self.state.borrow(),
            written: self.written.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            queue_len: self.queue_len.load(Relaxed),
            queue_limit,
            file_bytes: self.file_bytes.load(Relaxed),
            used_bytes: self.used_bytes.load(Relaxed),
            max_bytes: self.max_bytes,
            counted_only: self.counted_only.load(Relaxed),
            clock_step_ms: Some(self.clock_step_ms.load(Relaxed)).filter(|ms| *ms != 0),
            disk_free_bytes: Some(self.disk_free_bytes.load(Relaxed)).filter(|bytes| *bytes != UNKNOWN),
            backfill_left: self.backfill_left.load(Relaxed),
            deadlines: self.deadlines.load(Relaxed),
            last_error: failure.message.clone(),
            last_error_ms: failure.at_ms,
            set_aside: failure.set_aside.clone(),
        }
    }

    pub(super) fn set_state(&self, state: StoreState) {
        self.state.send_if_modified(|now| {
            let changed = *now != state;
            *now = state;
            changed
        });
    }

    /// Notes what keeps the writer from writing. Told once in the log, not at each try.
    pub(super) fn failed(&self, trouble: Trouble, message: String) {
        let state = match trouble {
            Trouble::Locked => StoreState::Locked,
            Trouble::Full => StoreState::Full,
            Trouble::Unwritable => StoreState::Unwritable,
            Trouble::Newer => StoreState::Newer,
            Trouble::Corrupt | Trouble::Other => StoreState::Failing,
        };
        if *self.state.borrow() != state {
            tracing::warn!(target: "herd::store", ?state, error = message, "the trace store cannot be written");
        }
        {
            let mut failure = self.failure();
            failure.message = Some(message);
            failure.at_ms = crate::unix_ms();
        }
        // Last, so that who sees the state finds the reason.
        self.set_state(state);
    }

    pub(super) fn set_aside(&self, path: String) {
        tracing::error!(target: "herd::store", path, "the trace store was corrupt and has been set aside");
        self.failure().set_aside = Some(path);
    }

    pub(super) fn drop_records(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Relaxed);
    }

    /// Notes how much is free on the disk.
    pub(super) fn set_disk_free(&self, bytes: Option<u64>) {
        self.disk_free_bytes.store(bytes.unwrap_or(UNKNOWN), Relaxed);
    }

    /// Adds `records` to what the last hour before `now_ms` did.
    pub(super) fn add_recent(&self, records: &[RequestRecord], now_ms: u64) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).add(records, now_ms);
    }

    /// What it did.
    pub(super) fn last_hour(&self, now_ms: u64) -> LastHour {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).sum(now_ms)
    }

    fn failure(&self) -> MutexGuard<'_, Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
