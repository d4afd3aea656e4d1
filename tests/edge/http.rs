//! HTTP as clients speak it, which is not always as one would write it: offers, escapes, slashes, forms of a target.

use std::io::Write as _;

use herd_harness::{Answer, Edge, Sim, connect, get, post, read_answer, send};

const CHAT: &str = r#"{"model":"tiny","stream":false,"messages":[{"role":"user","content":"hi"}]}"#;

fn started() -> (Edge, Sim) {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    (edge, sim)
}

/// A request of these lines with a body.
fn raw(edge: &Edge, line: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n");
    send(edge.address, format!("{head}{body}").as_bytes())
}

#[test]
fn an_offer_to_upgrade_is_ignored_and_not_passed_on() {
    let (edge, sim) = started();
    let long = CHAT.replace("hi", &"word ".repeat(200_000));
    for (offer, body) in [
        ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n", CHAT),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n", CHAT),
        ("Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", CHAT),
        ("Upgrade: h2c\r\n", CHAT),
        ("Connection: keep-alive, Upgrade\r\nUpgrade: h2c, websocket\r\n", &long),
    ] {
        let answer = raw(&edge, "POST /api/chat", offer, body);
        assert!(answer.status == 200 && answer.whole, "{offer}{answer:?}");
        assert!(answer.head.starts_with("HTTP/1.1 200"), "{offer}");
        for path in ["/api/tags", "/v1/models", "/healthz"] {
            assert_eq!(raw(&edge, &format!("GET {path}"), offer, "").status, 200, "{path} {offer}");
        }
    }
    let recent = sim.stats()["recent"].as_array().unwrap().clone();
    let chats: Vec<_> = recent.iter().filter(|seen| seen["path"] == "/api/chat").collect();
    assert!(!chats.is_empty());
    for seen in chats {
        for name in ["upgrade", "http2-settings"] {
            assert!(seen["headers"][name].is_null(), "{seen}");
        }
        assert!(!seen["headers"]["connection"].to_string().to_lowercase().contains("upgrade"), "{seen}");
    }
}

#[test]
fn a_connection_that_was_offered_an_upgrade_serves_the_next_request() {
    let (edge, _sim) = started();
    let mut stream = connect(edge.address);
    for _ in 0..3 {
        let offer = "Connection: Upgrade\r\nUpgrade: h2c\r\n";
        write!(stream, "POST /api/chat HTTP/1.1\r\nHost: a\r\n{offer}Content-Length: {}\r\n\r\n{CHAT}", CHAT.len())
            .unwrap();
        assert_eq!(read_answer(&mut stream).status, 200);
    }
}

#[test]
fn a_path_that_is_not_clean_is_sent_to_the_clean_one_as_ollama_does() {
    let (edge, _sim) = started();
    let rows = [
        ("GET //api/tags", 301, "/api/tags"),
        ("GET /api/tags/", 301, "/api/tags"),
        ("GET /api//version?x=%20", 301, "/api/version?x=%20"),
        ("GET /v1/models/", 301, "/v1/models"),
        ("GET /v1/./models", 301, "/v1/models"),
        ("HEAD /api/version/", 301, "/api/version"),
        ("POST /api/chat/", 307, "/api/chat"),
        ("POST //api/chat", 307, "/api/chat"),
        ("POST /v1//chat/completions", 307, "/v1/chat/completions"),
        ("DELETE /api/delete/", 307, "/api/delete"),
        ("GET //evil.example/..", 301, "/"),
    ];
    for (line, status, location) in rows {
        let answer = raw(&edge, line, "", if line.starts_with("POST") { CHAT } else { "" });
        assert_eq!((answer.status, answer.header("Location")), (status, Some(location)), "{line} {answer:?}");
    }
    for line in ["GET /api/chat/", "GET /api/nope/", "GET /API/tags"] {
        assert!(matches!(raw(&edge, line, "", "").status, 404 | 405), "{line}");
    }
}

#[test]
fn a_target_is_read_in_each_of_its_forms() {
    let (edge, sim) = started();
    for line in
        ["GET /api/%74ags", "GET /api%2Ftags", "GET http://localhost/api/tags", "GET http://localhost/api/tags?a=b"]
    {
        assert_eq!(raw(&edge, line, "", "").status, 200, "{line}");
    }
    for line in ["POST /api/chat?x=1", "POST http://localhost/api/chat", "POST /api/ch%61t", "POST /%61pi/chat?a=/../"]
    {
        assert_eq!(raw(&edge, line, "", CHAT).status, 200, "{line}");
    }
    let recent = sim.stats()["recent"].as_array().unwrap().clone();
    assert_eq!(recent.iter().filter(|seen| seen["path"].as_str().unwrap().starts_with("/api/chat")).count(), 4);
    for line in ["GET /api/%2e%2e/fleet/status", "GET /fleet%00/status", "GET /api/tags%3f"] {
        assert_eq!(raw(&edge, line, "", "").status, 404, "{line}");
    }
    // What guards a path guards it however it is written.
    let metrics = ["/metrics", "/%6detrics", "//metrics", "http://localhost/metrics"];
    for path in metrics {
        let answer = get(edge.address, path);
        assert!(matches!(answer.status, 404 | 301), "{path} {answer:?}");
    }
}

#[test]
fn framing_that_is_odd_but_legal_is_understood() {
    let (edge, _sim) = started();
    let size = CHAT.len();
    let requests = [
        format!("\r\nPOST /api/chat HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{CHAT}"),
        format!("POST /api/chat HTTP/1.1\r\nhost:a\r\nCONTENT-LENGTH:{size}\r\n\r\n{CHAT}"),
        format!("POST /api/chat HTTP/1.1\r\nHost: a\r\nContent-Length:   {size}  \r\n\r\n{CHAT}"),
        format!("POST /api/chat HTTP/1.0\r\nContent-Length: {size}\r\n\r\n{CHAT}"),
        format!(
            "POST /api/chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n{size:X};name=\"v\"\r\n{CHAT}\r\n0\r\nX-Trailer: 1\r\n\r\n"
        ),
        format!(
            "POST /api/chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n000{size:x}\r\n{CHAT}\r\n0000\r\n\r\n"
        ),
        format!(
            "POST /api/chat HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTE: trailers\r\nContent-Length: {size}\r\n\r\n{CHAT}"
        ),
    ];
    for request in requests {
        let answer = send(edge.address, request.as_bytes());
        assert_eq!(answer.status, 200, "{request} {answer:?}");
    }
    let parts = CHAT.bytes().flat_map(|byte| [b"1\r\n".as_slice(), &[byte], b"\r\n"].concat()).collect::<Vec<_>>();
    let head = b"POST /api/chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = send(edge.address, &[head.as_slice(), &parts, b"0\r\n\r\n"].concat());
    assert_eq!(answer.status, 200, "a byte in each chunk");
    assert_eq!(send(edge.address, b"GET /api/tags HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}").status, 200);
}

#[test]
fn methods_are_answered_as_ollama_answers_them() {
    let (edge, _sim) = started();
    for path in ["/", "/api/tags", "/api/version", "/v1/models"] {
        let head = raw(&edge, &format!("HEAD {path}"), "User-Agent: ollama/0.33\r\n", "");
        assert_eq!(head.status, 200, "{path}");
    }
    for (line, allow) in [("GET /api/chat", "POST"), ("HEAD /v1/chat/completions", "POST"), ("PUT /api/embed", "POST")]
    {
        let answer = raw(&edge, line, "", "");
        assert_eq!((answer.status, answer.header("Allow")), (405, Some(allow)), "{line}");
    }
    let all = send(edge.address, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((all.status, all.header("Content-Length")), (200, Some("0")), "{all:?}");
    for path in ["/api/chat", "/api/tags"] {
        assert_eq!(raw(&edge, &format!("OPTIONS {path}"), "", "").status, 405, "{path} without an Origin");
    }
}

#[test]
fn a_stream_asks_proxies_not_to_hold_it_back() {
    let (edge, _sim) = started();
    let rows = [
        ("/api/chat", CHAT.replace(r#""stream":false,"#, ""), true),
        ("/v1/chat/completions", CHAT.replace("false", "true"), true),
        ("/v1/messages", CHAT.replace("false", r#"true,"max_tokens":3"#), true),
        ("/api/chat", CHAT.to_owned(), false),
        ("/v1/embeddings", r#"{"model":"tiny","input":"x","stream":true}"#.to_owned(), false),
    ];
    for (path, body, streams) in rows {
        let answer = send(edge.address, &post(path, body.as_bytes()));
        let told = (answer.header("X-Accel-Buffering"), answer.header("Cache-Control"));
        let expected = if streams { (Some("no"), Some("no-cache")) } else { (None, None) };
        assert_eq!(told, expected, "{path} {body} {answer:?}");
    }
}
