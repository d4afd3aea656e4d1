//! What the edge counts, by Prometheus names. All its names stand here and in [`models`].
//!
//! Labels are bounded: surfaces, statuses, actions, signals and reasons are sets of this program's own words; models
//! are the most used ones and `other`. Nodes are no labels of counters.
//!
//! What every request counts is resolved once, so that counting is an addition. It also means that the series are
//! there before their first count, and rates see that count.

pub mod models;
mod per_word;

use std::sync::Arc;

use herd_admin::EdgeCounts;
use herd_core::decide::{Candidate, Decision};
use herd_core::exchange::Obtained;
use herd_core::name::ModelName;
use herd_core::record::RequestRecord;
use herd_core::score::{SIGNAL_COUNT, SIGNALS};
use herd_core::vocabulary::{ContextAction, Failure, IneligibleKind, Recorded, StandIn, Status, Surface, WordSet};
use herd_core::words;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use models::Models;
use per_word::{ContextActions, PerWord};

/// Waits from a millisecond to five minutes.
const SECONDS: [f64; 14] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Times of one token, from a small model on a large GPU to a large one on a CPU.
const TOKEN_SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0];
/// Scores at the default weights: the best is 110.
const SCORE_POINTS: [f64; 12] = [-100.0, -50.0, -25.0, 0.0, 20.0, 40.0, 60.0, 70.0, 80.0, 90.0, 100.0, 110.0];
/// Parts of them: from -30 to 50, and worse for a hot node with a long queue.
const SIGNAL_POINTS: [f64; 14] =
    [-100.0, -50.0, -30.0, -20.0, -15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0];

words! {
    /// How a request came to its node, or that none serves it.
    pub enum Chosen {
        /// A slot was free.
        AtOnce = "at_once",
        /// It waited for one.
        Waited = "waited",
        /// The slot was claimed when the retry was decided.
        Retry = "retry",
        /// No node serves it.
        Nobody = "nobody",
    }
}

impl From<Obtained> for Chosen {
    fn from(how: Obtained) -> Self {
        match how {
            Obtained::AtOnce => Self::AtOnce,
            Obtained::Waited => Self::Waited,
            Obtained::Retry => Self::Retry,
        }
    }
}

words! {
    /// Why the queue refused a request.
    pub enum QueueRefusal {
        /// As many wait as may.
        Full = "full",
        /// It waited for as long as it may.
        Timeout = "timeout",
    }
}

words! {
    /// Why a request was refused for its body.
    pub enum BodyRefusal {
        /// It is larger than a body may be.
        TooLarge = "too_large",
        /// It came too slowly.
        TooSlow = "too_slow",
        /// All bodies together are as large as they may be.
        TooMany = "too_many",
    }
}

/// The edge's counters.
#[derive(Debug)]
pub struct Telemetry {
    surfaces: [PerSurface; Surface::ALL.len()],
    choices: Choices,
    context: ContextActions,
    unforeseen_loads: IntCounter,
    retries: PerWord<Failure>,
    budget_exhausted: IntCounter,
    stand_ins: PerWord<StandIn>,
    queue_refused: PerWord<QueueRefusal>,
    bodies_refused: PerWord<BodyRefusal>,
    queue_seconds: Histogram,
    ttft_seconds: Histogram,
    answers: Answers,
    overflows: IntCounter,
    auto_pulls: IntCounter,
    models: Models,
    benchmarks: PerWord<Status>,
    unmarked_proxies: IntCounter,
}

/// What is counted of choices.
#[derive(Debug)]
struct Choices {
    outcomes: PerWord<Chosen>,
    ineligible: PerWord<IneligibleKind>,
    score_points: Histogram,
    signal_points: [Histogram; SIGNAL_COUNT],
}

/// What is counted of nodes' answers.
#[derive(Debug)]
struct Answers {
    tpot_seconds: Histogram,
    load_seconds: Histogram,
    prompt_tokens: IntCounter,
    completion_tokens: IntCounter,
    bytes: IntCounter,
}

/// What is counted of the requests of one surface.
#[derive(Debug)]
struct PerSurface {
    ended: [IntCounter; Status::ALL.len()],
    latency_seconds: Histogram,
}

impl Telemetry {
    /// Counters in `registry`.
    ///
    /// # Errors
    /// When it has metrics of the same names.
    pub fn new(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let book = Book(registry);
        let lost = "Log lines that were dropped, as nothing took them in time.";
        registry.register(Box::new(herd_admin::fed_counter(
            "herd_log_drops_total",
            lost,
            herd_agent::log::lost_lines,
        )?))?;
        let context = book.counters(
            "herd_context_actions_total",
            "What happened to the contexts of requests that a node was asked for, and why where a model was reloaded.",
            &["action", "cause"],
        )?;
        let counter = |name, help| book.counter(name, help);
        let seconds = |name, help| book.histogram(name, help, &SECONDS);
        Ok(Arc::new(Self {
            surfaces: book.surfaces()?,
            choices: book.choices()?,
            context: ContextActions::new(&context),
            unforeseen_loads: counter(
                "herd_unforeseen_loads_total",
                "Loads that a node reported and none was foreseen.",
            )?,
            retries: book.per_word("herd_retries_total", "Requests sent to another node, by why.", "reason")?,
            budget_exhausted: counter("herd_retry_budget_exhausted_total", "Retries that the fleet's budget forbade.")?,
            stand_ins: book.per_word("herd_stand_ins_total", "Requests served by another model, by why.", "reason")?,
            queue_refused: book.per_word(
                "herd_queue_refused_total",
                "Requests that the queue refused, by why.",
                "reason",
            )?,
            bodies_refused: book.per_word(
                "herd_bodies_refused_total",
                "Requests that were refused for their bodies, by why.",
                "reason",
            )?,
            queue_seconds: seconds("herd_request_queue_seconds", "Time that requests waited at the edge for a slot.")?,
            ttft_seconds: seconds("herd_request_ttft_seconds", "From a request's header to its answer's first byte.")?,
            answers: book.answers()?,
            overflows: counter(
                "herd_context_overflows_total",
                "Prompts estimated to exceed the window that served them.",
            )?,
            auto_pulls: counter("herd_auto_pulls_total", "Requests that began or joined a pull of their model.")?,
            models: Models::new(&book)?,
            benchmarks: book.per_word(
                "herd_benchmark_requests_total",
                "Requests of benchmarks that have ended; no other metric of requests has them.",
                "status",
            )?,
            unmarked_proxies: counter(
                "herd_unmarked_proxy_requests_total",
                "Requests from this machine by another's name: a proxy seems to forward without saying so.",
            )?,
        }))
    }

    /// A request has ended.
    pub fn ended(&self, record: &RequestRecord) {
        if let (Some(surface), Some(status)) =
            (record.surface.as_ref().and_then(Recorded::known), record.known_status())
        {
            let counters = &self.surfaces[surface.place()];
            counters.ended[status.place()].inc();
            if !record.attempts.is_empty() {
                counters.latency_seconds.observe(record.latency_ms / 1e3);
            }
        }
        let Some(action) = record.context_action.filter(|_| !record.attempts.is_empty()) else { return };
        self.context.inc(action, record.reload_cause);
        self.queue_seconds.observe(record.queue_ms.unwrap_or(0.0) / 1e3);
        if let Some(first_ms) = record.first_byte_ms() {
            self.ttft_seconds.observe(first_ms / 1e3);
        }
        if let Some(stand_in) = record.stand_in {
            self.stand_ins.inc(stand_in);
        }
        if record.overflow {
            self.overflows.inc();
        }
        self.answers.ended(record);
        self.models.ended(record);
    }

    /// A request of a benchmark has ended.
    pub fn benchmark_ended(&self, record: &RequestRecord) {
        if let Some(status) = record.known_status() {
            self.benchmarks.inc(status);
        }
    }

    /// A node was chosen for a request.
    pub fn chosen(&self, how: Chosen) {
        self.choices.outcomes.inc(how);
    }

    /// The node of `candidate` is asked.
    pub fn asked(&self, candidate: &Candidate) {
        self.choices.score_points.observe(candidate.total);
        for (histogram, points) in self.choices.signal_points.iter().zip(candidate.score.parts) {
            histogram.observe(points);
        }
    }

    /// No node serves a request, for the reasons in `decision`.
    pub fn nobody(&self, decision: &Decision) {
        self.choices.outcomes.inc(Chosen::Nobody);
        for (_, reason) in &decision.refused {
            self.choices.ineligible.inc(reason.kind());
        }
    }

    /// How often the edge has asked for `model` lately, against other models.
    #[must_use]
    pub fn model_uses(&self, model: &ModelName) -> u64 {
        self.models.uses(model.as_str())
    }

    /// A node loaded a model though none was foreseen: another client is at work, or it keeps models for too short.
    pub fn unforeseen_load(&self) {
        self.unforeseen_loads.inc();
    }

    /// A request goes to another node.
    pub fn retried(&self, failure: Failure) {
        self.retries.inc(failure);
    }

    /// A retry was not made, for too many are.
    pub fn budget_exhausted(&self) {
        self.budget_exhausted.inc();
    }

    /// A request could not wait, or waited too long.
    pub fn queue_refused(&self, why: QueueRefusal) {
        self.queue_refused.inc(why);
    }

    /// A request was refused for its body.
    pub fn body_refused(&self, why: BodyRefusal) {
        self.bodies_refused.inc(why);
    }

    /// What health checks go by, of what no trace tells.
    #[must_use]
    pub fn counts(&self) -> EdgeCounts {
        EdgeCounts {
            queue_refused: self.queue_refused.count(QueueRefusal::Full),
            queue_timeouts: self.queue_refused.count(QueueRefusal::Timeout),
            retry_budget_exhausted: self.budget_exhausted.get(),
            unforeseen_loads: self.unforeseen_loads.get(),
            bodies_refused: self.bodies_refused.sum(),
            unmarked_proxies: self.unmarked_proxies.get(),
            ..EdgeCounts::default()
        }
    }

    /// A proxy on this machine seems to have forwarded a request without saying so.
    pub fn unmarked_proxy(&self) {
        self.unmarked_proxies.inc();
    }

    /// A request waits for a pull.
    pub fn auto_pull(&self) {
        self.auto_pulls.inc();
    }
}

impl Answers {
    fn ended(&self, record: &RequestRecord) {
        let counts = &record.counts;
        self.bytes.inc_by(record.response_bytes);
        self.prompt_tokens.inc_by(counts.prompt_tokens.unwrap_or(0));
        self.completion_tokens.inc_by(counts.completion_tokens.unwrap_or(0));
        if let (Some(tokens), Some(ms)) = (counts.completion_tokens.filter(|tokens| *tokens > 0), counts.decode_ms) {
            self.tpot_seconds.observe(ms / 1e3 / tokens as f64);
        }
        let loads = record.context_action.is_some_and(ContextAction::needs_load);
        if let Some(ms) = counts.load_ms.filter(|_| loads) {
            self.load_seconds.observe(ms / 1e3);
        }
    }
}

/// Makes metrics and registers them.
struct Book<'a>(&'a Registry);

impl Book<'_> {
    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn per_word<W: WordSet>(&self, name: &str, help: &str, label: &str) -> prometheus::Result<PerWord<W>> {
        Ok(PerWord::new(&self.counters(name, help, &[label])?))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    fn histograms(&self, name: &str, help: &str, label: &str, buckets: &[f64]) -> prometheus::Result<HistogramVec> {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[label])?)
    }

    fn surfaces(&self) -> prometheus::Result<[PerSurface; Surface::ALL.len()]> {
        let ended =
            self.counters("herd_requests_total", "Inference requests that have ended.", &["surface", "status"])?;
        let latency = self.histograms(
            "herd_request_latency_seconds",
            "From a request's header to its last byte, of requests that a node was asked for.",
            "surface",
            &SECONDS,
        )?;
        Ok(Surface::ALL.map(|surface| PerSurface {
            ended: Status::ALL.map(|status| ended.with_label_values(&[surface.name(), status.name()])),
            latency_seconds: latency.with_label_values(&[surface.name()]),
        }))
    }

    fn choices(&self) -> prometheus::Result<Choices> {
        let signals = self.histograms(
            "herd_choice_signal_points",
            "Parts of the scores of nodes that requests were sent to, by signal.",
            "signal",
            &SIGNAL_POINTS,
        )?;
        let ineligible = "Nodes that could not serve a request which no node could serve, by why.";
        let score = "Scores of nodes that requests were sent to.";
        Ok(Choices {
            outcomes: self.per_word("herd_choice_total", "Choices of a node, by how they came about.", "outcome")?,
            ineligible: self.per_word("herd_ineligible_total", ineligible, "reason")?,
            score_points: self.histogram("herd_choice_score_points", score, &SCORE_POINTS)?,
            signal_points: SIGNALS.map(|(name, _)| signals.with_label_values(&[name])),
        })
    }

    fn answers(&self) -> prometheus::Result<Answers> {
        let tokens =
            self.counters("herd_tokens_total", "Tokens of prompts and answers, as nodes report them.", &["kind"])?;
        let tpot = "Time per token of an answer, where the node reports it.";
        let load = "Time of loads that requests waited for, where the node reports it.";
        Ok(Answers {
            tpot_seconds: self.histogram("herd_request_tpot_seconds", tpot, &TOKEN_SECONDS)?,
            load_seconds: self.histogram("herd_request_load_seconds", load, &SECONDS)?,
            prompt_tokens: tokens.with_label_values(&["prompt"]),
            completion_tokens: tokens.with_label_values(&["completion"]),
            bytes: self.counter("herd_response_bytes_total", "Bytes of answers' bodies that nodes sent.")?,
        })
    }
}
