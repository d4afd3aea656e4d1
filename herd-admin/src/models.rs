//! `GET /dashboard/api/model-management`: every model, where it is, and what is done with it.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use herd_core::fleet::{Model, Node};
use http::HeaderMap;
use serde::Serialize;

use crate::history::{Ask, told};
use crate::pull::PullInfo;
use crate::state::AdminState;

#[derive(Serialize)]
struct Management {
    models: Vec<Row>,
    pulls: Vec<PullInfo>,
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
    let (pulls, _) = state.pulls().list();
    told(&ask, &headers, &Management { models: rows.into_values().collect(), pulls }, "models")
}
