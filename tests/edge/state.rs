//! The edge's state through moves, and clients that take nothing.

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use herd_harness::{Edge, Sim, connect, eventually, post, read_answer};
use serde_json::json;

use crate::scripted::{Scripted, answer};

const SHORT: &[u8] =
    br#"{"model":"tiny","stream":false,"options":{"num_predict":1},"messages":[{"role":"user","content":"hi"}]}"#;

/// A laptop sleeps until its probe fails, and wakes with another address.
#[test]
fn a_node_that_moves_while_its_probe_fails_serves_at_once() {
    let edge = Edge::start(&[("FLEET_PROBE_INTERVAL_MS", "100"), ("FLEET_DEGRADED_AFTER_MS", "1000")]);
    let mut sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    eventually("it serves", || edge.post("/api/chat", SHORT).status == 200);
    sim.process.kill();
    let probe_fails = || edge.node("a")["probe_ok"] == false;
    eventually("its probe fails", probe_fails);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    let moved = || edge.node("a").to_string().contains(&format!(":{}", sim.address.port()));
    eventually("it is known at its new address", moved);
    for _ in 0..3 {
        let answer = edge.post("/api/chat", SHORT);
        assert_eq!((answer.status, answer.header("X-Fleet-Node")), (200, Some("a")));
    }
    assert!(!probe_fails(), "{}", edge.node("a"));
    let health = edge.admin("GET", "/dashboard/api/health", "").to_string();
    assert!(!health.contains("ollama_local_only"), "{health}");
}

/// Asks again and again and reads nothing.
#[track_caller]
fn is_ended(address: SocketAddr, path: &str) {
    let mut client = connect(address);
    client.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(64);
    eventually("the connection ends", || match client.write(ask.as_bytes()) {
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted),
    });
}

#[test]
fn a_client_that_never_reads_is_given_up() {
    let edge = Edge::start(&[("FLEET_LIMITS_WRITE_MS", "500")]);
    is_ended(edge.admin, "/metrics");
    let mut client = connect(edge.address);
    client.write_all(&post("/api/version", b"")).unwrap();
    assert_ne!(read_answer(&mut client).status, 0, "and others are served");
}

#[test]
fn a_client_that_reads_nothing_of_its_answer_keeps_no_slot() {
    let edge = Edge::start(&[("FLEET_LIMITS_WRITE_MS", "500")]);
    // More than all buffers between the node and the client hold.
    let line = format!("{}\n", json!({"model": "tiny", "message": {"content": "x".repeat(1 << 20)}, "done": false}));
    let lines = line.repeat(64);
    let node = Scripted::start(move |head| {
        if head.starts_with("POST ") {
            return answer("200 OK", "Content-Type: application/x-ndjson\r\n", &lines);
        }
        answer("200 OK", "Content-Type: application/json\r\n", r#"{"version":"0.33.0"}"#)
    });
    node.join(&edge, "a");
    edge.wait_for(&["a"]);
    let mut client = connect(edge.address);
    client.write_all(&post("/api/chat", br#"{"model":"llama3.2:3b","messages":[]}"#)).unwrap();
    eventually("it is being answered", || edge.in_flight() == 1);
    eventually("it is given up", || edge.in_flight() == 0);
    drop(client);
}

/// How long the edge's process is stopped: longer than each of [`LIMITS`].
const STOP: Duration = Duration::from_secs(6);
const LIMITS: [(&str, &str); 6] = [
    ("FLEET_REAPER_NO_PROGRESS_MS", "4500"),
    ("FLEET_REAPER_DEAD_NODE_MS", "3000"),
    ("FLEET_QUEUE_MAX_WAIT_MS", "5500"),
    ("FLEET_DEGRADED_AFTER_MS", "3000"),
    ("FLEET_STALE_AFTER_MS", "4000"),
    ("FLEET_OFFLINE_AFTER_MS", "5000"),
];
/// Ten tokens a second: it is being written from before the stop until after it.
const LONG: &[u8] =
    br#"{"model":"tiny","stream":true,"options":{"num_predict":80},"messages":[{"role":"user","content":"hi"}]}"#;

/// What the node sends meanwhile lies in the sockets, and its heartbeats with it: the edge reads before it judges.
#[test]
fn a_process_that_was_stopped_cuts_no_stream_and_loses_no_node() {
    let edge = Edge::start(&LIMITS);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--num-parallel", "4", "--decode-tps", "10"]);
    edge.wait_for(&["a"]);
    thread::scope(|scope| {
        let streams = [(); 4].map(|()| scope.spawn(|| edge.post("/api/chat", LONG)));
        eventually("all are being answered", || sim.stats()["in_flight"] == 4);
        let waiting = scope.spawn(|| edge.post("/api/chat", SHORT));
        eventually("one more waits for a slot", || edge.waiting().len() == 1);
        edge.process.signal("STOP");
        let stopped_at = Instant::now();
        eventually("every limit is passed", || stopped_at.elapsed() >= STOP);
        edge.process.signal("CONT");
        for stream in streams {
            let answer = stream.join().unwrap();
            assert_eq!((answer.status, answer.whole), (200, true), "{answer:?}");
            assert!(answer.text().contains("\"done\":true"), "{answer:?}");
        }
        let answer = waiting.join().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    });
    assert_eq!((sim.stats()["cancelled"].as_u64(), edge.in_flight()), (Some(0), 0));
    eventually("its node is well", || edge.node("a")["status"] == "online");
}
