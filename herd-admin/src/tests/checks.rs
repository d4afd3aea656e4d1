//! Findings and recommendations.

mod fed;

use super::history::{Kept, record};
use crate::checks::look;
use crate::testing::{App, heartbeat, loaded};

#[tokio::test]
async fn a_healthy_fleet_scores_100_and_says_so() {
    let kept = Kept::open().await;
    let app = kept.app();
    assert_eq!(app.get("/dashboard/api/health").await.json()["status"], "unknown");
    app.join(loaded(heartbeat("a", &["tiny:latest"]), "tiny:latest", 8_192));
    kept.fill((0..30).map(record)).await;
    for _ in 0..4 {
        look(&app.state, true).await;
    }
    let health = app.get("/dashboard/api/health").await.json();
    assert_eq!((&health["score"], &health["status"]), (&100.into(), &"healthy".into()), "{health}");
    kept.store.set_setting("last", &1).await.unwrap();
    // Another process knows what this one saw.
    for app in [&app, &kept.app()] {
        let history = app.get("/dashboard/api/health/history?range=1h").await.json();
        assert_eq!(history["points"][0]["score"], 100);
    }
    let without = App::new();
    look(&without.state, false).await;
    look(&without.state, false).await;
    let history = without.get("/dashboard/api/health/history?range=1h").await.json();
    assert!((1..=2).contains(&history["points"].as_array().unwrap().len()), "{history}");
    assert!(app.get("/dashboard/api/recommendations").await.json()["recommendations"].is_array());
    let asked = app.post("/dashboard/api/health/check", "{}").await.json();
    assert_eq!((&asked["score"], &asked["evaluations"]), (&100.into(), &5.into()));
    let csv = app.get("/dashboard/api/health/history?format=csv").await;
    assert!(csv.body.starts_with("at_unix_ms,"), "{}", csv.body);
}

#[tokio::test]
async fn a_finding_is_acknowledged_muted_and_known_after_a_restart() {
    let kept = Kept::open().await;
    let app = kept.app();
    for _ in 0..3 {
        look(&app.state, false).await;
    }
    let health = app.get("/dashboard/api/health").await.json();
    let finding = &health["findings"][0];
    assert_eq!(
        (&finding["id"], &finding["severity"], &finding["state"]),
        (&"fleet_empty".into(), &"critical".into(), &"open".into())
    );
    assert!(health["score"].as_u64().unwrap() < 100);
    let said = app.post("/dashboard/api/health/acknowledge", r#"{"finding":"fleet_empty"}"#).await;
    assert_eq!(said.json()["state"], "acknowledged");
    assert_eq!(app.post("/dashboard/api/health/acknowledge", r#"{"finding":"node_down|x"}"#).await.status, 404);
    assert_eq!(app.get("/dashboard/api/health").await.json()["findings"][0]["state"], "acknowledged");
    app.post("/dashboard/api/health/mute", r#"{"finding":"fleet_empty"}"#).await;
    assert_eq!(
        app.post("/dashboard/api/health/mute", r#"{"finding":"fleet_empty","until_unix_ms":5}"#).await.status,
        400
    );
    assert_eq!(app.post("/dashboard/api/health/mute", r#"{"finding":"nonsense"}"#).await.status, 404);
    assert_eq!(app.get("/dashboard/api/health").await.json()["score"], 100, "what is muted costs nothing");

    let later = kept.app();
    look(&later.state, false).await;
    let health = later.get("/dashboard/api/health").await.json();
    assert_eq!((&health["findings"][0]["state"], &health["muted"]), (&"muted".into(), &1.into()));
    later.post("/dashboard/api/health/unmute", r#"{"finding":"fleet_empty"}"#).await;
    assert_eq!(later.get("/dashboard/api/health").await.json()["findings"][0]["state"], "acknowledged");
}

#[tokio::test]
async fn the_checks_work_without_a_store() {
    let app = App::of([heartbeat("a", &["tiny:latest"])]);
    for _ in 0..3 {
        look(&app.state, true).await;
    }
    assert_eq!(app.get("/dashboard/api/health").await.json()["evaluations"], 3);
}
