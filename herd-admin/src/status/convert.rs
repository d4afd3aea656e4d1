//! From one picture of the fleet to `GET /fleet/status`: pure.

use std::collections::BTreeMap;

use herd_core::fleet::{Model, Node, NodeState};
use herd_core::wire;

use super::types::{
    DeviceStatus, Edge, FleetStatus, Hardware, LoadedStatus, MemoryGb, ModelStatus, NodeStatus, OllamaStatus, Queue,
    ResidentStatus, Totals,
};
use crate::node_facts::{ollama_version, queue_depth, runners, shown_name, slots, takes_requests, why};
use crate::view::View;

const GIB: f64 = 1_073_741_824.0;
const GB: f64 = 1e9;
/// Models that the Python project takes a node to keep in memory when it does not say; Ollama's own choice is near.
const DEFAULT_HOT_MODEL_CAP: u32 = 3;

/// The status of the fleet in `view`, as an edge of this `version` tells it at which `waiting` requests wait.
pub(super) fn fleet_status<'a>(view: &'a View, waiting: usize, version: &'a str) -> FleetStatus<'a> {
    let nodes: Vec<_> = view.snapshot.nodes.iter().map(|node| node_status(node, view)).collect();
    FleetStatus {
        fleet: totals(&nodes, view, waiting),
        queues: view.snapshot.nodes.iter().flat_map(|node| queues(node)).collect(),
        nodes,
        timestamp: view.unix_ms as f64 / 1e3,
        edge: Edge { version, draining: view.draining, uptime_ms: view.now_ms },
        fleet_version: view.snapshot.version,
    }
}

fn totals(nodes: &[NodeStatus<'_>], view: &View, requests_waiting: usize) -> Totals {
    let is_offline = |node: &&NodeStatus<'_>| node.state == NodeState::Offline.name();
    let present = || nodes.iter().filter(|node| !is_offline(node));
    Totals {
        nodes_total: nodes.len(),
        nodes_online: nodes.iter().filter(|node| node.state == NodeState::Online.name()).count(),
        models_loaded: present().map(|node| node.ollama.models_loaded.len()).sum(),
        requests_active: nodes.iter().map(|node| node.in_flight).sum(),
        requests_waiting,
        nodes_ready: view.snapshot.nodes.iter().filter(|n| takes_requests(n, &view.policy, view.now_ms)).count(),
        slots: present().map(|node| node.slots).fold(0, u32::saturating_add),
        queue_depth: present().map(|node| node.queue_depth).fold(0, u32::saturating_add),
    }
}

fn node_status<'a>(node: &'a Node, view: &View) -> NodeStatus<'a> {
    let state = node.state(view.now_ms, &view.policy.life);
    let heartbeat = node.heartbeat.as_ref();
    let ollama = ollama(node);
    let models_loaded_count = count(node.runners().count());
    let hot_model_cap = node.env.max_loaded_models.unwrap_or(DEFAULT_HOT_MODEL_CAP);
    NodeStatus {
        node_id: node.id.as_str(),
        status: plain_state(state),
        hardware: hardware(heartbeat, node),
        ollama_url: format!("http://{}", node.address),
        cpu: heartbeat.cpu.as_ref(),
        memory: memory(heartbeat, node.pressure),
        hot_model_cap,
        ollama,
        models_loaded_count,
        free_slots: hot_model_cap.saturating_sub(models_loaded_count),
        state: state.name(),
        why: why(node, &view.policy, view.now_ms),
        condition: node.condition(view.now_ms, &view.policy.life).name(),
        address: node.address,
        heartbeat_age_ms: view.now_ms.saturating_sub(node.heartbeat_at_ms),
        known_for_ms: view.now_ms.saturating_sub(node.joined_at_ms),
        agent_version: &heartbeat.agent_version,
        in_flight: node.load.in_flight(),
        slots: slots(node),
        queue_depth: node.runners().map(|(model, _)| queue_depth(node, model)).fold(0, u32::saturating_add),
        busy_by_others: node.busy_by_others(),
        draining: node.draining,
        cordoned: node.cordoned,
        paused: node.paused.as_deref(),
        ejected_for_ms: node.load.ejected_for_ms(view.now_ms),
        probe_ok: !node.load.probe_failed(),
        ollama_state: node.ollama,
        device: DeviceStatus {
            total_bytes: node.device.total_bytes,
            free_bytes: node.device.free_bytes,
            discrete: node.device.discrete,
        },
        gpus: heartbeat.herd.as_ref().map_or(&[], |report| &report.gpus),
        thermal: heartbeat.thermal.as_ref(),
        disk: heartbeat.disk.as_ref(),
        capacity: heartbeat.capacity.as_ref(),
        env: node.env,
        models: by_name(node).map(|model| model_status(node, model)).collect(),
    }
}

/// The three states that the Python project knows. A node that drains is as good as gone to its clients.
fn plain_state(state: NodeState) -> &'static str {
    match state {
        NodeState::Online => "online",
        NodeState::Degraded | NodeState::Stale => "degraded",
        NodeState::Offline | NodeState::Draining => "offline",
    }
}

fn hardware<'a>(heartbeat: &'a wire::Heartbeat, node: &Node) -> Hardware<'a> {
    Hardware {
        memory_total_gb: memory(heartbeat, node.pressure).total_gb,
        cores_physical: heartbeat.cpu.as_ref().map_or(0, |cpu| cpu.cores_physical),
        chip: &heartbeat.chip,
        memory_bandwidth_gbps: heartbeat.memory_bandwidth_gbps,
        arch: &heartbeat.arch,
    }
}

fn memory(heartbeat: &wire::Heartbeat, pressure: wire::Pressure) -> MemoryGb {
    if let Some(memory) = heartbeat.herd.as_ref().and_then(|report| report.memory) {
        let gib = |bytes: u64| rounded(bytes as f64 / GIB, 2);
        return MemoryGb {
            total_gb: gib(memory.total_bytes),
            used_gb: gib(memory.total_bytes.saturating_sub(memory.available_bytes)),
            available_gb: gib(memory.available_bytes),
            pressure,
            swap_used_gb: gib(memory.swap_used_bytes),
            swap_total_gb: gib(memory.swap_total_bytes),
        };
    }
    let told = heartbeat.memory.clone().unwrap_or_default();
    MemoryGb {
        total_gb: told.total_gb,
        used_gb: told.used_gb,
        available_gb: told.available_gb,
        pressure,
        swap_used_gb: told.swap_used_gb,
        swap_total_gb: told.swap_total_gb,
    }
}

fn ollama(node: &Node) -> OllamaStatus<'_> {
    let sizes = by_name(node).filter_map(|model| Some((shown_name(model), gb(model.size_bytes?))));
    OllamaStatus {
        models_loaded: by_name(node).flat_map(|model| loaded(node, model)).collect(),
        models_available: by_name(node).map(shown_name).collect(),
        models_available_sizes: sizes.collect(),
        max_loaded_models: node.env.max_loaded_models.unwrap_or(0),
        num_parallel: node.env.num_parallel.unwrap_or(0),
        requests_active: node.load.in_flight().saturating_add(node.busy_by_others()),
        version: ollama_version(node),
    }
}

fn loaded<'a>(node: &'a Node, model: &'a Model) -> Vec<LoadedStatus<'a>> {
    let first_told = |a: &'a str, b: &'a str| if a.is_empty() { b } else { a };
    let others = model.resident.as_ref().map_or(0, |resident| resident.busy_by_others);
    let describe = |runner: crate::node_facts::Runner<'a>| LoadedStatus {
        name: shown_name(model),
        size_gb: rounded(runner.size_bytes.unwrap_or(0) as f64 / GIB, 2),
        requests_active: model.load.in_flight().saturating_add(others),
        parameter_size: first_told(&model.details.parameter_size, runner.parameter_size),
        quantization: first_told(&model.details.quantization_level, runner.quantization),
        context_length: runner.context_length.unwrap_or(0),
        digest: first_told(runner.digest, &model.details.digest),
    };
    runners(node, model).into_iter().map(describe).collect()
}

fn model_status<'a>(node: &Node, model: &'a Model) -> ModelStatus<'a> {
    let resident = model.resident.as_ref().map(|resident| ResidentStatus {
        size_bytes: resident.size_bytes,
        size_vram_bytes: resident.size_vram_bytes,
        context_length: resident.context_length,
        busy_by_others: resident.busy_by_others,
        expires_at: Some(resident.expires_at.as_str()).filter(|text| !text.is_empty()),
    });
    ModelStatus {
        name: shown_name(model),
        digest: &model.details.digest,
        size_bytes: model.size_bytes,
        context_length_max: model.context_length_max,
        capabilities: &model.details.capabilities,
        in_flight: model.load.in_flight(),
        slots: model.slots(&node.env),
        queue_depth: queue_depth(node, model),
        p75_ms: model.load.p75_ms().map(|ms| rounded(ms, 1)),
        resident,
    }
}

/// One per model that is in memory, has requests, or has served some.
fn queues(node: &Node) -> impl Iterator<Item = (String, Queue<'_>)> {
    let is_used =
        |model: &&Model| model.resident.is_some() || model.load.in_flight() > 0 || model.load.p75_ms().is_some();
    node.models.iter().filter(is_used).map(move |model| {
        let queue = Queue {
            node_id: node.id.as_str(),
            model: shown_name(model),
            pending: queue_depth(node, model),
            in_flight: model.load.in_flight(),
            concurrency: model.slots(&node.env),
            p75_ms: model.load.p75_ms().map(|ms| rounded(ms, 1)),
        };
        (format!("{}:{}", node.id, shown_name(model)), queue)
    })
}

/// A node keeps its models in the order of their keys, which means nothing to people.
fn by_name(node: &Node) -> impl Iterator<Item = &Model> {
    let sorted: BTreeMap<_, _> = node.models.iter().map(|model| (&model.name, model)).collect();
    sorted.into_values()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / GB
}

fn rounded(value: f64, decimals: i32) -> f64 {
    let unit = 10f64.powi(decimals);
    (value * unit).round() / unit
}
