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
        let model = body["model"].as_str().unwrap().to_owned();
        script.shown.lock().unwrap().push(model.clone());
        if model == "broken" {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        let info = json!({ "general.architecture": "llama", "llama.context_length": 8192 });
        let shown = json!({ "model_info": info, "capabilities": ["completion"], "parameters": "num_ctx    2048" });
        axum::Json(shown).into_response()
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

/// Asks the next question, if there is one, and says about which model.
async fn ask_one(poller: &mut Poller) -> Option<String> {
    let (key, details) = poller.next_question()?.ask().await;
    poller.learn(key.clone(), details);
    Some(key.0)
}

#[tokio::test]
async fn an_old_ollama_is_asked_for_the_details_of_each_model_once() {
    let mut tasks = JoinSet::new();
    let (script, mut poller) = start(&mut tasks).await;
    *script.tags.lock().unwrap() = old_tags(3);
    assert!(poller.refresh().await);
    for expected in ["m:0", "m:1", "m:2"] {
        assert_eq!(ask_one(&mut poller).await.as_deref(), Some(expected));
    }
    assert!(poller.refresh().await, "a fresh list lacks the details again");
    assert_eq!(ask_one(&mut poller).await, None);
    let details = |tag: &Tag| (tag.details.context_length, tag.num_ctx, tag.capabilities.clone());
    let expected = (Some(8192), Some(2048), Some(vec!["completion".to_owned()]));
    assert!(poller.facts.available.iter().all(|tag| details(tag) == expected));
    *script.tags.lock().unwrap() = old_tags(1).replace("d0", "another");
    assert!(poller.refresh().await);
    assert_eq!(
        (poller.shown.len(), ask_one(&mut poller).await.as_deref()),
        (0, Some("m:0")),
        "it is another model now"
    );
}

#[tokio::test]
async fn a_model_that_cannot_be_shown_keeps_no_other_waiting() {
    let mut tasks = JoinSet::new();
    let (script, mut poller) = start(&mut tasks).await;
    *script.tags.lock().unwrap() = old_tags(2).replace("m:0", "broken");
    assert!(poller.refresh().await);
    let mut asked = Vec::new();
    while let Some(model) = ask_one(&mut poller).await {
        asked.push(model);
    }
    assert_eq!(asked, ["broken", "m:1", "broken", "broken"], "and is given up in the end");
    poller.facts.state = OllamaState::Hung;
    assert!(poller.next_question().is_none());
}

#[tokio::test]
async fn details_reach_the_facts_beside_the_watch() {
    let mut tasks = JoinSet::new();
    let (script, poller) = start(&mut tasks).await;
    *script.tags.lock().unwrap() = old_tags(2);
    let (facts_in, mut facts) = watch::channel(None);
    tasks.spawn(watch_ollama(poller, Duration::from_mins(1), Duration::from_millis(5), facts_in));
    let complete = |facts: &Option<Arc<OllamaFacts>>| {
        facts.as_ref().is_some_and(|facts| facts.available.iter().filter(|tag| tag.num_ctx == Some(2048)).count() == 2)
    };
    tokio::time::timeout(Duration::from_secs(10), facts.wait_for(complete)).await.unwrap().unwrap();
    assert_eq!(*script.shown.lock().unwrap(), ["m:0", "m:1"]);
}

#[tokio::test]
async fn a_recent_ollama_is_not_asked_for_details() {
    let mut tasks = JoinSet::new();
    let (script, mut poller) = start(&mut tasks).await;
    api::tests::TAGS.clone_into(&mut script.tags.lock().unwrap());
    assert!(poller.refresh().await);
    assert!(poller.next_question().is_none());
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
    *script.tags.lock().unwrap() = old_tags(1);
    assert!(poller.refresh().await);
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
