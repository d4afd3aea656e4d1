//! `context.openai`: requests that cannot say a context keep the runner that is loaded.

use herd_harness::{Edge, Sim, eventually, get};

const ALIAS: &str = "herd-alias/";

/// An edge and a node whose default context is 4096 and which has `tiny` loaded with 8192.
fn loaded_with_8192(mode: &str) -> (Edge, Sim) {
    let edge = Edge::start(&[("FLEET_CONTEXT_OPENAI", mode)]);
    let sim = Sim::start(Some(&edge), "a", &[]);
    edge.wait_for(&["a"]);
    let load = br#"{"model":"tiny","stream":false,"prompt":"x","options":{"num_ctx":8192,"num_predict":1}}"#;
    assert_eq!(edge.post("/api/generate", load).status, 200);
    eventually("the node reports it", || edge.node("a")["models_loaded_count"] == 1);
    (edge, sim)
}

const CASES: [(&str, &[u8]); 5] = [
    ("/v1/chat/completions", br#"{"model":"Tiny","max_tokens":2,"messages":[{"role":"user","content":"hi"}]}"#),
    (
        "/v1/chat/completions",
        br#"{"model":"Tiny","stream":true,"max_tokens":2,"messages":[{"role":"user","content":"hi"}]}"#,
    ),
    ("/v1/completions", br#"{"model":"Tiny","stream":true,"max_tokens":2,"prompt":"hi"}"#),
    ("/v1/responses", br#"{"model":"Tiny","stream":true,"max_output_tokens":2,"input":"hi"}"#),
    ("/v1/messages", br#"{"model":"Tiny","max_tokens":2,"messages":[{"role":"user","content":"hi"}]}"#),
];

#[test]
fn what_cannot_say_a_context_keeps_the_runner_and_sees_its_own_name() {
    let (edge, sim) = loaded_with_8192("auto");
    for (path, body) in CASES {
        let answer = edge.post(path, body);
        assert_eq!((answer.status, answer.header("X-Fleet-Context")), (200, Some("pinned")), "{answer:?}");
        assert_eq!(answer.header("X-Fleet-Model"), Some("tiny:latest"));
        let text = answer.text();
        assert!(answer.whole && text.contains("\"model\":\"Tiny\"") && !text.contains(ALIAS), "{path}: {text}");
    }
    let stats = sim.stats();
    assert_eq!((&stats["loads"], &stats["reloads"]), (&1.into(), &0.into()), "{stats}");
    assert_eq!(stats["by_path"]["/api/create"], 1, "one alias serves them all");
}

#[test]
fn without_an_alias_the_reload_is_named() {
    let (edge, sim) = loaded_with_8192("default");
    let answer = edge.post(CASES[0].0, CASES[0].1);
    assert_eq!((answer.status, answer.header("X-Fleet-Context")), (200, Some("reload")));
    assert_eq!(sim.stats()["reloads"], 1);
    let counted = "herd_context_actions_total{action=\"reload\",cause=\"node_default\"} 1";
    eventually("it is counted", || get(edge.admin, "/metrics").text().contains(counted));
}

#[test]
fn aliases_are_hidden_made_anew_when_lost_and_taken_away_at_the_end() {
    let (mut edge, sim) = loaded_with_8192("alias");
    assert_eq!(edge.post(CASES[0].0, CASES[0].1).status, 200);
    let on_node = || get(sim.address, "/api/tags").text();
    assert!(on_node().contains(ALIAS));
    eventually("the edge hears of it", || edge.admin("GET", "/fleet/status", "").to_string().contains(ALIAS));
    for path in ["/api/tags", "/v1/models", "/api/ps"] {
        let listed = get(edge.address, path).text();
        assert!(listed.contains("tiny") && !listed.contains(ALIAS), "{path}: {listed}");
    }
    let tags = get(sim.address, "/api/tags").json();
    let names = tags["models"].as_array().unwrap().iter().filter_map(|model| model["name"].as_str());
    let alias = names.into_iter().find(|name| name.starts_with(ALIAS)).unwrap().to_owned();
    let body = format!("{{\"model\":\"{alias}\"}}");
    let delete =
        format!("DELETE /api/delete HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(herd_harness::send(sim.address, delete.as_bytes()).status, 200);
    let answer = edge.post(CASES[1].0, CASES[1].1);
    assert_eq!((answer.status, answer.header("X-Fleet-Context")), (200, Some("pinned")), "{answer:?}");
    assert!(on_node().contains(ALIAS) && sim.stats()["reloads"] == 0);
    edge.process.terminate();
    assert_eq!(edge.process.wait(), Some(0));
    assert!(!on_node().contains(ALIAS), "nothing is left behind");
}

#[test]
fn edges_that_share_a_node_leave_each_others_aliases_alone() {
    let (mut edge, other) = (Edge::start(&[]), Edge::start(&[]));
    let url = format!("http://{}", other.admin);
    let sim = Sim::start(Some(&edge), "a", &["--router-url", &url]);
    sim.load("tiny", 8192);
    for edge in [&edge, &other] {
        eventually("both know the runner", || edge.context("a", "tiny:latest") == Some(8192));
    }
    for edge in [&edge, &other] {
        let answer = edge.post(CASES[0].0, CASES[0].1);
        assert_eq!((answer.status, answer.header("X-Fleet-Context")), (200, Some("pinned")), "{answer:?}");
    }
    let aliases = || get(sim.address, "/api/tags").text().matches("\"name\":\"herd-alias/").count();
    assert_eq!(aliases(), 2, "one of each edge");
    edge.process.terminate();
    assert_eq!(edge.process.wait(), Some(0));
    assert_eq!(aliases(), 1, "the other edge's is left");
    let answer = other.post(CASES[0].0, CASES[0].1);
    assert_eq!((answer.status, answer.header("X-Fleet-Context")), (200, Some("pinned")));
    assert_eq!(sim.stats()["reloads"], 0);
}
