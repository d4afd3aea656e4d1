//! From a heartbeat to the next picture of the fleet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::FleetSnapshot;
use super::changed::{Recent, Told, overrule, still_open};
use super::check::{HeartbeatError, HeartbeatLimits, check, model_name};
use super::departed::{left_models, load_at, model_load};
use super::node::{Capabilities, Device, LifeLimits, Model, Node, Resident, Trend};
use super::share::share_runners;
use crate::load::ModelLoad;
use crate::name::{ModelName, NodeId};
use crate::places::client_of;
use crate::wire::{self, Heartbeat, OllamaState};

/// Who sent a heartbeat, as the receiver saw it.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any of them may go together")]
pub struct Sender {
    /// Address of its connection.
    pub ip: IpAddr,
    /// It showed the join token, so that it may offer an Ollama at another address than its own.
    pub trusted: bool,
    /// Nodes of its network are taken.
    pub welcome: bool,
    /// It is on the receiver's own machine.
    pub here: bool,
    /// A proxy stands between: the address is that one's.
    pub proxied: bool,
    /// Port on which the receiver itself takes clients; `None` = not known.
    pub edge_port: Option<u16>,
    /// Nothing is sent to an Ollama that it offers before that has been seen; see [`crate::load::NodeLoad::ask_for_proof`].
    pub to_be_verified: bool,
}

impl Sender {
    /// An agent at `ip` without the join token, in a network of the fleet.
    #[must_use]
    pub const fn at(ip: IpAddr) -> Self {
        Self { ip, trusted: false, welcome: true, here: false, proxied: false, edge_port: None, to_be_verified: false }
    }
}

/// What a heartbeat did.
#[derive(Debug)]
pub enum Applied {
    /// There is a new picture.
    Changed(FleetSnapshot),
    /// It was older than what is known; nothing changed.
    Outdated,
}

const GIB: f64 = 1_073_741_824.0;
const GB: f64 = 1e9;
/// Ollama's port, where a heartbeat names none.
const OLLAMA_PORT: u16 = 11434;

impl FleetSnapshot {
    /// The picture after `heartbeat`, received at `now_ms`.
    ///
    /// # Errors
    /// When it is out of bounds, comes from where nodes may not come from, or claims another machine's node id.
    pub fn apply(
        &self,
        heartbeat: Heartbeat,
        sender: Sender,
        now_ms: u64,
        life: &LifeLimits,
        limits: &HeartbeatLimits,
    ) -> Result<Applied, HeartbeatError> {
        let id = check(&heartbeat, limits)?;
        check_source(sender)?;
        let known = self.node(id.as_str());
        if heartbeat.draining {
            return self.drained(known, &heartbeat, sender);
        }
        let address = offered_address(&heartbeat, sender)?;
        if let Some(known) = known {
            check_owner(known, &heartbeat, address, sender, now_ms, life)?;
            if is_repeated(known, &heartbeat, now_ms, life)? {
                return Ok(Applied::Outdated);
            }
        }
        let crowded_out = self.make_room(known, sender, now_ms, life, limits)?;
        let departed = self.departed.get(id.as_str()).map(Arc::as_ref);
        let node = compose(id, address, heartbeat, known.map(Arc::as_ref), departed, now_ms)?;
        self.check_models(known, node.models.len(), limits)?;
        if sender.to_be_verified && known.is_none_or(|known| known.address != address) {
            node.load.ask_for_proof();
        }
        if node.ollama == OllamaState::Ok {
            node.load.agent_is_content();
        }
        let node = Node { sender: sender.ip.to_canonical(), here: sender.here, ..node };
        let next = crowded_out.and_then(|id| self.without(&id)).as_ref().unwrap_or(self).with_in(node, *life);
        Ok(Applied::Changed(next))
    }

    /// Whether there is room for a node that is not `known`; the one that makes room for it, if one has to. That is one
    /// whose Ollama was never seen, the one that has been silent for longest.
    fn make_room(
        &self,
        known: Option<&Arc<Node>>,
        sender: Sender,
        now_ms: u64,
        life: &LifeLimits,
        limits: &HeartbeatLimits,
    ) -> Result<Option<NodeId>, HeartbeatError> {
        let client = client_of(sender.ip);
        let is_counted = !sender.trusted && !sender.here && !sender.ip.to_canonical().is_loopback();
        let of_client = |node: &&Arc<Node>| client_of(node.sender) == client;
        let moved_in = known.is_none_or(|known| client_of(known.sender) != client);
        if is_counted && moved_in && self.nodes.iter().filter(of_client).count() >= limits.nodes_per_address {
            return Err(HeartbeatError::Crowded { address: client, limit: limits.nodes_per_address });
        }
        if known.is_some() || self.nodes.len() < limits.nodes {
            return Ok(None);
        }
        let is_silent = |node: &&Arc<Node>| now_ms.saturating_sub(node.heartbeat_at_ms) > life.degraded_after_ms;
        let unseen = self.nodes.iter().filter(|node| !node.load.is_verified()).filter(is_silent);
        let first = unseen.min_by_key(|node| node.heartbeat_at_ms).map(|node| node.id.clone());
        first.map(Some).ok_or(HeartbeatError::Full(limits.nodes))
    }

    /// Whether the fleet may list `count` models on a node that was `known`.
    fn check_models(
        &self,
        known: Option<&Arc<Node>>,
        count: usize,
        limits: &HeartbeatLimits,
    ) -> Result<(), HeartbeatError> {
        let before = known.map_or(0, |known| known.models.len());
        if count <= before {
            return Ok(());
        }
        let all: usize = self.nodes.iter().map(|node| node.models.len()).sum();
        if all - before + count > limits.models_total {
            return Err(HeartbeatError::Models(limits.models_total));
        }
        Ok(())
    }

    /// Only the agent that a node's heartbeats come from may take it out: told by its address, which with the join token
    /// may have changed, and by the name of its run, where agents tell one.
    fn drained(
        &self,
        known: Option<&Arc<Node>>,
        heartbeat: &Heartbeat,
        sender: Sender,
    ) -> Result<Applied, HeartbeatError> {
        let Some(known) = known else { return Ok(Applied::Outdated) };
        let same_run = match (boot(heartbeat), boot(&known.heartbeat)) {
            (Some(leaving), Some(running)) => Some(leaving == running),
            _ => None,
        };
        let same_place = known.sender == sender.ip.to_canonical();
        let is_its_own = same_run.unwrap_or(same_place) && (same_place || sender.trusted);
        if !is_its_own {
            return Err(HeartbeatError::NotYours);
        }
        Ok(Applied::Changed(self.with(Node { draining: true, ..known.as_ref().clone() })))
    }

    /// The picture after an operator took the node named `id` out, or put it back; `None` = there is none.
    #[must_use]
    pub fn with_cordon(&self, id: &str, cordoned: bool) -> Option<Self> {
        let known = self.node(id)?;
        Some(self.with(Node { cordoned, ..known.as_ref().clone() }))
    }
}

fn check_source(sender: Sender) -> Result<(), HeartbeatError> {
    if sender.welcome { Ok(()) } else { Err(HeartbeatError::Source(sender.ip.to_canonical())) }
}

/// Where the node's Ollama is: at the sender's own address, or with the join token wherever it says.
///
/// Our own agents say a host of their own only when it is another than theirs. The Python project's say what Ollama
/// listens on, which tells nothing.
fn offered_address(heartbeat: &Heartbeat, sender: Sender) -> Result<SocketAddr, HeartbeatError> {
    let ours = heartbeat.herd.as_ref().map_or("", |report| report.ollama.address.as_str());
    let text = if ours.is_empty() { heartbeat.ollama_host.as_str() } else { ours };
    let text = text.split_once("://").map_or(text, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, port.parse().unwrap_or(OLLAMA_PORT)),
        _ => (text, OLLAMA_PORT),
    };
    let (own, host) = (sender.ip.to_canonical(), host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    let elsewhere = host.map(|ip| ip.to_canonical()).filter(|ip| is_elsewhere(*ip, own));
    let address = SocketAddr::new(elsewhere.filter(|_| sender.trusted).unwrap_or(own), port);
    match elsewhere {
        Some(ip) if !sender.trusted && !ours.is_empty() => {
            Err(HeartbeatError::Elsewhere { offered: SocketAddr::new(ip, port), sender: own })
        }
        None if sender.proxied => Err(HeartbeatError::Behind(own)),
        _ if sender.here && sender.edge_port == Some(port) => Err(HeartbeatError::Itself(address)),
        _ => Ok(address),
    }
}

/// Whether `ip` is not the sender's own machine, whose address is `own`. Loopback is the sender's; only to an edge on the
/// same machine can another address of it mean something else, like the network of a container.
fn is_elsewhere(ip: IpAddr, own: IpAddr) -> bool {
    let usual = [IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()];
    let is_own = ip == own || ip.is_unspecified() || usual.contains(&ip) || (ip.is_loopback() && !own.is_loopback());
    !is_own
}

/// A node id belongs to the machine that has it, until that falls silent. The name of an agent's run travels in clear, so
/// that it proves nothing of a sender at another address without the token.
fn check_owner(
    known: &Node,
    heartbeat: &Heartbeat,
    address: SocketAddr,
    sender: Sender,
    now_ms: u64,
    life: &LifeLimits,
) -> Result<(), HeartbeatError> {
    let same_run = boot(heartbeat).is_some() && boot(heartbeat) == boot(&known.heartbeat);
    let same_agent = same_run && (sender.trusted || known.sender == sender.ip.to_canonical());
    if known.address == address || same_agent || is_silent(known, now_ms, life) {
        return Ok(());
    }
    Err(HeartbeatError::Taken { id: known.id.clone(), address: known.address })
}

fn boot(heartbeat: &Heartbeat) -> Option<&str> {
    heartbeat.herd.as_ref().map(|report| report.boot.as_str()).filter(|boot| !boot.is_empty())
}

fn is_silent(known: &Node, now_ms: u64, life: &LifeLimits) -> bool {
    known.draining || now_ms.saturating_sub(known.heartbeat_at_ms) > life.degraded_after_ms
}

/// Heartbeats that one run of an agent may be ahead at once, and how often it sends one at most.
const AHEAD_MAX: u64 = 64;
const HEARTBEAT_MIN_MS: u64 = 100;

/// Whether a heartbeat has been taken already.
fn is_repeated(known: &Node, heartbeat: &Heartbeat, now_ms: u64, life: &LifeLimits) -> Result<bool, HeartbeatError> {
    let counted = |heartbeat: &Heartbeat| Some((boot(heartbeat)?.to_owned(), heartbeat.herd.as_ref()?.seq));
    let (Some((run, seq)), Some((known_run, known_seq))) = (counted(heartbeat), counted(&known.heartbeat)) else {
        return Ok(false);
    };
    if run != known_run || is_silent(known, now_ms, life) {
        return Ok(false);
    }
    let since_ms = now_ms.saturating_sub(known.heartbeat_at_ms);
    if seq < known_seq {
        return Err(HeartbeatError::Stale { seq, known: known_seq });
    }
    if seq - known_seq > AHEAD_MAX + since_ms / HEARTBEAT_MIN_MS {
        return Err(HeartbeatError::Ahead { seq, known: known_seq });
    }
    Ok(seq == known_seq)
}

fn compose(
    id: NodeId,
    address: SocketAddr,
    heartbeat: Heartbeat,
    known: Option<&Node>,
    departed: Option<&Node>,
    now_ms: u64,
) -> Result<Node, HeartbeatError> {
    let load = load_at(address, known, departed);
    let counted = known.or(departed);
    let state = ollama_state(&heartbeat, known)?;
    let keeps_lists = state != OllamaState::Ok;
    let env = env(&heartbeat);
    let recent = known.map(|known| still_open(&known.recent, &heartbeat, now_ms)).unwrap_or_default();
    let (models, recent) = match known.filter(|_| keeps_lists) {
        Some(known) => (known.models.clone(), recent),
        None => models(&heartbeat, known, counted, recent, now_ms),
    };
    let left_models = left_models(counted, &models);
    let trend = known.map_or_else(Trend::default, |known| known.trend);
    Ok(Node {
        id,
        number: 0,
        address,
        sender: address.ip(),
        here: false,
        same_ollama_as: None,
        heartbeat_at_ms: now_ms,
        joined_at_ms: known.map_or(now_ms, |known| known.joined_at_ms),
        draining: false,
        cordoned: known.is_some_and(|known| known.cordoned),
        device: device(&heartbeat),
        pressure: pressure(&heartbeat),
        bandwidth_gbps: Some(heartbeat.memory_bandwidth_gbps).filter(|gbps| *gbps > 0.0),
        ollama: state,
        env,
        trend: if load.in_flight() == 0 { trend.with(idle_share(&heartbeat)) } else { trend },
        paused: paused(&heartbeat),
        models,
        left_models,
        recent,
        load,
        busy_by_others: 0,
        keys: Arc::default(),
        remote: Arc::default(),
        heartbeat: Arc::new(heartbeat),
    })
}

/// The Python project's agents report an unreachable Ollama as one without version and models.
fn ollama_state(heartbeat: &Heartbeat, known: Option<&Node>) -> Result<OllamaState, HeartbeatError> {
    if let Some(report) = &heartbeat.herd {
        return Ok(report.ollama.state);
    }
    let ollama = heartbeat.ollama.as_ref().ok_or(HeartbeatError::NoOllama)?;
    let silent = ollama.version.is_empty() && ollama.models_loaded.is_empty() && ollama.models_available.is_empty();
    let had_models = known.is_some_and(|known| !known.models.is_empty());
    Ok(if silent && had_models { OllamaState::Hung } else { OllamaState::Ok })
}

fn env(heartbeat: &Heartbeat) -> wire::OllamaEnv {
    if let Some(report) = &heartbeat.herd {
        return report.ollama.env;
    }
    let told = |value: u32| Some(value).filter(|value| *value > 0);
    let ollama = heartbeat.ollama.as_ref();
    wire::OllamaEnv {
        num_parallel: ollama.and_then(|ollama| told(ollama.num_parallel)),
        max_loaded_models: ollama.and_then(|ollama| told(ollama.max_loaded_models)),
        context_length: None,
    }
}

fn pressure(heartbeat: &Heartbeat) -> wire::Pressure {
    let ours = heartbeat.herd.as_ref().and_then(|report| report.memory.map(|memory| memory.pressure));
    ours.or_else(|| heartbeat.memory.as_ref().map(|memory| memory.pressure)).unwrap_or_default()
}

fn paused(heartbeat: &Heartbeat) -> Option<String> {
    let capacity = heartbeat.capacity.as_ref()?;
    matches!(capacity.mode.as_str(), "paused" | "bootstrap").then(|| format!("{}: {}", capacity.mode, capacity.reason))
}

fn device(heartbeat: &Heartbeat) -> Device {
    let gpus = heartbeat.herd.as_ref().map_or(&[][..], |report| &report.gpus);
    // The memory of a GPU that is part of the processor is the system's, beside which its own part is small.
    let discrete: Vec<_> = gpus.iter().filter(|gpu| !gpu.unified).collect();
    if !discrete.is_empty() {
        return Device {
            total_bytes: sum(discrete.iter().map(|gpu| gpu.vram_total_bytes)),
            free_bytes: sum(discrete.iter().map(|gpu| gpu.vram_free_bytes)),
            discrete: true,
            system_bytes: system_bytes(heartbeat),
        };
    }
    let ours = heartbeat.herd.as_ref().and_then(|report| report.memory).map(|memory| memory.available_bytes);
    let theirs = heartbeat.memory.as_ref().map(|memory| bytes(memory.available_gb, GIB));
    Device {
        total_bytes: system_bytes(heartbeat),
        free_bytes: ours.or(theirs),
        discrete: false,
        system_bytes: system_bytes(heartbeat),
    }
}

/// The sum of what all report; unknown when one does not. Numbers from outside may be of any size.
fn sum(mut parts: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    parts.try_fold(0, |all: u64, part| Some(all.saturating_add(part?)))
}

fn system_bytes(heartbeat: &Heartbeat) -> Option<u64> {
    let ours = heartbeat.herd.as_ref().and_then(|report| report.memory).map(|memory| memory.total_bytes);
    ours.or_else(|| heartbeat.memory.as_ref().map(|memory| bytes(memory.total_gb, GIB)))
}

fn idle_share(heartbeat: &Heartbeat) -> f64 {
    heartbeat.cpu.as_ref().map_or(f64::NAN, |cpu| 1.0 - cpu.utilization_pct / 100.0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be finite and not negative")]
fn bytes(amount: f64, unit: f64) -> u64 {
    (amount * unit) as u64
}

/// All models of a heartbeat, those on disk and those in memory merged by name, with what is remembered of them;
/// `counted` is the node as it was when requests were last counted on it, even if it was removed since. `recent` is what
/// herd did that the heartbeat may not know of; what it does not is returned too.
fn models(
    heartbeat: &Heartbeat,
    known: Option<&Node>,
    counted: Option<&Node>,
    recent: Vec<Recent>,
    now_ms: u64,
) -> (Vec<Model>, Vec<Recent>) {
    let mut merged: BTreeMap<ModelName, Told<Loaded>> = BTreeMap::new();
    for available in available(heartbeat) {
        if let Some(name) = model_name(&available.name) {
            merged.entry(name).or_default().0 = Some(available);
        }
    }
    for loaded in loaded(heartbeat) {
        let Some(name) = model_name(&loaded.name) else { continue };
        let (available, kept) = merged.entry(name).or_default();
        let digest = available.as_ref().map(|available| available.digest.as_str());
        if kept.as_ref().is_none_or(|kept| loaded.worth(digest) > kept.worth(digest)) {
            *kept = Some(loaded);
        }
    }
    let recent = overrule(recent, &mut merged, known);
    let before = |name: &ModelName| known.and_then(|known| known.model(name));
    for unlisted in known.iter().flat_map(|known| &known.models).filter(|model| model.unlisted) {
        merged.entry(unlisted.name.clone()).or_default();
    }
    let mut models: Vec<Model> = merged
        .into_iter()
        .map(|(name, (available, loaded))| {
            let (before, load) = (before(&name), model_load(counted, &name).unwrap_or_default());
            remember(name, available, loaded.map(|loaded| loaded.resident), before, load)
        })
        .collect();
    share_runners(&mut models, known);
    for model in &mut models {
        settle(model, before(&model.name), now_ms);
    }
    for model in &models {
        model.load.restart_peak();
    }
    models.sort_by_key(|model| model.key);
    models.dedup_by_key(|model| model.key);
    (models, recent)
}

/// The model `name` as it is told of, in memory and on disk, with what is known of it from `before`.
pub(super) fn remember(
    name: ModelName,
    available: Option<wire::AvailableModel>,
    resident: Option<Resident>,
    before: Option<&Model>,
    load: Arc<ModelLoad>,
) -> Model {
    let is_on_disk = available.is_some();
    let details = match (available, before) {
        // Metadata may be left out when it has not changed.
        (Some(available), Some(before)) if available.digest.is_empty() => Arc::clone(&before.details),
        (Some(available), _) => Arc::new(available),
        (None, Some(before)) => Arc::clone(&before.details),
        (None, None) => Arc::new(wire::AvailableModel { name: name.to_string(), ..Default::default() }),
    };
    let remote = !details.remote_model.is_empty() || name.is_cloud();
    Model {
        key: name.key(),
        name,
        // What is on the node's disk of a model that runs elsewhere is a stub.
        size_bytes: Some(details.size_bytes).filter(|bytes| *bytes > 0 && !remote),
        remote,
        unlisted: !is_on_disk && resident.is_none(),
        context_length_max: Some(details.context_length).filter(|tokens| *tokens > 0),
        capabilities: Capabilities::from_names(&details.capabilities),
        details,
        resident,
        shares_runner: false,
        unloaded_at_ms: None,
        load,
    }
}

/// What depends on the runner, once it is known which names share it.
fn settle(model: &mut Model, before: Option<&Model>, now_ms: u64) {
    if let Some(resident) = &mut model.resident {
        // What the agent saw running includes our own, of any time since its last report: a request that has ended
        // since must not pass for somebody else's until the next one.
        resident.busy_by_others = resident.busy_by_others.saturating_sub(model.load.peak());
    } else {
        model.resident = before.and_then(|before| kept_from_edge(before, now_ms));
    }
    if model.resident.is_none() {
        model.load.set_launched(None);
        model.load.forget_conversations();
    }
    model.unloaded_at_ms = match (&model.resident, before) {
        (None, Some(before)) if before.resident.is_some() => Some(now_ms),
        (None, Some(before)) => before.unloaded_at_ms,
        _ => None,
    };
}

/// A model that this edge saw loaded a moment ago: the agent may have looked before that.
fn kept_from_edge(before: &Model, now_ms: u64) -> Option<Resident> {
    /// An agent looks at its Ollama every second or two.
    const LOOK_MS: u64 = 3_000;
    let resident = before.resident.as_ref()?;
    let seen_at_ms = resident.seen_at_ms?;
    (now_ms.saturating_sub(seen_at_ms) < LOOK_MS).then(|| Resident { busy_by_others: 0, ..resident.clone() })
}

fn available(heartbeat: &Heartbeat) -> Vec<wire::AvailableModel> {
    if let Some(report) = &heartbeat.herd {
        return report.ollama.available.clone();
    }
    let Some(ollama) = &heartbeat.ollama else { return Vec::new() };
    let describe = |name: &String| {
        let meta = ollama.models_available_meta.as_ref().and_then(|all| all.get(name)).cloned().unwrap_or_default();
        wire::AvailableModel {
            name: name.clone(),
            digest: meta.digest,
            size_bytes: ollama.models_available_sizes.get(name).map_or(0, |gb| bytes(*gb, GB)),
            modified_at: meta.modified_at,
            format: meta.format,
            family: meta.family,
            families: meta.families.unwrap_or_default(),
            parameter_size: meta.parameter_size,
            quantization_level: meta.quantization_level,
            capabilities: meta.capabilities,
            parent_model: meta.parent_model,
            ..wire::AvailableModel::default()
        }
    };
    ollama.models_available.iter().map(describe).collect()
}

/// A runner as a heartbeat tells of it. `busy_by_others` is still all that runs there.
struct Loaded {
    name: String,
    digest: String,
    resident: Resident,
}

impl Loaded {
    /// Of two runners of one name, the one to go by is worth more. A tag that was pulled anew while its old blob is
    /// loaded has two, and requests go to the one whose digest is that of the model on disk. Where that does not tell
    /// them apart, the larger context keeps most requests from a reload.
    fn worth(&self, digest_on_disk: Option<&str>) -> (bool, Option<u64>) {
        let current = !self.digest.is_empty() && digest_on_disk == Some(self.digest.as_str());
        (current, self.resident.context_length)
    }
}

/// Models in memory.
fn loaded(heartbeat: &Heartbeat) -> Vec<Loaded> {
    let told = |value: u64| Some(value).filter(|value| *value > 0);
    if let Some(report) = &heartbeat.herd {
        let describe = |model: &wire::LoadedModel| {
            let runner = runner_of(model, report.ollama.runners.as_deref().unwrap_or_default());
            let resident = Resident {
                size_bytes: told(model.size_bytes),
                size_vram_bytes: told(model.size_bytes).map(|_| model.size_vram_bytes),
                context_length: told(model.context_length),
                slots: runner.map(|runner| runner.slots).filter(|slots| *slots > 0),
                busy_by_others: runner.map_or(0, |runner| runner.slots_busy),
                tokens_done: runner.map(|runner| runner.tokens_done),
                expires_at: model.expires_at.clone(),
                ..Resident::default()
            };
            Loaded { name: model.name.clone(), digest: model.digest.clone(), resident }
        };
        return report.ollama.loaded.iter().map(describe).collect();
    }
    let describe = |model: &wire::LoadedSummary| {
        let resident = Resident {
            size_bytes: told(bytes(model.size_gb, GIB)),
            context_length: told(model.context_length),
            busy_by_others: model.requests_active,
            ..Resident::default()
        };
        Loaded { name: model.name.clone(), digest: model.digest.clone(), resident }
    };
    heartbeat.ollama.iter().flat_map(|ollama| &ollama.models_loaded).map(describe).collect()
}

/// The runner of `model`: where its name has two, the one of its context.
fn runner_of<'a>(model: &wire::LoadedModel, runners: &'a [wire::Runner]) -> Option<&'a wire::Runner> {
    let named = || runners.iter().filter(|runner| runner.model == model.name);
    named().find(|runner| runner.context_length == model.context_length).or_else(|| named().next())
}
