//! Models that no node has are fetched, within bounds, while the client waits.

use std::io::{BufRead as _, BufReader, Write as _};

use herd_harness::{Answer, Edge, Sim, connect, eventually, post, read_answer, send};
use serde_json::Value;

/// 0.7 GB at 0.2 GB/s: longer than a client waits without a sign.
const SLOW: [&str; 4] = ["--library", "new=0.7", "--pull-gbps", "0.2"];

fn chat(model: &str, stream: bool) -> Vec<u8> {
    format!(
        r#"{{"model":"{model}","stream":{stream},"options":{{"num_predict":2}},"messages":[{{"role":"user","content":"hi"}}]}}"#
    )
    .into_bytes()
}

/// An edge and one node that can fetch what `args` say.
fn one_node(config: &str, args: &[&str]) -> (Edge, Sim) {
    let edge = Edge::start_with(config, &[]);
    let sim = Sim::start(Some(&edge), "a", args);
    edge.wait_for(&["a"]);
    (edge, sim)
}

fn pulls(edge: &Edge) -> (Vec<Value>, Vec<Value>) {
    let list = edge.admin("GET", "/fleet/pulls", "");
    let of = |name: &str| list[name].as_array().unwrap().clone();
    (of("running"), of("recent"))
}

fn asked_to_pull(sim: &Sim) -> u64 {
    sim.stats()["by_path"]["/api/pull"].as_u64().unwrap_or(0)
}

#[track_caller]
fn not_found(answer: &Answer, why: &str) {
    let message = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(answer.status == 404 && message.starts_with("model 'new' not found"), "{answer:?}");
    assert!(message.contains(why), "{message}");
}

#[test]
fn a_missing_model_is_pulled_where_it_fits_and_served() {
    let edge = Edge::start(&[]);
    let library = ["--library", "new=9", "--pull-gbps", "0"];
    // Its disk is nearly full; its memory is the smaller; its memory is the larger.
    let full = Sim::start(Some(&edge), "a", &[&library[..], &["--profile", "mac-studio", "--disk-gb", "5"]].concat());
    let small = Sim::start(Some(&edge), "b", &[&library[..], &["--profile", "laptop"]].concat());
    let large = Sim::start(Some(&edge), "c", &[&library[..], &["--profile", "mac-studio"]].concat());
    edge.wait_for(&["a", "b", "c"]);
    let answer = edge.post("/api/chat", &chat("new", false));
    assert_eq!((answer.status, answer.header("X-Fleet-Node")), (200, Some("c")), "{answer:?}");
    assert_eq!(answer.json()["done"], true);
    assert_eq!([&full, &small, &large].map(asked_to_pull), [0, 0, 1]);
    let (running, recent) = pulls(&edge);
    assert_eq!((running.len(), recent.len(), &recent[0]["node_id"]), (0, 1, &"c".into()), "{recent:?}");
}

#[test]
fn a_streaming_client_is_told_how_far_the_pull_is_and_then_gets_its_answer() {
    let (edge, _sim) = one_node("", &SLOW);
    let answer = edge.post("/api/chat", &chat("new", true));
    assert!(answer.status == 200 && answer.whole, "{answer:?}");
    assert_eq!(answer.header("X-Fleet-Pull"), Some("a"));
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (signs, real): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line["status"].is_string());
    assert!(!signs.is_empty() && !real.is_empty(), "{answer:?}");
    for sign in &signs {
        assert!(sign["status"].as_str().unwrap().starts_with("pulling new: "), "{sign}");
        // A client that knows no such lines reads an empty piece of an answer.
        assert_eq!((&sign["done"], &sign["message"]["content"]), (&false.into(), &"".into()), "{sign}");
    }
    let content: String = real.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
    assert!(!content.is_empty() && real.last().unwrap()["done"] == true, "{answer:?}");
}

#[test]
fn a_client_of_events_gets_comments_and_then_its_answer() {
    let (edge, _sim) = one_node("", &SLOW);
    let body = br#"{"model":"new","stream":true,"max_tokens":2,"messages":[{"role":"user","content":"hi"}]}"#;
    for (path, end) in [("/v1/chat/completions", "data: [DONE]"), ("/v1/messages", "event: message_stop")] {
        let answer = edge.post(path, body);
        assert!(answer.status == 200 && answer.whole && answer.text().contains(end), "{answer:?}");
        let comments = answer.text().lines().filter(|line| line.starts_with(':')).count();
        // The second finds the model there.
        assert_eq!(comments > 0, path == "/v1/chat/completions", "{answer:?}");
        assert!(answer.header("Content-Type").is_some_and(|kind| kind.starts_with("text/event-stream")), "{answer:?}");
    }
}

#[test]
fn who_does_not_stream_comes_back_when_the_pull_is_slow() {
    let (edge, sim) = one_node("", &SLOW);
    let answer = edge.post("/api/chat", &chat("new", false));
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("Retry-After").is_some() && answer.text().contains("being pulled to a"), "{answer:?}");
    assert_eq!(pulls(&edge).0.len(), 1, "it goes on");
    eventually("it is served", || edge.post("/api/chat", &chat("new", false)).status == 200);
    assert_eq!(asked_to_pull(&sim), 1);
}

#[test]
fn what_cannot_be_had_is_not_found_with_the_reason() {
    let (edge, sim) = one_node("auto_pull: {allow: [\"n*\"], max_bytes: 500000000}", &SLOW);
    not_found(&edge.post("/api/chat", &chat("new", false)), "0.7 GB");
    not_found(&edge.post("/api/chat", &chat("new", false)), "tried again in");
    let unknown = edge.post("/v1/chat/completions", &chat("nothing", false));
    assert_eq!((unknown.status, &unknown.json()["error"]["type"]), (404, &"not_found_error".into()), "{unknown:?}");
    let asked = asked_to_pull(&sim);
    let other = edge.post("/api/chat", &chat("other", true));
    assert!(other.status == 404 && other.text().contains("not among those"), "{other:?}");
    assert_eq!(asked_to_pull(&sim), asked, "a name that is not allowed reaches no registry");
    assert!(pulls(&edge).0.is_empty());
}

#[test]
fn a_disk_without_headroom_takes_no_model() {
    let (edge, sim) = one_node("", &["--library", "new=0.7", "--disk-gb", "9"]);
    not_found(&edge.post("/api/chat", &chat("new", false)), "disk space");
    assert_eq!(asked_to_pull(&sim), 0);
    // The size is known once the manifest has been read.
    let (edge, sim) = one_node("", &[&SLOW[..], &["--disk-gb", "10.5"]].concat());
    let answer = edge.post("/api/chat", &chat("new", false));
    assert!(answer.status == 503 && answer.text().contains("disk"), "{answer:?}");
    eventually("the node stops", || sim.stats()["in_flight"] == 0);
    let tags = herd_harness::get(sim.address, "/api/tags").text();
    assert!(!tags.contains("new"), "{tags}");
}

#[test]
fn a_node_that_failed_lately_pulls_when_there_is_no_other() {
    let (edge, sim) = one_node("hold: {max_ms: 0}", &["--library", "new=0.5"]);
    sim.fault_with(r#"{"fault":"reset","count":3}"#);
    for _ in 0..3 {
        assert_eq!(edge.post("/api/chat", &chat("tiny", false)).status, 502);
    }
    assert!(edge.node("a")["ejected_for_ms"].as_u64().unwrap() > 0, "{}", edge.node("a"));
    assert_eq!(edge.post("/api/chat", &chat("new", false)).status, 200);
}

#[test]
fn switched_off_an_unknown_model_is_plainly_not_found() {
    let (edge, sim) = one_node("auto_pull: {enabled: false}", &SLOW);
    let answer = edge.post("/api/chat", &chat("new", true));
    assert_eq!((answer.status, answer.text().as_str()), (404, r#"{"error":"model 'new' not found"}"#));
    assert_eq!((asked_to_pull(&sim), pulls(&edge).1.len()), (0, 0));
}

#[test]
fn an_operator_pulls_onto_a_node_and_sees_how_far_it_is() {
    let (edge, _a) = one_node("auto_pull: {enabled: false}", &[]);
    let _b = Sim::start(Some(&edge), "b", &["--library", "new=0.2", "--pull-gbps", "0.5"]);
    edge.wait_for(&["b"]);
    let mut client = connect(edge.admin);
    client.write_all(&post("/api/pull", br#"{"model":"new","node_id":"b"}"#)).unwrap();
    let answer = read_answer(&mut client);
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 3 && lines.iter().all(|line| line["node_id"] == "b"), "{answer:?}");
    assert!(lines.iter().any(|line| line["completed"].as_u64().is_some_and(|done| done > 0)), "{answer:?}");
    assert_eq!(lines.last().unwrap()["status"], "success");
    eventually("it is there", || edge.post("/api/chat", &chat("new", false)).status == 200);
    let nobody = send(edge.admin, &post("/api/pull", br#"{"model":"new","node_id":"z"}"#));
    assert_eq!(nobody.status, 404, "{nobody:?}");
}

#[test]
fn a_cancelled_pull_ends_for_all_who_wait() {
    let (edge, sim) = one_node("", &["--library", "new=40", "--pull-gbps", "0.1"]);
    let mut client = connect(edge.address);
    client.write_all(&post("/api/chat", &chat("new", true))).unwrap();
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("200"), "{line}");
    let (running, _) = pulls(&edge);
    let cancelled = edge.admin("DELETE", &format!("/fleet/pulls/{}", running[0]["id"]), "");
    assert_eq!(cancelled["cancelled"], true, "{cancelled}");
    let rest: Vec<String> = reader.lines().map_while(Result::ok).collect();
    let told = rest.iter().filter(|line| line.contains("\"error\"")).count();
    assert_eq!((told, rest.last().map(String::as_str)), (1, Some("")), "the last words, and a whole body: {rest:?}");
    eventually("the node stops", || sim.stats()["in_flight"] == 0);
    assert!(pulls(&edge).0.is_empty() && pulls(&edge).1[0]["phase"] == "cancelled", "{:?}", pulls(&edge));
}

#[test]
fn many_requests_for_a_missing_model_cause_one_pull() {
    let edge = Edge::start(&[]);
    let node = |id| Sim::start(Some(&edge), id, &SLOW);
    let sims = [node("a"), node("b"), node("c")];
    edge.wait_for(&["a", "b", "c"]);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20).map(|_| scope.spawn(|| edge.post("/api/chat", &chat("new", true)))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for answer in &answers {
        assert!(answer.status == 200 && answer.text().contains("\"done\":true"), "{answer:?}");
    }
    assert_eq!(sims.iter().map(asked_to_pull).sum::<u64>(), 1);
    let loads: u64 = sims.iter().map(|sim| sim.stats()["loads"].as_u64().unwrap()).sum();
    assert_eq!((pulls(&edge).1.len(), loads), (1, 1));
    eventually("nothing is left", || edge.in_flight() == 0 && edge.waiting().is_empty());
}

#[test]
fn a_client_that_leaves_does_not_end_the_pull() {
    let (edge, sim) = one_node("", &SLOW);
    let mut client = connect(edge.address);
    client.write_all(&post("/api/chat", &chat("new", true))).unwrap();
    eventually("it is pulled", || pulls(&edge).0.len() == 1);
    drop(client);
    eventually("the pull ends", || pulls(&edge).1.iter().any(|pull| pull["phase"] == "succeeded"));
    assert_eq!(asked_to_pull(&sim), 1);
}
