//! Memory: is there enough, and do models have it.

use std::collections::BTreeMap;

use super::fix;
use super::{Inputs, Seen, Severity, human_bytes, share};
use crate::fleet::Node;
use crate::wire::{MemoryBytes, Pressure};

const GIB: u64 = 1 << 30;

/// A host short of memory slows down, swaps, and in the end kills what is largest: a runner.
pub(super) fn pressure(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let short = inputs.nodes().filter(|node| node.pressure != Pressure::Normal);
    short
        .map(|node| {
            let severity = if node.pressure == Pressure::Critical { Severity::Critical } else { Severity::Warning };
            let memory = memory_of(node);
            let free = memory.map(|memory| memory.available_bytes);
            let left = free.map_or_else(String::new, |bytes| format!(", {} available", human_bytes(bytes)));
            Seen::on(node, format!("Its memory is short{left}."))
                .severity(severity)
                .with_known("available_bytes", free)
                .with_known("total_bytes", memory.map(|memory| memory.total_bytes))
                .fix(unload_fix(node))
        })
        .collect()
}

/// Stops the largest model that nothing runs on, else shows what is loaded.
fn unload_fix(node: &Node) -> String {
    let idle = node.runners().filter(|(model, resident)| model.load.in_flight() == 0 && resident.busy_by_others == 0);
    let largest = idle.max_by_key(|(_, resident)| resident.size_bytes);
    largest.map_or_else(|| "ollama ps".into(), |(model, _)| fix::ollama("stop", model.name.as_str()))
}

fn memory_of(node: &Node) -> Option<MemoryBytes> {
    node.heartbeat.herd.as_ref().and_then(|report| report.memory)
}

/// Share of its memory that a host may have in swap: what was idle for long goes there on any system.
const SWAP_SHARE: f64 = 0.1;

/// The first request to a model that was swapped out reads it back from disk, page by page.
pub(super) fn swap(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let seen = inputs.nodes().filter_map(|node| {
        let (used, total) = swap_of(node)?;
        if used < GIB || share(used, total) < SWAP_SHARE {
            return None;
        }
        let detail = format!("{} are in swap, of {} of memory.", human_bytes(used), human_bytes(total));
        Some(Seen::on(node, detail).with("swap_used_bytes", used).with("total_bytes", total).fix(fix::ollama_env(
            node,
            "OLLAMA_KEEP_ALIVE",
            "5m",
        )))
    });
    seen.collect()
}

/// Swap in use and memory in all.
fn swap_of(node: &Node) -> Option<(u64, u64)> {
    if let Some(memory) = memory_of(node) {
        return Some((memory.swap_used_bytes, memory.total_bytes));
    }
    let memory = node.heartbeat.memory.as_ref()?;
    Some((from_gib(memory.swap_used_gb), from_gib(memory.total_gb)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of heartbeats are checked")]
fn from_gib(amount: f64) -> u64 {
    (amount * GIB as f64) as u64
}

/// Share of GPU memory from which others than models are in the way; runners themselves take some beyond their models.
const FOREIGN_SHARE: f64 = 0.25;
/// Share of GPU memory that is left where it counts as full.
const FULL_SHARE: f64 = 0.05;

/// A game, a desktop or a leaked process holds the memory that models need.
pub(super) fn vram_taken(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let seen = inputs.nodes().filter(|node| node.device.discrete).filter_map(|node| {
        let (total, free) = (node.device.total_bytes?, node.device.free_bytes?);
        let of_models =
            node.runners().try_fold(0_u64, |all, (_, resident)| Some(all.saturating_add(resident.size_vram_bytes?)))?;
        let foreign = total.saturating_sub(free).saturating_sub(of_models);
        let is_full = share(free, total) < FULL_SHARE;
        (is_full && share(foreign, total) > FOREIGN_SHARE).then(|| {
            let detail = format!(
                "{} of {} are free, and {} are held by others than models.",
                human_bytes(free),
                human_bytes(total),
                human_bytes(foreign)
            );
            Seen::on(node, detail)
                .with("free_bytes", free)
                .with("total_bytes", total)
                .with("foreign_bytes", foreign)
                .fix("nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv")
        })
    });
    seen.collect()
}

/// A model that was pulled to the wrong machine: each request for it there is refused or swaps.
pub(super) fn cannot_fit(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let all = inputs.nodes().flat_map(|node| node.models.iter().map(move |model| (node, model)));
    let seen = all.filter(|(_, model)| model.resident.is_none()).filter_map(|(node, model)| {
        let device = &node.device;
        let system = if device.discrete { device.system_bytes.unwrap_or(0) } else { 0 };
        let (needed, most) = (model.size_bytes?, device.total_bytes?.saturating_add(system));
        if needed <= most {
            return None;
        }
        let wanted = inputs.stats.demand.iter().find(|row| row.model == model.name.as_str());
        let requests = wanted.map_or(0, |row| row.day.requests);
        let severity = if requests > 0 { Severity::Warning } else { Severity::Info };
        let detail = format!("Its weights are {}, the node has {}.", human_bytes(needed), human_bytes(most));
        Some(
            Seen::on(node, detail)
                .model(&model.name)
                .severity(severity)
                .with("size_bytes", needed)
                .with("memory_bytes", most)
                .with("requests_per_day", requests)
                .fix(fix::ollama("rm", model.name.as_str())),
        )
    });
    seen.collect()
}

/// Share of a model that may be missing from the GPU for it to count as fully there.
const OFFLOAD_SLACK: f64 = 0.01;

/// Layers on the CPU make every token several times as slow.
pub(super) fn on_cpu(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let has_gpu = |node: &Node| node.heartbeat.herd.as_ref().is_some_and(|report| !report.gpus.is_empty());
    let runners = inputs
        .nodes()
        .filter(|node| has_gpu(node))
        .flat_map(|node| node.runners().map(move |(model, resident)| (node, model, resident)));
    let seen = runners.filter(|(_, _, resident)| !resident.unconfirmed).filter_map(|(node, model, resident)| {
        let size = resident.size_bytes?;
        let missing = size.saturating_sub(resident.size_vram_bytes?);
        if share(missing, size) <= OFFLOAD_SLACK {
            return None;
        }
        let detail = format!("{} of its {} are not in GPU memory.", human_bytes(missing), human_bytes(size));
        let half = resident.context_length.map_or(4_096, |tokens| (tokens / 2).max(2_048));
        Some(
            Seen::on(node, detail)
                .model(&model.name)
                .with("on_cpu_bytes", missing)
                .with("size_bytes", size)
                .with_known("context_length", resident.context_length)
                .fix(fix::window(node, model.name.as_str(), half)),
        )
    });
    seen.collect()
}

/// After a pull of a newer version the old one stays in memory beside it.
pub(super) fn duplicate_runner(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let mut seen = Vec::new();
    for node in inputs.nodes() {
        let mut digests: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
        for loaded in node.heartbeat.herd.iter().flat_map(|report| &report.ollama.loaded) {
            let known = digests.entry(&loaded.name).or_default();
            if !loaded.digest.is_empty() && known.iter().all(|(digest, _)| *digest != loaded.digest) {
                known.push((&loaded.digest, loaded.size_bytes));
            }
        }
        for (model, runners) in digests.into_iter().filter(|(_, runners)| runners.len() > 1) {
            let spare = runners.iter().map(|(_, bytes)| *bytes).min().unwrap_or(0);
            let detail = format!("It is loaded in {} versions; one would do.", runners.len());
            let seen_here = Seen::on(node, detail).model(model).with("runners", runners.len() as u64);
            seen.push(seen_here.with("reclaimable_bytes", spare).fix(fix::ollama("stop", model)));
        }
    }
    seen
}
