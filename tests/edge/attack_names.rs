//! What somebody tries by names that are not the edge's: a page whose own name resolves to this machine, a client beyond
//! a proxy, a request with credentials that are meant for somebody else.

use std::net::SocketAddr;

use herd_harness::{Answer, Edge, Sim, eventually, get, send};

use crate::scripted::{Scripted, recorded};

const JSON: &str = "Content-Type: application/json\r\n";

fn ask(address: SocketAddr, line: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    send(address, format!("{line} HTTP/1.1\r\nContent-Length: {length}\r\n{headers}\r\n{body}").as_bytes())
}

const READS: [(&str, &str); 6] = [
    ("GET /fleet/status", ""),
    ("GET /dashboard/api/traces", ""),
    ("GET /api/tags", ""),
    ("GET /v1/models", ""),
    ("POST /api/show", r#"{"model":"llama3.2:3b"}"#),
    ("POST /fleet/explain", r#"{"path":"/api/chat","body":{"model":"llama3.2:3b"}}"#),
];
const INFERENCE: [&str; 4] = ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/messages"];
const CHAT: &str =
    r#"{"model":"llama3.2:3b","stream":false,"messages":[{"role":"user","content":"hi"}],"max_tokens":9}"#;

#[test]
fn a_page_whose_name_resolves_here_reads_and_asks_nothing() {
    let edge = Edge::start(&[("FLEET_ADMIN_HOSTS", "[herd.example]")]);
    let node = Scripted::ollama();
    node.join(&edge, "a");
    // As its browser sends them: after the name resolves anew the page is of one origin with the edge. It can write any
    // header but `Via`, and cannot leave out the languages of its user.
    let page = "User-Agent: Mozilla/5.0\r\nAccept-Language: en\r\nContent-Type: application/json\r\n";
    let lies = [
        "",
        "X-Forwarded-For: 8.8.8.8\r\n",
        "Forwarded: for=8.8.8.8\r\n",
        "X-Real-IP: 10.0.0.1\r\nUser-Agent: curl/8\r\n",
    ];
    for host in ["evil.example", "evil.example:11435", "localhost.evil.example", "lan.evil.example."] {
        for lie in lies {
            let headers = format!("Host: {host}\r\n{page}{lie}");
            for (line, body) in READS {
                let answer = ask(edge.address, line, &headers, body);
                assert_eq!(answer.status, 403, "{line} {headers}");
                assert!(answer.text().contains("admin.hosts"), "{line}: {}", answer.text());
                assert_eq!(
                    ask(edge.admin, line, &headers, body).status,
                    403,
                    "{line} {headers}, on the admin listener"
                );
            }
            for path in INFERENCE {
                assert_eq!(ask(edge.address, &format!("POST {path}"), &headers, CHAT).status, 403, "{path} {headers}");
            }
        }
        let bare = format!("Host: {host}\r\n{JSON}");
        assert_eq!(ask(edge.admin, "GET /fleet/status", &bare, "").status, 403, "{host}");
        assert_eq!(ask(edge.address, "GET /healthz", &bare, "").status, 200, "signs of life are for everybody");
    }
    assert_eq!(node.take_heads(), [""; 0], "no prompt has left the edge");
    for host in
        ["localhost:11435", "127.0.0.1", "[::1]:80", "8.8.8.8", "ollama:11435", "gpu.lan", "x.internal", "herd.example"]
    {
        let headers = format!("Host: {host}\r\n{JSON}");
        assert_eq!(ask(edge.address, "GET /api/tags", &headers, "").status, 200, "{host}");
        assert_eq!(ask(edge.address, "POST /api/chat", &headers, CHAT).status, 200, "{host}");
    }
    // A proxy passes its clients' name on, and says that it does.
    for proxied in ["Via: 1.1 caddy\r\n", "X-Forwarded-For: 8.8.8.8\r\n"] {
        let headers = format!("Host: chat.example\r\n{JSON}{proxied}");
        assert_eq!(ask(edge.address, "POST /api/chat", &headers, CHAT).status, 200, "{proxied}");
    }
}

#[test]
fn whoever_shows_a_key_may_use_any_name() {
    let edge = Edge::start(&[]);
    let key = edge.add_key(&["any", "--scope", "infer,read,admin"]);
    let node = Scripted::ollama();
    node.join(&edge, "a");
    let headers = format!("Host: chat.example\r\n{JSON}Authorization: Bearer {key}\r\n");
    eventually("the key counts", || ask(edge.address, "GET /fleet/status", &headers, "").status == 200);
    assert_eq!(ask(edge.address, "POST /api/chat", &headers, CHAT).status, 200);
    assert_eq!(ask(edge.address, "POST /fleet/nodes/a/drain", &headers, "").status, 200);
    assert_eq!(ask(edge.admin, "POST /fleet/nodes/a/undrain", &headers, "").status, 200);
    let wrong = format!("Host: chat.example\r\n{JSON}Authorization: Bearer herd_00\r\n");
    assert!([401, 403].contains(&ask(edge.address, "POST /api/chat", &wrong, CHAT).status));
}

#[test]
fn a_client_beyond_a_proxy_joins_drains_and_sees_nothing() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "honest", &["--hot", "tiny"]);
    edge.wait_for(&["honest"]);
    let evil = Scripted::ollama();
    let heartbeat = recorded("evil", &format!("http://{}", evil.address)).to_string();
    let leaving = r#"{"node_id":"honest","draining":true}"#;
    for forwarded in [
        "X-Forwarded-For: 203.0.113.9\r\n",
        "Forwarded: for=203.0.113.9\r\n",
        "Via: 1.1 nginx\r\n",
        "X-Real-IP: 203.0.113.9\r\n",
        "CF-Connecting-IP: 203.0.113.9\r\n",
        "X-Forwarded-Proto: https\r\n",
    ] {
        let headers = format!("Host: localhost\r\n{JSON}{forwarded}");
        for address in [edge.address, edge.admin] {
            assert_eq!(ask(address, "POST /heartbeat", &headers, &heartbeat).status, 401, "{forwarded}");
            assert_eq!(ask(address, "POST /heartbeat", &headers, leaving).status, 401, "{forwarded}");
            for line in [
                "GET /fleet/status",
                "GET /dashboard/api/traces",
                "GET /fleet/limits",
                "POST /fleet/nodes/honest/drain",
            ] {
                let answer = ask(address, line, &headers, "");
                assert_eq!(answer.status, 403, "{line} {forwarded}");
                assert!(answer.text().contains("through a proxy"), "{}", answer.text());
            }
        }
        assert_eq!(
            ask(edge.address, "GET /api/tags", &headers, "").status,
            200,
            "the models are what it is set up for"
        );
    }
    let nodes = edge.admin("GET", "/fleet/status", "")["nodes"].clone();
    assert_eq!(nodes.as_array().map(Vec::len), Some(1), "{nodes}");
    assert_eq!(nodes[0]["status"], "online");
    drop(sim);
}

#[test]
fn a_proxied_agent_joins_with_the_token() {
    let edge = Edge::start(&[("FLEET_JOIN_TOKEN", "long-enough-token")]);
    let node = Scripted::ollama();
    let heartbeat = recorded("a", &format!("http://{}", node.address)).to_string();
    let headers = format!("Host: localhost\r\n{JSON}Via: 1.1 nginx\r\n");
    let shown = format!("{headers}Authorization: Bearer long-enough-token\r\n");
    assert_eq!(ask(edge.address, "POST /heartbeat", &headers, &heartbeat).status, 401);
    let answer = ask(edge.address, "POST /heartbeat", &shown, &heartbeat);
    assert_eq!((answer.status, answer.text().contains("proxy")), (403, true), "where it is cannot be told: {answer:?}");
    let elsewhere = recorded("b", &format!("http://127.0.0.2:{}", node.address.port())).to_string();
    assert_eq!(ask(edge.address, "POST /heartbeat", &shown, &elsewhere).status, 200);
}

#[test]
fn a_proxy_that_does_not_say_so_has_no_rights_of_this_machine() {
    let edge = Edge::start(&[("FLEET_ADMIN_HOSTS", "[chat.example]"), ("FLEET_HEALTH_INTERVAL_MS", "100")]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let headers = format!("Host: chat.example\r\n{JSON}");
    assert_eq!(ask(edge.address, "POST /fleet/nodes/a/drain", &headers, "").status, 403);
    assert_eq!(ask(edge.address, "GET /fleet/status", &headers, "").status, 403);
    assert_eq!(ask(edge.address, "GET /api/tags", &headers, "").status, 200);
    eventually("a finding says so", || {
        let health = get(edge.address, "/dashboard/api/health").json();
        health["findings"].as_array().is_some_and(|all| all.iter().any(|one| one["check"] == "unmarked_proxy"))
    });
}

#[test]
fn credentials_of_clients_stay_at_the_edge() {
    let shown = "Authorization: Bearer sk-theirs\r\nX-Api-Key: sk-too\r\nApi-Key: 3\r\nCookie: session=4\r\n\
                 Proxy-Authorization: Basic eDp5\r\n";
    let sent = |forwards: &str, headers: &str| {
        let edge = Edge::start(&[("FLEET_UPSTREAM_FORWARD_AUTHORIZATION", forwards)]);
        let node = Scripted::ollama();
        node.join(&edge, "a");
        let headers = format!("Host: localhost\r\n{JSON}{headers}");
        for path in INFERENCE {
            assert_eq!(ask(edge.address, &format!("POST {path}"), &headers, CHAT).status, 200, "{path}");
        }
        // What the edge itself asks of the node is not its clients'.
        let is_asked = |head: &String| INFERENCE.iter().any(|path| head.starts_with(&format!("POST {path} ")));
        let heads: Vec<_> = node.take_heads().into_iter().filter(is_asked).collect();
        assert_eq!(heads.len(), INFERENCE.len());
        heads.concat().to_ascii_lowercase()
    };
    let heads = sent("false", shown);
    for secret in ["sk-theirs", "sk-too", "api-key", "session=4", "edp5", "authorization"] {
        assert!(!heads.contains(secret), "{secret}: {heads}");
    }
    let heads = sent("true", shown);
    assert!(heads.contains("authorization: bearer sk-theirs"), "{heads}");
    assert!(!heads.contains("sk-too") && !heads.contains("session=4"), "{heads}");
    // One of herd's own among several keeps them all here.
    let heads = sent("true", "Authorization: Bearer sk-theirs\r\nAuthorization: Bearer herd_0123\r\n");
    assert!(!heads.contains("bearer"), "{heads}");
}
