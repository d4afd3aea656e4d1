//! Who waits at the edge, in which order, how long, and what those who look are told.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use herd_harness::{Edge, Sim, connect, connect_from, eventually, post, post_with, read_answer, send};

const LONG: &[u8] = br#"{"model":"tiny","options":{"num_predict":4000},"messages":[{"role":"user","content":"hi"}]}"#;
const SHORT: &[u8] =
    br#"{"model":"tiny","stream":false,"options":{"num_predict":1},"messages":[{"role":"user","content":"hi"}]}"#;

/// An edge whose only node writes slowly, in one slot.
fn one_slot(config: &str) -> (Edge, Sim) {
    let edge = Edge::start_with(config, &[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "20"]);
    edge.wait_for(&["a"]);
    (edge, sim)
}

/// A request that keeps a slot until it is dropped.
fn occupy(edge: &Edge) -> TcpStream {
    let before = edge.in_flight();
    let mut client = connect(edge.address);
    client.write_all(&post("/api/chat", LONG)).unwrap();
    // Its node writes.
    client.read_exact(&mut [0; 64]).unwrap();
    assert_eq!(edge.in_flight(), before + 1);
    client
}

/// A client whose request `id` waits at the edge.
fn wait_as(edge: &Edge, id: &str, headers: &str, body: &[u8]) -> TcpStream {
    let before = edge.waiting().len();
    let mut client = connect(edge.address);
    client.write_all(&post_with("/api/chat", &format!("X-Request-Id: {id}\r\n{headers}"), body)).unwrap();
    eventually("it waits", || edge.waiting().len() == before + 1);
    client
}

/// The ids of the chats that the node was asked for, but for those that `occupy` sends.
fn served(sim: &Sim) -> Vec<String> {
    let stats = sim.stats();
    let chats = stats["recent"].as_array().unwrap().iter().filter(|seen| seen["path"] == "/api/chat").skip(1);
    chats.map(|seen| seen["headers"]["x-request-id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn interactive_requests_go_before_batch_and_both_are_shown() {
    let (edge, sim) = one_slot("queue: {max_waiting: 8}");
    let running = occupy(&edge);
    let batch = "X-Fleet-Priority: batch\r\n";
    let mut clients: Vec<_> = [("b1", batch), ("b2", batch), ("i1", ""), ("i2", "X-Fleet-Priority: interactive\r\n")]
        .into_iter()
        .map(|(id, priority)| wait_as(&edge, id, priority, SHORT))
        .collect();

    let told = edge.waiting();
    assert_eq!(told[0]["reason"], "busy");
    // Those behind others are not looked at one by one.
    assert!(told.iter().all(|one| one["reason"] == "busy" || one["reason"] == "queue"), "{told:?}");
    let queue = edge.admin("GET", "/fleet/queue", "");
    let shown = queue["requests"].as_array().unwrap().iter();
    let shown: Vec<_> =
        shown.map(|one| (one["request_id"].as_str().unwrap(), one["class"].as_str().unwrap())).collect();
    assert_eq!(shown, [("b1", "batch"), ("b2", "batch"), ("i1", "interactive"), ("i2", "interactive")]);
    assert_eq!((&queue["waiting"], &queue["requests"][0]["model"]), (&4.into(), &"tiny:latest".into()));
    assert_eq!(edge.admin("GET", "/fleet/status", "")["fleet"]["requests_waiting"], 4);
    let runner = &queue["runners"][0];
    assert_eq!((&runner["node_id"], &runner["in_flight"], &runner["slots"]), (&"a".into(), &1.into(), &1.into()));
    let limits = edge.admin("GET", "/fleet/limits", "");
    let bound = limits["limits"].as_array().unwrap().iter().find(|limit| limit["name"] == "queue.max_waiting").unwrap();
    assert_eq!((bound["limit"].as_f64(), bound["used"].as_f64()), (Some(8.0), Some(4.0)));

    drop(running);
    for client in &mut clients {
        let answer = read_answer(client);
        let waited_ms: u64 = answer.header("X-Fleet-Queue-Ms").unwrap().parse().unwrap();
        assert!(answer.status == 200 && waited_ms > 0, "{answer:?}");
    }
    assert_eq!(served(&sim), ["i1", "i2", "b1", "b2"]);
    eventually("nobody waits", || edge.waiting().is_empty() && edge.in_flight() == 0);
}

#[test]
fn one_application_cannot_keep_another_waiting() {
    let (edge, sim) = one_slot("");
    let running = occupy(&edge);
    let body = |app: &str| {
        format!(
            r#"{{"model":"tiny","stream":false,"metadata":{{"tags":["{app}"]}},"options":{{"num_predict":1}},"messages":[{{"role":"user","content":"hi"}}]}}"#
        )
    };
    let mut clients = Vec::new();
    for (id, app) in [("f1", "flood"), ("f2", "flood"), ("f3", "flood"), ("f4", "flood"), ("s1", "few"), ("s2", "few")]
    {
        clients.push(wait_as(&edge, id, "", body(app).as_bytes()));
    }
    drop(running);
    for client in &mut clients {
        assert_eq!(read_answer(client).status, 200);
    }
    assert_eq!(served(&sim), ["f1", "s1", "f2", "s2", "f3", "f4"]);
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let (edge, _sim) = one_slot("queue: {max_waiting: 1}");
    let running = occupy(&edge);
    let mut waiting = wait_as(&edge, "w", "", SHORT);
    let refused = edge.post("/api/chat", SHORT);
    let seconds = refused.header("Retry-After").and_then(|text| text.parse::<u64>().ok());
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(seconds.is_some_and(|seconds| seconds >= 1), "{refused:?}");
    assert!(refused.json()["error"].as_str().unwrap().contains("queue.max_waiting"), "{refused:?}");
    drop(running);
    assert_eq!(read_answer(&mut waiting).status, 200);
}

#[test]
fn a_client_that_fills_the_queue_under_many_tags_makes_room_for_others() {
    let (edge, sim) = one_slot("queue: {max_waiting: 8}");
    let running = occupy(&edge);
    let tagged = |place: usize| post_with("/api/chat", &format!("X-Herd-Tags: app-{place}\r\n"), SHORT);
    let mut greedy: Vec<_> = (0..8)
        .map(|place| {
            let mut client = connect_from("127.0.0.2", edge.address);
            client.write_all(&tagged(place)).unwrap();
            eventually("it waits", || edge.waiting().len() == place + 1);
            client
        })
        .collect();
    let mut more = connect_from("127.0.0.2", edge.address);
    more.write_all(&tagged(9)).unwrap();
    assert_eq!(read_answer(&mut more).status, 503, "one more of its own finds no room");
    let mut other = connect_from("127.0.0.3", edge.address);
    other.write_all(&post_with("/api/chat", "X-Request-Id: other\r\n", SHORT)).unwrap();
    // The newest of the greedy client's makes room.
    assert_eq!(read_answer(&mut greedy[7]).status, 503);
    eventually("the other waits", || edge.waiting().iter().any(|one| one["request_id"] == "other"));
    drop(running);
    assert_eq!(read_answer(&mut other).status, 200);
    assert!(served(&sim).iter().take(2).any(|id| id == "other"), "and in its turn, not behind all eight");
    greedy.truncate(7);
    assert!(greedy.iter_mut().all(|client| read_answer(client).status == 200));
}

#[test]
fn who_waits_too_long_is_told_so() {
    let (edge, sim) = one_slot("queue: {max_wait_ms: 1000}");
    let _running = occupy(&edge);
    for path in ["/api/chat", "/v1/messages"] {
        let began = Instant::now();
        let body = br#"{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}"#;
        let late = edge.post(path, body);
        assert_eq!(late.status, 503, "{late:?}");
        assert!(late.header("Retry-After").is_some() && late.text().contains("queue.max_wait_ms"), "{late:?}");
        assert!(began.elapsed().as_millis() >= 1000);
    }
    eventually("nobody waits", || edge.waiting().is_empty());
    assert!(served(&sim).is_empty());
}

#[test]
fn a_client_that_leaves_waits_no_longer() {
    let (edge, sim) = one_slot("");
    let running = occupy(&edge);
    let leaver = wait_as(&edge, "leaver", "", SHORT);
    let mut stayer = wait_as(&edge, "stayer", "", SHORT);
    drop(leaver);
    eventually("it is out of the queue", || {
        let waiting = edge.waiting();
        waiting.len() == 1 && waiting[0]["request_id"] == "stayer"
    });
    drop(running);
    assert_eq!(read_answer(&mut stayer).status, 200);
    assert_eq!(served(&sim), ["stayer"]);
    eventually("nothing is left", || edge.in_flight() == 0 && edge.waiting().is_empty());
}

#[test]
fn a_busy_node_is_asked_again_after_a_moment_when_it_is_the_only_one() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    sim.fault_with(r#"{"fault":"busy_503","count":2}"#);
    let answer = edge.post("/api/chat", SHORT);
    let told = |name| answer.header(name).unwrap_or_default();
    assert_eq!((answer.status, told("X-Fleet-Attempts"), told("X-Fleet-Node")), (200, "3", "a"), "{answer:?}");
    // It rested 250 ms, then twice as long.
    assert!(told("X-Fleet-Queue-Ms").parse::<u64>().unwrap() >= 600, "{answer:?}");
}

#[test]
fn a_busy_node_is_left_for_the_other() {
    let edge = Edge::start(&[]);
    let node = |id| Sim::start(Some(&edge), id, &["--hot", "tiny"]);
    let (busy, _other) = (node("a"), node("b"));
    edge.wait_for(&["a", "b"]);
    busy.fault("busy_503");
    for attempts in ["2", "1"] {
        let answer = edge.post("/api/chat", SHORT);
        let told = |name| answer.header(name).unwrap_or_default();
        assert_eq!((answer.status, told("X-Fleet-Attempts"), told("X-Fleet-Node")), (200, attempts, "b"), "{answer:?}");
    }
}

#[test]
fn a_node_that_stays_busy_is_left_for_one_that_must_load_the_model() {
    let edge = Edge::start(&[]);
    let busy = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    let _cold = Sim::start(Some(&edge), "b", &[]);
    edge.wait_for(&["a", "b"]);
    busy.fault("busy_503");
    let answer = edge.post("/api/chat", SHORT);
    let told = |name| answer.header(name).unwrap_or_default();
    assert_eq!((answer.status, told("X-Fleet-Attempts"), told("X-Fleet-Node")), (200, "2", "b"), "{answer:?}");
}

#[test]
fn a_fleet_that_stays_busy_says_when_to_come_back() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    sim.fault("busy_503");
    let answer = edge.post("/api/chat", SHORT);
    assert_eq!((answer.status, answer.header("X-Fleet-Attempts")), (503, Some("3")), "{answer:?}");
    assert!(answer.header("Retry-After").is_some(), "{answer:?}");
}

#[test]
fn a_busy_node_has_as_many_slots_as_it_served() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "20", "--num-parallel", "4"]);
    edge.wait_for(&["a"]);
    let slots = || edge.admin("GET", "/fleet/queue", "")["runners"][0]["slots"].as_u64();
    eventually("its slots are known", || slots() == Some(4));
    let (first, _second) = (occupy(&edge), occupy(&edge));
    sim.fault_with(r#"{"fault":"busy_503","count":1}"#);
    let mut third = wait_as(&edge, "third", "", SHORT);
    assert_eq!(slots(), Some(2));
    drop(first);
    let answer = read_answer(&mut third);
    assert_eq!((answer.status, answer.header("X-Fleet-Attempts")), (200, Some("2")), "{answer:?}");
}

#[test]
fn a_slot_that_frees_anywhere_takes_the_next() {
    let edge = Edge::start(&[]);
    let node = |id| Sim::start(Some(&edge), id, &["--hot", "tiny", "--decode-tps", "20"]);
    let (_a, _b) = (node("a"), node("b"));
    edge.wait_for(&["a", "b"]);
    let streams = [occupy(&edge), occupy(&edge)];
    let waiting: Vec<_> = (0..3).map(|n| wait_as(&edge, &format!("w{n}"), "", SHORT)).collect();
    let [kept, freed] = streams;
    drop(freed);
    let nodes: Vec<_> = waiting
        .into_iter()
        .map(|mut client| read_answer(&mut client).header("X-Fleet-Node").unwrap_or_default().to_owned())
        .collect();
    assert!(nodes.iter().all(|node| *node == nodes[0]), "{nodes:?}");
    drop(kept);
    let answer = send(edge.address, &post("/api/chat", SHORT));
    assert_eq!(answer.status, 200);
}
