//! From a request's trace to what is kept of it.

mod desk;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use herd_admin::AdminState;
use herd_core::decide::{Candidate, StandIn};
use herd_core::fleet::FleetSnapshot;
use herd_core::protect::ReloadCause;
use herd_core::score::{SIGNAL_COUNT, SIGNALS, Score};
use herd_store::{AttemptRecord, StoreHandle, TraceRecord};
use prometheus::Registry;
use serde::{Serialize, Serializer};

use crate::telemetry::Telemetry;
use crate::trace::{Attempted, Course, Status};

pub use desk::{Clerk, Desk};

/// Where traces go: they are counted, kept where there is a store, and told to who watches. None makes a request wait.
pub struct Recorder {
    /// The edge's counters.
    pub telemetry: Arc<Telemetry>,
    /// Counters that have the requests which `telemetry` counts as those of benchmarks; `None` = they are none.
    benchmarks: Option<Arc<Telemetry>>,
    store: Option<StoreHandle>,
    /// Set once it is there: the admin service is made after the first counters are.
    watched: OnceLock<AdminState>,
    /// Who writes; `None` = whoever has served the request.
    desk: Option<Desk>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Counts with `telemetry`, and keeps traces in `store`, `None` = nowhere; they are written at `desk`, `None` = by
    /// whoever has served the request.
    #[must_use]
    pub fn new(telemetry: Arc<Telemetry>, store: Option<StoreHandle>, desk: Option<Desk>) -> Self {
        Self { telemetry, benchmarks: None, store, watched: OnceLock::new(), desk }
    }

    /// From now on the admin service tells its clients of requests that end, and its metrics of traces that were not
    /// kept. Only the first call counts.
    pub fn watched_by(&self, admin: AdminState) {
        let store = self.store.clone();
        admin.feed_store_drops(move || store.as_ref().map_or(0, |store| store.health().dropped));
        self.watched.get_or_init(|| admin);
    }

    /// Where traces of benchmarks go: what their requests count is seen by nobody but for how they ended.
    ///
    /// # Errors
    /// When the counters cannot be made.
    pub fn for_benchmarks(&self) -> prometheus::Result<Arc<Self>> {
        let telemetry = Telemetry::new(&Registry::new())?;
        let benchmarks = Some(Arc::clone(&self.telemetry));
        Ok(Arc::new(Self { benchmarks, ..Self::new(telemetry, self.store.clone(), self.desk.clone()) }))
    }

    /// A request has ended: it is counted, and left on the desk.
    pub fn ended(recorder: &Arc<Self>, course: Course) {
        recorder.telemetry.ended(&course);
        if let Some(telemetry) = &recorder.benchmarks {
            telemetry.benchmark_ended(course.status.unwrap_or(Status::Incomplete));
        }
        let (latency, timestamp_ms) = (course.began.elapsed(), unix_ms());
        let ended = Ended { course, latency, timestamp_ms, recorder: Arc::clone(recorder) };
        match &recorder.desk {
            Some(desk) => desk.leave(ended),
            None => ended.write(),
        }
    }
}

/// A request that has ended and is not written yet.
struct Ended {
    course: Course,
    latency: Duration,
    timestamp_ms: u64,
    recorder: Arc<Recorder>,
}

impl Ended {
    /// Puts it into the log and the store.
    fn write(self) {
        self.course.log(u64::try_from(self.latency.as_millis()).unwrap_or(u64::MAX));
        let Recorder { store, watched, .. } = &*self.recorder;
        if store.is_none() && watched.get().is_none() {
            return;
        }
        let record = record(self.course, self.latency.as_secs_f64() * 1e3, self.timestamp_ms);
        if let Some(admin) = watched.get() {
            admin.request_ended(&record);
        }
        if let Some(store) = store {
            store.record(record);
        }
    }
}

/// How a trace says that its model was asked for by an alias.
const ALIAS: &str = StandIn::Alias.name();

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What is kept of `trace`, which took `latency_ms` and ended at `timestamp_ms`.
fn record(trace: Course, latency_ms: f64, timestamp_ms: u64) -> TraceRecord {
    let asked = !trace.attempts.is_empty();
    let queue_ms = trace.queue_ms as f64;
    let first_byte_ms = trace.ttft_ms.map(|ttft_ms| ttft_ms as f64);
    let last = trace.attempts.last();
    let client = trace.client;
    TraceRecord {
        node_id: last.map(|last| last.node_id.clone()).unwrap_or_default(),
        score: last.map(|last| last.score),
        scores_breakdown: trace.snapshot.as_deref().and_then(|snapshot| breakdown(&trace.ranked, snapshot)),
        retry_count: u32::try_from(trace.attempts.len().saturating_sub(1)).unwrap_or(u32::MAX),
        attempts: trace.attempts.iter().map(|one| attempt(one, latency_ms)).collect(),
        request_id: trace.request_id,
        timestamp_ms,
        benchmark: trace.benchmark,
        model: if asked { trace.served_model } else { trace.model.clone() },
        original_model: trace.model,
        original_format: trace.surface.name().to_owned(),
        status: trace.status.map_or("incomplete", crate::trace::Status::name).to_owned(),
        latency_ms,
        // Queue, time to the first token and decode add up to the latency.
        time_to_first_token_ms: first_byte_ms.map(|ms| (ms - queue_ms).max(0.0)),
        queue_ms: Some(queue_ms),
        load_ms: trace.counts.load_ms,
        decode_ms: first_byte_ms.map(|ms| (latency_ms - ms).max(0.0)),
        predicted_ms: trace.predicted_ms,
        prompt_tokens: trace.counts.prompt_tokens,
        completion_tokens: trace.counts.completion_tokens,
        // A name that the operator gave to a model is that model.
        fallback_used: !matches!(trace.stand_in, "" | ALIAS),
        stand_in: trace.stand_in.to_owned(),
        client_ip: client.ip,
        tags: client.tags,
        app: client.app,
        key_id: trace.key_id,
        user_agent: client.user_agent,
        error_message: Some(trace.error).filter(|error| !error.is_empty()),
        http_status: trace.http_status,
        stream: client.stream,
        num_ctx: trace.num_ctx,
        context_length: trace.context_length,
        context_action: trace.context_action,
        reload_cause: trace.reload_cause.to_owned(),
        request_bytes: client.request_bytes as u64,
        response_bytes: trace.response_bytes as u64,
        priority: client.class.to_owned(),
        finish_reason: trace.finish_reason.to_owned(),
        estimated_tokens: client.estimated_tokens,
        overflow: trace.overflow,
    }
}

fn attempt(attempted: &Attempted, latency_ms: f64) -> AttemptRecord {
    let started_ms = attempted.started_ms as f64;
    let ended_ms = attempted.ended_ms.map_or(latency_ms, |ms| ms as f64);
    AttemptRecord {
        node_id: attempted.node_id.clone(),
        outcome: attempted.outcome.to_owned(),
        score: Some(attempted.score),
        started_ms: Some(started_ms),
        duration_ms: Some((ended_ms - started_ms).max(0.0)),
    }
}

/// One node's part in a decision, as it is kept.
#[derive(Serialize)]
struct Ranked<'a> {
    node_id: &'a str,
    total: f64,
    #[serde(serialize_with = "by_name")]
    signals: [(&'static str, f64); SIGNAL_COUNT],
    predicted: Predicted,
    readiness: &'static str,
    context_action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reload_cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_resort: Option<&'static str>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "units stand in names")]
struct Predicted {
    wait_ms: f64,
    load_ms: f64,
    prefill_ms: f64,
    decode_ms: f64,
    others_ms: f64,
}

fn breakdown(ranked: &[Candidate], snapshot: &FleetSnapshot) -> Option<String> {
    let tell = |candidate: &Candidate| {
        let prediction = candidate.prediction;
        Some(Ranked {
            node_id: snapshot.nodes.get(candidate.node)?.id.as_str(),
            total: rounded(candidate.total),
            signals: signals(&candidate.score),
            predicted: Predicted {
                wait_ms: rounded(prediction.wait_ms),
                load_ms: rounded(prediction.load_ms),
                prefill_ms: rounded(prediction.prefill_ms),
                decode_ms: rounded(prediction.decode_ms),
                others_ms: rounded(prediction.others_ms),
            },
            readiness: candidate.readiness.name(),
            context_action: candidate.plan.action.to_string(),
            reload_cause: candidate.plan.cause.map(ReloadCause::name),
            last_resort: candidate.last_resort,
        })
    };
    let told: Vec<_> = ranked.iter().filter_map(tell).collect();
    if told.is_empty() { None } else { serde_json::to_string(&told).ok() }
}

/// The signals in the order of their names, as they are kept.
fn signals(score: &Score) -> [(&'static str, f64); SIGNAL_COUNT] {
    let mut signals = std::array::from_fn(|at| (SIGNALS[at].0, rounded(score.parts[at])));
    signals.sort_unstable_by_key(|(name, _)| *name);
    signals
}

fn by_name<S: Serializer>(signals: &[(&'static str, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(signals.iter().copied())
}

/// Two decimals: more is noise, and sixteen candidates add up.
fn rounded(value: f64) -> f64 {
    (value * 1e2).round() / 1e2
}
