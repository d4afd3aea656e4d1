//! What agents and edges say to each other: the heartbeat and its answer.
//!
//! The top level has the field names of the Python project `ollama-herd` (0.11.x), so that its `herd-node` can join
//! this edge and our agent can join its router. Those fields carry GiB and decimal GB as that project does; what herd
//! itself decides from travels in [`HerdReport`], in bytes and milliseconds, under the one key `herd`.
//!
//! Every type tolerates unknown fields from newer senders. Nothing here is checked: a heartbeat is hostile until
//! [`crate::fleet::FleetSnapshot::apply`] has taken it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of [`HerdReport`] that this build writes.
pub const SCHEMA: u32 = 1;

/// One report from an agent to an edge.
///
/// A heartbeat of only `node_id` and `draining: true` announces a clean stop.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// Stable name of the node.
    pub node_id: String,
    /// The node is leaving: no new requests.
    pub draining: bool,
    /// `apple_silicon`, `x86_64`, `arm64`, ...
    pub arch: String,
    /// The sender's clock, Unix seconds. For display only: never compared with ours.
    pub timestamp: f64,
    /// CPU facts.
    pub cpu: Option<Cpu>,
    /// Memory facts in GiB.
    pub memory: Option<Memory>,
    /// Host temperature.
    pub thermal: Option<Thermal>,
    /// Disk facts in GiB.
    pub disk: Option<Disk>,
    /// Ollama facts.
    pub ollama: Option<Ollama>,
    /// URL of the node's Ollama as the agent uses it.
    pub ollama_host: String,
    /// The agent's own idea of its LAN address.
    pub lan_ip: String,
    /// Learned capacity; absent from our agent.
    pub capacity: Option<Capacity>,
    /// Version of the agent.
    pub agent_version: String,
    /// Marketing name of the CPU, with the first GPU's name.
    pub chip: String,
    /// Memory bandwidth of the device that runs models, GB/s; 0 = unknown.
    pub memory_bandwidth_gbps: f64,
    /// What herd's own agent adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub herd: Option<HerdReport>,
}

/// The heartbeat interval of agents that do not tell theirs.
const INTERVAL_MS: u64 = 5_000;
/// The longest interval that is believed: what waits for an agent's next report must not wait for ever.
const INTERVAL_MAX_MS: u64 = 60_000;

impl Heartbeat {
    /// How often its agent reports, milliseconds, as far as that is believed; at most a minute.
    #[must_use]
    pub fn interval_ms(&self) -> u64 {
        let told = self.herd.as_ref().map(|report| report.interval_ms).filter(|interval| *interval > 0);
        told.unwrap_or(INTERVAL_MS).min(INTERVAL_MAX_MS)
    }
}

/// CPU facts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// Physical cores.
    pub cores_physical: u32,
    /// Busy share since the last heartbeat, 0-100.
    pub utilization_pct: f64,
}

/// Memory in GiB.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Installed.
    pub total_gb: f64,
    /// In use.
    pub used_gb: f64,
    /// Available to new work.
    pub available_gb: f64,
    /// How short memory is.
    pub pressure: Pressure,
    /// Swap in use.
    pub swap_used_gb: f64,
    /// Swap configured.
    pub swap_total_gb: f64,
}

/// How short of memory a host is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pressure {
    /// Enough.
    #[default]
    Normal,
    /// Little left.
    Warn,
    /// A cold load would hurt the host.
    Critical,
}

/// Host temperature.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thermal {
    /// `nominal`, `warning` or `unknown`.
    pub state: String,
    /// Hottest sensor in degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Name of that sensor.
    pub source: String,
}

/// Disk in GiB.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// Size.
    pub total_gb: f64,
    /// In use.
    pub used_gb: f64,
    /// Free for unprivileged users.
    pub available_gb: f64,
}

/// Ollama as the Python project's agents describe it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ollama {
    /// Models in memory now.
    pub models_loaded: Vec<LoadedSummary>,
    /// Names of the models on disk.
    pub models_available: Vec<String>,
    /// Their metadata; null = as last time.
    pub models_available_meta: Option<BTreeMap<String, ModelMeta>>,
    /// Their sizes on disk, decimal GB.
    pub models_available_sizes: BTreeMap<String, f64>,
    /// `OLLAMA_MAX_LOADED_MODELS`; 0 = not known.
    pub max_loaded_models: u32,
    /// `OLLAMA_NUM_PARALLEL`; 0 = not known.
    pub num_parallel: u32,
    /// Requests running, where known.
    pub requests_active: u32,
    /// Version of Ollama.
    pub version: String,
}

/// A model in memory, in the Python project's form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadedSummary {
    /// Name with tag.
    pub name: String,
    /// Resident size in GiB.
    pub size_gb: f64,
    /// Requests running, where known.
    pub requests_active: u32,
    /// `3.2B`.
    pub parameter_size: String,
    /// `Q4_K_M`.
    pub quantization: String,
    /// Loaded context in tokens; 0 = not known.
    pub context_length: u64,
    /// `llamacpp` or `mlx`.
    pub runner: String,
    /// Manifest digest, hex.
    pub digest: String,
}

/// Metadata of a model on disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelMeta {
    /// RFC 3339.
    pub modified_at: String,
    /// Manifest digest, hex.
    pub digest: String,
    /// `gguf` or `safetensors`.
    pub format: String,
    /// Architecture family.
    pub family: String,
    /// All families.
    pub families: Option<Vec<String>>,
    /// `3.2B`.
    pub parameter_size: String,
    /// `Q4_K_M`.
    pub quantization_level: String,
    /// Parent model, mostly empty.
    pub parent_model: String,
    /// `completion`, `embedding`, `tools`, `thinking`, `vision`, `insert`.
    pub capabilities: Vec<String>,
}

/// Learned capacity of a shared machine, as the Python project's agents report it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// `full`, `learned_high`, `learned_medium`, `learned_low`, `paused`, `bootstrap`.
    pub mode: String,
    /// Memory that models may use, GiB; 0 = no ceiling.
    pub ceiling_gb: f64,
    /// 0-1.
    pub availability_score: f64,
    /// Why.
    pub reason: String,
}

/// What herd's own agent adds to a heartbeat, in bytes and milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HerdReport {
    /// Version of this structure; see [`SCHEMA`].
    pub schema: u32,
    /// Random name of this run of the agent, so that a restart is told from a delayed heartbeat.
    pub boot: String,
    /// Counts up within one `boot`; an edge ignores what is not newer.
    pub seq: u64,
    /// The agent's heartbeat interval.
    pub interval_ms: u64,
    /// The machine.
    pub host: Host,
    /// Memory, if it could be read.
    pub memory: Option<MemoryBytes>,
    /// Disk of the models' folder, if it could be read.
    pub disk: Option<DiskBytes>,
    /// Devices that can run models. Empty = none was found, which is not an error.
    pub gpus: Vec<Gpu>,
    /// Ollama, seen from its own host.
    pub ollama: OllamaReport,
}

/// The machine that an agent runs on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// Host name.
    pub hostname: String,
    /// `macos`, `linux`, `windows`.
    pub os: String,
    /// Version of the operating system.
    pub os_version: String,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryBytes {
    /// Installed.
    pub total_bytes: u64,
    /// Available to new work without swapping.
    pub available_bytes: u64,
    /// Swap configured.
    pub swap_total_bytes: u64,
    /// Swap in use.
    pub swap_used_bytes: u64,
    /// How short memory is.
    pub pressure: Pressure,
}

/// A disk in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskBytes {
    /// The folder that was asked about.
    pub path: String,
    /// Size of its file system.
    pub total_bytes: u64,
    /// Free for unprivileged users.
    pub available_bytes: u64,
}

/// One device that can run models.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// Marketing name.
    pub name: String,
    /// `nvidia`, `amd`, `apple`.
    pub vendor: String,
    /// The GPU shares system memory: its VRAM numbers are the system's.
    pub unified: bool,
    /// Memory of the device.
    pub vram_total_bytes: Option<u64>,
    /// Memory not in use.
    pub vram_free_bytes: Option<u64>,
    /// Busy share, 0-100.
    pub utilization_pct: Option<f64>,
    /// Degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Watts.
    pub power_watts: Option<f64>,
}

/// How the local Ollama answered the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OllamaState {
    /// Answers within its timeout.
    #[default]
    Ok,
    /// Accepts connections but does not answer in time.
    Hung,
    /// Refuses connections.
    Down,
}

/// Ollama, seen from its own host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OllamaReport {
    /// How it answered. When not `ok`, the lists below are the last known ones.
    pub state: OllamaState,
    /// Where it listens, `host:port`.
    pub address: String,
    /// Its version.
    pub version: String,
    /// Its settings, as its own process has them.
    pub env: OllamaEnv,
    /// Models in memory.
    pub loaded: Vec<LoadedModel>,
    /// Models on disk.
    pub available: Vec<AvailableModel>,
    /// True occupancy per runner; `None` = could not be read on this host.
    pub runners: Option<Vec<Runner>>,
    /// Names of the models that are being loaded now, at most 16; aliases of the same weights are all there.
    ///
    /// A load whose model could not be named is an empty string. An empty list says nothing: not every host shows its
    /// loads, and older agents do not report them.
    pub loading: Vec<String>,
    /// Whether its runners work, told by what their processes use of the machine; at most 64. Empty = it cannot be seen, or
    /// the agent is older than this field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub activity: Vec<RunnerActivity>,
}

/// Work of one runner process, told by what it uses of the machine: that is seen on every system, also where slots are not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunnerActivity {
    /// Name of the model that it runs; empty = it could not be matched, and may be any.
    pub model: String,
    /// How often the agent has looked and found it at work: its CPU time had grown, it had read from disk, its memory had
    /// changed, or a GPU was busy.
    pub steps: u64,
    /// Whether a look would show that it stands still; false where not all that it uses can be read.
    pub conclusive: bool,
}

/// Settings of the Ollama process; `None` = could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OllamaEnv {
    /// `OLLAMA_NUM_PARALLEL`: slots per runner.
    pub num_parallel: Option<u32>,
    /// `OLLAMA_MAX_LOADED_MODELS`.
    pub max_loaded_models: Option<u32>,
    /// `OLLAMA_CONTEXT_LENGTH`: tokens.
    pub context_length: Option<u64>,
}

/// A model in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadedModel {
    /// Name with tag.
    pub name: String,
    /// Manifest digest, hex.
    pub digest: String,
    /// Resident size, weights and KV cache.
    pub size_bytes: u64,
    /// The part of it in GPU memory.
    pub size_vram_bytes: u64,
    /// Context per slot in tokens; 0 = not reported by this version of Ollama.
    pub context_length: u64,
    /// RFC 3339, the node's clock.
    pub expires_at: String,
}

/// A model on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AvailableModel {
    /// Name with tag.
    pub name: String,
    /// Manifest digest, hex.
    pub digest: String,
    /// Size on disk.
    pub size_bytes: u64,
    /// RFC 3339.
    pub modified_at: String,
    /// `gguf` or `safetensors`.
    pub format: String,
    /// Architecture family.
    pub family: String,
    /// All families.
    pub families: Vec<String>,
    /// `3.2B`.
    pub parameter_size: String,
    /// `Q4_K_M`.
    pub quantization_level: String,
    /// Context that the model was trained with, tokens; 0 = not reported.
    pub context_length: u64,
    /// Length of the vectors inside the model; 0 = not reported.
    #[serde(skip_serializing_if = "is_zero")]
    pub embedding_length: u64,
    /// The model that it was created from; mostly empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent_model: String,
    /// `completion`, `embedding`, `tools`, `thinking`, `vision`, `insert`.
    pub capabilities: Vec<String>,
    /// `PARAMETER num_ctx` of its Modelfile, tokens; 0 = none, or not known: the agent learns it only where it has to
    /// ask `/api/show` anyway.
    pub num_ctx: u64,
    /// The model elsewhere that requests are handed on to; empty = it runs on the node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_model: String,
    /// Where that is, a URL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_host: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Occupancy of one runner process. Counts only, never text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Runner {
    /// Name of the model that it runs, where it could be matched; else empty.
    pub model: String,
    /// Requests it can run at once.
    pub slots: u32,
    /// Requests it runs now, other clients' included.
    pub slots_busy: u32,
    /// Context per slot in tokens.
    pub context_length: u64,
    /// Tokens still to decode in the busy slots, where limited.
    pub tokens_left: u64,
    /// Prompt tokens still to prefill in the busy slots.
    pub prefill_tokens_left: u64,
    /// Prompt tokens read (those from the cache included) and tokens decoded, summed over the busy slots.
    ///
    /// It moves while a request gets on and falls when one ends: whether it changed is what it tells. 0 = nothing runs,
    /// or the agent is older than this field.
    pub tokens_done: u64,
}

/// The edge's answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// `ok` or `draining`.
    pub status: String,
    /// Life state of the node at the edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_status: Option<String>,
    /// The node, when draining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// What must be mended before the edge can use the node, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}
