//! The store, and what it must say of the requests that it was given.

use std::collections::BTreeMap;

use herd_core::record::{Candidates, RequestRecord};
use herd_store::DAY_MS;
use herd_store::testing::VirtualStore;

use super::edge::Ended;

/// Most that the store may hold: much less than the requests of a month.
const MAX_BYTES: u64 = 48 << 20;
/// Requests that stay whatever else there is.
const FLOOR: u64 = 10_000;
/// Days that are held against what was recorded: roll-ups of older ones may go.
const DAYS: usize = 30;

/// The store with a book of its own.
#[derive(Debug)]
pub(super) struct Keeper {
    store: VirtualStore,
    /// Requests by the day of the wall clock.
    days: BTreeMap<u64, u64>,
    /// Rows that were written.
    rows: u64,
    pending: Vec<RequestRecord>,
    pub(super) records: u64,
    pub(super) largest_bytes: u64,
}

impl Keeper {
    pub(super) fn new() -> Self {
        Self {
            store: VirtualStore::within(MAX_BYTES),
            days: BTreeMap::new(),
            rows: 0,
            pending: Vec::new(),
            records: 0,
            largest_bytes: 0,
        }
    }

    /// Notes a request that has ended when the wall clock showed `unix_ms`.
    pub(super) fn note(&mut self, ended: Ended, unix_ms: u64) {
        self.records += 1;
        let mut record = RequestRecord {
            app: format!("app-{}", ended.request.user),
            key_id: format!("key-{}", ended.request.user),
            tags: ended.request.tags,
            // Its scores would take more room than all else.
            candidates: Candidates::None,
            ..ended.record
        };
        record.close(ended.latency_ms as f64, unix_ms);
        self.pending.push(record);
    }

    /// The process ends and starts again.
    pub(super) fn restart(&mut self) {
        self.store.restart();
    }

    /// Writes what has come, and sees to the rest.
    pub(super) fn look(&mut self, steady_ms: u64, unix_ms: u64) {
        let batch = std::mem::take(&mut self.pending);
        for record in &batch {
            *self.days.entry(record.timestamp_ms / DAY_MS).or_default() += 1;
        }
        if !batch.is_empty() {
            let counted_only = self.store.write(&batch, unix_ms);
            self.rows += (batch.len() - counted_only) as u64;
        }
        self.store.upkeep(steady_ms, unix_ms);
        self.largest_bytes = self.largest_bytes.max(self.store.used_bytes());
    }

    pub(super) fn trusts_clock(&self) -> bool {
        self.store.trusts_clock()
    }

    /// Requests that the last hour before `unix_ms` has had.
    pub(super) fn last_hour(&mut self, unix_ms: u64) -> u64 {
        self.store.last_hour(unix_ms).total.summary().requests
    }

    /// What does not agree with the book.
    pub(super) fn disagreement(&self) -> Option<String> {
        if self.largest_bytes > MAX_BYTES {
            return Some(format!("the store held {} bytes of {MAX_BYTES}", self.largest_bytes));
        }
        let rows = self.store.number("SELECT count(*) FROM request_traces");
        if rows < self.rows.min(FLOOR) {
            return Some(format!("{rows} requests are left of {}", self.rows));
        }
        for dimension in ["total", "model", "node", "app", "key"] {
            for (day, requests) in self.days.iter().rev().take(DAYS) {
                let bucket = day * DAY_MS / 1_000;
                let sql = format!(
                    "SELECT sum(requests) FROM rollup_daily_by WHERE dimension = '{dimension}' AND bucket = {bucket}"
                );
                let told = self.store.number(&sql);
                if told != *requests {
                    return Some(format!("day {day} has {told} requests by {dimension}, not {requests}"));
                }
            }
        }
        for (table, most) in [("rollup_daily", 2_049), ("rollup_hourly", 2_049)] {
            let sql = format!("SELECT max(cells) FROM (SELECT count(*) AS cells FROM {table} GROUP BY bucket)");
            let cells = self.store.number(&sql);
            if cells > most {
                return Some(format!("a bucket of {table} has {cells} cells"));
            }
        }
        None
    }
}
