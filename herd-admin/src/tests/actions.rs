//! What an operator does to nodes and models.

use herd_core::wire::{Heartbeat, MemoryBytes};
use http::{Request, StatusCode};

use super::history::Kept;
use super::scripted::Node;
use crate::testing::{App, heartbeat, loaded};
use crate::{FleetSource as _, pins};

fn delete(path: &str) -> Request<axum::body::Body> {
    let request = Request::delete(path).header("content-type", "application/json").header("host", "127.0.0.1:11436");
    request.body(axum::body::Body::empty()).unwrap()
}

/// With so many GB of memory, and models of 3 GB each.
fn sized(mut heartbeat: Heartbeat, gb: u64) -> Heartbeat {
    let report = heartbeat.herd.as_mut().unwrap();
    let bytes = gb * 1_000_000_000;
    report.memory = Some(MemoryBytes { total_bytes: bytes, available_bytes: bytes, ..MemoryBytes::default() });
    report.ollama.available.iter_mut().for_each(|model| model.size_bytes = 3_000_000_000);
    heartbeat
}

#[tokio::test]
async fn a_node_is_forgotten() {
    let app = App::of([heartbeat("a", &["tiny:latest"])]);
    assert_eq!(app.send(delete("/fleet/nodes/a")).await.told(), (200, r#"{"node_id":"a","removed":true}"#));
    assert_eq!(app.send(delete("/fleet/nodes/a")).await.status, 404);
    assert_eq!(app.get("/fleet/status").await.json()["nodes"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_model_is_unloaded_and_deleted_on_its_node() {
    let mut node = Node::new().await;
    let app = App::of([loaded(node.heartbeat("a", &["tiny:latest"], 100), "tiny:latest", 4_096)]);
    assert_eq!(app.post("/fleet/nodes/x/unload", r#"{"model":"tiny"}"#).await.status, 404);
    assert_eq!(app.post("/fleet/nodes/a/unload", r#"{"model":"other"}"#).await.status, 404);
    let answer = app.post("/fleet/nodes/a/unload", r#"{"model":"tiny"}"#).await;
    assert_eq!(answer.told(), (200, r#"{"node_id":"a","model":"tiny:latest","unloaded":true}"#));
    let call = node.called().await;
    assert_eq!((call.path.as_str(), &call.body["keep_alive"]), ("/api/generate", &0.into()));
    let answer = app.post("/dashboard/api/delete", r#"{"model":"tiny","node_id":"a"}"#).await;
    assert_eq!(answer.json()["deleted"], true);
    assert_eq!(node.called().await.path, "/api/delete");
    assert_eq!(app.post("/dashboard/api/delete", r#"{"model":"tiny"}"#).await.status, 400);
}

#[tokio::test]
async fn what_a_node_refuses_is_told() {
    let node = Node::answering(StatusCode::INTERNAL_SERVER_ERROR).await;
    let app = App::of([node.heartbeat("a", &["tiny:latest"], 100)]);
    let unload = app.post("/fleet/nodes/a/unload", r#"{"model":"tiny"}"#);
    let mut node = node;
    let (answer, ()) = tokio::join!(unload, async {
        let call = node.called().await;
        call.say(r#"{"error":"no"}"#).await;
        drop(call);
    });
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (502, &"node_failed".into()));
}

#[tokio::test]
async fn a_pinned_model_is_kept_loaded_within_the_nodes_memory() {
    let kept = Kept::open().await;
    let app = kept.app();
    let mut node = Node::new().await;
    app.join(sized(node.heartbeat("a", &["tiny:latest", "big:latest", "third:latest"], 100), 8));
    let first = app.post("/fleet/pin", r#"{"model":"tiny"}"#).await;
    assert_eq!(first.told(), (200, r#"{"model":"tiny:latest","node_id":"a","persisted":true}"#));
    assert_eq!(app.post("/fleet/pin", r#"{"model":"big","node_id":"a"}"#).await.status, 200);
    let third = app.post("/fleet/pin", r#"{"model":"third","node_id":"a"}"#).await;
    assert_eq!((third.status.as_u16(), &third.json()["error"]["code"]), (409, &"no_memory".into()));
    assert_eq!(app.post("/fleet/pin", r#"{"model":"third","node_id":"a","force":true}"#).await.status, 200);
    assert_eq!(app.post("/fleet/pin", r#"{"model":"none"}"#).await.status, 404);
    assert_eq!(app.send(delete("/fleet/pin/big:latest")).await.json()["nodes"], serde_json::json!(["a"]));
    assert_eq!(app.send(delete("/fleet/pin/third")).await.status, 200);
    assert_eq!(app.send(delete("/fleet/pin/third")).await.status, 404);
    assert_eq!(app.post("/fleet/nodes/a/unload", r#"{"model":"tiny"}"#).await.status, 409, "it is pinned");

    pins::look(&app.state).await;
    let call = node.called().await;
    assert_eq!((call.path.as_str(), &call.body["keep_alive"]), ("/api/generate", &(-1).into()));
    let pinned = app.get("/dashboard/api/pinned-models").await.json();
    assert_eq!((&pinned["pinned"][0]["model"], &pinned["pinned"][0]["loaded"]), (&"tiny:latest".into(), &false.into()));
    let models = app.get("/dashboard/api/model-management").await.json();
    let tiny = models["models"].as_array().unwrap().iter().find(|one| one["model"] == "tiny:latest").unwrap();
    assert_eq!(tiny["pinned"][0]["node_id"], "a");

    let later = kept.app();
    pins::look(&later.state).await;
    assert_eq!(later.get("/dashboard/api/pinned-models").await.json()["pinned"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_pinned_model_in_memory_is_kept_for_ever_and_let_go_later() {
    let mut node = Node::new().await;
    let resident = |until: &str, seq: u64| {
        let mut heartbeat = sized(loaded(node.heartbeat("a", &["tiny:latest"], 100), "tiny:latest", 8_192), 8);
        let report = heartbeat.herd.as_mut().unwrap();
        report.seq = seq;
        report.ollama.loaded[0].expires_at = until.into();
        heartbeat
    };
    let app = App::of([resident("2026-11-24T00:00:00Z", 1)]);
    let kept_for_ever = resident("2318-11-24T00:00:00Z", 2);
    assert_eq!(app.post("/fleet/pin", r#"{"model":"tiny"}"#).await.status, 200);
    assert!(app.source.snapshot().nodes[0].models[0].load.is_pinned());
    pins::look(&app.state).await;
    let call = node.called().await;
    let asked = serde_json::json!({ "model": "tiny:latest", "keep_alive": -1, "stream": false,
        "options": { "num_ctx": 8_192 } });
    assert_eq!((call.path.as_str(), &call.body), ("/api/generate", &asked));
    app.join(kept_for_ever);
    pins::look(&app.state).await;
    assert!(!node.is_called(), "nothing to be done");

    assert_eq!(app.send(delete("/fleet/pin/tiny")).await.status, 200);
    assert!(!app.source.snapshot().nodes[0].models[0].load.is_pinned());
    pins::look(&app.state).await;
    assert_eq!(node.called().await.body["keep_alive"], "5m");
    pins::look(&app.state).await;
    assert!(!node.is_called(), "once");
}

#[tokio::test]
async fn a_pin_that_fails_is_tried_again_later() {
    let app = App::of([sized(heartbeat("a", &["tiny:latest"]), 8)]);
    let mut busy = sized(heartbeat("a", &["tiny:latest"]), 8);
    busy.herd.as_mut().unwrap().memory.as_mut().unwrap().available_bytes = 1_000;
    busy.herd.as_mut().unwrap().seq = 2;
    app.join(busy);
    assert_eq!(app.post("/fleet/pin", r#"{"model":"tiny"}"#).await.status, 200);
    let failures = async || app.get("/dashboard/api/pinned-models").await.json()["pinned"][0]["failures"].clone();
    pins::look(&app.state).await;
    pins::look(&app.state).await;
    assert_eq!(failures().await, 1, "not before its time");
    app.after_ms(1_000_000);
    let mut again = sized(heartbeat("a", &["tiny:latest"]), 8);
    again.herd.as_mut().unwrap().memory.as_mut().unwrap().available_bytes = 1_000;
    again.herd.as_mut().unwrap().seq = 3;
    app.join(again);
    pins::look(&app.state).await;
    assert_eq!(failures().await, 2);
}

#[tokio::test]
async fn a_pull_goes_on_by_itself() {
    let node = Node::new().await;
    let app = App::of([node.heartbeat("a", &[], 100)]);
    let answer = app.post("/dashboard/api/pull", r#"{"model":"tiny","node_id":"a"}"#).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let id = answer.json()["id"].as_u64().unwrap();
    assert_eq!(app.get("/fleet/pulls").await.json()["running"][0]["id"], id);
    assert_eq!(app.send(delete(&format!("/fleet/pulls/{id}"))).await.status, 200);
}

#[tokio::test]
async fn who_changed_what_is_told_page_by_page() {
    let kept = Kept::open().await;
    let app = kept.app();
    app.join(heartbeat("a", &["tiny:latest"]));
    for path in ["/fleet/nodes/a/drain", "/fleet/nodes/a/undrain"] {
        assert_eq!(app.post(path, "{}").await.status, 200);
    }
    assert_eq!(app.send(delete("/fleet/nodes/a")).await.status, 200);
    let actions = async |query: &str| {
        let page = app.get(&format!("/dashboard/api/audit{query}")).await.json();
        let entries = page["entries"].as_array().unwrap().iter();
        let actions: Vec<_> = entries.map(|one| one["action"].as_str().unwrap().to_owned()).collect();
        (actions, page["next_cursor"].as_u64())
    };
    while actions("").await.0.len() < 3 {
        tokio::task::yield_now().await;
    }
    let (first, cursor) = actions("?limit=2").await;
    assert_eq!(first, ["node_remove", "node_undrain"]);
    let (second, end) = actions(&format!("?limit=2&cursor={}", cursor.unwrap())).await;
    assert_eq!((second, end), (vec!["node_drain".to_owned()], None));
    let csv = app.get("/dashboard/api/audit?format=csv").await.body;
    assert!(csv.starts_with("action,actor,at_unix_ms,detail,id,target"), "{csv}");
    assert_eq!(App::new().get("/dashboard/api/audit").await.status, 503, "nothing is kept");
}
