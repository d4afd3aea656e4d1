//! Every fault, as the client sees it.

use std::time::Duration;

use tokio::{io::AsyncReadExt as _, net::TcpStream, time::Instant};

use super::{
    client::{End, Framing},
    *,
};
use crate::{Fault, FaultKind, FaultPaths, SimStats};

async fn faulty(fault: Fault) -> SimNode {
    let node = start(config()).await;
    node.set_fault(fault).await;
    node
}

fn stream() -> Value {
    with(chat("tiny"), "stream", json!(true))
}

fn whole() -> Value {
    with(chat("tiny"), "stream", json!(false))
}

#[tokio::test]
async fn refuse_closes_the_port_and_gives_it_back() {
    let control = Some(([127, 0, 0, 1], 0).into());
    let node = start(SimConfig { control_listen: control, ..config() }).await;
    let mut idle = client::send(node.addr(), "GET", "/api/version", &["Connection: keep-alive"], b"").await;
    // Both headers are there, and the first one counts for nothing: hyper closes.
    let mut bytes = Vec::new();
    idle.read_to_end(&mut bytes).await.expect("an answer");
    let fresh = TcpStream::connect(node.addr()).await.expect("it listens");
    let control = node.control_addr().expect("a control listener");
    let reply = client::request(control, "POST", "/_sim/fault", br#"{"fault":"refuse"}"#).await;
    assert_eq!(reply.status, 200);
    let error = TcpStream::connect(node.addr()).await.expect_err("it is refused");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    // A connection without a request goes with the listener.
    let mut fresh = fresh;
    assert_eq!(fresh.read_to_end(&mut Vec::new()).await.expect("an end"), 0);
    assert_eq!(client::request(control, "GET", "/_sim/stats", b"").await.json()["fault"]["fault"], "refuse");
    client::request(control, "POST", "/_sim/fault", br#"{"fault":"none"}"#).await;
    assert_eq!(get(&node, "/api/version").await.status, 200);
}

#[tokio::test]
async fn refuse_lets_running_answers_finish() {
    let node = start(SimConfig { decode_tokens_per_s: 100.0, ..config() }).await;
    let mut running = client::send(node.addr(), "POST", "/api/chat", &[], stream().to_string().as_bytes()).await;
    client::read_until(&mut running, "\"done\":false").await;
    node.set_fault(Fault::new(FaultKind::Refuse)).await;
    client::read_until(&mut running, "\"done\":true").await;
}

#[tokio::test]
async fn stall_answers_nothing_until_it_is_cleared() {
    let node = faulty(Fault::new(FaultKind::Stall)).await;
    let mut version = client::send(node.addr(), "GET", "/api/version", &[], b"").await;
    let mut chat = client::send(node.addr(), "POST", "/api/chat", &[], whole().to_string().as_bytes()).await;
    eventually("both arrived", || node.stats().recent.len() == 2).await;
    assert!(client::is_silent(&version) && client::is_silent(&chat));
    node.set_fault(Fault::default()).await;
    client::read_until(&mut version, "0.33.0").await;
    client::read_until(&mut chat, "\"done\":true").await;
}

#[tokio::test]
async fn a_counted_stall_stays_with_its_request() {
    let node = faulty(Fault::new(FaultKind::Stall).times(1)).await;
    let struck = client::send(node.addr(), "GET", "/api/version", &[], b"").await;
    eventually("it arrived", || node.stats().recent.len() == 1).await;
    assert_eq!(get(&node, "/api/version").await.status, 200);
    assert!(client::is_silent(&struck));
}

#[tokio::test]
async fn a_hung_engine_is_silent_while_the_server_answers() {
    let node = faulty(Fault::new(FaultKind::HangBeforeFirstByte)).await;
    let chat = client::send(node.addr(), "POST", "/api/chat", &[], stream().to_string().as_bytes()).await;
    eventually("it arrived", || node.stats().recent.len() == 1).await;
    assert_eq!(get(&node, "/api/version").await.status, 200);
    assert_eq!(get(&node, "/api/ps").await.status, 200);
    assert!(client::is_silent(&chat));
    assert_eq!(node.stats().in_flight, 1);
    drop(chat);
    eventually("its client is missed", || node.stats().cancelled == 1).await;
}

#[tokio::test]
async fn a_cut_stream_ends_after_its_chunks_without_an_end() {
    let node = faulty(Fault::new(FaultKind::CutMidStream).after(3)).await;
    for path in ["/api/chat", "/v1/chat/completions"] {
        let reply = post(&node, path, &stream()).await;
        assert_eq!((reply.status, reply.end, reply.chunks.len()), (200, End::Cut, 3), "{path}");
    }
    let reply = post(&node, "/api/chat", &whole()).await;
    assert_eq!((reply.status, reply.end, reply.framing), (200, End::Cut, Framing::Length));
    let stats = node.stats();
    assert_eq!((stats.cancelled, stats.in_flight), (0, 0), "nobody left");
    assert_eq!(stats.faults_injected.get(&FaultKind::CutMidStream), Some(&3));
    eventually("the slot is free", || node.slots().iter().all(|runner| runner.slots_busy == 0)).await;
}

#[tokio::test]
async fn a_stream_may_hang_in_the_middle() {
    let node = faulty(Fault::new(FaultKind::HangMidStream).after(2)).await;
    let mut chat = client::send(node.addr(), "POST", "/api/chat", &[], stream().to_string().as_bytes()).await;
    let mut text = String::new();
    while text.matches("\"done\":false").count() < 2 {
        text += &client::read_until(&mut chat, "done").await;
    }
    get(&node, "/api/version").await;
    assert!(client::is_silent(&chat));
}

#[tokio::test]
async fn a_clean_end_lacks_only_the_terminator() {
    let node = faulty(Fault::new(FaultKind::CleanEnd).after(2)).await;
    let reply = post(&node, "/api/chat", &stream()).await;
    assert_eq!((reply.end, reply.lines().len()), (End::Whole, 2));
    assert!(reply.lines().iter().all(|line| line["done"] == false));
}

/// The forms of `facts/ollama-api.md` §3, seen on a real server whose runner was killed.
#[tokio::test]
async fn a_crash_of_the_engine_ends_each_surface_in_its_own_way() {
    let node = faulty(Fault::new(FaultKind::CrashMidStream).after(2)).await;
    let text = "an error was encountered while running the model: unexpected EOF";
    let reply = post(&node, "/api/chat", &stream()).await;
    assert_eq!((reply.status, reply.end), (200, End::Whole));
    assert_eq!(reply.lines().last(), Some(&json!({ "error": text })));
    let reply = post(&node, "/v1/chat/completions", &stream()).await;
    assert_eq!((reply.end, reply.chunks.len()), (End::Whole, 3));
    assert!(reply.text().contains(r#""model":"","#) && !reply.text().contains("[DONE]"));
    let reply = post(&node, "/v1/messages", &with(stream(), "max_tokens", json!(9))).await;
    assert_eq!((reply.end, reply.chunks.len()), (End::Whole, 2));
    assert!(!reply.text().contains("message_stop"));
    let reply = post(&node, "/api/chat", &whole()).await;
    assert_eq!((reply.status, reply.json()), (500, json!({ "error": text })));
}

#[tokio::test]
async fn errors_come_in_the_form_of_the_surface() {
    #[track_caller]
    fn check(reply: &Reply, status: u16, message: &str, pointer: &str) {
        assert_eq!(reply.status, status);
        assert_eq!(reply.json().pointer(pointer).and_then(Value::as_str), Some(message));
    }
    let busy = "server busy, please try again.  maximum pending requests exceeded";
    let failed = "simulated failure of the node";
    for (kind, status, message) in [
        (FaultKind::Busy503, 503, busy),
        (FaultKind::NotFound, 404, "model 'tiny' not found"),
        (FaultKind::Error500, 500, failed),
    ] {
        let node = faulty(Fault::new(kind)).await;
        check(&post(&node, "/api/chat", &stream()).await, status, message, "/error");
        check(&post(&node, "/api/generate", &json!({"model": "tiny"})).await, status, message, "/error");
        check(&post(&node, "/v1/chat/completions", &stream()).await, status, message, "/error/message");
        check(
            &post(&node, "/v1/messages", &with(stream(), "max_tokens", json!(9))).await,
            status,
            message,
            "/error/message",
        );
        assert_eq!(get(&node, "/api/tags").await.status, 200, "others are not struck");
    }
}

#[tokio::test]
async fn a_reset_is_a_reset_before_or_after_some_chunks() {
    let node = faulty(Fault::new(FaultKind::Reset)).await;
    let reply = post(&node, "/api/chat", &stream()).await;
    assert_eq!((reply.end, reply.status), (End::Reset, 0));
    node.set_fault(Fault::new(FaultKind::Reset).after(2)).await;
    assert_eq!(post(&node, "/api/chat", &stream()).await.end, End::Reset);
}

#[tokio::test]
async fn a_fault_with_a_count_clears_itself_and_may_strike_all_paths() {
    let node = faulty(Fault::new(FaultKind::Error500).times(2).on(FaultPaths::All)).await;
    assert_eq!(get(&node, "/api/tags").await.status, 500);
    assert_eq!(post(&node, "/api/chat", &whole()).await.status, 500);
    assert_eq!(post(&node, "/api/chat", &whole()).await.status, 200);
}

#[tokio::test]
async fn slow_takes_that_much_longer() {
    let rates = SimConfig { prefill_tokens_per_s: 1000.0, decode_tokens_per_s: 1000.0, ..config() };
    let node = start(rates).await;
    let fault = Fault { factor: Some(5.0), ..Fault::new(FaultKind::Slow) };
    // One token of prompt and eleven of answer, a millisecond each.
    for (fault, millis) in [(Fault::default(), 12), (fault, 60)] {
        node.set_fault(fault).await;
        let started = Instant::now();
        post(&node, "/api/chat", &whole()).await;
        assert!(started.elapsed() >= Duration::from_millis(millis));
    }
}

#[tokio::test]
async fn the_agent_is_paused_while_ollama_answers() {
    let node = start(config()).await;
    let paused = node.agent_paused();
    assert_eq!(get(&node, "/_sim/agent").await.json(), json!({"paused": false}));
    assert_eq!(post(&node, "/_sim/agent", &json!({"paused": true})).await.status, 200);
    assert!(*paused.borrow());
    assert_eq!(get(&node, "/api/ps").await.status, 200);
    assert_eq!(post(&node, "/_sim/agent", &json!({"paused": "yes"})).await.status, 400);
    assert_eq!(get(&node, "/_sim/agent").await.json(), json!({"paused": true}));
}

#[tokio::test]
async fn faults_are_refused_when_they_are_nonsense_and_reported_when_not() {
    let node = start(config()).await;
    assert_eq!(post(&node, "/_sim/fault", &json!({"fault": "gremlins"})).await.status, 400);
    let fault = json!({"fault": "slow", "factor": 2.5, "count": 3, "paths": "inference"});
    assert_eq!(post(&node, "/_sim/fault", &fault).await.status, 200);
    assert_eq!(get(&node, "/_sim/fault").await.json(), fault);
    let stats: SimStats = serde_json::from_slice(&get(&node, "/_sim/stats").await.body()).expect("stats");
    assert_eq!((stats.fault.fault, stats.requests), (FaultKind::Slow, 0));
}
