//! A pinned model stays in memory whatever its clients say, and no longer than it is pinned.

use herd_harness::{Edge, Sim, eventually, get};

fn expires_at(sim: &Sim) -> Option<String> {
    let listed = get(sim.address, "/api/ps").json();
    let models = listed["models"].as_array()?;
    Some(models.iter().find(|one| one["name"] == "tiny:latest")?["expires_at"].as_str()?.to_owned())
}

/// The year in which the node would unload it; empty = it is not in memory.
fn until(sim: &Sim) -> String {
    expires_at(sim).map(|at| at[..2].to_owned()).unwrap_or_default()
}

fn chat(edge: &Edge, keep_alive: &str) -> u16 {
    let body = format!(
        r#"{{"model":"tiny","stream":false,"keep_alive":{keep_alive},"messages":[{{"role":"user","content":"hi"}}]}}"#
    );
    edge.post("/api/chat", body.as_bytes()).status
}

#[test]
fn a_pin_outlives_what_requests_say_and_ends_when_it_is_taken_back() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &[]);
    edge.wait_for(&["a"]);
    assert_eq!(chat(&edge, "\"10m\""), 200);
    eventually("the edge sees it loaded", || edge.context("a", "tiny:latest").is_some());
    assert_eq!(until(&sim), "20", "for ten minutes");
    let loads = || sim.stats()["loads"].clone();
    let before = loads();

    let pinned = edge.admin("POST", "/fleet/pin", r#"{"model":"tiny","node_id":"a"}"#);
    assert_eq!(pinned["model"], "tiny:latest", "{pinned}");
    // Three hundred years: Ollama's own for ever.
    eventually("it is kept for ever", || until(&sim) == "23");
    for keep_alive in ["0", "\"1s\"", "\"5m\"", "null"] {
        assert_eq!(chat(&edge, keep_alive), 200);
        assert_eq!(until(&sim), "23", "{keep_alive}");
    }
    let unloads = br#"{"model":"tiny","keep_alive":0}"#;
    assert_eq!(edge.post("/api/generate", unloads).status, 200);
    assert_eq!(until(&sim), "23", "not by a client");

    let unpinned = edge.admin("DELETE", "/fleet/pin/tiny", "");
    assert_eq!(unpinned["nodes"][0], "a", "{unpinned}");
    eventually("it may go", || until(&sim) == "20");
    assert_eq!(loads(), before, "nothing of this loaded it anew");
    assert_eq!(chat(&edge, "0"), 200);
    eventually("a client's word counts again", || until(&sim).is_empty());
}
