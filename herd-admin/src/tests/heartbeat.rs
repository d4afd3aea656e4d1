//! Heartbeats, friendly and hostile.

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::AdminConfig;
use crate::testing::{Answer, App, EDGE, PYTHON_HEARTBEAT, from, heartbeat, post};

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str, message: &str) {
    let error = &answer.json()["error"];
    assert_eq!((answer.status.as_u16(), error["code"].as_str()), (status, Some(code)), "{}", answer.body);
    assert!(error["message"].as_str().unwrap().contains(message), "{}", answer.body);
}

#[tokio::test]
async fn an_unmodified_herd_node_joins() {
    let app = App::new();
    let answer = app.post("/heartbeat", PYTHON_HEARTBEAT).await;
    assert_eq!(answer.told(), (200, r#"{"status":"ok","node_status":"online"}"#));
    let status = app.get("/fleet/status").await.json();
    assert_eq!(status["nodes"][0]["node_id"], "node-a");
    assert_eq!(status["nodes"][0]["ollama"]["version"], "0.40.1");
    let tags = app.get("/api/tags").await.json();
    assert_eq!(tags["models"].as_array().unwrap().len(), 4);
    let ps = app.get("/api/ps").await.json();
    assert_eq!((&ps["models"][0]["name"], &ps["models"][0]["fleet_node"]), (&"llama3.2:3b".into(), &"node-a".into()));
}

#[tokio::test]
async fn a_leaving_node_is_told_so_known_or_not() {
    let app = App::of([heartbeat("node-a", &[])]);
    for id in ["node-a", "ghost"] {
        let answer = app.post("/heartbeat", json!({ "node_id": id, "draining": true }).to_string()).await;
        let expected = format!(r#"{{"status":"draining","node_id":"{id}"}}"#);
        assert_eq!(answer.told(), (200, expected.as_str()));
    }
    assert_eq!(app.get("/fleet/status").await.json()["nodes"][0]["state"], "draining");
}

#[tokio::test]
async fn hostile_heartbeats_are_refused_with_the_reason() {
    let app = App::new();
    let node = |fields: &str| format!(r#"{{"node_id":"n","ollama":{{}}{fields}}}"#);
    let rows = [
        (String::new(), "invalid_json", "EOF"),
        ("{".into(), "invalid_json", "EOF"),
        // serde reads a list as the members of a structure; there is no node id in this one.
        ("[]".into(), "node_id", "is empty"),
        ("[".repeat(100_000), "invalid_json", "not a heartbeat"),
        (format!(r#"{{"cpu":"{}"}}"#, "x".repeat(100_000)), "invalid_json", "..."),
        (node(r#","memory_bandwidth_gbps":1e999"#), "invalid_json", "number out of range"),
        (node(r#","memory_bandwidth_gbps":NaN"#), "invalid_json", "expected value"),
        (node(r#","memory_bandwidth_gbps":-1"#), "number", "memory_bandwidth_gbps"),
        (node(r#","memory":{"total_gb":-5}"#), "number", "memory.total_gb"),
        (node(&format!(r#","chip":"{}""#, "x".repeat(600))), "too_much", "chip exceeds its limit"),
        (r#"{"node_id":"n"}"#.into(), "no_ollama", "ollama is required"),
        (r#"{"node_id":"<img src=x>","ollama":{}}"#.into(), "node_id", "not allowed"),
        (format!(r#"{{"node_id":"{}","ollama":{{}}}}"#, "n".repeat(65)), "node_id", "longer than 64"),
        ("{}".into(), "node_id", "is empty"),
    ];
    for (body, code, message) in rows {
        let answer = app.post("/heartbeat", body).await;
        refused(&answer, 400, code, message);
        assert!(answer.body.len() < 400, "a hostile text is not repeated: {} bytes", answer.body.len());
    }
    assert_eq!(app.get("/fleet/status").await.json()["fleet"]["nodes_total"], 0);
}

#[tokio::test]
async fn heartbeats_are_bounded_while_they_are_read() {
    let app = App::with(AdminConfig { heartbeat_body_bytes: 1000, ..AdminConfig::default() });
    refused(&app.post("/heartbeat", " ".repeat(1001)).await, 413, "body_too_large", "1000 bytes");
    // In pieces and without a length, so that only reading can tell.
    let pieces = (0..11).map(|_| Ok::<_, std::io::Error>(" ".repeat(100)));
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    refused(&app.post("/heartbeat", body).await, 413, "body_too_large", "1000 bytes");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up() {
    let app = App::new();
    let body = Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>());
    refused(&app.post("/heartbeat", body).await, 408, "body_timeout", "too long");
}

#[tokio::test]
async fn only_json_from_programs_is_a_heartbeat() {
    let app = App::new();
    let text = Request::post("/heartbeat").header("content-type", "text/plain").body(Body::from(PYTHON_HEARTBEAT));
    refused(&app.send(text.unwrap()).await, 415, "unsupported_media_type", "application/json");
    let page = post("/heartbeat").header("origin", "http://evil.example").body(Body::from(PYTHON_HEARTBEAT));
    refused(&app.send(page.unwrap()).await, 403, "browser", "not from web pages");
}

#[tokio::test]
async fn with_a_join_token_only_who_shows_it_joins() {
    let app = App::with(AdminConfig { join_token: Some("s3cret".into()), ..AdminConfig::default() });
    let send = async |authorization: Option<&str>| {
        let request = authorization.into_iter().fold(post("/heartbeat"), |r, value| r.header("authorization", value));
        app.send(request.body(Body::from(PYTHON_HEARTBEAT)).unwrap()).await
    };
    for wrong in [None, Some("s3cret"), Some("Bearer"), Some("Bearer "), Some("Bearer s3cre"), Some("Basic s3cret")] {
        let answer = send(wrong).await;
        refused(&answer, 401, "join_token", "join token is required");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_eq!(send(Some("bearer s3cret")).await.status, 200);
}

#[tokio::test]
async fn the_senders_address_decides_who_may_join_and_where_its_ollama_is() {
    let app = App::new();
    let send = async |peer: &str, headers: &[(&str, &str)]| {
        let request = headers.iter().fold(post("/heartbeat"), |request, (name, value)| request.header(*name, *value));
        app.send(request.extension(from(peer)).body(Body::from(PYTHON_HEARTBEAT)).unwrap()).await
    };
    let forwarded = ("x-forwarded-for", "192.168.1.5");
    refused(&send("8.8.8.8", &[]).await, 403, "source", "8.8.8.8");
    for claim in [&[forwarded][..], &[forwarded, ("x-herd-edge", "guess"), ("x-herd-source", "network")]] {
        refused(&send("8.8.8.8", claim).await, 401, "join_token", "through a proxy");
        refused(&send("127.0.0.1", claim).await, 401, "join_token", "through a proxy");
    }
    let by_edge = [forwarded, ("x-herd-edge", EDGE), ("x-herd-source", "network")];
    assert_eq!(send("127.0.0.1", &by_edge).await.status, 200);
    let address = app.get("/fleet/status").await.json()["nodes"][0]["address"].clone();
    assert_eq!(address, "192.168.1.5:21434", "its own host, whatever it claims, and the port that it names");
    refused(&send("192.168.1.6", &[]).await, 409, "taken", "in use by another machine");
    let drain = post("/heartbeat").extension(from("192.168.1.6"));
    let drain = drain.body(Body::from(r#"{"node_id":"node-a","draining":true}"#)).unwrap();
    refused(&app.send(drain).await, 403, "not_yours", "only the node itself");
}
