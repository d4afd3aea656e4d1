//! Which node serves.

use herd_harness::{Edge, Sim, connect, eventually, post, read_answer};
use std::io::Write as _;

const CHAT: &[u8] =
    br#"{"model":"tiny","stream":false,"options":{"num_predict":1},"messages":[{"role":"user","content":"hi"}]}"#;

fn node_of(edge: &Edge) -> String {
    let answer = edge.post("/api/chat", CHAT);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("X-Fleet-Node").unwrap_or_default().to_owned()
}

#[test]
fn the_node_with_the_model_in_memory_serves() {
    let edge = Edge::start(&[]);
    let _cold = Sim::start(Some(&edge), "a-cold", &[]);
    let _hot = Sim::start(Some(&edge), "b-hot", &["--hot", "tiny"]);
    edge.wait_for(&["a-cold", "b-hot"]);
    assert_eq!(node_of(&edge), "b-hot");
}

#[test]
fn a_busy_node_is_avoided_and_equals_take_turns() {
    let edge = Edge::start(&[]);
    let _a = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "20"]);
    let _b = Sim::start(Some(&edge), "b", &["--hot", "tiny", "--decode-tps", "20"]);
    edge.wait_for(&["a", "b"]);
    let long = br#"{"model":"tiny","options":{"num_predict":4000},"messages":[{"role":"user","content":"hi"}]}"#;
    let mut streams: Vec<_> = (0..2).map(|_| connect(edge.address)).collect();
    for (index, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&post("/api/chat", long)).unwrap();
        eventually("the stream runs", || edge.in_flight() == index as u64 + 1);
    }
    assert_eq!((edge.node("a")["in_flight"].as_u64(), edge.node("b")["in_flight"].as_u64()), (Some(1), Some(1)));
    drop(streams);
    eventually("both are given back", || edge.in_flight() == 0);
}

#[test]
fn a_drained_node_takes_no_new_requests_and_explain_says_why() {
    let edge = Edge::start(&[]);
    let _a = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    let _b = Sim::start(Some(&edge), "b", &[]);
    edge.wait_for(&["a", "b"]);
    assert_eq!(node_of(&edge), "a");
    drop(edge.admin("POST", "/fleet/nodes/a/drain", ""));
    assert_eq!(node_of(&edge), "b");
    let told = edge.admin("POST", "/fleet/explain", r#"{"model":"tiny"}"#);
    assert_eq!(told["winner"], "b");
    assert_eq!(told["nodes"][0]["signals"].as_object().unwrap().len(), 7);
    assert_eq!(told["nodes"][1]["reason"]["code"], "draining");
    drop(edge.admin("POST", "/fleet/nodes/a/undrain", ""));
    assert_eq!(edge.admin("POST", "/fleet/explain", r#"{"model":"tiny"}"#)["nodes"].as_array().unwrap().len(), 2);
}

#[test]
fn a_clients_context_does_not_reload_the_model() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    for num_ctx in [512, 1024, 2048, 4096] {
        let body = format!(
            r#"{{"model":"tiny","stream":false,"prompt":"x","options":{{"num_predict":1,"num_ctx":{num_ctx}}}}}"#
        );
        let mut stream = connect(edge.address);
        stream.write_all(&post("/api/generate", body.as_bytes())).unwrap();
        let answer = read_answer(&mut stream);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("X-Fleet-Context"), Some(if num_ctx == 4096 { "kept" } else { "raised" }));
    }
    assert_eq!(sim.stats()["reloads"], 0);
    let passing = Edge::start(&[("FLEET_CONTEXT_PROTECTION", "passthrough")]);
    let sim = Sim::start(Some(&passing), "a", &["--hot", "tiny"]);
    passing.wait_for(&["a"]);
    let smaller = br#"{"model":"tiny","stream":false,"prompt":"x","options":{"num_predict":1,"num_ctx":512}}"#;
    assert_eq!(passing.post("/api/generate", smaller).header("X-Fleet-Context"), Some("reload"));
    assert_eq!(sim.stats()["reloads"], 1);
}
