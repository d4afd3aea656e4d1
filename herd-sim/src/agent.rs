//! The agent of a simulated node: how it is configured, and what it reports of its machine.

use std::sync::Arc;
use std::time::Duration;

use herd_core::name::NodeId;
use herd_core::wire;
use tokio::sync::watch;

use super::node::Node;
use super::{HardwareKind, SimNode};
use herd_agent::{Config, CpuFacts, HostSource, JoinToken, MachineFacts, Url};

/// Busy share of the simulated host when nothing runs, 0-100.
const IDLE_CPU_PCT: f64 = 3.0;
/// How warm the simulated graphics card is when nothing runs, and how much warmer with all slots busy, degrees Celsius.
const IDLE_GPU_C: f64 = 41.0;
const BUSY_GPU_C: f64 = 33.0;

/// Heartbeats of a simulated node: often, so that tests and demos see changes soon.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often its loaded models are looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

impl SimNode {
    /// Settings for an agent that reports this node as `id` to `routers`; `None` = its address is no URL.
    #[must_use]
    pub fn agent_config(&self, id: NodeId, routers: Vec<Url>, join_token: Option<JoinToken>) -> Option<Config> {
        let mut config = Config { node_id: Some(id), router_urls: routers, join_token, ..Config::default() };
        config.heartbeat.interval = INTERVAL;
        config.ollama.watch_interval = WATCH_INTERVAL;
        config.ollama.url = Url::parse(&self.url()).ok()?;
        config.mdns.enabled = false;
        Some(config)
    }

    /// Whether the node's agent is to be silent, for [`herd_agent::run_pausable`]; `POST /_sim/agent` sets it.
    #[must_use]
    pub fn agent_paused(&self) -> watch::Receiver<bool> {
        self.node.agent_paused.subscribe()
    }

    /// The node's machine, for [`herd_agent::run`].
    #[must_use]
    pub fn host_source(&self) -> HostSource {
        let node = Arc::clone(&self.node);
        HostSource::Fixed(Arc::new(move || facts(&node)))
    }
}

fn facts(node: &Node) -> MachineFacts {
    let hardware = &node.config.hardware;
    let used_bytes: u64 = node.engine.with_runners(|runners| runners.iter().map(|runner| runner.memory_bytes).sum());
    let system_used = if hardware.gpu.is_some() { 0 } else { used_bytes };
    MachineFacts {
        host: wire::Host { hostname: node.config.name.clone(), os: "simulated".into(), os_version: String::new() },
        arch: if hardware.gpu.is_some() { "x86_64" } else { "arm64" }.into(),
        chip: hardware.chip.clone(),
        cpu: Some(CpuFacts { cores_physical: hardware.cores_physical, utilization_pct: IDLE_CPU_PCT }),
        memory: Some(wire::MemoryBytes {
            total_bytes: hardware.memory_total_bytes,
            available_bytes: (hardware.memory_total_bytes / 10 * 9).saturating_sub(system_used),
            ..wire::MemoryBytes::default()
        }),
        disk: Some(wire::DiskBytes {
            path: "/".into(),
            total_bytes: node.config.disk_bytes,
            available_bytes: node.config.disk_bytes.saturating_sub(node.catalog().disk_bytes()),
        }),
        gpus: gpus(node, used_bytes),
        ollama_env: wire::OllamaEnv {
            num_parallel: Some(node.config.num_parallel),
            max_loaded_models: Some(node.config.max_loaded_models).filter(|models| *models > 0),
            context_length: Some(u64::from(node.config.context_length)),
        },
        runners: Some(runners(node)),
        loading: node.engine.loading(),
        ..MachineFacts::default()
    }
}

fn gpus(node: &Node, used_bytes: u64) -> Vec<wire::Gpu> {
    let hardware = &node.config.hardware;
    if let Some(gpu) = &hardware.gpu {
        let busy = busy_share(node);
        return vec![wire::Gpu {
            name: gpu.name.clone(),
            vendor: "nvidia".into(),
            vram_total_bytes: Some(gpu.vram_bytes),
            vram_free_bytes: Some(gpu.vram_bytes.saturating_sub(used_bytes)),
            utilization_pct: Some((busy * 100.0).round()),
            temperature_c: Some((IDLE_GPU_C + busy * BUSY_GPU_C).round()),
            ..wire::Gpu::default()
        }];
    }
    if !matches!(hardware.kind, HardwareKind::MacStudio | HardwareKind::Laptop) {
        return Vec::new();
    }
    vec![wire::Gpu {
        name: hardware.chip.clone(),
        vendor: "apple".into(),
        unified: true,
        vram_total_bytes: Some(hardware.memory_total_bytes),
        vram_free_bytes: Some(hardware.memory_total_bytes.saturating_sub(used_bytes)),
        ..wire::Gpu::default()
    }]
}

/// How many of its slots are busy, 0 to 1.
fn busy_share(node: &Node) -> f64 {
    let (busy, all) = node
        .engine
        .slots()
        .iter()
        .fold((0, 0), |(busy, all), runner| (busy + runner.slots_busy, all + runner.slots_total));
    if all == 0 { 0.0 } else { f64::from(busy) / f64::from(all) }
}

fn runners(node: &Node) -> Vec<wire::Runner> {
    let view = |runner: super::RunnerView| wire::Runner {
        model: runner.model,
        slots: runner.slots_total,
        slots_busy: runner.slots_busy,
        context_length: u64::from(runner.n_ctx),
        tokens_left: runner.tokens_left,
        prefill_tokens_left: runner.prompt_tokens_left,
        tokens_done: runner.tokens_done,
    };
    node.engine.slots().into_iter().map(view).collect()
}
