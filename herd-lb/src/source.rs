//! What the admin service sees of the edge.

use std::sync::Arc;

use herd_admin::{EdgeCounts, FleetSource, Limit, LiveView, QueueView, Setting, SettingsChange, SettingsError};
use herd_core::budget::Retries;
use herd_core::decide::Policy;
use herd_core::fleet::{FleetSnapshot, HeartbeatError, ModelChange, Sender};
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

    fn model_changed(&self, id: &str, model: &ModelName, change: ModelChange<'_>) {
        self.fleet.model_changed(id, model, change);
    }

    fn counts(&self) -> EdgeCounts {
        EdgeCounts { sleeps: self.fleet.slept().0, ..self.telemetry.counts() }
    }

    fn limits(&self) -> Vec<Limit> {
        let bounds = self.settings.bounds().into_iter();
        bounds.map(|(name, limit)| Limit { used: self.used(&name, limit), name, limit }).collect()
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

impl EdgeSource {
    /// What is used of the bound `name`, which is `limit`; `None` = it is not a matter of use.
    fn used(&self, name: &str, limit: f64) -> Option<f64> {
        Some(match name {
            "queue.max_waiting" => self.dispatcher.waiting() as f64,
            "retry.budget_burst" => limit - self.retries.left(self.fleet.now_ms()),
            "limits.buffered_bytes" => self.budget.used_bytes() as f64,
            "admin.requests_max" => self.admin_places.taken_count() as f64,
            "fleet.nodes_max" => self.fleet.snapshot().nodes.len() as f64,
            _ => return None,
        })
    }
}
