//! Which pulls are let through, where they go, and when they stop.

use std::sync::Arc;

use super::*;
use crate::fleet::{FleetSnapshot, LifeLimits, Node};
use crate::load::EJECTION_AFTER_FAILURES;
use crate::name::NodeId;
use crate::testing::{GIB, NodeSpec, fleet};
use crate::wire::{Disk, DiskBytes, OllamaState, Pressure};

const GB: u64 = 1_000_000_000;

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

/// A machine with so much memory, free memory and free disk.
fn machine(memory_gib: u64, free_gib: u64) -> NodeSpec {
    NodeSpec { memory_bytes: memory_gib * GIB, free_bytes: free_gib * GIB, ..NodeSpec::default() }
}

/// The fleet of these nodes with so many GB of free disk each.
fn with_disks(nodes: &[(&str, NodeSpec, Option<u64>)]) -> FleetSnapshot {
    let specs: Vec<_> = nodes.iter().map(|(id, spec, _)| (*id, spec.clone())).collect();
    nodes.iter().fold(fleet(&specs, 0), |snapshot, (id, _, disk)| {
        changed(&snapshot, id, |node| set_disk(node, disk.map(|gb| gb * GB)))
    })
}

fn changed(snapshot: &FleetSnapshot, id: &str, change: impl FnOnce(&mut Node)) -> FleetSnapshot {
    let mut node = snapshot.node(id).unwrap().as_ref().clone();
    change(&mut node);
    snapshot.with(node)
}

fn set_disk(node: &mut Node, available: Option<u64>) {
    let mut heartbeat = node.heartbeat.as_ref().clone();
    let disk = available.map(|available_bytes| DiskBytes { available_bytes, ..DiskBytes::default() });
    heartbeat.herd.as_mut().unwrap().disk = disk;
    node.heartbeat = Arc::new(heartbeat);
}

struct Ask {
    model: &'static str,
    size_bytes: Option<u64>,
    now_ms: u64,
    pulling: Vec<NodeId>,
    holders: Holders,
}

const NEW: Ask = Ask { model: "new", size_bytes: None, now_ms: 0, pulling: Vec::new(), holders: Holders::Skip };

fn asked<R>(ask: &Ask, run: impl FnOnce(&Placing<'_>) -> R) -> R {
    let (model, policy, life) = (name(ask.model), PullPolicy::default(), LifeLimits::default());
    run(&Placing {
        model: &model,
        size_bytes: ask.size_bytes,
        policy: &policy,
        life: &life,
        now_ms: ask.now_ms,
        pulling: &ask.pulling,
        holders: ask.holders,
    })
}

/// The id of the node that was found, or the refusal's name.
fn placed(snapshot: &FleetSnapshot, ask: &Ask) -> String {
    match asked(ask, |placing| place(snapshot, placing)) {
        Ok(index) => snapshot.nodes[index].id.to_string(),
        Err(refusal) => refusal.name().to_owned(),
    }
}

#[track_caller]
fn check(nodes: &[(&str, NodeSpec, Option<u64>)], ask: &Ask, expected: &str) {
    assert_eq!(placed(&with_disks(nodes), ask), expected);
}

#[test]
fn a_model_goes_where_it_fits_best() {
    let sized = |gib: u64| Ask { size_bytes: Some(gib * GIB), ..NEW };
    let (large, small) = (("large", machine(64, 20), Some(500)), ("small", machine(16, 14), Some(900)));
    check(&[large.clone(), small.clone()], &sized(4), "large");
    check(&[large.clone(), small.clone()], &NEW, "large");
    check(&[("a", machine(64, 20), Some(50)), ("b", machine(64, 20), Some(900))], &NEW, "b");
    check(&[("b", machine(64, 20), Some(50)), ("a", machine(64, 20), Some(50))], &NEW, "a");
    // Idle models make room, but not more than there is.
    let full = NodeSpec { model_bytes: 30 * GIB, ..machine(64, 2) }.hot("old", 4096);
    check(&[("full", full.clone(), Some(500)), ("half", machine(64, 24), Some(500))], &sized(4), "full");
    check(&[("full", full, Some(500)), ("half", machine(64, 60), Some(500))], &sized(4), "half");
    // In the device's memory rather than with layers in the system's, however much of that is free.
    let gpu = NodeSpec { vram_bytes: Some((24 * GIB, 24 * GIB)), ..machine(128, 120) };
    check(&[("gpu", gpu.clone(), Some(500)), ("mac", machine(64, 10), Some(500))], &sized(40), "mac");
    check(&[("gpu", gpu.clone(), Some(500)), ("mac", machine(64, 10), Some(500))], &sized(23), "mac");
    check(&[("gpu", gpu.clone(), Some(500)), ("mac", machine(64, 10), Some(500))], &sized(20), "gpu");
    check(&[("gpu", gpu, Some(500))], &sized(100), "gpu");
    check(&[large, small], &sized(65), "no_memory");
}

#[test]
fn the_disk_keeps_its_reserve() {
    let sized = |gb: u64| Ask { size_bytes: Some(gb * GB), ..NEW };
    check(&[("n", machine(64, 60), Some(25))], &sized(15), "n");
    check(&[("n", machine(64, 60), Some(25))], &sized(16), "no_disk");
    check(&[("n", machine(64, 60), Some(9))], &NEW, "no_disk");
    check(&[("n", machine(64, 60), None)], &sized(16), "n");
    check(&[("a", machine(64, 60), None), ("b", machine(64, 10), Some(500))], &sized(4), "b");
    let refused = asked(&sized(16), |placing| {
        place(&with_disks(&[("a", machine(64, 60), Some(3)), ("b", machine(64, 60), Some(20))]), placing)
    });
    let told = "not enough disk space: needs 16.0 GB and a reserve of 10.0 GB, the most that is free is 20.0 GB";
    assert_eq!(refused.unwrap_err().to_string(), told);
}

#[test]
fn the_disk_is_read_from_either_form_of_heartbeat() {
    let snapshot = with_disks(&[("n", machine(64, 60), Some(25))]);
    assert_eq!(disk_available(&snapshot.nodes[0]), Some(25 * GB));
    let python = changed(&snapshot, "n", |node| {
        set_disk(node, None);
        let mut heartbeat = node.heartbeat.as_ref().clone();
        heartbeat.disk = Some(Disk { total_gb: 100.0, used_gb: 98.0, available_gb: 2.0 });
        node.heartbeat = Arc::new(heartbeat);
    });
    assert_eq!(disk_available(&python.nodes[0]), Some(2 * GIB));
}

#[test]
fn who_failed_lately_takes_a_model_when_nobody_else_does() {
    let snapshot = with_disks(&[("a", machine(64, 60), Some(500)), ("b", machine(64, 10), Some(500))]);
    let fail = |id: &str| (0..EJECTION_AFTER_FAILURES).for_each(|_| snapshot.node(id).unwrap().load.failed(0));
    fail("a");
    assert_eq!(placed(&snapshot, &NEW), "b");
    fail("b");
    assert_eq!(placed(&snapshot, &NEW), "a");
}

#[test]
fn nodes_that_take_no_models_are_left_out() {
    type Change = fn(&mut Node);
    let rows: [(Change, u64, &str); 9] = [
        (|_| {}, 0, "n"),
        (|_| {}, 13_000, "n"),
        (|_| {}, 21_000, "no_node"),
        (|_| {}, 31_000, "no_node"),
        (|node| node.draining = true, 0, "no_node"),
        (|node| node.paused = Some("a meeting".into()), 0, "no_node"),
        (|node| node.pressure = Pressure::Critical, 0, "no_node"),
        (|node| node.ollama = OllamaState::Hung, 0, "no_node"),
        (|node| node.ollama = OllamaState::Down, 0, "no_node"),
    ];
    for (row, (change, now_ms, expected)) in rows.into_iter().enumerate() {
        let snapshot = changed(&with_disks(&[("n", machine(64, 60), Some(500))]), "n", change);
        assert_eq!(placed(&snapshot, &Ask { now_ms, ..NEW }), expected, "row {row}");
    }
    assert_eq!(placed(&FleetSnapshot::default(), &NEW), "no_node");
}

#[test]
fn each_node_pulls_one_model_at_a_time() {
    let nodes = [("a", machine(64, 60), Some(500)), ("b", machine(64, 10), Some(500))];
    let pulling = |ids: &[&str]| Ask { pulling: ids.iter().map(|id| NodeId::new(id).unwrap()).collect(), ..NEW };
    check(&nodes, &pulling(&["a"]), "b");
    check(&nodes, &pulling(&["a", "b"]), "pull_busy");
    check(&nodes, &Ask { size_bytes: Some(600 * GIB), ..pulling(&["a", "b"]) }, "no_memory");
}

#[test]
fn a_node_that_has_the_model_is_left_out_or_first() {
    let nodes = [("a", machine(64, 60), Some(500)), ("b", machine(64, 10).cold("new"), Some(500))];
    check(&nodes, &NEW, "a");
    check(&nodes[1..], &NEW, "already_there");
    check(&nodes, &Ask { holders: Holders::Prefer, ..NEW }, "b");
}

#[test]
fn a_node_is_filled_when_it_is_named() {
    let snapshot = with_disks(&[("a", machine(8, 4), Some(30)), ("b", machine(64, 60), Some(500))]);
    let on = |snapshot: &FleetSnapshot, id: &str, ask: &Ask| {
        asked(ask, |placing| place_on(snapshot, id, placing)).map_err(|refusal| refusal.name())
    };
    assert_eq!(on(&snapshot, "a", &NEW), Ok(0));
    assert_eq!(on(&snapshot, "a", &Ask { size_bytes: Some(15 * GB), ..NEW }), Ok(0), "memory is the operator's care");
    assert_eq!(on(&snapshot, "a", &Ask { size_bytes: Some(21 * GB), ..NEW }), Err("no_disk"));
    assert_eq!(on(&snapshot, "ghost", &NEW), Err("unknown_node"));
    assert_eq!(on(&snapshot, "a", &Ask { now_ms: 31_000, ..NEW }), Err("node_unavailable"));
    assert_eq!(on(&snapshot, "a", &Ask { pulling: vec![NodeId::new("a").unwrap()], ..NEW }), Err("pull_busy"));
    let cordoned = snapshot.with_cordon("a", true).unwrap();
    assert_eq!(on(&cordoned, "a", &NEW), Ok(0));
}

#[test]
fn the_size_is_learned_from_any_node() {
    let snapshot = with_disks(&[("a", machine(64, 60), None), ("b", machine(64, 60).cold("new"), None)]);
    assert_eq!(known_size(&snapshot, &name("New:latest")), Some(4 * GIB));
    assert_eq!(known_size(&snapshot, &name("other")), None);
}

#[test]
fn a_policy_says_what_is_pulled_by_itself() {
    let allowed = |policy: &PullPolicy, model| policy.allows(&name(model)).map_err(|refusal| refusal.name());
    let policy = PullPolicy::default();
    assert_eq!(allowed(&policy, "tiny"), Ok(()));
    assert_eq!(allowed(&policy, "evil.example/a/b"), Err("pull_not_allowed"));
    let off = PullPolicy { enabled: false, ..policy.clone() };
    assert_eq!(allowed(&off, "tiny"), Err("pull_disabled"));
    let some = PullPolicy { allow: vec![Pattern::new("qwen*").unwrap(), Pattern::new("tiny").unwrap()], ..policy };
    assert_eq!(allowed(&some, "tiny"), Ok(()));
    assert_eq!(allowed(&some, "qwen2.5:7b"), Ok(()));
    assert_eq!(allowed(&some, "llama3"), Err("pull_not_allowed"));
    assert_eq!(allowed(&PullPolicy { allow: Vec::new(), ..some }, "tiny"), Err("pull_not_allowed"));
}

#[test]
fn a_download_is_the_sum_of_its_layers() {
    let mut download = Download::new(Some(100), None);
    assert_eq!(download.note("a", 60, 0), Ok(()));
    assert_eq!(download.note("a", 60, 30), Ok(()));
    assert_eq!(download.note("b", 40, 40), Ok(()), "a layer that was there");
    assert_eq!((download.total_bytes(), download.completed_bytes(), download.brought_bytes()), (100, 70, 30));
    assert_eq!(download.note("a", 60, 900), Ok(()), "no more than all");
    assert_eq!(download.completed_bytes(), 100);
    assert_eq!(download.note("c", 1, 0), Err(PullStop::TooLarge { total_bytes: 101, max_bytes: 100 }));
    let mut endless = Download::new(None, None);
    let stopped = (0..1000).find_map(|layer| endless.note(&layer.to_string(), u64::MAX, 0).err());
    assert_eq!(stopped, Some(PullStop::TooManyLayers));
}

#[test]
fn only_what_is_still_to_come_needs_disk() {
    let mut download = Download::new(None, Some(50));
    assert_eq!(download.note("a", 90, 45), Ok(()), "resumed");
    assert_eq!(download.note("b", 5, 0), Ok(()));
    assert_eq!(download.note("c", 1, 0), Err(PullStop::NoDisk { needed_bytes: 51, room_bytes: 50 }));
    assert_eq!(
        PullStop::NoDisk { needed_bytes: 5 * GB, room_bytes: 12 }.to_string(),
        "the disk has 12 bytes to spare, the pull needs 5.0 GB or more"
    );
}

#[test]
fn a_failed_pull_waits_longer_each_time() {
    let (model, mut backoff, mut now_ms) = (name("flaky"), Backoff::default(), 0);
    let minutes_30 = 30 * 60_000;
    for pause_ms in [30_000, 60_000, 120_000, 240_000, 480_000, 960_000, minutes_30, minutes_30] {
        backoff.failed(&model, Failure::Other, "reset", now_ms);
        let refused = backoff.check(&model, now_ms + pause_ms - 1);
        assert_eq!(refused, Err(PullRefusal::BackingOff { retry_after_ms: 1, last: "reset".into() }));
        now_ms += pause_ms;
        assert_eq!(backoff.check(&model, now_ms), Ok(()));
        assert_eq!(backoff.check(&name("other"), now_ms), Ok(()));
    }
    let mut forgiven = backoff.clone();
    forgiven.succeeded(&model);
    for (backoff, now_ms) in [(&mut forgiven, now_ms), (&mut backoff, now_ms + minutes_30)] {
        backoff.failed(&model, Failure::Other, "reset", now_ms);
        assert_eq!(backoff.check(&model, now_ms + 30_000), Ok(()), "counted anew");
    }
}

#[test]
fn unknown_models_are_remembered_and_made_up_names_not_looked_for() {
    let (model, mut backoff) = (name("typo"), Backoff::default());
    backoff.failed(&model, Failure::UnknownModel, "file does not exist", 0);
    assert_eq!(backoff.check(&model, 29 * 60_000).unwrap_err().name(), "unknown_model");
    assert_eq!(backoff.check(&model, 30 * 60_000), Ok(()));
    backoff.failed(&model, Failure::TooLarge, "it has 90 GB", 0);
    assert_eq!(backoff.check(&model, 29 * 60_000).unwrap_err().name(), "pull_backing_off");
    for made_up in 0..20 {
        assert_eq!(backoff.check(&name("fine"), 3_600_000), Ok(()), "{made_up}");
        backoff.failed(&name(&made_up.to_string()), Failure::UnknownModel, "file does not exist", 3_600_000);
    }
    let refused = backoff.check(&name("fine"), 3_610_000);
    assert!(matches!(refused, Err(PullRefusal::BackingOff { retry_after_ms: 50_000, .. })), "{refused:?}");
    assert_eq!(backoff.check(&name("fine"), 3_660_000), Ok(()));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut backoff = Backoff::default();
    for at in 0..1000 {
        backoff.failed(&name(&format!("m{at}")), Failure::Other, "reset", at);
    }
    assert_eq!(backoff.check(&name("m0"), 1000), Ok(()));
    assert!(backoff.check(&name("m999"), 1000).is_err());
}
