//! Requests under way, seen and cancelled by an operator.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use herd_harness::{Edge, Sim, connect, eventually, post_with, read_answer, send};
use serde_json::Value;

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

#[test]
fn a_name_that_two_clients_give_is_one_requests_alone() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "20", "--num-parallel", "2"]);
    edge.wait_for(&["a"]);
    let ask = || {
        let mut client = connect(edge.address);
        client.write_all(&post_with("/api/chat", "X-Request-Id: mine\r\n", LONG)).unwrap();
        client
    };
    let mut first = ask();
    eventually("it answers", || phases(&edge) == [("mine".into(), "decode".into())]);
    let _second = ask();
    let other = || phases(&edge).iter().map(|(id, _)| id.clone()).find(|id| id.starts_with("mine-"));
    eventually("the other has a name of its own", || other().is_some());
    let cancelled = edge.admin("DELETE", "/dashboard/api/requests/mine", "")["cancelled"].as_u64();
    assert_eq!(cancelled, Some(1));
    assert_eq!(read_answer(&mut first).header("X-Request-Id"), Some("mine"));
    assert!(other().is_some(), "it goes on");
}

/// The next event of that name, which comes before a silence of 15 s.
fn event(stream: &mut BufReader<TcpStream>, name: &str) -> Value {
    let wanted = format!("event: {name}\n");
    let mut line = String::new();
    while line != wanted {
        line.clear();
        let read = stream.read_line(&mut line).unwrap();
        assert!(read > 0 && line != ": keep-alive\n", "the stream ended or fell silent before {name}");
    }
    line.clear();
    stream.read_line(&mut line).unwrap();
    serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap()
}

#[test]
fn who_watches_is_told_of_requests_as_they_begin_and_end() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "20"]);
    edge.wait_for(&["a"]);
    let mut watcher = connect(edge.admin);
    watcher.write_all(b"GET /dashboard/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut watcher = BufReader::new(watcher);
    // Its own, and the one from which on changes are told.
    for _ in 0..2 {
        assert_eq!(event(&mut watcher, "snapshot")["status"]["nodes"][0]["node_id"], "a");
    }

    let mut running = connect(edge.address);
    running.write_all(&post_with("/api/chat", "X-Request-Id: begun\r\n", LONG)).unwrap();
    assert_eq!(event(&mut watcher, "requests")["added"][0]["request_id"], "begun");
    let short = br#"{"model":"nobody-has-it","messages":[]}"#;
    assert_eq!(send(edge.address, &post_with("/api/chat", "X-Request-Id: refused\r\n", short)).status, 404);
    let ended = event(&mut watcher, "trace");
    assert_eq!((&ended["request_id"], &ended["status"]), (&"refused".into(), &"rejected".into()));
    drop(running);
    let ended = event(&mut watcher, "trace");
    assert_eq!((&ended["request_id"], &ended["status"]), (&"begun".into(), &"client_disconnected".into()));
}
