//! Folders and requests for tests, of this crate and of those above it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use herd_core::answer::Counts;
use herd_core::record::RequestRecord;
use herd_core::vocabulary::{Status, Surface};

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
