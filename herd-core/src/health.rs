//! What is wrong with the fleet, and what an operator can do about it.
//!
//! Each check is a small pure function of [`Inputs`]. What it sees opens a finding only after it has held for some
//! evaluations, and closes it only after it has been gone for some ([`Findings`]); a check over counts says nothing
//! below its smallest sample. Evaluations are meant to be 15 to 30 s apart. To add a check: a function in one of the
//! modules, a row in [`CHECKS`], and a case in the tests.

mod configuration;
mod context;
mod failures;
mod findings;
mod fix;
mod joining;
mod latency;
mod memory;
mod nodes;
mod observed;
#[cfg(test)]
mod scene;
mod stats;
mod storage;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::fleet::{FleetSnapshot, LifeLimits, Node};
use crate::pull::PullPolicy;
use crate::recommend::Catalogue;

pub use crate::version::Version;
pub use findings::{
    Change, FINDINGS_MAX, Finding, Findings, Folded, Key, MUTES_MAX, Mute, Overall, Report, What, finding_cost, score,
};
pub use observed::{Observed, Value};
pub(crate) use observed::{human_bytes, human_ms};
pub use stats::{
    ContextUse, Demand, DemandWindow, EdgeStats, EdgeWindow, JoinRefusal, ModelStats, ModelWindow, NodeStats,
    NodeWindow, Percentiles, PredictionError, Reloads, Stats, StoreState, StoreStats,
};

use observed::Seen;
#[cfg(test)]
pub(crate) use scene::Scene;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing. It costs no points.
    #[default]
    Info,
    /// Requests are slower or dearer than they need be, or will be.
    Warning,
    /// Requests fail, or will soon.
    Critical,
}

/// What the checks hold the fleet to, besides their own limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// When silent nodes change their state.
    pub life: LifeLimits,
    /// What pulls leave alone on disks.
    pub pull: PullPolicy,
    /// Heartbeats must carry a join token.
    pub has_join_token: bool,
    /// Version of this edge.
    pub version: String,
    /// How far a node's clock may be off, milliseconds.
    pub clock_skew_ms: u64,
    /// Wait at the edge, 95th percentile, from which slots are taken to be too few, milliseconds.
    pub queue_wait_p95_ms: f64,
}

impl Default for Policy {
    /// Clocks: more than a heartbeat is late on any network that works. Waits: what a person at a prompt puts up with.
    fn default() -> Self {
        Self {
            life: LifeLimits::default(),
            pull: PullPolicy::default(),
            has_join_token: false,
            version: String::new(),
            clock_skew_ms: 10_000,
            queue_wait_p95_ms: 10_000.0,
        }
    }
}

/// All that the checks and the recommendations look at.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The fleet.
    pub snapshot: &'a FleetSnapshot,
    /// What it is held to.
    pub policy: &'a Policy,
    /// What is counted of it.
    pub stats: &'a Stats,
    /// What is known of models.
    pub catalogue: &'a Catalogue,
    /// Now, on the clock of the snapshot.
    pub now_ms: u64,
    /// Now by the edge's wall clock, milliseconds since 1970; 0 = unknown. Only nodes' clocks are compared with it.
    pub unix_ms: u64,
}

impl<'a> Inputs<'a> {
    /// The rows of models on nodes that are there, with their nodes, in the order of the nodes.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'a Node, &'a ModelStats)> {
        let stats = self.stats;
        self.nodes().flat_map(move |node| stats.on_node(node.id.as_str()).map(move |row| (node, row)))
    }

    /// The nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &'a Node> + use<'a> {
        self.snapshot.nodes.iter().map(AsRef::as_ref)
    }
}

/// A check: what it looks for, and how sure it must be.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its stable name.
    pub id: &'static str,
    /// What it finds, for people.
    pub title: &'static str,
    /// How bad it is, unless the check itself finds it better or worse.
    pub severity: Severity,
    /// Fewest requests, or whatever it counts, from which it says anything; 0 = it judges a state.
    pub min_samples: u64,
    /// Evaluations in a row that it must hold for a finding to open.
    pub opens_after: u32,
    /// Evaluations in a row that it must be gone for the finding to close.
    pub closes_after: u32,
    watch: fn(&Inputs<'_>, u64) -> Vec<Seen>,
}

type Watch = fn(&Inputs<'_>, u64) -> Vec<Seen>;

/// A check of a state that is plain at a glance.
const fn state(id: &'static str, severity: Severity, title: &'static str, watch: Watch) -> Check {
    Check { id, title, severity, min_samples: 0, opens_after: 2, closes_after: 2, watch }
}

/// A check of a state that comes and goes in the course of work.
const fn sustained(id: &'static str, severity: Severity, title: &'static str, watch: Watch) -> Check {
    Check { id, title, severity, min_samples: 0, opens_after: 4, closes_after: 4, watch }
}

/// A check over counts, which says nothing below `min_samples`.
const fn counted(id: &'static str, severity: Severity, title: &'static str, min_samples: u64, watch: Watch) -> Check {
    Check { id, title, severity, min_samples, opens_after: 2, closes_after: 3, watch }
}

use Severity::{Critical, Info, Warning};

/// How many checks there are.
pub const CHECK_COUNT: usize = 58;

/// The checks.
#[rustfmt::skip]
pub const CHECKS: [Check; CHECK_COUNT] = [
    state("fleet_empty", Critical, "No node has joined", nodes::fleet_empty),
    state("node_down", Critical, "Neither the agent nor Ollama is heard", nodes::down),
    state("node_silent", Warning, "Heartbeats are missing", nodes::silent),
    state("agent_silent", Warning, "The agent is silent, Ollama answers", nodes::agent_silent),
    state("ollama_down", Critical, "Ollama does not run", nodes::ollama_down),
    state("ollama_hung", Critical, "Ollama takes connections and does not answer", nodes::ollama_hung),
    state("ollama_old", Warning, "Ollama is too old for what herd does per request", nodes::ollama_old),
    state("agent_old", Info, "The agent tells less than the edge could use", nodes::agent_old),
    state("clock_skew", Warning, "The node's clock is off", nodes::clock_skew),
    counted("node_flapping", Warning, "The node comes and goes", 3, nodes::flapping),
    sustained("node_hot", Warning, "The node is so hot that it may slow down", nodes::hot),
    state("node_ejected", Critical, "The node fails and is left out", nodes::ejected),
    state("node_cordoned", Info, "The node was taken out by an operator", nodes::cordoned),
    state("memory_pressure", Warning, "Memory is short", memory::pressure),
    sustained("swap_in_use", Warning, "Memory is swapped to disk", memory::swap),
    sustained("vram_taken", Warning, "GPU memory is full, and not with models", memory::vram_taken),
    state("model_cannot_fit", Info, "A model on disk fits into no memory of its node", memory::cannot_fit),
    sustained("model_on_cpu", Warning, "A model runs partly on the CPU", memory::on_cpu),
    sustained("duplicate_runner", Warning, "Two versions of one model are in memory", memory::duplicate_runner),
    counted("context_oversized", Info, "The window is far larger than what is used of it", 20, context::oversized),
    counted("reload_thrash", Warning, "A model is loaded again and again for other options", 6, context::thrash),
    counted("v1_default_mismatch", Warning, "Requests without num_ctx reload a model", 3, context::default_mismatch),
    counted("context_overflow", Warning, "Prompts exceed the window and are cut", 20, context::overflow),
    counted("slow_node", Warning, "A node is slow for a model against its peers", 20, latency::slow_node),
    counted("node_slowed", Warning, "A node is slower than it was", 20, latency::slowed),
    counted("cold_loads", Warning, "A model is loaded for many of its requests", 20, latency::cold_loads),
    counted("queue_saturated", Warning, "Requests wait long for a slot", 20, latency::queue_saturated),
    counted("queue_refusals", Critical, "Requests are turned away from a full queue", 20, latency::queue_refusals),
    counted("prediction_drift", Info, "Predicted times are far from what happens", 30, latency::prediction_drift),
    counted("unforeseen_loads", Info, "Loads happen that the edge did not foresee", 20, latency::unforeseen_loads),
    counted("failure_rate", Warning, "Requests fail", 21, failures::failure_rate),
    counted("retry_rate", Warning, "Many attempts fail and are made again elsewhere", 20, failures::retry_rate),
    counted("retry_budget_exhausted", Warning, "More fails than may be retried", 5, failures::retry_budget),
    counted("incomplete_streams", Warning, "Answers break off", 50, failures::incomplete),
    counted("client_disconnects", Info, "Clients leave before their answer ends", 20, failures::disconnects),
    counted("busy_answers", Warning, "The node answers that it is busy", 20, failures::busy),
    counted("zombies", Warning, "Requests make no progress and are cancelled", 2, failures::zombies),
    counted("bodies_refused", Info, "Requests are refused for their bodies", 5, failures::bodies_refused),
    counted("model_missing", Info, "Clients ask for a model that no node has", 5, failures::model_missing),
    counted("stand_ins", Info, "Another model often answers in its place", 20, failures::stand_ins),
    counted("num_parallel_low", Warning, "Requests wait while the node runs one at a time", 20, configuration::num_parallel),
    counted("keep_alive_short", Warning, "A model is unloaded although there is memory for it", 20, configuration::keep_alive),
    counted("max_loaded_reached", Warning, "The limit on loaded models is met, the memory is not", 20, configuration::max_loaded),
    state("ollama_local_only", Critical, "Ollama runs, but the edge cannot reach it", configuration::local_only),
    state("not_ollama", Critical, "What answers at a node's address is not an Ollama", configuration::not_ollama),
    sustained("herd_bypassed", Info, "Other clients use the node's Ollama directly", configuration::bypassed),
    state("join_refused", Warning, "An agent is turned away", joining::refused),
    state("same_ollama", Warning, "Two agents report one Ollama", joining::same_ollama),
    counted("unmarked_proxy", Warning, "A proxy does not say that it forwards", 1, configuration::unmarked_proxy),
    state("no_join_token", Info, "Any machine on the network may join", configuration::no_join_token),
    state("disk_low", Warning, "The disk with the models is nearly full", storage::disk_low),
    state("store_broken", Critical, "The trace store does not work", storage::store_broken),
    counted("traces_dropped", Warning, "Traces are lost", 1, storage::traces_dropped),
    state("store_disk_low", Warning, "The disk with the traces is nearly full", storage::store_disk_low),
    state("store_filling", Warning, "The trace store is nearly as large as it may be", storage::store_filling),
    state("clock_stepped", Warning, "The edge's clock was set", storage::clock_stepped),
    counted("edge_asleep", Warning, "The edge's process did not run for a while", 1, storage::edge_asleep),
    counted("auto_pull_failed", Warning, "Pulls for requests fail", 2, storage::auto_pull_failed),
];

/// Most that one evaluation sees: beyond that the least bad are left out, and a fleet is in such a state that it does
/// not matter.
pub const OBSERVED_MAX: usize = FINDINGS_MAX;

/// What all checks see now, the worst first, then in the order of [`CHECKS`].
#[must_use]
pub fn evaluate(inputs: &Inputs<'_>) -> Vec<Observed> {
    let seen = CHECKS
        .iter()
        .flat_map(|check| (check.watch)(inputs, check.min_samples).into_iter().map(|seen| Observed::new(check, seen)));
    let mut observed: Vec<Observed> = seen.collect();
    observed.sort_by_key(|one| std::cmp::Reverse(one.severity));
    observed.truncate(OBSERVED_MAX);
    observed
}

/// The check named `id`.
#[must_use]
pub fn check(id: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|check| check.id == id)
}

/// Which share of `whole` `part` is; 0 of nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A measured number that can be compared; `None` = it is not one.
fn measured(number: f64) -> Option<f64> {
    Some(number).filter(|number| number.is_finite() && *number > 0.0)
}
