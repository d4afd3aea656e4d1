//! Before the first byte of an answer: another node is asked, and the last one's own answer is passed on.

use std::io::Write as _;

use herd_harness::{Edge, Sim, connect, eventually, read_answer, send};

use super::scene::{BOTH, SOLO, Scene, direct};
use super::way::{Way, few, streams, ways};
use super::{Row, row};

pub(super) const ROWS: &[Row] = &[
    Row { name: "the node answers 400", status: &[400], attempts: &[1], trace: "failed" },
    Row { name: "the node answers 404, another serves", status: &[200], attempts: &[2], trace: "completed" },
    Row { name: "the node answers 404, no other", status: &[404], attempts: &[1], trace: "failed" },
    Row { name: "the node answers 500, another serves", status: &[200], attempts: &[2], trace: "completed" },
    Row { name: "the node answers 500, no other", status: &[500], attempts: &[1], trace: "failed" },
    Row {
        name: "the node answers 500, and no retry is left to the fleet",
        status: &[500],
        attempts: &[1],
        trace: "failed",
    },
    Row { name: "the node is busy (503), another serves", status: &[200], attempts: &[2], trace: "completed" },
    Row { name: "the node is busy (503), no other", status: &[503], attempts: &[3], trace: "failed" },
    Row { name: "reset before the answer, another serves", status: &[200], attempts: &[2], trace: "completed" },
    Row { name: "reset before the answer, no other", status: &[502], attempts: &[1, 2], trace: "failed" },
    Row { name: "silent before the answer, another serves", status: &[200], attempts: &[2], trace: "completed" },
    Row { name: "silent before the answer, no other", status: &[504], attempts: &[1], trace: "failed" },
];

/// The request of `way` meets `fault` at `a`, and `b` serves it.
fn taken_over(scene: &Scene, way: &Way, fault: &str, name: &str, stories: &[&str]) {
    scene.heal();
    scene.a.fault(fault);
    let (id, answer) = scene.ask(way, BOTH);
    way.fine(&answer);
    assert_eq!(answer.header("X-Fleet-Node"), Some("b"), "{answer:?}");
    scene.check(row(name), &id, &answer, stories);
}

/// The request of `way` meets `fault` at the only node that has its model; its answer comes as the node gave it.
fn passed_on(scene: &Scene, way: &Way, fault: &str, name: &str, stories: &[&str]) {
    scene.heal();
    scene.a.fault(fault);
    let (id, answer) = scene.ask(way, SOLO);
    way.error(&answer);
    scene.check(row(name), &id, &answer, stories);
    let own = direct(&scene.a, way, SOLO);
    assert_eq!(without_id(answer.text()), without_id(own.text()), "{way:?}");
    let framing = ["Content-Type", "Content-Length"];
    assert_eq!(framing.map(|name| answer.header(name)), framing.map(|name| own.header(name)), "{way:?}");
}

/// The error that ends at the edge.
fn told(scene: &Scene, way: &Way, fault: &str, name: &str, stories: &[&str]) {
    scene.heal();
    scene.a.fault(fault);
    let (id, answer) = scene.ask(way, SOLO);
    way.error(&answer);
    scene.check(row(name), &id, &answer, stories);
}

/// Anthropic's errors carry an id of their own.
fn without_id(text: String) -> String {
    match text.split_once("\"request_id\":") {
        Some((before, _)) => before.to_owned(),
        None => text,
    }
}

#[test]
fn an_error_of_the_node_is_retried_and_then_passed_on_as_it_is() {
    let scene = Scene::start("hold: {max_ms: 0}\n", "0");
    for way in ways() {
        passed_on(&scene, &way, "error_400", "the node answers 400", &["a:failed"]);
        taken_over(
            &scene,
            &way,
            "not_found",
            "the node answers 404, another serves",
            &["a:model_not_found,b:completed"],
        );
        passed_on(&scene, &way, "not_found", "the node answers 404, no other", &["a:failed"]);
        taken_over(&scene, &way, "error_500", "the node answers 500, another serves", &["a:error_status,b:completed"]);
        passed_on(&scene, &way, "error_500", "the node answers 500, no other", &["a:failed"]);
    }
    scene.each_ended_once();
}

#[test]
fn a_busy_node_is_left_and_asked_again_if_there_is_no_other() {
    let scene = Scene::start("hold: {max_ms: 0}\n", "0");
    for way in few() {
        taken_over(&scene, &way, "busy_503", "the node is busy (503), another serves", &["a:busy,b:completed"]);
        passed_on(&scene, &way, "busy_503", "the node is busy (503), no other", &["a:busy,a:busy,a:failed"]);
    }
    scene.each_ended_once();
}

#[test]
fn a_reset_before_the_answer_is_retried_and_then_told() {
    let scene = Scene::start("hold: {max_ms: 0}\n", "0");
    for way in ways() {
        // A kept connection may have been closed before the request came: then it does not tell against the node.
        let name = "reset before the answer, another serves";
        taken_over(&scene, &way, "reset", name, &["a:reset,b:completed", "a:stale_connection,b:completed"]);
        let name = "reset before the answer, no other";
        told(&scene, &way, "reset", name, &["a:failed", "a:stale_connection,a:failed"]);
    }
    scene.each_ended_once();
}

#[test]
fn a_silent_node_is_cancelled_and_another_asked() {
    let scene = Scene::start("reaper: {first_byte_floor_ms: 300, first_byte_ceiling_ms: 600}\n", "0");
    for way in few() {
        let cancelled = scene.a.stats()["cancelled"].as_u64();
        let name = "silent before the answer, another serves";
        taken_over(&scene, &way, "hang_before_first_byte", name, &["a:no_first_byte,b:completed"]);
        let name = "silent before the answer, no other";
        told(&scene, &way, "hang_before_first_byte", name, &["a:failed"]);
        let both = cancelled.map(|before| before + 2);
        eventually("a was told to stop", || scene.a.stats()["cancelled"].as_u64() == both);
    }
    scene.each_ended_once();
}

#[test]
fn an_outage_is_not_multiplied_by_retries() {
    let budget = "budget_ratio: 0, budget_per_s: 0, budget_burst: 1";
    let scene = Scene::start(&format!("hold: {{max_ms: 0}}\nretry: {{{budget}}}\n"), "0");
    let chat = streams()[0];
    taken_over(&scene, &chat, "error_500", "the node answers 500, another serves", &["a:error_status,b:completed"]);
    scene.heal();
    scene.a.fault("error_500");
    let (id, answer) = scene.ask(&chat, BOTH);
    chat.error(&answer);
    scene.check(row("the node answers 500, and no retry is left to the fleet"), &id, &answer, &["a:failed"]);
    scene.each_ended_once();
}

#[test]
fn a_request_that_no_node_survives_does_not_go_through_the_fleet() {
    let edge = Edge::start_with("retry: {max_attempts: 3}\n", &[]);
    let ids = ["a", "b", "c", "d", "e", "f"];
    let sims = ids.map(|id| Sim::start(Some(&edge), id, &["--hot", "tiny", "--decode-tps", "20"]));
    edge.wait_for(&ids);
    let chat = streams()[0];
    // Each node has one slot, and so gets one of them: a connection is kept to each.
    let warm = ids.map(|_| {
        let mut client = connect(edge.address);
        client.write_all(&chat.request("warm", BOTH)).unwrap();
        client
    });
    for mut client in warm {
        chat.fine(&read_answer(&mut client));
    }
    for sim in &sims {
        assert_eq!(sim.stats()["by_path"]["/api/chat"], 1);
        sim.fault("reset");
    }
    let answer = send(edge.address, &chat.request("poison", BOTH));
    assert_eq!(answer.status, 502, "{answer:?}");
    let struck = |sim: &Sim| sim.stats()["faults_injected"]["reset"].as_u64().unwrap_or_default();
    let struck: u64 = sims.iter().map(struck).sum();
    assert!((3..=4).contains(&struck), "{struck} nodes were asked");
}
