//! Sums over a range.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use herd_core::name::ModelName;
use http::HeaderMap;
use serde::Serialize;

use super::ask::{Ask, Asked};
use super::shape::Sums;
use super::{refused, store, told};
use crate::node_facts::takes_requests;
use crate::refusal::Refusal;
use crate::state::{AdminState, View};
use crate::store::{AppDay, ContextUsage, GroupBy, Range, TrendFilter, TrendPoint, UsageRow};
use crate::time::rfc3339;

type Answer = Result<Response, Refusal>;

#[derive(Serialize)]
struct Overview {
    range: Range,
    range_ms: u64,
    totals: Sums,
    previous: Sums,
    now: Now,
}

/// The fleet at this moment.
#[derive(Serialize)]
struct Now {
    in_flight: u64,
    waiting: usize,
    nodes_total: usize,
    nodes_ready: usize,
    models_loaded: usize,
}

impl Now {
    fn of(state: &AdminState) -> Self {
        let view = state.view();
        let nodes = &view.snapshot.nodes;
        let online = || nodes.iter().filter(|node| takes_requests(node, &view.policy, view.now_ms));
        Self {
            in_flight: nodes.iter().map(|node| u64::from(node.load.in_flight())).sum(),
            waiting: state.source().queue().total,
            nodes_total: nodes.len(),
            nodes_ready: online().count(),
            models_loaded: online().map(|node| node.runners().count()).sum(),
        }
    }
}

/// `GET /dashboard/api/overview`: the range, the one before it, and the fleet now.
pub(crate) async fn overview(State(state): State<AdminState>, headers: HeaderMap, asked: Asked) -> Answer {
    let ask = Ask::read(asked)?;
    let (range, before) = ask.ranges()?;
    let store = store(&state)?;
    let (totals, previous) = tokio::try_join!(store.overview(range), store.overview(before)).map_err(refused)?;
    let overview = Overview {
        range,
        range_ms: range.to_ms() - range.from_ms(),
        totals: (&totals.summary).into(),
        previous: (&previous.summary).into(),
        now: Now::of(&state),
    };
    Ok(told(&headers, ask.csv(), &overview, &[&overview.totals]))
}

#[derive(Serialize)]
struct Trends {
    range: Range,
    step_ms: u64,
    points: Vec<Point>,
    previous: Option<Vec<Point>>,
}

#[derive(Serialize)]
struct Point {
    at_unix_ms: u64,
    #[serde(flatten)]
    sums: Sums,
}

fn points(points: &[TrendPoint]) -> Vec<Point> {
    points.iter().map(|one| Point { at_unix_ms: one.bucket * 1_000, sums: (&one.summary).into() }).collect()
}

/// `GET /dashboard/api/trends`: the range step by step, and with `compare=1` the one before it.
pub(crate) async fn trends(State(state): State<AdminState>, headers: HeaderMap, asked: Asked) -> Answer {
    let ask = Ask::read(asked)?;
    let (range, before) = ask.ranges()?;
    let store = store(&state)?;
    let filter =
        TrendFilter { model: ask.model.clone(), node_id: ask.node.clone(), app: ask.app.clone(), format: None };
    let step_s = ask.step_s(range);
    let now = store.trends(range, step_s, filter.clone()).await.map_err(refused)?;
    let previous = if ask.compares() {
        let previous = store.trends(before, now.step_s, filter).await.map_err(refused)?;
        Some(points(&previous.data))
    } else {
        None
    };
    let trends = Trends { range, step_ms: now.step_s * 1_000, points: points(&now.data), previous };
    Ok(told(&headers, ask.csv(), &trends, &trends.points))
}

#[derive(Serialize)]
struct Models {
    range: Range,
    models: Vec<ModelRow>,
}

#[derive(Serialize)]
struct ModelRow {
    model: String,
    #[serde(flatten)]
    sums: Sums,
    /// Tokens of prompts with their answers.
    context_used_p95: Option<f64>,
    context_used_max: Option<f64>,
    /// The largest window that served, tokens.
    context_allocated: Option<u64>,
    nodes: Vec<ModelNode>,
}

#[derive(Serialize)]
struct ModelNode {
    node_id: String,
    #[serde(flatten)]
    sums: Sums,
    /// In memory there now.
    hot: bool,
}

/// `GET /dashboard/api/models`: each model, and how it does on each node.
pub(crate) async fn models(State(state): State<AdminState>, headers: HeaderMap, asked: Asked) -> Answer {
    let ask = Ask::read(asked)?;
    let (range, _) = ask.ranges()?;
    let store = store(&state)?;
    let found =
        tokio::try_join!(store.models(range), store.usage(GroupBy::NodeModel, range), store.context_usage(range));
    let (models, usage, context) = found.map_err(refused)?;
    let view = state.view();
    let mut nodes = BTreeMap::<String, Vec<ModelNode>>::new();
    for row in usage.data {
        if let Some((model, node)) = model_node(row, &view) {
            nodes.entry(model).or_default().push(node);
        }
    }
    let mut context: BTreeMap<_, _> = context.into_iter().map(|one| (one.model.clone(), one)).collect();
    let models = models.models.into_iter().map(|one| {
        let used = context.remove(&one.model);
        let tokens = used.as_ref().and_then(|used| used.total_tokens);
        ModelRow {
            sums: (&one.summary).into(),
            context_used_p95: tokens.map(|tokens| tokens.p95),
            context_used_max: tokens.map(|tokens| tokens.max),
            context_allocated: used.and_then(|used| used.context_length_max),
            nodes: nodes.remove(&one.model).unwrap_or_default(),
            model: one.model,
        }
    });
    let models = Models { range, models: models.collect() };
    Ok(told(&headers, ask.csv(), &models, &models.models))
}

fn model_node(row: UsageRow, view: &View) -> Option<(String, ModelNode)> {
    let (model, node_id) = (row.model?, row.node_id.filter(|node_id| !node_id.is_empty())?);
    let there = view.snapshot.node(&node_id).zip(ModelName::new(&model).ok());
    let hot = there.and_then(|(node, name)| node.model(&name)).is_some_and(|model| model.resident.is_some());
    Some((model, ModelNode { sums: (&row.summary).into(), node_id, hot }))
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the answer")]
struct Apps {
    range: Range,
    apps: Vec<AppRow>,
    tags: Vec<TagRow>,
}

#[derive(Serialize)]
struct AppRow {
    /// Empty = not said.
    app: String,
    #[serde(flatten)]
    sums: Sums,
}

#[derive(Serialize)]
struct TagRow {
    tag: String,
    #[serde(flatten)]
    sums: Sums,
}

/// `GET /dashboard/api/apps`, also as `/dashboard/api/tags`: who asks.
pub(crate) async fn apps(State(state): State<AdminState>, headers: HeaderMap, asked: Asked) -> Answer {
    let ask = Ask::read(asked)?;
    let (range, _) = ask.ranges()?;
    let apps = store(&state)?.apps(range).await.map_err(refused)?;
    let apps = Apps {
        range,
        apps: apps.apps.into_iter().map(|one| AppRow { sums: (&one.summary).into(), app: one.app }).collect(),
        tags: apps.tags.into_iter().map(|one| TagRow { sums: (&one.summary).into(), tag: one.tag }).collect(),
    };
    Ok(told(&headers, ask.csv(), &apps, &apps.apps))
}

#[derive(Serialize)]
struct Days {
    range: Range,
    days: Vec<Day>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the answer")]
struct Day {
    /// In UTC, as `2026-11-24`.
    day: String,
    app: String,
    requests: u64,
    tokens: u64,
    errors: u64,
}

impl From<AppDay> for Day {
    fn from(one: AppDay) -> Self {
        Self {
            day: date(one.day_bucket),
            app: one.app,
            requests: one.summary.requests,
            tokens: one.summary.total_tokens,
            errors: one.summary.errors,
        }
    }
}

fn date(day_bucket: u64) -> String {
    rfc3339(day_bucket * 1_000).chars().take_while(|letter| *letter != 'T').collect()
}

/// `GET /dashboard/api/apps/daily`: who asks, by day.
pub(crate) async fn apps_daily(State(state): State<AdminState>, headers: HeaderMap, asked: Asked) -> Answer {
    let ask = Ask::read(asked)?;
    let (range, _) = ask.ranges()?;
    let days = store(&state)?.apps_daily(range).await.map_err(refused)?;
    let days = Days { range, days: days.into_iter().map(Day::from).collect() };
    Ok(told(&headers, ask.csv(), &days, &days.days))
}

#[derive(Serialize)]
struct Usage {
    range: Range,
    group_by: GroupBy,
    rows: Vec<UsageShown>,
    truncated: bool,
}

#[derive(Serialize)]
struct UsageShown {
    /// All names of the group, joined.
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    surface: Option<String>,
    latency_ms_avg: Option<f64>,
    ttft_ms_avg: Option<f64>,
    #[serde(flatten)]
    sums: Sums,
}

impl From<UsageRow> for UsageShown {
    fn from(row: UsageRow) -> Self {
        let day = row.day_bucket.map(date);
        let names = [&day, &row.node_id, &row.model, &row.app, &row.original_format];
        Self {
            key: names.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" "),
            latency_ms_avg: row.summary.latency_ms.map(|spread| spread.avg),
            ttft_ms_avg: row.summary.time_to_first_token_ms.map(|spread| spread.avg),
            sums: (&row.summary).into(),
            day,
            node_id: row.node_id,
            model: row.model,
            app: row.app,
            surface: row.original_format,
        }
    }
}

/// `GET /dashboard/api/usage`: the range in groups, by `group_by`.
pub(crate) async fn usage(State(state): State<AdminState>, headers: HeaderMap, asked: Asked) -> Answer {
    let ask = Ask::read(asked)?;
    let (range, _) = ask.ranges()?;
    let usage = store(&state)?.usage(ask.group_by.unwrap_or(GroupBy::Node), range).await.map_err(refused)?;
    let rows = usage.data.into_iter().map(UsageShown::from).collect();
    let usage = Usage { range, group_by: usage.group_by, rows, truncated: usage.truncated };
    Ok(told(&headers, ask.csv(), &usage, &usage.rows))
}

#[derive(Serialize)]
struct Contexts {
    range: Range,
    rows: Vec<ContextUsage>,
}

/// `GET /dashboard/api/context-usage`: how much context requests really use, by model.
pub(crate) async fn context_usage(State(state): State<AdminState>, headers: HeaderMap, asked: Asked) -> Answer {
    let ask = Ask::read(asked)?;
    let (range, _) = ask.ranges()?;
    let rows = store(&state)?.context_usage(range).await.map_err(refused)?;
    let contexts = Contexts { range, rows };
    Ok(told(&headers, ask.csv(), &contexts, &contexts.rows))
}
