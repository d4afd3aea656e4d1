//! Health and metrics.

use std::sync::atomic::Ordering::Relaxed;

use axum::body::Body;
use herd_core::wire::Gpu;
use http::Request;
use serde_json::json;

use crate::testing::{App, EDGE, heartbeat, loaded};

#[tokio::test]
async fn ready_means_that_somebody_can_be_served() {
    let app = App::new();
    assert_eq!(app.get("/healthz").await.told(), (200, r#"{"status":"ok"}"#));
    let ready = async || {
        let answer = app.get("/readyz").await;
        let reasons =
            answer.json()["reasons"].as_array().unwrap().iter().map(|r| r["code"].clone()).collect::<Vec<_>>();
        (answer.status.as_u16(), json!(reasons))
    };
    assert_eq!(ready().await, (503, json!(["no_nodes"])));
    app.join(heartbeat("n", &[]));
    assert_eq!(ready().await, (200, json!([])));
    app.source.draining.store(true, Relaxed);
    assert_eq!(ready().await, (503, json!(["draining"])));
    app.source.draining.store(false, Relaxed);
    app.after_ms(31_000);
    assert_eq!(ready().await, (503, json!(["offline"])));
    app.join(heartbeat("m", &[]));
    assert_eq!(ready().await, (200, json!([])), "one node is enough");
    assert_eq!(app.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn metrics_show_the_fleet_as_it_is() {
    let mut node = loaded(heartbeat("n", &[]), "m:latest", 4096);
    let gpu = Gpu { vram_total_bytes: Some(1000), vram_free_bytes: Some(250), ..Gpu::default() };
    node.herd.as_mut().unwrap().gpus = vec![gpu];
    let app = App::of([node, heartbeat("o", &[])]);
    app.after_ms(2_500);
    let answer = app.get("/metrics").await;
    assert!(answer.header("content-type").starts_with("text/plain"));
    for line in [
        "herd_build_info{version=\"1.2.3\"} 1",
        "herd_edge_draining 0",
        "herd_node_up{node=\"n\",state=\"online\"} 1",
        "herd_heartbeat_age_seconds{node=\"n\"} 2.5",
        "herd_node_in_flight{node=\"n\"} 0",
        "herd_node_models_loaded{node=\"n\"} 1",
        "herd_node_slots{node=\"n\"} 1",
        "herd_node_vram_free_bytes{node=\"n\"} 250",
    ] {
        assert!(answer.body.lines().any(|one| one == line), "{line} is not in\n{}", answer.body);
    }
    assert!(!answer.body.contains("vram_free_bytes{node=\"o\"}"), "what is not known has no sample");
    app.after_ms(60_000);
    let later = app.get("/metrics").await.body;
    assert!(later.contains("herd_node_up{node=\"n\",state=\"offline\"} 0"));
    assert!(!later.contains("state=\"online\""), "a state that has passed leaves no series");
}

#[tokio::test]
async fn metrics_are_not_for_the_port_that_clients_reach() {
    let app = App::new();
    let request = Request::get("/metrics").header("x-herd-edge", EDGE).header("x-forwarded-for", "127.0.0.1");
    let answer = app.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.told(), (404, r#"{"error":{"code":"not_found","message":"404 page not found"}}"#));
}
