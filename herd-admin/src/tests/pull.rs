//! `POST /api/pull` and the list of pulls, as clients see them.

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::scripted::{Lines, Node, drive};
use crate::testing::{App, from, post};

const TINY: &str = r#"{"model":"tiny"}"#;

#[tokio::test]
async fn progress_is_told_in_ollamas_form() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let _driver = drive(&app);
    let mut lines = Lines::of(&app, r#"{"name":"hf.co/Org/Tiny:Q4","insecure":true}"#).await;
    let call = node.called().await;
    assert_eq!(
        (call.path.as_str(), &call.body),
        ("/api/pull", &json!({ "model": "hf.co/Org/Tiny:Q4", "insecure": true, "stream": true }))
    );
    let layer = |completed: &str| format!(r#"{{"status":"pulling a","digest":"sha256:a","total":9{completed}"#);
    for line in [
        r#"{"status":"pulling manifest""#,
        &layer(""),
        &layer(r#","completed":4"#),
        &layer(r#","completed":9"#),
        r#"{"status":"verifying sha256 digest""#,
        r#"{"status":"something new""#,
    ] {
        call.say(&format!("{line}}}")).await;
        assert_eq!(lines.next().await, format!(r#"{line},"node_id":"n"}}"#));
    }
    let told = app.get("/fleet/pulls").await.json();
    assert_eq!((&told["auto_pull"], &told["recent"]), (&true.into(), &json!([])));
    let running = &told["running"][0];
    let fields = ["model", "node_id", "reason", "by", "phase", "status", "completed_bytes", "total_bytes"];
    let expected = json!(["hf.co/org/tiny:q4", "n", "manual", "127.0.0.1", "verifying", "something new", 9, 9]);
    assert_eq!(json!(fields.map(|field| running[field].clone())), expected);
    assert!(app.get("/metrics").await.body.contains("\nherd_pulls_running 1\n"));
    call.succeed().await;
    assert_eq!(lines.next().await, r#"{"status":"success","node_id":"n"}"#);
    assert_eq!(lines.next().await, "");
    let told = app.get("/fleet/pulls").await.json();
    assert_eq!((&told["running"], &told["recent"][0]["phase"]), (&json!([]), &"succeeded".into()));
    let metrics = app.get("/metrics").await.body;
    for line in ["herd_pulls_running 0", "herd_pull_bytes_total 9", "herd_pulls_total{outcome=\"succeeded\"} 1"] {
        assert!(metrics.lines().any(|one| one == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn without_a_stream_the_answer_comes_at_the_end() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let _driver = drive(&app);
    let ask = || app.post("/api/pull", r#"{"model":"tiny","stream":false}"#);
    let (answer, ()) = tokio::join!(ask(), async { node.called().await.succeed().await });
    assert_eq!(answer.told(), (200, r#"{"status":"success","node_id":"n"}"#));
    let error = r#"{"error":"pull model manifest: file does not exist"}"#;
    let (answer, _call) = tokio::join!(ask(), async {
        let call = node.called().await;
        call.say(error).await;
        call
    });
    assert_eq!(answer.told(), (500, error));
}

#[tokio::test]
async fn an_error_ends_the_stream() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let _driver = drive(&app);
    let mut lines = Lines::of(&app, TINY).await;
    let call = node.called().await;
    call.say(r#"{"error":"max retries exceeded"}"#).await;
    assert_eq!(lines.next().await, r#"{"error":"max retries exceeded","node_id":"n"}"#);
    assert_eq!(lines.next().await, "");
    let mut lines = Lines::of(&app, TINY).await;
    drop((call, node.called().await));
    assert_eq!(lines.next().await, r#"{"error":"the node broke off the pull","node_id":"n"}"#);
    let recent = &app.get("/fleet/pulls").await.json()["recent"];
    let failures: Vec<_> = recent.as_array().unwrap().iter().map(|pull| pull["failure"].clone()).collect();
    assert_eq!(failures, ["node", "ollama"]);
}

#[tokio::test]
async fn pulls_of_one_model_are_one_and_the_last_client_to_go_ends_it() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let _driver = drive(&app);
    let mut first = Lines::of(&app, TINY).await;
    let call = node.called().await;
    let mut second = Lines::of(&app, r#"{"model":"Tiny:latest","node_id":"n"}"#).await;
    call.say(r#"{"status":"pulling manifest"}"#).await;
    assert_eq!(first.next().await, second.next().await);
    let third = Lines::of(&app, TINY).await;
    drop(first);
    drop(third);
    call.say(r#"{"status":"verifying sha256 digest"}"#).await;
    assert_eq!(second.next().await, r#"{"status":"verifying sha256 digest","node_id":"n"}"#);
    assert!(!node.is_called(), "one request for all");
    drop(second);
    call.dropped().await;
    let ended = &app.get("/fleet/pulls").await.json()["recent"][0];
    assert_eq!((&ended["phase"], &ended["error"]), (&"cancelled".into(), &"nobody waits for it any more".into()));
}

fn cancel(id: &str) -> http::request::Builder {
    let request = Request::delete(format!("/fleet/pulls/{id}"));
    request.header("content-type", "application/json").header("host", "127.0.0.1:11436")
}

#[tokio::test]
async fn an_operator_cancels_a_pull() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let _driver = drive(&app);
    let mut lines = Lines::of(&app, TINY).await;
    let call = node.called().await;
    let afar = app.send(cancel("1").extension(from("192.168.1.7")).body(Body::empty()).unwrap()).await;
    assert_eq!(afar.status, 403);
    let answer = app.send(cancel("1").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.told(), (200, r#"{"id":1,"cancelled":true}"#));
    assert_eq!(lines.next().await, r#"{"error":"cancelled by 127.0.0.1","node_id":"n"}"#);
    call.dropped().await;
    for unknown in ["1", "7", "x", "-1"] {
        let answer = app.send(cancel(unknown).body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (404, &"unknown_pull".into()));
    }
}

#[tokio::test]
async fn what_cannot_be_pulled_is_refused_in_ollamas_words() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500), node.heartbeat("small", &[], 5)]);
    let _driver = drive(&app);
    let rows = [
        ("", 400, r#"{"error":"missing request body"}"#),
        ("{}", 400, r#"{"error":"model is required"}"#),
        (r#"{"model":"a b"}"#, 400, r#"{"error":"invalid model name"}"#),
        (r#"{"model":"tiny","node_id":"ghost"}"#, 404, r#"{"error":"there is no node of that id"}"#),
        (
            r#"{"model":"tiny","node_id":"small"}"#,
            507,
            r#"{"error":"not enough disk space: needs a reserve of 10.0 GB, the most that is free is 5.0 GB"}"#,
        ),
    ];
    for (body, status, expected) in rows {
        assert_eq!(app.post("/api/pull", body).await.told(), (status, expected), "{body}");
    }
    let _running = Lines::of(&app, TINY).await;
    let _call = node.called().await;
    let busy = app.post("/api/pull", r#"{"model":"other","node_id":"n"}"#).await;
    assert_eq!(busy.told(), (409, r#"{"error":"the nodes that could take it pull other models"}"#));
    app.after_ms(31_000);
    assert_eq!(app.post("/api/pull", r#"{"model":"other"}"#).await.status, 503);
    assert_eq!(app.post("/api/pull", r#"{"model":"other","node_id":"n"}"#).await.status, 503);
}

#[tokio::test]
async fn who_may_pull() {
    let node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let bare = || Request::post("/api/pull").header("host", "localhost:11435");
    let curl = || bare().header("content-type", "application/x-www-form-urlencoded").header("user-agent", "curl/8.5.0");
    let status = async |request: http::request::Builder| app.open(request.body(TINY.into()).unwrap()).await.status();
    assert_eq!(status(bare()).await, StatusCode::OK);
    assert_eq!(status(curl()).await, StatusCode::OK);
    assert_eq!(status(curl().extension(from("192.168.1.7"))).await, StatusCode::FORBIDDEN);
    assert_eq!(status(post("/api/pull").header("origin", "http://evil.example")).await, StatusCode::FORBIDDEN);
    let browser =
        || bare().header("user-agent", "Mozilla/5.0 (X11; Linux x86_64)").header("content-type", "text/plain");
    assert_eq!(status(browser()).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let own_page = post("/api/pull").header("sec-fetch-site", "same-origin").header("user-agent", "Mozilla/5.0");
    assert_eq!(status(own_page).await, StatusCode::OK);
    let phases = app.get("/fleet/pulls").await.json();
    let recent: Vec<Value> = phases["recent"].as_array().unwrap().clone();
    assert!(recent.iter().all(|pull| pull["phase"] == "cancelled") && recent.len() == 3, "clients that went at once");
}
