//! Requests that end badly: each kind by itself, as each has its own remedy.

use std::collections::BTreeMap;

use super::fix;
use super::{Inputs, ModelWindow, Seen, Severity, human_ms, measured, share};
use crate::fleet::Node;
use crate::name::ModelName;

/// The last hour of a node, over all its models.
#[derive(Default)]
struct Totals<'a> {
    requests: u64,
    failed: u64,
    retries: u64,
    reaped: u64,
    /// The model with the most of what is looked for.
    worst: Option<(&'a str, u64)>,
}

fn by_node<'a>(inputs: &Inputs<'a>, of: fn(&ModelWindow) -> u64) -> Vec<(&'a Node, Totals<'a>)> {
    let mut nodes: BTreeMap<&str, (&Node, Totals<'_>)> = BTreeMap::new();
    for (node, row) in inputs.rows() {
        let (_, totals) = nodes.entry(node.id.as_str()).or_insert_with(|| (node, Totals::default()));
        let hour = &row.hour;
        totals.requests = totals.requests.saturating_add(hour.requests);
        totals.failed = totals.failed.saturating_add(hour.failed);
        totals.retries = totals.retries.saturating_add(hour.retries);
        totals.reaped = totals.reaped.saturating_add(hour.reaped);
        let count = of(hour);
        if count > totals.worst.map_or(0, |(_, most)| most) {
            totals.worst = Some((&row.model, count));
        }
    }
    nodes.into_values().collect()
}

/// Share of a node's requests that may fail.
const FAILED_SHARE: f64 = 0.05;
/// Share from which the node does more harm than good.
const FAILED_SHARE_CRITICAL: f64 = 0.25;

/// Requests that failed for good; with fewer than 21, one of them would be more than one in twenty.
pub(super) fn failure_rate(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let nodes = by_node(inputs, |hour| hour.failed).into_iter();
    nodes
        .filter(|(_, totals)| totals.requests >= min_samples && share(totals.failed, totals.requests) >= FAILED_SHARE)
        .map(|(node, totals)| {
            let failed = share(totals.failed, totals.requests);
            let critical = failed >= FAILED_SHARE_CRITICAL;
            let detail = format!("{} of {} requests within the last hour failed.", totals.failed, totals.requests);
            Seen::on(node, detail)
                .severity(if critical { Severity::Critical } else { Severity::Warning })
                .with("failed", totals.failed)
                .with("requests", totals.requests)
                .with("failed_share", failed)
                .with_known("worst_model", totals.worst.map(|(model, _)| model))
                .fix(fix::restart_ollama(node))
        })
        .collect()
}

/// Share of attempts that may be made again.
const RETRY_SHARE: f64 = 0.1;

/// Clients do not see these failures yet; each costs them the time of an attempt.
pub(super) fn retry_rate(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let nodes = by_node(inputs, |hour| hour.retries).into_iter();
    let seen = nodes.filter_map(|(node, totals)| {
        let attempts = totals.requests.saturating_add(totals.retries);
        if attempts < min_samples || share(totals.retries, attempts) < RETRY_SHARE {
            return None;
        }
        let detail = format!("{} of {attempts} attempts there failed and were made elsewhere.", totals.retries);
        Some(
            Seen::on(node, detail)
                .with("retries", totals.retries)
                .with("attempts", attempts)
                .with_known("worst_model", totals.worst.map(|(model, _)| model))
                .fix(fix::restart_ollama(node)),
        )
    });
    seen.collect()
}

/// An outage is not multiplied by retries, so some of its failures reach clients.
pub(super) fn retry_budget(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let count = inputs.stats.edge.hour.retry_budget_exhausted;
    if count < min_samples {
        return Vec::new();
    }
    let detail = format!("{count} failed attempts within the last hour were not made again: too many failed.");
    let seen = Seen::in_fleet(detail).with("not_retried", count).with("requests", inputs.stats.edge.hour.requests);
    vec![seen.fix("curl http://127.0.0.1:11435/fleet/status  # find the nodes that fail; FLEET_RETRY_BUDGET_RATIO=0.3 allows more")]
}

/// Share of answers that may break off, and the fewest of them.
const INCOMPLETE_SHARE: f64 = 0.01;
const INCOMPLETE_MIN: u64 = 3;

/// A runner that dies in mid-answer, mostly for lack of memory.
pub(super) fn incomplete(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let seen = inputs.rows().filter_map(|(node, row)| {
        let (count, requests) = (row.hour.incomplete, row.hour.requests);
        if requests < min_samples || count < INCOMPLETE_MIN || share(count, requests) < INCOMPLETE_SHARE {
            return None;
        }
        Some(
            Seen::at(node, row, format!("{count} of {requests} answers within the last hour broke off."))
                .with("incomplete", count)
                .with("requests", requests)
                .fix(fix::restart_ollama(node)),
        )
    });
    seen.collect()
}

/// Share of clients that may leave, and the fewest of them.
const DISCONNECT_SHARE: f64 = 0.1;
const DISCONNECTS_MIN: u64 = 5;

/// Clients with a time limit shorter than what the model takes. A client that stops reading when it has enough is well.
pub(super) fn disconnects(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let seen = inputs.rows().filter_map(|(node, row)| {
        let (count, requests) = (row.hour.client_disconnected, row.hour.requests);
        if requests < min_samples || count < DISCONNECTS_MIN || share(count, requests) < DISCONNECT_SHARE {
            return None;
        }
        let p95_ms = measured(row.hour.ttft.p95_ms).filter(|_| row.hour.ttft.samples > 0);
        let first = p95_ms.map_or_else(String::new, |ms| format!("; 95 of 100 answers begin within {}", human_ms(ms)));
        Some(
            Seen::at(node, row, format!("{count} of {requests} clients within the last hour left early{first}."))
                .with("client_disconnected", count)
                .with("requests", requests)
                .with_known("ttft_p95_ms", p95_ms)
                .fix("timeout=600  # seconds, in the client that leaves; or let it stream"),
        )
    });
    seen.collect()
}

/// Share of requests that a node may refuse as busy, and the fewest of them.
const BUSY_SHARE: f64 = 0.05;
const BUSY_MIN: u64 = 3;

/// The node's own queue is full: others use it, or it has fewer slots than it says.
pub(super) fn busy(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let seen = inputs.rows().filter_map(|(node, row)| {
        let (count, requests) = (row.hour.busy, row.hour.requests.saturating_add(row.hour.retries));
        if requests < min_samples || count < BUSY_MIN || share(count, requests) < BUSY_SHARE {
            return None;
        }
        Some(
            Seen::at(node, row, format!("{count} of {requests} attempts within the last hour were answered \"busy\"."))
                .with("busy", count)
                .with("attempts", requests)
                .with_known("num_parallel", node.env.num_parallel)
                .fix(fix::ollama_env(node, "OLLAMA_MAX_QUEUE", "512")),
        )
    });
    seen.collect()
}

/// Cancelled requests of an hour from which a node has to be looked at now.
const ZOMBIES_CRITICAL: u64 = 10;

/// A runner that stands still holds a slot until its request is given up.
pub(super) fn zombies(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let nodes = by_node(inputs, |hour| hour.reaped).into_iter();
    let stuck = nodes.filter(|(_, totals)| totals.reaped >= min_samples.max(1));
    stuck
        .map(|(node, totals)| {
            let critical = totals.reaped > ZOMBIES_CRITICAL;
            let detail = format!("{} requests within the last hour stood still and were cancelled.", totals.reaped);
            Seen::on(node, detail)
                .severity(if critical { Severity::Critical } else { Severity::Warning })
                .with("reaped", totals.reaped)
                .with("requests", totals.requests)
                .with_known("worst_model", totals.worst.map(|(model, _)| model))
                .fix(fix::restart_ollama(node))
        })
        .collect()
}

/// Long prompts and images that are larger than the edge takes.
pub(super) fn bodies_refused(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let count = inputs.stats.edge.hour.bodies_refused;
    if count < min_samples {
        return Vec::new();
    }
    let detail = format!("{count} requests within the last hour were refused for the size or speed of their bodies.");
    vec![Seen::in_fleet(detail).with("bodies_refused", count).fix("FLEET_LIMITS_REQUEST_BODY_BYTES=134217728")]
}

/// A misspelt name, or a model that nobody has pulled: the client gets 404 each time.
pub(super) fn model_missing(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let has =
        |model: &str| ModelName::new(model).is_ok_and(|name| inputs.nodes().any(|node| node.model(&name).is_some()));
    let missing = inputs.stats.demand.iter().filter(|row| row.day.refused_unknown >= min_samples && !has(&row.model));
    let seen = missing.map(|row| {
        let count = row.day.refused_unknown;
        Seen::in_fleet(format!("{count} requests within a day got 404."))
            .model(&row.model)
            .with("refused", count)
            .fix(fix::post("/api/pull", &[("model", &row.model)]))
    });
    seen.collect()
}

/// Share of a model's requests that others may answer.
const STAND_IN_SHARE: f64 = 0.2;

/// Clients get answers, and not from the model that they chose.
pub(super) fn stand_ins(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let often = |requests: u64, others: u64| requests >= min_samples && share(others, requests) >= STAND_IN_SHARE;
    let rows = inputs.stats.demand.iter().filter(|row| often(row.hour.requests, row.hour.stand_ins));
    let seen = rows.map(|row| {
        let (others, requests) = (row.hour.stand_ins, row.hour.requests);
        Seen::in_fleet(format!("{others} of {requests} requests within the last hour were answered by another model."))
            .model(&row.model)
            .with("stand_ins", others)
            .with("requests", requests)
            .fix(fix::post("/fleet/pin", &[("model", &row.model)]))
    });
    seen.collect()
}
