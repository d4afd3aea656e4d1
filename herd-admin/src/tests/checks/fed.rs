//! Every check over counts fires from what is really counted, and not without.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use herd_core::health::CHECKS;
use herd_core::record::{AttemptRecord, RequestRecord};
use herd_core::vocabulary::{ContextAction, Recorded, ReloadCause, Status};
use herd_core::wire::{DiskBytes, Gpu, Heartbeat, OllamaEnv};
use herd_store::HOUR_MS;

use super::super::history::{Kept, record};
use super::super::pull_jobs::auto;
use super::super::scripted::{Node, drive};
use crate::checks::look;
use crate::testing::{App, heartbeat, loaded};
use crate::{AdminConfig, EdgeCounts};

const GIB: u64 = 1 << 30;
const MODEL: &str = "tiny:latest";

/// Two nodes with a GPU of 24 GiB and `MODEL` in memory.
fn nodes() -> [Heartbeat; 2] {
    ["a", "b"].map(|id| {
        let mut heartbeat = loaded(heartbeat(id, &[MODEL]), MODEL, 4_096);
        let report = heartbeat.herd.as_mut().unwrap();
        report.disk = Some(DiskBytes { total_bytes: 900 * GIB, available_bytes: 400 * GIB, ..DiskBytes::default() });
        report.gpus = vec![Gpu { vram_total_bytes: Some(24 * GIB), vram_free_bytes: Some(22 * GIB), ..Gpu::default() }];
        report.ollama.loaded[0].size_vram_bytes = GIB;
        heartbeat
    })
}

fn join(app: &App, nodes: [Heartbeat; 2]) {
    for node in nodes {
        app.join(node);
    }
}

/// What all looks so far have found, as `check node model`.
async fn found(app: &App) -> BTreeSet<String> {
    // As many as the slowest check waits for.
    for _ in 0..4 {
        look(&app.state, false).await;
    }
    let health = app.get("/dashboard/api/health").await.json();
    let text = |one: &serde_json::Value, name: &str| one[name].as_str().unwrap_or("-").to_owned();
    let findings = health["findings"].as_array().unwrap().iter();
    findings.map(|one| format!("{} {} {}", text(one, "check"), text(one, "node_id"), text(one, "model"))).collect()
}

/// What is found of these requests on two nodes that are otherwise well.
async fn found_in(records: Vec<RequestRecord>) -> BTreeSet<String> {
    let kept = Kept::open().await;
    let app = kept.app();
    join(&app, nodes());
    kept.fill(records).await;
    found(&app).await
}

#[track_caller]
fn check(found: &BTreeSet<String>, wanted: &[&str]) {
    assert_eq!(*found, wanted.iter().map(|one| (*one).to_owned()).collect());
}

fn times(count: u64, edit: impl Fn(&mut RequestRecord)) -> Vec<RequestRecord> {
    let records = (0..count).map(|id| {
        let mut record = RequestRecord { stream: Some(true), predicted_ms: Some(250.0), ..record(id) };
        edit(&mut record);
        record
    });
    records.collect()
}

#[tokio::test]
async fn requests_that_go_well_are_no_findings() {
    check(&found_in(times(60, |_| {})).await, &[]);
}

#[tokio::test]
async fn endings_are_found_at_their_nodes() {
    for (status, count, wanted) in [
        ("failed", 3, "failure_rate a -"),
        ("incomplete", 3, "incomplete_streams a tiny:latest"),
        ("client_disconnected", 8, "client_disconnects a tiny:latest"),
        ("reaped", 2, "zombies a -"),
    ] {
        let mut records = times(60, |_| {});
        records[..count].iter_mut().for_each(|record| record.status = Recorded::parse(status));
        check(&found_in(records).await, &[wanted]);
    }
}

#[tokio::test]
async fn reloads_are_found_by_their_cause() {
    for (cause, wanted) in [
        ("context_larger", "reload_thrash a tiny:latest"),
        ("context_differs", "reload_thrash a tiny:latest"),
        ("launch_options", "reload_thrash a tiny:latest"),
        ("node_default", "v1_default_mismatch a tiny:latest"),
    ] {
        let mut records = times(60, |_| {});
        for record in &mut records[..8] {
            (record.context_action, record.reload_cause) = (Some(ContextAction::Reload), ReloadCause::parse(cause));
        }
        check(&found_in(records).await, &[wanted]);
    }
}

#[tokio::test]
async fn attempts_that_fail_are_found_where_they_were_made() {
    let attempt = |node_id: &str, outcome: &str| AttemptRecord {
        node_id: node_id.into(),
        outcome: Recorded::parse(outcome).unwrap(),
        ..AttemptRecord::default()
    };
    let retried = |outcome: &str| {
        times(40, |record| {
            record.retry_count = 1;
            record.attempts = vec![attempt("b", outcome), attempt("a", "completed")];
        })
    };
    check(&found_in(retried("reset")).await, &["retry_rate b -"]);
    // All of b's attempts failed: no request ended there, and few are no rate.
    let mut busy = retried("busy");
    busy.extend(times(40, |record| {
        record.node_id = "b".into();
        record.attempts = vec![attempt("b", "completed")];
    }));
    check(&found_in(busy).await, &["busy_answers b tiny:latest", "retry_rate b -"]);
}

#[tokio::test]
async fn cut_prompts_and_idle_windows_are_found() {
    let cut = times(40, |record| (record.estimated_tokens, record.overflow) = (Some(9_000), true));
    check(&found_in(cut).await, &["context_overflow a tiny:latest"]);
    let kept = Kept::open().await;
    let app = kept.app();
    let [mut a, b] = nodes();
    a.herd.as_mut().unwrap().ollama.loaded[0].context_length = 131_072;
    join(&app, [a, b]);
    kept.fill(times(40, |record| record.counts.prompt_tokens = Some(3_000))).await;
    check(&found(&app).await, &["context_oversized a tiny:latest"]);
}

#[tokio::test]
async fn a_node_is_slow_against_its_peers_and_against_itself() {
    let on = |node: &str, decode_ms: f64, ago_ms: u64| {
        times(30, |record| {
            record.node_id = node.into();
            (record.decode_ms, record.counts.completion_tokens) = (Some(decode_ms), Some(101));
            record.timestamp_ms -= ago_ms;
        })
    };
    let all = [on("a", 10_000.0, 0), on("b", 1_000.0, 0)].concat();
    check(&found_in(all).await, &["slow_node a tiny:latest"]);
    let slowed = [on("a", 10_000.0, 0), on("a", 1_000.0, 3 * HOUR_MS), on("a", 1_000.0, 4 * HOUR_MS)].concat();
    check(&found_in(slowed).await, &["node_slowed a tiny:latest"]);
}

#[tokio::test]
async fn loads_and_waits_are_found_with_what_is_in_the_way() {
    let cold = || {
        times(30, |record| {
            (record.context_action, record.counts.load_ms) = (Some(ContextAction::Load), Some(4_000.0));
        })
    };
    check(&found_in(cold()).await, &["keep_alive_short a tiny:latest"]);
    for (env, size_bytes, wanted) in [
        (OllamaEnv { max_loaded_models: Some(1), ..OllamaEnv::default() }, GIB, "max_loaded_reached"),
        (OllamaEnv::default(), 40 * GIB, "cold_loads"),
    ] {
        let kept = Kept::open().await;
        let app = kept.app();
        let [mut a, b] = nodes();
        let ollama = &mut a.herd.as_mut().unwrap().ollama;
        ollama.env = env;
        ollama.available.push(ollama.available[0].clone());
        ollama.available[1].name = "other:latest".into();
        ollama.available[1].size_bytes = size_bytes;
        join(&app, [a, b]);
        let other = times(30, |record| record.model = "other:latest".into());
        kept.fill(cold().into_iter().chain(other)).await;
        let found = found(&app).await;
        assert!(found.contains(&format!("{wanted} a tiny:latest")), "{found:?}");
    }
    let waits = times(30, |record| {
        (record.queue_ms, record.predicted_ms) = (Some(15_000.0), Some(15_000.0));
    });
    check(&found_in(waits).await, &["num_parallel_low a tiny:latest", "queue_saturated - -"]);
}

#[tokio::test]
async fn predictions_are_held_to_what_streams_took() {
    let off = |stream| {
        times(40, move |record| {
            (record.time_to_first_token_ms, record.stream) = (Some(9_000.0), Some(stream));
        })
    };
    check(&found_in(off(true)).await, &["prediction_drift a tiny:latest"]);
    // An answer in one piece says nothing of when it began.
    check(&found_in(off(false)).await, &[]);
}

#[tokio::test]
async fn demand_goes_by_the_name_that_was_asked_for() {
    let unknown = times(6, |record| {
        record.model = "misspelt:latest".into();
        record.original_model = "misspelt:latest".into();
        (record.node_id, record.status, record.http_status) = (String::new(), Some(Status::Rejected.into()), 404);
    });
    check(&found_in(unknown).await, &["model_missing - misspelt:latest"]);
    let stands_in = |fallback_used| {
        times(30, move |record| {
            record.original_model = "big:latest".into();
            record.fallback_used = fallback_used;
        })
    };
    check(&found_in(stands_in(true)).await, &["stand_ins - big:latest"]);
    check(&found_in(stands_in(false)).await, &[]);
}

#[tokio::test]
async fn counters_of_the_edge_are_found_for_an_hour() {
    let kept = Kept::open().await;
    let app = kept.app();
    join(&app, nodes());
    kept.fill(times(60, |_| {})).await;
    check(&found(&app).await, &[]);
    *app.source.counts.lock().unwrap() = EdgeCounts {
        queue_refused: 4,
        queue_timeouts: 3,
        retry_budget_exhausted: 5,
        unforeseen_loads: 20,
        bodies_refused: 5,
        sleeps: 1,
        unmarked_proxies: 1,
    };
    let all = [
        "bodies_refused - -",
        "edge_asleep - -",
        "queue_refusals - -",
        "retry_budget_exhausted - -",
        "unforeseen_loads - -",
        "unmarked_proxy - -",
    ];
    check(&found(&app).await, &all);
    // The nodes are heard all the time; the counters rise no more.
    for _ in 0..61 {
        app.after_ms(60_000);
        join(&app, nodes().map(|node| later(node, app.source.now_ms.load(Relaxed))));
        look(&app.state, false).await;
    }
    check(&found(&app).await, &[]);
}

fn later(mut heartbeat: Heartbeat, seq: u64) -> Heartbeat {
    heartbeat.herd.as_mut().unwrap().seq = seq;
    heartbeat
}

#[tokio::test]
async fn nodes_that_come_and_go_are_counted() {
    let app = App::new();
    for turn in 1..=4_u64 {
        join(&app, nodes().map(|node| later(node, turn * 2)));
        look(&app.state, false).await;
        app.after_ms(40_000);
        app.join(later(nodes()[1].clone(), turn * 2 + 1));
        look(&app.state, false).await;
    }
    let found = found(&app).await;
    assert!(found.contains("node_flapping a -"), "{found:?}");
    assert!(!found.contains("node_flapping b -"), "{found:?}");
}

#[tokio::test]
async fn disks_are_told_by_heartbeats_and_by_the_system() {
    let app = App::new();
    let [mut a, b] = nodes();
    a.herd.as_mut().unwrap().disk.as_mut().unwrap().available_bytes = GIB;
    join(&app, [a, b]);
    check(&found(&app).await, &["disk_low a -"]);
    let kept = Kept::open().await;
    let free = kept.store.health().disk_free_bytes;
    assert!(free.is_some_and(|bytes| bytes > 0), "{free:?}");
}

#[tokio::test]
async fn one_burst_of_lost_traces_is_a_finding() {
    let kept = Kept::open().await;
    let app = kept.app();
    join(&app, nodes());
    kept.fill(times(30, |_| {})).await;
    check(&found(&app).await, &[]);
    let mut kept = kept;
    // What comes after the end is lost.
    assert!(kept.close(Duration::from_secs(30)));
    drop(kept.store.record(record(99)));
    check(&found(&app).await, &["traces_dropped - -"]);
}

#[tokio::test]
async fn pulls_for_requests_that_fail_are_a_finding() {
    let mut node = Node::new().await;
    let app = App::with(AdminConfig::default());
    app.join(node.heartbeat("n", &[], 500));
    let _driver = drive(&app);
    for model in ["one", "two"] {
        assert!(!found(&app).await.contains("auto_pull_failed - -"), "{model}");
        let mut pull = app.pulls.start(auto(model)).unwrap();
        node.called().await.say(r#"{"error":"the disk is full"}"#).await;
        pull.finished().await;
    }
    let found = found(&app).await;
    assert!(found.contains("auto_pull_failed - -"), "{found:?}");
}

#[tokio::test]
async fn the_last_hour_is_known_after_a_restart() {
    let kept = Kept::open().await;
    kept.fill(times(60, |record| record.status = Some(Status::Failed.into()))).await;
    let kept = kept.reopen().await;
    let app = kept.app();
    join(&app, nodes());
    while app.state.config().store.as_ref().unwrap().last_hour(herd_store::unix_ms()).total.summary().requests < 60 {
        tokio::task::yield_now().await;
    }
    check(&found(&app).await, &["failure_rate a -"]);
}

/// The checks that this file makes fire, or whose state is plain from a heartbeat and tested where they are made.
#[test]
fn no_check_over_counts_is_left_out() {
    let source = include_str!("fed.rs");
    let left: Vec<_> = CHECKS.iter().filter(|check| check.min_samples > 0 && !source.contains(check.id)).collect();
    assert!(left.is_empty(), "{left:?}");
}
