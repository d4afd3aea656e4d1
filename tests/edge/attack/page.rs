//! What a web page of another site tries, alone and with a hostile node.

use super::{JSON, raw};
use crate::scripted::{Scripted, answer};
use herd_harness::{Edge, get, send};

const CHAT: &str = r#"{"model":"llama3.2:3b","stream":false,"messages":[{"role":"user","content":"hi"}]}"#;
const STREAM: &str = r#"{"model":"llama3.2:3b","messages":[{"role":"user","content":"hi"}],"stream":true}"#;
const SCRIPT: &str = "<html><script>fetch('/fleet/nodes/a/drain',{method:'POST'})</script></html>";
/// What a browser would act on.
const ORDERS: [&str; 14] = [
    "Access-Control-Allow-Origin: *",
    "Access-Control-Allow-Credentials: true",
    "WWW-Authenticate: Basic realm=\"herd\"",
    "Location: http://evil.example/",
    "Set-Cookie: a=b; Path=/",
    "Refresh: 0; url=http://evil.example/",
    "Link: <http://evil.example/x.css>; rel=stylesheet",
    "Clear-Site-Data: \"*\"",
    "Alt-Svc: h2=\"evil.example:443\"",
    "Content-Disposition: attachment; filename=herd.exe",
    "Service-Worker-Allowed: /",
    "Strict-Transport-Security: max-age=31536000",
    "Content-Security-Policy: default-src *",
    "X-Content-Type-Options: none",
];

/// A node that answers everything with a page, with this status and type.
fn page_of(status: &'static str, kind: &'static str) -> Scripted {
    Scripted::start(move |head| {
        if head.starts_with("GET /api/version ") {
            return answer("200 OK", "Content-Type: application/json\r\n", r#"{"version":"0.33.0"}"#);
        }
        let orders = ORDERS.map(|order| format!("{order}\r\n")).concat();
        answer(status, &format!("Content-Type: {kind}\r\n{orders}"), SCRIPT)
    })
}

#[test]
fn what_a_node_says_is_data_whatever_it_says_it_is() {
    for (status, kind) in [("200 OK", "text/html"), ("403 Forbidden", "image/svg+xml"), ("302 Found", "text/html")] {
        let edge = Edge::start(&[("FLEET_RETRY_MAX_ATTEMPTS", "1")]);
        let node = page_of(status, kind);
        node.join(&edge, "a");
        edge.wait_for(&["a"]);
        let asked = [
            (edge.address, "/api/show", CHAT),
            (edge.admin, "/api/show", CHAT),
            (edge.address, "/api/chat", CHAT),
            (edge.address, "/api/chat", STREAM),
            (edge.address, "/v1/chat/completions", CHAT),
            (edge.address, "/v1/chat/completions", STREAM),
            (edge.address, "/v1/messages", STREAM),
        ];
        for (address, path, body) in asked {
            let answer = raw(address, &format!("POST {path}"), &format!("Host: localhost\r\n{JSON}"), body);
            let kind = answer.header("Content-Type").unwrap_or_default().split(';').next().unwrap_or_default();
            let data = ["application/json", "application/x-ndjson", "text/event-stream"];
            assert!(data.contains(&kind), "{path}: {answer:?}");
            assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
            assert_eq!(answer.header("Content-Security-Policy"), Some("default-src 'none'; sandbox"), "{path}");
            for order in &ORDERS[..12] {
                let name = order.split(':').next().unwrap();
                assert!(answer.header(name).is_none(), "{path}: {name}");
            }
        }
    }
}

#[test]
fn a_foreign_page_has_no_node_asked_and_sees_no_fleet() {
    let edge = Edge::start(&[]);
    let node = page_of("200 OK", "text/html");
    node.join(&edge, "a");
    edge.wait_for(&["a"]);
    drop(node.take_heads());
    let pages = [
        "Origin: http://evil.example\r\nContent-Type: text/plain\r\n",
        "Origin: null\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        "Origin: http://evil.example\r\nContent-Type: application/json\r\n",
        "Origin: http://localhost\r\nOrigin: http://evil.example\r\nContent-Type: application/json\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nContent-Type: text/plain\r\n",
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: navigate\r\nContent-Type: multipart/form-data; boundary=x\r\n",
    ];
    for page in pages {
        let headers = format!("Host: localhost\r\nUser-Agent: Mozilla/5.0\r\n{page}");
        for (address, path) in [
            (edge.address, "/api/show"),
            (edge.admin, "/api/show"),
            (edge.address, "/fleet/explain"),
            (edge.address, "/heartbeat"),
            (edge.address, "/api/chat"),
            (edge.address, "/v1/chat/completions"),
        ] {
            assert_eq!(raw(address, &format!("POST {path}"), &headers, CHAT).status, 403, "{path} {page}");
        }
        if page.contains("navigate") {
            continue;
        }
        for path in ["/fleet/status", "/dashboard/events", "/dashboard/api/requests", "/api/tags", "/v1/models"] {
            for address in [edge.address, edge.admin] {
                let asked = format!("GET {path} HTTP/1.1\r\n{headers}\r\n");
                assert_eq!(send(address, asked.as_bytes()).status, 403, "{path} {page}");
            }
        }
    }
    assert_eq!(node.take_heads(), Vec::<String>::new());
    let form = "Host: localhost\r\nUser-Agent: Mozilla/5.0\r\nContent-Type: text/plain\r\n";
    assert_eq!(raw(edge.address, "POST /api/show", form, CHAT).status, 415, "a browser that says nothing else");
    let link = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    assert_eq!(raw(edge.address, "GET /dashboard", link, "").status, 200, "a link to the page");
}

#[test]
fn all_but_the_page_can_do_nothing_in_a_browser() {
    let edge = Edge::start(&[]);
    let paths = ["/", "/api/version", "/api/tags", "/fleet/status", "/dashboard/api/settings", "/healthz", "/nothing"];
    for address in [edge.address, edge.admin] {
        for path in paths.into_iter().chain(["/dashboard/nothing", "/v1/models", "/api/chat", "/metrics"]) {
            let answer = get(address, path);
            assert_eq!(answer.header("Content-Security-Policy"), Some("default-src 'none'; sandbox"), "{answer:?}");
            assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
        }
        let page = get(address, "/dashboard");
        assert!(page.header("Content-Security-Policy").unwrap().contains("script-src 'self'"), "{page:?}");
    }
}

#[test]
fn interim_answers_of_a_node_go_nowhere() {
    let edge = Edge::start(&[]);
    let node = Scripted::start(|_| {
        let body =
            r#"{"version":"0.33.0","model":"llama3.2:3b","message":{"role":"assistant","content":"hi"},"done":true}"#;
        let hint = "HTTP/1.1 103 Early Hints\r\nLink: <http://evil.example/x.css>; rel=preload\r\n\r\n";
        let going_on = "HTTP/1.1 102 Processing\r\nSet-Cookie: a=b\r\n\r\n";
        format!("{hint}{going_on}{}", answer("200 OK", "Content-Type: application/json\r\n", body))
    });
    node.join(&edge, "a");
    edge.wait_for(&["a"]);
    let answer = raw(edge.address, "POST /api/chat", &format!("Host: localhost\r\n{JSON}"), CHAT);
    assert_eq!((answer.status, answer.json()["message"]["content"].as_str()), (200, Some("hi")), "{answer:?}");
    assert!(answer.header("Link").is_none() && answer.header("Set-Cookie").is_none(), "{answer:?}");
}
