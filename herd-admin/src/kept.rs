//! What the trace store keeps besides requests: benchmarks, and who changed what.

use herd_store::{self as store, StoreError, StoreHandle};
use serde_json::{from_value, to_value};
use tokio::runtime::Handle;

use crate::access::{AuditEntry, AuditSink};
use crate::benchmark::{BenchmarkRecord, BenchmarkRun, BenchmarkStore, Memory};

/// Keeps the audit log.
pub(crate) struct KeptAudit(pub StoreHandle);

impl AuditSink for KeptAudit {
    fn record(&self, entry: AuditEntry) {
        let kept = self.0.post_audit(store::AuditEntry {
            id: 0,
            timestamp_ms: entry.unix_ms,
            actor: entry.actor.to_string(),
            action: entry.action.to_owned(),
            target: entry.target,
            detail: entry.detail,
        });
        if let Err(error) = kept {
            tracing::warn!(action = entry.action, %error, "an entry of the audit log is not kept");
        }
    }
}

/// Keeps benchmarks: the last ones in memory as well, so that a run is found before it is on the disk, and while no
/// disk takes it.
pub(crate) struct KeptBenchmarks {
    memory: Memory,
    store: StoreHandle,
}

impl KeptBenchmarks {
    pub(crate) fn new(store: StoreHandle) -> Self {
        Self { memory: Memory::default(), store }
    }
}

impl BenchmarkStore for KeptBenchmarks {
    fn keep(&self, record: BenchmarkRecord) {
        if let Err(error) = told(&record).and_then(|told| self.store.post_benchmark(told)) {
            tracing::warn!(run_id = record.run.run_id, %error, "a benchmark is not kept");
        }
        self.memory.keep(record);
    }

    fn list(&self, most: usize) -> Vec<BenchmarkRun> {
        let mut runs = self.memory.list(most);
        let limit = u32::try_from(most).unwrap_or(u32::MAX);
        let kept = answered(self.store.benchmarks(limit)).unwrap_or_default();
        for run in kept.into_iter().filter_map(|kept| from_value::<BenchmarkRun>(kept.config).ok()) {
            if runs.iter().all(|known| known.run_id != run.run_id) {
                runs.push(run);
            }
        }
        runs.sort_by_key(|run| std::cmp::Reverse(run.started_unix_ms));
        runs.truncate(most);
        runs
    }

    fn find(&self, run_id: &str) -> Option<BenchmarkRecord> {
        self.memory.find(run_id).or_else(|| {
            let kept = answered(self.store.benchmark(run_id))??;
            Some(BenchmarkRecord { run: from_value(kept.config).ok()?, results: from_value(kept.results).ok()? })
        })
    }
}

/// A run as the store takes it: all that is said of it in one place, what was measured in another.
fn told(record: &BenchmarkRecord) -> Result<store::BenchmarkRun, StoreError> {
    let failed = |error: serde_json::Error| StoreError::Failed(error.to_string());
    Ok(store::BenchmarkRun {
        run_id: record.run.run_id.clone(),
        timestamp_ms: record.run.started_unix_ms,
        status: record.run.state.name().to_owned(),
        config: to_value(&record.run).map_err(failed)?,
        results: to_value(&record.results).map_err(failed)?,
    })
}

/// Waits for the store, on a thread that may wait; `None` = it has no answer now.
fn answered<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    let runtime = Handle::try_current().ok()?;
    runtime.block_on(answer).inspect_err(|error| tracing::warn!(%error, "benchmarks of before are not known")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::access::Actor;
    use crate::benchmark::{BenchmarkConfig, BenchmarkState, BenchmarkSummary};
    use herd_store::testing::TestDir;
    use herd_store::{Store, StoreSettings};

    fn record(run_id: &str, started_unix_ms: u64) -> BenchmarkRecord {
        let config = BenchmarkConfig {
            requests: 8,
            concurrency: Some(2),
            rate_per_s: None,
            prompt_tokens: 64,
            max_tokens: 16,
            seed: 1,
            max_duration_s: 60,
        };
        let run = BenchmarkRun {
            run_id: run_id.to_owned(),
            state: BenchmarkState::Completed,
            error: None,
            started_unix_ms,
            ended_unix_ms: Some(started_unix_ms + 500),
            models: vec!["llama3.2:3b".to_owned()],
            nodes: vec!["studio".to_owned()],
            config,
            left_out: Vec::new(),
            summary: BenchmarkSummary { requests: 8, ..BenchmarkSummary::default() },
        };
        BenchmarkRecord { run, results: Vec::new() }
    }

    async fn opened(dir: &std::path::Path) -> (StoreHandle, store::StoreThread) {
        let (store, thread) = Store::open(dir, StoreSettings::default()).unwrap();
        assert!(store.ready(Duration::from_secs(10)).await);
        (store, thread)
    }

    #[tokio::test]
    async fn benchmarks_outlive_a_restart() {
        let dir = TestDir::new();
        let runs = [record("bench-1", 1_000), record("bench-2", 2_000)];
        let (store, thread) = opened(dir.path()).await;
        let kept = KeptBenchmarks::new(store);
        for run in &runs {
            kept.keep(run.clone());
        }
        drop(kept);
        assert!(thread.close(Duration::from_secs(10)));

        let (store, _thread) = opened(dir.path()).await;
        let kept = KeptBenchmarks::new(store);
        kept.keep(record("bench-3", 3_000));
        let (ids, found) = tokio::task::spawn_blocking(move || {
            let ids: Vec<String> = kept.list(10).into_iter().map(|run| run.run_id).collect();
            (ids, kept.find("bench-1"))
        })
        .await
        .unwrap();
        assert_eq!(ids, ["bench-3", "bench-2", "bench-1"]);
        assert_eq!(found.as_ref(), runs.first());
    }

    #[tokio::test]
    async fn changes_are_on_the_disk() {
        let dir = TestDir::new();
        let (store, _thread) = opened(dir.path()).await;
        KeptAudit(store.clone()).record(AuditEntry {
            unix_ms: 5_000,
            actor: Actor { ip: Some([127, 0, 0, 1].into()), key: None },
            action: "node.drain",
            target: "studio".into(),
            detail: String::new(),
        });
        // What is asked of the writer is done in order.
        store.set_setting("done", &true).await.unwrap();
        let log = store.audit(None, 10).await.unwrap();
        let told: Vec<_> = log.iter().map(|one| (one.action.as_str(), one.actor.as_str(), one.timestamp_ms)).collect();
        assert_eq!(told, [("node.drain", "127.0.0.1", 5_000)]);
    }
}
