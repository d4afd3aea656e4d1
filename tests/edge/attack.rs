//! What somebody tries who should not: from a web page, from another machine, with hostile names and huge bodies.

mod page;

use crate::scripted::{Scripted, recorded};
use herd_harness::{Answer, Edge, Sim, connect, eventually, get, post_with, read_answer, send, send_from};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const JSON: &str = "Content-Type: application/json\r\n";
const MARKUP: &str = "<img/src=x/onerror=alert(1)>&'\"";
const CHANGES: [&str; 6] = [
    "POST /fleet/nodes/a/drain",
    "POST /fleet/nodes/a/undrain",
    "DELETE /fleet/pulls/1",
    "POST /dashboard/api/settings",
    "DELETE /dashboard/api/requests/1",
    "POST /api/pull",
];

/// A request with these headers alone.
fn raw(address: SocketAddr, line: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    send(address, format!("{line} HTTP/1.1\r\nContent-Length: {length}\r\n{headers}\r\n{body}").as_bytes())
}

#[test]
fn a_web_page_changes_nothing() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let attacks = [
        ("Host: localhost\r\nContent-Type: text/plain\r\nUser-Agent: Mozilla/5.0\r\n", 415),
        ("Host: localhost\r\nContent-Type: text/plain\r\nOrigin: http://evil.example\r\n", 403),
        ("Host: localhost\r\nContent-Type: application/json\r\nOrigin: http://evil.example\r\n", 403),
        ("Host: localhost\r\nContent-Type: application/json\r\nOrigin: null\r\n", 403),
        ("Host: localhost\r\nContent-Type: application/json\r\nSec-Fetch-Site: cross-site\r\n", 403),
        ("Host: evil.example:11435\r\nContent-Type: application/json\r\nOrigin: http://evil.example:11435\r\n", 403),
        ("Host: localhost.evil.example\r\nContent-Type: application/json\r\n", 403),
    ];
    for address in [edge.address, edge.admin] {
        for line in CHANGES {
            for (headers, status) in attacks {
                let answer = raw(address, line, headers, r#"{"model":"nope"}"#);
                assert_eq!(answer.status, status, "{line} {headers}");
            }
        }
        let preflight = "Host: localhost\r\nOrigin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n";
        let answer = raw(address, "OPTIONS /fleet/nodes/a/drain", preflight, "");
        assert!(answer.header("Access-Control-Allow-Origin").is_none(), "{answer:?}");
    }
    assert_eq!(edge.node("a")["status"], "online");
    // Nor does it ask models, though it could not read the answer: that takes the machine's time, and pulls models.
    for (host, origin) in
        [("localhost", "http://evil.example"), ("evil.example", "http://evil.example"), ("localhost", "null")]
    {
        let page = format!("Host: {host}\r\nOrigin: {origin}\r\nContent-Type: text/plain\r\n");
        for path in ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/messages"] {
            assert_eq!(
                raw(edge.address, &format!("POST {path}"), &page, r#"{"model":"nope"}"#).status,
                403,
                "{path} {page}"
            );
        }
    }
    let ours = format!("Host: {}\r\n{JSON}Origin: http://{}\r\n", edge.address, edge.address);
    assert_eq!(raw(edge.address, CHANGES[0], &ours, "").status, 200, "our own page may");
}

#[test]
fn names_of_this_edge_can_be_added() {
    let edge = Edge::start(&[("FLEET_ADMIN_HOSTS", "[herd.example]")]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let key = edge.add_key(&["a", "--scope", "admin"]);
    let drain = |host: &str, key: &str| {
        raw(edge.address, CHANGES[0], &format!("Host: {host}\r\n{JSON}Authorization: Bearer {key}\r\n"), "").status
    };
    eventually("the key counts", || drain("herd.example", &key) == 200);
    // From this machine, but by a name that a proxy here would pass on.
    assert_eq!(
        ["herd.example", "evil.example", "10.0.0.1", "[::1]:11435"].map(|host| drain(host, "")),
        [401, 403, 401, 200]
    );
}

#[test]
fn nobody_pretends_to_be_the_edge_or_this_machine() {
    let edge = Edge::start_logged("", &[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let own = format!("Host: localhost\r\n{JSON}");
    // A proxy on this machine forwards for others, so that what it sends is not from here.
    for claim in
        ["X-Forwarded-For: 127.0.0.1\r\n", "Forwarded: for=127.0.0.1\r\n", "X-Real-IP: 127.0.0.1\r\n", "Via: 1.1 a\r\n"]
    {
        for edges in ["", "X-Herd-Edge: guess\r\n", "X-Herd-Edge: \r\nX-Herd-Proxied: 0\r\n"] {
            for address in [edge.address, edge.admin] {
                let answer = raw(address, CHANGES[0], &format!("{own}{claim}{edges}"), "");
                assert_eq!(answer.status, 403, "{claim}{edges}");
            }
        }
    }
    assert_eq!(edge.node("a")["status"], "online");
    assert_eq!(raw(edge.address, CHANGES[0], &own, "").status, 200);
    eventually("that is in the audit log", || {
        edge.log().lines().any(|line| line.contains("herd::audit") && line.contains("node_drain"))
    });
    let told = edge.log();
    assert_eq!(told.lines().filter(|line| line.contains("herd::audit")).count(), 1, "{told}");
    assert!(told.contains("127.0.0.1"), "{told}");
}

fn beat(edge: &Edge, source: &str, heartbeat: &Value) -> Answer {
    send_from(source, edge.address, &post_with("/heartbeat", JSON, heartbeat.to_string().as_bytes()))
}

#[test]
fn another_machine_neither_takes_over_a_node_nor_drains_it() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let other = "127.0.0.2";
    let drain = beat(&edge, other, &json!({"node_id": "a", "draining": true}));
    assert_eq!((drain.status, drain.json()["error"]["code"].as_str()), (403, Some("not_yours")));
    let taken = beat(&edge, other, &recorded("a", "http://127.0.0.2:11434"));
    assert_eq!((taken.status, taken.json()["error"]["code"].as_str()), (409, Some("taken")));
    assert_eq!(edge.node("a")["status"], "online");
    // Prompts go to its own address, wherever it would like to have them sent.
    assert_eq!(beat(&edge, other, &recorded("thief", "http://8.8.8.8:11434")).status, 200);
    assert_eq!(edge.node("thief")["address"], "127.0.0.2:11434");
    let forwarded = format!("{JSON}X-Forwarded-For: 127.0.0.1\r\nX-Herd-Edge: guess\r\n");
    let body = json!({"node_id": "a", "draining": true}).to_string();
    for address in [edge.address, edge.admin] {
        let answer = send_from(other, address, &post_with("/heartbeat", &forwarded, body.as_bytes()));
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    assert_eq!(
        send(edge.address, &post_with("/heartbeat", &format!("{JSON}Origin: http://evil.example\r\n"), b"{}")).status,
        403
    );
    assert_eq!(send(edge.address, &post_with("/heartbeat", "Content-Type: text/plain\r\n", b"{}")).status, 415);
}

#[test]
fn hostile_names_are_text_everywhere() {
    let edge = Edge::start(&[("FLEET_AUTO_PULL_ENABLED", "false")]);
    for id in [MARKUP, "../../etc", "a b", "a\r\nX-Evil: 1", "a\"b", ""] {
        assert_eq!(beat(&edge, "127.0.0.1", &recorded(id, "http://127.0.0.1:1")).status, 400, "{id:?}");
    }
    let node = Scripted::ollama();
    let mut heartbeat = recorded("a", &format!("http://{}", node.address));
    heartbeat["chip"] = MARKUP.into();
    heartbeat["ollama"]["models_available"] = json!([MARKUP, "plain:latest", "\u{1f}", "a\r\nb"]);
    heartbeat["ollama"]["models_loaded"][0]["name"] = MARKUP.into();
    let joined = beat(&edge, "127.0.0.1", &heartbeat);
    assert_eq!(joined.status, 200, "{joined:?}");
    eventually("the edge has seen its Ollama", || edge.node("a")["status"] == "online");
    let fleet = ["/fleet/status", "/fleet/queue", "/fleet/limits", "/fleet/pulls", "/dashboard/api/requests"];
    for path in [&fleet[..], &["/dashboard/api/settings", "/api/tags", "/api/ps", "/v1/models"]].concat() {
        let answer = get(edge.address, path);
        drop(answer.json());
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("Content-Type").is_some_and(|kind| kind.starts_with("application/json")), "{answer:?}");
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
        // Each list has its own bound, and no client widens it.
        let wide = get(edge.address, &format!("{path}?limit=-1&offset=99999999999999999999"));
        assert!(wide.status == 200 && wide.body.len() < answer.body.len() + 64, "{path}");
    }
    let tags = get(edge.address, "/api/tags").text();
    assert!(tags.contains("onerror") && !tags.contains("a\\r\\nb"), "{tags}");
    let page = get(edge.address, "/dashboard");
    // The page itself has no names in it; what its modules make of them is seen in a browser (`tests/dashboard`).
    assert!(page.status == 200 && !page.text().contains("img") && !page.text().contains("onerror"), "{}", page.text());
    let metrics = get(edge.admin, "/metrics").text();
    assert!(!metrics.contains("\nX-Evil"), "{metrics}");
    // Requests bring names too: of models, tags and users.
    let body = json!({"model": format!("x{MARKUP}"), "user": MARKUP, "metadata": {"tags": [MARKUP]}, "messages": []})
        .to_string();
    let refused = edge.post("/api/chat", body.as_bytes());
    assert!(
        refused.json()["error"].is_string() && refused.header("Content-Type").unwrap().starts_with("application/json")
    );
}

#[test]
fn a_body_of_a_gigabyte_is_refused_before_it_comes() {
    let edge = Edge::start(&[("FLEET_LIMITS_REQUEST_BODY_BYTES", "65536"), ("FLEET_LIMITS_BUFFERED_BYTES", "131072")]);
    let paths =
        ["/api/chat", "/v1/chat/completions", "/v1/messages", "/heartbeat", "/api/show", "/api/pull", "/fleet/explain"];
    for path in paths {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 1073741824\r\n\r\n");
        let began = Instant::now();
        assert_eq!(send(edge.address, head.as_bytes()).status, 413, "{path}");
        assert!(began.elapsed() < Duration::from_secs(5), "{path}");
    }
    // The same in chunks that never end: cut off at the limit, not at the gigabyte.
    for path in paths {
        let mut stream = connect(edge.address);
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
        let taken = (0..1024).take_while(|_| stream.write_all(&chunk).is_ok()).count();
        assert!(taken < 1024, "{path} took {taken} chunks of 64 KiB");
        let status = read_answer(&mut stream).status;
        assert!(status == 413 || status == 0, "{path}: {status}");
    }
    assert_eq!(get(edge.address, "/healthz").status, 200);
}
