//! What Ollama takes is taken: labels of any kind, bytes behind the value, spellings of a name, attachments; and what
//! changes with every request at the front of a prompt is pinned on its way.

use herd_harness::{Answer, Edge, Sim, post_with, send};
use serde_json::{Value, json};

fn started(env: &[(&str, &str)], args: &[&str]) -> (Edge, Sim) {
    let edge = Edge::start(&[&[("FLEET_AUTO_PULL_ENABLED", "false")], env].concat());
    let sim = Sim::start(Some(&edge), "a", &[&["--hot", "tiny"], args].concat());
    edge.wait_for(&["a"]);
    (edge, sim)
}

#[expect(clippy::needless_pass_by_value, reason = "literals are shorter so")]
fn chat(edge: &Edge, path: &str, members: Value) -> Answer {
    let mut body = json!({"model": "tiny", "stream": false, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    edge.post(path, body.to_string().as_bytes())
}

#[test]
fn what_only_labels_or_estimates_a_request_never_refuses_it() {
    let (edge, _sim) = started(&[], &[]);
    let names: Vec<String> = (0..12).map(|_| "tiny".to_owned()).collect();
    for members in [
        json!({"user": {"id": "7", "name": "A"}}),
        json!({"user": 42}),
        json!({"user": "u".repeat(300)}),
        json!({"user": ["a"]}),
        json!({"metadata": {"tags": "x".repeat(200)}}),
        json!({"metadata": {"tags": vec!["t"; 20]}}),
        json!({"metadata": {"tags": {"a": 1}}}),
        json!({"metadata": {"tags": [1, null, {}]}}),
        json!({"metadata": 7}),
        json!({"fallback_models": names}),
        json!({"max_completion_tokens": "100"}),
    ] {
        for path in ["/api/chat", "/v1/chat/completions"] {
            assert_eq!(chat(&edge, path, members.clone()).status, 200, "{path} {members}");
        }
    }
    assert_eq!(chat(&edge, "/api/chat", json!({"max_tokens": "100"})).status, 200);
    let tags = format!("X-Herd-Tags: {}\r\n", "t".repeat(900));
    let body = br#"{"model":"tiny","stream":false,"prompt":"x"}"#;
    assert_eq!(send(edge.address, &post_with("/api/generate", &tags, body)).status, 200);
}

#[test]
fn what_need_not_be_understood_is_not_judged() {
    let (edge, _sim) = started(&[], &[]);
    let plain = r#"{"model":"tiny","stream":false,"prompt":"x"}"#;
    for body in [
        format!("{plain} and more"),
        format!("{plain}{plain}"),
        plain.replace("\"x\"", "\"x\",\"model\":\"TINY:latest\",\"prompt\":\"y\""),
    ] {
        assert_eq!(edge.post("/api/generate", body.as_bytes()).status, 200, "{body}");
    }
    let latin = [br#"{"model":"tiny","stream":false,"prompt":"caf"#.as_slice(), b"\xe9\"}"].concat();
    assert_eq!(edge.post("/api/generate", &latin).status, 200);
    for encoding in ["utf-8", "gzip", "br", "identity", "aws-chunked"] {
        let header = format!("Content-Encoding: {encoding}\r\n");
        let answer = send(edge.address, &post_with("/api/generate", &header, plain.as_bytes()));
        assert_eq!(answer.status, 200, "{encoding} {answer:?}");
    }
    for (members, status) in
        [(r#""model":"other""#, 400), (r#""options":{"num_ctx":1024},"Options":{"num_ctx":2048}"#, 400)]
    {
        let body = plain.replace("\"prompt\"", &format!("{members},\"prompt\""));
        assert_eq!(edge.post("/api/generate", body.as_bytes()).status, status, "{members}");
    }
}

#[test]
fn every_spelling_of_a_name_reaches_the_model() {
    let (edge, _sim) = started(&[], &[]);
    for name in [
        "tiny:local",
        "tiny:latest:local",
        "https://registry.ollama.ai/library/tiny",
        " tiny",
        "tiny ",
        "TINY",
        "Registry.Ollama.ai/Library/Tiny:Latest",
        "http://registry.ollama.ai/library/tiny:local",
    ] {
        for path in ["/api/chat", "/v1/chat/completions", "/v1/messages", "/api/show"] {
            let answer = chat(&edge, path, json!({"model": name, "max_tokens": 8}));
            assert_eq!(answer.status, 200, "{path} {name:?} {answer:?}");
        }
    }
    let digest = format!("tiny@sha256:{}", "a".repeat(64));
    for name in ["tiny:", digest.as_str(), "a b", "a/b/c/d", "/tiny", "tiny: 7b"] {
        for path in ["/api/chat", "/api/generate", "/api/show"] {
            let answer = chat(&edge, path, json!({"model": name, "max_tokens": 8}));
            assert_eq!(
                (answer.status, answer.json()["error"].as_str()),
                (400, Some("invalid model name")),
                "{path} {name}"
            );
        }
    }
    let both = chat(&edge, "/api/chat", json!({"model": "tiny:local:cloud"})).json();
    assert_eq!(both["error"], "use either :local or :cloud, not both: \"tiny:local:cloud\"");
    let none = edge.post("/api/generate", br#"{"prompt":"x"}"#);
    assert_eq!((none.status, none.json()["error"].as_str()), (404, Some("model '' not found")));
}

#[test]
fn a_name_that_is_near_a_known_one_is_answered_with_that() {
    let (edge, _sim) = started(&[], &["--model", "llama3.1:8b=0.1"]);
    let rows = [
        ("llama3.1", "model 'llama3.1' not found; did you mean llama3.1:8b?"),
        ("lama3.1:8b", "model 'lama3.1:8b' not found; did you mean llama3.1:8b?"),
        ("tniy", "model 'tniy' not found; did you mean tiny:latest?"),
        ("nope", "model 'nope' not found"),
    ];
    for (name, message) in rows {
        let answer = chat(&edge, "/api/chat", json!({"model": name}));
        assert_eq!((answer.status, answer.json()["error"].as_str()), (404, Some(message)), "{name}");
    }
}

#[test]
fn attachments_neither_overflow_a_window_nor_use_up_a_key() {
    let (edge, _sim) = started(&[("FLEET_CONTEXT_OVERFLOW", "refuse")], &[]);
    let key = edge.add_key(&["k", "--scope", "infer", "--tokens-per-min", "2000"]);
    herd_harness::eventually("the key counts", || chat(&edge, "/api/chat", json!({})).status == 401);
    let data = "QUJD".repeat(1_000_000);
    for part in [
        json!({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}),
        json!({"type": "file", "file": {"filename": "a.pdf", "file_data": format!("data:application/pdf;base64,{data}")}}),
        json!({"type": "input_file", "file_data": data}),
        json!({"type": "audio", "audio": data}),
    ] {
        let content = json!([{"type": "text", "text": "what is it?"}, part]);
        let body = json!({"model": "tiny", "stream": false, "max_tokens": 1, "messages": [{"role": "user", "content": content}]});
        let header = format!("Authorization: Bearer {key}\r\n");
        let answer = send(edge.address, &post_with("/v1/chat/completions", &header, body.to_string().as_bytes()));
        assert_eq!(answer.status, 200, "{:.200}", answer.text());
        assert_eq!(answer.header("X-Fleet-Context-Overflow"), None);
    }
}

const BILLING: &str = "x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=sdk-cli; cch=";

/// The hash of what the node got of a request with `nonce` at the front of its prompt, and what the client was told.
fn sent(edge: &Edge, sim: &Sim, nonce: &str) -> (String, Option<String>) {
    let system = [format!("{BILLING}{nonce};"), "You are Claude Code".to_owned()];
    let system = system.map(|text| json!({"type": "text", "text": text}));
    let answer = chat(edge, "/v1/messages", json!({"max_tokens": 8, "system": system}));
    assert_eq!(answer.status, 200, "{answer:?}");
    let stats = sim.stats();
    let seen = stats["recent"].as_array().unwrap().iter().rfind(|seen| seen["path"] == "/v1/messages").unwrap().clone();
    (seen["body_fnv64"].as_str().unwrap().to_owned(), answer.header("X-Fleet-Prompt").map(str::to_owned))
}

#[test]
fn a_line_that_changes_with_every_request_is_pinned() {
    let (edge, sim) = started(&[], &[]);
    let (first, told) = sent(&edge, &sim, "36ee5");
    let (second, _) = sent(&edge, &sim, "0aaa9");
    assert_eq!((first == second, told.as_deref()), (true, Some("stabilised")));
    assert_eq!(chat(&edge, "/v1/messages", json!({"max_tokens": 8})).header("X-Fleet-Prompt"), None);
    let (edge, sim) = started(&[("FLEET_PROMPT_STABILISE", "off")], &[]);
    let (first, told) = sent(&edge, &sim, "36ee5");
    let (second, _) = sent(&edge, &sim, "0aaa9");
    assert_eq!((first == second, told), (false, None));
}
