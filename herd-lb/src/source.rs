//! What the admin service sees of the edge.

use std::sync::Arc;

use herd_admin::{EdgeCounts, FleetSource, Limit, LiveView, QueueView, Setting, SettingsChange, SettingsError};
use herd_core::budget::Retries;
use herd_core::decide::Policy;
use herd_core::fleet::{FleetSnapshot, HeartbeatError, Sender};
use herd_core::name::ModelName;
use herd_core::network::Networks;
use herd_core::wire::Heartbeat;

use crate::budget::Budget;
use crate::config::LiveConfig;
use crate::dispatch::Dispatcher;
use crate::fleet::Fleet;
use crate::live::Live;
use crate::proxy::admin::AdminPlaces;
use crate::settings::Settings;
use crate::telemetry::Telemetry;

/// The edge's parts that the admin service reads.
pub struct EdgeSource {
    /// The nodes.
    pub fleet: Arc<Fleet>,
    /// What waits for them.
    pub dispatcher: Arc<Dispatcher>,
    /// Requests under way.
    pub live: Live,
    /// What is counted.
    pub telemetry: Arc<Telemetry>,
    /// Bodies held.
    pub budget: Budget,
    /// Places at the admin service.
    pub admin_places: AdminPlaces,
    /// Retries that may be made.
    pub retries: Arc<Retries>,
    /// The configuration in force.
    pub config: LiveConfig,
    /// What may be changed of it.
    pub settings: Arc<Settings>,
}

impl FleetSource for EdgeSource {
    fn snapshot(&self) -> Arc<FleetSnapshot> {
        self.fleet.snapshot()
    }

    fn now_ms(&self) -> u64 {
        self.fleet.now_ms()
    }

    fn policy(&self) -> Arc<Policy> {
        self.fleet.policy()
    }

    fn queue(&self) -> Arc<QueueView> {
        self.dispatcher.view()
    }

    fn live(&self, most: usize) -> (usize, Vec<LiveView>) {
        self.live.list(most)
    }

    fn cancel(&self, request_id: &str) -> usize {
        self.live.cancel(request_id)
    }

    fn settings(&self) -> Vec<Setting> {
        self.settings.list()
    }

    fn change_settings(
        &self,
        changes: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<SettingsChange, SettingsError> {
        self.settings.change(changes)
    }

    fn counts(&self) -> EdgeCounts {
        EdgeCounts { sleeps: self.fleet.slept().0, ..self.telemetry.counts() }
    }

    fn limits(&self) -> Vec<Limit> {
        let config = self.config.now();
        let queue = &config.queue;
        let used = |name, limit: f64, used: f64| Limit { name, limit, used: Some(used) };
        let fixed = |name, limit: f64| Limit { name, limit, used: None };
        let nodes = self.fleet.snapshot().nodes.len();
        let burst = config.retry_budget.burst;
        let spent = burst - self.retries.left(self.fleet.now_ms());
        vec![
            used("queue.max_waiting", queue.max_waiting as f64, self.dispatcher.waiting() as f64),
            fixed("queue.max_waiting_per_model", queue.max_waiting_per_model as f64),
            fixed("queue.max_wait_ms", queue.max_wait_ms as f64),
            used("retry.budget_burst", burst, spent),
            fixed("retry.max_attempts", f64::from(config.exchange.max_attempts)),
            fixed("routing.candidates_max", config.policy.candidates_max as f64),
            fixed("hold.max_ms", config.exchange.hold.max_ms as f64),
            fixed("reaper.no_progress_ms", config.exchange.patience.no_progress_ms as f64),
            used("limits.buffered_bytes", config.limits.buffered_bytes as f64, self.budget.used_bytes() as f64),
            fixed("limits.held_answer_bytes", config.limits.held_answer_bytes as f64),
            fixed("limits.request_body_bytes", config.limits.request_body_bytes as f64),
            used("admin.requests_max", config.admin_requests_max as f64, self.admin_places.taken_count() as f64),
            fixed("limits.connections", config.limits.connections as f64),
            used("fleet.nodes_max", config.heartbeat_limits.nodes as f64, nodes as f64),
            fixed("fleet.models_max", config.heartbeat_limits.models as f64),
        ]
    }

    fn heartbeat(&self, heartbeat: Heartbeat, sender: Sender) -> Result<&'static str, HeartbeatError> {
        self.fleet.heartbeat(heartbeat, sender)
    }

    fn networks(&self) -> Arc<Networks> {
        self.fleet.networks()
    }

    fn set_cordon(&self, id: &str, cordoned: bool) -> bool {
        self.fleet.set_cordon(id, cordoned)
    }

    fn remove(&self, id: &str) -> bool {
        self.fleet.remove(id)
    }

    fn model_uses(&self, model: &ModelName) -> u64 {
        self.telemetry.model_uses(model)
    }

    fn draining(&self) -> bool {
        self.fleet.draining()
    }
}
