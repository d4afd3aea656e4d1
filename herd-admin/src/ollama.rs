//! The catalogue as Ollama's API tells it: field for field, in Ollama's order, with herd's additions at the end.

mod ask;
mod show;

use std::borrow::Cow;
use std::cmp::Reverse;

use axum::extract::State;
use axum::response::Response;
use herd_core::fleet::{Model, Node};
use herd_core::wire::AvailableModel;
use http::HeaderMap;
use serde::Serialize;

use crate::answer::{OLLAMA_JSON, json_if_changed};
use crate::catalogue::{Entry, catalogue, digest_or_stand_in, reachable};
use crate::node_facts::{Runner, runners, shown_name};
use crate::state::{AdminState, View};
use crate::time;

pub(crate) use ask::ModelAsk;
pub(crate) use show::show;

#[derive(Serialize)]
struct List<T> {
    models: Vec<T>,
}

/// A model on disk.
///
/// `details.embedding_length` is missing, as no heartbeat has it.
#[derive(Serialize)]
struct Tag<'a> {
    name: &'a str,
    model: &'a str,
    /// What runs elsewhere, and where; by these clients know a model of the cloud.
    #[serde(skip_serializing_if = "str::is_empty")]
    remote_model: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    remote_host: &'a str,
    modified_at: Cow<'a, str>,
    size: u64,
    digest: Cow<'a, str>,
    details: TagDetails<'a>,
    /// Missing when the node does not tell: an older Ollama, and then its clients know how to ask for it.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    capabilities: &'a [String],
}

#[derive(Serialize)]
struct TagDetails<'a> {
    #[serde(flatten)]
    details: Details<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u64>,
    fleet_nodes: Vec<&'a str>,
}

/// What Ollama tells of a model everywhere.
#[derive(Serialize)]
struct Details<'a> {
    parent_model: &'static str,
    format: &'a str,
    family: &'a str,
    families: Vec<&'a str>,
    parameter_size: &'a str,
    quantization_level: &'a str,
}

impl<'a> Details<'a> {
    fn of(model: &'a AvailableModel) -> Self {
        let mut families: Vec<_> = model.families.iter().map(String::as_str).collect();
        if families.is_empty() && !model.family.is_empty() {
            families.push(&model.family);
        }
        Self {
            parent_model: "",
            format: &model.format,
            family: &model.family,
            families,
            parameter_size: &model.parameter_size,
            quantization_level: &model.quantization_level,
        }
    }
}

/// `GET /api/tags`: every model that a reachable node has, the newest first.
pub(crate) async fn tags(State(state): State<AdminState>, headers: HeaderMap) -> Response {
    let view = state.view();
    let mut entries = catalogue(&view);
    entries.sort_by_key(|entry| Reverse(entry.modified));
    let models = entries.into_iter().map(tag).collect();
    json_if_changed(&headers, OLLAMA_JSON, &List { models })
}

fn tag(entry: Entry<'_>) -> Tag<'_> {
    Tag {
        name: entry.shown,
        model: entry.shown,
        remote_model: &entry.details.remote_model,
        remote_host: &entry.details.remote_host,
        modified_at: entry.modified_at,
        size: entry.size_bytes,
        digest: entry.digest,
        details: TagDetails {
            details: Details::of(entry.details),
            context_length: entry.context_length_max,
            fleet_nodes: entry.nodes,
        },
        capabilities: &entry.details.capabilities,
    }
}

/// A model in a node's memory.
#[derive(Serialize)]
struct Loaded<'a> {
    name: &'a str,
    model: &'a str,
    /// 0 = not reported; no model has none.
    size: u64,
    digest: Cow<'a, str>,
    details: Details<'a>,
    expires_at: &'a str,
    /// Null = not reported, as here 0 would say that it runs on the CPU.
    size_vram: Option<u64>,
    /// 0 = not reported; no model has none.
    context_length: u64,
    fleet_node: &'a str,
}

/// Told when a node does not say when it will unload a model: Go's zero time, which clients know as "not set".
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// `GET /api/ps`: one entry per node and runner, the longest to stay first.
pub(crate) async fn ps(State(state): State<AdminState>, headers: HeaderMap) -> Response {
    let view = state.view();
    json_if_changed(&headers, OLLAMA_JSON, &List { models: loaded_models(&view) })
}

fn loaded_models(view: &View) -> Vec<Loaded<'_>> {
    let of_node = |node| models_in_memory(view, node).map(move |(model, runner)| loaded(node, model, &runner));
    let mut models: Vec<_> = reachable(view).flat_map(of_node).collect();
    models.sort_by_key(|model| Reverse(time::parse(model.expires_at)));
    models
}

fn models_in_memory<'a>(view: &View, node: &'a Node) -> impl Iterator<Item = (&'a Model, Runner<'a>)> + use<'a> {
    view.models(node).flat_map(move |model| runners(node, model).into_iter().map(move |runner| (model, runner)))
}

fn loaded<'a>(node: &'a Node, model: &'a Model, runner: &Runner<'a>) -> Loaded<'a> {
    let first_told = |a: &'a str, b: &'a str| if a.is_empty() { b } else { a };
    let mut details = Details::of(&model.details);
    details.parameter_size = first_told(details.parameter_size, runner.parameter_size);
    details.quantization_level = first_told(details.quantization_level, runner.quantization);
    let expires_at = time::parse(runner.expires_at).map_or(NO_TIME, |_| runner.expires_at);
    Loaded {
        name: shown_name(model),
        model: shown_name(model),
        size: runner.size_bytes.unwrap_or(0),
        digest: digest_or_stand_in(first_told(runner.digest, &model.details.digest), &model.name),
        details,
        expires_at,
        size_vram: runner.size_vram_bytes,
        context_length: runner.context_length.unwrap_or(0),
        fleet_node: node.id.as_str(),
    }
}
