//! The past, as the dashboard and scripts ask for it.

use std::time::Duration;

use axum::body::Body;
use herd_core::record::{AttemptRecord, Candidates, RequestRecord};
use herd_core::vocabulary::{Outcome, Status, Surface};
use herd_store::{Store, StoreHandle, StoreSettings, StoreThread};
use http::Request;
use serde_json::{Value, json};

use crate::AdminConfig;
use crate::testing::{App, heartbeat, loaded};
use herd_store::unix_ms;

/// A store in a folder of its own, removed at its end.
pub(super) struct Kept {
    pub(super) store: StoreHandle,
    thread: Option<StoreThread>,
    dir: std::path::PathBuf,
}

impl Kept {
    pub(super) async fn open() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("herd-history-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let (store, thread) = Store::open(&dir, StoreSettings::default()).unwrap();
        assert!(store.ready(Duration::from_secs(30)).await);
        Self { store, thread: Some(thread), dir }
    }

    /// The same folder after a restart.
    pub(super) async fn reopen(mut self) -> Self {
        assert!(self.close(Duration::from_secs(30)));
        let dir = std::mem::take(&mut self.dir);
        let (store, thread) = Store::open(&dir, StoreSettings::default()).unwrap();
        assert!(store.ready(Duration::from_secs(30)).await);
        Self { store, thread: Some(thread), dir }
    }

    /// Ends the store; returns whether all was written.
    pub(super) fn close(&mut self, limit: Duration) -> bool {
        self.thread.take().is_none_or(|thread| thread.close(limit))
    }

    pub(super) async fn fill(&self, records: impl IntoIterator<Item = RequestRecord>) {
        let before = self.store.health().written;
        let mut count = 0;
        for record in records {
            self.store.record(record).unwrap();
            count += 1;
        }
        while self.store.health().written < before + count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(super) fn app(&self) -> App {
        App::with(AdminConfig { store: Some(self.store.clone()), ..AdminConfig::default() })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            assert!(thread.close(Duration::from_secs(5)) || std::thread::panicking());
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// A completed request that is over now.
pub(super) fn record(id: u64) -> RequestRecord {
    RequestRecord {
        request_id: format!("r{id}"),
        model: "tiny:latest".into(),
        original_model: "tiny:latest".into(),
        node_id: "a".into(),
        app: "aider".into(),
        ..herd_store::testing::record(id, unix_ms())
    }
}

/// Five requests: two completed, one failed on another node, one cancelled, one refused.
fn five() -> Vec<RequestRecord> {
    let candidates = json!([{ "node_id": "a", "total": 71.5, "signals": { "thermal": 50.0 }, "last_resort": null }]);
    let attempts = vec![AttemptRecord {
        node_id: "b".into(),
        outcome: Outcome::Ended(Status::Failed).into(),
        ..AttemptRecord::default()
    }];
    vec![
        RequestRecord { tags: vec!["ci".into(), "night".into()], context_length: Some(8_192), ..record(1) },
        RequestRecord { app: "=cmd()".into(), surface: Some(Surface::OpenAiChat.into()), ..record(2) },
        RequestRecord {
            node_id: "b".into(),
            status: Some(Status::Failed.into()),
            retry_count: 1,
            error_message: Some("gone".into()),
            attempts,
            candidates: Candidates::Json(candidates.to_string().into()),
            ..record(3)
        },
        RequestRecord { status: Some(Status::Cancelled.into()), tags: vec!["ci".into()], ..record(4) },
        RequestRecord {
            status: Some(Status::Rejected.into()),
            node_id: String::new(),
            model: "nope:latest".into(),
            ..record(5)
        },
    ]
}

async fn five_kept() -> (Kept, App) {
    let kept = Kept::open().await;
    kept.fill(five()).await;
    let app = kept.app();
    app.join(loaded(heartbeat("a", &["tiny:latest"]), "tiny:latest", 8_192));
    (kept, app)
}

#[tokio::test]
async fn every_surface_counts_the_same_requests() {
    let (_kept, app) = five_kept().await;
    let answer = app.get("/dashboard/api/overview?range=24h").await.json();
    let totals = &answer["totals"];
    let wanted = [
        ("requests", 5),
        ("completed", 2),
        ("failed", 1),
        ("rejected", 1),
        ("cancelled", 1),
        ("client_disconnected", 0),
        ("retries", 1),
        ("prompt_tokens", 50),
    ];
    for (name, count) in wanted {
        assert_eq!(totals[name], count, "{name}");
    }
    assert_eq!(totals["queue_ms"]["p50"].as_f64().map(f64::round), Some(100.0));
    assert_eq!(answer["previous"]["requests"], 0);
    assert_eq!(answer["previous"]["ttft_ms"], json!({ "p50": null, "p95": null, "p99": null }));
    let now = json!({ "in_flight": 0, "waiting": 0, "nodes_total": 1, "nodes_online": 1, "slots": 1, "slots_busy": 0,
        "models_loaded": 1 });
    assert_eq!(answer["now"], now);
    let sum = |rows: &Value| rows.as_array().unwrap().iter().map(|row| row["requests"].as_u64().unwrap()).sum::<u64>();
    for group in ["node", "model", "app", "day", "surface", "node_model", "node_model_day"] {
        let usage = app.get(&format!("/dashboard/api/usage?group_by={group}&range=24h")).await.json();
        assert_eq!(sum(&usage["rows"]), 5, "{group}");
    }
    for (path, list) in [("trends", "points"), ("models", "models"), ("apps", "apps"), ("apps/daily", "days")] {
        let answer = app.get(&format!("/dashboard/api/{path}?range=24h")).await.json();
        assert_eq!(sum(&answer[list]), 5, "{path}");
    }
    assert_eq!(sum(&app.get("/dashboard/api/context-usage?range=24h").await.json()["rows"]), 5);
    let traces = app.get("/dashboard/api/traces").await.json();
    assert_eq!(traces["traces"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn models_have_their_nodes_and_contexts() {
    let (_kept, app) = five_kept().await;
    let answer = app.get("/dashboard/api/models?range=24h").await.json();
    let tiny = &answer["models"][0];
    assert_eq!((&tiny["model"], &tiny["requests"]), (&"tiny:latest".into(), &4.into()));
    assert_eq!((&tiny["context_used_max"], &tiny["context_allocated"]), (&30.0.into(), &8_192.into()));
    let nodes: Vec<_> = tiny["nodes"].as_array().unwrap().iter().map(|n| (&n["node_id"], &n["hot"])).collect();
    assert_eq!(nodes, [(&"a".into(), &true.into()), (&"b".into(), &false.into())]);
    assert_eq!(
        (&tiny["nodes"][0]["context_allocated"], &tiny["nodes"][1]["context_allocated"]),
        (&8_192.into(), &Value::Null)
    );
    assert_eq!(tiny["nodes"][0]["hot_share"], Value::Null, "nobody has looked yet");
    let tags = app.get("/dashboard/api/tags?range=24h").await.json();
    assert_eq!(
        tags["tags"][0]["top_models"],
        json!([{ "model": "tiny:latest", "requests": 2, "completion_tokens": 40 }])
    );
    let tags: Vec<_> = tags["tags"].as_array().unwrap().iter().map(|t| (&t["tag"], &t["requests"])).cloned_pairs();
    assert_eq!(tags, [("ci".into(), 2.into()), ("night".into(), 1.into())]);
    let trends = app.get("/dashboard/api/trends?range=1h&compare=1&node=b").await.json();
    let points = trends["points"].as_array().unwrap();
    assert_eq!(points.iter().map(|point| point["errors"].as_u64().unwrap()).sum::<u64>(), 1);
    assert_eq!(trends["previous"].as_array().unwrap().len(), points.len());
    assert_eq!(trends["step_ms"], 60_000);
    assert_eq!(points.len(), 61);
    let daily = app.get("/dashboard/api/trends?range=24h").await.json();
    assert_eq!((&daily["step_ms"], daily["points"].as_array().unwrap().len()), (&3_600_000.into(), 25));
}

trait ClonedPairs {
    fn cloned_pairs(self) -> Vec<(Value, Value)>;
}

impl<'a, I: Iterator<Item = (&'a Value, &'a Value)>> ClonedPairs for I {
    fn cloned_pairs(self) -> Vec<(Value, Value)> {
        self.map(|(a, b)| (a.clone(), b.clone())).collect()
    }
}

#[tokio::test]
async fn single_requests_are_found_by_what_they_were() {
    let (_kept, app) = five_kept().await;
    let rows = [
        ("model=nope:latest", "r5"),
        ("node=b", "r3"),
        ("status=cancelled", "r4"),
        ("tag=night", "r1"),
        ("format=openai_chat", "r2"),
        ("surface=openai_chat&limit=-5", "r2"),
        ("app=%3Dcmd()", "r2"),
    ];
    for (query, id) in rows {
        let answer = app.get(&format!("/dashboard/api/traces?{query}")).await.json();
        let ids: Vec<_> = answer["traces"].as_array().unwrap().iter().map(|trace| &trace["request_id"]).collect();
        assert_eq!(ids, [id], "{query}");
    }
    let mut seen = 0;
    let mut path = "/dashboard/api/traces?limit=2".to_owned();
    loop {
        let page = app.get(&path).await.json();
        seen += page["traces"].as_array().unwrap().len();
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/dashboard/api/traces?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, 5);
    let one = app.get("/dashboard/api/traces/r3").await.json();
    assert_eq!((&one["trace"]["error_message"], &one["trace"]["node_id"]), (&"gone".into(), &"b".into()));
    assert_eq!(one["attempts"][0]["outcome"], "failed");
    assert_eq!(one["candidates"][0]["total"], 71.5);
    assert_eq!(app.get("/dashboard/api/traces/none").await.status, 404);
}

#[tokio::test]
async fn every_list_is_csv_too() {
    let (_kept, app) = five_kept().await;
    for path in ["trends", "models", "apps", "tags", "apps/daily", "usage", "context-usage", "traces"] {
        let answer = app.get(&format!("/dashboard/api/{path}?format=csv&range=24h")).await;
        assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8", "{path}");
        assert!(answer.body.lines().count() > 1, "{path}: {}", answer.body);
        assert!(!answer.body.contains(",=cmd") && !answer.body.starts_with("=cmd"), "{path}: {}", answer.body);
    }
    let lists = [
        "/fleet/queue",
        "/fleet/limits",
        "/fleet/pulls",
        "/dashboard/api/requests",
        "/dashboard/api/settings",
        "/dashboard/api/benchmarks",
        "/dashboard/api/audit",
        "/dashboard/api/health",
        "/dashboard/api/health/history",
        "/dashboard/api/recommendations",
        "/dashboard/api/pinned-models",
        "/dashboard/api/model-management",
    ];
    for path in lists {
        let answer = app.get(&format!("{path}?format=csv&limit=-1")).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/csv; charset=utf-8"), "{path}");
    }
    let apps = app.get("/dashboard/api/apps?format=csv&range=24h").await.body;
    assert!(apps.contains("'=cmd()"), "{apps}");
}

#[tokio::test]
async fn what_is_unchanged_is_not_sent_twice() {
    let (_kept, app) = five_kept().await;
    for path in ["/dashboard/api/models?range=24h", "/dashboard/api/overview", "/dashboard/api/traces"] {
        let tag = app.get(path).await.header("etag").to_owned();
        let again = Request::get(path).header("if-none-match", tag).body(Body::empty()).unwrap();
        assert_eq!(app.send(again).await.status, 304, "{path}");
    }
}

#[tokio::test]
async fn hostile_and_impossible_questions_are_refused_in_one_form() {
    let (_kept, app) = five_kept().await;
    let rows = [
        ("overview?range=1y", 400, "range"),
        ("overview?from_unix_ms=9&to_unix_ms=3", 400, "range"),
        ("traces?limit=x", 400, "query"),
        ("traces?cursor=x", 400, "invalid_cursor"),
        ("usage?group_by=colour", 400, "group_by"),
    ];
    for (path, status, code) in rows {
        let answer = app.get(&format!("/dashboard/api/{path}")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (status, &code.into()), "{path}");
    }
    let answer = app.get("/dashboard/api/traces?limit=-1&from_unix_ms=-5&to_unix_ms=99999999999999999999").await;
    assert_eq!(answer.json()["traces"].as_array().unwrap().len(), 1);
    let none = App::new().get("/dashboard/api/overview").await;
    assert_eq!((none.status.as_u16(), &none.json()["error"]["code"]), (503, &"store_disabled".into()));
}

#[tokio::test]
async fn time_in_memory_is_told_of_each_node() {
    let (kept, app) = five_kept().await;
    app.join(heartbeat("b", &["tiny:latest"]));
    for _ in 0..3 {
        crate::residency::look(&app.state, 5_000);
    }
    let mut gone = heartbeat("a", &["tiny:latest"]);
    gone.herd.as_mut().unwrap().seq = 2;
    app.join(gone);
    crate::residency::look(&app.state, 5_000);
    // The writer takes one after the other.
    kept.store.set_setting("last", &1).await.unwrap();
    let answer = app.get("/dashboard/api/models?range=24h").await.json();
    let of = |id: &str| {
        let nodes = answer["models"][0]["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["node_id"] == id).unwrap()["hot_share"].as_f64()
    };
    assert_eq!((of("a"), of("b")), (Some(0.75), Some(0.0)));
}

#[tokio::test]
async fn contexts_are_told_of_each_node_with_what_exceeded_them() {
    let kept = Kept::open().await;
    let long = |id, node: &str, window| RequestRecord {
        node_id: node.into(),
        context_length: Some(window),
        estimated_tokens: Some(5_000),
        overflow: window < 5_000,
        key_id: "k1".into(),
        ..record(id)
    };
    kept.fill([long(1, "a", 4_096), long(2, "b", 8_192)]).await;
    let app = kept.app();
    app.join(loaded(heartbeat("a", &["tiny:latest"]), "tiny:latest", 2_048));
    let row = app.get("/dashboard/api/context-usage?range=1h").await.json()["rows"][0].take();
    assert_eq!((&row["overflows"], &row["context_allocated"]), (&1.into(), &8_192.into()));
    let node = |id: &str| row["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == id).unwrap();
    assert_eq!(
        (&node("a")["overflows"], &node("a")["context_allocated"], &node("a")["context_loaded"]),
        (&1.into(), &4_096.into(), &2_048.into())
    );
    assert_eq!((&node("b")["overflows"], &node("b")["context_loaded"]), (&0.into(), &Value::Null));
    let keys = app.get("/dashboard/api/apps?range=1h").await.json()["keys"].take();
    assert_eq!((&keys[0]["key_id"], &keys[0]["requests"]), (&"k1".into(), &2.into()));
}
