//! Every surface, streamed and not, is the node's own answer.

use std::io::{Read as _, Write as _};

use herd_harness::{Answer, Edge, Sim, connect, post_with, send};

/// Path, body without `stream`, and whether it can stream.
const SURFACES: [(&str, &str, bool); 9] = [
    (
        "/api/chat",
        r#"{"model":"tiny","options":{"num_predict":3,"num_ctx":4096},"messages":[{"role":"user","content":"hi"}]"#,
        true,
    ),
    ("/api/generate", r#"{"model":"tiny","options":{"num_predict":3,"num_ctx":4096},"prompt":"hi""#, true),
    ("/api/embed", r#"{"model":"vec-embed","input":"hi","options":{"num_ctx":4096}"#, false),
    ("/api/embeddings", r#"{"model":"vec-embed","prompt":"hi","options":{"num_ctx":4096}"#, false),
    ("/v1/chat/completions", r#"{"model":"tiny","max_tokens":3,"messages":[{"role":"user","content":"hi"}]"#, true),
    ("/v1/completions", r#"{"model":"tiny","max_tokens":3,"prompt":"hi""#, true),
    ("/v1/embeddings", r#"{"model":"vec-embed","input":"hi""#, false),
    ("/v1/responses", r#"{"model":"tiny","max_output_tokens":3,"input":"hi""#, true),
    ("/v1/messages", r#"{"model":"tiny","max_tokens":3,"messages":[{"role":"user","content":"hi"}]"#, true),
];

/// Masks what differs from one answer to the next: digits, which carry times, durations and ids; and hex ids.
fn masked(answer: &Answer) -> String {
    let text: String = answer.text().chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let mut squeezed = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '0' || !squeezed.ends_with('0') {
            squeezed.push(c);
        }
    }
    squeezed
}

/// The words of ids are random too; everything up to the next quote goes.
fn without_ids(mut text: String) -> String {
    for mark in ["\"id\":\"", "\"item_id\":\"", "\"created_at\":\""] {
        let mut from = 0;
        while let Some(at) = text[from..].find(mark) {
            let start = from + at + mark.len();
            let end = text[start..].find('"').map_or(text.len(), |end| start + end);
            text.replace_range(start..end, "");
            from = start;
        }
    }
    text
}

#[test]
fn each_surface_passes_through_as_it_is() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--model", "vec-embed=0.1", "--hot", "tiny", "--hot", "vec-embed"]);
    edge.wait_for(&["a"]);
    for (path, start, streams) in SURFACES {
        for stream in [None, Some(false), Some(true)].into_iter().filter(|stream| streams || stream.is_none()) {
            let body = stream.map_or_else(|| format!("{start}}}"), |stream| format!("{start},\"stream\":{stream}}}"));
            let request = post_with(path, "X-Request-Id: me-1\r\n", body.as_bytes());
            let direct = send(sim.address, &request);
            let routed = send(edge.address, &request);
            assert_eq!(routed.status, 200, "{path} {stream:?} {routed:?}");
            assert!(routed.whole);
            assert_eq!(without_ids(masked(&routed)), without_ids(masked(&direct)), "{path} {stream:?}");
            assert_eq!(routed.header("Content-Type"), direct.header("Content-Type"));
            let framing = ["Content-Length", "Transfer-Encoding"].map(|name| routed.header(name).is_some());
            assert_eq!(framing, ["Content-Length", "Transfer-Encoding"].map(|name| direct.header(name).is_some()));
            for name in ["X-Fleet-Node", "X-Fleet-Model", "X-Fleet-Score", "X-Fleet-Attempts"] {
                assert!(routed.header(name).is_some(), "{name} of {path}");
            }
            assert_eq!(routed.header("X-Request-Id"), Some("me-1"));
        }
    }
}

#[test]
fn the_node_sees_its_own_host_and_no_origin() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let headers = "Origin: http://localhost:3000\r\nConnection: X-Hop\r\nX-Hop: 1\r\n";
    let body = br#"{"model":"tiny","stream":false,"prompt":"x","options":{"num_predict":1}}"#;
    assert_eq!(send(edge.address, &post_with("/api/generate", headers, body)).status, 200);
    let stats = sim.stats();
    let seen = stats["recent"].as_array().unwrap().iter().rev().find(|seen| seen["path"] == "/api/generate").unwrap();
    assert_eq!(seen["headers"]["host"], sim.address.to_string());
    assert!(seen["headers"]["origin"].is_null() && seen["headers"]["x-hop"].is_null(), "{seen}");
}

#[test]
fn a_client_of_http_1_0_gets_a_stream_without_chunks() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    for (fault, end) in [("none", "\"done\":true"), ("cut_mid_stream", "{\"error\":")] {
        sim.fault(fault);
        let body = r#"{"model":"tiny","prompt":"x","options":{"num_predict":2}}"#;
        let mut client = connect(edge.address);
        write!(client, "POST /api/generate HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 ") && !head.to_lowercase().contains("transfer-encoding"), "{head}");
        assert!(body.starts_with('{') && body.lines().last().is_some_and(|line| line.contains(end)), "{body}");
    }
}
