//! Whether a heartbeat may be believed at all.

use crate::name::{ModelName, NameError, NodeId};
use crate::wire::{Heartbeat, HerdReport, Ollama};

/// Bounds on what a heartbeat may make us keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatLimits {
    /// Most models per node, in memory and on disk each.
    pub models: usize,
    /// Most GPUs per node, and most runners.
    pub devices: usize,
    /// Longest text in bytes, names aside.
    pub text_bytes: usize,
    /// Most nodes in the fleet.
    pub nodes: usize,
    /// Most nodes whose heartbeats come from one address, the edge's own machine and agents with a token left out.
    pub nodes_per_address: usize,
    /// Most models of all nodes together, each counted once for every node that has it.
    pub models_total: usize,
}

impl Default for HeartbeatLimits {
    fn default() -> Self {
        Self { models: 512, devices: 64, text_bytes: 512, nodes: 1024, nodes_per_address: 8, models_total: 131_072 }
    }
}

/// Why a heartbeat is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeartbeatError {
    /// The node id is not one.
    #[error("node_id {0}")]
    NodeId(NameError),
    /// A number is negative or not finite.
    #[error("{0} must be a finite number of at least 0")]
    Number(&'static str),
    /// There is too much of something.
    #[error("{field} exceeds its limit of {limit}")]
    TooMuch {
        /// The field.
        field: &'static str,
        /// Its limit.
        limit: usize,
    },
    /// A heartbeat needs facts about Ollama.
    #[error("ollama is required")]
    NoOllama,
    /// The sender's address is one from which nodes are not taken.
    #[error(
        "heartbeats from {0} are not accepted: its network is not in fleet.networks of the edge; \
         add {0} or its network there"
    )]
    Source(std::net::IpAddr),
    /// Another machine is that node now.
    #[error(
        "node_id {id:?} is in use by another machine at {address}: give this one another name (--node-id, node_id), or \
         forget the other at the edge"
    )]
    Taken {
        /// The name.
        id: NodeId,
        /// Where the node of that name is.
        address: std::net::SocketAddr,
    },
    /// The node's Ollama is on another machine than its agent, which only a sender with the join token may say.
    #[error(
        "the Ollama at {offered} is not at the agent's own address {sender}: set fleet.join_token on the edge and \
         join_token on the agent, or run an agent beside that Ollama"
    )]
    Elsewhere {
        /// Where its Ollama is said to be.
        offered: std::net::SocketAddr,
        /// Address of the agent.
        sender: std::net::IpAddr,
    },
    /// The node's Ollama is this edge.
    #[error(
        "{0} is this edge itself, not an Ollama: point the agent at the Ollama (--ollama-url, usually port 11434); \
         OLLAMA_HOST may be set to the edge for clients, not for agents"
    )]
    Itself(std::net::SocketAddr),
    /// A proxy stands between the agent and the edge, and the agent does not say where its Ollama is.
    #[error(
        "the heartbeat came through a proxy at {0}, so that the edge cannot tell where the agent is: name the Ollama by its \
         address in --ollama-url, or have the agent reach the edge directly"
    )]
    Behind(std::net::IpAddr),
    /// A drain message for a node that came from elsewhere.
    #[error("only the node itself can drain itself")]
    NotYours,
    /// The fleet is full.
    #[error("the fleet is full: {0} nodes (fleet.nodes_max)")]
    Full(usize),
    /// There are as many nodes of one address as may be without a token.
    #[error(
        "{limit} nodes report from {address} already (fleet.nodes_per_address_max): set fleet.join_token on the edge and \
         join_token on the agents"
    )]
    Crowded {
        /// The address.
        address: std::net::IpAddr,
        /// How many nodes one may have.
        limit: usize,
    },
    /// All nodes together list as many models as may be.
    #[error("the nodes of the fleet list {0} models already (fleet.models_total_max)")]
    Models(usize),
    /// A later heartbeat of the same run has been taken.
    #[error(
        "heartbeat {seq} of this run of the agent is older than {known}, which has been taken: is another agent running \
         under this name?"
    )]
    Stale {
        /// Its number.
        seq: u64,
        /// The number of the one that was taken.
        known: u64,
    },
    /// A heartbeat counts further ahead than its agent can have got meanwhile.
    #[error("heartbeat {seq} is too far ahead of {known}, the last one of this run of the agent")]
    Ahead {
        /// Its number.
        seq: u64,
        /// The number of the one that was taken.
        known: u64,
    },
}

impl HeartbeatError {
    /// For programs: what an agent, or a health check, goes by.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NodeId(_) => "node_id",
            Self::Number(_) => "number",
            Self::TooMuch { .. } => "too_much",
            Self::NoOllama => "no_ollama",
            Self::Source(_) => "source",
            Self::NotYours => "not_yours",
            Self::Taken { .. } => "taken",
            Self::Elsewhere { .. } => "elsewhere",
            Self::Behind(_) => "behind_proxy",
            Self::Itself(_) => "itself",
            Self::Full(_) => "fleet_full",
            Self::Crowded { .. } => "address_full",
            Self::Models(_) => "models_full",
            Self::Stale { .. } => "stale",
            Self::Ahead { .. } => "ahead",
        }
    }
}

/// Checks all numbers, lengths and counts.
pub(super) fn check(heartbeat: &Heartbeat, limits: &HeartbeatLimits) -> Result<NodeId, HeartbeatError> {
    let id = NodeId::new(&heartbeat.node_id).map_err(HeartbeatError::NodeId)?;
    check_numbers(heartbeat)?;
    check_counts(heartbeat, limits)?;
    check_texts(heartbeat, limits)?;
    Ok(id)
}

fn check_numbers(heartbeat: &Heartbeat) -> Result<(), HeartbeatError> {
    let mut numbers = vec![("memory_bandwidth_gbps", heartbeat.memory_bandwidth_gbps)];
    if let Some(cpu) = &heartbeat.cpu {
        numbers.push(("cpu.utilization_pct", cpu.utilization_pct));
    }
    if let Some(memory) = &heartbeat.memory {
        numbers.extend([
            ("memory.total_gb", memory.total_gb),
            ("memory.used_gb", memory.used_gb),
            ("memory.available_gb", memory.available_gb),
            ("memory.swap_used_gb", memory.swap_used_gb),
            ("memory.swap_total_gb", memory.swap_total_gb),
        ]);
    }
    if let Some(disk) = &heartbeat.disk {
        numbers.extend([("disk.total_gb", disk.total_gb), ("disk.available_gb", disk.available_gb)]);
    }
    if let Some(capacity) = &heartbeat.capacity {
        numbers.extend([
            ("capacity.ceiling_gb", capacity.ceiling_gb),
            ("capacity.availability_score", capacity.availability_score),
        ]);
    }
    if let Some(ollama) = &heartbeat.ollama {
        numbers.extend(ollama.models_loaded.iter().map(|model| ("ollama.models_loaded.size_gb", model.size_gb)));
        numbers.extend(ollama.models_available_sizes.values().map(|size| ("ollama.models_available_sizes", *size)));
    }
    for gpu in heartbeat.herd.iter().flat_map(|report| &report.gpus) {
        numbers.extend(gpu.utilization_pct.map(|value| ("herd.gpus.utilization_pct", value)));
        numbers.extend(gpu.power_watts.map(|value| ("herd.gpus.power_watts", value)));
    }
    match numbers.into_iter().find(|(_, value)| !value.is_finite() || *value < 0.0) {
        Some((field, _)) => Err(HeartbeatError::Number(field)),
        None => Ok(()),
    }
}

fn check_counts(heartbeat: &Heartbeat, limits: &HeartbeatLimits) -> Result<(), HeartbeatError> {
    let mut counts = Vec::new();
    if let Some(ollama) = &heartbeat.ollama {
        counts.extend([
            ("ollama.models_loaded", ollama.models_loaded.len(), limits.models),
            ("ollama.models_available", ollama.models_available.len(), limits.models),
            ("ollama.models_available_sizes", ollama.models_available_sizes.len(), limits.models),
        ]);
        let meta = ollama.models_available_meta.as_ref().map_or(0, std::collections::BTreeMap::len);
        counts.push(("ollama.models_available_meta", meta, limits.models));
    }
    if let Some(report) = &heartbeat.herd {
        counts.extend([
            ("herd.ollama.loaded", report.ollama.loaded.len(), limits.models),
            ("herd.ollama.available", report.ollama.available.len(), limits.models),
            ("herd.ollama.runners", report.ollama.runners.as_ref().map_or(0, Vec::len), limits.devices),
            ("herd.ollama.loading", report.ollama.loading.len(), limits.devices),
            ("herd.ollama.activity", report.ollama.activity.len(), limits.devices),
            ("herd.gpus", report.gpus.len(), limits.devices),
        ]);
    }
    match counts.into_iter().find(|(_, count, limit)| count > limit) {
        Some((field, _, limit)) => Err(HeartbeatError::TooMuch { field, limit }),
        None => Ok(()),
    }
}

fn check_texts(heartbeat: &Heartbeat, limits: &HeartbeatLimits) -> Result<(), HeartbeatError> {
    let limit = limits.text_bytes;
    let check = |field, text: &String| {
        if text.len() > limit { Err(HeartbeatError::TooMuch { field, limit }) } else { Ok(()) }
    };
    check("arch", &heartbeat.arch)?;
    check("chip", &heartbeat.chip)?;
    check("agent_version", &heartbeat.agent_version)?;
    check("ollama_host", &heartbeat.ollama_host)?;
    check("lan_ip", &heartbeat.lan_ip)?;
    if let Some(capacity) = &heartbeat.capacity {
        check("capacity.mode", &capacity.mode)?;
        check("capacity.reason", &capacity.reason)?;
    }
    if let Some(thermal) = &heartbeat.thermal {
        [&thermal.state, &thermal.source].into_iter().try_for_each(|text| check("thermal", text))?;
    }
    if let Some(ollama) = &heartbeat.ollama {
        ollama_texts(ollama).try_for_each(|(field, text)| check(field, text))?;
        let names = ollama.models_available_sizes.keys().chain(&ollama.models_available);
        names.into_iter().try_for_each(|name| check("ollama.models_available", name))?;
    }
    let Some(report) = &heartbeat.herd else { return Ok(()) };
    report_texts(report).try_for_each(|(field, text)| check(field, text))?;
    for model in &report.ollama.available {
        if model.capabilities.len() + model.families.len() > limits.devices {
            return Err(HeartbeatError::TooMuch { field: "herd.ollama.available", limit: limits.devices });
        }
    }
    Ok(())
}

/// All texts of the Python project's part, its lists of names aside.
fn ollama_texts(ollama: &Ollama) -> impl Iterator<Item = (&'static str, &String)> {
    let loaded = ollama
        .models_loaded
        .iter()
        .flat_map(|model| [&model.name, &model.parameter_size, &model.quantization, &model.runner, &model.digest]);
    let meta = ollama.models_available_meta.iter().flatten().flat_map(|(name, meta)| {
        let texts = [
            name,
            &meta.modified_at,
            &meta.digest,
            &meta.format,
            &meta.family,
            &meta.parameter_size,
            &meta.quantization_level,
            &meta.parent_model,
        ];
        texts.into_iter().chain(meta.families.iter().flatten()).chain(&meta.capabilities)
    });
    let loaded = loaded.map(|text| ("ollama.models_loaded", text));
    loaded.chain(meta.map(|text| ("ollama.models_available_meta", text))).chain([("ollama.version", &ollama.version)])
}

/// All texts of herd's own part.
fn report_texts(report: &HerdReport) -> impl Iterator<Item = (&'static str, &String)> {
    let host = [&report.host.hostname, &report.host.os, &report.host.os_version];
    let gpus = report.gpus.iter().flat_map(|gpu| [&gpu.name, &gpu.vendor]);
    let loaded = report.ollama.loaded.iter().flat_map(|model| [&model.name, &model.digest, &model.expires_at]);
    let runners = report.ollama.runners.iter().flatten().map(|runner| &runner.model);
    let available = report.ollama.available.iter().flat_map(|model| {
        let texts = [
            &model.name,
            &model.digest,
            &model.modified_at,
            &model.format,
            &model.family,
            &model.parameter_size,
            &model.quantization_level,
            &model.remote_model,
            &model.remote_host,
        ];
        texts.into_iter().chain(&model.families).chain(&model.capabilities)
    });
    let named = |field: &'static str| move |text| (field, text);
    host.into_iter()
        .map(named("herd.host"))
        .chain(gpus.map(named("herd.gpus")))
        .chain(loaded.map(named("herd.ollama.loaded")))
        .chain(runners.map(named("herd.ollama.runners")))
        .chain(report.ollama.loading.iter().map(named("herd.ollama.loading")))
        .chain(available.map(named("herd.ollama.available")))
        .chain(report.disk.iter().map(|disk| ("herd.disk.path", &disk.path)))
        .chain([("herd.boot", &report.boot), ("herd.ollama.version", &report.ollama.version)])
        .chain([("herd.ollama.address", &report.ollama.address)])
}

/// A model name from a heartbeat; `None` = it is not one, and the model is passed over.
pub(super) fn model_name(text: &str) -> Option<ModelName> {
    ModelName::new(text).ok()
}
