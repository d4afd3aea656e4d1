//! The admin service of herd: catalogue, fleet API, heartbeats, health and metrics.
//!
//! A library with one narrow window to the edge, [`FleetSource`]. It never runs on a proxy thread: the edge serves it
//! on its own runtime and its own listener ([`serve`]), and routes every path that is not inference to that listener.
//!
//! Handlers are thin: what an answer says is computed by pure functions of one snapshot and one moment. A handler that
//! refuses returns a `Refusal`, and one middleware puts that into the form of the path's surface.

pub mod access;
mod alias;
mod answer;
mod benchmark;
mod body;
mod caller;
mod catalogue;
mod checks;
mod client;
mod config;
mod csv;
mod dashboard;
mod events;
mod explain;
mod extract;
mod guard;
mod health;
mod heartbeat;
mod history;
mod hosts;
mod identity;
mod join;
mod joins;
mod kept;
mod live;
mod manage;
mod metrics;
mod models;
mod node_calls;
mod node_client;
mod node_facts;
mod nodes;
mod ollama;
mod openai;
mod openapi;
mod page;
mod peer_user;
mod pins;
mod pull;
mod queue;
mod refusal;
mod residency;
mod secret;
mod serve;
mod settings;
mod state;
mod status;
mod stop;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod time;
mod verify;
pub mod via;
mod view;
mod write_limit;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, head, post};
use herd_core::decide::Policy;
use herd_core::fleet::{FleetSnapshot, HeartbeatError, ModelChange, Sender};
use herd_core::name::ModelName;
use herd_core::network::Networks;
use herd_core::wire::Heartbeat;

pub use alias::{AliasError, AliasSettings, Aliases};
pub use benchmark::{
    BENCHMARK_HEADER, BenchmarkConfig, BenchmarkProgress, BenchmarkRecord, BenchmarkRefusal, BenchmarkResult,
    BenchmarkRun, BenchmarkState, BenchmarkStore, BenchmarkSummary, Benchmarks, LeftOut, ONLY_NODE_HEADER, Quantiles,
    Rates,
};
pub use caller::{EDGE_SECRET_HEADER, SOURCE_HEADER, is_proxied, source_name};
pub use checks::EdgeCounts;
pub use client::{AdminClient, ClientError};
pub use config::AdminConfig;
pub use guard::is_forwarded;
pub use health::NO_NODES;
pub use hosts::Hosts;
pub use live::{LivePhase, LiveView};
pub use metrics::{MODEL_LABELS, OTHER_MODELS, fed_counter};
pub use node_calls::NodeCalls;
pub use page::Page;
pub use peer_user::{LocalUsers, PeerUser};
pub use pull::{
    FailureKind, Layer, PullAsk, PullFailure, PullHandle, PullInfo, PullPhase, PullReason, PullSettings, PullState,
    Pulls,
};
pub use queue::{Limit, QueueView, WaitingView};
pub use refusal::DATA_POLICY;
pub use secret::Secret;
pub use serve::serve;
pub use settings::{Setting, SettingsChange, SettingsError};
pub use state::{AdminState, SetupError};
pub use time::now_rfc3339;
pub use verify::{Found, Verifier};
pub use write_limit::WriteTimer;

/// What the admin service sees of the edge.
pub trait FleetSource: Send + Sync + 'static {
    /// The fleet now. Never waits.
    fn snapshot(&self) -> Arc<FleetSnapshot>;

    /// The edge's monotonic clock, milliseconds from its start.
    fn now_ms(&self) -> u64;

    /// How requests are decided now.
    fn policy(&self) -> Arc<Policy>;

    /// What waits at the edge for a slot. Never waits itself.
    fn queue(&self) -> Arc<QueueView>;

    /// Requests under way, oldest first, `most` at the most; and how many there are in all. Never waits.
    fn live(&self, most: usize) -> (usize, Vec<LiveView>);

    /// Ends the requests of that id; returns how many there were.
    fn cancel(&self, request_id: &str) -> usize;

    /// Every key of the configuration.
    fn settings(&self) -> Vec<Setting>;

    /// Changes some of them, all or none. May write a file.
    ///
    /// # Errors
    /// With each key that cannot be changed so.
    fn change_settings(
        &self,
        changes: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<SettingsChange, SettingsError>;

    /// Every bound on what is held or waited for, with how much of it is used now.
    fn limits(&self) -> Vec<Limit>;

    /// What the edge has counted since its start, of what no trace tells. Never waits.
    fn counts(&self) -> EdgeCounts {
        EdgeCounts::default()
    }

    /// How often the edge has asked for `model`, against other models: the most used have labels of their own in
    /// metrics.
    fn model_uses(&self, model: &ModelName) -> u64 {
        let _ = model;
        0
    }

    /// Takes a heartbeat; returns the node's state as the edge sees it then.
    ///
    /// # Errors
    /// When it is refused.
    fn heartbeat(&self, heartbeat: Heartbeat, sender: Sender) -> Result<&'static str, HeartbeatError>;

    /// The networks that are local, as the edge knows them now.
    fn networks(&self) -> Arc<Networks> {
        Arc::new(Networks::lan())
    }

    /// Cordons the node named `id`, which then gets no new requests, or uncordons it. Returns whether there is such a node.
    fn set_cordon(&self, id: &str, cordoned: bool) -> bool;

    /// Forgets the node named `id`, until its next heartbeat. Returns whether there was such a node.
    fn remove(&self, id: &str) -> bool;

    /// Takes notice of what herd did to `model` on the node named `id`, ahead of the heartbeat that will tell of it.
    fn model_changed(&self, id: &str, model: &ModelName, change: ModelChange<'_>) {
        let _ = (id, model, change);
    }

    /// Whether the edge is stopping: no new requests, running ones finish.
    fn draining(&self) -> bool;
}

/// All routes of the admin service.
///
/// Handlers need to know who calls: serve it with [`serve`], or put a `ConnectInfo<SocketAddr>` on every request.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .merge(as_an_ollama())
        .route("/", get(identity::root))
        .route("/dashboard", get(dashboard::page))
        .route("/dashboard/", get(dashboard::page))
        .route("/dashboard/{tab}", get(dashboard::tab))
        .route("/dashboard/traces/{request_id}", get(dashboard::page))
        .route("/dashboard/assets/{hash}/{*path}", get(dashboard::file))
        .route("/fleet/status", get(status::status))
        .route("/fleet/explain", post(explain::explain))
        .route("/fleet/queue", get(queue::queue))
        .route("/fleet/limits", get(queue::limits))
        .route("/dashboard/api/requests", get(live::requests))
        .route("/dashboard/api/settings", get(settings::list).post(settings::change))
        .route("/dashboard/api/benchmarks", get(benchmark::list))
        .route("/dashboard/api/benchmarks/start", post(benchmark::start))
        .route("/dashboard/api/benchmarks/progress", get(benchmark::progress))
        .route("/dashboard/api/benchmarks/cancel", post(benchmark::cancel))
        .route("/dashboard/api/benchmarks/{run_id}", get(benchmark::show))
        .route("/dashboard/api/requests/{request_id}", delete(live::cancel))
        .route("/dashboard/openapi.json", get(openapi::document))
        .route("/dashboard/events", get(events::events))
        .route("/dashboard/api/overview", get(history::overview))
        .route("/dashboard/api/trends", get(history::trends))
        .route("/dashboard/api/models", get(history::models))
        .route("/dashboard/api/context-usage", get(history::context_usage))
        .route("/dashboard/api/apps", get(history::apps))
        .route("/dashboard/api/tags", get(history::apps))
        .route("/dashboard/api/apps/daily", get(history::daily))
        .route("/dashboard/api/usage", get(history::usage))
        .route("/dashboard/api/traces", get(history::traces))
        .route("/dashboard/api/traces/{request_id}", get(history::trace))
        .route("/fleet/nodes/{id}/drain", post(nodes::drain))
        .route("/fleet/nodes/{id}/undrain", post(nodes::undrain))
        .route("/fleet/nodes/{id}/unload", post(nodes::unload))
        .route("/fleet/nodes/{id}", delete(nodes::remove))
        .route("/fleet/pin", post(pins::pin))
        .route("/fleet/pin/{*model}", delete(pins::unpin))
        .route("/dashboard/api/pinned-models", get(pins::list))
        .route("/dashboard/api/model-management", get(models::management))
        .route("/dashboard/api/pull", post(pull::start))
        .route("/dashboard/api/delete", post(nodes::delete_model))
        .route("/dashboard/api/health", get(checks::health))
        .route("/dashboard/api/health/acknowledge", post(checks::acknowledge))
        .route("/dashboard/api/health/mute", post(checks::mute))
        .route("/dashboard/api/health/unmute", post(checks::unmute))
        .route("/dashboard/api/health/history", get(checks::history))
        .route("/dashboard/api/health/check", post(checks::check))
        .route("/dashboard/api/audit", get(access::audit))
        .route("/dashboard/api/recommendations", get(checks::recommendations))
        .route("/fleet/pulls", get(pull::list))
        .route("/fleet/pulls/{id}", delete(pull::cancel))
        .route("/heartbeat", post(heartbeat::heartbeat))
        .route("/heartbeat/challenge", post(join::challenge))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route_layer(from_fn_with_state(state.clone(), access::gate))
        .method_not_allowed_fallback(refusal::wrong_method)
        .fallback(refusal::unknown_path)
        .layer(from_fn(body::settle))
        .layer(from_fn(refusal::in_the_form_of_the_surface))
        .with_state(state)
}

/// What Ollama's own API and `OpenAI`'s have beside inference.
fn as_an_ollama() -> Router<AdminState> {
    Router::new()
        .route("/api/version", get(identity::version))
        .route("/api/tags", get(ollama::tags))
        .route("/api/ps", get(ollama::ps))
        .route("/api/show", post(ollama::show))
        .route("/api/status", get(ollama::status))
        .route("/api/pull", post(pull::pull))
        .route("/api/push", post(manage::push))
        .route("/api/create", post(manage::create))
        .route("/api/copy", post(manage::copy))
        .route("/api/delete", delete(manage::delete))
        .route("/api/blobs/{digest}", head(manage::has_blob).post(manage::put_blob))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*id}", get(openai::model))
        .route("/v1/messages", get(identity::messages_probe))
}
