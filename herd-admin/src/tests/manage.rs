//! Changes of models through Ollama's own API, against nodes that answer as scripted.

use axum::body::Body;
use herd_core::wire::Heartbeat;
use http::Request;
use serde_json::{Value, json};

use super::show::{Node, at, nobody};
use crate::testing::{Answer, App, from, heartbeat, post};

const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn delete(body: &str) -> Request<Body> {
    Request::delete("/api/delete").header("host", "127.0.0.1:11436").body(body.to_owned().into()).unwrap()
}

fn sent(node: &Node) -> Vec<(String, Value)> {
    let asked = node.asked.lock().unwrap();
    let call = |(parts, body): &(http::request::Parts, String)| {
        (format!("{} {}", parts.method, parts.uri.path()), serde_json::from_str(body).unwrap_or_default())
    };
    asked.iter().map(call).collect()
}

fn has(app: &App, node: &str, model: &str) -> bool {
    use crate::FleetSource as _;
    let name = herd_core::name::ModelName::new(model).unwrap();
    app.source.snapshot().node(node).unwrap().model(&name).is_some()
}

fn nodes(answer: &Answer) -> Vec<(String, bool)> {
    let told = answer.json();
    let each = told["nodes"].as_array().unwrap().iter();
    each.map(|node| (node["node_id"].as_str().unwrap().to_owned(), node["ok"] == true)).collect()
}

#[tokio::test]
async fn a_model_is_deleted_on_every_node_that_has_it() {
    let (a, b, gone) =
        (Node::answering(200, "").await, Node::answering(200, "").await, Node::answering(404, "{}").await);
    let app = App::of([at("a", a.address), at("b", b.address), at("gone", gone.address)]);
    let answer = app.send(delete(r#"{"name":"Tiny"}"#)).await;
    assert_eq!((answer.status.as_u16(), answer.json()["status"].as_str()), (200, Some("success")));
    assert_eq!(nodes(&answer), [("a".into(), true), ("b".into(), true), ("gone".into(), true)]);
    for node in [&a, &b] {
        assert_eq!(sent(node), [("DELETE /api/delete".into(), json!({ "model": "tiny:latest" }))]);
    }
    assert!(!has(&app, "a", "tiny") && !has(&app, "gone", "tiny"), "the catalogue knows at once");
    let again = app.send(delete(r#"{"model":"Tiny"}"#)).await;
    assert_eq!(again.told(), (404, r#"{"error":"model 'Tiny' not found"}"#));
    assert_eq!(a.times_asked(), 1);
}

#[tokio::test]
async fn a_node_that_is_named_is_asked_alone() {
    let (a, b) = (Node::answering(200, "").await, Node::answering(200, "").await);
    let app = App::of([at("a", a.address), at("b", b.address)]);
    let named = Request::delete("/api/delete").header("host", "localhost").header("x-fleet-node", "b");
    assert_eq!(app.send(named.body(r#"{"model":"tiny"}"#.into()).unwrap()).await.status, 200);
    assert_eq!((a.times_asked(), b.times_asked()), (0, 1));
    let answer = app.post("/api/copy", r#"{"source":"tiny","destination":"copy","node_id":"a"}"#).await;
    assert_eq!((answer.status.as_u16(), nodes(&answer)), (200, vec![("a".into(), true)]));
    assert!(has(&app, "a", "copy"));
    for (body, code) in [(r#"{"model":"tiny","node_id":"x"}"#, 404), (r#"{"model":"tiny","node_id":"b"}"#, 404)] {
        assert_eq!(app.send(delete(body)).await.status, code, "{body}");
    }
}

#[tokio::test]
async fn what_failed_on_one_node_is_told_beside_what_was_done_on_others() {
    let well = Node::answering(200, "").await;
    let app = App::of([at("well", well.address), at("dead", nobody().await)]);
    let answer = app.post("/api/copy", r#"{"source":"tiny","destination":"copy"}"#).await;
    assert_eq!(answer.status, 502);
    assert_eq!(nodes(&answer), [("dead".into(), false), ("well".into(), true)]);
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("done on well; failed on dead: the node did not answer"), "{error}");
    assert!(has(&app, "well", "copy") && !has(&app, "dead", "copy"));
    assert_eq!(sent(&well), [("POST /api/copy".into(), json!({ "source": "tiny:latest", "destination": "copy" }))]);
}

#[tokio::test]
async fn names_are_checked_before_anybody_is_asked() {
    let node = Node::answering(200, "").await;
    let app = App::of([at("a", node.address)]);
    for (body, status) in [
        ("", 400),
        (r#"{"source":"tiny"}"#, 400),
        (r#"{"source":"tiny","destination":"a b"}"#, 400),
        (r#"{"source":"nope","destination":"x"}"#, 404),
    ] {
        assert_eq!(app.post("/api/copy", body).await.status, status, "{body}");
    }
    assert_eq!(
        app.post("/api/copy", r#"{"source":"nope","destination":"x"}"#).await.body,
        r#"{"error":"model \"nope\" not found"}"#
    );
    for digest in ["sha256:00", "..", "sha256:%2e%2e"] {
        assert_eq!(app.post(&format!("/api/blobs/{digest}"), "x").await.status, 400, "{digest}");
    }
    assert_eq!(node.times_asked(), 0);
}

#[tokio::test]
async fn what_a_model_is_made_of_goes_to_one_node() {
    let (a, b) = (Node::answering(200, "").await, Node::answering(200, r#"{"status":"success"}"#).await);
    let app = App::of([at("a", a.address), at("b", b.address)]);
    let blob = format!("/api/blobs/sha256:{HEX}");
    let first = app.send(post(&blob).header("x-fleet-node", "b").body("hello".into()).unwrap()).await;
    assert_eq!((first.status.as_u16(), first.header("x-fleet-node")), (200, "b"));
    let head = Request::head(&blob).body(Body::empty()).unwrap();
    assert_eq!(app.send(head).await.header("x-fleet-node"), "b");
    let create = format!(r#"{{"model":"mine","files":{{"m.gguf":"sha256:{HEX}"}},"stream":false}}"#);
    // From another machine too, as it is known where the file is.
    let elsewhere = post("/api/create").extension(from("127.0.0.2"));
    let made = app.send(elsewhere.body(create.into()).unwrap()).await;
    assert_eq!((made.told(), made.header("x-fleet-node")), ((200, r#"{"status":"success"}"#), "b"));
    assert!(has(&app, "b", "mine"), "it can be asked for at once");
    assert_eq!(a.times_asked(), 0);
    let asked: Vec<_> = sent(&b).into_iter().map(|(line, _)| line).collect();
    assert_eq!(asked, [format!("POST {blob}"), format!("HEAD {blob}"), "POST /api/create".into()]);
}

#[tokio::test]
async fn a_create_goes_to_a_node_with_the_model_that_it_is_made_from() {
    let (a, b) =
        (Node::answering(200, r#"{"status":"success"}"#).await, Node::answering(500, r#"{"error":"x"}"#).await);
    let without = Heartbeat { ollama_host: format!("http://{}", a.address), ..heartbeat("a", &["other:latest"]) };
    let app = App::of([without, at("b", b.address)]);
    let answer = app.post("/api/create", r#"{"model":"mine","from":"tiny","stream":false}"#).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-fleet-node")), (500, "b"));
    assert!(!has(&app, "b", "mine"), "a create that failed made nothing");
    let pushed = app.post("/api/push", r#"{"model":"nope"}"#).await;
    assert_eq!(pushed.told(), (404, r#"{"error":"model 'nope' not found"}"#));
}

#[tokio::test]
async fn the_clouds_state_is_a_nodes() {
    let node = Node::answering(200, r#"{"cloud":{"disabled":true,"source":"env"}}"#).await;
    let app = App::of([at("a", node.address)]);
    assert_eq!(app.get("/api/status").await.told(), (200, r#"{"cloud":{"disabled":true,"source":"env"}}"#));
    assert_eq!(App::new().get("/api/status").await.status, 503);
}

#[tokio::test]
async fn changes_take_this_machine_or_a_key() {
    let node = Node::answering(200, "").await;
    let app = App::of([at("a", node.address)]);
    let blob = format!("/api/blobs/sha256:{HEX}");
    let far = || from("10.1.2.3");
    for path in ["/api/copy", "/api/create", "/api/push", blob.as_str()] {
        let request = post(path).extension(far()).body(r#"{"model":"tiny"}"#.into()).unwrap();
        assert_eq!(app.send(request).await.status, 403, "{path}");
    }
    let mut request = delete(r#"{"model":"tiny"}"#);
    request.extensions_mut().insert(far());
    assert_eq!(app.send(request).await.status, 403);
    let page = post("/api/copy").header("origin", "http://evil.example");
    assert_eq!(app.send(page.body("{}".into()).unwrap()).await.status, 403);
    assert_eq!(node.times_asked(), 0);
}
