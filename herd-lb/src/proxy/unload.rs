//! `ollama stop`: a request without a prompt that keeps its model for no time has it unloaded on every node of the fleet.
//!
//! No slot is needed for that, and no node loads anything for it, so that it waits for nobody; a model that works is
//! unloaded once its requests are over, as with Ollama.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use herd_core::fleet::{ModelChange, Node, NodeState};
use herd_core::name::ModelName;
use herd_core::request::{RequestProfile, Surface};
use herd_core::vocabulary::Reason;
use serde_json::json;
use tokio::task::JoinSet;

use super::Edge;
use super::reply::{Content, Reply};
use crate::trace::{Status, Trace};

/// Longest time that a node may take to take a model out of its memory.
const LIMIT: Duration = Duration::from_secs(10);

impl Edge {
    /// Unloads the model of `profile` wherever it is in memory, `name` being the model as the client wrote it.
    pub(super) async fn unload(&self, profile: &RequestProfile, name: &str, trace: &mut Trace) -> Reply {
        let (snapshot, policy) = (self.fleet.snapshot(), self.fleet.policy());
        let model = policy.models.alias(&profile.model).unwrap_or(&profile.model);
        let now_ms = self.fleet.now_ms();
        let reached =
            |node: &&Node| node.state(now_ms, &policy.life) != NodeState::Offline && node.same_ollama_as.is_none();
        let nodes: Vec<&Node> = snapshot.nodes.iter().map(AsRef::as_ref).filter(reached).collect();
        trace.model = model.to_string();
        if !nodes.iter().any(|node| node.model(model).is_some()) {
            let reply = Reply::new(404, format!("model '{name}' not found"));
            trace.end(Status::Rejected, &reply.message);
            trace.http_status = reply.status;
            return reply;
        }
        let failed = self.unload_on(&targets(&nodes, model), model).await;
        if let [first, ..] = failed.as_slice() {
            let reply = Reply::new(502, format!("the model is still loaded: {first}"));
            trace.end(Status::Failed, &reply.message);
            trace.http_status = reply.status;
            return reply;
        }
        trace.end(Status::Completed, "");
        trace.finish_reason = Some(Reason::Unload);
        trace.http_status = 200;
        Reply::empty(200).content(unloaded(profile.surface, name))
    }

    /// Has each of `nodes` unload `model`; returns what went wrong.
    async fn unload_on(&self, nodes: &[&Node], model: &ModelName) -> Vec<String> {
        let mut calls = JoinSet::new();
        for node in nodes {
            let told = node.model(model).map_or("", |model| model.details.name.as_str());
            let spelled = if told.is_empty() { model.as_str() } else { told }.to_owned();
            let (calling, fleet) = (self.node_calls.clone(), Arc::clone(&self.fleet));
            let (id, address, model) = (node.id.clone(), node.address, model.clone());
            calls.spawn(async move {
                calling.unload(address, &spelled, LIMIT).await.map_err(|error| format!("{id}: {error}"))?;
                fleet.model_changed(id.as_str(), &model, ModelChange::Unloaded);
                Ok::<(), String>(())
            });
        }
        calls.join_all().await.into_iter().filter_map(Result::err).collect()
    }
}

/// The nodes to tell: all that have it, as somebody else may have loaded it a moment ago, and a node that has nothing to
/// unload does nothing. A pinned model stays where it is pinned.
fn targets<'a>(nodes: &[&'a Node], model: &ModelName) -> Vec<&'a Node> {
    let unloads = |node: &&&Node| node.model(model).is_some_and(|model| !model.remote && !model.load.is_pinned());
    nodes.iter().filter(unloads).copied().collect()
}

/// What Ollama answers, in one piece whether or not a stream was asked for.
fn unloaded(surface: Surface, model: &str) -> Content {
    let created_at = herd_admin::now_rfc3339();
    let mut answer = json!({ "model": model, "created_at": created_at });
    match surface {
        Surface::OllamaChat => answer["message"] = json!({ "role": "assistant", "content": "" }),
        _ => answer["response"] = "".into(),
    }
    (answer["done"], answer["done_reason"]) = (true.into(), Reason::Unload.name().into());
    Content { media_type: "application/json; charset=utf-8", bytes: Bytes::from(answer.to_string()) }
}
