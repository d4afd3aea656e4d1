//! The catalogue as Ollama's API tells it: field for field, in Ollama's order, with herd's additions at the end.

mod ask;
mod relay;
mod show;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use herd_core::fleet::{Model, Node};
use herd_core::wire::AvailableModel;
use http::HeaderMap;
use serde::Serialize;

use crate::answer::{OLLAMA_JSON, json_if_changed};
use crate::catalogue::{Entry, catalogue, digest_or_stand_in, reachable, window};
use crate::node_facts::{Runner, runners, shown_name};
use crate::state::AdminState;
use crate::time;
use crate::view::View;

pub(crate) use ask::{BODY_BYTES, ModelAsk, fields, text};
pub(crate) use relay::{ASKS_OF_ONE, FLEET_NODE, Holder, response};
pub(crate) use show::{show, status};

#[derive(Serialize)]
struct List<T> {
    models: Vec<T>,
}

/// A model on disk.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_length: Option<u64>,
    fleet_nodes: Vec<&'a str>,
}

/// What Ollama tells of a model everywhere.
#[derive(Serialize)]
struct Details<'a> {
    parent_model: &'a str,
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
            parent_model: &model.parent_model,
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
    state.answers().tags.json_if_changed(&view, &headers, OLLAMA_JSON, || {
        let mut entries = catalogue(&view);
        entries.sort_by_key(|entry| Reverse(entry.modified));
        List { models: entries.into_iter().map(tag).collect() }
    })
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
            embedding_length: Some(entry.details.embedding_length).filter(|length| *length > 0),
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
    expires_at: Cow<'a, str>,
    /// Null = not reported, as here 0 would say that it runs on the CPU.
    size_vram: Option<u64>,
    /// Missing = not reported, and nothing is known from which it would follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u64>,
    fleet_node: &'a str,
}

/// Ollama's default `keep_alive`: when a model is unloaded whose node does not say when, or that works beyond the time it
/// said. A time that has passed would show it as stopping.
const KEEP_MS: u64 = 300_000;

/// `GET /api/ps`: one entry per node and runner, the longest to stay first.
pub(crate) async fn ps(State(state): State<AdminState>, headers: HeaderMap) -> Response {
    let view = state.view();
    json_if_changed(&headers, OLLAMA_JSON, &List { models: loaded_models(&view) })
}

fn loaded_models(view: &View) -> Vec<Loaded<'_>> {
    let of_node = |node| models_in_memory(view, node).map(move |(model, runner)| loaded(view, node, model, &runner));
    let mut models: Vec<_> = reachable(view).flat_map(of_node).collect();
    models.sort_by_key(|model| Reverse(time::parse(&model.expires_at)));
    models
}

fn models_in_memory<'a>(view: &View, node: &'a Node) -> impl Iterator<Item = (&'a Model, Runner<'a>)> + use<'a> {
    let shown = one_name_for_each_runner(view.models(node));
    shown.into_iter().flat_map(move |model| runners(node, model).into_iter().map(move |runner| (model, runner)))
}

/// Models in memory, each runner once: names of one blob share one, and Ollama shows the name that loaded it. Where that
/// is one that catalogues leave out, another name stands for it.
fn one_name_for_each_runner<'a>(models: impl Iterator<Item = &'a Model>) -> Vec<&'a Model> {
    let mut shown: Vec<&Model> = Vec::new();
    for model in models.filter(|model| model.resident.is_some()) {
        match shown.iter_mut().find(|other| Arc::ptr_eq(&other.load, &model.load)) {
            Some(other) if other.shares_runner && !model.shares_runner => *other = model,
            Some(_) => {}
            None => shown.push(model),
        }
    }
    shown
}

fn loaded<'a>(view: &View, node: &'a Node, model: &'a Model, runner: &Runner<'a>) -> Loaded<'a> {
    let first_told = |a: &'a str, b: &'a str| if a.is_empty() { b } else { a };
    let mut details = Details::of(&model.details);
    details.parameter_size = first_told(details.parameter_size, runner.parameter_size);
    details.quantization_level = first_told(details.quantization_level, runner.quantization);
    Loaded {
        name: shown_name(model),
        model: shown_name(model),
        size: runner.size_bytes.unwrap_or(0),
        digest: digest_or_stand_in(first_told(runner.digest, &model.details.digest), &model.name),
        details,
        expires_at: expires_at(view, model, runner),
        size_vram: runner.size_vram_bytes,
        context_length: runner.context_length.or_else(|| window(node, model)),
        fleet_node: node.id.as_str(),
    }
}

/// When the runner will be unloaded: as its node says, unless that was before it was loaded or works as it does now.
fn expires_at<'a>(view: &View, model: &Model, runner: &Runner<'a>) -> Cow<'a, str> {
    let is_fresh = model.resident.as_ref().is_some_and(|resident| resident.unconfirmed);
    let works = model.load.in_flight() > 0 || model.busy_by_others() > 0;
    let told = time::parse(runner.expires_at).filter(|_| !is_fresh);
    let now = time::parse(&time::rfc3339(view.unix_ms));
    match told {
        Some(_) if !works || told > now => Cow::Borrowed(runner.expires_at),
        _ => Cow::Owned(time::rfc3339(view.unix_ms.saturating_add(KEEP_MS))),
    }
}
