//! A fleet at work for tests: two GPU machines that serve one model well.

use std::sync::Arc;

use super::{
    ContextUse, Demand, DemandWindow, EdgeStats, EdgeWindow, Inputs, ModelStats, ModelWindow, Observed, Percentiles,
    Policy, PredictionError, Stats, StoreStats, evaluate,
};
use crate::fleet::{FleetSnapshot, Model, Node};
use crate::recommend::Catalogue;
use crate::testing::{GIB, NodeSpec, fleet};
use crate::wire::{DiskBytes, Heartbeat, SCHEMA};

pub(crate) const MODEL: &str = "llama3.1:8b";
const NOW_MS: u64 = 1_000_000;
const UNIX_MS: u64 = 1_800_000_000_000;

#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) snapshot: FleetSnapshot,
    pub(crate) policy: Policy,
    pub(crate) stats: Stats,
    pub(crate) catalogue: Catalogue,
    pub(crate) now_ms: u64,
    pub(crate) unix_ms: u64,
}

impl Scene {
    pub(crate) fn healthy() -> Self {
        let spec = NodeSpec { vram_bytes: Some((24 * GIB, 18 * GIB)), ..NodeSpec::default() }.hot(MODEL, 8_192);
        let mut scene = Self {
            snapshot: fleet(&[("a", spec.clone()), ("b", spec)], NOW_MS),
            policy: Policy { version: "0.1.0".into(), ..Policy::default() },
            stats: Stats {
                observed_ms: 86_400_000,
                edge: edge(),
                models: ["a", "b"].map(|id| (id.to_owned(), vec![row()])).into(),
                demand: vec![Demand {
                    model: MODEL.into(),
                    hour: DemandWindow { requests: 200, ..DemandWindow::default() },
                    day: DemandWindow { requests: 2_000, ..DemandWindow::default() },
                }],
                ..Stats::default()
            },
            catalogue: Catalogue::built_in(),
            now_ms: NOW_MS,
            unix_ms: UNIX_MS,
        };
        for id in ["a", "b"] {
            scene.heartbeat(id, |heartbeat| {
                heartbeat.timestamp = 1_800_000_000.0;
                heartbeat.agent_version = "0.1.0".into();
                let report = heartbeat.herd.as_mut().unwrap();
                report.schema = SCHEMA;
                report.host.os = "linux".into();
                report.ollama.version = "0.30.1".into();
                let (total_bytes, available_bytes) = (1_000 * GIB, 500 * GIB);
                report.disk = Some(DiskBytes { total_bytes, available_bytes, ..DiskBytes::default() });
            });
        }
        scene
    }

    pub(crate) fn inputs(&self) -> Inputs<'_> {
        Inputs {
            snapshot: &self.snapshot,
            policy: &self.policy,
            stats: &self.stats,
            catalogue: &self.catalogue,
            now_ms: self.now_ms,
            unix_ms: self.unix_ms,
        }
    }

    pub(crate) fn observe(&self) -> Vec<Observed> {
        evaluate(&self.inputs())
    }

    pub(crate) fn node(&mut self, id: &str, edit: impl FnOnce(&mut Node)) {
        let mut node = self.snapshot.node(id).unwrap().as_ref().clone();
        edit(&mut node);
        self.snapshot = self.snapshot.with(node);
    }

    pub(crate) fn heartbeat(&mut self, id: &str, edit: impl FnOnce(&mut Heartbeat)) {
        self.node(id, |node| {
            let mut heartbeat = node.heartbeat.as_ref().clone();
            edit(&mut heartbeat);
            node.heartbeat = Arc::new(heartbeat);
        });
    }

    /// The model that all nodes have, on the node named `id`.
    pub(crate) fn model(&mut self, id: &str, edit: impl FnOnce(&mut Model)) {
        self.node(id, |node| edit(&mut node.models[0]));
    }

    /// What that model did on the first node of which anything is counted.
    fn first_row(&mut self) -> &mut ModelStats {
        &mut self.stats.models.values_mut().next().unwrap()[0]
    }

    /// One more row on the node named `id`.
    pub(crate) fn add_row(&mut self, id: &str, row: ModelStats) {
        self.stats.models.entry(id.into()).or_default().push(row);
    }

    /// The last hour of that model on node `a`.
    pub(crate) fn hour(&mut self) -> &mut ModelWindow {
        &mut self.first_row().hour
    }

    /// The last day of that model on node `a`.
    pub(crate) fn day(&mut self) -> &mut ModelWindow {
        &mut self.first_row().day
    }
}

fn edge() -> EdgeStats {
    let window = |requests: u64| EdgeWindow {
        requests,
        queue_wait: Percentiles { samples: requests, p50_ms: 0.0, p95_ms: 200.0, p99_ms: 900.0 },
        loads: 2,
        ..EdgeWindow::default()
    };
    let store = StoreStats { file_bytes: GIB, disk_free_bytes: Some(100 * GIB), ..StoreStats::default() };
    EdgeStats { hour: window(200), day: window(2_000), store }
}

fn row() -> ModelStats {
    let window = |requests: u64| ModelWindow {
        requests,
        completed: requests,
        cold_loads: 1,
        load_ms_total: 4_000.0,
        ttft: Percentiles { samples: requests, p50_ms: 120.0, p95_ms: 900.0, p99_ms: 2_000.0 },
        latency: Percentiles { samples: requests, p50_ms: 2_000.0, p95_ms: 8_000.0, p99_ms: 12_000.0 },
        queue_wait: Percentiles { samples: requests, p50_ms: 0.0, p95_ms: 200.0, p99_ms: 900.0 },
        prediction: PredictionError { samples: requests, predicted_ms: 300.0, actual_ms: 320.0 },
        tokens_per_s: Some(60.0),
        prompt_tokens: 800 * requests,
        output_tokens: 200 * requests,
        context: ContextUse { samples: requests, used_p95: 4_000, used_max: 6_000, allocated: Some(8_192) },
        ..ModelWindow::default()
    };
    ModelStats { model: MODEL.into(), hour: window(100), day: window(1_000) }
}
