//! A database of ollama-herd becomes ours, and nothing of it is lost.

use herd_core::record::{Candidates, RequestRecord};

use super::{LIMIT, NOON_MS, TestDir, fill, keeping, open, open_with, record};
use crate::{Range, StoreHandle, TraceFilter};

/// The tables of ollama-herd 0.11.4.
const OLD_TABLES: &str = "
CREATE TABLE latency_observations (id INTEGER PRIMARY KEY AUTOINCREMENT, node_id TEXT NOT NULL, model_name TEXT NOT NULL,
    latency_ms REAL NOT NULL, tokens_generated INTEGER, timestamp REAL NOT NULL, prompt_tokens INTEGER,
    completion_tokens INTEGER);
CREATE TABLE request_traces (id INTEGER PRIMARY KEY AUTOINCREMENT, request_id TEXT NOT NULL, model TEXT NOT NULL,
    original_model TEXT NOT NULL, node_id TEXT NOT NULL, score REAL, scores_breakdown TEXT, status TEXT NOT NULL,
    latency_ms REAL, time_to_first_token_ms REAL, prompt_tokens INTEGER, completion_tokens INTEGER,
    retry_count INTEGER DEFAULT 0, fallback_used INTEGER DEFAULT 0, excluded_nodes TEXT, client_ip TEXT,
    original_format TEXT, error_message TEXT, timestamp REAL NOT NULL, tags TEXT, finish_reason TEXT,
    estimated_tokens INTEGER);
CREATE INDEX idx_traces_request_id ON request_traces(request_id);
CREATE INDEX idx_traces_timestamp ON request_traces(timestamp);
CREATE INDEX idx_traces_model_timestamp ON request_traces(model, timestamp);
CREATE INDEX idx_traces_node_model ON request_traces(node_id, model);
CREATE INDEX idx_traces_tags ON request_traces(tags);
CREATE TABLE benchmark_runs (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL UNIQUE, timestamp REAL NOT NULL,
    duration_s REAL NOT NULL, total_requests INTEGER NOT NULL, total_failures INTEGER NOT NULL,
    total_prompt_tokens INTEGER NOT NULL, total_completion_tokens INTEGER NOT NULL, requests_per_sec REAL,
    tokens_per_sec REAL, latency_p50_ms REAL, latency_p95_ms REAL, latency_p99_ms REAL, ttft_p50_ms REAL,
    ttft_p95_ms REAL, ttft_p99_ms REAL, fleet_snapshot TEXT, per_model_results TEXT, per_node_results TEXT,
    peak_utilization TEXT);
CREATE INDEX idx_benchmark_runs_timestamp ON benchmark_runs(timestamp);
CREATE TABLE fleet_briefings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp REAL NOT NULL, briefing TEXT NOT NULL,
    model TEXT, fleet_data TEXT);
";

const OLD_ROW: &str = "INSERT INTO request_traces (request_id, model, original_model, node_id, score, scores_breakdown,
    status, latency_ms, time_to_first_token_ms, prompt_tokens, completion_tokens, retry_count, original_format,
    timestamp, tags) VALUES (?1, 'm', 'm', ?2, 74.15, '{\"total\":74.15}', ?3, ?4, 120.5, 3, 10, ?5, 'ollama', ?6, ?7)";

/// 1500 requests: each third first failed on `node-b` and was answered by `node-a`, each hundredth failed only there.
fn old_database(dir: &TestDir) {
    let old = dir.sql();
    old.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    old.execute_batch(OLD_TABLES).unwrap();
    old.execute_batch("BEGIN").unwrap();
    for id in 0..1_500_u32 {
        let at = NOON_MS as f64 / 1_000.0 + f64::from(id) * 60.0 + 0.061_562_3;
        let name = format!("old-{id}");
        if id % 3 == 0 {
            old.execute(OLD_ROW, (&name, "node-b", "retried", 50.0, 0, at - 1.0, None::<String>)).unwrap();
        }
        if id % 100 == 0 && id % 3 != 0 {
            old.execute(OLD_ROW, (&name, "node-b", "retried", 50.0, 0, at, r#"["ci"]"#)).unwrap();
        } else {
            let tags = if id % 2 == 0 { r#"["ci","x"]"# } else { "not json" };
            old.execute(OLD_ROW, (&name, "node-a", "completed", 360.25, id % 2, at, tags)).unwrap();
        }
    }
    old.execute_batch("COMMIT").unwrap();
    let run = "INSERT INTO benchmark_runs (run_id, timestamp, duration_s, total_requests, total_failures,
        total_prompt_tokens, total_completion_tokens) VALUES ('bench-1', 1795350621.5, 30, 28, 0, 84, 280)";
    old.execute(run, []).unwrap();
    old.execute("INSERT INTO fleet_briefings (timestamp, briefing) VALUES (1.0, 'calm')", []).unwrap();
    let observed =
        "INSERT INTO latency_observations (node_id, model_name, latency_ms, timestamp) VALUES ('a', 'm', 1, 2)";
    old.execute(observed, []).unwrap();
}

async fn backfilled(store: &StoreHandle) {
    loop {
        store.write(|_| Ok(())).await.unwrap();
        let left = store.write(|connection| super::super::backfill::left(connection)).await.unwrap();
        if left == 0 {
            return;
        }
    }
}

#[tokio::test]
async fn a_database_of_ollama_herd_is_taken_over_without_loss() {
    let dir = TestDir::new();
    old_database(&dir);
    let rows = dir.number("SELECT count(*) FROM request_traces");
    let (store, thread) = open_with(&dir, keeping()).await;
    fill(&store, &[record(1, NOON_MS)]).await;
    backfilled(&store).await;

    assert_eq!(dir.number("SELECT count(*) FROM request_traces"), rows + 1);
    assert_eq!(dir.number("SELECT count(*) FROM ollama_herd_benchmark_runs"), 1);
    assert_eq!(dir.number("SELECT count(*) FROM fleet_briefings"), 1);
    assert_eq!(dir.number("SELECT count(*) FROM latency_observations"), 1);
    assert_eq!(dir.number("PRAGMA user_version"), 3);
    let copy = rusqlite::Connection::open(format!("{}.ollama-herd", dir.path().join("latency.db").display())).unwrap();
    let number = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs();
    assert_eq!((number("SELECT count(*) FROM request_traces"), number("PRAGMA user_version")), (rows, 0), "as it was");
    assert_eq!(number("SELECT count(*) FROM benchmark_runs"), 1);
    assert_eq!(store.benchmark("bench-1").await.unwrap().unwrap().results["total_requests"], 28);

    let range = Range::new(NOON_MS, NOON_MS + 3 * 86_400_000);
    let summary = store.overview(range).await.unwrap().summary;
    // A request is one request, however often it was tried, and one that was only ever tried has failed.
    assert_eq!((summary.requests, summary.completed, summary.failed), (1_501, 1_491, 10));
    let tags = store.apps(range).await.unwrap().tags;
    assert_eq!(
        tags.iter().map(|one| (one.name.as_str(), one.summary.requests)).collect::<Vec<_>>(),
        [("ci", 750), ("x", 740)]
    );

    let retried = store.trace("old-3").await.unwrap().unwrap();
    assert_eq!((retried.status_name(), retried.node_id.as_str()), ("completed", "node-a"));
    assert_eq!(retried.attempts.iter().map(|one| one.outcome.name()).collect::<Vec<_>>(), ["retried"]);
    assert_eq!(retried.candidates, Candidates::Json(r#"{"total":74.15}"#.into()));
    let page =
        store.traces(TraceFilter { tag: Some("x".into()), ..TraceFilter::default() }, None, 1_000).await.unwrap();
    assert_eq!(page.traces.len(), 740);
    let mut listed = store.traces(TraceFilter::default(), None, 1_000).await.unwrap();
    let next = listed.next_cursor.take().unwrap();
    let rest = store.traces(TraceFilter::default(), Some(&next), 1_000).await.unwrap();
    assert_eq!(listed.traces.len() + rest.traces.len(), 1_501);
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn a_row_of_odd_types_is_read_as_far_as_it_can_be() {
    let dir = TestDir::new();
    old_database(&dir);
    let odd = "UPDATE request_traces SET scores_breakdown = x'c0ffee', latency_ms = 'slow', prompt_tokens = 'many',
        tags = x'00', score = x'ff' WHERE request_id = 'old-3'";
    dir.sql().execute_batch(odd).unwrap();
    let (store, thread) = open_with(&dir, keeping()).await;
    backfilled(&store).await;
    dir.sql().execute_batch("UPDATE request_attempts SET node_id = x'00', outcome = 7, score = 'high'").unwrap();
    let trace = store.trace("old-3").await.unwrap().unwrap();
    assert_eq!((trace.node_id.as_str(), trace.time_to_first_token_ms), ("node-a", Some(120.5)));
    assert_eq!((trace.candidates, trace.score, trace.counts.prompt_tokens), (Candidates::None, None, None));
    assert_eq!(trace.attempts.len(), 1);
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn old_requests_are_forgotten_only_after_they_were_added_up() {
    let dir = TestDir::new();
    old_database(&dir);
    let settings = crate::StoreSettings { raw_days: 0, ..keeping() };
    let (store, thread) = open_with(&dir, settings).await;
    while dir.number("SELECT count(*) FROM request_traces WHERE timestamp < unixepoch()") > 0 {
        store.write(|_| Ok(())).await.unwrap();
    }
    assert_eq!(dir.number("SELECT sum(requests) FROM rollup_daily"), 1_500);
    let orphans = "SELECT count(*) FROM request_tags WHERE trace_id NOT IN (SELECT id FROM request_traces)";
    assert_eq!(dir.number(orphans), 0);
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn a_backfill_goes_on_where_it_was_cut_off() {
    let dir = TestDir::new();
    old_database(&dir);
    for _ in 0..3 {
        let (store, thread) = open_with(&dir, keeping()).await;
        store.write(|_| Ok(())).await.unwrap();
        assert!(thread.close(LIMIT));
    }
    let (store, thread) = open_with(&dir, keeping()).await;
    backfilled(&store).await;
    assert_eq!(dir.number("SELECT sum(requests) FROM rollup_daily"), 1_500);
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn a_database_of_the_first_version_gets_what_it_lacks() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    fill(&store, &[record(1, NOON_MS)]).await;
    assert!(thread.close(LIMIT));
    drop(store);
    let first = "ALTER TABLE request_traces DROP COLUMN overflow; DROP TABLE health_scores; DROP TABLE residency;
        DROP TABLE rollup_minutely_by;
        ALTER TABLE rollup_hourly_by DROP COLUMN overflows; ALTER TABLE rollup_daily_by DROP COLUMN cancelled; ALTER TABLE rollup_hourly_by DROP COLUMN load_ms;
        PRAGMA user_version = 1;";
    dir.sql().execute_batch(first).unwrap();
    let (store, thread) = open(&dir).await;
    fill(&store, &[RequestRecord { overflow: true, ..record(2, NOON_MS) }]).await;
    let sums = store.overview(Range::new(NOON_MS, NOON_MS)).await.unwrap().summary;
    assert_eq!((sums.requests, sums.overflows), (2, 1));
    assert!(store.trace("request-2").await.unwrap().unwrap().overflow);
    assert!(thread.close(LIMIT));
}
