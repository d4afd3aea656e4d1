//! No node can serve: all are dead, or none has the model.

use herd_harness::{Answer, eventually, read_answer};

use super::scene::{BOTH, Scene};
use super::way::{Way, few, streams, ways};
use super::{Row, row};

pub(super) const ROWS: &[Row] = &[
    Row { name: "no node can be reached", status: &[502, 503], attempts: &[], trace: "failed" },
    Row { name: "no node is online", status: &[503], attempts: &[0], trace: "rejected" },
    Row { name: "no node has the model, and none may be pulled", status: &[404], attempts: &[0], trace: "rejected" },
    Row {
        name: "herd pulls the model for a stream, and its node then fails",
        status: &[200],
        attempts: &[1],
        trace: "failed",
    },
    Row { name: "no node has the model, and it cannot be pulled", status: &[404], attempts: &[0], trace: "rejected" },
];

/// As Ollama puts it.
#[track_caller]
fn is_not_found(way: &Way, model: &str, answer: &Answer) {
    let text = way.error(answer);
    let expected = match way.path {
        "/api/embed" | "/api/embeddings" => format!("model \"{model}-embed\" not found, try pulling it first"),
        "/v1/embeddings" => format!("model '{model}-embed' not found"),
        _ => format!("model '{model}' not found"),
    };
    assert!(text.starts_with(&expected), "{way:?} {text}");
}

#[test]
fn dead_nodes_are_waited_for_and_then_told() {
    let scene = Scene::start("hold: {max_ms: 600}\n", "0");
    let nodes = [&scene.a, &scene.b];
    // An agent would tell that its Ollama is down.
    for node in nodes {
        node.pause_agent(true);
        node.fault("refuse");
    }
    for way in few() {
        let (id, answer) = scene.ask(&way, BOTH);
        way.error(&answer);
        let line = scene.check(row("no node can be reached"), &id, &answer, &[]);
        assert!(line.contains("a:connect_refused") && line.contains("b:connect_refused"), "{line}");
    }
    for node in nodes {
        node.pause_agent(false);
    }
    let is_offline = |id: &&str| scene.edge.node(id)["status"] == "offline";
    eventually("their agents say so", || ["a", "b"].iter().all(is_offline));
    for way in few() {
        let (id, answer) = scene.ask(&way, BOTH);
        assert!(way.error(&answer).contains("offline"), "{answer:?}");
        scene.check(row("no node is online"), &id, &answer, &[""]);
    }
    scene.each_ended_once();
}

#[test]
fn a_model_that_is_nowhere_is_not_found() {
    let scene = Scene::start("auto_pull: {enabled: false}\n", "0");
    for way in ways() {
        let (id, answer) = scene.ask(&way, "nope");
        is_not_found(&way, "nope", &answer);
        scene.check(row("no node has the model, and none may be pulled"), &id, &answer, &[""]);
    }
    scene.each_ended_once();
    let scene = Scene::start("", "0");
    for (number, way) in ways().iter().enumerate() {
        // A pull that failed is not tried again at once.
        let model = format!("nope{number}");
        let (id, answer) = scene.ask(way, &model);
        is_not_found(way, &model, &answer);
        scene.check(row("no node has the model, and it cannot be pulled"), &id, &answer, &[""]);
    }
    scene.each_ended_once();
}

#[test]
fn a_node_that_fails_after_the_pull_is_told_in_the_stream() {
    for way in streams().into_iter().filter(|way| ["/api/chat", "/v1/messages"].contains(&way.path)) {
        // Longer than a client waits without a sign.
        let scene = Scene::start_with("", "0", &["--library", "new=0.5", "--pull-gbps", "0.2"]);
        let mut asked = scene.begin(&way, "new");
        eventually("it is pulled", || scene.edge.admin("GET", "/fleet/pulls", "").to_string().contains("new"));
        for node in [&scene.a, &scene.b] {
            node.fault("error_400");
        }
        let answer = read_answer(&mut asked.stream);
        assert!(answer.status == 200 && answer.whole, "{answer:?}");
        assert!(way.last_words(&answer.text()).contains("400"), "{answer:?}");
        let row = row("herd pulls the model for a stream, and its node then fails");
        scene.logged(row, &asked.id, &["a:failed", "b:failed"]);
        scene.each_ended_once();
    }
}
