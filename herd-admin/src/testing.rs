//! The admin service over a fleet made of heartbeats, without an edge, a listener or a wait.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use herd_core::decide::Policy;
use herd_core::fleet::{Applied, FleetSnapshot, HeartbeatError, HeartbeatLimits, ModelChange, Sender};
use herd_core::name::ModelName;
use herd_core::wire::{AvailableModel, Heartbeat, HerdReport, LoadedModel, OllamaReport};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use prometheus::Registry;
use serde_json::Value;
use tower::ServiceExt;

use crate::{
    AdminConfig, AdminState, EdgeCounts, FleetSource, Limit, LiveView, Pulls, QueueView, Setting, SettingsChange,
    SettingsError, router,
};

/// A fleet whose clock the test moves.
#[derive(Default)]
pub(crate) struct FakeSource {
    fleet: Mutex<Arc<FleetSnapshot>>,
    pub(crate) now_ms: AtomicU64,
    pub(crate) draining: AtomicBool,
    pub(crate) queue: Mutex<Arc<QueueView>>,
    pub(crate) live: Mutex<Vec<LiveView>>,
    pub(crate) counts: Mutex<EdgeCounts>,
}

impl FakeSource {
    /// Replaces the fleet by what `change` makes of it, if that is something.
    pub(crate) fn change(&self, change: impl FnOnce(&FleetSnapshot) -> Option<FleetSnapshot>) {
        let mut fleet = self.fleet.lock().unwrap();
        if let Some(next) = change(&fleet) {
            *fleet = Arc::new(next);
        }
    }
}

impl FleetSource for FakeSource {
    fn snapshot(&self) -> Arc<FleetSnapshot> {
        Arc::clone(&self.fleet.lock().unwrap())
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.load(Relaxed)
    }

    fn policy(&self) -> Arc<Policy> {
        Arc::default()
    }

    fn queue(&self) -> Arc<QueueView> {
        Arc::clone(&self.queue.lock().unwrap())
    }

    fn live(&self, most: usize) -> (usize, Vec<LiveView>) {
        let live = self.live.lock().unwrap();
        (live.len(), live.iter().take(most).cloned().collect())
    }

    fn cancel(&self, request_id: &str) -> usize {
        let mut live = self.live.lock().unwrap();
        let before = live.len();
        live.retain(|request| *request.request_id != *request_id);
        before - live.len()
    }

    fn settings(&self) -> Vec<Setting> {
        Vec::new()
    }

    fn change_settings(&self, changes: &serde_json::Map<String, Value>) -> Result<SettingsChange, SettingsError> {
        let wrong = changes.keys().filter(|key| *key != "known");
        let wrong: Vec<_> = wrong.map(|key| (key.clone(), "there is no such key".to_owned())).collect();
        if !wrong.is_empty() {
            return Err(SettingsError { wrong });
        }
        let keys = changes.keys().cloned().collect();
        Ok(SettingsChange {
            changed: keys,
            unknown: Vec::new(),
            needs_restart: Vec::new(),
            persisted: true,
            error: None,
        })
    }

    fn counts(&self) -> EdgeCounts {
        *self.counts.lock().unwrap()
    }

    fn limits(&self) -> Vec<Limit> {
        vec![Limit { name: "queue.max_waiting".to_owned(), limit: 7.0, used: Some(1.0) }]
    }

    fn heartbeat(&self, heartbeat: Heartbeat, sender: Sender) -> Result<&'static str, HeartbeatError> {
        let (id, now_ms, life) = (heartbeat.node_id.clone(), self.now_ms(), self.policy().life);
        let mut fleet = self.fleet.lock().unwrap();
        if let Applied::Changed(next) = fleet.apply(heartbeat, sender, now_ms, &life, &HeartbeatLimits::default())? {
            *fleet = Arc::new(next);
        }
        Ok(fleet.node(&id).map_or("offline", |node| node.state(now_ms, &life).name()))
    }

    fn set_cordon(&self, id: &str, cordoned: bool) -> bool {
        let mut fleet = self.fleet.lock().unwrap();
        let Some(next) = fleet.with_cordon(id, cordoned) else { return false };
        *fleet = Arc::new(next);
        true
    }

    fn remove(&self, id: &str) -> bool {
        let mut fleet = self.fleet.lock().unwrap();
        let Some(next) = fleet.node(id).and_then(|node| fleet.without(&node.id)) else { return false };
        *fleet = Arc::new(next);
        true
    }

    fn model_changed(&self, id: &str, model: &ModelName, change: ModelChange<'_>) {
        self.change(|fleet| fleet.with_change(id, model, change, self.now_ms()));
    }

    fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}

/// The admin service under test.
pub(crate) struct App {
    pub(crate) source: Arc<FakeSource>,
    pub(crate) pulls: Pulls,
    pub(crate) state: AdminState,
    router: Router,
}

/// What the edge of these tests shows.
pub(crate) const EDGE: &str = "edge's own";

impl App {
    pub(crate) fn new() -> Self {
        Self::with(AdminConfig::default())
    }

    pub(crate) fn with(config: AdminConfig) -> Self {
        let source = Arc::new(FakeSource::default());
        let config = AdminConfig { version: "1.2.3".into(), edge_secret: Some(EDGE.into()), ..config };
        let state = AdminState::new(Arc::clone(&source) as Arc<dyn FleetSource>, config, Registry::new()).unwrap();
        Self { source, pulls: state.pulls().clone(), router: router(state.clone()), state }
    }

    /// With these nodes in its fleet.
    pub(crate) fn of(heartbeats: impl IntoIterator<Item = Heartbeat>) -> Self {
        let app = Self::new();
        heartbeats.into_iter().for_each(|heartbeat| app.join(heartbeat));
        app
    }

    #[track_caller]
    pub(crate) fn join(&self, heartbeat: Heartbeat) {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let joined = self.source.heartbeat(heartbeat, Sender::at(ip));
        joined.unwrap();
    }

    pub(crate) fn after_ms(&self, ms: u64) {
        self.source.now_ms.fetch_add(ms, Relaxed);
    }

    /// Sends `request`, from this machine unless it says otherwise, and leaves the answer's body to come.
    pub(crate) async fn open(&self, mut request: Request<Body>) -> Response {
        if request.extensions().get::<ConnectInfo<SocketAddr>>().is_none() {
            request.extensions_mut().insert(from("127.0.0.1"));
        }
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// The same with the whole answer.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.open(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// Posts JSON, or what pretends to be.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(post(path).body(body.into()).unwrap()).await
    }
}

/// A request that posts JSON, for more headers.
pub(crate) fn post(path: &str) -> http::request::Builder {
    Request::post(path).header("content-type", "application/json").header("host", "127.0.0.1:11436")
}

/// The extension of a request on a connection from `ip`.
pub(crate) fn from(ip: &str) -> ConnectInfo<SocketAddr> {
    ConnectInfo(SocketAddr::new(ip.parse().unwrap(), 40_000))
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The header's text; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and body, for one comparison.
    pub(crate) fn told(&self) -> (u16, &str) {
        (self.status.as_u16(), &self.body)
    }
}

/// A heartbeat of our agent, with `models` on disk and none in memory.
pub(crate) fn heartbeat(id: &str, models: &[&str]) -> Heartbeat {
    let available = models.iter().map(|name| AvailableModel { name: (*name).into(), ..AvailableModel::default() });
    report(id, OllamaReport { available: available.collect(), ..OllamaReport::default() })
}

/// A heartbeat of our agent with this report.
pub(crate) fn report(id: &str, ollama: OllamaReport) -> Heartbeat {
    let report = HerdReport { boot: "boot".into(), seq: 1, ollama, ..HerdReport::default() };
    Heartbeat { node_id: id.into(), herd: Some(report), ..Heartbeat::default() }
}

/// `heartbeat` with `model` in memory.
pub(crate) fn loaded(mut heartbeat: Heartbeat, model: &str, context_length: u64) -> Heartbeat {
    let loaded = LoadedModel { name: model.into(), size_bytes: 1 << 30, context_length, ..LoadedModel::default() };
    heartbeat.herd.as_mut().unwrap().ollama.loaded.push(loaded);
    heartbeat
}

/// The heartbeat of an unmodified `herd-node` of the Python project, as recorded.
pub(crate) const PYTHON_HEARTBEAT: &str = include_str!("../../tests/golden/heartbeat-ollama-herd-0.11.4.json");
