//! Windows: too large for what is used, too small for what is asked, or of another size each time.

use std::sync::Arc;

use super::fix;
use super::{ContextUse, Inputs, ModelStats, Seen, Severity, human_bytes, share};
use crate::fleet::{Model, Node};
use crate::recommend::memory::{cache_bytes, kv_bytes_per_token};

/// How many times the most that was ever used a window may be.
const OVERSIZE: u64 = 4;
/// Smallest window that is advised: Ollama's own default on small machines.
const WINDOW_MIN: u64 = 4_096;
/// Share of a device's memory from which a saving is worth more than a note.
const SAVING_SHARE: f64 = 0.1;

/// A window that is never filled holds memory that another model could have.
///
/// Judged by the most that was used in a day, not by a percentile: the longest conversation must still fit, with the
/// part of it that the runner keeps for the next turn.
pub(super) fn oversized(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let runners = inputs.nodes().flat_map(|node| node.runners().map(move |(model, _)| (node, model)));
    let seen = runners.filter_map(|(node, model)| {
        let used = use_of_runner(inputs, node, model);
        let allocated = model.resident.as_ref()?.context_length?;
        if used.samples < min_samples || used.used_max == 0 || allocated / OVERSIZE < used.used_max {
            return None;
        }
        let advised = advised_window(used.used_max).filter(|advised| *advised < allocated)?;
        let saved = saved_bytes(inputs, node, model, allocated - advised);
        let large = saved.zip(node.device.total_bytes).is_some_and(|(saved, all)| share(saved, all) >= SAVING_SHARE);
        let saving = saved.map_or_else(String::new, |bytes| format!(" {advised} would free {}.", human_bytes(bytes)));
        let detail = format!("{} of {allocated} tokens were the most used in a day.{saving}", used.used_max);
        Some(
            Seen::on(node, detail)
                .model(&model.name)
                .severity(if large { Severity::Warning } else { Severity::Info })
                .with("samples", used.samples)
                .with("allocated_tokens", allocated)
                .with("used_max_tokens", used.used_max)
                .with("used_p95_tokens", used.used_p95)
                .with("advised_tokens", advised)
                .with_known("saved_bytes", saved)
                .fix(fix::window(node, model.name.as_str(), advised)),
        )
    });
    seen.collect()
}

/// What all names that share the runner of `model` have used of its window.
fn use_of_runner(inputs: &Inputs<'_>, node: &Node, model: &Model) -> ContextUse {
    let names = node.models.iter().filter(|other| Arc::ptr_eq(&other.load, &model.load));
    let rows = names.filter_map(|name| inputs.stats.pair(node.id.as_str(), name.name.as_str()));
    rows.fold(ContextUse::default(), |all, row| ContextUse {
        samples: all.samples.saturating_add(row.day.context.samples),
        used_p95: all.used_p95.max(row.day.context.used_p95),
        used_max: all.used_max.max(row.day.context.used_max),
        allocated: None,
    })
}

/// A quarter more than was used, as the next power of two.
fn advised_window(used_max: u64) -> Option<u64> {
    used_max.checked_add(used_max / 4)?.checked_next_power_of_two().map(|tokens| tokens.max(WINDOW_MIN))
}

fn saved_bytes(inputs: &Inputs<'_>, node: &Node, model: &Model, tokens: u64) -> Option<u64> {
    let per_token = kv_bytes_per_token(node, model, inputs.catalogue)?;
    Some(cache_bytes(per_token, tokens, model.slots(&node.env)))
}

/// Share of requests that may reload their model.
const RELOAD_SHARE: f64 = 0.05;

/// Clients that ask for different windows in turn make Ollama load the model each time, and lose its cache.
pub(super) fn thrash(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let seen = inputs.rows().filter_map(|(node, row)| {
        let reloads = &row.hour.reloads;
        let count = reloads.asked_for();
        if count < min_samples || share(count, row.hour.requests) < RELOAD_SHARE {
            return None;
        }
        let detail = format!("{count} of {} requests within the last hour loaded it anew.", row.hour.requests);
        Some(
            Seen::at(node, row, detail)
                .with("reloads", count)
                .with("requests", row.hour.requests)
                .with("context_larger", reloads.context_larger)
                .with("context_differs", reloads.context_differs)
                .with("launch_options", reloads.launch_options)
                .fix(thrash_fix(node, row)),
        )
    });
    seen.collect()
}

/// By what most of the reloads were caused.
fn thrash_fix(node: &Node, row: &ModelStats) -> String {
    let reloads = &row.hour.reloads;
    let most = reloads.context_larger.max(reloads.context_differs).max(reloads.launch_options);
    if reloads.context_differs == most {
        "FLEET_CONTEXT_PROTECTION=strip".into()
    } else if reloads.context_larger == most {
        fix::window(node, &row.model, row.hour.context.allocated.unwrap_or(WINDOW_MIN).saturating_mul(2))
    } else {
        "FLEET_CONTEXT_PROTECTION=strip  # and drop num_gpu, num_thread, num_batch from the client's options".into()
    }
}

/// Requests on paths of other APIs than Ollama's cannot say what they want, and get the node's default.
pub(super) fn default_mismatch(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let seen = inputs.rows().filter_map(|(node, row)| {
        let count = row.hour.reloads.node_default;
        if count < min_samples || share(count, row.hour.requests) < RELOAD_SHARE {
            return None;
        }
        let detail = format!("{count} requests that name no window loaded it anew at the node's default.");
        Some(
            Seen::at(node, row, detail)
                .with("reloads", count)
                .with("requests", row.hour.requests)
                .with_known("node_default_tokens", node.env.context_length)
                .with_known("loaded_tokens", row.hour.context.allocated)
                .fix("FLEET_CONTEXT_OPENAI=auto"),
        )
    });
    seen.collect()
}

/// Share of prompts that may be too long.
const OVERFLOW_SHARE: f64 = 0.01;
/// Fewest of them: one odd client is none of the operator's business.
const OVERFLOWS_MIN: u64 = 3;

/// Ollama cuts a prompt that is too long and answers 200: the model never saw what was asked.
pub(super) fn overflow(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let seen = inputs.rows().filter_map(|(node, row)| {
        let (count, requests) = (row.hour.overflows, row.hour.requests);
        if requests < min_samples || count < OVERFLOWS_MIN || share(count, requests) < OVERFLOW_SHARE {
            return None;
        }
        let window = row.hour.context.allocated;
        let advised = window.unwrap_or(WINDOW_MIN).saturating_mul(2);
        Some(
            Seen::at(
                node,
                row,
                format!("{count} of {requests} prompts within the last hour were longer than the window."),
            )
            .with("overflows", count)
            .with("requests", requests)
            .with_known("window_tokens", window)
            .fix(fix::window(node, &row.model, advised)),
        )
    });
    seen.collect()
}
