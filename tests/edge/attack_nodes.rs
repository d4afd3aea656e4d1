//! What somebody tries who sends heartbeats: to be sent prompts, to be another's node, to be all nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use herd_harness::{Answer, Edge, eventually, get, post_with, send, send_from};
use serde_json::{Value, json};

use crate::scripted::{Scripted, answer, recorded};

const JSON: &str = "Content-Type: application/json\r\n";
const CHAT: &[u8] = br#"{"model":"llama3.2:3b","stream":false,"messages":[{"role":"user","content":"secret"}]}"#;

fn heartbeat(edge: &Edge, body: &Value) -> Answer {
    send(edge.address, &post_with("/heartbeat", JSON, body.to_string().as_bytes()))
}

#[test]
fn no_prompt_goes_to_what_is_not_an_ollama() {
    let others = [
        r#"{"ok":true}"#,
        r#"{"version":""}"#,
        r#"{"version":"0.33.0","herd_version":"0.1.0"}"#,
        "<html>0.33.0</html>",
    ];
    let edge = Edge::start(&[("FLEET_HOLD_MAX_MS", "200"), ("FLEET_HEALTH_INTERVAL_MS", "100")]);
    let nodes: Vec<_> = others
        .into_iter()
        .map(|body| Scripted::something_else(move |_| answer("200 OK", JSON, body)))
        .chain([Scripted::something_else(|_| answer("404 Not Found", JSON, "{}"))])
        .collect();
    for (place, node) in nodes.iter().enumerate() {
        let id = format!("evil-{place}");
        let host = format!("http://{}", node.address);
        assert_eq!(heartbeat(&edge, &recorded(&id, &host)).status, 200);
        eventually("the edge has looked", || edge.node(&id)["condition"] == "not_ollama");
        let notice = heartbeat(&edge, &recorded(&id, &host)).json()["notice"].to_string();
        assert!(notice.contains("not an Ollama"), "{notice}");
    }
    assert_eq!(get(edge.address, "/api/tags").json()["models"], json!([]), "it offers nothing");
    let chat = edge.post("/api/chat", CHAT);
    assert!(chat.status >= 400, "{chat:?}");
    assert!(nodes.iter().all(|node| node.take_heads().is_empty()), "no prompt has left the edge");
    eventually("a finding says so", || {
        let health = get(edge.address, "/dashboard/api/health").json();
        health["findings"].as_array().is_some_and(|all| all.iter().any(|one| one["check"] == "not_ollama"))
    });
}

#[test]
fn what_becomes_an_ollama_is_used_then() {
    let is_ready = Arc::new(AtomicBool::new(false));
    let ready = Arc::clone(&is_ready);
    let body = r#"{"model":"llama3.2:3b","message":{"role":"assistant","content":"hi"},"done":true}"#;
    let node = Scripted::something_else(move |head| match head {
        _ if !ready.load(Relaxed) => answer("503 Service Unavailable", "", ""),
        head if head.starts_with("GET /api/version") => answer("200 OK", JSON, r#"{"version":"0.33.0"}"#),
        _ => answer("200 OK", JSON, body),
    });
    let edge = Edge::start(&[]);
    let beat = recorded("a", &format!("http://{}", node.address));
    assert_eq!(heartbeat(&edge, &beat).status, 200);
    eventually("the edge has looked", || edge.node("a")["condition"] == "not_ollama");
    is_ready.store(true, Relaxed);
    eventually("it is looked at again", || {
        heartbeat(&edge, &beat);
        edge.node("a")["status"] == "online"
    });
    assert_eq!(edge.post("/api/chat", CHAT).status, 200);
}

#[test]
fn a_copied_heartbeat_takes_no_node_over() {
    let edge = Edge::start(&[]);
    let (honest, evil) = (Scripted::ollama(), Scripted::ollama());
    let beat = |node: &Scripted, seq: u64| {
        let mut beat = recorded("honest", "");
        let address = format!("127.0.0.1:{}", node.address.port());
        let available = json!([{ "name": "llama3.2:3b", "digest": "x" }]);
        beat["herd"] = json!({ "boot": "run", "seq": seq, "ollama": { "address": address, "available": available } });
        post_with("/heartbeat", JSON, beat.to_string().as_bytes())
    };
    assert_eq!(send(edge.address, &beat(&honest, 1)).status, 200);
    eventually("it is seen", || edge.node("honest")["status"] == "online");
    let address = edge.node("honest")["address"].clone();
    // The thief has seen the name of the agent's run, which travels in clear, and counts far ahead.
    for (code, seq) in [("taken", 2), ("taken", u64::MAX)] {
        let told = send_from("127.0.0.2", edge.address, &beat(&evil, seq));
        assert_eq!((told.status, told.json()["error"]["code"].as_str()), (409, Some(code)), "{told:?}");
    }
    let told = send(edge.address, &beat(&honest, u64::MAX));
    assert_eq!((told.status, told.json()["error"]["code"].as_str()), (409, Some("ahead")));
    assert_eq!(send(edge.address, &beat(&honest, 2)).status, 200, "the real agent goes on");
    let told = send(edge.address, &beat(&honest, 1));
    assert_eq!((told.status, told.json()["error"]["code"].as_str()), (409, Some("stale")), "and an older one is told");
    assert_eq!(edge.node("honest")["address"], address);
    assert!(evil.take_heads().is_empty());
}

#[test]
fn one_host_fills_no_fleet() {
    let edge = Edge::start(&[("FLEET_NODES_MAX", "12"), ("FLEET_JOIN_TOKEN", "")]);
    let node = Scripted::ollama();
    node.join(&edge, "honest");
    let join = |source: &str, id: &str| {
        let beat = recorded(id, "http://127.0.0.1:1").to_string();
        send_from(source, edge.address, &post_with("/heartbeat", JSON, beat.as_bytes()))
    };
    // Loopback is this machine, which is not counted: the demo and tests are there. What is bounded all the same is the
    // fleet, and the honest node stays.
    let told: Vec<_> = (0..40).map(|place| join("127.0.0.2", &format!("evil-{place}")).status).collect();
    assert_eq!(told.iter().filter(|status| **status == 200).count(), 11);
    assert!(told[11..].iter().all(|status| *status == 429), "{told:?}");
    assert_eq!(edge.node("honest")["status"], "online");
    let models = get(edge.address, "/api/tags").json()["models"].clone();
    assert_eq!(models.as_array().map(Vec::len), Some(honest_models(&edge)), "what was never seen is not listed");
    assert_eq!(edge.post("/api/chat", CHAT).status, 200);
}

fn honest_models(edge: &Edge) -> usize {
    edge.node("honest")["models"].as_array().map_or(0, Vec::len)
}
