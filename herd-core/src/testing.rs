//! Nodes for tests, made the way real ones are: from heartbeats.

use std::net::{IpAddr, Ipv4Addr};

use crate::fleet::{Applied, FleetSnapshot, HeartbeatLimits, LifeLimits, Node, Sender};
use crate::wire::{
    AvailableModel, Gpu, Heartbeat, HerdReport, LoadedModel, MemoryBytes, OllamaEnv, OllamaReport, Runner,
};

pub(crate) const GIB: u64 = 1 << 30;

/// A node to be made. Defaults: an idle unified-memory machine of 64 GiB and 400 GB/s.
#[derive(Debug, Clone)]
pub(crate) struct NodeSpec {
    pub(crate) memory_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) bandwidth_gbps: f64,
    pub(crate) default_context: Option<u64>,
    pub(crate) train_context: u64,
    pub(crate) model_bytes: u64,
    pub(crate) slots: Option<u32>,
    pub(crate) busy_by_others: u32,
    pub(crate) capabilities: Vec<String>,
    pub(crate) vram_bytes: Option<(u64, u64)>,
    pub(crate) models: Vec<(String, Option<u64>)>,
}

impl Default for NodeSpec {
    fn default() -> Self {
        Self {
            memory_bytes: 64 * GIB,
            free_bytes: 48 * GIB,
            bandwidth_gbps: 400.0,
            default_context: None,
            train_context: 131_072,
            model_bytes: 4 * GIB,
            slots: None,
            busy_by_others: 0,
            capabilities: Vec::new(),
            vram_bytes: None,
            models: Vec::new(),
        }
    }
}

impl NodeSpec {
    pub(crate) fn hot(mut self, model: &str, context: u64) -> Self {
        self.models.push((model.into(), Some(context)));
        self
    }

    pub(crate) fn cold(mut self, model: &str) -> Self {
        self.models.push((model.into(), None));
        self
    }

    pub(crate) fn heartbeat(&self, id: &str, seq: u64) -> Heartbeat {
        let available = self.models.iter().map(|(name, _)| AvailableModel {
            name: name.clone(),
            digest: format!("digest of {name}"),
            size_bytes: self.model_bytes,
            context_length: self.train_context,
            capabilities: self.capabilities.clone(),
            ..AvailableModel::default()
        });
        let hot = || self.models.iter().filter_map(|(name, context)| context.map(|tokens| (name.clone(), tokens)));
        let loaded = hot().map(|(name, context_length)| LoadedModel {
            name,
            size_bytes: self.model_bytes,
            size_vram_bytes: self.model_bytes,
            context_length,
            ..LoadedModel::default()
        });
        let runner = |(model, context_length)| Runner {
            model,
            slots: self.slots.unwrap_or(1),
            slots_busy: self.busy_by_others,
            context_length,
            ..Runner::default()
        };
        let runners = (self.slots.is_some() || self.busy_by_others > 0).then(|| hot().map(runner).collect());
        let env = OllamaEnv { num_parallel: self.slots, context_length: self.default_context, ..OllamaEnv::default() };
        let gpu = |(vram_total, vram_free): (u64, u64)| Gpu {
            vram_total_bytes: Some(vram_total),
            vram_free_bytes: Some(vram_free),
            ..Gpu::default()
        };
        Heartbeat {
            node_id: id.into(),
            memory_bandwidth_gbps: self.bandwidth_gbps,
            herd: Some(HerdReport {
                boot: "boot".into(),
                seq,
                memory: Some(MemoryBytes {
                    total_bytes: self.memory_bytes,
                    available_bytes: self.free_bytes,
                    ..MemoryBytes::default()
                }),
                gpus: self.vram_bytes.map(gpu).into_iter().collect(),
                ollama: OllamaReport {
                    env,
                    loaded: loaded.collect(),
                    available: available.collect(),
                    runners,
                    ..OllamaReport::default()
                },
                ..HerdReport::default()
            }),
            ..Heartbeat::default()
        }
    }
}

pub(crate) fn sender() -> Sender {
    Sender::at(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// A fleet of these nodes, all heard of at `now_ms`.
pub(crate) fn fleet(nodes: &[(&str, NodeSpec)], now_ms: u64) -> FleetSnapshot {
    let join = |snapshot: FleetSnapshot, (id, spec): &(&str, NodeSpec)| {
        let heartbeat = spec.heartbeat(id, 1);
        let applied = snapshot.apply(heartbeat, sender(), now_ms, &LifeLimits::default(), &HeartbeatLimits::default());
        let Ok(Applied::Changed(next)) = applied else { panic!("{applied:?}") };
        next
    };
    nodes.iter().fold(FleetSnapshot::default(), join)
}

pub(crate) fn node(id: &str, spec: &NodeSpec) -> Node {
    fleet(&[(id, spec.clone())], 0).nodes[0].as_ref().clone()
}
