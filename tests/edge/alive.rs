//! Evidence of life besides the bytes of an answer: what the agent sees the runner use of its machine.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use herd_harness::{Edge, eventually, post_with, read_answer, send};
use serde_json::json;

use crate::scripted::{Scripted, answer};

const CHAT: &[u8] = br#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#;

/// Tells the edge of the node `id`, whose runner has been found at work `steps` times.
fn beat(edge: &Edge, node: &Scripted, id: &str, steps: u64) {
    static SEQ: AtomicU64 = AtomicU64::new(1);
    let ollama = json!({
        "address": node.address.to_string(),
        "version": "0.33.0",
        "env": {"num_parallel": 1},
        "loaded": [{"name": "tiny:latest", "context_length": 4096}],
        "available": [{"name": "tiny:latest", "size_bytes": 1 << 20}],
        "activity": [{"model": "tiny:latest", "steps": steps, "conclusive": true}],
    });
    let report = json!({"boot": id, "seq": SEQ.fetch_add(1, Relaxed), "interval_ms": 500, "ollama": ollama});
    let heartbeat = json!({"node_id": id, "herd": report}).to_string();
    let told = send(edge.address, &post_with("/heartbeat", "Content-Type: application/json\r\n", heartbeat.as_bytes()));
    assert_eq!(told.status, 200, "{told:?}");
}

/// A node that says nothing on a request, ever.
fn silent() -> Scripted {
    Scripted::start(|head| {
        while head.starts_with("POST ") {
            std::thread::park();
        }
        answer("200 OK", "Content-Type: application/json\r\n", r#"{"version":"0.33.0"}"#)
    })
}

#[test]
fn a_silent_node_is_waited_for_while_its_runner_works_and_not_when_that_has_stopped() {
    // Without the evidence it would be given up after this: its model is in memory, and the prompt is short.
    let edge = Edge::start_with("reaper: {first_byte_floor_ms: 2500}\n", &[]);
    let (silent, other) = (silent(), Scripted::ollama());
    beat(&edge, &silent, "silent", 1);
    edge.wait_for(&["silent"]);
    let mut client = herd_harness::connect(edge.address);
    std::io::Write::write_all(&mut client, &herd_harness::post("/api/chat", CHAT)).unwrap();
    eventually("it is asked", || edge.in_flight() == 1);
    let mut steps = 1;
    let began = Instant::now();
    eventually("its runner has worked for a while", || {
        steps += 1;
        beat(&edge, &silent, "silent", steps);
        beat(&edge, &other, "other", 1);
        began.elapsed() > Duration::from_secs(7)
    });
    assert!(other.take_heads().is_empty(), "nobody else is asked meanwhile");
    let answered = std::thread::spawn(move || read_answer(&mut client));
    let stopped = Instant::now();
    eventually("another is asked", || {
        beat(&edge, &silent, "silent", steps);
        beat(&edge, &other, "other", 1);
        answered.is_finished()
    });
    let answer = answered.join().unwrap();
    assert_eq!((answer.status, answer.header("X-Fleet-Node")), (200, Some("other")));
    assert!(stopped.elapsed() < Duration::from_secs(20), "{:?}", stopped.elapsed());
}
