//! After the first byte: no other node is asked, and the client is told in whatever way is left.

use herd_harness::{Answer, eventually};

use super::scene::{BOTH, Scene};
use super::way::{Way, few, ways};
use super::{Row, row};

pub(super) const ROWS: &[Row] = &[
    Row { name: "the connection to the node breaks in a stream", status: &[200], attempts: &[1], trace: "incomplete" },
    Row {
        name: "the connection to the node breaks in a whole answer",
        status: &[200, 502],
        attempts: &[1],
        trace: "incomplete",
    },
    Row { name: "a stream ends cleanly without its last word", status: &[200], attempts: &[1], trace: "incomplete" },
    Row { name: "a whole answer is not whole", status: &[200, 502], attempts: &[1], trace: "incomplete" },
    Row { name: "the engine dies in a stream", status: &[200], attempts: &[1], trace: "incomplete" },
    Row { name: "a line of a stream is no JSON", status: &[200], attempts: &[1], trace: "completed" },
    Row { name: "a stream stops and the node stays silent", status: &[200], attempts: &[1], trace: "reaped" },
    Row {
        name: "a whole answer stops and the node stays silent",
        status: &[200, 502],
        attempts: &[1],
        trace: "reaped",
    },
];

/// The request of `way` meets `fault` in the middle of its answer.
fn broken(scene: &Scene, way: &Way, fault: &str, name: &str) -> (Answer, String) {
    scene.heal();
    let others = scene.b.stats()["by_path"][way.path].clone();
    scene.a.fault_with(&format!("{{\"fault\":\"{fault}\",\"after_chunks\":1}}"));
    let (id, answer) = scene.ask_broken(way, BOTH);
    let row = row(name);
    let line = scene.check(row, &id, &answer, &[&format!("a:{}", row.trace)]);
    assert_eq!(scene.b.stats()["by_path"][way.path], others, "nobody else was asked: {line}");
    (answer, line)
}

/// A stream that is well-formed, and whose last event is an error.
#[track_caller]
fn ends_in_an_error(way: &Way, answer: &Answer) {
    assert!(answer.whole && !answer.text().contains(way.terminator), "{way:?} {answer:?}");
    assert!(!way.last_words(&answer.text()).is_empty());
    assert!(answer.text().len() > way.last_words(&answer.text()).len(), "what came before is there");
}

/// An answer that can only be seen to be broken.
#[track_caller]
fn breaks_off(way: &Way, answer: &Answer) {
    // Where not even its header had been passed on, there was still time for a proper error.
    if answer.status == 200 { assert!(!answer.whole, "{way:?} {answer:?}") } else { drop(way.error(answer)) }
}

#[test]
fn a_broken_answer_is_told_and_not_asked_for_again() {
    let scene = Scene::start("", "0");
    for way in ways() {
        for fault in ["cut_mid_stream", "reset"] {
            if way.streamed {
                let (answer, _) = broken(&scene, &way, fault, "the connection to the node breaks in a stream");
                ends_in_an_error(&way, &answer);
            } else {
                let (answer, _) = broken(&scene, &way, fault, "the connection to the node breaks in a whole answer");
                breaks_off(&way, &answer);
            }
        }
    }
    scene.each_ended_once();
}

#[test]
fn a_clean_end_without_the_last_word_is_no_end() {
    let scene = Scene::start("", "0");
    for way in ways() {
        if way.streamed {
            let (answer, _) = broken(&scene, &way, "clean_end", "a stream ends cleanly without its last word");
            ends_in_an_error(&way, &answer);
            let (answer, _) = broken(&scene, &way, "crash_mid_stream", "the engine dies in a stream");
            ends_in_an_error(&way, &answer);
            let (answer, _) = broken(&scene, &way, "garbage_line", "a line of a stream is no JSON");
            assert!(answer.whole && answer.text().contains(way.terminator), "{answer:?}");
        } else {
            let (answer, _) = broken(&scene, &way, "clean_end", "a whole answer is not whole");
            breaks_off(&way, &answer);
        }
    }
    scene.each_ended_once();
}

#[test]
fn an_answer_that_stops_is_reaped_and_its_node_told() {
    let scene = Scene::start("reaper: {no_progress_ms: 400}\n", "0");
    for way in few() {
        let cancelled = scene.a.stats()["cancelled"].as_u64();
        if way.streamed {
            let (answer, line) = broken(&scene, &way, "hang_mid_stream", "a stream stops and the node stays silent");
            ends_in_an_error(&way, &answer);
            assert!(line.contains("error=\"no_progress: "), "{line}");
        } else {
            let (answer, _) = broken(&scene, &way, "hang_mid_stream", "a whole answer stops and the node stays silent");
            breaks_off(&way, &answer);
        }
        let one_more = cancelled.map(|before| before + 1);
        eventually("a was told to stop", || scene.a.stats()["cancelled"].as_u64() == one_more);
    }
    scene.each_ended_once();
}
