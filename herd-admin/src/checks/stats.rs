//! What the checks count: the last hour from memory, the last day from the roll-ups, and what the edge counts.
//!
//! "The last hour" is its last 55 to 60 minutes, of counters the last 60 to 61. "The last day" begins with a whole hour:
//! it is the last 24 to 25 hours.

use std::collections::HashSet;

use herd_core::fleet::FleetSnapshot;
use herd_core::health::{
    ContextUse, Demand, DemandWindow, EdgeWindow, ModelStats, ModelWindow, NodeStats, NodeWindow, Percentiles, Stats,
    StoreState, StoreStats,
};
use herd_store::{self as store, DAY_MS, DaySums, Details, LastHour, PairDay, Spread, StoreHandle, Summary};

use super::counted::{Counted, EdgeCounts};
use crate::node_facts::{model_named, takes_requests};
use crate::pull::PullInfo;
use crate::state::AdminState;
use crate::view::View;

/// All that is counted now. What the store does not tell in time is as if nothing had been.
pub(super) async fn gather(state: &AdminState) -> Stats {
    let view = state.view();
    let mut known = match &state.config().store {
        Some(store) => counted(store, &view).await,
        None => Stats::default(),
    };
    let (running, recent) = state.pulls().list();
    add_pulls(&mut known.edge.day, &running, &recent, view.unix_ms.saturating_sub(DAY_MS));
    add_counts(&mut known, state, &view);
    for (id, [hour, day]) in departures(state, &view) {
        let [hour, day] = [hour, day].map(|departures| NodeWindow { departures });
        known.nodes.insert(id, NodeStats { hour, day });
    }
    known.join_refusals = state.joins().list(view.now_ms);
    known
}

fn departures(state: &AdminState, view: &View) -> Vec<(String, [u64; 2])> {
    let nodes = &view.snapshot.nodes;
    let ids = |passes: &dyn Fn(&herd_core::fleet::Node) -> bool| -> HashSet<String> {
        nodes.iter().filter(|node| passes(node)).map(|node| node.id.to_string()).collect()
    };
    let present = ids(&|node| takes_requests(node, &view.policy, view.now_ms));
    let asked = ids(&|node| node.draining || node.cordoned || node.paused.is_some());
    state.checks().departures(present, &asked, view.now_ms)
}

/// Pulls that requests started in the last day, of the latest 64.
fn add_pulls(day: &mut EdgeWindow, running: &[PullInfo], recent: &[PullInfo], since_ms: u64) {
    let ended = recent.iter().filter(|pull| pull.ended_unix_ms.is_some_and(|at| at >= since_ms));
    for pull in running.iter().chain(ended).filter(|pull| pull.reason == "auto") {
        day.auto_pulls += 1;
        day.auto_pulls_failed += u64::from(pull.phase == "failed");
    }
}

fn add_counts(known: &mut Stats, state: &AdminState, view: &View) {
    let health = state.config().store.as_ref().map(StoreHandle::health);
    let dropped = health.as_ref().map_or(0, |health| health.dropped);
    let [hour, day] = state.checks().count(Counted { edge: state.source().counts(), dropped }, view.now_ms);
    known.edge.store = store_stats(health.as_ref(), hour.dropped);
    for (window, counts) in [(&mut known.edge.hour, hour.edge), (&mut known.edge.day, day.edge)] {
        let EdgeCounts {
            queue_refused,
            queue_timeouts,
            retry_budget_exhausted,
            unforeseen_loads,
            bodies_refused,
            sleeps,
            unmarked_proxies,
        } = counts;
        *window = EdgeWindow {
            queue_refused,
            queue_timeouts,
            retry_budget_exhausted,
            unforeseen_loads,
            bodies_refused,
            sleeps,
            unmarked_proxies,
            // A short one that nobody foresaw is no cold load of the traces.
            loads: window.loads.max(unforeseen_loads),
            ..window.clone()
        };
    }
}

fn store_stats(health: Option<&store::StoreHealth>, dropped_hour: u64) -> StoreStats {
    let Some(health) = health else {
        return StoreStats { state: StoreState::Disabled, ..StoreStats::default() };
    };
    let state = match health.state {
        store::StoreState::Full | store::StoreState::Unwritable | store::StoreState::Locked => StoreState::Unwritable,
        store::StoreState::Newer | store::StoreState::Failing => StoreState::Broken,
        _ if health.set_aside.is_some() => StoreState::SetAside,
        _ => StoreState::Ok,
    };
    StoreStats {
        state,
        dropped_hour,
        file_bytes: health.file_bytes,
        disk_free_bytes: health.disk_free_bytes,
        used_bytes: health.used_bytes,
        max_bytes: health.max_bytes,
        clock_step_ms: health.clock_step_ms,
    }
}

async fn counted(store: &StoreHandle, view: &View) -> Stats {
    let mut hour = store.last_hour(view.unix_ms);
    let mut stats = Stats::default();
    stats.edge.hour = edge_window(&hour.total.summary());
    match store.last_day(view.unix_ms).await {
        Ok(day) => add_day(&mut stats, &mut hour, day, view),
        Err(error) => tracing::debug!(%error, "the last day is not known"),
    }
    // What began within the quarter of a second that the roll-ups lag, or with all of it when they do not answer.
    for ((node_id, model), work) in hour.pairs {
        let context =
            ContextUse { allocated: loaded_window(&view.snapshot, &node_id, &model), ..ContextUse::default() };
        let hour = hour_window(&work.summary(), work.details(), context);
        stats.models.entry(node_id).or_default().push(ModelStats { model, hour, ..ModelStats::default() });
    }
    let rest = hour.asked.into_iter();
    stats.demand.extend(rest.map(|(model, asked)| Demand { model, hour: asked_window(asked), ..Demand::default() }));
    stats
}

fn add_day(stats: &mut Stats, hour: &mut LastHour, day: DaySums, view: &View) {
    stats.observed_ms = if day.first_ms == 0 { 0 } else { view.unix_ms.saturating_sub(day.first_ms) };
    stats.edge.day = edge_window(&day.total);
    for pair in day.pairs {
        let context = context_use(&pair, loaded_window(&view.snapshot, &pair.node_id, &pair.model));
        let PairDay { node_id, model, summary, .. } = pair;
        let key = (node_id, model);
        let last = hour.pairs.remove(&key);
        let last = last.map(|work| hour_window(&work.summary(), work.details(), context)).unwrap_or_default();
        let (node_id, model) = key;
        let row = ModelStats { model, hour: last, day: model_window(&summary, context) };
        stats.models.entry(node_id).or_default().push(row);
    }
    for (model, summary) in day.asked {
        let last = hour.asked.remove(&model).map(asked_window).unwrap_or_default();
        let day = DemandWindow {
            requests: summary.requests,
            refused_unknown: summary.unknown_models,
            stand_ins: summary.fallbacks,
        };
        stats.demand.push(Demand { model, hour: last, day });
    }
}

fn asked_window(asked: store::Asked) -> DemandWindow {
    let store::Asked { requests, unknown, stand_ins } = asked;
    DemandWindow { requests, refused_unknown: unknown, stand_ins }
}

fn edge_window(told: &Summary) -> EdgeWindow {
    EdgeWindow {
        requests: told.requests,
        queue_wait: percentiles(told.queue_ms),
        loads: told.cold_loads,
        ..EdgeWindow::default()
    }
}

fn hour_window(told: &Summary, details: &Details, context: ContextUse) -> ModelWindow {
    ModelWindow {
        retries: details.retries,
        busy: details.busy,
        reloads: details.reloads,
        prediction: details.prediction(),
        ..model_window(told, context)
    }
}

fn model_window(told: &Summary, context: ContextUse) -> ModelWindow {
    let cold_loads = told.cold_loads.saturating_sub(told.reloads);
    ModelWindow {
        requests: told.requests,
        completed: told.completed,
        failed: told.failed,
        incomplete: told.incomplete,
        reaped: told.reaped,
        client_disconnected: told.client_disconnected,
        cold_loads,
        // Not every API tells how long a load took: those that were told stand for all.
        load_ms_total: told.load_ms.map_or(0.0, |spread| spread.avg * cold_loads as f64),
        ttft: percentiles(told.time_to_first_token_ms),
        latency: percentiles(told.latency_ms),
        queue_wait: percentiles(told.queue_ms),
        tokens_per_s: told.tokens_per_s.map(|spread| spread.p50),
        overflows: told.overflows,
        prompt_tokens: told.prompt_tokens,
        output_tokens: told.completion_tokens,
        context,
        ..ModelWindow::default()
    }
}

fn percentiles(spread: Option<Spread>) -> Percentiles {
    spread.map_or_else(Percentiles::default, |spread| Percentiles {
        samples: spread.count,
        p50_ms: spread.p50,
        p95_ms: spread.p95,
        p99_ms: spread.p99,
    })
}

/// The window of the runner that is in memory there now.
fn loaded_window(snapshot: &FleetSnapshot, node_id: &str, model: &str) -> Option<u64> {
    model_named(snapshot.node(node_id)?, model)?.resident.as_ref()?.context_length
}

/// What the requests of a day used of their window.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of tokens; saturates")]
fn context_use(pair: &PairDay, loaded: Option<u64>) -> ContextUse {
    ContextUse {
        samples: pair.used.map_or(0, |used| used.count),
        used_p95: pair.used.map_or(0, |used| used.p95.ceil() as u64),
        used_max: pair.used.map_or(0, |used| used.max as u64),
        allocated: loaded.or(Some(pair.window).filter(|window| *window > 0)),
    }
}
