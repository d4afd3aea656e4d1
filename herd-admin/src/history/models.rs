//! `GET /dashboard/api/models` and `/context-usage`: what was asked of which model, how long it was in memory, and how
//! much context it took.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use axum::extract::State;
use axum::response::Response;
use herd_store::{ContextUsage, GroupBy, Residency, Summary, UsageRow};
use http::HeaderMap;
use serde::Serialize;

use super::ask::Ask;
use super::shapes::Totals;
use super::told;
use crate::node_facts::model_named;
use crate::refusal::Refusal;
use crate::state::AdminState;
use crate::view::View;

#[derive(Serialize)]
struct Models {
    models: Vec<ModelRow>,
}

#[derive(Serialize)]
struct ModelRow {
    model: String,
    #[serde(flatten)]
    totals: Totals,
    #[serde(flatten)]
    window: Window,
    nodes: Vec<NodeRow>,
}

#[derive(Serialize)]
struct NodeRow {
    node_id: String,
    #[serde(flatten)]
    totals: Totals,
    /// It is in the node's memory now.
    hot: bool,
    /// Part of the time, of that in which the node was known, that it was in its memory, 0 to 1; null = not known.
    hot_share: Option<f64>,
    #[serde(flatten)]
    window: Window,
}

/// How much context requests used, tokens; null = nobody told.
#[derive(Clone, Default, Serialize)]
struct Window {
    #[serde(rename = "context_used_p95")]
    used_p95: Option<f64>,
    #[serde(rename = "context_used_max")]
    used_max: Option<f64>,
    /// The largest that served them.
    #[serde(rename = "context_allocated")]
    allocated: Option<u64>,
}

impl From<&ContextUsage> for Window {
    fn from(used: &ContextUsage) -> Self {
        Self {
            used_p95: used.total_tokens.map(|total| total.p95),
            used_max: used.total_tokens.map(|total| total.max),
            allocated: used.context_length_max,
        }
    }
}

/// Node and model.
type Pair = (String, String);

/// The part of its time that each node had each model in memory.
fn shares(residency: Vec<Residency>) -> HashMap<Pair, f64> {
    let (known, hot): (Vec<_>, Vec<_>) = residency.into_iter().partition(|one| one.model.is_empty());
    let known: HashMap<_, _> = known.into_iter().map(|one| (one.node_id, one.ms)).collect();
    let share = |one: Residency| {
        let known_ms = *known.get(&one.node_id).filter(|ms| **ms > 0)?;
        let share = (one.ms as f64 / known_ms as f64).min(1.0);
        Some(((one.node_id, one.model), (share * 1e4).round() / 1e4))
    };
    hot.into_iter().filter_map(share).collect()
}

/// What each node did with each model; one that only had it in memory did nothing.
fn on_nodes(
    pairs: Vec<UsageRow>,
    contexts: &[ContextUsage],
    residency: Vec<Residency>,
    view: &View,
) -> HashMap<String, Vec<NodeRow>> {
    let (shares, known) = (shares(residency.clone()), residency);
    let knows_time = |node: &str| known.iter().any(|one| one.node_id == node);
    let mut windows: HashMap<Pair, Window> =
        contexts.iter().filter_map(|one| Some(((one.node_id.clone()?, one.model.clone()), one.into()))).collect();
    let asked = pairs.into_iter().filter_map(|row| Some(((row.node_id?, row.model?), row.summary)));
    let mut sums: BTreeMap<Pair, Summary> = asked.filter(|((node, _), _)| !node.is_empty()).collect();
    for pair in shares.keys() {
        sums.entry(pair.clone()).or_default();
    }
    let mut nodes = HashMap::<String, Vec<NodeRow>>::new();
    for (pair, summary) in sums {
        // Of a node whose time is known, a model that was never seen there was never in memory.
        let hot_share = shares.get(&pair).copied().or_else(|| knows_time(&pair.0).then_some(0.0));
        let window = windows.remove(&pair).unwrap_or_default();
        let (node_id, model) = pair;
        let hot = is_hot(view, &node_id, &model);
        nodes.entry(model).or_default().push(NodeRow { node_id, totals: (&summary).into(), hot, hot_share, window });
    }
    for rows in nodes.values_mut() {
        rows.sort_by_key(|row| Reverse(row.totals.requests()));
    }
    nodes
}

/// The models of a range, the most used first, each with its nodes.
pub(crate) async fn models(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Result<Response, Refusal> {
    let (range, store) = (ask.range()?, state.store()?);
    let (models, pairs, context, on, residency) = tokio::try_join!(
        store.models(range),
        store.usage(GroupBy::NodeModel, range),
        store.context_usage(range),
        store.context_usage_on_nodes(range),
        store.residency(range),
    )
    .map_err(|error| state.store_refusal(&error))?;
    let mut nodes = on_nodes(pairs.data, &on, residency, &state.view());
    let context: HashMap<_, _> = context.iter().map(|one| (one.model.as_str(), one)).collect();
    let rows = models.models.into_iter().map(|one| ModelRow {
        totals: (&one.summary).into(),
        window: context.get(one.model.as_str()).map_or_else(Window::default, |used| (*used).into()),
        nodes: nodes.remove(&one.model).unwrap_or_default(),
        model: one.model,
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
    #[serde(flatten)]
    used: Use,
    nodes: Vec<ContextOnNode>,
}

#[derive(Serialize)]
struct ContextOnNode {
    node_id: String,
    #[serde(flatten)]
    used: Use,
    /// The window of the runner that is in memory there now; null = there is none.
    context_loaded: Option<u64>,
}

#[derive(Serialize)]
struct Use {
    requests: u64,
    prompt_tokens_p95: Option<f64>,
    #[serde(flatten)]
    window: Window,
    context_used_max_24h: Option<f64>,
    context_asked_max: Option<u64>,
    reloads: u64,
    overflows: u64,
}

impl From<&ContextUsage> for Use {
    fn from(used: &ContextUsage) -> Self {
        Self {
            requests: used.request_count,
            prompt_tokens_p95: used.prompt_tokens.map(|spread| spread.p95),
            window: used.into(),
            context_used_max_24h: used.max_24h,
            context_asked_max: used.num_ctx_max,
            reloads: used.reloads,
            overflows: used.overflows,
        }
    }
}

/// How much of their windows the requests of each model used, and on each node.
pub(crate) async fn context_usage(
    State(state): State<AdminState>,
    ask: Ask,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (range, store) = (ask.range()?, state.store()?);
    let (used, on) = tokio::try_join!(store.context_usage(range), store.context_usage_on_nodes(range))
        .map_err(|error| state.store_refusal(&error))?;
    let view = state.view();
    let loaded = |node: &str, model: &str| {
        model_named(view.snapshot.node(node)?, model)?.resident.as_ref().and_then(|there| there.context_length)
    };
    let mut nodes = HashMap::<&str, Vec<ContextOnNode>>::new();
    for one in &on {
        let Some(node_id) = one.node_id.clone().filter(|id| !id.is_empty()) else { continue };
        let context_loaded = loaded(&node_id, &one.model);
        nodes.entry(&one.model).or_default().push(ContextOnNode { node_id, used: one.into(), context_loaded });
    }
    let rows = used.iter().map(|one| ContextRow {
        model: one.model.clone(),
        used: one.into(),
        nodes: nodes.remove(one.model.as_str()).unwrap_or_default(),
    });
    Ok(told(&ask, &headers, &ContextRows { rows: rows.collect() }, "rows"))
}
