//! The queries that the product documents run unchanged on a database that herd filled.

use herd_core::answer::Counts;
use herd_core::record::{AttemptRecord, Candidates, RequestRecord};
use herd_core::vocabulary::{Class, ContextAction, Reason, Recorded, ReloadCause, StandIn};

use crate::Range;

use super::{LIMIT, NOON_MS, TestDir, any_requests, fill, open, record};

const SLOWEST: &str = "SELECT model, node_id, AVG(latency_ms)/1000.0 as avg_secs, COUNT(*) as n FROM request_traces WHERE status='completed' GROUP BY node_id, model HAVING n > 10 ORDER BY avg_secs DESC LIMIT 10";
const FIRST_TOKEN: &str = "SELECT node_id, model, AVG(time_to_first_token_ms) as avg_ttft FROM request_traces WHERE time_to_first_token_ms IS NOT NULL GROUP BY node_id, model";
const HOT_OR_COLD: &str = "SELECT model, CASE WHEN time_to_first_token_ms < 1000 THEN 'hot' ELSE 'cold' END as load_type, AVG(latency_ms)/1000.0 as avg_secs, COUNT(*) as n FROM request_traces WHERE status='completed' AND time_to_first_token_ms IS NOT NULL GROUP BY model, load_type ORDER BY model";

#[tokio::test]
async fn the_documented_queries_run_unchanged() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let records = any_requests(1_000, 3);
    fill(&store, &records).await;
    let sql = dir.sql();
    let mut statement = sql.prepare(SLOWEST).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    let rows: Vec<(String, String, f64, u32)> = rows.unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), 9);
    for (model, node, seconds, count) in rows {
        let took: Vec<_> = records
            .iter()
            .filter(|one| (&one.model, &one.node_id, one.status_name()) == (&model, &node, "completed"))
            .map(|one| one.latency_ms)
            .collect();
        assert_eq!(u64::from(count), took.len() as u64);
        assert!((seconds * 1_000.0 * f64::from(count) - took.iter().sum::<f64>()).abs() < 1.0);
    }
    let count = |query: &str| sql.prepare(query).unwrap().query_map([], |_| Ok(())).unwrap().count();
    assert_eq!((count(FIRST_TOKEN), count(HOT_OR_COLD)), (9, 6));
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn a_request_comes_back_as_it_was_recorded() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let attempt = |node: &str, outcome: &str, started_ms| AttemptRecord {
        node_id: node.into(),
        outcome: Recorded::parse(outcome).unwrap(),
        score: Some(61.5),
        started_ms: Some(started_ms),
        duration_ms: Some(450.25),
    };
    let full = RequestRecord {
        counts: Counts { load_ms: Some(31.0), ..record(1, 0).counts },
        predicted_ms: Some(812.5),
        score: Some(74.15),
        candidates: Candidates::Json(r#"[{"node_id":"node-a","thermal":50.0}]"#.into()),
        retry_count: 1,
        fallback_used: true,
        stand_in: Some(StandIn::Vram),
        client_ip: "10.0.0.9".into(),
        tags: vec!["ci".into(), "caf\u{e9}".into()],
        app: "ci".into(),
        key_id: "k1".into(),
        user_agent: "aider/0.80".into(),
        error_message: Some("odd".into()),
        stream: Some(false),
        num_ctx: Some(8_192),
        context_length: Some(16_384),
        context_action: Some(ContextAction::Raised),
        reload_cause: Some(ReloadCause::LaunchOptions),
        request_bytes: 1_234,
        response_bytes: 5_678,
        priority: Some(Class::Interactive),
        finish_reason: Some(Reason::Stop),
        estimated_tokens: Some(11),
        attempts: vec![attempt("node-b", "error_500", 100.5), attempt("node-a", "completed", 551.0)],
        ..record(1, NOON_MS + 123)
    };
    fill(&store, &[full.clone(), record(2, NOON_MS)]).await;
    assert_eq!(store.trace("request-1").await.unwrap(), Some(full.clone()));
    assert_eq!(store.trace("request-3").await.unwrap(), None);
    let columns = "SELECT excluded_nodes, timestamp FROM request_traces WHERE request_id = 'request-1'";
    let told: (String, f64) = dir.sql().query_row(columns, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(told, (r#"["node-b"]"#.into(), 1_795_348_800.123));
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn odd_records_are_bounded() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let odd = RequestRecord {
        model: "\u{e9}".repeat(1_000),
        latency_ms: f64::NAN,
        queue_ms: Some(f64::INFINITY),
        time_to_first_token_ms: Some(-5.0),
        counts: Counts { prompt_tokens: Some(u64::MAX), ..Counts::default() },
        candidates: Candidates::Json("x".repeat(1 << 20).into()),
        error_message: Some("y".repeat(1 << 20)),
        tags: vec!["t".into(); 1_000],
        attempts: vec![AttemptRecord::default(); 1_000],
        ..record(1, u64::MAX)
    };
    fill(&store, &[odd]).await;
    let kept = store.trace("request-1").await.unwrap().unwrap();
    assert_eq!((kept.model.len(), kept.candidates, kept.queue_ms), (256, Candidates::None, None));
    assert_eq!((kept.latency_ms, kept.time_to_first_token_ms), (0.0, Some(0.0)));
    assert_eq!((kept.tags.len(), kept.attempts.len(), kept.error_message.unwrap().len()), (16, 32, 2_000));
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn an_unknown_latency_is_not_zero_in_the_roll_ups() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    fill(&store, &[record(1, NOON_MS), RequestRecord { latency_ms: f64::NAN, ..record(2, NOON_MS) }]).await;
    let summary = store.overview(Range::new(NOON_MS - 1, NOON_MS + 1)).await.unwrap().summary;
    assert_eq!((summary.completed, summary.latency_ms.map(|spread| spread.avg)), (2, Some(1_000.0)));
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn invented_names_do_not_grow_the_roll_ups_without_end() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let records: Vec<_> =
        (0..2_000).map(|id| RequestRecord { model: format!("m{id}"), ..record(id, NOON_MS) }).collect();
    fill(&store, &records).await;
    assert_eq!(dir.number("SELECT count(*) FROM rollup_hourly"), 513);
    assert_eq!(dir.number("SELECT sum(requests) FROM rollup_daily"), 2_000);
    assert!(thread.close(LIMIT));
}
