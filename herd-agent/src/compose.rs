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
}

/// Writes one heartbeat.
pub(crate) fn heartbeat(who: &Identity, when: Moment, machine: &MachineFacts, ollama: &OllamaFacts) -> Heartbeat {
    Heartbeat {
        node_id: who.node_id.to_string(),
        draining: false,
        arch: machine.arch.clone(),
        timestamp: when.timestamp,
        cpu: machine.cpu.map(|cpu| wire::Cpu {
            cores_physical: cpu.cores_physical,
            utilization_pct: round(cpu.utilization_pct),
        }),
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
        herd: Some(report(who, when.seq, machine, ollama)),
    }
}

fn report(who: &Identity, seq: u64, machine: &MachineFacts, ollama: &OllamaFacts) -> HerdReport {
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
            address: address(&who.ollama_url),
            version: ollama.version.clone(),
            env: machine.ollama_env,
            loaded: ollama.loaded.iter().map(Into::into).collect(),
            available: ollama.available.iter().map(Into::into).collect(),
            // Runners of an Ollama that is gone are gone too; a reading from before says nothing.
            runners: machine.runners.clone().filter(|_| ollama.state != OllamaState::Down),
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

/// `host:port`.
fn address(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

fn gib(bytes: u64) -> f64 {
    round(bytes as f64 / GIB)
}

/// Two digits after the point.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::collect::{CpuFacts, Temperature};

    const GIB_BYTES: u64 = 1 << 30;

    fn who() -> Identity {
        Identity {
            node_id: NodeId::new("studio").unwrap(),
            boot: "b00t".to_owned(),
            ollama_url: "http://127.0.0.1:11434/".parse().unwrap(),
            interval: Duration::from_secs(5),
        }
    }

    fn when() -> Moment {
        Moment { seq: 7, timestamp: 1.5, lan_ip: "192.168.1.9".to_owned() }
    }

    fn machine() -> MachineFacts {
        MachineFacts {
            arch: "x86_64".to_owned(),
            chip: "AMD EPYC".to_owned(),
            cpu: Some(CpuFacts { cores_physical: 8, utilization_pct: 12.345 }),
            memory: Some(wire::MemoryBytes {
                total_bytes: 64 * GIB_BYTES,
                available_bytes: 40 * GIB_BYTES,
                ..wire::MemoryBytes::default()
            }),
            disk: Some(wire::DiskBytes { path: "/m".to_owned(), total_bytes: GIB_BYTES, available_bytes: 0 }),
            temperature: Some(Temperature { celsius: 85.0, source: "k10temp".to_owned() }),
            gpus: vec![wire::Gpu { name: "NVIDIA L4".to_owned(), ..wire::Gpu::default() }],
            runners: Some(vec![wire::Runner { model: "a:1".to_owned(), slots: 4, slots_busy: 3, ..Default::default() }]),
            ..MachineFacts::default()
        }
    }

    fn ollama(state: OllamaState) -> OllamaFacts {
        let details = Details { format: "gguf".to_owned(), families: Some(vec!["llama".to_owned()]), ..Details::default() };
        let loaded =
            Loaded { name: "a:1".to_owned(), size: 3 * GIB_BYTES / 2, details: details.clone(), ..Loaded::default() };
        let tag = Tag { name: "a:1".to_owned(), size: 2_019_393_189, details, ..Tag::default() };
        OllamaFacts { state, version: "0.33.0".to_owned(), loaded: vec![loaded], available: vec![tag] }
    }

    fn json(state: OllamaState) -> Value {
        serde_json::to_value(heartbeat(&who(), when(), &machine(), &ollama(state))).unwrap()
    }

    /// Every path to a value, with the keys of maps that have model names as keys left out.
    fn paths(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let key = if at.ends_with("_meta") || at.ends_with("_sizes") { "*" } else { key };
                    paths(value, &format!("{at}.{key}"), found);
                }
            }
            Value::Array(list) if list.first().is_some_and(Value::is_object) => {
                paths(&list[0], &format!("{at}[]"), found);
            }
            _ => found.push(at.to_owned()),
        }
    }

    #[test]
    fn the_python_router_finds_what_it_knows() {
        let theirs: Value = serde_json::from_str(include_str!("compose/ollama_herd_0_11.json")).unwrap();
        let mut ours = json(OllamaState::Ok);
        ours.as_object_mut().unwrap().remove("herd");
        let (mut our_paths, mut their_paths) = (Vec::new(), Vec::new());
        paths(&ours, "", &mut our_paths);
        paths(&theirs, "", &mut their_paths);
        for path in &our_paths {
            assert!(their_paths.contains(path), "{path} is no field of theirs");
        }
        let required = [
            ".node_id",
            ".cpu.cores_physical",
            ".cpu.utilization_pct",
            ".memory.total_gb",
            ".memory.used_gb",
            ".memory.available_gb",
            ".ollama.models_available",
        ];
        for path in required {
            assert!(our_paths.iter().any(|ours| ours == path), "{path} is missing");
        }
    }

    #[test]
    fn units_are_those_of_each_side() {
        let json = json(OllamaState::Ok);
        assert_eq!(json["memory"]["total_gb"], 64.0);
        assert_eq!(json["memory"]["used_gb"], 24.0);
        assert_eq!(json["cpu"]["utilization_pct"], 12.35);
        assert_eq!(json["ollama"]["models_loaded"][0]["size_gb"], 1.5, "GiB");
        assert_eq!(json["ollama"]["models_available_sizes"]["a:1"], 2.019_393_189, "decimal GB");
        assert_eq!(json["ollama"]["models_loaded"][0]["requests_active"], 3);
        assert_eq!(json["thermal"]["state"], "warning");
        assert_eq!(json["chip"], "AMD EPYC + NVIDIA L4");
        assert_eq!(json["memory_bandwidth_gbps"], 300.0);
        let herd = &json["herd"];
        assert_eq!((&herd["seq"], &herd["boot"], &herd["interval_ms"]), (&7.into(), &"b00t".into(), &5000.into()));
        assert_eq!(herd["memory"]["total_bytes"], 64 * GIB_BYTES);
        assert_eq!(herd["ollama"]["address"], "127.0.0.1:11434");
        assert_eq!(herd["ollama"]["loaded"][0]["size_bytes"], 3 * GIB_BYTES / 2);
    }

    #[test]
    fn an_ollama_that_does_not_answer_offers_nothing_to_the_python_router() {
        let json = json(OllamaState::Down);
        assert_eq!(json["ollama"]["models_available"], Value::Array(vec![]));
        assert_eq!(json["ollama"]["models_loaded"], Value::Array(vec![]));
        assert_eq!(json["herd"]["ollama"]["state"], "down");
        assert_eq!(json["herd"]["ollama"]["available"][0]["name"], "a:1", "the last known list stays");
        assert_eq!(json["herd"]["ollama"]["runners"], Value::Null);
    }

    #[test]
    fn what_is_not_known_is_null_and_not_zero() {
        let nothing = heartbeat(&who(), when(), &MachineFacts::default(), &OllamaFacts::default());
        let json = serde_json::to_value(nothing).unwrap();
        for (name, value) in [
            ("cpu", &json["cpu"]),
            ("memory", &json["memory"]),
            ("disk", &json["disk"]),
            ("temperature", &json["thermal"]["temperature_c"]),
            ("herd memory", &json["herd"]["memory"]),
            ("num_parallel", &json["herd"]["ollama"]["env"]["num_parallel"]),
            ("runners", &json["herd"]["ollama"]["runners"]),
        ] {
            assert!(value.is_null(), "{name} is {value}");
        }
        assert_eq!(json["thermal"]["state"], "unknown");
    }

    #[test]
    fn an_apple_chip_is_named_once() {
        let gpu = wire::Gpu { name: "Apple M4".to_owned(), ..wire::Gpu::default() };
        let machine = MachineFacts { chip: "Apple M4".to_owned(), gpus: vec![gpu], ..MachineFacts::default() };
        assert_eq!(chip(&machine), "Apple M4");
    }
}
