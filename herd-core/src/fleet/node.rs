//! One node and what it holds.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::changed::Recent;
use super::serial::{Serial, serial};
use crate::load::{ModelLoad, NodeLoad, SLOTS_TRIED_MAX, Slots};
use crate::name::{ModelName, NodeId};
use crate::wire;

/// Ages at which a silent node changes its state, by the receiver's clock, counted from its last heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifeLimits {
    /// Some heartbeats are missing. Routed as before.
    pub degraded_after_ms: u64,
    /// Chosen only when no fresher node can serve.
    pub stale_after_ms: u64,
    /// Not chosen.
    pub offline_after_ms: u64,
    /// Forgotten.
    pub gone_after_ms: u64,
}

impl Default for LifeLimits {
    /// With heartbeats every 5 s: two missing, four missing, six missing, an hour.
    fn default() -> Self {
        Self { degraded_after_ms: 12_000, stale_after_ms: 20_000, offline_after_ms: 30_000, gone_after_ms: 3_600_000 }
    }
}

/// Life state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// Heard of lately.
    Online,
    /// Some heartbeats are missing, or its Ollama does not answer the agent or the edge.
    Degraded,
    /// Silent for long: used only if no other candidate is eligible.
    Stale,
    /// Silent for too long, its Ollama is down, or the edge has never seen that.
    Offline,
    /// Takes no new requests; running ones finish.
    Draining,
}

impl NodeState {
    /// Its name in JSON, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Degraded => "degraded",
            Self::Stale => "stale",
            Self::Offline => "offline",
            Self::Draining => "draining",
        }
    }
}

/// What is wrong with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Nothing.
    Well,
    /// Its agent says nothing, but its Ollama answers the edge: the agent is frozen or gone.
    AgentSilent,
    /// Its agent says that its Ollama takes connections and does not answer.
    OllamaHung,
    /// Its agent says that nobody listens.
    OllamaDown,
    /// Its agent is well content, but the edge cannot reach its Ollama.
    ProbeFails,
    /// Neither its agent nor its Ollama is heard: the host is dead, or the network.
    Unreachable,
    /// Another node is the same Ollama and stands for both.
    SameOllama,
    /// The edge has not looked at its Ollama yet.
    Unverified,
    /// What answers at its address is no Ollama.
    NotOllama,
}

impl Condition {
    /// Its name in JSON, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::AgentSilent => "agent_silent",
            Self::OllamaHung => "ollama_hung",
            Self::OllamaDown => "ollama_down",
            Self::ProbeFails => "probe_fails",
            Self::Unreachable => "unreachable",
            Self::SameOllama => "same_ollama",
            Self::Unverified => "unverified",
            Self::NotOllama => "not_ollama",
        }
    }
}

/// Requests at a time for a model that runs elsewhere: its account has limits, the node has none. A bound for arithmetic.
const REMOTE_AT_ONCE: u32 = 65_536;

/// One GPU host, as its last heartbeat told and as this edge counts.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its stable name.
    pub id: NodeId,
    /// A number that it keeps as long as the edge knows it, for compact references.
    pub number: u32,
    /// Where its Ollama is reached.
    pub address: SocketAddr,
    /// Where its heartbeats come from.
    pub sender: IpAddr,
    /// Its agent is on the edge's own machine.
    pub here: bool,
    /// Another node that stands for the Ollama at this address; `None` = this one does.
    pub same_ollama_as: Option<NodeId>,
    /// When its last heartbeat was accepted, on the receiver's monotonic clock.
    pub heartbeat_at_ms: u64,
    /// When it was first heard of.
    pub joined_at_ms: u64,
    /// It said that it is leaving.
    pub draining: bool,
    /// An operator took it out.
    pub cordoned: bool,
    /// What its memory for models is, and how much is free.
    pub device: Device,
    /// How short of memory the host is.
    pub pressure: wire::Pressure,
    /// Memory bandwidth of the device in GB/s; `None` = unknown.
    pub bandwidth_gbps: Option<f64>,
    /// How its Ollama answers its agent.
    pub ollama: wire::OllamaState,
    /// Settings of its Ollama.
    pub env: wire::OllamaEnv,
    /// Where its availability is going.
    pub trend: Trend,
    /// Its owner paused it, with the reason.
    pub paused: Option<String>,
    /// Its models in the order of their keys.
    pub models: Vec<Model>,
    /// Counts of models that it no longer lists while requests are in flight on them; bounded by those requests.
    pub(crate) left_models: Vec<(ModelName, Arc<ModelLoad>)>,
    /// What herd did to its models that its agent may not have seen yet; bounded.
    pub(crate) recent: Vec<Recent>,
    /// What this edge counts of it, and knows of its address.
    pub load: Arc<NodeLoad>,
    /// [`Self::busy_by_others`], added up once: every decision asks every node.
    pub(crate) busy_by_others: u32,
    /// The keys of `models` side by side: a search through the models themselves waits for memory at every step.
    pub(crate) keys: Arc<[u64]>,
    /// What is counted of its models that run elsewhere.
    pub(crate) remote: Arc<[Arc<ModelLoad>]>,
    /// The heartbeat itself, for display.
    pub heartbeat: Arc<wire::Heartbeat>,
}

impl Node {
    /// Its life state at `now_ms`.
    ///
    /// A node whose agent has fallen silent but whose Ollama answers the edge's own probe is not offline: it is stale,
    /// and still serves when no other can.
    #[must_use]
    pub fn state(&self, now_ms: u64, life: &LifeLimits) -> NodeState {
        let age = now_ms.saturating_sub(self.heartbeat_at_ms);
        let silent = age > life.offline_after_ms;
        let down = self.ollama == wire::OllamaState::Down && age <= life.offline_after_ms;
        if down || !self.load.is_verified() || self.load.never_reached() || (silent && !self.load.probe_succeeds()) {
            NodeState::Offline
        } else if self.draining || self.cordoned {
            NodeState::Draining
        } else if age > life.stale_after_ms {
            NodeState::Stale
        } else if age > life.degraded_after_ms || self.ollama == wire::OllamaState::Hung || self.load.probe_failed() {
            NodeState::Degraded
        } else {
            NodeState::Online
        }
    }

    /// What is wrong with it, told from what its agent says and what the edge's own probe finds.
    #[must_use]
    pub fn condition(&self, now_ms: u64, life: &LifeLimits) -> Condition {
        let silent = now_ms.saturating_sub(self.heartbeat_at_ms) > life.degraded_after_ms;
        match (silent, self.ollama) {
            (true, _) if self.load.probe_succeeds() => Condition::AgentSilent,
            (true, _) => Condition::Unreachable,
            (false, wire::OllamaState::Down) => Condition::OllamaDown,
            (false, wire::OllamaState::Hung) => Condition::OllamaHung,
            (false, wire::OllamaState::Ok) if self.load.is_foreign() => Condition::NotOllama,
            (false, wire::OllamaState::Ok) if self.load.probe_failed() => Condition::ProbeFails,
            (false, wire::OllamaState::Ok) if !self.load.is_verified() => Condition::Unverified,
            (false, wire::OllamaState::Ok) if self.same_ollama_as.is_some() => Condition::SameOllama,
            (false, wire::OllamaState::Ok) => Condition::Well,
        }
    }

    /// The model named `name`, if the node has it, resident or on disk.
    #[must_use]
    pub fn model(&self, name: &ModelName) -> Option<&Model> {
        self.model_by_key(name.key()).filter(|model| model.name == *name)
    }

    /// The same for a key that was computed once for many nodes.
    #[must_use]
    pub fn model_by_key(&self, key: u64) -> Option<&Model> {
        let index = if self.keys.len() == self.models.len() {
            self.keys.binary_search(&key)
        } else {
            // Not in a picture yet.
            self.models.binary_search_by_key(&key, |model| model.key)
        };
        index.ok().map(|index| &self.models[index])
    }

    /// Memory that models hold here now, for those that could be evicted: nothing of ours runs on them.
    #[must_use]
    pub fn evictable_bytes(&self) -> u64 {
        let idle = self.runners().filter(|(model, _)| model.load.in_flight() == 0);
        idle.map(|(_, resident)| resident)
            .filter(|resident| resident.busy_by_others == 0)
            .filter_map(|resident| resident.size_vram_bytes.or(resident.size_bytes))
            .fold(0, u64::saturating_add)
    }

    /// Requests that others than this edge run here, as far as the agent can tell.
    #[must_use]
    pub fn busy_by_others(&self) -> u32 {
        self.busy_by_others
    }

    /// Requests of this edge that the node only hands on, to models that run elsewhere.
    #[must_use]
    pub fn handed_on(&self) -> u32 {
        self.remote.iter().map(|load| load.in_flight()).fold(0, u32::saturating_add)
    }

    /// Notes what decisions ask of all its models, as they are.
    pub(super) fn sum_up(&mut self) {
        self.remote = self.models.iter().filter(|model| model.remote).map(|model| Arc::clone(&model.load)).collect();
        self.keys = self.models.iter().map(|model| model.key).collect();
        let others = self.runners().map(|(_, resident)| resident.busy_by_others);
        self.busy_by_others = others.fold(0, u32::saturating_add);
    }

    /// The models in memory, each runner once however many names it has.
    pub fn runners(&self) -> impl Iterator<Item = (&Model, &Resident)> {
        let once = self.models.iter().filter(|model| !model.shares_runner);
        once.filter_map(|model| Some((model, model.resident.as_ref()?)))
    }
}

/// Memory that models are loaded into: of discrete GPUs where there are some, else the system's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Device {
    /// All of it; `None` = unknown.
    pub total_bytes: Option<u64>,
    /// What is free; `None` = unknown.
    pub free_bytes: Option<u64>,
    /// It is the memory of discrete GPUs.
    pub discrete: bool,
    /// The host's own memory, into which Ollama puts what a discrete GPU cannot hold; `None` = unknown.
    pub system_bytes: Option<u64>,
}

/// A model that a node has, in memory or on disk.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its normalised name.
    pub name: ModelName,
    /// [`ModelName::key`] of it.
    pub key: u64,
    /// Size of its weights on disk; `None` = not reported.
    pub size_bytes: Option<u64>,
    /// It runs elsewhere, and the node hands requests on: no slot, load or memory of the node is needed for it.
    pub remote: bool,
    /// The node does not list it and can hand requests on to it all the same. Catalogues leave it out.
    pub unlisted: bool,
    /// Context that it was trained with, tokens; `None` = not reported.
    pub context_length_max: Option<u64>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Metadata for the catalogue.
    pub details: Arc<wire::AvailableModel>,
    /// It is in memory, under this name or another of the same blob.
    pub resident: Option<Resident>,
    /// Another model of the node stands for the runner that both share: sums over runners pass this one over.
    pub shares_runner: bool,
    /// When a heartbeat first missed it in memory, having seen it there before.
    pub unloaded_at_ms: Option<u64>,
    /// What this edge counts and learns of its runner here; shared by all names that the runner has.
    pub load: Arc<ModelLoad>,
}

impl Model {
    /// Requests that it can run at once here: as its runner tells, else as Ollama would start one; an unknown parallelism
    /// is 1, Ollama's default.
    #[must_use]
    pub fn slots(&self, env: &wire::OllamaEnv) -> u32 {
        self.slot_range(env).known
    }

    /// The same, and how many it may have where that is not told.
    #[must_use]
    pub fn slot_range(&self, env: &wire::OllamaEnv) -> Slots {
        if self.remote {
            return Slots::told(REMOTE_AT_ONCE);
        }
        if let Some(slots) = self.resident.as_ref().and_then(|resident| resident.slots) {
            return Slots::told(slots.max(1));
        }
        match (self.serial(), env.num_parallel) {
            (Some(Serial::Always), _) => Slots::told(1),
            // Older versions run them as they are told.
            (Some(Serial::Family), parallel) => Slots { known: 1, possible: parallel.unwrap_or(1).max(1) },
            (None, Some(parallel)) => Slots::told(parallel.max(1)),
            (None, None) => Slots { known: 1, possible: SLOTS_TRIED_MAX },
        }
    }

    /// Whether Ollama starts it with one slot whatever it is told.
    #[must_use]
    pub fn is_serial(&self) -> bool {
        self.serial().is_some()
    }

    fn serial(&self) -> Option<Serial> {
        serial(&self.details, self.capabilities.has("completion"))
    }

    /// Requests that others than this edge run on its runner, as far as the agent can tell.
    #[must_use]
    pub fn busy_by_others(&self) -> u32 {
        self.resident.as_ref().map_or(0, |resident| resident.busy_by_others)
    }
}

/// A model in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resident {
    /// Weights and KV cache; `None` = not reported.
    pub size_bytes: Option<u64>,
    /// The part of it in GPU memory; `None` = not reported.
    pub size_vram_bytes: Option<u64>,
    /// Context per slot in tokens; `None` = not reported.
    pub context_length: Option<u64>,
    /// Requests that it can run at once; `None` = not reported.
    pub slots: Option<u32>,
    /// Requests that clients other than this edge run on it, as of the last heartbeat.
    pub busy_by_others: u32,
    /// Tokens that its runner has read and written for what it runs now; `None` = not reported.
    pub tokens_done: Option<u64>,
    /// When Ollama would unload it, RFC 3339 of the node's clock.
    pub expires_at: String,
    /// When this edge saw it loaded, by the answer to a request; `None` = only heartbeats have told of it.
    pub seen_at_ms: Option<u64>,
    /// No heartbeat has confirmed it yet.
    pub unconfirmed: bool,
}

/// What a model can do; `None` = its node does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities(Option<u8>);

impl Capabilities {
    pub(super) const NAMES: [&'static str; 7] =
        ["completion", "embedding", "vision", "tools", "thinking", "audio", "image"];

    /// From Ollama's names; none at all counts as not told.
    #[must_use]
    pub fn from_names(names: &[String]) -> Self {
        if names.is_empty() {
            return Self(None);
        }
        let bit = |name: &String| Self::NAMES.iter().position(|known| known == name).map_or(0, |index| 1 << index);
        Self(Some(names.iter().map(bit).fold(0, |all, bit| all | bit)))
    }

    /// Whether it can do `name`, one of Ollama's names; `None` = not known.
    ///
    /// Asked several times for every candidate, by names that are known when this is compiled.
    #[must_use]
    #[inline]
    pub fn has(self, name: &str) -> Option<bool> {
        let index = match name {
            "completion" => 0,
            "embedding" => 1,
            "vision" => 2,
            "tools" => 3,
            "thinking" => 4,
            "audio" => 5,
            "image" => 6,
            _ => return None,
        };
        self.0.map(|bits| bits & (1 << index) != 0)
    }
}

/// Where a node's availability to us is going: work that is not ours comes (falls) or goes (rises).
///
/// Two decayed averages of the idle share of the host, a fast and a slow one, taken only while nothing of ours runs
/// there, so that serving does not make a node look taken.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Trend {
    fast: f64,
    slow: f64,
    samples: u32,
}

impl Trend {
    /// Weight of a new sample in the fast average: about the last three.
    const FAST: f64 = 0.35;
    /// Weight of a new sample in the slow average: about the last forty.
    const SLOW: f64 = 0.025;
    /// Samples before a trend is told.
    const MIN_SAMPLES: u32 = 3;

    /// With one more sample of the idle share, 0-1.
    #[must_use]
    pub fn with(self, idle: f64) -> Self {
        if !idle.is_finite() {
            return self;
        }
        let idle = idle.clamp(0.0, 1.0);
        if self.samples == 0 {
            return Self { fast: idle, slow: idle, samples: 1 };
        }
        Self {
            fast: self.fast + Self::FAST * (idle - self.fast),
            slow: self.slow + Self::SLOW * (idle - self.slow),
            samples: self.samples.saturating_add(1),
        }
    }

    /// From -1 (falling) over 0 (stable) to 1 (rising); `None` = too early to tell.
    #[must_use]
    pub fn direction(self) -> Option<f64> {
        (self.samples >= Self::MIN_SAMPLES).then_some((self.fast - self.slow).clamp(-1.0, 1.0))
    }
}
