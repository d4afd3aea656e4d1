//! The poller against a scripted Ollama.

use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// What the scripted Ollama answers, and which models it was asked to show.
#[derive(Default)]
struct Script {
    tags: Mutex<String>,
    shown: Mutex<Vec<String>>,
    late: watch::Sender<bool>,
}

async fn start(tasks: &mut JoinSet<()>) -> (Arc<Script>, Poller) {
    let script = Arc::new(Script::default());
    let ps = |State(script): State<Arc<Script>>| async move {
        script.late.subscribe().wait_for(|late| !late).await.unwrap();
        r#"{"models":[]}"#
    };
    let tags = |State(script): State<Arc<Script>>| async move { script.tags.lock().unwrap().clone().into_response() };
    let show = |State(script): State<Arc<Script>>, body: axum::Json<Value>| async move {
        script.shown.lock().unwrap().push(body["model"].as_str().unwrap().to_owned());
        let info = json!({ "general.architecture": "llama", "llama.context_length": 8192 });
        axum::Json(json!({ "model_info": info, "capabilities": ["completion"] }))
    };
    let routes = Router::new()
        .route("/api/ps", get(ps))
        .route("/api/tags", get(tags))
        .route("/api/version", get(|| async { r#"{"version":"0.6.0"}"# }))
        .route("/api/show", post(show))
        .with_state(Arc::clone(&script));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (script, Poller::new(Client::new(), url, Duration::from_millis(300)))
}

fn old_tags(count: usize) -> String {
    let models: Vec<Value> =
        (0..count).map(|n| json!({ "name": format!("m:{n}"), "digest": format!("d{n}") })).collect();
    json!({ "models": models }).to_string()
}

#[tokio::test]
async fn an_old_ollama_is_asked_for_details_a_few_at_a_time_and_once() {
    let mut tasks = JoinSet::new();
    let (script, mut poller) = start(&mut tasks).await;
    *script.tags.lock().unwrap() = old_tags(6);
    for expected in [4, 6, 6] {
        assert!(poller.refresh().await);
        assert_eq!(script.shown.lock().unwrap().len(), expected);
    }
    let details = |tag: &Tag| (tag.details.context_length, tag.capabilities.clone());
    assert!(poller.facts.available.iter().all(|t| details(t) == (Some(8192), Some(vec!["completion".to_owned()]))));
}

#[tokio::test]
async fn a_recent_ollama_is_not_asked_for_details() {
    let mut tasks = JoinSet::new();
    let (script, mut poller) = start(&mut tasks).await;
    api::tests::TAGS.clone_into(&mut script.tags.lock().unwrap());
    assert!(poller.refresh().await);
    assert!(script.shown.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_too_long_or_senseless_changes_nothing() {
    let mut tasks = JoinSet::new();
    let (script, mut poller) = start(&mut tasks).await;
    *script.tags.lock().unwrap() = "not JSON".to_owned();
    assert!(!poller.refresh().await);
    assert_eq!(poller.facts.state, OllamaState::Hung, "a list that was never read is not an empty list");
    api::tests::TAGS.clone_into(&mut script.tags.lock().unwrap());
    assert!(poller.refresh().await);
    poller.watch().await;
    *script.tags.lock().unwrap() = " ".repeat(ANSWER_MAX_BYTES + 1);
    assert!(!poller.refresh().await);
    assert_eq!((poller.facts.available.len(), poller.facts.state), (2, OllamaState::Ok));
}

#[tokio::test]
async fn one_late_answer_is_no_state() {
    let mut tasks = JoinSet::new();
    let (script, mut poller) = start(&mut tasks).await;
    poller.watch().await;
    poller.timeout = Duration::from_millis(20);
    script.late.send_replace(true);
    poller.watch().await;
    assert_eq!(poller.facts.state, OllamaState::Ok);
    poller.watch().await;
    assert_eq!(poller.facts.state, OllamaState::Hung);
}

#[test]
fn a_list_that_no_edge_would_take_is_cut_to_what_changed_last() {
    let tag = |n: usize| Tag { modified_at: format!("2026-01-01T00:00:00.{n:06}Z"), ..Tag::default() };
    let kept = newest((0..MODELS_MAX + 5).map(tag).collect());
    assert_eq!(kept.len(), MODELS_MAX);
    assert_eq!(kept[0].modified_at, tag(MODELS_MAX + 4).modified_at);
}
