//! API keys, as clients and operators meet them.

use herd_harness::{Answer, Edge, Sim, connect, eventually, get, post_with, read_answer, send};
use std::io::Write as _;

use crate::scripted::Scripted;

const CHAT: &[u8] =
    br#"{"model":"tiny","stream":false,"max_tokens":1,"options":{"num_predict":1},"messages":[{"role":"user","content":"hi"}]}"#;

/// A chat that shows `key`.
fn chat(edge: &Edge, key: &str) -> Answer {
    send(edge.address, &post_with("/api/chat", &bearer(key), CHAT))
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

fn status_of(edge: &Edge, key: &str) -> u16 {
    chat(edge, key).status
}

#[test]
fn inference_needs_a_key_as_soon_as_there_is_one() {
    let edge = Edge::start_logged("", &[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    assert_eq!(edge.post("/api/chat", CHAT).status, 200, "a first run is open");
    let key = edge.add_key(&["laptop"]);
    eventually("the edge notices", || edge.post("/api/chat", CHAT).status == 401);
    for shown in
        [bearer(&key), format!("X-Api-Key: {key}\r\n"), format!("x-api-key: {key}\r\nAuthorization: Bearer x\r\n")]
    {
        assert_eq!(send(edge.address, &post_with("/v1/messages", &shown, CHAT)).status, 200, "{shown}");
    }
    let id = edge.key(&["list"]).lines().nth(1).and_then(|line| line.split(' ').next().map(str::to_owned)).unwrap();
    eventually("its requests are told by its id", || edge.log().contains(&format!("key_id={id} ")));
    assert!(edge.log().contains("herd::audit"), "and so is that it was made");
    assert_eq!(get(edge.address, "/healthz").status, 200);
    drop(edge.key(&["disable", "laptop"]));
    eventually("a disabled key is none", || status_of(&edge, &key) == 401);
    drop(edge.key(&["enable", "laptop"]));
    eventually("until it is enabled", || status_of(&edge, &key) == 200);
    drop(edge.key(&["remove", "laptop"]));
    eventually("the last one gone, it is open again", || edge.post("/api/chat", CHAT).status == 200);
    assert!(!edge.log().contains(&key), "no secret is in the log");
}

#[test]
fn who_has_no_key_is_told_so_in_the_words_of_the_surface() {
    let edge = Edge::start(&[("FLEET_ACCESS_REQUIRE", "always")]);
    let reader = edge.add_key(&["reader", "--scope", "read"]);
    let ask = |path: &str, shown: &str| send(edge.address, &post_with(path, shown, CHAT));
    let ollama = ask("/api/chat", "");
    assert_eq!((ollama.status, ollama.header("WWW-Authenticate")), (401, Some("Bearer realm=\"herd\"")));
    assert!(ollama.json()["error"].as_str().unwrap().contains("scope infer"), "{ollama:?}");
    let openai = ask("/v1/chat/completions", &bearer("herd_garbage"));
    assert_eq!((openai.status, openai.json()["error"]["code"].as_str()), (401, Some("invalid_api_key")));
    let anthropic = ask("/v1/messages", "X-Api-Key: \r\n");
    assert_eq!((anthropic.status, anthropic.json()["error"]["type"].as_str()), (401, Some("authentication_error")));
    eventually("the key is noticed", || ask("/v1/messages", &bearer(&reader)).status == 403);
    let anthropic = ask("/v1/messages", &bearer(&reader));
    assert_eq!(anthropic.json()["error"]["type"], "permission_error");
    let path = format!("/api/chat?api_key={reader}&key={reader}");
    assert_eq!(ask(&path, "").status, 401, "a key in a query would stand in logs and histories");
    for path in ["/fleet/status", "/dashboard", "/api/tags", "/v1/models"] {
        assert_eq!(get(edge.address, path).status, 401, "{path}");
        assert_eq!(get(edge.admin, path).status, 401, "{path}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", bearer(&reader));
        assert_eq!(send(edge.address, request.as_bytes()).status, 200, "{path}");
    }
    assert_eq!(send(edge.address, &post_with("/heartbeat", "Content-Type: application/json\r\n", b"{}")).status, 401);
}

#[test]
fn the_edges_own_agent_needs_no_key() {
    let sim = Sim::start(None, "unused", &["--hot", "tiny"]);
    let url = format!("http://{}", sim.address);
    let own = [("FLEET_AGENT_EMBEDDED", "on"), ("FLEET_AGENT_OLLAMA_URL", url.as_str())];
    let edge = Edge::start(&[own[0], own[1], ("FLEET_ACCESS_REQUIRE", "always")]);
    let key = edge.add_key(&["a"]);
    eventually("the model is served", || status_of(&edge, &key) == 200);
}

#[test]
fn a_keys_limits_hold() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "50"]);
    edge.wait_for(&["a"]);
    let rate = edge.add_key(&["rate", "--requests-per-s", "0.01"]);
    let one = edge.add_key(&["one", "--in-flight", "1"]);
    let tokens = edge.add_key(&["tokens", "--tokens-per-min", "1"]);
    eventually("they are noticed", || edge.post("/api/chat", CHAT).status == 401);
    eventually("all of them", || status_of(&edge, &tokens) == 200);
    let refused = |answer: &Answer, limit: &str| {
        assert_eq!(answer.status, 429, "{answer:?}");
        assert!(
            answer.header("Retry-After").is_some_and(|text| text.parse::<u64>().is_ok_and(|s| s > 0)),
            "{answer:?}"
        );
        assert!(answer.text().contains(limit), "{answer:?}");
    };
    refused(&chat(&edge, &tokens), "tokens per minute");
    assert_eq!(status_of(&edge, &rate), 200);
    refused(&chat(&edge, &rate), "requests per second");
    let openai = send(edge.address, &post_with("/v1/chat/completions", &bearer(&rate), CHAT));
    assert_eq!((openai.status, openai.json()["error"]["type"].as_str()), (429, Some("rate_limit_error")));
    let mut running = connect(edge.address);
    let long = br#"{"model":"tiny","options":{"num_predict":4000},"messages":[{"role":"user","content":"hi"}]}"#;
    running.write_all(&post_with("/api/chat", &bearer(&one), long)).unwrap();
    eventually("it runs", || edge.in_flight() == 1);
    refused(&chat(&edge, &one), "at a time");
    drop(running);
    eventually("the place is given back", || status_of(&edge, &one) == 200);
}

#[test]
fn no_node_sees_a_key() {
    let edge = Edge::start(&[]);
    let node = Scripted::ollama();
    node.join(&edge, "a");
    let body = String::from_utf8_lossy(CHAT).replace("tiny", "llama3.2:3b");
    let ask = |shown: &str| send(edge.address, &post_with("/api/chat", shown, body.as_bytes())).status;
    let seen = || node.take_heads().concat().to_ascii_lowercase();
    assert_eq!(ask("Authorization: Bearer theirs\r\n"), 200);
    assert!(!seen().contains("theirs"), "what is not for herd is not for a machine of the network either");
    assert_eq!(ask("Authorization: Bearer herd_old\r\n"), 200);
    assert!(!seen().contains("herd_old"), "a key that is none any more is a secret still");
    let key = edge.add_key(&["a"]);
    eventually("the edge notices", || ask("") == 401);
    drop(seen());
    assert_eq!(ask(&format!("Authorization: Bearer {key}\r\nX-Api-Key: also-secret\r\n")), 200);
    let head = seen();
    assert!(head.contains("post /api/chat"), "{head}");
    assert!(!head.contains(&key) && !head.contains("authorization") && !head.contains("also-secret"), "{head}");
}

#[test]
fn requests_of_a_key_are_read_to_their_end_on_one_connection() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let tokens = edge.add_key(&["tokens", "--tokens-per-min", "1"]);
    eventually("it is noticed", || status_of(&edge, &tokens) != 401);
    let mut stream = connect(edge.address);
    for _ in 0..2 {
        stream.write_all(&post_with("/api/chat", &bearer(&tokens), CHAT)).unwrap();
        assert_ne!(read_answer(&mut stream).status, 0, "a refusal for tokens leaves the connection whole");
    }
}
