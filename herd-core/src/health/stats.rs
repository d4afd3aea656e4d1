//! What is counted of a fleet at work, as plain numbers: the admin service fills it from its store and its counters.
//!
//! Windows end now: the last hour, and the last 24 hours, that hour included. Numbers of requests are of requests that
//! ended in the window. Benchmarks are left out. Percentiles without samples are zero and never read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All that is counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// How long the store has counted, milliseconds: what was not asked for in a shorter time may yet be.
    pub observed_ms: u64,
    /// The edge as a whole.
    pub edge: EdgeStats,
    /// What happened to nodes, by their ids; to a node that is not here, nothing.
    pub nodes: BTreeMap<String, NodeStats>,
    /// What models did on nodes: by the nodes' ids, one row for each model.
    pub models: BTreeMap<String, Vec<ModelStats>>,
    /// What clients asked for, one row for each normalised name.
    pub demand: Vec<Demand>,
    /// Agents that were turned away in the last minutes, one row for each address and reason.
    pub join_refusals: Vec<JoinRefusal>,
}

/// An agent that was turned away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinRefusal {
    /// Address that its heartbeats come from.
    pub address: String,
    /// Name of its node; empty = it was turned away before that was read.
    pub node_id: String,
    /// Short name of the reason.
    pub code: String,
    /// The reason with what to do, as the agent was told.
    pub message: String,
    /// How often since it began.
    pub count: u64,
}

/// The edge as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeStats {
    /// The last hour.
    pub hour: EdgeWindow,
    /// The last 24 hours.
    pub day: EdgeWindow,
    /// The trace store.
    pub store: StoreStats,
}

/// The edge as a whole in one window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeWindow {
    /// Inference requests, refused ones included.
    pub requests: u64,
    /// Refused because too many waited already.
    pub queue_refused: u64,
    /// Given up because they waited too long.
    pub queue_timeouts: u64,
    /// How long requests waited for a slot, those that did not wait included.
    pub queue_wait: Percentiles,
    /// Retries that the fleet-wide budget forbade.
    pub retry_budget_exhausted: u64,
    /// Loads of models that requests caused.
    pub loads: u64,
    /// Those of them that the edge had not foreseen.
    pub unforeseen_loads: u64,
    /// Pulls that were started for requests.
    pub auto_pulls: u64,
    /// Those of them that failed.
    pub auto_pulls_failed: u64,
    /// Bodies refused as too large, too slow or too many at a time.
    pub bodies_refused: u64,
    /// Times that the process did not run for some seconds.
    pub sleeps: u64,
    /// Requests that a proxy on the edge's machine seems to have forwarded without saying so.
    pub unmarked_proxies: u64,
}

/// Whether the trace store works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreState {
    /// It takes traces.
    #[default]
    Ok,
    /// It is switched off.
    Disabled,
    /// Its disk is full or its file cannot be written.
    Unwritable,
    /// Its file was corrupt and has been set aside; a new one is in use.
    SetAside,
    /// It cannot be opened at all.
    Broken,
}

/// The trace store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreStats {
    /// Whether it works.
    pub state: StoreState,
    /// Traces that were lost in the last hour, as the writer could not keep up or failed.
    pub dropped_hour: u64,
    /// Size of its files.
    pub file_bytes: u64,
    /// Free on its disk; `None` = unknown.
    pub disk_free_bytes: Option<u64>,
    /// What the database holds, without free pages.
    pub used_bytes: u64,
    /// Most that it may hold; 0 = unknown.
    pub max_bytes: u64,
    /// The wall clock was set within the last day, by so many milliseconds; `None` = it was not.
    pub clock_step_ms: Option<i64>,
}

/// What happened to one node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStats {
    /// The last hour.
    pub hour: NodeWindow,
    /// The last 24 hours.
    pub day: NodeWindow,
}

/// What happened to one node in one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeWindow {
    /// How often it went from being chosen to not being chosen: offline, hung or ejected. A clean drain is none.
    pub departures: u64,
}

/// What one model did on one node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelStats {
    /// The normalised name of the model that served.
    pub model: String,
    /// The last hour.
    pub hour: ModelWindow,
    /// The last 24 hours.
    pub day: ModelWindow,
}

/// What one model did on one node in one window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelWindow {
    /// Requests that ended here, whatever their end.
    pub requests: u64,
    /// Answered whole.
    pub completed: u64,
    /// Failed here for good.
    pub failed: u64,
    /// Broken off after the first byte.
    pub incomplete: u64,
    /// Cancelled as they made no progress.
    pub reaped: u64,
    /// Left by their clients.
    pub client_disconnected: u64,
    /// Attempts that failed here and were made again elsewhere; not among `requests`.
    pub retries: u64,
    /// Attempts that were answered "busy".
    pub busy: u64,
    /// Requests for which the model had to be loaded, reloads apart.
    pub cold_loads: u64,
    /// What those loads took together, milliseconds; 0 = unknown.
    pub load_ms_total: f64,
    /// Requests for which it was loaded anew, by cause.
    pub reloads: Reloads,
    /// From request read to the first byte of the answer.
    pub ttft: Percentiles,
    /// From request read to the last byte.
    pub latency: Percentiles,
    /// The part of that spent waiting at the edge.
    pub queue_wait: Percentiles,
    /// Predictions and what came of them.
    pub prediction: PredictionError,
    /// Tokens per second of one answer, the median; `None` = not told by the node.
    pub tokens_per_s: Option<f64>,
    /// Prompts estimated to exceed the window that served them.
    pub overflows: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// The window against what was used of it.
    pub context: ContextUse,
}

/// Reloads by cause, as [`crate::protect::ReloadCause`] names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloads {
    /// More context was asked for than is loaded.
    pub context_larger: u64,
    /// Another context was asked for, and was forwarded.
    pub context_differs: u64,
    /// Nothing was asked for, and the node's default is not what is loaded.
    pub node_default: u64,
    /// Other launch options differed.
    pub launch_options: u64,
}

/// Percentiles of a time, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Percentiles {
    /// How many there were.
    pub samples: u64,
    /// The median.
    pub p50_ms: f64,
    /// 95 of 100 were below.
    pub p95_ms: f64,
    /// 99 of 100 were below.
    pub p99_ms: f64,
}

/// What was predicted until an answer begins against what it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PredictionError {
    /// How many there were.
    pub samples: u64,
    /// Mean of what was predicted, milliseconds.
    pub predicted_ms: f64,
    /// Mean of what it took, milliseconds.
    pub actual_ms: f64,
}

/// Tokens that requests used of their window: prompt and answer together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContextUse {
    /// How many requests told it.
    pub samples: u64,
    /// 95 of 100 used at most so many.
    pub used_p95: u64,
    /// The most.
    pub used_max: u64,
    /// The window that served the last of them; `None` = unknown.
    pub allocated: Option<u64>,
}

/// What clients asked for by one name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Demand {
    /// The name that was asked for, normalised.
    pub model: String,
    /// The last hour.
    pub hour: DemandWindow,
    /// The last 24 hours.
    pub day: DemandWindow,
}

/// What clients asked for by one name in one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DemandWindow {
    /// Requests, refused ones included.
    pub requests: u64,
    /// Refused with 404, as no node has the model.
    pub refused_unknown: u64,
    /// Served by another model: a fallback or an upgrade. Aliases are none.
    pub stand_ins: u64,
}

impl Stats {
    /// What all models did on the node named `id`.
    pub fn on_node(&self, id: &str) -> impl Iterator<Item = &ModelStats> {
        self.models.get(id).into_iter().flatten()
    }

    /// What `model` did on the node named `id`.
    #[must_use]
    pub fn pair(&self, id: &str, model: &str) -> Option<&ModelStats> {
        self.on_node(id).find(|row| row.model == model)
    }
}

impl Reloads {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.asked_for().saturating_add(self.node_default)
    }

    /// Those that something in a request caused.
    #[must_use]
    pub fn asked_for(&self) -> u64 {
        self.context_larger.saturating_add(self.context_differs).saturating_add(self.launch_options)
    }
}
