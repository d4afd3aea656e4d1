//! What the edge refuses, and how it says so.

use herd_harness::{Answer, Edge, connect, eventually, post, read_answer, send};
use std::io::Write as _;

#[test]
fn bad_bodies_are_refused_in_the_form_of_their_surface() {
    let edge = Edge::start(&[]);
    let deep = format!("{{\"model\":\"a\",\"x\":{}{}}}", "[".repeat(10_001), "]".repeat(10_001));
    let long = format!("{{\"model\":\"{}\"}}", "m".repeat(257));
    let empty = "model 'nope' not found (no node has joined yet: start Ollama on this machine, or run \"herd-agent \
                 --router-url http://THIS-MACHINE:11435\" on a machine that runs it)";
    let rows: [(&[u8], u16, &str); 10] = [
        (b"", 400, "missing request body"),
        (b"{", 400, "unexpected EOF"),
        (b"[]", 400, "request body must be a JSON object"),
        (b"{}", 400, "model is required"),
        (br#"{"model":7}"#, 400, "\"model\" must be a string"),
        (br#"{"model":"a","stream":1}"#, 400, "\"stream\" must be a boolean"),
        (br#"{"model":"a","Model":"b"}"#, 400, "duplicate key \"model\""),
        (deep.as_bytes(), 400, "JSON nested deeper than 10000 levels"),
        (long.as_bytes(), 400, "invalid model name"),
        (br#"{"model":"nope"}"#, 404, empty),
    ];
    for (body, status, message) in rows {
        let ollama = edge.post("/api/chat", body);
        assert_eq!((ollama.status, ollama.json()["error"].as_str()), (status, Some(message)), "{ollama:?}");
        let openai = edge.post("/v1/chat/completions", body);
        assert_eq!((openai.status, openai.json()["error"]["message"].as_str()), (status, Some(message)));
        assert!(openai.json()["error"]["type"].is_string());
        let anthropic = edge.post("/v1/messages", body);
        assert_eq!((anthropic.status, anthropic.json()["error"]["message"].as_str()), (status, Some(message)));
        assert_eq!(anthropic.json()["type"], "error");
    }
    assert_eq!(edge.in_flight(), 0);
}

#[test]
fn bad_headers_are_refused() {
    let edge = Edge::start(&[]);
    let many = "X-A: 1\r\n".repeat(150);
    let large = format!("X: {}\r\n", "a".repeat(80_000));
    let rows = [
        ("POST /api/chat HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        (
            "POST /api/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
            400,
        ),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405),
        ("GET /api/chat HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{large}\r\n"), 431),
        ("GET /no/such/path HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 404),
        ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 404),
    ];
    for (request, status) in rows {
        assert_eq!(send(edge.address, request.as_bytes()).status, status, "{request:.80}");
    }
}

#[test]
fn a_client_that_drips_is_ended() {
    let edge = Edge::start(&[("FLEET_LIMITS_HEADER_MS", "300"), ("FLEET_LIMITS_BODY_MS", "300")]);
    let mut header = connect(edge.address);
    header.write_all(b"POST /api/chat HT").unwrap();
    assert_eq!(read_answer(&mut header).status, 0, "closed without an answer");
    let body = send(edge.address, b"POST /api/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{");
    assert_eq!(body.status, 408);
}

#[test]
fn connections_beyond_the_limit_are_turned_away() {
    let edge = Edge::start(&[("FLEET_LIMITS_CONNECTIONS", "1")]);
    let held = connect(edge.address);
    eventually("the next one is refused", || send(edge.address, &post("/api/chat", b"{}")).status == 503);
    drop(held);
    let turned = |answer: &Answer| answer.status == 503;
    eventually("there is room again", || !turned(&send(edge.address, &post("/api/chat", b"{}"))));
}
