//! What happens when the disk or the file is bad: traffic goes on, and somebody is told.

use herd_core::record::{Candidates, RequestRecord};

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::{LIMIT, NOON_MS, TestDir, fill, keeping, open, open_with, record, written};
use crate::{AuditEntry, BenchmarkRun, Range, Store, StoreError, StoreHandle, StoreSettings, StoreState, TraceFilter};

async fn state(store: &StoreHandle, wanted: StoreState) {
    let mut states = store.shared_state();
    let reached = tokio::time::timeout(LIMIT, states.wait_for(|state| *state == wanted)).await;
    assert!(reached.is_ok_and(|state| state.is_ok()), "{:?}", store.health());
}

#[tokio::test]
async fn the_files_are_their_owners_alone() {
    let dir = TestDir::new();
    fs::write(dir.file(), "").unwrap();
    fs::set_permissions(dir.file(), fs::Permissions::from_mode(0o644)).unwrap();
    let (store, thread) = open(&dir).await;
    fill(&store, &[record(1, NOON_MS)]).await;
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_set_aside() {
    let dir = TestDir::new();
    let rubbish = "this is no database ".repeat(1_000);
    fs::write(dir.file(), &rubbish).unwrap();
    let (store, thread) = open(&dir).await;
    let aside = store.health().set_aside.unwrap();
    assert!(aside.contains("latency.db.corrupt-"), "{aside}");
    assert_eq!(fs::read_to_string(&aside).unwrap(), rubbish);
    fill(&store, &[record(1, NOON_MS)]).await;
    assert!(store.trace("request-1").await.unwrap().is_some());
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn a_database_that_was_damaged_is_set_aside_while_herd_runs() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    fill(&store, &(0..5_000).map(|id| record(id, NOON_MS)).collect::<Vec<_>>()).await;
    assert!(thread.close(LIMIT));
    drop(store);
    let mut bytes = fs::read(dir.file()).unwrap();
    let end = bytes.len();
    bytes[8_192..end].fill(0xa5);
    fs::write(dir.file(), &bytes).unwrap();
    // It still begins like a database; a read or a write finds the damage.
    let (store, thread) = Store::open(dir.path(), keeping()).unwrap();
    while store.health().set_aside.is_none() {
        drop(store.record(record(7, NOON_MS)));
        drop(store.traces(TraceFilter::default(), None, 1_000).await);
        drop(store.write(|_| Ok(())).await);
    }
    assert!(store.ready(LIMIT).await);
    let before = store.health().written;
    drop(store.record(record(8, NOON_MS)));
    while store.health().written == before {
        store.write(|_| Ok(())).await.unwrap();
    }
    assert!(store.overview(Range::new(NOON_MS, NOON_MS)).await.unwrap().summary.requests > 0);
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_told_and_tried_again() {
    let dir = TestDir::new();
    // Permissions do not stop root, so what is in the way is a directory of that name.
    fs::create_dir(dir.file()).unwrap();
    let settings = StoreSettings { queue: 10, ..keeping() };
    let (store, thread) = Store::open(dir.path(), settings).unwrap();
    state(&store, StoreState::Unwritable).await;
    (0..25).for_each(|id| drop(store.record(record(id, NOON_MS))));
    let health = store.health();
    assert_eq!((health.dropped, health.queue_len, health.written), (15, 10, 0));
    assert!(health.last_error.is_some());
    assert_eq!(store.trace("request-1").await, Err(StoreError::Unavailable));
    assert_eq!(store.set_setting("key", &1).await, Err(StoreError::Unavailable));
    fs::remove_dir(dir.file()).unwrap();
    assert!(store.ready(LIMIT).await);
    while store.health().written < 10 {
        store.write(|_| Ok(())).await.unwrap();
    }
    assert!(store.trace("request-1").await.unwrap().is_some());
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn a_full_disk_keeps_what_was_and_counts_what_is_lost() {
    let dir = TestDir::new();
    let settings = StoreSettings { queue: 1_000, max_pages: Some(200), ..keeping() };
    let (store, thread) = open_with(&dir, settings).await;
    let wide = |id| RequestRecord { candidates: Candidates::Json("1".repeat(8_000).into()), ..record(id, NOON_MS) };
    for id in 0..5_000 {
        drop(store.record(wide(id)));
    }
    state(&store, StoreState::Full).await;
    let health = store.health();
    assert!(health.dropped > 0 && health.last_error.is_some(), "{health:?}");
    // What is there is still told.
    assert!(store.overview(Range::new(NOON_MS, NOON_MS)).await.is_ok());
    assert!(!thread.close(LIMIT));
    let health = store.health();
    assert_eq!((health.state, health.written + health.dropped), (StoreState::Closed, 5_000));
    drop(store.record(wide(1)));
    assert_eq!(store.health().dropped + store.health().written, 5_001);
    // Room again: all is as it was.
    let (store, thread) = open(&dir).await;
    fill(&store, &[record(9_999, NOON_MS)]).await;
    let sum = store.overview(Range::new(NOON_MS, NOON_MS)).await.unwrap().summary.requests;
    assert_eq!(sum, health.written + 1);
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn a_locked_database_is_waited_for() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let other = dir.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    drop(store.record(record(1, NOON_MS)));
    state(&store, StoreState::Locked).await;
    assert!(store.trace("request-1").await.unwrap().is_none());
    other.execute_batch("ROLLBACK").unwrap();
    assert!(store.ready(LIMIT).await);
    written(&store, 1).await;
    assert!(store.trace("request-1").await.unwrap().is_some());
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn a_newer_herds_database_is_left_alone() {
    let dir = TestDir::new();
    dir.sql().pragma_update(None, "user_version", 99).unwrap();
    let (store, thread) = Store::open(dir.path(), keeping()).unwrap();
    state(&store, StoreState::Newer).await;
    assert!(thread.close(LIMIT));
    assert_eq!(store.health().set_aside, None);
    assert_eq!(dir.sql().pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap(), 99);
}

#[tokio::test]
async fn closing_writes_what_waits() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    (0..3_000).for_each(|id| drop(store.record(record(id, NOON_MS))));
    assert!(thread.close(LIMIT));
    assert_eq!((store.health().written, store.health().dropped), (3_000, 0));
}

#[tokio::test]
async fn closing_does_not_wait_for_ever() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let other = dir.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    drop(store.record(record(1, NOON_MS)));
    assert!(!thread.close(Duration::from_millis(50)));
    state(&store, StoreState::Closed).await;
    assert_eq!((store.health().written, store.health().dropped), (0, 1));
    assert_eq!(store.set_setting("key", &1).await, Err(StoreError::Unavailable));
}

#[tokio::test]
async fn the_books_are_kept() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let entry = |action: &str| AuditEntry { timestamp_ms: NOON_MS, action: action.into(), ..AuditEntry::default() };
    store.post_audit(entry("node.drain")).unwrap();
    store.post_audit(entry("model.pull")).unwrap();
    // What is asked of the writer is done in order.
    store.write(|_| Ok(())).await.unwrap();
    let told = store.audit(None, 10).await.unwrap();
    assert_eq!(told.iter().map(|one| one.action.as_str()).collect::<Vec<_>>(), ["model.pull", "node.drain"]);
    assert_eq!(store.audit(Some(2), 10).await.unwrap()[0].action, "node.drain");

    assert_eq!(store.setting::<bool>("auto_pull").await, Ok(None));
    store.set_setting("auto_pull", &true).await.unwrap();
    store.set_setting("auto_pull", &false).await.unwrap();
    assert_eq!(store.setting::<bool>("auto_pull").await, Ok(Some(false)));
    assert!(store.setting::<u8>("auto_pull").await.is_err());

    let run = |id: &str, status: &str| BenchmarkRun {
        run_id: id.into(),
        timestamp_ms: NOON_MS,
        status: status.into(),
        config: serde_json::json!({ "models": ["m"] }),
        results: serde_json::Value::Null,
    };
    store.post_benchmark(run("a", "running")).unwrap();
    store.post_benchmark(run("a", "complete")).unwrap();
    store.write(|_| Ok(())).await.unwrap();
    assert_eq!(store.benchmark("a").await, Ok(Some(run("a", "complete"))));
    assert_eq!(store.benchmarks(u32::MAX).await.unwrap().len(), 1);
    assert_eq!(store.benchmark("b").await, Ok(None));
    assert!(thread.close(Duration::from_secs(10)));
}
