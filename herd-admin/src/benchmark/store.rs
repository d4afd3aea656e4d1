//! Where runs that are over are kept.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::record::{BenchmarkRecord, BenchmarkRun};

/// Runs that the default store keeps.
const KEPT_MAX: usize = 32;

/// Keeps runs that are over. Its methods may wait for a disk: they are called where that holds up nobody's request.
pub trait BenchmarkStore: Send + Sync + 'static {
    /// Keeps a run; one of the same id is replaced.
    fn keep(&self, record: BenchmarkRecord);

    /// Up to `most` runs, the latest first.
    fn list(&self, most: usize) -> Vec<BenchmarkRun>;

    /// The run of that id.
    fn find(&self, run_id: &str) -> Option<BenchmarkRecord>;
}

/// The last runs, in memory.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<VecDeque<BenchmarkRecord>>);

impl BenchmarkStore for Memory {
    fn keep(&self, record: BenchmarkRecord) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|one| one.run.run_id != record.run.run_id);
        kept.truncate(KEPT_MAX - 1);
        kept.push_front(record);
    }

    fn list(&self, most: usize) -> Vec<BenchmarkRun> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().take(most).map(|record| record.run.clone()).collect()
    }

    fn find(&self, run_id: &str) -> Option<BenchmarkRecord> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|record| record.run.run_id == run_id).cloned()
    }
}
