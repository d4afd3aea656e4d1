//! Web pages of other origins: who may use the models, and what their browsers are told.

use herd_harness::{Answer, Edge, Sim, send};

const PATHS: [(&str, &str); 6] = [
    ("POST", "/api/chat"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/messages"),
    ("GET", "/v1/models"),
    ("GET", "/api/tags"),
    ("POST", "/api/show"),
];
const LISTED: [&str; 6] = [
    "http://localhost:3000",
    "https://127.0.0.1",
    "app://obsidian.md",
    "vscode-webview://x",
    "tauri://localhost",
    "http://[::1]:8080",
];
const FOREIGN: [&str; 5] = [
    "https://evil.example",
    "null",
    "http://localhost.evil.example",
    "chrome-extension://abc",
    "http://192.168.1.9:3000",
];

fn ask(edge: &Edge, line: &str, headers: &str, body: &str) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    send(edge.address, format!("{line} HTTP/1.1\r\nHost: {}\r\n{length}{headers}\r\n{body}", edge.address).as_bytes())
}

fn before(edge: &Edge, path: &str, method: &str, origin: &str) -> Answer {
    let asks = "authorization,content-type,x-stainless-os,anthropic-version,x-brand-new";
    let headers = format!(
        "Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\nAccess-Control-Request-Headers: {asks}\r\n"
    );
    ask(edge, &format!("OPTIONS {path}"), &headers, "")
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("Access-Control-Allow-Origin")
}

#[test]
fn a_browser_that_asks_beforehand_is_told_what_a_page_may_do() {
    let edge = Edge::start(&[]);
    for origin in LISTED {
        for (method, path) in PATHS {
            let answer = before(&edge, path, method, origin);
            assert_eq!((answer.status, allowed(&answer)), (204, Some(origin)), "{path} {answer:?}");
            assert!(answer.body.is_empty() && answer.header("Content-Length").is_none());
            let headers = answer.header("Access-Control-Allow-Headers").unwrap().to_lowercase();
            for name in
                ["authorization", "content-type", "x-stainless-os", "anthropic-version", "x-api-key", "x-brand-new"]
            {
                assert!(headers.split(',').any(|one| one == name), "{name} in {headers}");
            }
            assert!(answer.header("Access-Control-Allow-Methods").unwrap().contains(method));
            assert!(answer.header("Vary").unwrap().contains("Origin"));
        }
    }
    for origin in FOREIGN {
        for (method, path) in PATHS {
            let answer = before(&edge, path, method, origin);
            assert_eq!((answer.status, allowed(&answer)), (403, None), "{origin} {path}");
        }
    }
}

#[test]
fn a_listed_page_reads_answers_errors_and_streams() {
    let edge = Edge::start(&[("FLEET_AUTO_PULL_ENABLED", "false")]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let origin = LISTED[0];
    let page = format!("Origin: {origin}\r\nSec-Fetch-Site: same-site\r\nContent-Type: application/json\r\n");
    let chat = |model: &str, stream| {
        format!(r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#)
    };
    let rows = [
        ("POST /api/chat", chat("tiny", true), 200),
        ("POST /v1/chat/completions", chat("tiny", true), 200),
        ("POST /v1/chat/completions", chat("tiny", false), 200),
        ("POST /v1/messages", chat("nope", false), 404),
        ("POST /api/chat", "{".to_owned(), 400),
        ("GET /api/chat", String::new(), 405),
        ("GET /v1/models", String::new(), 200),
        ("GET /v1/models/nope", String::new(), 404),
        ("GET /api/tags", String::new(), 200),
        ("POST /api/show", r#"{"model":"tiny"}"#.to_owned(), 200),
        ("GET /api/tags/", String::new(), 301),
    ];
    for (line, body, status) in &rows {
        let answer = ask(&edge, line, &page, body);
        assert_eq!((answer.status, allowed(&answer)), (*status, Some(origin)), "{line} {body} {answer:?}");
        assert_eq!(answer.header("Vary"), Some("Origin"), "{line}");
        assert_eq!(answer.header("Access-Control-Expose-Headers"), Some("*"), "{line}");
        let answer = ask(&edge, line, "", body);
        assert_eq!((answer.status, allowed(&answer), answer.header("Vary")), (*status, None, Some("Origin")), "{line}");
    }
    for origin in FOREIGN {
        for (line, body, _) in &rows {
            let answer = ask(&edge, line, &format!("Origin: {origin}\r\n"), body);
            assert_eq!((answer.status, allowed(&answer)), (403, None), "{origin} {line} {answer:?}");
        }
    }
}

#[test]
fn a_question_beforehand_needs_no_key_and_a_request_does() {
    let edge = Edge::start(&[("FLEET_ACCESS_REQUIRE", "always")]);
    let key = edge.add_key(&["k", "--scope", "infer"]);
    let origin = "http://localhost:3000";
    herd_harness::eventually("the key is asked for", || {
        ask(&edge, "GET /v1/models", &format!("Authorization: Bearer {key}\r\n"), "").status == 200
    });
    assert_eq!(before(&edge, "/v1/models", "GET", origin).status, 204);
    assert_eq!(before(&edge, "/v1/chat/completions", "POST", origin).status, 204);
    let refused = ask(&edge, "GET /v1/models", &format!("Origin: {origin}\r\n"), "");
    assert_eq!((refused.status, allowed(&refused)), (401, Some(origin)), "{refused:?}");
    let refused = ask(&edge, "POST /api/chat", &format!("Origin: {origin}\r\n"), r#"{"model":"m"}"#);
    assert_eq!((refused.status, allowed(&refused)), (401, Some(origin)), "{refused:?}");
    let answer = ask(&edge, "GET /v1/models", &format!("Origin: {origin}\r\nAuthorization: Bearer {key}\r\n"), "");
    assert_eq!((answer.status, allowed(&answer)), (200, Some(origin)));
}

#[test]
fn the_list_of_origins_can_be_another() {
    let edge = Edge::start_with("access:\n  origins: ['https://chat.example', 'chrome-extension://*']\n", &[]);
    for (origin, status) in [
        ("https://chat.example", 204),
        ("chrome-extension://abc", 204),
        ("http://localhost:3000", 403),
        ("https://evil.example", 403),
    ] {
        assert_eq!(before(&edge, "/api/chat", "POST", origin).status, status, "{origin}");
    }
    let ours = format!("http://{}", edge.address);
    assert_eq!(before(&edge, "/api/chat", "POST", &ours).status, 204, "the edge's own pages may");
}

#[test]
fn no_foreign_page_is_told_that_it_may_change_the_fleet() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    for (method, path) in [
        ("POST", "/fleet/nodes/a/drain"),
        ("POST", "/api/pull"),
        ("DELETE", "/api/delete"),
        ("POST", "/dashboard/api/settings"),
        ("GET", "/fleet/status"),
    ] {
        for origin in ["http://localhost:3000", "app://obsidian.md", "https://evil.example"] {
            let answer = before(&edge, path, method, origin);
            assert!(answer.status >= 400 && allowed(&answer).is_none(), "{path} {origin} {answer:?}");
            let headers = format!("Origin: {origin}\r\nContent-Type: application/json\r\n");
            let answer = ask(&edge, &format!("{method} {path}"), &headers, r#"{"model":"tiny"}"#);
            assert!(allowed(&answer).is_none(), "{path} {origin} {answer:?}");
            assert!(method == "GET" || answer.status >= 400, "{path} {origin} {answer:?}");
        }
    }
}
