//! `GET /dashboard/api/model-management`: every model, where it is, and what is done with it.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use herd_core::fleet::{Model, Node};
use herd_core::substitute::category;
use http::HeaderMap;
use serde::Serialize;

use crate::history::{Ask, told};
use crate::node_facts::shown_name;
use crate::pull::PullInfo;
use crate::state::AdminState;

#[derive(Serialize)]
struct Management {
    models: Vec<Row>,
    /// The same by node, as scripts of ollama-herd read it.
    nodes: Vec<OfNode>,
    pulls: Vec<PullInfo>,
}

#[derive(Serialize)]
struct OfNode {
    node_id: String,
    models: Vec<OnNode>,
}

#[derive(Serialize)]
struct OnNode {
    name: String,
    size_gb: Option<f64>,
    parameter_size: String,
    quantization: String,
    category: &'static str,
    loaded_in_vram: bool,
    in_flight: u32,
}

impl OnNode {
    fn of(model: &Model) -> Self {
        Self {
            name: shown_name(model).to_owned(),
            size_gb: model.size_bytes.map(|bytes| (bytes as f64 / 1e7).round() / 100.0),
            parameter_size: model.details.parameter_size.clone(),
            quantization: model.details.quantization_level.clone(),
            category: category(&model.name, model.capabilities).name(),
            loaded_in_vram: model.resident.is_some(),
            in_flight: model.load.in_flight(),
        }
    }
}

#[derive(Serialize)]
struct Row {
    model: String,
    /// The largest on any node; null = not reported.
    size_bytes: Option<u64>,
    nodes: Vec<Place>,
    pinned: Vec<Pinned>,
}

#[derive(Serialize)]
struct Place {
    node_id: String,
    on_disk: bool,
    loaded: bool,
    context_length: Option<u64>,
    size_bytes: Option<u64>,
    size_vram_bytes: Option<u64>,
    in_flight: u32,
    expires_at: Option<String>,
}

#[derive(Serialize)]
struct Pinned {
    node_id: String,
}

impl Place {
    fn of(node: &Node, model: &Model) -> Self {
        let resident = model.resident.as_ref();
        Self {
            node_id: node.id.to_string(),
            on_disk: model.size_bytes.is_some() || !model.details.name.is_empty(),
            loaded: resident.is_some(),
            context_length: resident.and_then(|resident| resident.context_length),
            size_bytes: resident.and_then(|resident| resident.size_bytes),
            size_vram_bytes: resident.and_then(|resident| resident.size_vram_bytes),
            in_flight: model.load.in_flight(),
            expires_at: resident.map(|resident| resident.expires_at.clone()).filter(|text| !text.is_empty()),
        }
    }
}

/// All models by name.
pub(crate) async fn management(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Response {
    let view = state.view();
    let mut rows = BTreeMap::<String, Row>::new();
    let row = |name: &str| Row { model: name.to_owned(), size_bytes: None, nodes: Vec::new(), pinned: Vec::new() };
    for node in &view.snapshot.nodes {
        for model in view.models(node) {
            let one = rows.entry(model.name.to_string()).or_insert_with(|| row(model.name.as_str()));
            one.size_bytes = one.size_bytes.max(model.size_bytes);
            one.nodes.push(Place::of(node, model));
        }
    }
    for pin in state.pins().all() {
        let one = rows.entry(pin.model.clone()).or_insert_with(|| row(&pin.model));
        one.pinned.push(Pinned { node_id: pin.node_id });
    }
    let of_node =
        |node: &Node| OfNode { node_id: node.id.to_string(), models: view.models(node).map(OnNode::of).collect() };
    let nodes = view.snapshot.nodes.iter().map(|node| of_node(node)).collect();
    let (pulls, _) = state.pulls().list();
    told(&ask, &headers, &Management { models: rows.into_values().collect(), nodes, pulls }, "models")
}
