//! What is too old or too much goes, and nothing else.

use herd_core::record::{AttemptRecord, Candidates, RequestRecord};

use super::{LIMIT, TestDir, fill, keeping, open, open_with, record};
use crate::unix_ms;
use crate::{DAY_MS, HealthScore, Range, Residency, StoreSettings};

fn rows(dir: &TestDir, table: &str) -> u64 {
    dir.number(&format!("SELECT count(*) FROM {table}"))
}

/// Opens with these settings and waits for a look at what is to go.
async fn after_upkeep(dir: &TestDir, settings: StoreSettings, done: impl Fn() -> bool) {
    let (store, thread) = open_with(dir, settings).await;
    while !done() {
        store.write(|_| Ok(())).await.unwrap();
    }
    assert!(thread.close(LIMIT));
}

fn tagged(id: u64, timestamp_ms: u64) -> RequestRecord {
    let attempts = vec![AttemptRecord { node_id: "node-a".into(), ..Default::default() }];
    RequestRecord { tags: vec!["ci".into()], attempts, ..record(id, timestamp_ms) }
}

#[tokio::test]
async fn requests_and_roll_ups_go_at_their_age() {
    let dir = TestDir::new();
    let now = unix_ms();
    let (store, thread) = open(&dir).await;
    let ages = [0, 1, 29, 31, 100, 399, 401];
    let records: Vec<_> = (0..).zip(ages).map(|(id, days): (u64, u64)| tagged(id, now - days * DAY_MS)).collect();
    fill(&store, &records).await;
    for days in ages {
        let hot = Residency { node_id: "node-a".into(), model: String::new(), ms: 5_000 };
        store.post_residency(now - days * DAY_MS, vec![hot]).unwrap();
        let looked = HealthScore { at_unix_ms: now - days * DAY_MS, score: 100, critical: 0, warning: 0, info: 0 };
        store.post_score(looked).unwrap();
    }
    assert!(thread.close(LIMIT));
    let minutes = "SELECT count(DISTINCT bucket) FROM rollup_minutely_by";
    assert_eq!(dir.number(minutes), 1, "of what is old no minutes are counted");
    dir.sql()
        .execute("UPDATE rollup_minutely_by SET bucket = bucket - 14 * 3600 WHERE dimension = 'total'", [])
        .unwrap();
    let settled =
        || rows(&dir, "rollup_daily") == 6 && rows(&dir, "residency") == 6 && rows(&dir, "health_scores") == 4;
    after_upkeep(&dir, StoreSettings::default(), settled).await;
    assert_eq!(rows(&dir, "rollup_minutely_by"), 7, "minutes go after half a day");
    assert_eq!((rows(&dir, "request_traces"), rows(&dir, "request_attempts"), rows(&dir, "request_tags")), (3, 3, 3));
    assert_eq!((rows(&dir, "rollup_hourly"), rows(&dir, "rollup_daily_by")), (6, 6 * 8));
    let (store, thread) = open_with(&dir, StoreSettings::default()).await;
    assert_eq!(store.overview(Range::last(400 * DAY_MS, now)).await.unwrap().summary.requests, 6);
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn the_oldest_go_when_the_file_is_too_large() {
    let dir = TestDir::new();
    let now = unix_ms();
    let (store, thread) = open(&dir).await;
    let wide =
        |id| RequestRecord { candidates: Candidates::Json("1".repeat(4_000).into()), ..tagged(id, now - 3_000 + id) };
    fill(&store, &(0..3_000).map(wide).collect::<Vec<_>>()).await;
    assert!(thread.close(LIMIT));
    let max_bytes = 8 << 20;
    let size = || std::fs::metadata(dir.file()).unwrap().len();
    assert!(size() > max_bytes);
    after_upkeep(&dir, StoreSettings { max_bytes, ..keeping() }, || rows(&dir, "request_traces") < 2_500).await;
    let settled = StoreSettings { max_bytes, ..keeping() };
    after_upkeep(&dir, settled, || size() <= max_bytes + (1 << 20)).await;
    let left = rows(&dir, "request_traces");
    assert!((500..2_500).contains(&left), "{left}");
    let newest = "SELECT min(id) = max(id) - count(*) + 1 AND max(request_id) = 'request-2999' FROM request_traces";
    assert!(dir.sql().query_row(newest, [], |row| row.get::<_, bool>(0)).unwrap());
    assert_eq!((rows(&dir, "request_attempts"), rows(&dir, "request_tags")), (left, left));
    assert_eq!(dir.number("SELECT sum(requests) FROM rollup_daily"), 3_000);
}
