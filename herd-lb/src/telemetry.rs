//! What the edge counts, by Prometheus names. All its names stand here.
//!
//! Labels are bounded: surfaces, statuses, actions and reasons are sets of this program's own words. Models and nodes
//! are no labels of counters.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

use crate::trace::{Status, Trace};

/// Waits from a millisecond to five minutes.
const SECONDS: [f64; 14] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The edge's counters.
#[derive(Debug)]
pub struct Telemetry {
    requests: IntCounterVec,
    context: IntCounterVec,
    unforeseen_loads: IntCounter,
    retries: IntCounterVec,
    budget_exhausted: IntCounter,
    stand_ins: IntCounterVec,
    queue_refused: IntCounterVec,
    queue_seconds: Histogram,
    ttft_seconds: Histogram,
    overflows: IntCounter,
    auto_pulls: IntCounter,
    benchmarks: IntCounterVec,
}

impl Telemetry {
    /// Counters in `registry`.
    ///
    /// # Errors
    /// When it has metrics of the same names.
    pub fn new(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let telemetry = Self {
            requests: counters("herd_requests_total", "Inference requests that have ended.", &["surface", "status"])?,
            context: counters(
                "herd_context_actions_total",
                "What happened to the contexts of requests that a node was asked for, and why where a model was reloaded.",
                &["action", "cause"],
            )?,
            unforeseen_loads: counter(
                "herd_unforeseen_loads_total",
                "Loads that a node reported and none was foreseen.",
            )?,
            retries: counters("herd_retries_total", "Requests sent to another node, by why.", &["reason"])?,
            budget_exhausted: counter("herd_retry_budget_exhausted_total", "Retries that the fleet's budget forbade.")?,
            stand_ins: counters("herd_stand_ins_total", "Requests served by another model, by why.", &["reason"])?,
            queue_refused: counters(
                "herd_queue_refused_total",
                "Requests that the queue refused, by why.",
                &["reason"],
            )?,
            queue_seconds: histogram(
                "herd_request_queue_seconds",
                "Time that requests waited at the edge for a slot.",
            )?,
            ttft_seconds: histogram(
                "herd_request_ttft_seconds",
                "From a request's header to its answer's first byte.",
            )?,
            overflows: counter(
                "herd_context_overflows_total",
                "Prompts estimated to exceed the window that served them.",
            )?,
            auto_pulls: counter("herd_auto_pulls_total", "Requests that began or joined a pull of their model.")?,
            benchmarks: counters(
                "herd_benchmark_requests_total",
                "Requests of benchmarks that have ended; no other metric of requests has them.",
                &["status"],
            )?,
        };
        for one in telemetry.all() {
            registry.register(one)?;
        }
        Ok(Arc::new(telemetry))
    }

    fn all(&self) -> [Box<dyn Collector>; 12] {
        [
            Box::new(self.requests.clone()),
            Box::new(self.context.clone()),
            Box::new(self.unforeseen_loads.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.budget_exhausted.clone()),
            Box::new(self.stand_ins.clone()),
            Box::new(self.queue_refused.clone()),
            Box::new(self.queue_seconds.clone()),
            Box::new(self.ttft_seconds.clone()),
            Box::new(self.overflows.clone()),
            Box::new(self.auto_pulls.clone()),
            Box::new(self.benchmarks.clone()),
        ]
    }

    /// A request has ended.
    pub fn ended(&self, trace: &Trace) {
        let status = trace.status.unwrap_or(Status::Incomplete).name();
        if trace.benchmark {
            self.benchmarks.with_label_values(&[status]).inc();
            return;
        }
        self.requests.with_label_values(&[trace.surface.name(), status]).inc();
        if trace.attempts.is_empty() {
            return;
        }
        self.context.with_label_values(&[trace.context_action.as_str(), trace.reload_cause]).inc();
        self.queue_seconds.observe(trace.queue_ms as f64 / 1e3);
        if let Some(ttft_ms) = trace.ttft_ms {
            self.ttft_seconds.observe(ttft_ms as f64 / 1e3);
        }
        if !trace.stand_in.is_empty() {
            self.stand_ins.with_label_values(&[trace.stand_in]).inc();
        }
        if trace.overflow {
            self.overflows.inc();
        }
    }

    /// A node loaded a model though none was foreseen: another client is at work, or it keeps models for too short.
    pub fn unforeseen_load(&self) {
        self.unforeseen_loads.inc();
    }

    /// A request goes to another node.
    pub fn retried(&self, reason: &str) {
        self.retries.with_label_values(&[reason]).inc();
    }

    /// A retry was not made, for too many are.
    pub fn budget_exhausted(&self) {
        self.budget_exhausted.inc();
    }

    /// A request could not wait, or waited too long: `full`, `timeout`.
    pub fn queue_refused(&self, reason: &str) {
        self.queue_refused.with_label_values(&[reason]).inc();
    }

    /// A request waits for a pull.
    pub fn auto_pull(&self) {
        self.auto_pulls.inc();
    }
}

fn counter(name: &str, help: &str) -> prometheus::Result<IntCounter> {
    IntCounter::new(name, help)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn histogram(name: &str, help: &str) -> prometheus::Result<Histogram> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))
}
