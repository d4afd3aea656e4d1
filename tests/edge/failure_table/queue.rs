//! Requests that find no free slot.

use herd_harness::{eventually, read_answer};

use super::scene::{Asked, SOLO, Scene, check_connection};
use super::way::{Way, few, streams};
use super::{Row, row};

pub(super) const ROWS: &[Row] = &[
    Row { name: "no slot is free, then one is", status: &[200], attempts: &[1], trace: "completed" },
    Row { name: "no slot becomes free in time", status: &[503], attempts: &[0], trace: "rejected" },
    Row { name: "too many wait already", status: &[503], attempts: &[0], trace: "rejected" },
    Row {
        name: "the only node is drained for longer than requests wait",
        status: &[503],
        attempts: &[0],
        trace: "rejected",
    },
];

/// Takes the slot of `a` that `way` asks for, until the fault is lifted.
fn occupied(scene: &Scene, way: &Way) -> Asked {
    scene.a.fault("hang_before_first_byte");
    let first = scene.begin(way, SOLO);
    scene.until_a_works();
    first
}

fn until_one_waits(scene: &Scene) {
    eventually("one waits", || scene.edge.admin("GET", "/fleet/queue", "")["waiting"] == 1);
}

#[test]
fn a_request_waits_for_a_slot_and_says_how_long() {
    let scene = Scene::start("queue: {max_waiting_per_model: 1}\n", "0");
    for way in few() {
        let mut first = occupied(&scene, &way);
        let mut second = scene.begin(&way, SOLO);
        until_one_waits(&scene);
        let (id, third) = scene.ask(&way, SOLO);
        assert!(way.error(&third).contains("queue.max_waiting_per_model"), "{third:?}");
        assert_eq!(third.header("X-Fleet-Node"), None, "no node was asked");
        scene.a.fault("none");
        let waited_ms = [&mut first, &mut second].map(|asked| {
            let answer = read_answer(&mut asked.stream);
            way.fine(&answer);
            check_connection(&mut asked.stream, &answer);
            scene.check(row("no slot is free, then one is"), &asked.id, &answer, &["a:completed"]);
            answer.header("X-Fleet-Queue-Ms").unwrap().parse::<u64>().unwrap()
        });
        // The first was given a free slot, as fast as the edge could.
        assert!(waited_ms[0] < waited_ms[1], "{waited_ms:?}");
        scene.check(row("too many wait already"), &id, &third, &[""]);
    }
    scene.each_ended_once();
}

#[test]
fn a_request_does_not_wait_for_ever() {
    let scene = Scene::start("queue: {max_wait_ms: 300}\n", "0");
    for way in few() {
        let first = occupied(&scene, &way);
        let (id, answer) = scene.ask(&way, SOLO);
        assert!(way.error(&answer).contains("queue.max_wait_ms"), "{answer:?}");
        drop(first);
        scene.check(row("no slot becomes free in time"), &id, &answer, &[""]);
        scene.a.fault("none");
    }
    scene.each_ended_once();
    let scene = Scene::start("hold: {max_ms: 300}\n", "0");
    drop(scene.edge.admin("POST", "/fleet/nodes/a/drain", ""));
    for way in streams() {
        let (id, answer) = scene.ask(&way, SOLO);
        assert!(way.error(&answer).contains("draining"), "{answer:?}");
        scene.check(row("the only node is drained for longer than requests wait"), &id, &answer, &[""]);
    }
    scene.each_ended_once();
}
