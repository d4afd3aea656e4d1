//! `POST /api/show`, against nodes that answer as scripted.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use herd_core::wire::Heartbeat;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::testing::{App, heartbeat, loaded, post};

/// An Ollama that gives one answer to everything, and keeps what it was asked.
pub(super) struct Node {
    pub(super) address: SocketAddr,
    pub(super) asked: Arc<Mutex<Vec<(http::request::Parts, String)>>>,
    _server: JoinSet<()>,
}

impl Node {
    pub(super) async fn answering(status: u16, body: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let answer = move |request: Request| {
            let seen = Arc::clone(&seen);
            async move {
                let (parts, sent) = request.into_parts();
                let sent = sent.collect().await.unwrap().to_bytes();
                seen.lock().unwrap().push((parts, String::from_utf8(sent.to_vec()).unwrap()));
                (StatusCode::from_u16(status).unwrap(), [("content-type", "application/json; charset=utf-8")], body)
                    .into_response()
            }
        };
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
        Self { address, asked, _server: server }
    }

    pub(super) fn times_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// The address of a node that refuses connections.
pub(super) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub(super) fn at(id: &str, address: SocketAddr) -> Heartbeat {
    Heartbeat { ollama_host: format!("http://{address}"), ..heartbeat(id, &["tiny:latest"]) }
}

const TINY: &str = r#"{"model":"tiny"}"#;

#[tokio::test]
async fn the_question_goes_on_verbatim_and_without_the_clients_headers() {
    let node = Node::answering(200, r#"{"modelfile":"FROM x"}"#).await;
    let app = App::of([at("n", node.address)]);
    let body = r#"{"name":"tiny", "verbose":true}"#;
    let request = post("/api/show").header("origin", "http://localhost:3000").header("authorization", "Bearer x");
    let answer = app.send(request.body(body.into()).unwrap()).await;
    assert_eq!(answer.told(), (200, r#"{"modelfile":"FROM x"}"#));
    assert_eq!(answer.header("x-fleet-node"), "n");
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    let asked = node.asked.lock().unwrap();
    let (parts, sent) = &asked[0];
    assert_eq!((parts.uri.path(), sent.as_str()), ("/api/show", body));
    assert_eq!(parts.headers["host"], node.address.to_string());
    assert!(!parts.headers.contains_key("origin") && !parts.headers.contains_key("authorization"));
}

#[tokio::test]
async fn the_next_node_is_asked_when_one_does_not_answer_or_fails() {
    let failing = Node::answering(500, r#"{"error":"broken"}"#).await;
    let lost = Node::answering(404, r#"{"error":"model 'tiny:latest' not found"}"#).await;
    let good = Node::answering(200, "{}").await;
    let app =
        App::of([at("a", nobody().await), at("b", failing.address), at("c", lost.address), at("d", good.address)]);
    let answer = app.post("/api/show", TINY).await;
    assert_eq!((answer.told(), answer.header("x-fleet-node")), ((200, "{}"), "d"));
    assert_eq!((failing.times_asked(), lost.times_asked(), good.times_asked()), (1, 1, 1));
}

#[tokio::test]
async fn the_last_answer_stands() {
    let failing = Node::answering(500, r#"{"error":"broken"}"#).await;
    let app = App::of([at("a", failing.address), at("b", nobody().await)]);
    let answer = app.post("/api/show", TINY).await;
    assert_eq!((answer.told(), answer.header("x-fleet-node")), ((500, r#"{"error":"broken"}"#), "a"));
    let refusing = Node::answering(400, r#"{"error":"no"}"#).await;
    let spare = Node::answering(200, "{}").await;
    let app = App::of([at("a", refusing.address), at("b", spare.address)]);
    assert_eq!(app.post("/api/show", TINY).await.told(), (400, r#"{"error":"no"}"#));
    assert_eq!(spare.times_asked(), 0, "what the client did wrong is wrong everywhere");
    let app = App::of([at("a", nobody().await)]);
    assert_eq!(
        app.post("/api/show", TINY).await.told(),
        (502, r#"{"error":"no node with model 'tiny:latest' answered, or they answer many already"}"#)
    );
}

#[tokio::test]
async fn nodes_with_the_model_in_memory_come_first_and_those_out_of_service_last() {
    let (cold, hot, drained) =
        (Node::answering(200, "{}").await, Node::answering(200, "{}").await, Node::answering(200, "{}").await);
    let app = App::of([
        at("a-cold", cold.address),
        loaded(at("b-hot", hot.address), "tiny:latest", 4096),
        loaded(at("a-drained", drained.address), "tiny:latest", 4096),
    ]);
    app.post("/fleet/nodes/a-drained/drain", "").await;
    assert_eq!(app.post("/api/show", TINY).await.header("x-fleet-node"), "b-hot");
    app.post("/fleet/nodes/b-hot/drain", "").await;
    assert_eq!(app.post("/api/show", TINY).await.header("x-fleet-node"), "a-cold");
}

#[tokio::test]
async fn a_redirect_is_an_answer_not_an_order() {
    let node = Node::answering(307, "").await;
    assert_eq!(App::of([at("n", node.address)]).post("/api/show", TINY).await.status, 307);
    assert_eq!(node.times_asked(), 1);
}

#[tokio::test]
async fn refusals_are_in_ollamas_words() {
    let app = App::of([heartbeat("n", &["tiny:latest"])]);
    let rows = [
        ("", 400, r#"{"error":"missing request body"}"#),
        ("{}", 400, r#"{"error":"model is required"}"#),
        (r#"{"model":""}"#, 400, r#"{"error":"model is required"}"#),
        (r#"{"model":"a b"}"#, 400, r#"{"error":"invalid model name"}"#),
        (r#"{"model":"nope"}"#, 404, r#"{"error":"model 'nope:latest' not found"}"#),
        (r#"{"Name":"nope:9b"}"#, 404, r#"{"error":"model 'nope:9b' not found"}"#),
    ];
    for (body, status, expected) in rows {
        assert_eq!(app.post("/api/show", body).await.told(), (status, expected), "{body}");
    }
    assert_eq!(app.post("/api/show", "{").await.status, 400);
    assert_eq!(app.post("/api/show", " ".repeat((1 << 20) + 1)).await.status, 413);
}
