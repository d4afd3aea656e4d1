//! What is recommended, from how much evidence, and that it fits.

use std::sync::Arc;

use super::*;
use crate::health::{Demand, DemandWindow, ModelStats, ModelWindow, Scene};
use crate::testing::GIB;
use crate::wire::Pressure;

const MODEL: &str = "llama3.1:8b";

fn advise(scene: &Scene) -> Vec<Recommendation> {
    recommend(&scene.inputs(), &Commitments::default())
}

fn ids(scene: &Scene) -> Vec<String> {
    advise(scene).into_iter().map(|one| one.id).collect()
}

#[track_caller]
fn only(scene: &Scene) -> Recommendation {
    let mut all = advise(scene);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

#[track_caller]
fn none(scene: &Scene) {
    assert_eq!(advise(scene), Vec::new());
}

fn refused(scene: &mut Scene, model: &str, refused_unknown: u64) {
    let day = DemandWindow { requests: refused_unknown, refused_unknown, ..DemandWindow::default() };
    scene.stats.demand.push(Demand { model: model.into(), day, ..Demand::default() });
}

fn disk(scene: &mut Scene, id: &str, available: u64) {
    scene.heartbeat(id, |h| h.herd.as_mut().unwrap().disk.as_mut().unwrap().available_bytes = available);
}

/// Takes the model away from the node, and what was counted of it there.
fn without_model(scene: &mut Scene, id: &str) {
    scene.node(id, |node| node.models.clear());
    scene.stats.models.remove(id);
}

#[test]
fn a_fleet_with_nothing_to_improve_gets_no_advice() {
    none(&Scene::healthy());
    let mut empty = Scene::healthy();
    empty.snapshot.nodes.clear();
    none(&empty);
}

#[test]
fn what_clients_ask_for_and_nobody_has_is_pulled_where_it_fits() {
    let mut scene = Scene::healthy();
    refused(&mut scene, "qwen3:8b", 4);
    none(&scene);
    refused(&mut scene, "qwen3:8b", 5);
    let one = only(&scene);
    assert_eq!((one.id.as_str(), one.priority), ("pull/a/qwen3:8b", Priority::High));
    assert_eq!(one.action, Action::Pull { model: "qwen3:8b".into(), node_id: "a".into() });
    assert_eq!(one.expected_gain.requests_served_per_day, Some(5));
    assert_eq!(one.size_bytes, Some(5_250_000_000));
    // 36 layers, 8 heads of keys and of values of 128 numbers of two bytes, at the default of a GPU of 24 GiB.
    assert_eq!(one.memory_bytes, Some(5_250_000_000 + 36 * 8 * 128 * 4 * 32_768));
    let json = serde_json::to_value(&one).unwrap();
    assert_eq!((&json["kind"], &json["action"]["type"]), (&"pull".into(), &"pull".into()));
}

#[test]
fn a_name_that_nobody_knows_is_not_pulled() {
    let mut scene = Scene::healthy();
    refused(&mut scene, "nope:1b", 900);
    refused(&mut scene, "not a name", 900);
    none(&scene);
}

#[test]
fn nothing_is_pulled_where_it_does_not_fit() {
    let with = |edit: fn(&mut Scene)| {
        let mut scene = Scene::healthy();
        refused(&mut scene, "qwen3:8b", 9);
        edit(&mut scene);
        ids(&scene)
    };
    assert_eq!(with(|s| disk(s, "a", 15_249_999_999)), ["pull/b/qwen3:8b"], "the reserve of the disk stays");
    assert_eq!(with(|s| disk(s, "a", 15_250_000_000)), ["pull/a/qwen3:8b"]);
    assert_eq!(with(|s| s.node("a", |node| node.device.total_bytes = None)), ["pull/b/qwen3:8b"], "unknown memory");
    assert_eq!(with(|s| s.heartbeat("a", |h| h.herd.as_mut().unwrap().disk = None)), ["pull/b/qwen3:8b"]);
    assert_eq!(with(|s| s.node("a", |node| node.pressure = Pressure::Warn)), ["pull/b/qwen3:8b"]);
    assert_eq!(with(|s| s.node("a", |node| node.cordoned = true)), ["pull/b/qwen3:8b"]);
    assert!(with(|s| ["a", "b"].iter().for_each(|id| disk(s, id, GIB))).is_empty());
    assert!(
        with(|s| ["a", "b"].iter().for_each(|id| s.node(id, |node| node.device.total_bytes = Some(8 * GIB))))
            .is_empty()
    );
    let mut scene = Scene::healthy();
    refused(&mut scene, "llama3.1:405b", 9);
    none(&scene);
}

#[test]
fn a_node_pulls_one_model_at_a_time() {
    let mut scene = Scene::healthy();
    for (model, count) in [("qwen3:8b", 9), ("gemma2:9b", 8), ("phi4:14b", 7)] {
        refused(&mut scene, model, count);
    }
    assert_eq!(ids(&scene), ["pull/a/qwen3:8b", "pull/b/gemma2:9b"]);
    let pulling = [NodeId::new("a").unwrap()];
    let busy = recommend(&scene.inputs(), &Commitments { pulling: &pulling, ..Commitments::default() });
    assert_eq!(busy.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["pull/b/qwen3:8b"]);
}

#[test]
fn what_is_loaded_again_and_again_is_kept_where_it_fits() {
    let mut scene = Scene::healthy();
    (scene.day().cold_loads, scene.day().load_ms_total) = (4, 80_000.0);
    none(&scene);
    (scene.day().cold_loads, scene.day().load_ms_total) = (41, 820_000.0);
    let one = only(&scene);
    assert_eq!(one.action, Action::Pin { model: MODEL.into(), node_id: "a".into() });
    assert_eq!(one.expected_gain.cold_loads_avoided_per_day, Some(40));
    assert_eq!((one.expected_gain.seconds_saved_per_day, one.priority), (Some(800.0), Priority::High));
    let pinned = [(NodeId::new("a").unwrap(), ModelName::new(MODEL).unwrap())];
    let known = Commitments { pinned: &pinned, ..Commitments::default() };
    assert!(recommend(&scene.inputs(), &known).is_empty(), "it is pinned");
    scene.model("a", |model| model.resident = None);
    scene.node("a", |node| node.device.total_bytes = Some(4 * GIB));
    none(&scene);
}

#[test]
fn a_model_on_the_cpu_moves_to_where_it_fits_whole() {
    let mut scene = Scene::healthy();
    without_model(&mut scene, "b");
    let on_cpu = |scene: &mut Scene, bytes: u64| {
        scene.model("a", |model| {
            let resident = model.resident.as_mut().unwrap();
            resident.size_vram_bytes = resident.size_bytes.map(|size| size - bytes);
        });
    };
    on_cpu(&mut scene, GIB / 5);
    none(&scene);
    on_cpu(&mut scene, GIB);
    let one = only(&scene);
    assert_eq!((one.id.as_str(), one.from_node_id.as_deref()), ("move/b/llama3.1:8b", Some("a")));
    assert_eq!(one.action, Action::Pull { model: MODEL.into(), node_id: "b".into() });
    assert_eq!(one.then, Some(Action::Unload { model: MODEL.into(), node_id: "a".into() }));
    scene.heartbeat("b", |heartbeat| heartbeat.herd.as_mut().unwrap().gpus.clear());
    none(&scene);
}

#[test]
fn what_is_waited_for_everywhere_gets_another_node() {
    let mut scene = Scene::healthy();
    without_model(&mut scene, "b");
    let wait = &mut scene.day().queue_wait;
    (wait.p50_ms, wait.p95_ms) = (3_000.0, 12_000.0);
    let one = only(&scene);
    assert_eq!((one.id.as_str(), one.kind), ("replicate/b/llama3.1:8b", Kind::Replicate));
    assert_eq!(one.action, Action::Pull { model: MODEL.into(), node_id: "b".into() });
    assert_eq!(one.expected_gain.seconds_saved_per_day, Some(1_500.0));
    let a = scene.snapshot.nodes[0].models[0].clone();
    scene.node("b", |node| node.models.push(crate::fleet::Model { resident: None, load: Arc::default(), ..a }));
    assert_eq!(only(&scene).action, Action::Pin { model: MODEL.into(), node_id: "b".into() }, "it is on its disk");
    scene.day().requests = 49;
    none(&scene);
    let mut one_waits = Scene::healthy();
    one_waits.day().queue_wait.p95_ms = 90_000.0;
    none(&one_waits);
}

#[test]
fn what_nobody_asks_for_goes_where_memory_is_needed() {
    let idle = || {
        let mut scene = Scene::healthy();
        scene.stats.models.remove("a");
        scene.node("a", |node| node.pressure = Pressure::Warn);
        scene
    };
    let one = only(&idle());
    assert_eq!(one.action, Action::Unload { model: MODEL.into(), node_id: "a".into() });
    assert_eq!(one.expected_gain.freed_bytes, Some(4 * GIB));
    let quiet = |edit: fn(&mut Scene)| {
        let mut scene = idle();
        edit(&mut scene);
        none(&scene);
    };
    quiet(|s| s.node("a", |node| node.pressure = Pressure::Normal));
    quiet(|s| s.stats.observed_ms = 86_399_999);
    quiet(|s| s.stats.edge.day.requests = 19);
    quiet(|s| s.model("a", |model| model.resident.as_mut().unwrap().busy_by_others = 1));
    quiet(|s| s.model("a", |model| model.resident.as_mut().unwrap().seen_at_ms = Some(900_000)));
    quiet(|s| {
        let day = ModelWindow { requests: 1, ..ModelWindow::default() };
        s.add_row("a", ModelStats { model: MODEL.into(), day, ..ModelStats::default() });
    });
}

#[test]
fn the_list_is_bounded_ordered_and_the_same_each_time() {
    let mut scene = Scene::healthy();
    let base = scene.snapshot.nodes[0].as_ref().clone();
    let row = scene.stats.models["a"][0].clone();
    for number in 0..40_u64 {
        let id = format!("n{number:02}");
        scene.snapshot = scene.snapshot.with(crate::fleet::Node { id: NodeId::new(&id).unwrap(), ..base.clone() });
        let mut busy = row.clone();
        (busy.day.cold_loads, busy.day.load_ms_total) = (10, 1_000.0 * number as f64);
        scene.add_row(&id, busy);
    }
    refused(&mut scene, "qwen3:8b", 5);
    let all = advise(&scene);
    assert_eq!(all.len(), RECOMMENDATIONS_MAX);
    assert_eq!(all[0].kind, Kind::Pull, "what fails goes before what is slow");
    let saved: Vec<_> = all[1..].iter().map(|one| one.expected_gain.seconds_saved_per_day.unwrap()).collect();
    assert!(saved.is_sorted_by(|a, b| a >= b), "{saved:?}");
    assert_eq!(all, advise(&scene));
}

/// All that a list puts on one node fits there together.
#[test]
fn all_advice_of_one_list_fits_together() {
    let mut scene = Scene::healthy();
    without_model(&mut scene, "a");
    scene.node("b", |node| node.cordoned = true);
    let usable = (24 * GIB) as f64 * USABLE_DISCRETE;
    let model = scene.snapshot.nodes[1].models[0].clone();
    for (number, name) in ["x:latest", "y:latest", "z:latest"].into_iter().enumerate() {
        let name = ModelName::new(name).unwrap();
        let (key, load) = (name.key(), Arc::default());
        let size_bytes = Some(7 * GIB);
        let cold = crate::fleet::Model { key, name, load, size_bytes, resident: None, ..model.clone() };
        let mut row = ModelStats { model: cold.name.to_string(), ..scene.stats.models["b"][0].clone() };
        row.day.cold_loads = 30 + number as u64;
        scene.add_row("a", row);
        scene.node("a", |node| {
            node.models.push(cold);
            node.models.sort_by_key(|model| model.key);
        });
    }
    let all = advise(&scene);
    let taken: u64 = all.iter().filter_map(|one| one.memory_bytes).sum();
    assert_eq!(all.len(), 2, "of three that fit alone: {all:#?}");
    assert!(taken as f64 <= usable);
}
