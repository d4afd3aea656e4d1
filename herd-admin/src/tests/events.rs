//! What changes, as clients of the event stream see it.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::history::record;
use crate::events;
use crate::testing::{App, heartbeat};

const LIMIT: Duration = Duration::from_mins(1);

struct Client {
    body: Body,
    text: String,
}

impl Client {
    async fn open(app: &App) -> Self {
        let response = app.open(Request::get("/dashboard/events").body(Body::empty()).unwrap()).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next block; `None` = the stream is over.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let frame = tokio::time::timeout(LIMIT, self.body.frame()).await.unwrap()?.unwrap();
            self.text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    }

    /// The next event of that name.
    async fn event(&mut self, wanted: &str) -> Value {
        loop {
            let block = self.block().await.unwrap();
            let Some((name, data)) = block.strip_prefix("event: ").and_then(|rest| rest.split_once("\ndata: ")) else {
                continue;
            };
            if name == wanted {
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_gets_a_snapshot_and_then_what_changes() {
    let app = App::of([heartbeat("a", &["tiny:latest"])]);
    let (stop, stopped) = watch::channel(false);
    let mut producer = JoinSet::new();
    producer.spawn(events::run(app.state.clone(), stopped));
    app.state.request_ended(&record(1));
    let (mut first, mut second) = (Client::open(&app).await, Client::open(&app).await);
    for client in [&mut first, &mut second] {
        let snapshot = client.event("snapshot").await;
        assert_eq!(snapshot["status"]["nodes"][0]["node_id"], "a");
        assert_eq!((&snapshot["requests"]["total"], &snapshot["queue"]["waiting"]), (&0.into(), &0.into()));
        assert_eq!(snapshot["overview_now"]["nodes_total"], 1);
    }
    // Between the clients' snapshots and the producer's first picture.
    app.join(heartbeat("c", &[]));
    for client in [&mut first, &mut second] {
        let nodes = client.event("snapshot").await["status"]["nodes"].take();
        assert_eq!(nodes.as_array().unwrap().len(), 2, "{nodes}");
    }
    app.join(heartbeat("b", &[]));
    app.state.request_ended(&record(2));
    for client in [&mut first, &mut second] {
        let nodes = client.event("nodes").await;
        assert_eq!((&nodes["nodes"][0]["node_id"], &nodes["removed"]), (&"b".into(), &serde_json::json!([])));
        assert_eq!(client.event("trace").await["request_id"], "r2", "the first was before anybody listened");
    }
    app.after_ms(1);
    assert_eq!(first.block().await.unwrap(), ": keep-alive", "ages alone are no change");
    stop.send(true).unwrap();
    producer.join_next().await.unwrap().unwrap();
    while first.block().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_another_snapshot() {
    let app = App::new();
    let (_stop, stopped) = watch::channel(false);
    let mut producer = JoinSet::new();
    producer.spawn(events::run(app.state.clone(), stopped));
    let mut slow = Client::open(&app).await;
    // Its own, and the producer's first.
    slow.event("snapshot").await;
    slow.event("snapshot").await;
    for second in 0..30 {
        for id in 0..20 {
            app.state.request_ended(&record(second * 100 + id));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    slow.event("snapshot").await;
    app.state.request_ended(&record(7));
    assert_eq!(slow.event("trace").await["request_id"], "r7", "it goes on from there");
}

#[tokio::test]
async fn clients_are_bounded() {
    let app = App::new();
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(Client::open(&app).await);
    }
    let refused = app.get("/dashboard/events").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (503, &"too_many_clients".into()));
    clients.pop();
    Client::open(&app).await;
}
