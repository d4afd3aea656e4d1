//! Pulling models onto nodes: because an operator says so, or because a request asks for a model that no node has.
//!
//! What may be pulled and where it goes is decided by [`herd_core::pull`]; [`Pulls`] keeps the jobs and carries them
//! out. A job streams `POST /api/pull` from its node's Ollama, which stops when that connection is dropped.

mod book;
mod handle;
mod http;
mod job;
mod line;
mod metrics;
mod pulls;
mod state;
mod stream;

use std::time::Duration;

use herd_core::name::ModelName;
use herd_core::pull::PullPolicy;

pub use handle::PullHandle;
pub(crate) use http::{cancel, list, pull, start, told};
pub use job::{PullInfo, PullReason};
pub use pulls::Pulls;
pub use state::{FailureKind, Layer, PullFailure, PullPhase, PullState};

/// How models are pulled.
#[derive(Debug, Clone)]
pub struct PullSettings {
    /// What may be pulled, at the start; [`Pulls::set_policy`] changes it.
    pub policy: PullPolicy,
    /// Longest time without any progress. There is no limit on a whole pull, as that follows from its size.
    pub no_progress: Duration,
}

impl Default for PullSettings {
    fn default() -> Self {
        Self { policy: PullPolicy::default(), no_progress: Duration::from_mins(2) }
    }
}

/// A pull that is asked for.
#[derive(Debug, Clone)]
pub struct PullAsk {
    model: ModelName,
    spelling: String,
    node_id: Option<String>,
    insecure: bool,
    reason: PullReason,
}

impl PullAsk {
    /// Of `model`, wherever it fits best.
    #[must_use]
    pub fn new(model: &ModelName, reason: PullReason) -> Self {
        Self { model: model.clone(), spelling: model.as_str().to_owned(), node_id: None, insecure: false, reason }
    }

    /// Spelled for the registry as the client does, which may use capitals. A text that is another name is not taken.
    #[must_use]
    pub fn spelled(mut self, spelling: &str) -> Self {
        if ModelName::new(spelling).is_ok_and(|name| name == self.model) {
            spelling.clone_into(&mut self.spelling);
        }
        self
    }

    /// From a registry whose certificate is not checked, as Ollama's own flag says, if `insecure`.
    #[must_use]
    pub fn insecure(self, insecure: bool) -> Self {
        Self { insecure, ..self }
    }

    /// Onto the node named `id`.
    #[must_use]
    pub fn on(mut self, id: &str) -> Self {
        self.node_id = Some(id.to_owned());
        self
    }
}
