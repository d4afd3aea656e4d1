//! What the edge shows of its queue and its bounds.

use std::sync::Arc;

use herd_core::name::ModelName;
use serde::Serialize;

/// What waits at the edge.
#[derive(Debug, Clone, Default)]
pub struct QueueView {
    /// How many wait.
    pub total: usize,
    /// Those that have waited longest, a bounded number.
    pub waiting: Vec<WaitingView>,
    /// When this was so, by the edge's clock.
    pub at_ms: u64,
}

/// One request that waits.
#[derive(Debug, Clone)]
pub struct WaitingView {
    /// Its id.
    pub request_id: Arc<str>,
    /// The model that it asks for.
    pub model: ModelName,
    /// `interactive` or `batch`.
    pub class: &'static str,
    /// What it waits for: `busy`, `loading`, `occupied`, `hold` and so on.
    pub reason: &'static str,
    /// When it began to wait, by the edge's clock.
    pub since_ms: u64,
    /// Until it is predicted to start, milliseconds.
    pub predicted_ms: f64,
}

/// One bound and how much of it is used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    /// Its key in the configuration.
    pub name: String,
    /// It.
    pub limit: f64,
    /// How much is used now; null = it is not a matter of use.
    pub used: Option<f64>,
}
