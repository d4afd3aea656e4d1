//! Both sides of a heartbeat: the Python project's fields and herd's own.

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
    let (lan_ip, ollama_address) = ("192.168.1.9".to_owned(), "127.0.0.1:11434".to_owned());
    Moment { seq: 7, timestamp: 1.5, lan_ip, ollama_address }
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
    OllamaFacts { state, version: "0.33.0".to_owned(), loaded: vec![loaded], available: vec![tag], is_herd: false }
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
    let theirs: Value = serde_json::from_str(include_str!("ollama_herd_0_11.json")).unwrap();
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
