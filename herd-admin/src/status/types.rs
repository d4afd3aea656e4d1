//! The shape of `GET /fleet/status`.
//!
//! The upper fields of each structure have the Python project's names and units (GiB, and decimal GB for sizes on
//! disk), for the scripts of its users; the lower ones are herd's, in bytes and milliseconds. A null is a fact that is
//! not known; in the upper fields, which never were null, such a fact is 0 or empty.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use herd_core::wire;
use serde::Serialize;

use crate::node_facts::Why;

#[derive(Debug, Serialize)]
pub(super) struct FleetStatus<'a> {
    pub(super) fleet: Totals,
    pub(super) nodes: Vec<NodeStatus<'a>>,
    /// By `node:model`.
    pub(super) queues: BTreeMap<String, Queue<'a>>,
    /// Unix seconds.
    pub(super) timestamp: f64,

    pub(super) edge: Edge<'a>,
    /// Counts the pictures of the fleet.
    pub(super) fleet_version: u64,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Totals {
    pub(super) nodes_total: usize,
    /// Only those in the state `online`.
    pub(super) nodes_online: usize,
    /// Models in memory of nodes that are not offline, counted per node.
    pub(super) models_loaded: usize,
    /// Requests that this edge has sent and not seen end.
    pub(super) requests_active: u32,
    /// Requests that wait at this edge for a slot.
    pub(super) requests_waiting: usize,

    /// Nodes that take new requests now.
    pub(super) nodes_ready: usize,
    pub(super) slots: u32,
    /// Requests that wait at nodes, as far as is known; see `requests_waiting` for the edge.
    pub(super) queue_depth: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Edge<'a> {
    pub(super) version: &'a str,
    pub(super) draining: bool,
    pub(super) uptime_ms: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct NodeStatus<'a> {
    pub(super) node_id: &'a str,
    /// `online`, `degraded` or `offline`; see `state` for the finer truth.
    pub(super) status: &'static str,
    pub(super) hardware: Hardware<'a>,
    pub(super) ollama_url: String,
    pub(super) cpu: Option<&'a wire::Cpu>,
    pub(super) memory: MemoryGb,
    /// Models that the node keeps in memory at a time.
    pub(super) hot_model_cap: u32,
    pub(super) ollama: OllamaStatus<'a>,
    pub(super) models_loaded_count: u32,
    pub(super) free_slots: u32,

    /// `online`, `degraded`, `stale`, `offline` or `draining`.
    pub(super) state: &'static str,
    /// Why it takes no requests, or only if no other node is eligible; null = all is well.
    pub(super) why: Option<Why>,
    /// `well`, `agent_silent`, `ollama_hung`, `ollama_down`, `probe_fails` or `unreachable`.
    pub(super) condition: &'static str,
    pub(super) address: SocketAddr,
    pub(super) heartbeat_age_ms: u64,
    pub(super) known_for_ms: u64,
    pub(super) agent_version: &'a str,
    /// Requests that this edge has sent and not seen end.
    pub(super) in_flight: u32,
    /// Requests that its loaded models can run at once.
    pub(super) slots: u32,
    /// Requests that wait there for a slot, as far as is known.
    pub(super) queue_depth: u32,
    /// Requests of others than this edge, as far as its agent can tell.
    pub(super) busy_by_others: u32,
    /// It said that it is leaving.
    pub(super) draining: bool,
    /// An operator took it out.
    pub(super) cordoned: bool,
    /// The owner's reason for pausing it; null = not paused.
    pub(super) paused: Option<&'a str>,
    /// Until it is tried again after failures; 0 = it is not out.
    pub(super) ejected_for_ms: u64,
    /// The edge's own health probe succeeds.
    pub(super) probe_ok: bool,
    /// How its Ollama answers its agent.
    pub(super) ollama_state: wire::OllamaState,
    /// Memory that models are loaded into.
    pub(super) device: DeviceStatus,
    pub(super) gpus: &'a [wire::Gpu],
    pub(super) thermal: Option<&'a wire::Thermal>,
    pub(super) disk: Option<&'a wire::Disk>,
    pub(super) capacity: Option<&'a wire::Capacity>,
    pub(super) env: wire::OllamaEnv,
    /// By name, those in memory and those on disk.
    pub(super) models: Vec<ModelStatus<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Hardware<'a> {
    pub(super) memory_total_gb: f64,
    pub(super) cores_physical: u32,
    pub(super) chip: &'a str,
    pub(super) memory_bandwidth_gbps: f64,
    pub(super) arch: &'a str,
}

/// In GiB, two decimals.
#[derive(Debug, Serialize)]
pub(super) struct MemoryGb {
    pub(super) total_gb: f64,
    pub(super) used_gb: f64,
    pub(super) available_gb: f64,
    pub(super) pressure: wire::Pressure,
    pub(super) swap_used_gb: f64,
    pub(super) swap_total_gb: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct OllamaStatus<'a> {
    pub(super) models_loaded: Vec<LoadedStatus<'a>>,
    pub(super) models_available: Vec<&'a str>,
    /// Decimal GB.
    pub(super) models_available_sizes: BTreeMap<&'a str, f64>,
    pub(super) max_loaded_models: u32,
    pub(super) num_parallel: u32,
    pub(super) requests_active: u32,
    pub(super) version: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct LoadedStatus<'a> {
    pub(super) name: &'a str,
    /// GiB.
    pub(super) size_gb: f64,
    pub(super) requests_active: u32,
    pub(super) parameter_size: &'a str,
    pub(super) quantization: &'a str,
    pub(super) context_length: u64,
    pub(super) digest: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct DeviceStatus {
    pub(super) total_bytes: Option<u64>,
    pub(super) free_bytes: Option<u64>,
    /// It is the memory of discrete GPUs, not the system's.
    pub(super) discrete: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct ModelStatus<'a> {
    pub(super) name: &'a str,
    /// Manifest digest on disk; empty = not reported.
    pub(super) digest: &'a str,
    /// On disk.
    pub(super) size_bytes: Option<u64>,
    pub(super) context_length_max: Option<u64>,
    pub(super) capabilities: &'a [String],
    pub(super) in_flight: u32,
    pub(super) slots: u32,
    pub(super) queue_depth: u32,
    /// 75th percentile of what requests took here; null = never measured.
    pub(super) p75_ms: Option<f64>,
    /// Null = not in memory.
    pub(super) resident: Option<ResidentStatus<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct ResidentStatus<'a> {
    pub(super) size_bytes: Option<u64>,
    pub(super) size_vram_bytes: Option<u64>,
    pub(super) context_length: Option<u64>,
    pub(super) busy_by_others: u32,
    /// By the node's clock.
    pub(super) expires_at: Option<&'a str>,
}

/// Requests for one model on one node.
#[derive(Debug, Serialize)]
pub(super) struct Queue<'a> {
    pub(super) node_id: &'a str,
    pub(super) model: &'a str,
    /// Waiting at the node for a slot, as far as is known.
    pub(super) pending: u32,
    /// Sent by this edge and not seen end, waiting ones included.
    pub(super) in_flight: u32,
    /// Requests that can run at once.
    pub(super) concurrency: u32,
    pub(super) p75_ms: Option<f64>,
}
