//! The rules, one for each kind of advice. Each says how much evidence it needs.

use std::collections::BTreeMap;

use super::room::{Place, Rooms, is_asked_for};
use super::{Action, Commitments, Gain, Kind, Priority, Recommendation};
use crate::fleet::{Model, Node};
use crate::health::{Inputs, ModelStats, Value, human_bytes};
use crate::name::ModelName;
use crate::wire::Pressure;

const DAY_MS: u64 = 86_400_000;
/// Requests refused within a day from which a model is missed.
const REFUSED_MIN: u64 = 5;
/// Loads within a day from which a model should have stayed; the first is always needed.
const COLD_LOADS_MIN: u64 = 5;
/// Requests within a day from which a model is worth a second copy.
const REPLICA_REQUESTS_MIN: u64 = 50;
/// Requests within a day from which anything else is worth doing.
const REQUESTS_MIN: u64 = 20;
/// Share of a model that must be missing from its GPU for another node to be better.
const ON_CPU_SHARE: f64 = 0.1;
/// Part of the waiting that a second copy takes away at the least.
const REPLICA_PART: f64 = 0.5;
/// Seconds saved in a day from which advice is of medium and of high priority.
const SECONDS_MEDIUM: f64 = 60.0;
const SECONDS_HIGH: f64 = 600.0;

/// A model that is loaded for many of its requests, and would fit beside all that is asked for on its node.
pub(super) fn keep(inputs: &Inputs<'_>, commitments: &Commitments<'_>, rooms: &mut Rooms<'_>) -> Vec<Recommendation> {
    let mut rows: Vec<_> = inputs.rows().filter(|(_, row)| row.day.cold_loads >= COLD_LOADS_MIN).collect();
    rows.retain(|(_, row)| row.day.requests >= REQUESTS_MIN);
    rows.sort_by(|a, b| b.1.day.cold_loads.cmp(&a.1.day.cold_loads).then_with(|| place_of(a).cmp(&place_of(b))));
    let mut advice = Vec::new();
    for (node, row) in rows {
        let Some(model) = model_of(node, &row.model) else { continue };
        if commitments.is_pinned(&node.id, &model.name) {
            continue;
        }
        let Some(place) = rooms.for_model(node, model, row.day.context.allocated) else { continue };
        // What is loaded and asked for has its room already.
        if model.resident.is_none() {
            rooms.take(&place, None);
        }
        let avoided = row.day.cold_loads - 1;
        let mean_s = known(row.day.load_ms_total).map(|ms| ms / row.day.cold_loads as f64 / 1e3);
        let saved_s = mean_s.and_then(|seconds| known(seconds * avoided as f64));
        advice.push(Recommendation {
            size_bytes: model.size_bytes,
            memory_bytes: Some(place.memory_bytes),
            evidence: evidence([
                ("cold_loads_per_day", row.day.cold_loads.into()),
                ("requests_per_day", row.day.requests.into()),
            ]),
            expected_gain: Gain {
                cold_loads_avoided_per_day: Some(avoided),
                seconds_saved_per_day: saved_s,
                ..Gain::default()
            },
            ..draft(
                Kind::Keep,
                priority(saved_s),
                &model.name,
                node,
                format!(
                    "{} of {} requests a day wait until it is loaded, and its {} fit beside what else is asked for.",
                    row.day.cold_loads,
                    row.day.requests,
                    human_bytes(place.memory_bytes)
                ),
            )
        });
    }
    advice
}

/// A model that its node holds partly outside the GPU, where another holds it whole.
pub(super) fn relocate(inputs: &Inputs<'_>, _: &Commitments<'_>, rooms: &mut Rooms<'_>) -> Vec<Recommendation> {
    let mut advice: Vec<Recommendation> = Vec::new();
    let mut rows: Vec<_> = inputs.rows().filter(|(_, row)| row.day.requests >= REQUESTS_MIN).collect();
    rows.sort_by(|a, b| b.1.day.requests.cmp(&a.1.day.requests).then_with(|| place_of(a).cmp(&place_of(b))));
    for (from, row) in rows {
        let Some(model) = model_of(from, &row.model) else { continue };
        let Some((size, missing)) = on_cpu(model) else { continue };
        let is_whole_elsewhere = inputs.nodes().filter(|node| node.id != from.id).any(|node| {
            model_of(node, &row.model).is_some_and(|other| other.resident.is_some() && on_cpu(other).is_none())
        });
        if is_whole_elsewhere || advice.iter().any(|one| one.model == row.model) {
            continue;
        }
        let Some((place, pulled)) = whole_elsewhere(rooms, from, model) else { continue };
        rooms.take(&place, pulled);
        let on = place.node;
        let saved_s = decoding_saved_s(row, inputs.stats.pair(on.id.as_str(), &row.model));
        let names = (model.name.to_string(), on.id.to_string());
        let action = match pulled {
            Some(_) => Action::Pull { model: names.0, node_id: names.1 },
            None => Action::Pin { model: names.0, node_id: names.1 },
        };
        advice.push(Recommendation {
            from_node_id: Some(from.id.to_string()),
            size_bytes: model.size_bytes,
            memory_bytes: Some(place.memory_bytes),
            evidence: evidence([
                ("on_cpu_bytes", missing.into()),
                ("loaded_bytes", size.into()),
                ("requests_per_day", row.day.requests.into()),
            ]),
            expected_gain: Gain { seconds_saved_per_day: saved_s, ..Gain::default() },
            action,
            then: Some(Action::Unload { model: model.name.to_string(), node_id: from.id.to_string() }),
            ..draft(
                Kind::Move,
                priority(saved_s).max(Priority::Medium),
                &model.name,
                on,
                format!(
                    "{} holds {} of its {} outside the GPU; it fits whole on {}.",
                    from.id,
                    human_bytes(missing),
                    human_bytes(size),
                    on.id
                ),
            )
        });
    }
    advice
}

/// Where `model` fits whole in the memory of a GPU, and how much has to be downloaded for that; `None` = nothing, it is
/// there on disk.
fn whole_elsewhere<'a>(rooms: &Rooms<'a>, from: &Node, model: &Model) -> Option<(Place<'a>, Option<u64>)> {
    let context = model.resident.as_ref().and_then(|resident| resident.context_length);
    let held = rooms.nodes().filter(|node| node.id != from.id && has_gpu(node)).find_map(|node| {
        let other = node.model(&model.name).filter(|other| other.resident.is_none())?;
        rooms.for_model(node, other, context)
    });
    if let Some(place) = held {
        return Some((place, None));
    }
    let bytes = model.size_bytes?;
    rooms.for_pull_where(&model.name, bytes, context, has_gpu).map(|place| (place, Some(bytes)))
}

/// Time that a day's answers would take less at the rate of the other node, where both were measured.
fn decoding_saved_s(slow: &ModelStats, fast: Option<&ModelStats>) -> Option<f64> {
    let (slow_rate, fast_rate) = (known(slow.day.tokens_per_s?)?, known(fast?.day.tokens_per_s?)?);
    known(slow.day.output_tokens as f64 * (1.0 / slow_rate - 1.0 / fast_rate))
}

/// A model that clients ask for and no node has, of which the size is known for certain.
pub(super) fn pull(inputs: &Inputs<'_>, _: &Commitments<'_>, rooms: &mut Rooms<'_>) -> Vec<Recommendation> {
    let mut missed: Vec<_> = inputs.stats.demand.iter().filter(|row| row.day.refused_unknown >= REFUSED_MIN).collect();
    missed.sort_by(|a, b| b.day.refused_unknown.cmp(&a.day.refused_unknown).then_with(|| a.model.cmp(&b.model)));
    let mut advice = Vec::new();
    for row in missed {
        let Ok(name) = ModelName::new(&row.model) else { continue };
        let Some(size_bytes) = inputs.catalogue.build(&name).and_then(|known| known.size_bytes) else { continue };
        if inputs.nodes().any(|node| node.model(&name).is_some()) {
            continue;
        }
        let Some(place) = rooms.for_pull(&name, size_bytes, None) else { continue };
        rooms.take(&place, Some(size_bytes));
        let refused = row.day.refused_unknown;
        advice.push(Recommendation {
            size_bytes: Some(size_bytes),
            memory_bytes: Some(place.memory_bytes),
            evidence: evidence([("refused_per_day", refused.into()), ("requests_per_day", row.day.requests.into())]),
            expected_gain: Gain { requests_served_per_day: Some(refused), ..Gain::default() },
            ..draft(
                Kind::Pull,
                Priority::High,
                &name,
                place.node,
                format!("{refused} requests a day ask for it, and no node has it."),
            )
        });
    }
    advice
}

/// A model for which clients wait wherever it is loaded: one more node for it.
pub(super) fn replicate(inputs: &Inputs<'_>, _: &Commitments<'_>, rooms: &mut Rooms<'_>) -> Vec<Recommendation> {
    let mut by_model: BTreeMap<&str, Vec<(&Node, &ModelStats)>> = BTreeMap::new();
    for (node, row) in inputs.rows().filter(|(_, row)| row.day.requests > 0) {
        by_model.entry(&row.model).or_default().push((node, row));
    }
    let mut waits: Vec<_> = by_model.into_iter().filter_map(|(name, rows)| Waits::of(inputs, name, &rows)).collect();
    waits.sort_by(|a, b| b.waited_s.total_cmp(&a.waited_s).then_with(|| a.name.cmp(&b.name)));
    let mut advice = Vec::new();
    for Waits { name, size_bytes, context, requests, p95_ms, waited_s } in waits {
        // A node that has it on disk needs no download.
        let held = inputs.nodes().find_map(|node| {
            let idle = node.model(&name).filter(|model| model.resident.is_none())?;
            rooms.for_model(node, idle, context)
        });
        let pulled = size_bytes.filter(|_| held.is_none());
        let found = held.or_else(|| rooms.for_pull(&name, size_bytes?, context));
        let Some(place) = found else { continue };
        rooms.take(&place, pulled);
        let saved_s = known(waited_s * REPLICA_PART);
        let mut one = draft(
            Kind::Replicate,
            priority(saved_s),
            &name,
            place.node,
            format!("{requests} requests a day ask for it, and wait for a slot wherever it is loaded."),
        );
        if pulled.is_none() {
            one.action = Action::Pin { model: one.model.clone(), node_id: one.node_id.clone() };
        }
        advice.push(Recommendation {
            size_bytes,
            memory_bytes: Some(place.memory_bytes),
            evidence: evidence([("requests_per_day", requests.into()), ("queue_wait_p95_ms", p95_ms.into())]),
            expected_gain: Gain { seconds_saved_per_day: saved_s, ..Gain::default() },
            ..one
        });
    }
    advice
}

/// A model for which clients wait on every node that serves it.
struct Waits {
    name: ModelName,
    size_bytes: Option<u64>,
    context: Option<u64>,
    requests: u64,
    /// The least of its nodes.
    p95_ms: f64,
    /// Over all clients in a day, by the median.
    waited_s: f64,
}

impl Waits {
    fn of(inputs: &Inputs<'_>, name: &str, rows: &[(&Node, &ModelStats)]) -> Option<Self> {
        let requests = rows.iter().map(|(_, row)| row.day.requests).fold(0, u64::saturating_add);
        let samples = rows.iter().map(|(_, row)| row.day.queue_wait.samples).fold(0, u64::saturating_add);
        let p95 = rows.iter().map(|(_, row)| known(row.day.queue_wait.p95_ms).unwrap_or(0.0));
        let p95_ms = p95.min_by(f64::total_cmp)?;
        if requests < REPLICA_REQUESTS_MIN || samples < REPLICA_REQUESTS_MIN || p95_ms < inputs.policy.queue_wait_p95_ms
        {
            return None;
        }
        let waited = rows.iter().filter_map(|(_, row)| {
            known(row.day.queue_wait.p50_ms).map(|ms| ms / 1e3 * row.day.queue_wait.samples as f64)
        });
        let held = || rows.iter().filter_map(|(node, _)| model_of(node, name));
        let contexts = held().filter_map(|model| model.resident.as_ref()?.context_length);
        Some(Self {
            name: ModelName::new(name).ok()?,
            size_bytes: held().filter_map(|model| model.size_bytes).max(),
            context: contexts.max(),
            requests,
            p95_ms,
            waited_s: waited.sum(),
        })
    }
}

/// A model that nobody has asked for in a day, on a node that needs its memory.
pub(super) fn unload(inputs: &Inputs<'_>, commitments: &Commitments<'_>, _: &mut Rooms<'_>) -> Vec<Recommendation> {
    if inputs.stats.observed_ms < DAY_MS || inputs.stats.edge.day.requests < REQUESTS_MIN {
        return Vec::new();
    }
    let mut advice = Vec::new();
    for node in inputs.nodes() {
        let loads = inputs.stats.on_node(node.id.as_str());
        let cold_loads = loads.map(|row| row.day.cold_loads).fold(0, u64::saturating_add);
        if node.pressure == Pressure::Normal && cold_loads < COLD_LOADS_MIN {
            continue;
        }
        for (model, resident) in node.runners() {
            let is_busy = model.load.in_flight() > 0 || resident.busy_by_others > 0;
            let is_new = resident.seen_at_ms.is_some_and(|at| inputs.now_ms.saturating_sub(at) < DAY_MS);
            let is_kept = commitments.is_pinned(&node.id, &model.name) || is_asked_for(inputs, node, model);
            let Some(freed) = resident.size_bytes.filter(|_| !is_busy && !is_new && !is_kept) else { continue };
            let short = if node.pressure == Pressure::Normal { Priority::Low } else { Priority::Medium };
            advice.push(Recommendation {
                memory_bytes: Some(freed),
                evidence: evidence([
                    ("requests_per_day", 0_u64.into()),
                    ("cold_loads_of_others_per_day", cold_loads.into()),
                    ("loaded_bytes", freed.into()),
                ]),
                expected_gain: Gain { freed_bytes: Some(freed), ..Gain::default() },
                ..draft(
                    Kind::Unload,
                    short,
                    &model.name,
                    node,
                    format!("Nobody asked for it in a day, and its {} are needed there.", human_bytes(freed)),
                )
            });
        }
    }
    advice
}

/// Advice with its names and what one click does, yet without numbers.
fn draft(kind: Kind, priority: Priority, model: &ModelName, node: &Node, reason: String) -> Recommendation {
    let (model, node_id) = (model.to_string(), node.id.to_string());
    let names = (model.clone(), node_id.clone());
    let action = match kind {
        Kind::Pull | Kind::Replicate | Kind::Move => Action::Pull { model: names.0, node_id: names.1 },
        Kind::Keep => Action::Pin { model: names.0, node_id: names.1 },
        Kind::Unload => Action::Unload { model: names.0, node_id: names.1 },
    };
    Recommendation {
        id: format!("{}/{node_id}/{model}", kind.name()),
        kind,
        priority,
        model,
        node_id,
        from_node_id: None,
        size_bytes: None,
        memory_bytes: None,
        reason,
        evidence: BTreeMap::new(),
        expected_gain: Gain::default(),
        action,
        then: None,
    }
}

fn evidence<const N: usize>(pairs: [(&str, Value); N]) -> BTreeMap<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn priority(saved_s: Option<f64>) -> Priority {
    match saved_s.unwrap_or(0.0) {
        seconds if seconds >= SECONDS_HIGH => Priority::High,
        seconds if seconds >= SECONDS_MEDIUM => Priority::Medium,
        _ => Priority::Low,
    }
}

/// A measured number; `None` = it is not one.
fn known(number: f64) -> Option<f64> {
    Some(number).filter(|number| number.is_finite() && *number > 0.0)
}

fn model_of<'a>(node: &'a Node, name: &str) -> Option<&'a Model> {
    node.models.iter().find(|model| model.name.as_str() == name)
}

fn has_gpu(node: &Node) -> bool {
    node.heartbeat.herd.as_ref().is_some_and(|report| !report.gpus.is_empty())
}

/// Size of a loaded model and the part outside its GPU, where that is much.
fn on_cpu(model: &Model) -> Option<(u64, u64)> {
    let resident = model.resident.as_ref()?;
    let (size, on_gpu) = (resident.size_bytes?, resident.size_vram_bytes?);
    let missing = size.saturating_sub(on_gpu);
    (missing as f64 > size as f64 * ON_CPU_SHARE).then_some((size, missing))
}

fn place_of<'a>((node, row): &(&'a Node, &'a ModelStats)) -> (&'a str, &'a str) {
    (node.id.as_str(), &row.model)
}
