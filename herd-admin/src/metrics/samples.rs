//! Gauges of one scrape, from one snapshot.

use std::collections::{HashMap, HashSet};

use herd_core::decide::Policy;
use herd_core::fleet::{FleetSnapshot, Model, Node, NodeState, Resident};
use herd_core::name::ModelName;
use herd_core::wire::{Gpu, Pressure};
use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

use super::gauges::{self, Gauge};
use super::{MODEL_LABELS, OTHER_MODELS};
use crate::node_facts::{queue_depth, slots, takes_requests};
use crate::{FleetSource, Limit};

const STATES: [NodeState; 5] =
    [NodeState::Online, NodeState::Degraded, NodeState::Stale, NodeState::Offline, NodeState::Draining];

/// The Python project's unit.
const GIB: f64 = 1_073_741_824.0;

/// Gauges of one scrape.
#[derive(Default)]
pub(super) struct Samples(HashMap<&'static str, GaugeVec>);

impl Samples {
    pub(super) fn set(&mut self, gauge: &'static Gauge, labels: &[&str], value: f64) {
        self.vec(gauge).with_label_values(labels).set(value);
    }

    fn add(&mut self, gauge: &'static Gauge, labels: &[&str], value: f64) {
        self.vec(gauge).with_label_values(labels).add(value);
    }

    /// What is not known has no sample.
    fn maybe(&mut self, gauge: &'static Gauge, labels: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.set(gauge, labels, value);
        }
    }

    fn vec(&mut self, gauge: &'static Gauge) -> &GaugeVec {
        self.0.entry(gauge.name).or_insert_with(|| {
            GaugeVec::new(Opts::new(gauge.name, gauge.help), gauge.labels)
                .expect("FleetCollector::new tried these names")
        })
    }

    pub(super) fn families(self) -> Vec<MetricFamily> {
        self.0.into_values().flat_map(|vec| vec.collect()).collect()
    }

    /// The edge itself: what it runs and what waits there.
    pub(super) fn edge(&mut self, source: &dyn FleetSource) {
        let (snapshot, queue, now_ms) = (source.snapshot(), source.queue(), source.now_ms());
        let oldest = queue.waiting.iter().map(|one| one.since_ms).min();
        self.set(&gauges::DRAINING, &[], flag(source.draining()));
        self.set(&gauges::IN_FLIGHT_ALL, &[], snapshot.in_flight().into());
        self.set(&gauges::WAITING, &[], queue.total as f64);
        self.set(&gauges::OLDEST, &[], oldest.map_or(0.0, |since_ms| seconds(now_ms.saturating_sub(since_ms))));
        // Numbers of one metric must be comparable, and times have another unit.
        let comparable = |limit: &Limit| !limit.name.ends_with("_ms");
        for limit in source.limits().into_iter().filter(comparable) {
            self.set(&gauges::LIMIT, &[&limit.name], limit.limit);
            self.maybe(&gauges::LIMIT_USED, &[&limit.name], limit.used);
        }
    }

    /// The nodes and what is in their memory.
    pub(super) fn fleet(&mut self, source: &dyn FleetSource) {
        let (snapshot, policy, now_ms) = (source.snapshot(), source.policy(), source.now_ms());
        for state in STATES {
            self.set(&gauges::NODES, &[state.name()], 0.0);
        }
        let labelled = labelled(&snapshot, |name| source.model_uses(name));
        for node in &snapshot.nodes {
            self.life(node, &policy, now_ms);
            self.work(node);
            self.host(node);
            self.gpus(node);
            for (model, resident) in node.runners() {
                let name = if labelled.contains(&model.key) { model.name.as_str() } else { OTHER_MODELS };
                self.model(node, model, resident, name);
            }
        }
    }

    fn life(&mut self, node: &Node, policy: &Policy, now_ms: u64) {
        let (id, state) = (node.id.as_str(), node.state(now_ms, &policy.life).name());
        self.add(&gauges::NODES, &[state], 1.0);
        self.set(&gauges::UP, &[id, state], flag(takes_requests(node, policy, now_ms)));
        self.set(&gauges::CONDITION, &[id, node.condition(now_ms, &policy.life).name()], 1.0);
        self.set(&gauges::HEARTBEAT_AGE, &[id], seconds(now_ms.saturating_sub(node.heartbeat_at_ms)));
        self.set(&gauges::EJECTED, &[id], seconds(node.load.ejected_for_ms(now_ms)));
    }

    fn work(&mut self, node: &Node) {
        let id = [node.id.as_str()];
        let waiting = node.runners().map(|(model, _)| queue_depth(node, model)).fold(0, u32::saturating_add);
        self.set(&gauges::IN_FLIGHT, &id, node.load.in_flight().into());
        self.set(&gauges::QUEUE_DEPTH, &id, waiting.into());
        self.set(&gauges::SLOTS, &id, slots(node).into());
        self.set(&gauges::BUSY_BY_OTHERS, &id, node.busy_by_others().into());
        self.set(&gauges::MODELS_LOADED, &id, node.runners().count() as f64);
        self.set(&gauges::MODELS_AVAILABLE, &id, node.models.len() as f64);
    }

    fn host(&mut self, node: &Node) {
        let (id, heartbeat) = ([node.id.as_str()], node.heartbeat.as_ref());
        let (ours, theirs) = (heartbeat.herd.as_ref(), heartbeat.memory.as_ref());
        let memory = ours.and_then(|report| report.memory);
        // Our agent's bytes, else the Python project's GiB.
        let bytes = |ours: Option<u64>, gib: Option<f64>| ours.map(|ours| ours as f64).or(gib.map(|gib| gib * GIB));
        let total = bytes(memory.map(|memory| memory.total_bytes), theirs.map(|memory| memory.total_gb));
        let available = bytes(memory.map(|memory| memory.available_bytes), theirs.map(|memory| memory.available_gb));
        let swap = bytes(memory.map(|memory| memory.swap_used_bytes), theirs.map(|memory| memory.swap_used_gb));
        let (disk, their_disk) = (ours.and_then(|report| report.disk.as_ref()), heartbeat.disk.as_ref());
        let disk_total = bytes(disk.map(|disk| disk.total_bytes), their_disk.map(|disk| disk.total_gb));
        let disk_free = bytes(disk.map(|disk| disk.available_bytes), their_disk.map(|disk| disk.available_gb));
        let cpu = heartbeat.cpu.as_ref().map(|cpu| cpu.utilization_pct / 100.0);
        self.maybe(&gauges::CPU, &id, cpu);
        self.maybe(&gauges::MEMORY_TOTAL, &id, total);
        self.maybe(&gauges::MEMORY_AVAILABLE, &id, available);
        self.maybe(&gauges::SWAP_USED, &id, swap);
        self.maybe(&gauges::PRESSURE, &id, total.map(|_| pressure(node.pressure)));
        self.maybe(&gauges::DISK_TOTAL, &id, disk_total);
        self.maybe(&gauges::DISK_AVAILABLE, &id, disk_free);
        self.maybe(&gauges::TEMPERATURE, &id, heartbeat.thermal.as_ref().and_then(|thermal| thermal.temperature_c));
        self.maybe(&gauges::VRAM_TOTAL, &id, node.device.total_bytes.map(|bytes| bytes as f64));
        self.maybe(&gauges::VRAM_FREE, &id, node.device.free_bytes.map(|bytes| bytes as f64));
    }

    fn gpus(&mut self, node: &Node) {
        let gpus: &[Gpu] = node.heartbeat.herd.as_ref().map_or(&[], |report| &report.gpus);
        for (number, gpu) in gpus.iter().enumerate() {
            let number = number.to_string();
            let labels = [node.id.as_str(), number.as_str()];
            self.maybe(&gauges::GPU_VRAM_TOTAL, &labels, gpu.vram_total_bytes.map(|bytes| bytes as f64));
            self.maybe(&gauges::GPU_VRAM_FREE, &labels, gpu.vram_free_bytes.map(|bytes| bytes as f64));
            self.maybe(&gauges::GPU_UTILIZATION, &labels, gpu.utilization_pct.map(|pct| pct / 100.0));
            self.maybe(&gauges::GPU_TEMPERATURE, &labels, gpu.temperature_c);
            self.maybe(&gauges::GPU_POWER, &labels, gpu.power_watts);
        }
    }

    fn model(&mut self, node: &Node, model: &Model, resident: &Resident, name: &str) {
        let labels = [node.id.as_str(), name];
        self.add(&gauges::MODEL_RESIDENT, &labels, resident.size_bytes.unwrap_or(0) as f64);
        self.add(&gauges::MODEL_IN_FLIGHT, &labels, model.load.in_flight().into());
        if let Some(bytes) = resident.size_vram_bytes {
            self.add(&gauges::MODEL_VRAM, &labels, bytes as f64);
        }
        if let Some(tokens) = resident.context_length.filter(|_| name != OTHER_MODELS) {
            self.set(&gauges::MODEL_CONTEXT, &labels, tokens as f64);
        }
    }
}

/// Keys of the loaded models that have labels of their own: the most used, then those that are loaded most often.
fn labelled(snapshot: &FleetSnapshot, uses: impl Fn(&ModelName) -> u64) -> HashSet<u64> {
    let mut loaded: HashMap<u64, (&ModelName, usize)> = HashMap::new();
    for (model, _) in snapshot.nodes.iter().flat_map(|node| node.runners()) {
        loaded.entry(model.key).or_insert((&model.name, 0)).1 += 1;
    }
    let mut ranked: Vec<_> = loaded.into_iter().map(|(key, (name, nodes))| (uses(name), nodes, name, key)).collect();
    ranked.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)).then_with(|| a.2.as_str().cmp(b.2.as_str())));
    ranked.into_iter().take(MODEL_LABELS).map(|(.., key)| key).collect()
}

fn pressure(pressure: Pressure) -> f64 {
    match pressure {
        Pressure::Normal => 0.0,
        Pressure::Warn => 1.0,
        Pressure::Critical => 2.0,
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn flag(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}
