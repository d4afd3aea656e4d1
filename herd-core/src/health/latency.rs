//! Time: slow nodes, loads that need not be, waiting, and predictions that do not come true.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fix;
use super::{Inputs, ModelStats, Seen, human_bytes, human_ms, measured, share};
use crate::fleet::{Model, Node};

/// How many times as slow as its peers a node must be for its memory bandwidth.
const SLOW_FACTOR: f64 = 2.0;
/// The same where no bandwidth is known: hardware of one fleet easily differs by less.
const SLOW_FACTOR_UNKNOWN: f64 = 4.0;

/// A node that writes slower than its hardware should, against others that serve the same model.
pub(super) fn slow_node(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let mut by_model: BTreeMap<&str, Vec<(&Node, &ModelStats, f64)>> = BTreeMap::new();
    for (node, row) in inputs.rows().filter(|(_, row)| row.hour.completed >= min_samples) {
        if let Some(rate) = row.hour.tokens_per_s.and_then(measured) {
            by_model.entry(&row.model).or_default().push((node, row, rate));
        }
    }
    let mut seen = Vec::new();
    for peers in by_model.values().filter(|peers| peers.len() > 1) {
        for (index, (node, row, rate)) in peers.iter().enumerate() {
            let others = || peers.iter().enumerate().filter(move |(other, _)| *other != index).map(|(_, peer)| peer);
            let Some((expected, factor)) = expected_rate(node, others) else { continue };
            if rate * factor >= expected {
                continue;
            }
            let detail = format!("{rate:.1} tokens/s, where its peers would make {expected:.1} of such hardware.");
            seen.push(
                Seen::at(node, row, detail)
                    .with("tokens_per_s", *rate)
                    .with("expected_tokens_per_s", expected)
                    .with("requests", row.hour.completed)
                    .with("peers", (peers.len() - 1) as u64)
                    .fix("ollama ps; nvidia-smi  # is it all on the GPU, and what else runs there?"),
            );
        }
    }
    seen
}

/// The median of what the others make, scaled by bandwidth where all tell it, and the factor to judge by.
fn expected_rate<'a, I>(node: &Node, others: impl Fn() -> I) -> Option<(f64, f64)>
where
    I: Iterator<Item = &'a (&'a Node, &'a ModelStats, f64)>,
{
    let bandwidth = |node: &Node| node.bandwidth_gbps.and_then(measured);
    let scaled: Option<Vec<f64>> =
        others().map(|(peer, _, rate)| Some(rate / bandwidth(peer)? * bandwidth(node)?)).collect();
    match scaled {
        Some(rates) => Some((median(rates)?, SLOW_FACTOR)),
        None => Some((median(others().map(|(_, _, rate)| *rate).collect())?, SLOW_FACTOR_UNKNOWN)),
    }
}

/// The lower of the middle two, so that one fast peer of two does not set the pace.
fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len().checked_sub(1)? / 2).copied().and_then(measured)
}

/// How many times as slow as in its last day a node must be in its last hour.
const SLOWED_FACTOR: f64 = 2.0;
/// The same for one that runs several at once, as each is slower the more there are.
const SLOWED_FACTOR_PARALLEL: f64 = 4.0;

/// Heat, a game, a backup: something slows a node that was faster.
pub(super) fn slowed(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let seen = inputs.rows().filter_map(|(node, row)| {
        let before = row.day.completed.saturating_sub(row.hour.completed);
        if row.hour.completed < min_samples || before < min_samples {
            return None;
        }
        let (now, usual) = (measured(row.hour.tokens_per_s?)?, measured(row.day.tokens_per_s?)?);
        let slots = node.models.iter().find(|model| model.name.as_str() == row.model)?.slots(&node.env);
        let factor = if slots > 1 { SLOWED_FACTOR_PARALLEL } else { SLOWED_FACTOR };
        (now * factor < usual).then(|| {
            Seen::at(node, row, format!("{now:.1} tokens/s within the last hour, {usual:.1} within the last day."))
                .with("tokens_per_s", now)
                .with("usual_tokens_per_s", usual)
                .with("requests", row.hour.completed)
                .fix("top; nvidia-smi  # what else runs there, and is it throttled?")
        })
    });
    seen.collect()
}

/// Share of requests that may find their model cold.
const COLD_SHARE: f64 = 0.2;
/// Fewest loads: the first ones of a day are as they should be.
const COLD_LOADS_MIN: u64 = 5;
/// A model needs one part in so many more than its weights.
const CONTEXT_SHARE: u64 = 10;

/// Why a model did not stay in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unloaded {
    /// There was room for it, and it was unloaded when it had been idle.
    Idle,
    /// There was room for it, but not within the number of models that may be loaded.
    Limit(u32),
    /// Others needed the memory, or it is not known how much there is.
    Others,
}

/// The pairs that load for too many of their requests, and why.
pub(super) fn cold<'a>(
    inputs: &Inputs<'a>,
    min_samples: u64,
) -> impl Iterator<Item = (&'a Node, &'a ModelStats, Unloaded)> {
    let too_many = move |row: &ModelStats| {
        let (loads, requests) = (row.hour.cold_loads, row.hour.requests);
        requests >= min_samples && loads >= COLD_LOADS_MIN && share(loads, requests) >= COLD_SHARE
    };
    inputs.rows().filter(move |(_, row)| too_many(row)).map(move |(node, row)| (node, row, unloaded(inputs, node)))
}

/// Judged by all that was asked for on the node within the hour: what fits alone may not fit beside the others.
fn unloaded(inputs: &Inputs<'_>, node: &Node) -> Unloaded {
    let is_asked_for = |model: &&Model| {
        let row = inputs.stats.pair(node.id.as_str(), model.name.as_str());
        row.is_some_and(|row| row.hour.requests > 0)
    };
    let mut asked_for: Vec<&Model> = Vec::new();
    for model in node.models.iter().filter(is_asked_for) {
        if !asked_for.iter().any(|known| Arc::ptr_eq(&known.load, &model.load)) {
            asked_for.push(model);
        }
    }
    let needed = asked_for.iter().try_fold(0_u64, |all, model| {
        let loaded = model.resident.as_ref().and_then(|resident| resident.size_bytes);
        let size = loaded.or_else(|| model.size_bytes.map(|size| size.saturating_add(size / CONTEXT_SHARE)))?;
        Some(all.saturating_add(size))
    });
    let has_room = needed.zip(for_models(node)).is_some_and(|(needed, most)| needed <= most);
    let limit = max_loaded(node);
    let is_over = asked_for.len() as u64 > u64::from(limit);
    match (has_room, is_over) {
        (false, _) => Unloaded::Others,
        (true, true) => Unloaded::Limit(limit),
        (true, false) => Unloaded::Idle,
    }
}

/// Memory that models have on a node, or could have.
fn for_models(node: &Node) -> Option<u64> {
    let loaded = node.runners().try_fold(0_u64, |all, (_, resident)| {
        Some(all.saturating_add(resident.size_vram_bytes.or(resident.size_bytes)?))
    });
    Some(node.device.free_bytes?.saturating_add(loaded?))
}

/// Models that the node's Ollama keeps at once: its setting, else three for each GPU.
fn max_loaded(node: &Node) -> u32 {
    const PER_GPU: u32 = 3;
    let gpus = node.heartbeat.herd.as_ref().map_or(1, |report| report.gpus.len().max(1));
    let default = PER_GPU.saturating_mul(u32::try_from(gpus).unwrap_or(u32::MAX));
    node.env.max_loaded_models.filter(|limit| *limit > 0).unwrap_or(default)
}

/// What a finding about cold loads goes by.
pub(super) fn cold_seen(node: &Node, row: &ModelStats, detail: String) -> Seen {
    let mean_ms = measured(row.hour.load_ms_total).map(|ms| ms / row.hour.cold_loads.max(1) as f64);
    Seen::at(node, row, detail)
        .with("cold_loads", row.hour.cold_loads)
        .with("requests", row.hour.requests)
        .with_known("load_ms", mean_ms)
}

/// Too many models for the memory: each pushes out another that is needed next.
pub(super) fn cold_loads(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let seen = cold(inputs, min_samples).filter(|(_, _, why)| *why == Unloaded::Others).map(|(node, row, _)| {
        let free = node.device.free_bytes;
        let left = free.map_or_else(String::new, |bytes| format!("; {} are free", human_bytes(bytes)));
        let detail = format!("{} of {} requests waited for a load{left}.", row.hour.cold_loads, row.hour.requests);
        let members = [("model", row.model.as_str()), ("node_id", node.id.as_str())];
        cold_seen(node, row, detail).with_known("free_bytes", free).fix(fix::post("/fleet/pin", &members))
    });
    seen.collect()
}

/// More is asked for than the fleet has slots for.
pub(super) fn queue_saturated(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let wait = &inputs.stats.edge.hour.queue_wait;
    let limit_ms = inputs.policy.queue_wait_p95_ms;
    match measured(wait.p95_ms) {
        Some(p95_ms) if wait.samples >= min_samples && p95_ms >= limit_ms => {
            let detail = format!("5 of 100 requests within the last hour waited {} or longer.", human_ms(p95_ms));
            let seen = Seen::in_fleet(detail)
                .with("queue_wait_p50_ms", wait.p50_ms)
                .with("queue_wait_p95_ms", p95_ms)
                .with("requests", wait.samples);
            vec![seen.fix("curl http://127.0.0.1:11435/dashboard/api/recommendations")]
        }
        _ => Vec::new(),
    }
}

/// Share of requests that may be turned away.
const REFUSED_SHARE: f64 = 0.01;

/// The queue is full, or its deadline comes first: clients get 503.
pub(super) fn queue_refusals(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let hour = &inputs.stats.edge.hour;
    let turned_away = hour.queue_refused.saturating_add(hour.queue_timeouts);
    if hour.requests < min_samples || share(turned_away, hour.requests) < REFUSED_SHARE {
        return Vec::new();
    }
    let detail = format!("{turned_away} of {} requests within the last hour were turned away.", hour.requests);
    let seen = Seen::in_fleet(detail)
        .with("queue_refused", hour.queue_refused)
        .with("queue_timeouts", hour.queue_timeouts)
        .with("requests", hour.requests);
    vec![seen.fix("curl http://127.0.0.1:11435/fleet/queue  # add a node for the model that waits longest")]
}

/// How many times as long, or as short, a prediction may be.
const DRIFT_FACTOR: f64 = 3.0;
/// What it may be off in any case, milliseconds.
const DRIFT_MS: f64 = 1_000.0;

/// Predictions choose nodes: where they are far off, so are choices.
pub(super) fn prediction_drift(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let seen = inputs.rows().filter_map(|(node, row)| {
        let error = &row.hour.prediction;
        let actual = measured(error.actual_ms)?;
        let predicted = Some(error.predicted_ms).filter(|ms| ms.is_finite() && *ms >= 0.0)?;
        let near = (actual - predicted).abs() < DRIFT_MS;
        let alike = actual <= predicted * DRIFT_FACTOR && predicted <= actual * DRIFT_FACTOR;
        if error.samples < min_samples || near || alike {
            return None;
        }
        let detail = format!(
            "Predicted until the answer begins: {}; it took {}, on average.",
            human_ms(predicted),
            human_ms(actual)
        );
        Some(
            Seen::at(node, row, detail)
                .with("predicted_ms", predicted)
                .with("actual_ms", actual)
                .with("requests", error.samples)
                .fix(fix::post("/fleet/explain", &[("model", &row.model)])),
        )
    });
    seen.collect()
}

/// Share of loads that may come as a surprise.
const UNFORESEEN_SHARE: f64 = 0.1;

/// Something else than this edge loads and unloads models.
pub(super) fn unforeseen_loads(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let hour = &inputs.stats.edge.hour;
    if hour.loads < min_samples || share(hour.unforeseen_loads, hour.loads) < UNFORESEEN_SHARE {
        return Vec::new();
    }
    let detail = format!("{} of {} loads within the last hour were not foreseen.", hour.unforeseen_loads, hour.loads);
    let seen = Seen::in_fleet(detail).with("unforeseen_loads", hour.unforeseen_loads).with("loads", hour.loads);
    vec![seen.fix("export OLLAMA_HOST=http://EDGE:11435  # for every client, so that none uses a node directly")]
}
