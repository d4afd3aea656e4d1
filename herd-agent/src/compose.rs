//! Facts become a heartbeat. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use herd_core::name::NodeId;
use herd_core::wire::{self, Heartbeat, HerdReport, OllamaState};
use reqwest::Url;

use crate::collect::{MachineFacts, memory_bandwidth_gbps};
use crate::ollama::{Details, Loaded, OllamaFacts, Tag};

const GIB: f64 = (1_u64 << 30) as f64;
/// Decimal, as the Python project has models on disk.
const GB: f64 = 1e9;
/// From here on the Python project calls a host hot, degrees Celsius.
const HOT_C: f64 = 85.0;

/// What stays the same for one run of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) node_id: NodeId,
    /// Random name of this run.
    pub(crate) boot: String,
    pub(crate) ollama_url: Url,
    pub(crate) interval: Duration,
}

/// What changes with every heartbeat.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) seq: u64,
    /// Unix seconds.
    pub(crate) timestamp: f64,
    pub(crate) lan_ip: String,
    /// Where Ollama is, as edges are to be told, `host:port`.
    pub(crate) ollama_address: String,
}

/// Writes one heartbeat.
pub(crate) fn heartbeat(who: &Identity, when: Moment, machine: &MachineFacts, ollama: &OllamaFacts) -> Heartbeat {
    Heartbeat {
        node_id: who.node_id.to_string(),
        draining: false,
        arch: machine.arch.clone(),
        timestamp: when.timestamp,
        cpu: machine
            .cpu
            .map(|cpu| wire::Cpu { cores_physical: cpu.cores_physical, utilization_pct: round(cpu.utilization_pct) }),
        memory: machine.memory.map(memory_in_gib),
        thermal: Some(thermal(machine)),
        disk: machine.disk.as_ref().map(disk_in_gib),
        ollama: Some(ollama_in_python_form(machine, ollama)),
        ollama_host: who.ollama_url.as_str().trim_end_matches('/').to_owned(),
        lan_ip: when.lan_ip,
        capacity: None,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        chip: chip(machine),
        memory_bandwidth_gbps: memory_bandwidth_gbps(&machine.gpus, &machine.chip).unwrap_or(0.0),
        herd: Some(report(who, when.seq, when.ollama_address, machine, ollama)),
    }
}

fn report(who: &Identity, seq: u64, address: String, machine: &MachineFacts, ollama: &OllamaFacts) -> HerdReport {
    HerdReport {
        schema: wire::SCHEMA,
        boot: who.boot.clone(),
        seq,
        interval_ms: u64::try_from(who.interval.as_millis()).unwrap_or(u64::MAX),
        host: machine.host.clone(),
        memory: machine.memory,
        disk: machine.disk.clone(),
        gpus: machine.gpus.clone(),
        ollama: wire::OllamaReport {
            state: ollama.state,
            address,
            version: ollama.version.clone(),
            env: machine.ollama_env,
            loaded: ollama.loaded.iter().map(Into::into).collect(),
            available: ollama.available.iter().map(Into::into).collect(),
            // Runners of an Ollama that is gone are gone too; a reading from before says nothing.
            runners: machine.runners.clone().filter(|_| ollama.state != OllamaState::Down),
            loading: if ollama.state == OllamaState::Down { Vec::new() } else { machine.loading.clone() },
            activity: if ollama.state == OllamaState::Down { Vec::new() } else { machine.activity.clone() },
        },
    }
}

/// The Python project has no word for an Ollama that does not answer: its router would send requests there as long as
/// models are listed. So while Ollama is hung or down, its part of the heartbeat lists none.
fn ollama_in_python_form(machine: &MachineFacts, ollama: &OllamaFacts) -> wire::Ollama {
    let answers = ollama.state == OllamaState::Ok;
    let loaded = if answers { ollama.loaded.as_slice() } else { &[] };
    let available = if answers { ollama.available.as_slice() } else { &[] };
    let runners = machine.runners.as_deref().unwrap_or_default();
    wire::Ollama {
        models_loaded: loaded.iter().map(|model| loaded_summary(model, runners)).collect(),
        models_available: available.iter().map(|model| model.name.clone()).collect(),
        models_available_meta: Some(available.iter().map(|model| (model.name.clone(), meta(model))).collect()),
        models_available_sizes: sizes(available),
        max_loaded_models: machine.ollama_env.max_loaded_models.unwrap_or(0),
        num_parallel: machine.ollama_env.num_parallel.unwrap_or(0),
        requests_active: runners.iter().map(|runner| runner.slots_busy).sum(),
        version: ollama.version.clone(),
    }
}

fn loaded_summary(model: &Loaded, runners: &[wire::Runner]) -> wire::LoadedSummary {
    let Details { parameter_size, quantization_level, format, .. } = model.details.clone();
    wire::LoadedSummary {
        name: model.name.clone(),
        size_gb: round(model.size as f64 / GIB),
        requests_active: runners.iter().filter(|runner| runner.model == model.name).map(|r| r.slots_busy).sum(),
        parameter_size,
        quantization: quantization_level,
        context_length: model.context_length,
        runner: if format == "safetensors" { "mlx" } else { "llamacpp" }.to_owned(),
        digest: model.digest.clone(),
    }
}

fn meta(model: &Tag) -> wire::ModelMeta {
    let details = model.details.clone();
    wire::ModelMeta {
        modified_at: model.modified_at.clone(),
        digest: model.digest.clone(),
        format: details.format,
        family: details.family,
        families: details.families,
        parameter_size: details.parameter_size,
        quantization_level: details.quantization_level,
        parent_model: details.parent_model,
        capabilities: model.capabilities.clone().unwrap_or_default(),
    }
}

fn sizes(available: &[Tag]) -> BTreeMap<String, f64> {
    available.iter().map(|model| (model.name.clone(), model.size as f64 / GB)).collect()
}

fn memory_in_gib(memory: wire::MemoryBytes) -> wire::Memory {
    wire::Memory {
        total_gb: gib(memory.total_bytes),
        used_gb: gib(memory.total_bytes.saturating_sub(memory.available_bytes)),
        available_gb: gib(memory.available_bytes),
        pressure: memory.pressure,
        swap_used_gb: gib(memory.swap_used_bytes),
        swap_total_gb: gib(memory.swap_total_bytes),
    }
}

fn disk_in_gib(disk: &wire::DiskBytes) -> wire::Disk {
    wire::Disk {
        total_gb: gib(disk.total_bytes),
        used_gb: gib(disk.total_bytes.saturating_sub(disk.available_bytes)),
        available_gb: gib(disk.available_bytes),
    }
}

fn thermal(machine: &MachineFacts) -> wire::Thermal {
    let Some(reading) = &machine.temperature else {
        return wire::Thermal { state: "unknown".to_owned(), ..wire::Thermal::default() };
    };
    let state = if reading.celsius >= HOT_C { "warning" } else { "nominal" };
    wire::Thermal {
        state: state.to_owned(),
        temperature_c: Some(round(reading.celsius)),
        source: reading.source.clone(),
    }
}

/// The CPU's name with the first GPU's, as the Python project has it; an Apple chip is both.
fn chip(machine: &MachineFacts) -> String {
    let names = [Some(machine.chip.as_str()), machine.gpus.first().map(|gpu| gpu.name.as_str())];
    let mut names: Vec<&str> = names.into_iter().flatten().filter(|name| !name.is_empty()).collect();
    names.dedup();
    names.join(" + ")
}

fn gib(bytes: u64) -> f64 {
    round(bytes as f64 / GIB)
}

/// Two digits after the point.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests;
