//! Folders, requests and a store in virtual time for tests, of this crate and of those above it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use herd_core::answer::Counts;
use herd_core::record::RequestRecord;
use herd_core::vocabulary::{Status, Surface};
use rusqlite::Connection;

use crate::clock::Clocks;
use crate::recent::{LastHour, Recent};
use crate::record::bounded;
use crate::write::BatchWriter;
use crate::{StoreSettings, file, from_db, retention};

/// A folder for one test, removed when it is dropped.
#[derive(Debug)]
pub struct TestDir(PathBuf);

impl TestDir {
    /// A new, empty folder.
    ///
    /// # Panics
    /// When the system refuses it.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default that makes a folder would surprise")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("herd-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder for a test");
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A completed request that is over at `timestamp_ms`.
#[must_use]
pub fn record(id: u64, timestamp_ms: u64) -> RequestRecord {
    RequestRecord {
        request_id: format!("request-{id}"),
        timestamp_ms,
        model: "llama3.2:3b".into(),
        original_model: "llama3.2:3b".into(),
        node_id: "node-a".into(),
        surface: Some(Surface::OllamaChat.into()),
        status: Some(Status::Completed.into()),
        latency_ms: 1_000.0,
        time_to_first_token_ms: Some(200.0),
        queue_ms: Some(100.0),
        decode_ms: Some(700.0),
        counts: Counts { prompt_tokens: Some(10), completion_tokens: Some(20), ..Counts::default() },
        http_status: 200,
        ..RequestRecord::default()
    }
}

/// What the writer's thread does, step by step, on a database in memory and under clocks that are given: a month of it takes
/// seconds.
#[derive(Debug)]
pub struct VirtualStore {
    connection: Connection,
    batch: BatchWriter,
    clocks: Clocks,
    recent: Recent,
    settings: StoreSettings,
}

impl VirtualStore {
    /// An empty one.
    ///
    /// # Panics
    /// When the database refuses, as all its methods do.
    #[must_use]
    pub fn new(settings: StoreSettings) -> Self {
        let connection = file::in_memory().expect("a database in memory");
        Self { connection, batch: BatchWriter::new(), clocks: Clocks::default(), recent: Recent::default(), settings }
    }

    /// An empty one that may hold `max_bytes`.
    #[must_use]
    pub fn within(max_bytes: u64) -> Self {
        Self::new(StoreSettings { max_bytes, ..StoreSettings::default() })
    }

    /// Forgets what a process forgets when it ends, and goes on with the database.
    pub fn restart(&mut self) {
        (self.batch, self.clocks, self.recent) = (BatchWriter::new(), Clocks::default(), Recent::default());
    }

    /// Writes a batch when the wall clock shows `unix_ms`; returns how many records got no row of their own.
    #[expect(clippy::missing_panics_doc, reason = "said above")]
    pub fn write(&mut self, records: &[RequestRecord], unix_ms: u64) -> usize {
        let records: Vec<_> = records.iter().cloned().map(bounded).collect();
        self.recent.add(&records, unix_ms);
        self.batch.write(&mut self.connection, &records, unix_ms).expect("a batch is written")
    }

    /// Does all that the writer does beside, as of `steady_ms` on the machine's steady clock.
    #[expect(clippy::missing_panics_doc, reason = "said above")]
    pub fn upkeep(&mut self, steady_ms: u64, unix_ms: u64) {
        let believed = self.clocks.look(&self.connection, steady_ms, unix_ms).expect("the clock is kept");
        while retention::step(&mut self.connection, &self.settings, believed).expect("what is too much goes") {}
    }

    /// Whether the wall clock was believed at the last [`Self::upkeep`].
    #[must_use]
    pub fn trusts_clock(&self) -> bool {
        self.clocks.is_trusted()
    }

    /// What the last hour before `unix_ms` did.
    pub fn last_hour(&mut self, unix_ms: u64) -> LastHour {
        self.recent.sum(unix_ms)
    }

    /// Bytes that the database holds.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "said above")]
    pub fn used_bytes(&self) -> u64 {
        retention::used_bytes(&self.connection).expect("the database tells its size")
    }

    /// The number that `sql` tells.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "said above")]
    pub fn number(&self, sql: &str) -> u64 {
        let number: Option<i64> = self.connection.query_row(sql, [], |row| row.get(0)).expect("a number");
        from_db(number.unwrap_or(0))
    }
}
