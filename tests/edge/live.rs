//! Requests under way, seen and cancelled by an operator.

use std::io::Write as _;

use herd_harness::{Edge, Sim, connect, eventually, post_with, read_answer};

const LONG: &[u8] = br#"{"model":"tiny","options":{"num_predict":4000},"messages":[{"role":"user","content":"hi"}]}"#;

fn phases(edge: &Edge) -> Vec<(String, String)> {
    let listed = edge.admin("GET", "/dashboard/api/requests", "");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let requests = listed["requests"].as_array().cloned().unwrap_or_default();
    requests.iter().map(|request| (text(&request["request_id"]), text(&request["phase"]))).collect()
}

#[test]
fn an_operator_sees_requests_and_ends_them_wherever_they_are() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "20"]);
    edge.wait_for(&["a"]);
    let ask = |id: &str| {
        let mut client = connect(edge.address);
        client.write_all(&post_with("/api/chat", &format!("X-Request-Id: {id}\r\n"), LONG)).unwrap();
        client
    };
    let mut running = ask("running");
    eventually("it answers", || phases(&edge) == [("running".into(), "decode".into())]);
    let mut waiting = ask("waiting");
    eventually("the second waits", || phases(&edge).get(1) == Some(&("waiting".into(), "queued".into())));
    let cancel = |id: &str| edge.admin("DELETE", &format!("/dashboard/api/requests/{id}"), "")["cancelled"].as_u64();
    assert_eq!(cancel("waiting"), Some(1));
    let answer = read_answer(&mut waiting);
    assert_eq!((answer.status, answer.json()["error"].as_str().unwrap().contains("cancelled")), (503, true));
    assert_eq!(cancel("running"), Some(1));
    let answer = read_answer(&mut running);
    let last = answer.text().lines().last().map(str::to_owned).unwrap();
    assert!(answer.whole && last.starts_with("{\"error\":") && last.contains("cancelled"), "{last}");
    eventually("the node is let go", || sim.stats()["in_flight"] == 0 && edge.in_flight() == 0);
    assert!(phases(&edge).is_empty());
    assert_eq!(cancel("running"), None, "it is no more");
}
