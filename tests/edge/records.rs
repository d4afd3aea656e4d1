//! What is kept of requests: every surface counts the same ones as their client did, and the queries that the product
//! documents run on the database.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use herd_harness::{Edge, Sim, connect, eventually, get, post_with, read_answer, send};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

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
const LONG: &[u8] = br#"{"model":"tiny","options":{"num_predict":4000},"messages":[{"role":"user","content":"hi"}]}"#;
const EMBED: &[u8] = br#"{"model":"vec-embed","input":"hi"}"#;

/// What a client saw: requests by how they ended.
type Seen = BTreeMap<&'static str, u64>;

fn ask(edge: &Edge, headers: &str, body: &str) -> u16 {
    send(edge.address, &post_with("/api/chat", headers, body.as_bytes())).status
}

/// A dozen requests and more, of several kinds and outcomes.
fn drive(edge: &Edge, sim: &Sim) -> Seen {
    let mut seen = Seen::new();
    let mut saw = |ending, count| *seen.entry(ending).or_default() += count;
    for n in 0..12 {
        let headers =
            if n % 2 == 0 { "User-Agent: aider/0.1\r\nX-Herd-Tags: ci,night\r\n" } else { "User-Agent: curl/8\r\n" };
        assert_eq!(ask(edge, headers, CHAT), 200);
        saw("completed", 1);
    }
    for _ in 0..2 {
        assert_eq!(edge.post("/api/embed", EMBED).status, 200);
        saw("completed", 1);
    }
    assert_eq!(ask(edge, "", "{"), 400);
    saw("rejected", 1);
    assert_eq!(ask(edge, "", &CHAT.replace("tiny", "nope")), 404);
    saw("failed", 1);
    let long = |id: &str| {
        let mut client = connect(edge.address);
        client.write_all(&post_with("/api/chat", &format!("X-Request-Id: {id}\r\n"), LONG)).unwrap();
        client
    };
    let mut leaves = long("leaves");
    leaves.read_exact(&mut [0; 400]).unwrap();
    drop(leaves);
    eventually("the node is let go", || sim.stats()["in_flight"] == 0);
    saw("client_disconnected", 1);
    let mut ended = long("ended");
    ended.read_exact(&mut [0; 10]).unwrap();
    assert_eq!(edge.admin("DELETE", "/dashboard/api/requests/ended", "")["cancelled"], 1);
    assert!(read_answer(&mut ended).whole);
    saw("cancelled", 1);
    seen
}

fn sum(rows: &Value, field: &str) -> u64 {
    rows.as_array().unwrap().iter().map(|row| row[field].as_u64().unwrap()).sum()
}

#[test]
fn every_surface_counts_what_the_client_counted() {
    let edge = Edge::start(&[("FLEET_AUTO_PULL", "false")]);
    let args = ["--model", "vec-embed=0.1", "--hot", "tiny", "--hot", "vec-embed", "--decode-tps", "50"];
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
        [6, 6]
    );
    assert_eq!(sum(&api("apps/daily?range=1h")["days"], "requests"), all);
    assert_eq!(sum(&api("trends?range=1h")["points"], "requests"), all);
    assert_eq!(sum(&api("context-usage?range=1h")["rows"], "requests"), all);
    let traces = api("traces?limit=1000");
    let traces = traces["traces"].as_array().unwrap();
    for (ending, count) in &seen {
        assert_eq!(traces.iter().filter(|trace| trace["status"] == *ending).count() as u64, *count, "{ending}");
    }
    assert_eq!(counted_by_metrics(&edge), all);
    let whole = api("traces/leaves");
    assert_eq!((&whole["attempts"][0]["node_id"], &whole["candidates"][0]["node_id"]), (&"a".into(), &"a".into()));
    let csv = get(edge.admin, "/dashboard/api/traces?format=csv").text();
    assert_eq!(csv.lines().count() as u64, all + 1);

    documented_queries_run(&edge, &seen);
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
    assert_eq!((model.as_str(), node.as_str(), *count), ("tiny:latest", "a", 12));
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
