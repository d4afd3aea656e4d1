//! After the first byte: a client that streams is told in whatever way is left; one that does not has seen nothing yet,
//! so that another node is asked.

use herd_harness::{Answer, eventually};

use super::scene::{BOTH, SOLO, Scene};
use super::way::{Way, few, ways};
use super::{Row, row};

pub(super) const ROWS: &[Row] = &[
    Row { name: "the connection to the node breaks in a stream", status: &[200], attempts: &[1], trace: "incomplete" },
    Row {
        name: "the connection to the node breaks in a whole answer, another serves",
        status: &[200],
        attempts: &[2],
        trace: "completed",
    },
    Row {
        name: "the connection to the node breaks in a whole answer, no other",
        status: &[502],
        attempts: &[1],
        trace: "incomplete",
    },
    Row { name: "a stream ends cleanly without its last word", status: &[200], attempts: &[1], trace: "incomplete" },
    Row { name: "a whole answer is not whole, another serves", status: &[200], attempts: &[2], trace: "completed" },
    Row { name: "a whole answer is not whole, no other", status: &[502], attempts: &[1], trace: "incomplete" },
    Row { name: "the engine dies in a stream", status: &[200], attempts: &[1], trace: "incomplete" },
    Row { name: "a line of a stream is no JSON", status: &[200], attempts: &[1], trace: "completed" },
    Row { name: "a stream stops and the node stays silent", status: &[200], attempts: &[1], trace: "reaped" },
    Row {
        name: "a whole answer stops and the node stays silent, another serves",
        status: &[200],
        attempts: &[2],
        trace: "completed",
    },
    Row {
        name: "a whole answer stops and the node stays silent, no other",
        status: &[504],
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

/// The whole answer of `way` meets `fault` in its middle: another node serves it, and where there is none, the client gets
/// an error and no part of an answer.
fn held(scene: &Scene, way: &Way, fault: &str, name: &str, failure: &str) {
    let fault = format!("{{\"fault\":\"{fault}\",\"after_chunks\":1}}");
    scene.heal();
    scene.a.fault_with(&fault);
    let (id, answer) = scene.ask(way, BOTH);
    way.fine(&answer);
    assert_eq!(answer.header("X-Fleet-Node"), Some("b"), "{answer:?}");
    scene.check(row(&format!("{name}, another serves")), &id, &answer, &[&format!("a:{failure},b:completed")]);
    scene.heal();
    scene.a.fault_with(&fault);
    let (id, answer) = scene.ask(way, SOLO);
    way.error(&answer);
    let row = row(&format!("{name}, no other"));
    scene.check(row, &id, &answer, &[&format!("a:{}", row.trace)]);
}

#[test]
fn a_broken_stream_is_told_and_a_broken_whole_answer_asked_of_another_node() {
    let scene = Scene::start("hold: {max_ms: 0}\n", "0");
    for way in ways() {
        for fault in ["cut_mid_stream", "reset"] {
            if way.streamed {
                let (answer, _) = broken(&scene, &way, fault, "the connection to the node breaks in a stream");
                ends_in_an_error(&way, &answer);
            } else {
                held(&scene, &way, fault, "the connection to the node breaks in a whole answer", "reset");
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
            held(&scene, &way, "clean_end", "a whole answer is not whole", "torn_answer");
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
            held(&scene, &way, "hang_mid_stream", "a whole answer stops and the node stays silent", "no_progress");
        }
        let one_more = cancelled.map(|before| before + if way.streamed { 1 } else { 2 });
        eventually("a was told to stop", || scene.a.stats()["cancelled"].as_u64() == one_more);
    }
    scene.each_ended_once();
}
