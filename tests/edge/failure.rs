//! Who leaves, what breaks, and what is left behind.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use herd_harness::{Edge, Sim, bin, connect, eventually, post, post_with, read_answer, send};

const LONG: &[u8] = br#"{"model":"tiny","options":{"num_predict":4000},"messages":[{"role":"user","content":"hi"}]}"#;
const JSON: &str = "Content-Type: application/json\r\n";
const SHORT: &[u8] =
    br#"{"model":"tiny","stream":false,"options":{"num_predict":1},"messages":[{"role":"user","content":"hi"}]}"#;

#[test]
fn a_client_that_leaves_cancels_its_request_at_the_node() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "20"]);
    edge.wait_for(&["a"]);
    for (fault, cancelled) in [("hang_before_first_byte", 1), ("none", 2)] {
        sim.fault(fault);
        let mut client = connect(edge.address);
        client.write_all(&post("/api/chat", LONG)).unwrap();
        if fault == "none" {
            client.read_exact(&mut [0; 64]).unwrap();
        }
        eventually("the node works", || sim.stats()["in_flight"] == 1 && edge.in_flight() == 1);
        drop(client);
        eventually("the node is released", || sim.stats()["in_flight"] == 0 && edge.in_flight() == 0);
        assert_eq!(sim.stats()["cancelled"], cancelled);
    }
}

#[test]
fn a_node_that_dies_is_noticed_and_the_other_serves() {
    let edge = Edge::start(&[]);
    let mut dying = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    let _other = Sim::start(Some(&edge), "b", &[]);
    edge.wait_for(&["a", "b"]);
    dying.process.kill();
    for _ in 0..5 {
        let answer = edge.post("/api/chat", SHORT);
        assert_eq!((answer.status, answer.header("X-Fleet-Node")), (200, Some("b")));
    }
    let suspected = || {
        let told = edge.admin("POST", "/fleet/explain", r#"{"model":"tiny"}"#);
        // Which of both it is depends on whether the first probe came in time.
        let code = told["nodes"][1]["reason"]["code"].as_str().unwrap_or_default();
        told["nodes"][1]["node_id"] == "a" && matches!(code, "probe_failed" | "unreached")
    };
    eventually("the probe fails", suspected);
    eventually("the slots are back", || edge.in_flight() == 0);
}

#[test]
fn the_last_nodes_own_error_reaches_the_client() {
    let edge = Edge::start(&[("FLEET_HOLD_MAX_MS", "0")]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    sim.fault("error_500");
    let answer = edge.post("/api/chat", SHORT);
    assert_eq!((answer.status, answer.header("X-Fleet-Attempts")), (500, Some("1")));
    assert!(answer.json()["error"].is_string());
    sim.fault("refuse");
    let answer = edge.post("/api/chat", SHORT);
    assert_eq!((answer.status, answer.header("Connection")), (502, Some("close")));
}

#[test]
fn a_broken_stream_ends_in_an_error() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "200"]);
    edge.wait_for(&["a"]);
    sim.fault("cut_mid_stream");
    let answer = edge.post("/api/chat", LONG);
    assert_eq!(answer.status, 200);
    let last = answer.text().lines().last().map(str::to_owned).unwrap_or_default();
    assert!(answer.whole && last.starts_with("{\"error\":") && !answer.text().contains("\"done\":true"), "{last}");
    eventually("nothing is left", || edge.in_flight() == 0);
}

#[test]
fn a_stopping_edge_finishes_what_runs_and_leaves() {
    let mut edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "50"]);
    edge.wait_for(&["a"]);
    let mut running = connect(edge.address);
    let body = br#"{"model":"tiny","options":{"num_predict":300},"messages":[{"role":"user","content":"hi"}]}"#;
    running.write_all(&post("/api/chat", body)).unwrap();
    eventually("it runs", || edge.in_flight() == 1);
    edge.process.terminate();
    // Asked before the signal has arrived, a request would wait for the node's only slot.
    eventually("the edge drains", || edge.admin("GET", "/readyz", "")["ready"] == false);
    let turned_away = edge.post("/api/chat", SHORT);
    assert_eq!((turned_away.status, turned_away.header("Retry-After")), (503, Some("1")));
    let answer = read_answer(&mut running);
    assert!(answer.whole && answer.text().contains("\"done\":true"));
    assert_eq!(edge.process.wait(), Some(0));
}

#[test]
fn the_recorded_agent_of_the_python_project_brings_a_node_in() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(None, "unheard", &["--model", "llama3.2:3b=0.1", "--hot", "llama3.2:3b"]);
    let recorded = include_str!("../golden/heartbeat-ollama-herd-0.11.4.json");
    let heartbeat = recorded.replace("127.0.0.1:21434", &sim.address.to_string());
    let answer = send(edge.address, &post_with("/heartbeat", JSON, heartbeat.as_bytes()));
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("ok")), "{answer:?}");
    eventually("the edge has seen its Ollama", || edge.node("node-a")["status"] == "online");
    let answer = edge.post(
        "/v1/chat/completions",
        br#"{"model":"llama3.2:3b","messages":[{"role":"user","content":"x"}],"max_tokens":2}"#,
    );
    assert_eq!((answer.status, answer.header("X-Fleet-Node")), (200, Some("node-a")), "{answer:?}");
}

#[test]
fn a_node_that_refuses_connections_is_named_within_seconds() {
    let edge = Edge::start(&[("FLEET_HOLD_MAX_MS", "30000")]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    // Its agent would tell that its Ollama is down.
    sim.pause_agent(true);
    sim.fault("refuse");
    let began = Instant::now();
    let answer = edge.post("/api/chat", br#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#);
    let told = answer.text();
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(told.contains("refused the connection") && told.contains(&sim.address.to_string()), "{told}");
    // Within three seconds, on a machine that has nothing else to do.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn heartbeats_need_the_token_where_there_is_one() {
    let edge = Edge::start(&[("FLEET_JOIN_TOKEN", "secret")]);
    let recorded = include_str!("../golden/heartbeat-ollama-herd-0.11.4.json");
    assert_eq!(send(edge.address, &post_with("/heartbeat", JSON, recorded.as_bytes())).status, 401);
}

#[test]
fn a_wrong_start_is_explained() {
    let run = |args: &[&str]| {
        let output = Command::new(bin("herd")).args(args).env("FLEET_AGENT_EMBEDDED", "off").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, told) = run(&["--check-config", "--listen", "nowhere"]);
    assert_eq!(code, Some(64));
    assert!(told.contains("listen: \"nowhere\" is not allowed"), "{told}");
    assert_eq!(run(&["--no-such-flag"]).0, Some(64));
    let edge = Edge::start(&[]);
    let taken = edge.address.to_string();
    let (code, told) = run(&["--listen", &taken, "--admin-listen", "127.0.0.1:0", "--no-mdns"]);
    assert_eq!(code, Some(1));
    assert!(told.contains(&format!("listen: cannot listen on {taken}")), "{told}");
}

#[test]
fn a_request_that_every_node_refuses_tells_against_none_of_them() {
    let edge = Edge::start(&[]);
    let sims = ["a", "b"].map(|id| Sim::start(Some(&edge), id, &["--hot", "tiny"]));
    edge.wait_for(&["a", "b"]);
    for sim in &sims {
        sim.fault("error_500");
    }
    for _ in 0..4 {
        assert_eq!(edge.post("/api/chat", SHORT).status, 500);
    }
    let p75 = |id| edge.node(id)["models"][0]["p75_ms"].clone();
    let ejected = |id| edge.node(id)["ejected_for_ms"].clone();
    assert_eq!((ejected("a"), ejected("b"), p75("a"), p75("b")), (0.into(), 0.into(), Value::Null, Value::Null));
    sims[1].fault("none");
    let attempts = || edge.post("/api/chat", SHORT).header("X-Fleet-Attempts").map(str::to_owned);
    eventually("the one that alone fails was asked", || attempts().as_deref() == Some("2"));
    for _ in 0..4 {
        assert_eq!(attempts().as_deref(), Some("1"), "it is avoided from then on");
    }
}
