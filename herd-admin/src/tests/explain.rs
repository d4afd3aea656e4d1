//! `POST /fleet/explain`.

use crate::AdminConfig;
use crate::testing::{App, heartbeat, loaded};

fn app() -> App {
    App::of([loaded(heartbeat("hot", &["m:latest"]), "m:latest", 4096), heartbeat("none", &[])])
}

#[tokio::test]
async fn every_node_has_its_signals_or_its_reason() {
    let app = app();
    let answer = app.post("/fleet/explain", r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#).await;
    let told = answer.json();
    assert_eq!(
        (answer.status.as_u16(), &told["surface"], &told["winner"]),
        (200, &"ollama_chat".into(), &"hot".into())
    );
    assert_eq!(told["nodes"][0]["signals"].as_object().unwrap().len(), 7);
    assert_eq!(told["nodes"][1]["reason"]["code"], "model_absent");
    assert_eq!(app.get("/fleet/status").await.json()["fleet"]["requests_active"], 0, "nothing was sent");
}

#[tokio::test]
async fn the_surface_is_named_never_guessed() {
    let app = app();
    let surface = async |query: &str| {
        let answer = app.post(&format!("/fleet/explain{query}"), r#"{"model":"m"}"#).await;
        answer.json()["surface"].as_str().map(ToOwned::to_owned)
    };
    assert_eq!(surface("").await.as_deref(), Some("ollama_chat"));
    assert_eq!(surface("?path=/v1/chat/completions").await.as_deref(), Some("openai_chat"));
    assert_eq!(surface("?path=%2Fv1%2Fmessages").await.as_deref(), Some("anthropic_messages"));
    assert_eq!(surface("?surface=openai_responses").await.as_deref(), Some("openai_responses"));
    for unknown in ["?path=/v1/rerank", "?surface=chat", "?path=/api/chat&surface=ollama_chat"] {
        let answer = app.post(&format!("/fleet/explain{unknown}"), r#"{"model":"m"}"#).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (400, &"unknown_surface".into()));
    }
    assert_eq!(app.post("/fleet/explain?path=%ff", "{}").await.status, 400);
}

#[tokio::test]
async fn a_body_that_could_not_be_routed_is_refused_with_the_reason() {
    let app = app();
    let rows = [
        ("", "missing request body"),
        ("[]", "request body must be a JSON object"),
        ("{}", "model is required"),
        (r#"{"model":7}"#, "\"model\" must be a string"),
        (r#"{"model":"m","model":"n"}"#, "duplicate key \"model\""),
    ];
    for (body, message) in rows {
        let answer = app.post("/fleet/explain", body).await;
        let error = answer.json()["error"].clone();
        assert_eq!(
            (answer.status.as_u16(), &error["code"], &error["message"]),
            (400, &"invalid_request".into(), &message.into())
        );
    }
    let app = App::with(AdminConfig { explain_body_bytes: 10, ..AdminConfig::default() });
    let answer = app.post("/fleet/explain", r#"{"model":"m"}"#).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (413, &"body_too_large".into()));
}
