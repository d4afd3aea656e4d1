//! What is kept of requests: every surface counts the same ones as their client did, and the queries that the product
//! documents run on the database.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use herd_harness::{Edge, Sim, Start, connect, eventually, get, post_with, read_answer, send};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::scripted::{Scripted, answer};

/// Verbatim from the product's documentation.
const SLOWEST: &str = "SELECT model, node_id, AVG(latency_ms)/1000.0 as avg_secs, COUNT(*) as n FROM request_traces \
    WHERE status='completed' GROUP BY node_id, model HAVING n > 10 ORDER BY avg_secs DESC LIMIT 10";
const TTFT: &str = "SELECT node_id, model, AVG(time_to_first_token_ms) as avg_ttft FROM request_traces \
    WHERE time_to_first_token_ms IS NOT NULL GROUP BY node_id, model";
const HOT_AND_COLD: &str = "SELECT model, CASE WHEN time_to_first_token_ms < 1000 THEN 'hot' ELSE 'cold' END as load_type, \
    AVG(latency_ms)/1000.0 as avg_secs, COUNT(*) as n FROM request_traces WHERE status='completed' \
    AND time_to_first_token_ms IS NOT NULL GROUP BY model, load_type ORDER BY model";

const CHAT: &str =
    r#"{"model":"tiny","stream":false,"options":{"num_predict":2},"messages":[{"role":"user","content":"hi"}]}"#;
const STREAM: &str = r#"{"model":"tiny","options":{"num_predict":8},"messages":[{"role":"user","content":"hi"}]}"#;
const LONG: &[u8] = br#"{"model":"tiny","options":{"num_predict":4000},"messages":[{"role":"user","content":"hi"}]}"#;
const EMBED: &[u8] = br#"{"model":"vec-embed","input":"hi"}"#;

/// What a client saw: requests by how they ended.
type Seen = BTreeMap<&'static str, u64>;

fn ask(edge: &Edge, headers: &str, body: &str) -> u16 {
    send(edge.address, &post_with("/api/chat", headers, body.as_bytes())).status
}

/// Sends a long chat and returns once its node writes.
fn long(edge: &Edge, id: &str) -> TcpStream {
    let mut client = connect(edge.address);
    client.write_all(&post_with("/api/chat", &format!("X-Request-Id: {id}\r\n"), LONG)).unwrap();
    client.read_exact(&mut [0; 10]).unwrap();
    client
}

/// Requests of every kind and ending. The edge has one place in its queue, and its node one slot.
fn drive(edge: &Edge, sim: &Sim) -> Seen {
    let mut seen = Seen::new();
    let mut saw = |ending, count| *seen.entry(ending).or_default() += count;
    let chats = [
        ("User-Agent: aider/0.1\r\nX-Herd-Tags: ci,night\r\n", CHAT),
        ("User-Agent: curl/8\r\n", CHAT),
        ("User-Agent: curl/8\r\n", STREAM),
    ];
    for (headers, body) in chats.iter().cycle().take(18) {
        assert_eq!(ask(edge, headers, body), 200);
    }
    for (path, body) in [("/api/embed", EMBED), ("/v1/embeddings", EMBED)] {
        assert_eq!(edge.post(path, body).status, 200);
    }
    saw("completed", 20);

    assert_eq!(ask(edge, "", "{"), 400);
    assert_eq!(ask(edge, "", &CHAT.replace("tiny", "nope")), 404);
    saw("rejected", 2);

    for (fault, status) in [("error_400", 400), ("error_500", 500)] {
        sim.fault(fault);
        assert_eq!(ask(edge, "", CHAT), status);
        saw("failed", 1);
    }
    sim.fault_with(r#"{"fault":"cut_mid_stream","after_chunks":2}"#);
    let cut = edge.post("/api/chat", STREAM.as_bytes());
    assert!(cut.text().lines().last().unwrap().contains("error"), "{cut:?}");
    saw("incomplete", 1);
    sim.fault("none");

    let mut leaves = long(edge, "leaves");
    leaves.read_exact(&mut [0; 400]).unwrap();
    drop(leaves);
    eventually("the node is let go", || sim.stats()["in_flight"] == 0);
    saw("client_disconnected", 1);

    let mut ended = long(edge, "ended");
    let waits = || {
        let mut client = connect(edge.address);
        client.write_all(&post_with("/api/chat", "", CHAT.as_bytes())).unwrap();
        eventually("it waits", || edge.waiting().len() == 1);
        client
    };
    drop(waits());
    eventually("nobody waits", || edge.waiting().is_empty());
    saw("client_disconnected", 1);
    let mut waiting = waits();
    assert_eq!(ask(edge, "", CHAT), 503, "the queue is full");
    saw("rejected", 1);
    assert_eq!(edge.admin("DELETE", "/dashboard/api/requests/ended", "")["cancelled"], 1);
    assert!(read_answer(&mut ended).whole);
    saw("cancelled", 1);
    assert_eq!(read_answer(&mut waiting).status, 200);
    saw("completed", 1);
    seen
}

fn sum(rows: &Value, field: &str) -> u64 {
    rows.as_array().unwrap().iter().map(|row| row[field].as_u64().unwrap()).sum()
}

#[test]
fn every_surface_counts_what_the_client_counted() {
    let edge = Edge::start_with("{queue: {max_waiting: 1}, auto_pull: {enabled: false}}", &[]);
    let args = ["--model", "vec-embed=0.1", "--hot", "tiny", "--hot", "vec-embed", "--decode-tps", "100"];
    let sim = Sim::start(Some(&edge), "a", &args);
    edge.wait_for(&["a"]);
    let seen = drive(&edge, &sim);
    let all: u64 = seen.values().sum();

    let api = |path: &str| edge.admin("GET", &format!("/dashboard/api/{path}"), "");
    eventually("all are kept", || api("overview?range=1h")["totals"]["requests"] == all);
    let totals = api("overview?range=1h")["totals"].clone();
    for ending in ["completed", "failed", "rejected", "incomplete", "reaped", "cancelled", "client_disconnected"] {
        assert_eq!(totals[ending], seen.get(ending).copied().unwrap_or(0), "{ending}: {totals}");
    }
    for group in ["model", "node", "app", "day", "surface"] {
        let usage = api(&format!("usage?group_by={group}&range=1h"));
        assert_eq!(sum(&usage["rows"], "requests"), all, "{group}: {usage}");
        assert_eq!(sum(&usage["rows"], "completed"), seen["completed"], "{group}: {usage}");
    }
    assert_eq!(sum(&api("models?range=1h")["models"], "requests"), all);
    let apps = api("apps?range=1h");
    assert_eq!(sum(&apps["apps"], "requests"), all, "{apps}");
    assert_eq!(
        apps["tags"].as_array().unwrap().iter().map(|tag| tag["requests"].as_u64().unwrap()).collect::<Vec<_>>(),
        [6, 6],
        "a request with two tags counts for both, and once in all"
    );
    assert_eq!(sum(&api("apps/daily?range=1h")["days"], "requests"), all);
    let trends = api("trends?range=1h&compare=1");
    assert_eq!((sum(&trends["points"], "requests"), sum(&trends["previous"], "requests")), (all, 0));
    assert_eq!(sum(&api("context-usage?range=1h")["rows"], "requests"), all);
    let traces = api("traces?limit=1000");
    let traces = traces["traces"].as_array().unwrap();
    for (ending, count) in &seen {
        assert_eq!(traces.iter().filter(|trace| trace["status"] == *ending).count() as u64, *count, "{ending}");
    }
    assert_eq!(counted_by_metrics(&edge), all);
    let whole = api("traces/leaves");
    assert_eq!(
        (&whole["attempts"][0]["node_id"], &whole["attempts"][0]["outcome"]),
        (&"a".into(), &"client_disconnected".into())
    );
    assert!(whole["candidates"][0]["signals"]["thermal"].as_f64().unwrap() > 0.0, "{whole}");
    assert_eq!(whole["candidates"][0]["node_id"], "a");
    assert_eq!(paged(&edge), all);
    let csv = get(edge.admin, "/dashboard/api/traces?format=csv").text();
    assert_eq!(csv.lines().count() as u64, all + 1);

    documented_queries_run(&edge, &seen);
}

/// Traces in all, page by page.
fn paged(edge: &Edge) -> u64 {
    let (mut count, mut cursor) = (0, String::new());
    loop {
        let page = edge.admin("GET", &format!("/dashboard/api/traces?limit=7{cursor}"), "");
        count += page["traces"].as_array().unwrap().len() as u64;
        let Some(next) = page["next_cursor"].as_str() else { return count };
        cursor = format!("&cursor={next}");
    }
}

/// `herd_requests_total` over all of its labels.
fn counted_by_metrics(edge: &Edge) -> u64 {
    let text = get(edge.admin, "/metrics").text();
    let samples = text.lines().filter(|line| line.starts_with("herd_requests_total{"));
    samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

fn documented_queries_run(edge: &Edge, seen: &Seen) {
    let file = edge.data_dir().join("latency.db");
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let slowest: Vec<(String, String, f64, i64)> =
        rows(&database, SLOWEST, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    assert_eq!(slowest.len(), 1, "{slowest:?}");
    let (model, node, seconds, count) = &slowest[0];
    assert_eq!((model.as_str(), node.as_str(), *count), ("tiny:latest", "a", 19));
    assert!(*seconds > 0.0);
    let ttft: Vec<(String, String, f64)> = rows(&database, TTFT, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let models: Vec<_> = ttft.iter().map(|(node, model, _)| (node.as_str(), model.as_str())).collect();
    assert_eq!(models, [("a", "tiny:latest"), ("a", "vec-embed:latest")]);
    let loads: Vec<(String, i64)> = rows(&database, HOT_AND_COLD, |row| Ok((row.get(0)?, row.get(3)?)));
    assert_eq!(loads.iter().map(|(_, count)| count).sum::<i64>(), i64::try_from(seen["completed"]).unwrap());
}

fn rows<T>(database: &Connection, sql: &str, read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
    let mut statement = database.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| read(row)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn what_cannot_be_answered_says_why_and_lists_come_as_csv() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    assert_eq!(ask(&edge, "X-Request-Id: =1+1\r\n", CHAT), 200);
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

#[test]
fn tokens_of_an_answer_that_no_client_got_are_not_in_its_record() {
    let edge = Edge::launch(&Start { config: "hold: {max_ms: 0}\n", ..Start::default() });
    let asked = Arc::new(AtomicU32::new(0));
    let node = |id| {
        let asked = Arc::clone(&asked);
        let node = Scripted::start(move |head| {
            if head.starts_with("GET /api/version ") {
                return answer("200 OK", "Content-Type: application/json\r\n", r#"{"version":"0.33.0"}"#);
            }
            match asked.fetch_add(1, Relaxed) {
                0 => {
                    let whole = r#"{"message":{"content":"a"},"done":true,"prompt_eval_count":11,"eval_count":7}"#;
                    let chunk = format!("{:x}\r\n{whole}\r\n", whole.len());
                    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}no chunk\r\n")
                }
                _ => "no answer\r\n\r\n".into(),
            }
        });
        node.join(&edge, id);
        node
    };
    let _nodes = [node("a"), node("b")];
    edge.wait_for(&["a", "b"]);
    assert_eq!(ask(&edge, "X-Request-Id: torn\r\n", &CHAT.replace("tiny", "llama3.2:3b")), 502);
    let trace = || edge.admin("GET", "/dashboard/api/traces/torn", "")["trace"].clone();
    eventually("it is kept", || trace()["status"].is_string());
    let trace = trace();
    assert_eq!((asked.load(Relaxed), &trace["status"]), (2, &"failed".into()), "{trace}");
    let tokens = (&trace["prompt_tokens"], &trace["completion_tokens"]);
    assert_eq!((tokens, &trace["response_bytes"]), ((&Value::Null, &Value::Null), &0.into()), "{trace}");
}
