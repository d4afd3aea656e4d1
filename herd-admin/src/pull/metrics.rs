//! Counters of pulls. The only label is how they ended.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::state::PullPhase;

/// The counters. Cloning is cheap.
#[derive(Clone)]
pub(super) struct PullMetrics {
    ended: IntCounterVec,
    /// Pulls that run.
    pub(super) running: IntGauge,
    /// Bytes that pulls brought.
    pub(super) bytes: IntCounter,
}

const OUTCOMES: [&str; 3] = ["succeeded", "failed", "cancelled"];

impl PullMetrics {
    /// Joins those in `registry`.
    ///
    /// # Errors
    /// When it has metrics of the same names.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let opts = Opts::new("herd_pulls_total", "Pulls of models that have ended, by how.");
        let ended = IntCounterVec::new(opts, &["outcome"])?;
        let running = IntGauge::new("herd_pulls_running", "Pulls of models that run.")?;
        let bytes = IntCounter::new("herd_pull_bytes_total", "Bytes of models that pulls brought onto nodes.")?;
        // A series that is there before its first count, so that rates see that count.
        for outcome in OUTCOMES {
            drop(ended.with_label_values(&[outcome]));
        }
        registry.register(Box::new(ended.clone()))?;
        registry.register(Box::new(running.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        Ok(Self { ended, running, bytes })
    }

    /// One pull has ended.
    pub(super) fn ended(&self, phase: &PullPhase) {
        self.ended.with_label_values(&[phase.name()]).inc();
        self.running.dec();
    }
}
