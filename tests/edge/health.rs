//! What goes wrong with real nodes is a finding soon, at its place; what goes well is none.

use std::io::{Read as _, Write as _};

use herd_harness::{Answer, Edge, Sim, connect, eventually, post, read_answer};
use serde_json::Value;

/// Findings open after two looks, and sustained ones after four.
const LOOKS: (&str, &str) = ("FLEET_HEALTH_INTERVAL_MS", "150");
const CHAT: &str = r#"{"model":"tiny","stream":false,"messages":[{"role":"user","content":"hi"}]}"#;
const STREAM: &str = r#"{"model":"tiny","options":{"num_predict":40},"messages":[{"role":"user","content":"hi"}]}"#;
const LONG: &str = r#"{"model":"tiny","options":{"num_predict":4000},"messages":[{"role":"user","content":"hi"}]}"#;

fn edge(config: &str) -> Edge {
    Edge::start_with(config, &[LOOKS])
}

fn hot(edge: &Edge, id: &str, args: &[&str]) -> Sim {
    let sim = Sim::start(Some(edge), id, &[&["--hot", "tiny"], args].concat());
    edge.wait_for(&[id]);
    sim
}

fn health(edge: &Edge) -> Value {
    edge.admin("GET", "/dashboard/api/health", "")
}

/// Waits until `check` has found something; returns it.
#[track_caller]
fn finding(edge: &Edge, check: &str) -> Value {
    let mut found = Value::Null;
    eventually(check, || {
        let health = health(edge);
        let of_check = health["findings"].as_array().unwrap().iter().find(|one| one["check"] == check);
        found = of_check.cloned().unwrap_or_default();
        !found.is_null()
    });
    assert!(found["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{found}");
    found
}

/// Looks at the fleet so often that everything would have been found.
fn settled(edge: &Edge) -> Value {
    let before = health(edge)["evaluations"].as_u64().unwrap();
    let mut now = Value::Null;
    eventually("some looks", || {
        now = health(edge);
        now["evaluations"].as_u64().unwrap() > before + 5
    });
    now
}

fn chat(edge: &Edge, body: &str) -> Answer {
    edge.post("/api/chat", body.as_bytes())
}

fn at(finding: &Value) -> (&str, &str, &str) {
    let text = |name: &str| finding[name].as_str().unwrap_or("");
    (text("severity"), text("node_id"), text("model"))
}

#[test]
fn a_fleet_that_works_scores_100_until_a_node_is_gone() {
    let edge = edge("fleet: {degraded_after_ms: 2500, stale_after_ms: 3000, offline_after_ms: 4000}");
    let (_a, mut b) = (hot(&edge, "a", &[]), hot(&edge, "b", &[]));
    for _ in 0..30 {
        assert_eq!(chat(&edge, CHAT).status, 200);
    }
    let well = settled(&edge);
    assert_eq!((&well["score"], &well["status"]), (&100.into(), &"healthy".into()), "{well}");
    b.process.kill();
    let gone = finding(&edge, "node_down");
    assert_eq!(at(&gone), ("critical", "b", ""));
    assert!(health(&edge)["score"].as_u64().unwrap() < 100);
    let history = edge.admin("GET", "/dashboard/api/health/history?range=1h", "");
    let scores = history["points"].as_array().unwrap().iter().map(|point| point["score"].as_u64().unwrap());
    assert!(scores.clone().any(|score| score == 100) && scores.clone().any(|score| score < 100), "{history}");
}

#[test]
fn windows_that_differ_are_found_when_they_are_passed_through() {
    let edge = edge("context: {protection: passthrough}");
    let _a = hot(&edge, "a", &["--load-ms", "5"]);
    for turn in 0..20 {
        let num_ctx = if turn % 2 == 0 { 2_048 } else { 8_192 };
        let body = CHAT.replace("\"stream\":false", &format!("\"stream\":false,\"options\":{{\"num_ctx\":{num_ctx}}}"));
        assert_eq!(chat(&edge, &body).status, 200);
    }
    assert_eq!(at(&finding(&edge, "reload_thrash")), ("warning", "a", "tiny:latest"));
}

#[test]
fn errors_are_found_at_their_node() {
    let edge = edge("retry: {max_attempts: 1}");
    let a = hot(&edge, "a", &[]);
    for turn in 0..24 {
        a.fault(if turn % 4 == 0 { "error_500" } else { "none" });
        assert_eq!(chat(&edge, CHAT).status, if turn % 4 == 0 { 500 } else { 200 });
    }
    assert_eq!(at(&finding(&edge, "failure_rate")), ("critical", "a", ""));
}

#[test]
fn a_full_queue_is_found() {
    let edge = edge("queue: {max_waiting: 1}");
    let _a = hot(&edge, "a", &["--decode-tps", "20", "--num-parallel", "1"]);
    let mut runs = connect(edge.address);
    runs.write_all(&post("/api/chat", LONG.as_bytes())).unwrap();
    runs.read_exact(&mut [0; 64]).unwrap();
    let mut waits = connect(edge.address);
    waits.write_all(&post("/api/chat", CHAT.as_bytes())).unwrap();
    eventually("one waits", || edge.waiting().len() == 1);
    for _ in 0..25 {
        assert_eq!(chat(&edge, CHAT).status, 503);
    }
    let found = finding(&edge, "queue_refusals");
    assert_eq!(at(&found), ("critical", "", ""));
    let refused = found["evidence"].as_array().unwrap().iter().find(|one| one["name"] == "queue_refused").unwrap();
    assert_eq!(refused["value"], 25);
}

#[test]
fn a_node_that_is_slower_than_its_peer_is_found() {
    let edge = edge("");
    let nodes = [("slow", "150"), ("fast", "4000")];
    let _sims = nodes.map(|(id, tps)| hot(&edge, id, &["--decode-tps", tps]));
    for (id, other) in [("slow", "fast"), ("fast", "slow")] {
        let drained = edge.admin("POST", &format!("/fleet/nodes/{other}/drain"), "{}");
        assert_eq!(drained["cordoned"], true, "{drained}");
        for _ in 0..20 {
            assert_eq!(chat(&edge, STREAM).header("X-Fleet-Node"), Some(id));
        }
        let back = edge.admin("POST", &format!("/fleet/nodes/{other}/undrain"), "{}");
        assert_eq!(back["cordoned"], false, "{back}");
    }
    assert_eq!(at(&finding(&edge, "slow_node")), ("warning", "slow", "tiny:latest"));
}

/// Sends `count` requests on one connection, as fast as they are answered.
fn burst(edge: &Edge, count: usize, body: &str) {
    let mut client = connect(edge.address);
    let request = post("/api/chat", body.as_bytes());
    for _ in 0..count {
        client.write_all(&request).unwrap();
        assert_eq!(read_answer(&mut client).status, 200);
    }
}

#[test]
fn a_store_that_cannot_write_loses_traces_and_says_so() {
    let edge = Edge::launch(&herd_harness::Start { env: &[LOOKS], log: "error", ..herd_harness::Start::default() });
    let _a = hot(&edge, "a", &["--num-parallel", "4"]);
    assert_eq!(at(&finding_after_lock(&edge)), ("critical", "", ""));
    let short = CHAT.replace("\"stream\":false", "\"stream\":false,\"options\":{\"num_predict\":1}");
    // More than the edge keeps for a store that is away.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| burst(&edge, 2_400, &short));
        }
    });
    assert_eq!(at(&finding(&edge, "traces_dropped")), ("warning", "", ""));
    assert_eq!(chat(&edge, CHAT).status, 200, "traffic goes on");
}

/// Takes the database away from the edge for good: another program holds it.
fn finding_after_lock(edge: &Edge) -> Value {
    let database = rusqlite::Connection::open(edge.data_dir().join("latency.db")).unwrap();
    database.busy_timeout(herd_harness::PATIENCE).unwrap();
    database.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // It must live as long as the edge; the process is the test's own.
    std::mem::forget(database);
    assert_eq!(chat(edge, CHAT).status, 200);
    finding(edge, "store_broken")
}
