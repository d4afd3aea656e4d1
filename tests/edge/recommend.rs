//! Advice on a small fleet: it appears when it should, says why and how much, and its request works as it stands.

use herd_core::wire::{AvailableModel, Gpu, Heartbeat, HerdReport, LoadedModel, MemoryBytes, OllamaReport};
use herd_harness::{Edge, Sim, eventually, post, send};
use serde_json::Value;

const LOOKS: (&str, &str) = ("FLEET_HEALTH_INTERVAL_MS", "150");
const GIB: u64 = 1 << 30;

fn edge() -> Edge {
    Edge::start_with("auto_pull: {enabled: false}", &[LOOKS])
}

fn chat(edge: &Edge, model: &str) -> u16 {
    let body = format!(
        r#"{{"model":"{model}","stream":false,"options":{{"num_predict":2}},"messages":[{{"role":"user","content":"hi"}}]}}"#
    );
    edge.post("/api/chat", body.as_bytes()).status
}

fn all(edge: &Edge) -> Vec<Value> {
    let told = edge.admin("GET", "/dashboard/api/recommendations", "");
    told["recommendations"].as_array().unwrap().clone()
}

/// Waits for advice of that kind, which says all that it should; `meanwhile` keeps the fleet going.
#[track_caller]
fn advice(edge: &Edge, kind: &str, mut meanwhile: impl FnMut()) -> Value {
    let mut found = Value::Null;
    eventually(kind, || {
        meanwhile();
        found = all(edge).into_iter().find(|one| one["kind"] == kind).unwrap_or_default();
        !found.is_null()
    });
    assert!(found["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{found}");
    assert!(found["size_bytes"].as_u64().is_some() && found["memory_bytes"].as_u64().is_some(), "{found}");
    found
}

/// Sends the request `call` as it is given.
#[track_caller]
fn follow(edge: &Edge, call: &Value) {
    let text = |name: &str| call[name].as_str().unwrap().to_owned();
    let answer = edge.admin(&text("method"), &text("path"), &call["body"].to_string());
    assert!(answer["error"].is_null(), "{call} {answer}");
}

#[test]
fn a_model_that_is_missed_is_pulled_where_it_fits() {
    let edge = edge();
    let library = ["--library", "qwen2.5:0.5b=0.4", "--pull-gbps", "0"];
    let _small = Sim::start(Some(&edge), "a", &[&library[..], &["--profile", "laptop"]].concat());
    let _large = Sim::start(Some(&edge), "b", &[&library[..], &["--profile", "mac-studio"]].concat());
    edge.wait_for(&["a", "b"]);
    for _ in 0..4 {
        assert_eq!(chat(&edge, "qwen2.5:0.5b"), 404);
    }
    assert!(all(&edge).is_empty(), "four are not enough");
    assert_eq!(chat(&edge, "qwen2.5:0.5b"), 404);
    let one = advice(&edge, "pull", || {});
    assert_eq!((&one["model"], &one["node_id"]), (&"qwen2.5:0.5b".into(), &"b".into()), "{one}");
    assert_eq!(one["expected_gain"]["requests_served_per_day"], 5, "{one}");
    // 398 MB on the library's page is the most that rounds to it.
    assert_eq!(one["size_bytes"], 398_500_000, "{one}");
    follow(&edge, &one["action"]);
    eventually("it is there", || chat(&edge, "qwen2.5:0.5b") == 200);
    eventually("the advice is gone", || all(&edge).iter().all(|one| one["kind"] != "pull"));
}

#[test]
fn a_model_that_is_loaded_again_and_again_is_kept() {
    let edge = edge();
    let sim = Sim::start(Some(&edge), "a", &["--profile", "rtx", "--load-ms", "5"]);
    edge.wait_for(&["a"]);
    for _ in 0..6 {
        for _ in 0..4 {
            assert_eq!(chat(&edge, "tiny"), 200);
        }
        eventually("it is there", || edge.context("a", "tiny:latest").is_some());
        // The last heartbeat may have seen it at work.
        let unloaded = edge.admin("POST", "/fleet/nodes/a/unload", r#"{"model":"tiny","force":true}"#);
        assert_eq!(unloaded["unloaded"], true, "{unloaded}");
        eventually("it is gone", || edge.context("a", "tiny:latest").is_none());
    }
    let one = advice(&edge, "keep", || {});
    assert_eq!((&one["model"], &one["node_id"]), (&"tiny:latest".into(), &"a".into()), "{one}");
    let (loads, avoided) =
        (&one["evidence"]["cold_loads_per_day"], &one["expected_gain"]["cold_loads_avoided_per_day"]);
    assert_eq!(loads.as_u64().unwrap(), avoided.as_u64().unwrap() + 1, "the first is needed: {one}");
    assert!(one["expected_gain"]["seconds_saved_per_day"].as_f64().is_some_and(|seconds| seconds > 0.0), "{one}");
    follow(&edge, &one["action"]);
    eventually("it is loaded to stay", || {
        let listed = herd_harness::get(sim.address, "/api/ps").json();
        let models = listed["models"].as_array().unwrap();
        models.iter().any(|one| one["name"] == "tiny:latest" && one["expires_at"].as_str().unwrap() > "2200")
    });
    eventually("the advice is gone", || all(&edge).iter().all(|one| one["kind"] != "keep"));
}

/// What an agent would tell of a machine whose GPU holds half of its only model, which has 4 GiB.
fn half_on_cpu(at: &Sim, seq: u64) -> Vec<u8> {
    let name = "big:latest".to_owned();
    let loaded = LoadedModel {
        name: name.clone(),
        size_bytes: 4 * GIB,
        size_vram_bytes: 2 * GIB,
        context_length: 4_096,
        ..LoadedModel::default()
    };
    let ollama = OllamaReport {
        address: at.address.to_string(),
        available: vec![AvailableModel { name, size_bytes: 3 * GIB, ..AvailableModel::default() }],
        loaded: vec![loaded],
        ..OllamaReport::default()
    };
    let gpu = Gpu { vram_total_bytes: Some(2 * GIB), vram_free_bytes: Some(0), ..Gpu::default() };
    let memory = MemoryBytes { total_bytes: 16 * GIB, available_bytes: 8 * GIB, ..MemoryBytes::default() };
    let report =
        HerdReport { boot: "b".into(), seq, gpus: vec![gpu], memory: Some(memory), ollama, ..HerdReport::default() };
    let heartbeat = Heartbeat { node_id: "old".into(), herd: Some(report), ..Heartbeat::default() };
    serde_json::to_vec(&heartbeat).unwrap()
}

#[test]
fn a_model_that_is_partly_on_a_cpu_moves_to_a_gpu_that_holds_it_whole() {
    let edge = edge();
    let old = Sim::start(None, "old", &["--model", "big=3", "--hot", "big", "--load-gbps", "0"]);
    let mut seq = 0;
    let mut beat = || {
        seq += 1;
        let request = post("/heartbeat", &half_on_cpu(&old, seq));
        let text = String::from_utf8(request).unwrap().replacen("\r\n", "\r\nContent-Type: application/json\r\n", 1);
        assert_eq!(send(edge.admin, text.as_bytes()).status, 200);
    };
    beat();
    edge.wait_for(&["old"]);
    for _ in 0..20 {
        assert_eq!(chat(&edge, "big"), 200);
    }
    let args = ["--profile", "rtx", "--library", "big=3", "--pull-gbps", "0"];
    let _new = Sim::start(Some(&edge), "new", &args);
    edge.wait_for(&["new"]);
    let one = advice(&edge, "move", &mut beat);
    assert_eq!(
        (&one["model"], &one["node_id"], &one["from_node_id"]),
        (&"big:latest".into(), &"new".into(), &"old".into()),
        "{one}"
    );
    follow(&edge, &one["action"]);
    eventually("it is there", || edge.node("new").to_string().contains("big:latest"));
    follow(&edge, &one["then"]);
    eventually("the old node lets it go", || !herd_harness::get(old.address, "/api/ps").text().contains("big:latest"));
}
