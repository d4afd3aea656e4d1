//! A node whose answers a test gives line by line, and a client that reads them so.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::stream;
use herd_core::wire::{DiskBytes, Heartbeat};
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::testing::{App, heartbeat, post};

/// One request that came to a node.
pub(super) struct Call {
    pub(super) path: String,
    pub(super) body: Value,
    /// The answer's body. It is closed once the other side has dropped the connection.
    lines: mpsc::Sender<String>,
}

impl Call {
    pub(super) async fn say(&self, line: &str) {
        self.lines.send(format!("{line}\n")).await.unwrap();
    }

    /// The end of what went well.
    pub(super) async fn succeed(self) {
        self.say(r#"{"status":"success"}"#).await;
    }

    /// Waits until the other side is gone.
    pub(super) async fn dropped(&self) {
        self.lines.closed().await;
    }
}

/// A node.
pub(super) struct Node {
    pub(super) address: SocketAddr,
    calls: mpsc::Receiver<Call>,
    _server: JoinSet<()>,
}

impl Node {
    pub(super) async fn new() -> Self {
        Self::answering(StatusCode::OK).await
    }

    pub(super) async fn answering(status: StatusCode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (called, calls) = mpsc::channel(16);
        let answer = move |request: Request| {
            let called = called.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap();
                let (lines, told) = mpsc::channel(16);
                called.send(Call { path: parts.uri.path().into(), body, lines }).await.unwrap();
                let body = stream::unfold(told, async |mut told| Some((told.recv().await?, told)));
                let body = Body::from_stream(futures_util::StreamExt::map(body, Ok::<_, std::io::Error>));
                Response::builder().status(status).body(body).unwrap()
            }
        };
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
        Self { address, calls, _server: server }
    }

    /// The next request.
    pub(super) async fn called(&mut self) -> Call {
        self.calls.recv().await.unwrap()
    }

    /// Whether requests wait to be answered.
    pub(super) fn is_called(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Its heartbeat, with so many GB of free disk.
    pub(super) fn heartbeat(&self, id: &str, models: &[&str], disk_gb: u64) -> Heartbeat {
        let mut heartbeat = Heartbeat { ollama_host: format!("http://{}", self.address), ..heartbeat(id, models) };
        let disk = DiskBytes { available_bytes: disk_gb * 1_000_000_000, ..DiskBytes::default() };
        heartbeat.herd.as_mut().unwrap().disk = Some(disk);
        heartbeat
    }
}

/// What runs an app's pulls, until it is dropped or told to stop.
pub(super) struct Driver {
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: JoinSet<()>,
}

pub(super) fn drive(app: &App) -> Driver {
    let (stop, stopped) = watch::channel(false);
    let mut task = JoinSet::new();
    let pulls = app.pulls.clone();
    task.spawn(async move { pulls.run(stopped).await });
    Driver { stop, task }
}

/// An answer that is read line by line.
pub(super) struct Lines {
    body: Body,
    text: String,
}

impl Lines {
    /// Asks `app` to pull.
    pub(super) async fn of(app: &App, body: &str) -> Self {
        let response = app.open(post("/api/pull").body(body.to_owned().into()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next line; empty = there is no more.
    pub(super) async fn next(&mut self) -> String {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let line = line.to_owned();
                self.text = rest.to_owned();
                return line;
            }
            let Some(frame) = self.body.frame().await else { return String::new() };
            self.text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        }
    }
}
