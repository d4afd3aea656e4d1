//! `GET /dashboard/api/models` and `/context-usage`: what was asked of which model, and how much context it took.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Serialize;

use super::ask::Ask;
use super::shapes::Totals;
use super::told;
use crate::node_facts::model_named;
use crate::refusal::Refusal;
use crate::state::{AdminState, View};
use crate::store::{ContextUsage, GroupBy, Summary};

#[derive(Serialize)]
struct Models {
    models: Vec<ModelRow>,
}

#[derive(Serialize)]
struct ModelRow {
    model: String,
    #[serde(flatten)]
    totals: Totals,
    context_used_p95: Option<f64>,
    context_used_max: Option<f64>,
    context_allocated: Option<u64>,
    nodes: Vec<NodeRow>,
}

#[derive(Serialize)]
struct NodeRow {
    node_id: String,
    #[serde(flatten)]
    totals: Totals,
    /// It is in the node's memory now.
    hot: bool,
}

/// The models of a range, the most used first, each with its nodes.
pub(crate) async fn models(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Result<Response, Refusal> {
    let (range, store) = (ask.range()?, state.store()?);
    let (models, pairs, context) =
        tokio::join!(store.models(range), store.usage(GroupBy::NodeModel, range), store.context_usage(range));
    let failed = |error| state.store_refusal(&error);
    let (models, pairs, context) = (models.map_err(failed)?, pairs.map_err(failed)?, context.map_err(failed)?);
    let view = state.view();
    let mut nodes = HashMap::<String, Vec<NodeRow>>::new();
    for row in pairs.data {
        let (Some(node_id), Some(model)) = (row.node_id, row.model) else { continue };
        if !node_id.is_empty() {
            let hot = is_hot(&view, &node_id, &model);
            nodes.entry(model).or_default().push(NodeRow { hot, totals: (&row.summary).into(), node_id });
        }
    }
    let context: HashMap<_, _> = context.into_iter().map(|one| (one.model.clone(), one)).collect();
    let rows = models.models.into_iter().map(|one| {
        let used = context.get(&one.model);
        let total = used.and_then(|used| used.total_tokens);
        ModelRow {
            totals: (&one.summary).into(),
            context_used_p95: total.map(|total| total.p95),
            context_used_max: total.map(|total| total.max),
            context_allocated: used.and_then(|used| used.context_length_max),
            nodes: nodes.remove(&one.model).unwrap_or_default(),
            model: one.model,
        }
    });
    Ok(told(&ask, &headers, &Models { models: rows.collect() }, "models"))
}

fn is_hot(view: &View, node_id: &str, model: &str) -> bool {
    let there = view.snapshot.node(node_id).and_then(|node| model_named(node, model));
    there.is_some_and(|model| model.resident.is_some())
}

#[derive(Serialize)]
struct ContextRows {
    rows: Vec<ContextRow>,
}

#[derive(Serialize)]
struct ContextRow {
    model: String,
    requests: u64,
    prompt_tokens_p95: Option<f64>,
    context_used_p95: Option<f64>,
    context_used_max: Option<f64>,
    context_used_max_24h: Option<f64>,
    context_asked_max: Option<u64>,
    context_allocated: Option<u64>,
    reloads: u64,
}

impl ContextRow {
    fn of(used: ContextUsage, summary: Option<&Summary>) -> Self {
        Self {
            model: used.model,
            requests: used.request_count,
            prompt_tokens_p95: used.prompt_tokens.map(|spread| spread.p95),
            context_used_p95: used.total_tokens.map(|spread| spread.p95),
            context_used_max: used.total_tokens.map(|spread| spread.max),
            context_used_max_24h: used.max_24h,
            context_asked_max: used.num_ctx_max,
            context_allocated: used.context_length_max,
            reloads: summary.map_or(0, |summary| summary.reloads),
        }
    }
}

/// How much of their windows the requests of each model used.
pub(crate) async fn context_usage(
    State(state): State<AdminState>,
    ask: Ask,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (range, store) = (ask.range()?, state.store()?);
    let (used, models) = tokio::join!(store.context_usage(range), store.models(range));
    let failed = |error| state.store_refusal(&error);
    let (used, models) = (used.map_err(failed)?, models.map_err(failed)?);
    let summaries: HashMap<_, _> = models.models.iter().map(|one| (one.model.as_str(), &one.summary)).collect();
    let rows = used.into_iter().map(|one| {
        let summary = summaries.get(one.model.as_str()).copied();
        ContextRow::of(one, summary)
    });
    Ok(told(&ask, &headers, &ContextRows { rows: rows.collect() }, "rows"))
}
