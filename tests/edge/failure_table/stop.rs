//! Requests that meet the end of the edge.

use std::io::Write as _;

use herd_harness::{connect, eventually, read_answer};

use super::scene::{Asked, SOLO, Scene, field};
use super::way::{Way, few};
use super::{Row, row};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "herd stops while the request runs, and it ends in time",
        status: &[200],
        attempts: &[1],
        trace: "completed",
    },
    Row {
        name: "herd stops while the request waits, and a slot frees in time",
        status: &[200],
        attempts: &[1],
        trace: "completed",
    },
    Row { name: "herd has begun to stop", status: &[503], attempts: &[0], trace: "rejected" },
    Row {
        name: "herd stops while the request waits, and no slot frees in time",
        status: &[503],
        attempts: &[0],
        trace: "rejected",
    },
    Row {
        name: "herd stops before the answer begins, and it does not in time",
        status: &[503],
        attempts: &[1],
        trace: "failed",
    },
    Row {
        name: "herd stops in a stream, and it does not end in time",
        status: &[200],
        attempts: &[1],
        trace: "incomplete",
    },
];

/// One that runs and one that waits for its slot.
fn two(scene: &Scene, way: &Way) -> [Asked; 2] {
    scene.a.fault("hang_before_first_byte");
    let runs = scene.begin(way, SOLO);
    scene.until_a_works();
    let waits = scene.begin(way, SOLO);
    eventually("one waits", || scene.edge.admin("GET", "/fleet/queue", "")["waiting"] == 1);
    [runs, waits]
}

fn stop(scene: &Scene) {
    scene.edge.process.terminate();
    eventually("the edge drains", || scene.edge.admin("GET", "/readyz", "")["ready"] == false);
}

/// What the log says of a request when the edge is gone.
#[track_caller]
fn logged(scene: &Scene, name: &str, asked: &Asked, story: &str) {
    let (row, line) = (row(name), scene.line(&asked.id));
    assert_eq!((field(&line, "status"), field(&line, "attempts")), (row.trace, story), "{name}: {line}");
    assert!(line.contains(&format!(" http_status={} ", row.status[0])), "{name}: {line}");
}

#[test]
fn a_stopping_edge_serves_what_it_has_taken() {
    for way in few() {
        let mut scene = Scene::start("", "0");
        let [mut runs, mut waits] = two(&scene, &way);
        stop(&scene);
        let (id, answer) = scene.ask(&way, SOLO);
        assert!(way.error(&answer).contains("stopping"), "{answer:?}");
        assert_eq!(answer.header("Retry-After"), Some("1"));
        scene.a.fault("none");
        for asked in [&mut runs, &mut waits] {
            way.fine(&read_answer(&mut asked.stream));
        }
        assert_eq!(scene.edge.process.wait(), Some(0));
        logged(&scene, "herd has begun to stop", &Asked { id, stream: runs.stream.try_clone().unwrap() }, "");
        logged(&scene, "herd stops while the request runs, and it ends in time", &runs, "a:completed");
        logged(&scene, "herd stops while the request waits, and a slot frees in time", &waits, "a:completed");
        scene.each_ended_once();
    }
}

#[test]
fn what_does_not_end_in_time_is_told_so() {
    for way in few() {
        let mut scene = Scene::start("shutdown: {drain_ms: 300}\n", "0");
        let [mut runs, mut waits] = two(&scene, &way);
        scene.edge.process.terminate();
        for asked in [&mut waits, &mut runs] {
            let answer = read_answer(&mut asked.stream);
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(way.error(&answer).contains("stopping"), "{answer:?}");
            assert_eq!(answer.header("Retry-After"), Some("1"));
        }
        assert_eq!(scene.edge.process.wait(), Some(0));
        logged(&scene, "herd stops while the request waits, and no slot frees in time", &waits, "");
        logged(&scene, "herd stops before the answer begins, and it does not in time", &runs, "a:failed");
        eventually("a was told to stop", || scene.a.stats()["in_flight"] == 0);
        scene.each_ended_once();
    }
}

#[test]
fn a_stream_that_does_not_end_in_time_ends_in_an_error() {
    for way in few().into_iter().filter(|way| way.streamed) {
        let mut scene = Scene::start("shutdown: {drain_ms: 300}\n", "0");
        scene.a.fault_with(r#"{"fault":"hang_mid_stream","after_chunks":1}"#);
        let mut asked = scene.begin(&way, SOLO);
        scene.until_a_works();
        scene.edge.process.terminate();
        let answer = read_answer(&mut asked.stream);
        assert!(answer.whole && way.last_words(&answer.text()).contains("stopping"), "{answer:?}");
        assert_eq!(scene.edge.process.wait(), Some(0));
        logged(&scene, "herd stops in a stream, and it does not end in time", &asked, "a:incomplete");
        eventually("a was told to stop", || scene.a.stats()["in_flight"] == 0);
        scene.each_ended_once();
    }
}

#[test]
fn a_connection_that_idles_does_not_hold_the_edge_up() {
    let mut scene = Scene::start("", "0");
    let mut idle = connect(scene.edge.address);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut idle).status, 200);
    scene.edge.process.terminate();
    assert_eq!(scene.edge.process.wait(), Some(0));
    assert_eq!(read_answer(&mut idle).status, 0);
}
