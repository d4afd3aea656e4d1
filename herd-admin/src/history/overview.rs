//! `GET /dashboard/api/overview` and `/trends`: the whole fleet, then and now.

use axum::extract::State;
use axum::response::Response;
use herd_core::fleet::NodeState;
use herd_store::{TrendFilter, TrendPoint};
use http::HeaderMap;
use serde::Serialize;

use super::ask::Ask;
use super::shapes::{Quantiles, Totals};
use super::told;
use crate::answer::{JSON, json_if_changed};
use crate::node_facts::slots;
use crate::refusal::Refusal;
use crate::state::AdminState;

#[derive(Serialize)]
struct Overview {
    range_ms: u64,
    from_unix_ms: u64,
    to_unix_ms: u64,
    totals: Totals,
    previous: Totals,
    models_count: usize,
    nodes_count: usize,
    apps_count: usize,
    now: Now,
}

/// The fleet at this moment, in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Now {
    in_flight: u32,
    waiting: usize,
    nodes_total: usize,
    nodes_online: usize,
    slots: u32,
    slots_busy: u32,
    models_loaded: usize,
}

impl Now {
    pub(crate) fn of(state: &AdminState) -> Self {
        let view = state.view();
        let nodes = &view.snapshot.nodes;
        let life = &view.policy.life;
        let present = || nodes.iter().filter(|node| node.state(view.now_ms, life) != NodeState::Offline);
        let busy = |node: &herd_core::fleet::Node| node.load.in_flight().saturating_add(node.busy_by_others());
        Self {
            in_flight: view.snapshot.in_flight(),
            waiting: state.source().queue().total,
            nodes_total: nodes.len(),
            nodes_online: nodes.iter().filter(|node| node.state(view.now_ms, life) == NodeState::Online).count(),
            slots: present().map(|node| slots(node)).fold(0, u32::saturating_add),
            slots_busy: present().map(|node| busy(node).min(slots(node))).fold(0, u32::saturating_add),
            models_loaded: present().map(|node| node.runners().count()).sum(),
        }
    }
}

/// All requests of a range, those of the range before, and the fleet now.
pub(crate) async fn overview(
    State(state): State<AdminState>,
    ask: Ask,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let range = ask.range()?;
    let store = state.store()?;
    let (then, previous) = tokio::join!(store.overview(range), store.overview(ask.before(range)));
    let then = then.map_err(|error| state.store_refusal(&error))?;
    let previous = previous.map_err(|error| state.store_refusal(&error))?;
    let answer = Overview {
        range_ms: range.to_ms() - range.from_ms(),
        from_unix_ms: range.from_ms(),
        to_unix_ms: range.to_ms(),
        totals: (&then.summary).into(),
        previous: (&previous.summary).into(),
        models_count: then.models_count,
        nodes_count: then.nodes_count,
        apps_count: then.apps_count,
        now: Now::of(&state),
    };
    Ok(json_if_changed(&headers, JSON, &answer))
}

#[derive(Serialize)]
struct Trends {
    step_ms: u64,
    from_unix_ms: u64,
    to_unix_ms: u64,
    points: Vec<Point>,
    previous: Option<Vec<Point>>,
}

#[derive(Serialize)]
struct Point {
    at_unix_ms: u64,
    requests: u64,
    completed: u64,
    errors: u64,
    client_disconnected: u64,
    ttft_ms: Quantiles,
    latency_ms: Quantiles,
    queue_ms: Quantiles,
    /// Written per second for one request, the median.
    tokens_per_s: Option<f64>,
    prompt_tokens: u64,
    completion_tokens: u64,
    cold_loads: u64,
    reloads: u64,
    retries: u64,
    overflows: u64,
}

impl From<TrendPoint> for Point {
    fn from(point: TrendPoint) -> Self {
        let told = &point.summary;
        Self {
            at_unix_ms: point.bucket.saturating_mul(1_000),
            requests: told.requests,
            completed: told.completed,
            errors: told.errors,
            client_disconnected: told.client_disconnected,
            ttft_ms: told.time_to_first_token_ms.into(),
            latency_ms: told.latency_ms.into(),
            queue_ms: told.queue_ms.into(),
            tokens_per_s: told.tokens_per_s.map(|spread| spread.p50),
            prompt_tokens: told.prompt_tokens,
            completion_tokens: told.completion_tokens,
            cold_loads: told.cold_loads,
            reloads: told.reloads,
            retries: told.retries,
            overflows: told.overflows,
        }
    }
}

/// Requests over time, in steps of minutes, hours or days; `compare` = with the range before.
pub(crate) async fn trends(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Result<Response, Refusal> {
    let range = ask.range()?;
    let step_s = ask.step_s(range)?;
    let filter = TrendFilter {
        model: ask.text("model"),
        node_id: ask.text("node"),
        app: ask.text("app"),
        format: ask.text("surface"),
    };
    let store = state.store()?;
    let now = store.trends(range, step_s, filter.clone()).await.map_err(|error| state.store_refusal(&error))?;
    let previous = if ask.flag("compare") {
        // As wide as these, so that they can be laid over them.
        let then = store
            .trends(ask.before(now.range), now.step_s, filter)
            .await
            .map_err(|error| state.store_refusal(&error))?;
        Some(then.data.into_iter().map(Point::from).collect())
    } else {
        None
    };
    let answer = Trends {
        step_ms: now.step_s.saturating_mul(1_000),
        from_unix_ms: now.range.from_ms(),
        to_unix_ms: now.range.to_ms(),
        points: now.data.into_iter().map(Point::from).collect(),
        previous,
    };
    Ok(told(&ask, &headers, &answer, "points"))
}
