//! The node as its clients see it: over sockets, against the samples of a real server, and under faults.

mod behaviour;
mod client;
mod faults;
mod matrix;
mod samples;
mod shape;

use std::time::Duration;

use client::Reply;
use serde_json::{Value, json};

use super::{Capability, SimConfig, SimModel, SimNode};

/// The models of the real server that the samples come from. Nothing takes time, and nothing is unloaded by itself.
fn config() -> SimConfig {
    SimConfig {
        models: vec![
            SimModel::named("tiny"),
            SimModel::named("loop"),
            SimModel::named("think").with(Capability::Thinking),
            SimModel::named("tools").with(Capability::Tools).with(Capability::Thinking),
            SimModel::embedding("embed", 64),
        ],
        keep_alive_ms: -1,
        answer_tokens: 11,
        ..SimConfig::default()
    }
}

async fn start(config: SimConfig) -> SimNode {
    SimNode::start(config).await.expect("the node starts")
}

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}]})
}

/// The same request with `key` set.
fn with(mut body: Value, key: &str, value: Value) -> Value {
    body[key] = value;
    body
}

async fn post(node: &SimNode, path: &str, body: &Value) -> Reply {
    client::request(node.addr(), "POST", path, body.to_string().as_bytes()).await
}

async fn get(node: &SimNode, path: &str) -> Reply {
    client::request(node.addr(), "GET", path, b"").await
}

/// Contexts of the runners that `/api/ps` shows, by name.
async fn loaded(node: &SimNode) -> Vec<(String, u64)> {
    let ps = get(node, "/api/ps").await.json();
    let entry = |model: &Value| Some((model.get("name")?.as_str()?.to_owned(), model.get("context_length")?.as_u64()?));
    ps["models"].as_array().expect("a list").iter().map(|model| entry(model).expect("an entry")).collect()
}

/// Waits until `condition` holds; what it waits for happens on another task.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..5000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}
