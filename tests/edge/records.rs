//! What the dashboard reads of requests that are over: all its answers count the same requests.

use herd_harness::{Edge, Sim, eventually, get, post_with, send};
use serde_json::Value;

const CHAT: &[u8] =
    br#"{"model":"tiny","stream":false,"metadata":{"tags":["nightly"]},"messages":[{"role":"user","content":"hi"}]}"#;
const BROKEN: &[u8] = br#"{"model":"tiny","messages":"#;

fn sum(rows: &Value, field: &str) -> u64 {
    rows.as_array().unwrap().iter().map(|row| row[field].as_u64().unwrap()).sum()
}

#[test]
fn every_request_is_counted_once_and_in_every_answer() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    for number in 0..5 {
        let answer = send(edge.address, &post_with("/api/chat", &format!("X-Request-Id: good-{number}\r\n"), CHAT));
        assert_eq!(answer.status, 200);
    }
    let refused = send(edge.address, &post_with("/v1/chat/completions", "X-Request-Id: refused\r\n", BROKEN));
    assert_eq!(refused.status, 400);

    let ask = |path: &str| edge.admin("GET", &format!("/dashboard/api/{path}"), "");
    eventually("all are kept", || ask("overview?range=1h")["totals"]["requests"] == 6);
    let overview = ask("overview?range=1h");
    let totals = &overview["totals"];
    assert_eq!((&totals["completed"], &totals["rejected"], &totals["errors"]), (&5.into(), &1.into(), &1.into()));
    assert_eq!(overview["previous"]["requests"], 0);
    assert!(totals["latency_ms"]["p95"].as_f64().unwrap() > 0.0);

    assert!(totals["tokens_per_s"].is_null(), "answers in one piece tell no speed: {totals}");

    let written = totals["completion_tokens"].as_u64().unwrap();
    assert!(written > 0);
    let (trends, models, apps) = (ask("trends?compare=1"), ask("models"), ask("apps"));
    let (days, usage) = (ask("apps/daily?range=24h"), ask("usage?group_by=node"));
    for (name, rows) in [
        ("trends", &trends["points"]),
        ("models", &models["models"]),
        ("apps", &apps["apps"]),
        ("usage", &usage["rows"]),
    ] {
        assert_eq!((sum(rows, "requests"), sum(rows, "completion_tokens")), (6, written), "{name}");
    }
    assert_eq!(sum(&days["days"], "requests"), 6);
    assert_eq!(sum(&trends["previous"], "requests"), 0);
    let tiny = models["models"].as_array().unwrap().iter().find(|one| one["requests"] == 5).unwrap();
    assert_eq!((&tiny["nodes"][0]["node_id"], &tiny["nodes"][0]["hot"]), (&"a".into(), &true.into()));

    let page = ask("traces?limit=4");
    let rest = ask(&format!("traces?cursor={}", page["next_cursor"].as_str().unwrap()));
    assert_eq!((page["traces"].as_array().unwrap().len(), rest["traces"].as_array().unwrap().len()), (4, 2));
    assert_eq!(ask("traces?status=rejected")["traces"][0]["request_id"], "refused");
    let one = ask("traces/good-3");
    assert_eq!((&one["trace"]["node_id"], &one["attempts"][0]["outcome"]), (&"a".into(), &"completed".into()));
    assert!(one["candidates"][0]["signals"]["thermal"].as_f64().unwrap() > 0.0, "{one}");
}

#[test]
fn what_cannot_be_answered_says_why_and_lists_come_as_csv() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let hostile = CHAT.to_vec();
    assert_eq!(send(edge.address, &post_with("/api/chat", "X-Request-Id: =1+1\r\n", &hostile)).status, 200);
    eventually("it is kept", || edge.admin("GET", "/dashboard/api/overview", "")["totals"]["requests"] == 1);
    let rows = [
        ("overview?range=1y", 400, "range"),
        ("overview?from_unix_ms=9&to_unix_ms=9", 400, "range"),
        ("usage?group_by=nothing", 400, "group_by"),
        ("traces?cursor=zz", 400, "invalid_cursor"),
        ("traces/nobody", 404, "unknown_request"),
    ];
    for (path, status, code) in rows {
        let answer = get(edge.admin, &format!("/dashboard/api/{path}"));
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default()),
            (status, code),
            "{path}"
        );
    }
    let csv = get(edge.admin, "/dashboard/api/traces?format=csv&range=24h");
    assert!(csv.head.to_lowercase().contains("content-type: text/csv"), "{}", csv.head);
    assert_eq!(csv.text().lines().count(), 2, "{}", csv.text());
}
