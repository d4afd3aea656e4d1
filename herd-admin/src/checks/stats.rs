//! What the checks count, from the trace store. Its hours are whole ones, so that "the last hour" is one to two of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use herd_core::fleet::FleetSnapshot;
use herd_core::health::{
    ContextUse, Demand, DemandWindow, EdgeWindow, ModelStats, ModelWindow, NodeStats, NodeWindow, Percentiles, Stats,
    StoreState, StoreStats,
};

use crate::node_facts::{model_named, takes_requests};
use crate::state::{AdminState, View};
use crate::store::{
    self, ContextUsage, DAY_MS, GroupBy, HOUR_MS, Range, Spread, StoreError, StoreHandle, Summary, Trouble, UsageRow,
};

/// All that is counted now. What the store does not tell in time is as if nothing had been.
pub(super) async fn gather(state: &AdminState) -> Stats {
    let view = state.view();
    let mut known = match &state.config().store {
        Some(store) => counted(store, &view).await.unwrap_or_default(),
        None => Stats::default(),
    };
    known.edge.store = store_stats(state, view.unix_ms);
    for (id, departures) in departures(state, &view) {
        let window = NodeWindow { departures };
        known.nodes.insert(id, NodeStats { hour: window, day: window });
    }
    known
}

fn departures(state: &AdminState, view: &View) -> Vec<(String, u64)> {
    let nodes = &view.snapshot.nodes;
    let ids = |passes: &dyn Fn(&herd_core::fleet::Node) -> bool| -> HashSet<String> {
        nodes.iter().filter(|node| passes(node)).map(|node| node.id.to_string()).collect()
    };
    let present = ids(&|node| takes_requests(node, &view.policy, view.now_ms));
    let asked = ids(&|node| node.draining || node.cordoned || node.paused.is_some());
    state.checks().departures(present, &asked, view.now_ms)
}

fn store_stats(state: &AdminState, unix_ms: u64) -> StoreStats {
    let Some(store) = &state.config().store else {
        return StoreStats { state: StoreState::Disabled, ..StoreStats::default() };
    };
    let health = store.health();
    let told = match health.state {
        store::StoreState::Full | store::StoreState::Unwritable | store::StoreState::Locked => StoreState::Unwritable,
        store::StoreState::Newer | store::StoreState::Failing => StoreState::Broken,
        _ if health.set_aside.is_some() => StoreState::SetAside,
        _ => StoreState::Ok,
    };
    StoreStats {
        state: told,
        dropped_hour: state.checks().dropped_in_hour(health.dropped, unix_ms),
        file_bytes: health.file_bytes,
        disk_free_bytes: None,
    }
}

async fn counted(store: &StoreHandle, view: &View) -> Result<Stats, StoreError> {
    let now_ms = view.unix_ms;
    let (hour, day) = (Range::last(HOUR_MS, now_ms), Range::last(DAY_MS, now_ms));
    let edge_hour = store.overview(hour).await?.summary;
    let edge_day = store.overview(day).await?.summary;
    let first_ms = store.overview(Range::last(3 * DAY_MS, now_ms)).await?.summary.first_ms;
    let context = store.context_usage(day).await?;
    let context: HashMap<_, _> = context.iter().map(|one| (one.model.as_str(), one)).collect();
    let mut stats =
        Stats { observed_ms: if first_ms == 0 { 0 } else { now_ms.saturating_sub(first_ms) }, ..Stats::default() };
    stats.edge.hour = edge_window(&edge_hour);
    stats.edge.day = edge_window(&edge_day);
    let hours = store.usage(GroupBy::NodeModel, hour).await?.data;
    let mut hours: HashMap<_, _> = hours.into_iter().filter_map(pair).collect();
    for row in store.usage(GroupBy::NodeModel, day).await?.data {
        let Some(((node_id, model), summary)) = pair(row) else { continue };
        let used = context_use(context.get(model.as_str()).copied(), loaded_window(&view.snapshot, &node_id, &model));
        let key = (node_id, model);
        let hour = hours.remove(&key).map(|summary| model_window(&summary, used)).unwrap_or_default();
        let (node_id, model) = key;
        let row = ModelStats { model, hour, day: model_window(&summary, used) };
        stats.models.entry(node_id).or_default().push(row);
    }
    stats.demand = demand(store, hour, day).await?;
    // Reads single requests: of very many it may not come in time, and the rest is worth having all the same.
    add_trouble(&mut stats, &store.trouble(now_ms.saturating_sub(HOUR_MS)).await.unwrap_or_default());
    Ok(stats)
}

fn add_trouble(stats: &mut Stats, trouble: &Trouble) {
    for one in &trouble.reloads {
        let reloads = &mut hour_of(stats, &one.node_id, &one.model).reloads;
        let sum = match one.what.as_str() {
            "context_larger" => &mut reloads.context_larger,
            "context_differs" => &mut reloads.context_differs,
            "node_default" => &mut reloads.node_default,
            _ => &mut reloads.launch_options,
        };
        *sum = sum.saturating_add(one.count);
    }
    for one in &trouble.retried {
        let hour = hour_of(stats, &one.node_id, &one.model);
        hour.retries = hour.retries.saturating_add(one.count);
        if one.what == "busy" {
            hour.busy = hour.busy.saturating_add(one.count);
        }
    }
}

/// The last hour of a model on a node, which may have had nothing but trouble.
fn hour_of<'a>(stats: &'a mut Stats, node_id: &str, model: &str) -> &'a mut ModelWindow {
    let rows = stats.models.entry(node_id.to_owned()).or_default();
    let at = rows.iter().position(|row| row.model == model).unwrap_or_else(|| {
        rows.push(ModelStats { model: model.to_owned(), ..ModelStats::default() });
        rows.len() - 1
    });
    &mut rows[at].hour
}

fn pair(row: UsageRow) -> Option<((String, String), Summary)> {
    let (node_id, model) = (row.node_id?, row.model?);
    (!node_id.is_empty() && !model.is_empty()).then_some(((node_id, model), row.summary))
}

async fn demand(store: &StoreHandle, hour: Range, day: Range) -> Result<Vec<Demand>, StoreError> {
    let window = |summary: &Summary| DemandWindow {
        requests: summary.requests,
        // Only read of models that no node has: then that is why.
        refused_unknown: summary.rejected.saturating_add(summary.failed),
        stand_ins: 0,
    };
    let hours = store.usage(GroupBy::Model, hour).await?.data;
    let mut hours: BTreeMap<_, _> =
        hours.into_iter().filter_map(|row| Some((row.model?, window(&row.summary)))).collect();
    let days = store.usage(GroupBy::Model, day).await?.data;
    let rows = days.into_iter().filter_map(|row| {
        let model = row.model.filter(|model| !model.is_empty())?;
        Some(Demand { hour: hours.remove(&model).unwrap_or_default(), day: window(&row.summary), model })
    });
    Ok(rows.collect())
}

fn edge_window(told: &Summary) -> EdgeWindow {
    EdgeWindow {
        requests: told.requests,
        queue_wait: percentiles(told.queue_ms),
        loads: told.cold_loads,
        ..EdgeWindow::default()
    }
}

fn model_window(told: &Summary, context: ContextUse) -> ModelWindow {
    ModelWindow {
        requests: told.requests,
        completed: told.completed,
        failed: told.failed,
        incomplete: told.incomplete,
        reaped: told.reaped,
        client_disconnected: told.client_disconnected,
        cold_loads: told.cold_loads.saturating_sub(told.reloads),
        ttft: percentiles(told.time_to_first_token_ms),
        latency: percentiles(told.latency_ms),
        queue_wait: percentiles(told.queue_ms),
        tokens_per_s: told.tokens_per_s.map(|spread| spread.p50),
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

/// Usage is counted of a model on all nodes: what no request anywhere uses, none uses here.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of tokens; saturates")]
fn context_use(used: Option<&ContextUsage>, loaded: Option<u64>) -> ContextUse {
    let total = used.and_then(|used| used.total_tokens);
    ContextUse {
        samples: total.map_or(0, |total| total.count),
        used_p95: total.map_or(0, |total| total.p95.ceil() as u64),
        used_max: total.map_or(0, |total| total.max as u64),
        allocated: loaded.or_else(|| used.and_then(|used| used.context_length_max)),
    }
}
