//! One pull: what it is for, and how it is shown.

use std::fmt;
use std::net::SocketAddr;

use herd_core::name::{ModelName, NodeId};
use serde::Serialize;
use tokio::sync::watch;

use super::state::{FailureKind, PullPhase, PullState};

/// Why a pull runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullReason {
    /// A request asked for the model and no node has it. Bound by the policy, and it goes on when the request is gone.
    Auto {
        /// The request.
        request_id: String,
    },
    /// Somebody said so. It ends with the last of those who wait for it, unless a request wants it too.
    Manual {
        /// Who.
        caller: String,
    },
}

impl PullReason {
    /// Its name in JSON and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Auto { .. } => "auto",
            Self::Manual { .. } => "manual",
        }
    }

    /// The request or the caller.
    #[must_use]
    pub fn by(&self) -> &str {
        match self {
            Self::Auto { request_id } => request_id,
            Self::Manual { caller } => caller,
        }
    }

    /// Whether it is bound by the policy.
    pub(super) fn is_auto(&self) -> bool {
        matches!(self, Self::Auto { .. })
    }
}

/// One pull.
pub(super) struct Job {
    /// Its number, unique in this process.
    pub(super) id: u64,
    pub(super) model: ModelName,
    /// The name as the registry is asked for it.
    pub(super) spelling: String,
    /// The registry's certificate is not checked.
    pub(super) insecure: bool,
    pub(super) node_id: NodeId,
    pub(super) address: SocketAddr,
    pub(super) reason: PullReason,
    /// The most that the model may have; `None` = no limit.
    pub(super) max_bytes: Option<u64>,
    /// The most that may be written on the node; `None` = its disk is unknown.
    pub(super) room_bytes: Option<u64>,
    pub(super) started_unix_ms: u64,
    /// How far it is. That it is over is also the sign for whoever runs it to stop.
    pub(super) state: watch::Sender<PullState>,
}

impl Job {
    /// Changes its state, unless it is over.
    pub(super) fn update(&self, change: impl FnOnce(&mut PullState)) {
        self.state.send_if_modified(|state| {
            let before = (!state.phase.is_over()).then(|| state.clone());
            before.is_some_and(|before| {
                change(state);
                *state != before
            })
        });
    }

    /// Waits until it is over.
    pub(super) async fn over(&self) {
        // The sender is ours, so that it cannot be gone.
        drop(self.state.subscribe().wait_for(|state| state.phase.is_over()).await);
    }

    /// Logs that it begins. That somebody asked for it is in the audit log besides.
    pub(super) fn log_start(&self) {
        let (reason, by) = (self.reason.name(), self.reason.by());
        tracing::info!(pull = self.id, model = %self.model, node_id = %self.node_id, reason, by, "pull started");
    }

    /// Logs how it ended.
    pub(super) fn log_end(&self, state: &PullState) {
        let (reason, by) = (self.reason.name(), self.reason.by());
        let (outcome, bytes, error) = (state.phase.name(), state.completed_bytes, state.phase.error());
        tracing::info!(
            pull = self.id, model = %self.model, node_id = %self.node_id, reason, by, outcome, bytes, error, "pull ended"
        );
    }

    /// As it is shown.
    pub(super) fn info(&self, ended_unix_ms: Option<u64>) -> PullInfo {
        let state = self.state.borrow();
        let failure = match &state.phase {
            PullPhase::Failed(failure) => Some(failure.kind),
            _ => None,
        };
        PullInfo {
            id: self.id,
            model: self.model.to_string(),
            node_id: self.node_id.to_string(),
            reason: self.reason.name(),
            by: self.reason.by().to_owned(),
            phase: state.phase.name(),
            status: state.status.clone(),
            completed_bytes: state.completed_bytes,
            total_bytes: state.total_bytes,
            failure,
            error: state.phase.error().map(str::to_owned),
            started_unix_ms: self.started_unix_ms,
            ended_unix_ms,
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pull {} of {} on {}", self.id, self.model, self.node_id)
    }
}

/// A pull as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PullInfo {
    /// Its number, unique in this process.
    pub id: u64,
    /// The model, normalised.
    pub model: String,
    /// The node.
    pub node_id: String,
    /// `auto` or `manual`.
    pub reason: &'static str,
    /// The request or the caller.
    pub by: String,
    /// [`PullPhase::name`].
    pub phase: &'static str,
    /// Ollama's own words; empty = it has said nothing yet.
    pub status: String,
    /// Bytes on the node.
    pub completed_bytes: u64,
    /// Bytes of the layers known so far; `None` = none is.
    pub total_bytes: Option<u64>,
    /// What kind of failure; `None` = it did not fail.
    pub failure: Option<FailureKind>,
    /// Why it ended without the model; `None` = it did not.
    pub error: Option<String>,
    /// Wall clock.
    pub started_unix_ms: u64,
    /// Wall clock; `None` = it runs.
    pub ended_unix_ms: Option<u64>,
}
