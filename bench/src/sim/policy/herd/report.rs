//! From the state of a simulated node to the heartbeat that herd's own agent would send.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use herd_core::fleet::Sender;
use herd_core::wire::{
    AvailableModel, Cpu, Gpu, Heartbeat, HerdReport, LoadedModel, MemoryBytes, OllamaEnv, OllamaReport, Runner,
    RunnerActivity, SCHEMA,
};

use crate::sim::catalogue::MODELS;
use crate::sim::node::Report;
use crate::sim::workload::NodeSpec;

/// What the agents count.
#[derive(Debug, Default)]
pub(super) struct Reports {
    numbers: HashMap<usize, u64>,
    /// How often each model of a node was found at work.
    steps: HashMap<(usize, usize), u64>,
}

impl Reports {
    pub(super) fn heartbeat(&mut self, spec: &NodeSpec, node: usize, report: &Report) -> Heartbeat {
        let activity = self.activity(node, report);
        let seq = self.numbers.entry(node).or_default();
        *seq += 1;
        Heartbeat {
            node_id: format!("n{node:05}"),
            // The owner reads mail.
            cpu: Some(Cpu { cores_physical: 8, utilization_pct: 5.0 }),
            memory_bandwidth_gbps: spec.hardware.bandwidth_gbps,
            herd: Some(HerdReport {
                schema: SCHEMA,
                boot: format!("b{node:05}"),
                seq: *seq,
                interval_ms: 5_000,
                memory: Some(memory(spec, report)),
                gpus: gpu(spec, report).into_iter().collect(),
                ollama: OllamaReport { activity, ..ollama(spec, report) },
                ..HerdReport::default()
            }),
            ..Heartbeat::default()
        }
    }
}

impl Reports {
    /// A runner that works on requests, or is being loaded, uses the machine.
    fn activity(&mut self, node: usize, report: &Report) -> Vec<RunnerActivity> {
        let runners = report.runners.iter().map(|runner| (runner.model, runner.busy > 0));
        let all = runners.chain(report.loading.iter().map(|model| (*model, true)));
        let mut looked = |(model, works): (usize, bool)| {
            let steps = self.steps.entry((node, model)).or_default();
            *steps += u64::from(works);
            RunnerActivity { model: MODELS[model].name.into(), steps: *steps, conclusive: true }
        };
        all.map(&mut looked).collect()
    }
}

pub(super) fn sender() -> Sender {
    Sender::at(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn memory(spec: &NodeSpec, report: &Report) -> MemoryBytes {
    let hardware = spec.hardware;
    let available_bytes = if hardware.discrete { hardware.system_bytes / 2 } else { report.free_bytes };
    MemoryBytes { total_bytes: hardware.system_bytes, available_bytes, ..MemoryBytes::default() }
}

fn gpu(spec: &NodeSpec, report: &Report) -> Option<Gpu> {
    spec.hardware.discrete.then(|| Gpu {
        vram_total_bytes: Some(spec.hardware.memory_bytes),
        vram_free_bytes: Some(report.free_bytes),
        ..Gpu::default()
    })
}

fn ollama(spec: &NodeSpec, report: &Report) -> OllamaReport {
    let hardware = spec.hardware;
    let env = OllamaEnv {
        num_parallel: Some(hardware.slots),
        max_loaded_models: Some(hardware.max_loaded),
        context_length: Some(hardware.context),
    };
    let available = spec.models.iter().map(|model| &MODELS[*model]).map(|model| AvailableModel {
        name: model.name.into(),
        digest: model.name.into(),
        size_bytes: model.bytes,
        context_length: model.train_context,
        ..AvailableModel::default()
    });
    let loaded = report.runners.iter().map(|runner| LoadedModel {
        name: MODELS[runner.model].name.into(),
        digest: MODELS[runner.model].name.into(),
        size_bytes: runner.bytes,
        size_vram_bytes: runner.bytes,
        context_length: runner.context,
        ..LoadedModel::default()
    });
    let runners = report.runners.iter().map(|runner| Runner {
        model: MODELS[runner.model].name.into(),
        slots: hardware.slots,
        slots_busy: runner.busy,
        context_length: runner.context,
        ..Runner::default()
    });
    OllamaReport {
        env,
        loaded: loaded.collect(),
        available: available.collect(),
        runners: Some(runners.collect()),
        loading: report.loading.iter().map(|model| MODELS[*model].name.into()).collect(),
        ..OllamaReport::default()
    }
}
