//! Health and metrics.

use std::sync::atomic::Ordering::Relaxed;

use axum::body::Body;
use herd_core::wire::{Cpu, DiskBytes, Gpu, MemoryBytes, Thermal};
use http::Request;
use serde_json::json;

use crate::testing::{App, EDGE, PYTHON_HEARTBEAT, heartbeat, loaded};
use crate::{MODEL_LABELS, OTHER_MODELS};

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
    let gpu = Gpu {
        vram_total_bytes: Some(1000),
        vram_free_bytes: Some(250),
        utilization_pct: Some(50.0),
        temperature_c: Some(71.0),
        power_watts: Some(250.0),
        ..Gpu::default()
    };
    let report = node.herd.as_mut().unwrap();
    report.gpus = vec![gpu];
    report.memory = Some(MemoryBytes { total_bytes: 4000, available_bytes: 3000, ..MemoryBytes::default() });
    report.disk = Some(DiskBytes { total_bytes: 9000, available_bytes: 8000, ..DiskBytes::default() });
    node.cpu = Some(Cpu { utilization_pct: 25.0, ..Cpu::default() });
    node.thermal = Some(Thermal { temperature_c: Some(60.5), ..Thermal::default() });
    let app = App::of([node, heartbeat("o", &[])]);
    app.after_ms(2_500);
    let answer = app.get("/metrics").await;
    assert!(answer.header("content-type").starts_with("text/plain"));
    for line in [
        "herd_build_info{revision=\"unknown\",rustc=\"unknown\",version=\"1.2.3\"} 1",
        "herd_edge_draining 0",
        "herd_node_up{node=\"n\",state=\"online\"} 1",
        "herd_heartbeat_age_seconds{node=\"n\"} 2.5",
        "herd_node_in_flight{node=\"n\"} 0",
        "herd_node_models_loaded{node=\"n\"} 1",
        "herd_node_slots{node=\"n\"} 1",
        "herd_node_vram_free_bytes{node=\"n\"} 250",
        "herd_nodes{state=\"online\"} 2",
        "herd_nodes{state=\"offline\"} 0",
        "herd_node_condition{condition=\"well\",node=\"n\"} 1",
        "herd_node_memory_total_bytes{node=\"n\"} 4000",
        "herd_node_memory_available_bytes{node=\"n\"} 3000",
        "herd_node_memory_pressure{node=\"n\"} 0",
        "herd_node_disk_available_bytes{node=\"n\"} 8000",
        "herd_node_cpu_utilization_ratio{node=\"n\"} 0.25",
        "herd_node_temperature_celsius{node=\"n\"} 60.5",
        "herd_gpu_vram_free_bytes{gpu=\"0\",node=\"n\"} 250",
        "herd_gpu_utilization_ratio{gpu=\"0\",node=\"n\"} 0.5",
        "herd_gpu_temperature_celsius{gpu=\"0\",node=\"n\"} 71",
        "herd_gpu_power_watts{gpu=\"0\",node=\"n\"} 250",
        "herd_model_resident_bytes{model=\"m:latest\",node=\"n\"} 1073741824",
        "herd_model_context_tokens{model=\"m:latest\",node=\"n\"} 4096",
        "herd_requests_in_flight 0",
        "herd_requests_waiting 0",
        "herd_limit{limit=\"queue.max_waiting\"} 7",
        "herd_limit_used{limit=\"queue.max_waiting\"} 1",
        "herd_store_drops_total 0",
    ] {
        assert!(answer.body.lines().any(|one| one == line), "{line} is not in\n{}", answer.body);
    }
    assert!(!answer.body.contains("vram_free_bytes{node=\"o\"}"), "what is not known has no sample");
    app.after_ms(60_000);
    let later = app.get("/metrics").await.body;
    assert!(later.contains("herd_node_up{node=\"n\",state=\"offline\"} 0"));
    assert!(!later.contains("node=\"n\",state=\"online\""), "a state that has passed leaves no series");
}

#[tokio::test]
async fn a_node_of_the_python_project_has_metrics_too() {
    let app = App::of([serde_json::from_str(PYTHON_HEARTBEAT).unwrap()]);
    let text = app.get("/metrics").await.body;
    for name in ["memory_total_bytes", "memory_available_bytes", "disk_available_bytes"] {
        let line = text.lines().find(|line| line.starts_with(&format!("herd_node_{name}{{")));
        let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value > 0.0), "{name}: {line:?}");
    }
}

#[tokio::test]
async fn models_beyond_the_limit_share_one_label() {
    let names = (0..MODEL_LABELS + 3).map(|number| format!("m{number:03}:latest"));
    let app = App::of([names.fold(heartbeat("n", &[]), |node, name| loaded(node, &name, 4096))]);
    let text = app.get("/metrics").await.body;
    let series = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
    assert_eq!(series("herd_model_resident_bytes"), MODEL_LABELS + 1);
    assert_eq!(series("herd_model_context_tokens"), MODEL_LABELS);
    let other = format!("herd_model_resident_bytes{{model=\"{OTHER_MODELS}\",node=\"n\"}} {}", 3_u64 << 30);
    assert!(text.lines().any(|line| line == other), "{text}");
}

#[tokio::test]
async fn metrics_are_not_for_the_port_that_clients_reach() {
    let app = App::new();
    let request = Request::get("/metrics")
        .header("x-herd-edge", EDGE)
        .header("x-forwarded-for", "127.0.0.1")
        .header("x-herd-source", "local");
    let answer = app.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.told(), (404, r#"{"error":{"code":"not_found","message":"404 page not found"}}"#));
}
