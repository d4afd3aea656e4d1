//! Pulls as the edge asks for them, and what ends them.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use herd_core::name::ModelName;
use herd_core::pull::{PullPolicy, PullRefusal};
use http::StatusCode;

use super::scripted::{Lines, Node, drive};
use crate::testing::App;
use crate::{AdminConfig, FailureKind, PullAsk, PullHandle, PullPhase, PullReason, PullSettings};

pub(super) fn auto(model: &str) -> PullAsk {
    PullAsk::new(&ModelName::new(model).unwrap(), PullReason::Auto { request_id: "r1".into() })
}

fn manual(model: &str) -> PullAsk {
    PullAsk::new(&ModelName::new(model).unwrap(), PullReason::Manual { caller: "127.0.0.1".into() })
}

fn with_policy(policy: PullPolicy) -> App {
    App::with(AdminConfig { pull: PullSettings { policy, ..PullSettings::default() }, ..AdminConfig::default() })
}

/// How it failed.
async fn failure(handle: &mut PullHandle) -> (FailureKind, String) {
    match handle.finished().await.phase {
        PullPhase::Failed(failure) => (failure.kind, failure.message),
        other => panic!("{other:?}"),
    }
}

const LAYER: &str = r#"{"status":"pulling a","digest":"sha256:a","total":700}"#;

#[tokio::test]
async fn requests_for_one_model_wait_for_one_pull_that_outlives_them() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let mut first = app.pulls.start(auto("tiny")).unwrap();
    let second = app.pulls.start(auto("tiny:latest")).unwrap();
    assert_eq!((first.id, first.node_id.as_str()), (second.id, "n"), "before anything runs them");
    let _driver = drive(&app);
    let call = node.called().await;
    drop(second);
    let third = Lines::of(&app, r#"{"model":"tiny"}"#).await;
    drop(third);
    call.say(LAYER).await;
    let state = first.progress.wait_for(|state| state.phase == PullPhase::Downloading).await.unwrap().clone();
    assert_eq!((state.completed_bytes, state.total_bytes), (0, Some(700)));
    call.succeed().await;
    assert_eq!(first.finished().await.phase, PullPhase::Succeeded);
    assert!(!node.is_called());
    assert!(!app.pulls.is_pulling(&ModelName::new("tiny").unwrap()));
}

#[tokio::test]
async fn a_request_keeps_an_operators_pull_going() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let _driver = drive(&app);
    let manual = app.pulls.start(manual("tiny")).unwrap();
    let call = node.called().await;
    let mut auto = app.pulls.start(auto("tiny")).unwrap();
    drop(manual);
    call.succeed().await;
    assert_eq!(auto.finished().await.phase, PullPhase::Succeeded);
}

#[tokio::test]
async fn a_model_that_turns_out_too_large_is_dropped() {
    let mut node = Node::new().await;
    let app = with_policy(PullPolicy { max_bytes: 1000, ..PullPolicy::default() });
    app.join(node.heartbeat("n", &[], 500));
    let _driver = drive(&app);
    let mut handle = app.pulls.start(auto("tiny")).unwrap();
    let call = node.called().await;
    call.say(LAYER).await;
    call.say(&LAYER.replace("sha256:a", "sha256:b")).await;
    let told = "the model has 1400 bytes or more, at most 1000 bytes are pulled";
    assert_eq!(failure(&mut handle).await, (FailureKind::TooLarge, told.into()));
    call.dropped().await;
    // Whoever says so may.
    let mut handle = app.pulls.start(manual("tiny")).unwrap();
    let call = node.called().await;
    call.say(LAYER).await;
    call.say(&LAYER.replace("sha256:a", "sha256:b")).await;
    call.succeed().await;
    assert_eq!(handle.finished().await.phase, PullPhase::Succeeded);
}

#[tokio::test]
async fn requests_have_so_much_pulled_a_day_and_no_more() {
    let mut node = Node::new().await;
    let app = with_policy(PullPolicy { bytes_per_day: 1_000, ..PullPolicy::default() });
    app.join(node.heartbeat("n", &[], 500));
    let _driver = drive(&app);
    let mut first = app.pulls.start(auto("tiny")).unwrap();
    let call = node.called().await;
    call.say(LAYER).await;
    call.succeed().await;
    assert_eq!(first.finished().await.phase, PullPhase::Succeeded);
    // 700 bytes of the day are used; the next may have 300, and has more.
    let mut second = app.pulls.start(auto("other")).unwrap();
    let call = node.called().await;
    call.say(LAYER).await;
    assert_eq!(failure(&mut second).await.0, FailureKind::TooLarge);
    call.dropped().await;
    app.pulls.set_policy(PullPolicy { bytes_per_day: 700, ..PullPolicy::default() });
    let refused = app.pulls.start(auto("third")).map(|_| ()).map_err(|refusal| refusal.name());
    assert_eq!(refused, Err("pull_day_full"));
    assert!(app.pulls.start(manual("third")).is_ok(), "whoever says so may");
}

#[tokio::test]
async fn the_disk_keeps_its_reserve() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 11)]);
    let _driver = drive(&app);
    let mut handle = app.pulls.start(auto("tiny")).unwrap();
    let call = node.called().await;
    call.say(&LAYER.replace("700", "2000000000")).await;
    let told = "the disk has 1.0 GB to spare, the pull needs 2.0 GB or more";
    assert_eq!(failure(&mut handle).await, (FailureKind::NoDisk, told.into()));
    call.dropped().await;
    // Others write to the disk too.
    let mut handle = app.pulls.start(manual("other")).unwrap();
    let call = node.called().await;
    call.say(LAYER).await;
    handle.progress.wait_for(|state| state.total_bytes.is_some()).await.unwrap();
    let mut fuller = node.heartbeat("n", &[], 9);
    fuller.herd.as_mut().unwrap().seq = 2;
    app.join(fuller);
    call.say(&LAYER.replace("700", r#"700,"completed":1"#)).await;
    assert_eq!(failure(&mut handle).await.0, FailureKind::NoDisk);
    call.dropped().await;
}

#[tokio::test]
async fn a_pull_that_hangs_is_given_up() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let _driver = drive(&app);
    let mut handle = app.pulls.start(auto("tiny")).unwrap();
    let call = node.called().await;
    call.say(LAYER).await;
    handle.progress.wait_for(|state| state.total_bytes.is_some()).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(119)).await;
    call.say(LAYER).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(failure(&mut handle).await, (FailureKind::NoProgress, "no progress for 120 s".into()));
    tokio::time::resume();
    call.dropped().await;
}

#[tokio::test]
async fn checking_a_large_model_is_not_hanging() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let _driver = drive(&app);
    let mut handle = app.pulls.start(auto("tiny")).unwrap();
    let call = node.called().await;
    call.say(&LAYER.replace("700", r#"40000000000,"completed":40000000000"#)).await;
    call.say(r#"{"status":"verifying sha256 digest"}"#).await;
    handle.progress.wait_for(|state| state.phase == PullPhase::Verifying).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(15)).await;
    tokio::time::resume();
    call.succeed().await;
    assert_eq!(handle.finished().await.phase, PullPhase::Succeeded);
}

#[tokio::test]
async fn a_failed_pull_is_not_tried_again_at_once() {
    let mut node = Node::answering(StatusCode::INTERNAL_SERVER_ERROR).await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let _driver = drive(&app);
    let mut fail = async |ask: PullAsk, words: &str| {
        let mut handle = app.pulls.start(ask).unwrap();
        let call = node.called().await;
        call.say(words).await;
        drop(call);
        failure(&mut handle).await
    };
    let failed = fail(auto("tiny"), "<html>").await;
    assert_eq!(failed, (FailureKind::Node, "the node answered 500 Internal Server Error".into()));
    let refused = app.pulls.start(auto("tiny")).unwrap_err();
    assert!(matches!(refused, PullRefusal::BackingOff { retry_after_ms: 30_000, .. }), "{refused:?}");
    app.after_ms(5_000);
    fail(manual("tiny"), r#"{"error":"reset"}"#).await;
    app.after_ms(5_000);
    let refused = app.pulls.start(auto("tiny")).unwrap_err();
    assert_eq!(refused, PullRefusal::BackingOff { retry_after_ms: 55_000, last: "reset".into() });
    let unknown = "pull model manifest: file does not exist";
    assert_eq!(fail(auto("typo"), &format!(r#"{{"error":"{unknown}"}}"#)).await.0, FailureKind::UnknownModel);
    assert_eq!(app.pulls.start(auto("typo")).unwrap_err(), PullRefusal::UnknownModel { last: unknown.into() });
}

#[tokio::test]
async fn the_policy_binds_requests_and_can_be_switched() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500), node.heartbeat("o", &[], 500)]);
    let _driver = drive(&app);
    let refused = |ask: PullAsk| app.pulls.start(ask).map(|_| ()).map_err(|refusal| refusal.name());
    app.pulls.set_policy(PullPolicy { enabled: false, ..PullPolicy::default() });
    assert_eq!(refused(auto("tiny")), Err("pull_disabled"));
    app.pulls.set_policy(PullPolicy::default());
    assert_eq!(refused(auto("evil.example/a/b")), Err("pull_not_allowed"));
    app.pulls.set_policy(PullPolicy { running_max: 1, ..PullPolicy::default() });
    let running = app.pulls.start(manual("tiny").on("o")).unwrap();
    let _call = node.called().await;
    assert_eq!(running.node_id.as_str(), "o");
    assert_eq!(refused(manual("tiny").on("n")), Err("too_many_pulls"));
    app.source.draining.store(true, Relaxed);
    assert_eq!(refused(manual("other")), Err("stopping"));
}

#[tokio::test]
async fn stopping_cancels_pulls() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let mut driver = drive(&app);
    let mut handle = app.pulls.start(auto("tiny")).unwrap();
    let call = node.called().await;
    driver.stop.send_replace(true);
    assert_eq!(handle.finished().await.phase, PullPhase::Cancelled("herd is stopping".into()));
    call.dropped().await;
    driver.task.join_next().await.unwrap().unwrap();
    assert_eq!(app.pulls.start(auto("other")).unwrap_err(), PullRefusal::Stopping);
}

#[tokio::test]
async fn a_node_that_is_not_there_fails_the_pull() {
    let node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    drop(node);
    let _driver = drive(&app);
    let mut handle = app.pulls.start(auto("tiny")).unwrap();
    assert_eq!(failure(&mut handle).await, (FailureKind::Node, "the node cannot be reached".into()));
}
