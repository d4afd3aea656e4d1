//! `/fleet/status` and what an operator does to nodes.

use std::sync::Arc;

use herd_core::fleet::FleetSnapshot;
use herd_core::load::Claim;
use herd_core::wire::{Gpu, OllamaEnv, OllamaState, Runner};
use serde_json::{Value, json};

use crate::FleetSource;
use crate::testing::{App, PYTHON_HEARTBEAT, from, heartbeat, loaded, post};

/// The members of `sample` that `ours` lacks, dotted; lists by their first entry.
fn missing(ours: &Value, sample: &Value, path: &str) -> Vec<String> {
    match (ours, sample) {
        (Value::Object(ours), Value::Object(sample)) => {
            let member = |(key, value): (&String, &Value)| match ours.get(key) {
                Some(own) => missing(own, value, &format!("{path}.{key}")),
                None => vec![format!("{path}.{key}")],
            };
            sample.iter().flat_map(member).collect()
        }
        (Value::Array(ours), Value::Array(sample)) => match (ours.first(), sample.first()) {
            (Some(own), Some(first)) => missing(own, first, path),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn scripts_of_the_python_project_find_their_fields() {
    let app = App::new();
    app.post("/heartbeat", PYTHON_HEARTBEAT).await;
    let mut sample: Value = serde_json::from_str(include_str!("samples/fleet_status.json")).unwrap();
    // A model that the node of the recorded heartbeat does not have.
    sample["queues"].as_object_mut().unwrap().remove("node-a:nope:1b");
    sample["nodes"][0]["ollama"]["models_available_sizes"].as_object_mut().unwrap().remove("nope:1b");
    let ours = app.get("/fleet/status").await.json();
    let lacking = missing(&ours, &sample, "");
    // Facts that no heartbeat of ours has, and averages in whose place stand percentiles.
    let left_out = [
        ".nodes.memory.compressed_gb",
        ".nodes.memory.wired_gb",
        ".nodes.ollama.backend_clients",
        ".nodes.ollama.models_loaded.runner",
        ".nodes.process_memory",
        ".nodes.text_embedding_status",
        ".nodes.vision_embedding_status",
        ".queues.node-a:llama3.2:3b.avg_completion_tokens",
        ".queues.node-a:llama3.2:3b.avg_latency_ms",
        ".queues.node-a:llama3.2:3b.avg_prompt_tokens",
        ".queues.node-a:llama3.2:3b.completed",
        ".queues.node-a:llama3.2:3b.failed",
        ".queues.node-a:llama3.2:3b.request_type",
        ".queues.node-a:llama3.2:3b.stats_samples",
    ];
    assert_eq!(lacking, left_out);
    let node = &ours["nodes"][0];
    assert_eq!(node["ollama_url"], "http://127.0.0.1:21434");
    assert_eq!(node["memory"]["total_gb"], 23.54);
    assert_eq!((&node["hot_model_cap"], &node["free_slots"]), (&3.into(), &2.into()));
    assert_eq!(node["ollama"]["models_loaded"][0]["size_gb"], 2.26);
}

fn snapshot(app: &App) -> Arc<FleetSnapshot> {
    app.source.snapshot()
}

#[tokio::test]
async fn what_the_edge_counts_is_told_as_it_counts() {
    let mut node = loaded(heartbeat("n", &["m:latest"]), "m:latest", 4096);
    let report = node.herd.as_mut().unwrap();
    report.ollama.env = OllamaEnv { num_parallel: Some(2), ..OllamaEnv::default() };
    report.ollama.runners =
        Some(vec![Runner { model: "m:latest".into(), slots: 2, slots_busy: 1, ..Runner::default() }]);
    report.gpus =
        vec![Gpu { name: "H200".into(), vram_total_bytes: Some(8), vram_free_bytes: Some(3), ..Gpu::default() }];
    let app = App::of([node]);
    let (node, model) = (Arc::clone(&snapshot(&app).nodes[0]), snapshot(&app).nodes[0].models[0].clone());
    let claims: Vec<_> = (0..3).map(|ticket| Claim::take(&node.load, &model.load, ticket)).collect();
    (0..3).for_each(|_| node.load.failed(0));
    app.after_ms(250);
    let status = app.get("/fleet/status").await.json();
    assert_eq!(status["fleet"]["requests_active"], 3);
    assert_eq!(status["edge"], json!({ "version": "1.2.3", "draining": false, "uptime_ms": 250 }));
    let told = &status["nodes"][0];
    let counts = ["in_flight", "slots", "busy_by_others", "queue_depth", "ejected_for_ms", "heartbeat_age_ms"];
    assert_eq!(counts.map(|field| told[field].as_u64().unwrap()), [3, 2, 1, 2, 750, 250]);
    assert_eq!(told["why"]["code"], "ejected");
    assert_eq!(told["gpus"][0]["vram_free_bytes"], 3);
    assert_eq!(told["device"], json!({ "total_bytes": 8, "free_bytes": 3, "discrete": true }));
    assert_eq!(status["queues"]["n:m:latest"]["pending"], 2);
    drop(claims);
    assert_eq!(app.get("/fleet/status").await.json()["nodes"][0]["in_flight"], 0);
}

#[tokio::test]
async fn a_node_grows_old_in_the_open() {
    let app = App::of([heartbeat("n", &[])]);
    let rows = [
        (0, "online", "online", Value::Null, 1),
        (13_000, "degraded", "degraded", "degraded".into(), 1),
        (21_000, "degraded", "stale", "stale".into(), 1),
        (31_000, "offline", "offline", "offline".into(), 0),
    ];
    let mut age = 0;
    for (at, status, state, why, ready) in rows {
        app.after_ms(at - age);
        age = at;
        let told = app.get("/fleet/status").await.json();
        let node = &told["nodes"][0];
        assert_eq!((&node["status"], &node["state"], &node["why"]["code"]), (&status.into(), &state.into(), &why));
        assert_eq!(told["fleet"]["nodes_ready"], ready, "{state}");
    }
}

#[tokio::test]
async fn a_node_that_is_out_says_why() {
    let mut hung = heartbeat("hung", &[]);
    hung.herd.as_mut().unwrap().ollama.state = OllamaState::Hung;
    let mut paused = heartbeat("paused", &[]);
    let capacity =
        herd_core::wire::Capacity { mode: "paused".into(), reason: "a meeting".into(), ..Default::default() };
    paused.capacity = Some(capacity);
    let app = App::of([hung, paused, heartbeat("probe", &[])]);
    snapshot(&app).node("probe").unwrap().load.set_probe_failed(true);
    let status = app.get("/fleet/status").await.json();
    let why: Vec<_> = status["nodes"].as_array().unwrap().iter().map(|node| node["why"]["code"].clone()).collect();
    assert_eq!(why, ["ollama_hung", "paused", "probe_failed"]);
    assert!(status["nodes"][1]["why"]["message"].as_str().unwrap().ends_with("paused: a meeting"));
    assert_eq!(status["nodes"][2]["probe_ok"], false);
}

#[tokio::test]
async fn an_operator_takes_a_node_out_and_puts_it_back() {
    let app = App::of([heartbeat("n", &[])]);
    let state = async || app.get("/fleet/status").await.json()["nodes"][0]["state"].clone();
    let answer = app.post("/fleet/nodes/n/drain", "{}").await;
    assert_eq!(answer.told(), (200, r#"{"node_id":"n","cordoned":true}"#));
    assert_eq!(state().await, "draining");
    assert_eq!(app.post("/fleet/nodes/n/undrain", "").await.status, 200);
    assert_eq!(state().await, "online");
    for unknown in ["ghost", "%ff", "%3Cb%3E"] {
        let answer = app.post(&format!("/fleet/nodes/{unknown}/drain"), "{}").await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (404, &"unknown_node".into()));
    }
    let afar = post("/fleet/nodes/n/drain").extension(from("192.168.1.7")).body("{}".into()).unwrap();
    assert_eq!(app.send(afar).await.status, 403);
    let page = post("/fleet/nodes/n/drain").header("origin", "http://evil.example").body("{}".into()).unwrap();
    assert_eq!(app.send(page).await.status, 403);
    assert_eq!(state().await, "online");
}
