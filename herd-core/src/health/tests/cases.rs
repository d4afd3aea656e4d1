//! One case for each check.

use super::super::scene::MODEL;
use super::super::{Demand, DemandWindow, JoinRefusal, ModelStats, NodeStats, NodeWindow, Scene, Severity, StoreState};
use super::Case;
use crate::fleet::Model;
use crate::name::NodeId;
use crate::testing::GIB;
use crate::wire::{LoadedModel, MemoryBytes, OllamaState, Pressure, Thermal};

use Severity::{Critical, Info, Warning};

fn on_a(check: &'static str, severity: Severity, fires: fn(&mut Scene), quiet: fn(&mut Scene)) -> Case {
    Case { check, node_id: Some("a"), model: None, severity, fires, quiet }
}

fn at_model(check: &'static str, severity: Severity, fires: fn(&mut Scene), quiet: fn(&mut Scene)) -> Case {
    Case { model: Some(MODEL), ..on_a(check, severity, fires, quiet) }
}

fn in_fleet(check: &'static str, severity: Severity, fires: fn(&mut Scene), quiet: fn(&mut Scene)) -> Case {
    Case { node_id: None, ..on_a(check, severity, fires, quiet) }
}

pub(super) fn all() -> Vec<Case> {
    let parts = [nodes(), memory(), context(), latency(), failures(), configuration(), storage()];
    parts.into_iter().flatten().collect()
}

fn silent_for(scene: &mut Scene, ms: u64) {
    let heard_at = scene.now_ms - ms;
    scene.node("a", |node| node.heartbeat_at_ms = heard_at);
}

fn nodes() -> Vec<Case> {
    vec![
        in_fleet("fleet_empty", Critical, |s| s.snapshot.nodes.clear(), |_| {}),
        on_a("node_down", Critical, |s| silent_for(s, 30_001), |s| silent_for(s, 30_000)),
        on_a("node_silent", Warning, |s| silent_for(s, 12_001), |s| silent_for(s, 12_000)),
        on_a(
            "agent_silent",
            Warning,
            |s| {
                silent_for(s, 60_000);
                s.snapshot.nodes[0].load.probe_succeeded(1);
            },
            |s| silent_for(s, 60_000),
        ),
        on_a("ollama_down", Critical, |s| s.node("a", |n| n.ollama = OllamaState::Down), |_| {}),
        on_a("ollama_hung", Critical, |s| s.node("a", |n| n.ollama = OllamaState::Hung), |_| {}),
        on_a("ollama_old", Warning, |s| ollama_is(s, "0.9.6"), |s| ollama_is(s, "0.14.0")),
        on_a("ollama_old", Info, |s| ollama_is(s, "v0.13.5"), |s| ollama_is(s, "0.0.0")),
        on_a("agent_old", Info, |s| s.policy.version = "0.2.0".into(), |s| s.policy.version = "unknown".into()),
        on_a("agent_old", Info, |s| s.heartbeat("a", |h| h.herd = None), |s| s.policy.version = "0.0.9".into()),
        on_a(
            "clock_skew",
            Warning,
            |s| s.heartbeat("a", |h| h.timestamp += 10.5),
            |s| s.heartbeat("a", |h| h.timestamp -= 9.5),
        ),
        on_a(
            "clock_skew",
            Warning,
            |s| s.heartbeat("a", |h| h.timestamp = 5.0),
            |s| {
                s.heartbeat("a", |h| h.timestamp = 0.0);
            },
        ),
        on_a("node_flapping", Warning, |s| departures(s, 3), |s| departures(s, 2)),
        on_a("node_hot", Warning, |s| thermal(s, "warning"), |s| thermal(s, "nominal")),
        on_a(
            "node_ejected",
            Critical,
            |s| (0..3).for_each(|_| s.snapshot.nodes[0].load.failed(s.now_ms)),
            |s| (0..2).for_each(|_| s.snapshot.nodes[0].load.failed(s.now_ms)),
        ),
        on_a("node_cordoned", Info, |s| s.node("a", |n| n.cordoned = true), |s| s.node("a", |n| n.draining = true)),
    ]
}

fn ollama_is(scene: &mut Scene, version: &str) {
    scene.heartbeat("a", |heartbeat| heartbeat.herd.as_mut().unwrap().ollama.version = version.into());
}

fn departures(scene: &mut Scene, departures: u64) {
    let hour = NodeWindow { departures };
    scene.stats.nodes = [("a".into(), NodeStats { hour, ..NodeStats::default() })].into();
}

fn thermal(scene: &mut Scene, state: &str) {
    let thermal = Thermal { state: state.into(), temperature_c: Some(91.0), source: "gpu".into() };
    scene.heartbeat("a", |heartbeat| heartbeat.thermal = Some(thermal));
}

fn memory() -> Vec<Case> {
    vec![
        on_a("memory_pressure", Critical, |s| s.node("a", |n| n.pressure = Pressure::Critical), |_| {}),
        on_a("memory_pressure", Warning, |s| s.node("a", |n| n.pressure = Pressure::Warn), |_| {}),
        on_a("swap_in_use", Warning, |s| swap(s, 7 * GIB), |s| swap(s, 6 * GIB)),
        on_a("vram_taken", Warning, |s| vram_free(s, GIB), |s| vram_free(s, 2 * GIB)),
        at_model("model_cannot_fit", Warning, |s| too_large(s, 89 * GIB), |s| too_large(s, 88 * GIB)),
        at_model("model_on_cpu", Warning, |s| on_cpu(s, 100), |s| on_cpu(s, 0)),
        at_model("duplicate_runner", Warning, |s| loaded_twice(s, "new"), |s| loaded_twice(s, "old")),
    ]
}

fn swap(scene: &mut Scene, swap_used_bytes: u64) {
    let memory = MemoryBytes { total_bytes: 64 * GIB, swap_used_bytes, ..MemoryBytes::default() };
    scene.heartbeat("a", |heartbeat| heartbeat.herd.as_mut().unwrap().memory = Some(memory));
}

fn vram_free(scene: &mut Scene, bytes: u64) {
    scene.node("a", |node| node.device.free_bytes = Some(bytes));
}

/// Not in memory, and asked for.
fn too_large(scene: &mut Scene, bytes: u64) {
    scene.model("a", |model| {
        model.resident = None;
        model.size_bytes = Some(bytes);
    });
}

fn on_cpu(scene: &mut Scene, thousandths: u64) {
    scene.model("a", |model| {
        let resident = model.resident.as_mut().unwrap();
        let size = resident.size_bytes.unwrap();
        resident.size_vram_bytes = Some(size - size / 1_000 * thousandths);
    });
}

fn loaded_twice(scene: &mut Scene, second: &str) {
    let loaded = |digest: &str| LoadedModel { name: MODEL.into(), digest: digest.into(), ..LoadedModel::default() };
    let both = vec![loaded("old"), loaded(second)];
    scene.heartbeat("a", |heartbeat| heartbeat.herd.as_mut().unwrap().ollama.loaded = both);
}

fn context() -> Vec<Case> {
    vec![
        at_model("context_oversized", Warning, |s| window(s, 131_072, 20), |s| window(s, 131_072, 19)),
        at_model("context_oversized", Info, |s| used(s, 4_096), |s| used(s, 4_097)),
        at_model(
            "reload_thrash",
            Warning,
            |s| s.hour().reloads.context_larger = 6,
            |s| {
                s.hour().reloads.context_larger = 5;
            },
        ),
        at_model(
            "reload_thrash",
            Warning,
            |s| s.hour().reloads.launch_options = 9,
            |s| {
                s.hour().reloads.node_default = 9;
            },
        ),
        at_model(
            "v1_default_mismatch",
            Warning,
            |s| s.hour().reloads.node_default = 5,
            |s| {
                s.hour().reloads.node_default = 4;
            },
        ),
        at_model("context_overflow", Warning, |s| s.hour().overflows = 3, |s| s.hour().overflows = 2),
        at_model(
            "context_overflow",
            Warning,
            |s| (s.hour().requests, s.hour().overflows) = (20, 20),
            |s| (s.hour().requests, s.hour().overflows) = (19, 19),
        ),
    ]
}

fn window(scene: &mut Scene, allocated: u64, samples: u64) {
    scene.model("a", |model| model.resident.as_mut().unwrap().context_length = Some(allocated));
    scene.day().context.samples = samples;
}

/// Of 16,384 tokens.
fn used(scene: &mut Scene, used_max: u64) {
    window(scene, 16_384, 20);
    scene.day().context.used_max = used_max;
}

fn latency() -> Vec<Case> {
    vec![
        at_model("slow_node", Warning, |s| s.hour().tokens_per_s = Some(29.0), |s| s.hour().tokens_per_s = Some(31.0)),
        at_model(
            "slow_node",
            Warning,
            |s| (s.hour().completed, s.hour().tokens_per_s) = (20, Some(2.0)),
            |s| (s.hour().completed, s.hour().tokens_per_s) = (19, Some(2.0)),
        ),
        at_model(
            "slow_node",
            Warning,
            |s| {
                s.node("a", |n| n.bandwidth_gbps = None);
                s.hour().tokens_per_s = Some(14.0);
            },
            |s| {
                s.node("a", |n| n.bandwidth_gbps = Some(100.0));
                s.hour().tokens_per_s = Some(14.0);
            },
        ),
        at_model(
            "node_slowed",
            Warning,
            |s| s.day().tokens_per_s = Some(121.0),
            |s| {
                s.day().tokens_per_s = Some(119.0);
            },
        ),
        at_model("cold_loads", Warning, |s| loads(s, 20, 10, GIB), |s| loads(s, 19, 10, GIB)),
        at_model("cold_loads", Warning, |s| loads(s, 20, 5, GIB), |s| loads(s, 26, 5, GIB)),
        // Each fits alone, and not both.
        at_model(
            "cold_loads",
            Warning,
            |s| {
                add_resident(s, "other:latest");
                loads(s, 20, 5, 4 * GIB);
            },
            |s| loads(s, 20, 5, 5 * GIB),
        ),
        in_fleet(
            "queue_saturated",
            Warning,
            |s| s.stats.edge.hour.queue_wait.p95_ms = 10_000.0,
            |s| (s.stats.edge.hour.queue_wait.p95_ms, s.stats.edge.hour.queue_wait.samples) = (90_000.0, 19),
        ),
        in_fleet(
            "queue_refusals",
            Critical,
            |s| s.stats.edge.hour.queue_timeouts = 2,
            |s| {
                s.stats.edge.hour.queue_refused = 1;
            },
        ),
        at_model("prediction_drift", Info, |s| took(s, 30), |s| took(s, 29)),
        in_fleet("unforeseen_loads", Info, |s| unforeseen(s, 20), |s| unforeseen(s, 19)),
    ]
}

/// The model is not in memory now.
fn loads(scene: &mut Scene, requests: u64, cold_loads: u64, free: u64) {
    scene.model("a", |model| model.resident = None);
    vram_free(scene, free);
    (scene.hour().requests, scene.hour().cold_loads) = (requests, cold_loads);
}

fn took(scene: &mut Scene, samples: u64) {
    let prediction = &mut scene.hour().prediction;
    (prediction.samples, prediction.predicted_ms, prediction.actual_ms) = (samples, 300.0, 4_000.0);
}

fn unforeseen(scene: &mut Scene, loads: u64) {
    (scene.stats.edge.hour.loads, scene.stats.edge.hour.unforeseen_loads) = (loads, loads);
}

fn failures() -> Vec<Case> {
    vec![
        on_a("failure_rate", Warning, |s| s.hour().failed = 5, |s| s.hour().failed = 4),
        on_a(
            "failure_rate",
            Critical,
            |s| (s.hour().requests, s.hour().failed) = (21, 6),
            |s| (s.hour().requests, s.hour().failed) = (20, 20),
        ),
        on_a("retry_rate", Warning, |s| s.hour().retries = 12, |s| s.hour().retries = 11),
        in_fleet(
            "retry_budget_exhausted",
            Warning,
            |s| s.stats.edge.hour.retry_budget_exhausted = 5,
            |s| {
                s.stats.edge.hour.retry_budget_exhausted = 4;
            },
        ),
        at_model("incomplete_streams", Warning, |s| s.hour().incomplete = 3, |s| s.hour().incomplete = 2),
        at_model(
            "client_disconnects",
            Info,
            |s| s.hour().client_disconnected = 10,
            |s| {
                s.hour().client_disconnected = 9;
            },
        ),
        at_model("busy_answers", Warning, |s| s.hour().busy = 5, |s| s.hour().busy = 4),
        on_a("zombies", Warning, |s| s.hour().reaped = 2, |s| s.hour().reaped = 1),
        on_a("zombies", Critical, |s| s.hour().reaped = 11, |_| {}),
        in_fleet(
            "bodies_refused",
            Info,
            |s| s.stats.edge.hour.bodies_refused = 5,
            |s| {
                s.stats.edge.hour.bodies_refused = 4;
            },
        ),
        Case {
            model: Some("qwen3:8b"),
            ..in_fleet("model_missing", Info, |s| refused(s, "qwen3:8b", 5), |s| refused(s, "qwen3:8b", 4))
        },
        Case {
            model: Some("b:latest"),
            ..in_fleet("model_missing", Info, |s| refused(s, "b:latest", 9), |s| refused(s, MODEL, 9))
        },
        Case {
            model: Some(MODEL),
            ..in_fleet(
                "stand_ins",
                Info,
                |s| s.stats.demand[0].hour.stand_ins = 40,
                |s| s.stats.demand[0].hour.stand_ins = 39,
            )
        },
    ]
}

fn refused(scene: &mut Scene, model: &str, refused_unknown: u64) {
    let day = DemandWindow { requests: refused_unknown, refused_unknown, ..DemandWindow::default() };
    scene.stats.demand.push(Demand { model: model.into(), day, ..Demand::default() });
}

fn configuration() -> Vec<Case> {
    vec![
        at_model("num_parallel_low", Warning, |s| waits(s, 20), |s| waits(s, 19)),
        at_model(
            "num_parallel_low",
            Warning,
            |s| waits(s, 20),
            |s| {
                waits(s, 20);
                vram_free(s, GIB / 2);
            },
        ),
        at_model(
            "num_parallel_low",
            Warning,
            |s| waits(s, 20),
            |s| {
                waits(s, 20);
                s.node("a", |node| node.env.num_parallel = Some(2));
            },
        ),
        at_model("keep_alive_short", Warning, |s| loads(s, 20, 5, 18 * GIB), |s| loads(s, 20, 4, 18 * GIB)),
        at_model(
            "max_loaded_reached",
            Warning,
            |s| {
                s.node("a", |node| node.env.max_loaded_models = Some(1));
                add_resident(s, "other:latest");
                loads(s, 20, 5, 18 * GIB);
            },
            |s| {
                s.node("a", |node| node.env.max_loaded_models = Some(2));
                add_resident(s, "other:latest");
                loads(s, 20, 5, 18 * GIB);
            },
        ),
        on_a("ollama_local_only", Critical, |s| s.snapshot.nodes[0].load.set_probe_failed(true), |_| {}),
        on_a("not_ollama", Critical, foreign, |s| s.snapshot.nodes[0].load.ask_for_proof()),
        on_a("herd_bypassed", Info, |s| others(s, 1), |s| others(s, 0)),
        in_fleet("join_refused", Warning, |s| s.stats.join_refusals.push(join_refusal()), |_| {}),
        on_a("same_ollama", Warning, |s| s.node("a", |node| node.same_ollama_as = NodeId::new("b").ok()), |_| {}),
        in_fleet("no_join_token", Info, remote, |s| {
            remote(s);
            s.policy.has_join_token = true;
        }),
    ]
}

fn join_refusal() -> JoinRefusal {
    JoinRefusal {
        address: "192.168.7.1".into(),
        node_id: "ubuntu".into(),
        code: "taken".into(),
        message: "node_id \"ubuntu\" is in use".into(),
        count: 1,
    }
}

fn waits(scene: &mut Scene, samples: u64) {
    let wait = &mut scene.hour().queue_wait;
    (wait.samples, wait.p95_ms) = (samples, 12_000.0);
}

/// Another model in memory on node `a`, and asked for.
fn add_resident(scene: &mut Scene, name: &str) {
    let name = crate::name::ModelName::new(name).unwrap();
    scene.node("a", |node| {
        let other =
            Model { key: u64::MAX, name: name.clone(), load: std::sync::Arc::default(), ..node.models[0].clone() };
        node.models.push(other);
    });
    let row = ModelStats { model: name.to_string(), ..scene.stats.models["b"][0].clone() };
    scene.add_row("a", row);
}

fn others(scene: &mut Scene, busy: u32) {
    scene.model("a", |model| model.resident.as_mut().unwrap().busy_by_others = busy);
}

fn foreign(scene: &mut Scene) {
    let load = &scene.snapshot.nodes[0].load;
    load.ask_for_proof();
    load.found_foreign();
}

fn remote(scene: &mut Scene) {
    scene.node("a", |node| node.address = "192.168.1.5:11434".parse().unwrap());
}

fn storage() -> Vec<Case> {
    vec![
        on_a("disk_low", Warning, |s| disk(s, 9_999_999_999), |s| disk(s, 10_000_000_000)),
        on_a("disk_low", Critical, |s| disk(s, 500_000_000), |_| {}),
        in_fleet("store_broken", Critical, |s| store(s, StoreState::Unwritable), |s| store(s, StoreState::Disabled)),
        in_fleet("store_broken", Warning, |s| store(s, StoreState::SetAside), |_| {}),
        in_fleet("traces_dropped", Warning, |s| s.stats.edge.store.dropped_hour = 1, |_| {}),
        in_fleet(
            "store_disk_low",
            Warning,
            |s| s.stats.edge.store.disk_free_bytes = Some(999_999_999),
            |s| s.stats.edge.store.disk_free_bytes = None,
        ),
        in_fleet("store_filling", Warning, |s| filled(s, 80), |s| filled(s, 79)),
        in_fleet("clock_stepped", Warning, |s| s.stats.edge.store.clock_step_ms = Some(-90_000), |_| {}),
        in_fleet("unmarked_proxy", Warning, |s| s.stats.edge.hour.unmarked_proxies = 1, |_| {}),
        in_fleet("edge_asleep", Warning, |s| s.stats.edge.hour.sleeps = 1, |_| {}),
        in_fleet(
            "auto_pull_failed",
            Warning,
            |s| s.stats.edge.day.auto_pulls_failed = 2,
            |s| s.stats.edge.day.auto_pulls_failed = 1,
        ),
    ]
}

fn filled(scene: &mut Scene, percent: u64) {
    let store = &mut scene.stats.edge.store;
    (store.used_bytes, store.max_bytes) = (percent * GIB / 100, GIB);
}

fn disk(scene: &mut Scene, available: u64) {
    scene.heartbeat("a", |h| h.herd.as_mut().unwrap().disk.as_mut().unwrap().available_bytes = available);
}

fn store(scene: &mut Scene, state: StoreState) {
    scene.stats.edge.store.state = state;
}

#[test]
fn a_saving_is_exact_where_the_cost_of_a_token_is_known() {
    let mut scene = Scene::healthy();
    window(&mut scene, 131_072, 100);
    scene.model("a", |model| {
        let resident = model.resident.as_mut().unwrap();
        resident.size_bytes = Some(resident.size_bytes.unwrap() + 131_072 * 131_072);
        resident.size_vram_bytes = resident.size_bytes;
    });
    let observed = scene.observe();
    let one = super::seen_by("context_oversized", &observed)[0].clone();
    assert_eq!(one.evidence["saved_bytes"], ((131_072_u64 - 8_192) * 131_072).into());
    assert_eq!(one.evidence["advised_tokens"], 8_192_u64.into());
    let fix = r#"/api/create -d '{"model":"llama3.1:8b","from":"llama3.1:8b","parameters":{"num_ctx":8192}}'"#;
    assert!(one.fix.ends_with(fix), "{}", one.fix);
}

#[test]
fn names_of_one_runner_are_judged_together() {
    let mut scene = Scene::healthy();
    window(&mut scene, 131_072, 100);
    let name = crate::name::ModelName::new("same:latest").unwrap();
    scene.node("a", |node| {
        let same = Model { key: u64::MAX, name, shares_runner: true, ..node.models[0].clone() };
        node.models.push(same);
    });
    let mut row = ModelStats { model: "same:latest".into(), ..scene.stats.models["a"][0].clone() };
    row.day.context.used_max = 100_000;
    scene.add_row("a", row);
    assert!(super::seen_by("context_oversized", &scene.observe()).is_empty());
}
