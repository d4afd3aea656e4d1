//! What became of a request: one terminal record for each, on every path.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use herd_core::answer::Counts;
use herd_core::decide::Candidate;
use herd_core::fleet::FleetSnapshot;
use herd_core::protect::overflow;
use herd_core::request::{RequestProfile, Surface};

use crate::record::Recorder;
use crate::selector::Choice;

pub use herd_core::vocabulary::Status;

/// One node that was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempted {
    /// The node.
    pub node_id: String,
    /// How it went: `running`, why the next node was asked, or the request's own status.
    pub outcome: &'static str,
    /// Its score.
    pub score: f64,
    /// Age of the request when it was asked, milliseconds.
    pub started_ms: u64,
    /// Age of the request when that was over; `None` = with the request.
    pub ended_ms: Option<u64>,
}

impl Attempted {
    /// The outcome of an attempt that is not over.
    pub const RUNNING: &'static str = "running";
}

/// The terminal record of an inference request. Handed over when it is dropped, so that no path can lose it.
#[derive(Debug)]
pub struct Trace {
    course: Course,
    recorder: Arc<Recorder>,
}

/// What became of a request so far.
#[derive(Debug)]
pub struct Course {
    /// The request's id.
    pub request_id: String,
    /// It measures: it counts as nobody's use.
    pub benchmark: bool,
    /// Where it came in.
    pub surface: Surface,
    /// The API key that it showed; empty = none.
    pub key_id: String,
    /// The model it asked for; empty = that could not be read.
    pub model: String,
    /// The model that was asked last; empty = none.
    pub served_model: String,
    /// Why that is not the requested one; empty = it is.
    pub stand_in: &'static str,
    /// The nodes that were asked, in order.
    pub attempts: Vec<Attempted>,
    /// Status that the client got; 0 = none.
    pub http_status: u16,
    /// How it ended; none until known: then the task was cut off.
    pub status: Option<Status>,
    /// What went wrong.
    pub error: String,
    /// When the request's header had been read.
    pub began: Instant,
    /// Time spent waiting for a slot, in all.
    pub queue_ms: u64,
    /// Until its answer was predicted to begin, when it was first decided, milliseconds; `None` = it never was.
    pub predicted_ms: Option<f64>,
    /// `num_ctx` that was asked for, tokens.
    pub num_ctx: Option<u64>,
    /// The window that served it, tokens.
    pub context_length: Option<u64>,
    /// What happened to the context; empty = no node was asked.
    pub context_action: String,
    /// Why the model was reloaded; empty = it was not.
    pub reload_cause: &'static str,
    /// The prompt was estimated to exceed that window.
    pub overflow: bool,
    /// From there to the first byte of the answer's body.
    pub ttft_ms: Option<u64>,
    /// Bytes of the answer's body.
    pub response_bytes: usize,
    /// What the backend told of its work.
    pub counts: Counts,
    /// Why it stopped, in the backend's word; empty = not told.
    pub finish_reason: &'static str,
    /// Who asked, and how.
    pub client: Client,
    /// The nodes that were ranked for the last attempt.
    pub ranked: Vec<Candidate>,
    /// The picture on which they were.
    pub snapshot: Option<Arc<FleetSnapshot>>,
}

/// Who asked, and how.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// Its address.
    pub ip: String,
    /// Its program.
    pub user_agent: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// The application that the request is counted for.
    pub app: String,
    /// `interactive` or `batch`.
    pub class: &'static str,
    /// Whether it wants a stream.
    pub stream: Option<bool>,
    /// Bytes of its body.
    pub request_bytes: usize,
    /// Estimated tokens of its prompt.
    pub estimated_tokens: Option<u64>,
}

impl Trace {
    /// A request that begins now.
    #[must_use]
    pub fn begin(request_id: String, surface: Surface, recorder: Arc<Recorder>) -> Self {
        Self { course: Course::begin(request_id, surface), recorder }
    }

    /// Notes that the node of `choice` is asked for `profile`, and takes the others that were ranked out of it.
    pub fn attempt(&mut self, choice: &mut Choice, profile: &RequestProfile) {
        self.recorder.telemetry.asked(&choice.candidate);
        self.course.attempt(choice, profile);
    }
}

impl Deref for Trace {
    type Target = Course;

    fn deref(&self) -> &Course {
        &self.course
    }
}

impl DerefMut for Trace {
    fn deref_mut(&mut self) -> &mut Course {
        &mut self.course
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Nothing told us how it ended: the task was dropped, as at the end of a drain.
        self.status.get_or_insert(Status::Incomplete);
        let nothing = Course::begin(String::new(), self.surface);
        Recorder::ended(&self.recorder, std::mem::replace(&mut self.course, nothing));
    }
}

impl Course {
    fn begin(request_id: String, surface: Surface) -> Self {
        Self {
            request_id,
            benchmark: false,
            surface,
            key_id: String::new(),
            model: String::new(),
            served_model: String::new(),
            stand_in: "",
            attempts: Vec::new(),
            http_status: 0,
            status: None,
            error: String::new(),
            began: Instant::now(),
            queue_ms: 0,
            predicted_ms: None,
            num_ctx: None,
            context_length: None,
            context_action: String::new(),
            reload_cause: "",
            overflow: false,
            ttft_ms: None,
            response_bytes: 0,
            counts: Counts::default(),
            finish_reason: "",
            client: Client::default(),
            ranked: Vec::new(),
            snapshot: None,
        }
    }

    fn attempt(&mut self, choice: &mut Choice, profile: &RequestProfile) {
        self.ranked = std::mem::take(&mut choice.ranked);
        let candidate = &choice.candidate;
        self.attempts.push(Attempted {
            node_id: choice.node().id.to_string(),
            outcome: Attempted::RUNNING,
            score: candidate.total,
            started_ms: self.age_ms(),
            ended_ms: None,
        });
        self.snapshot = Some(Arc::clone(&choice.snapshot));
        self.served_model = choice.model.to_string();
        self.stand_in = choice.stand_in.map_or("", herd_core::decide::StandIn::name);
        self.predicted_ms.get_or_insert(candidate.prediction.until_answer_ms());
        self.context_length = candidate.plan.window;
        self.overflow = overflow(profile, candidate.plan.window).is_some();
        self.context_action = candidate.plan.action.to_string();
        self.reload_cause = candidate.plan.cause.map_or("", herd_core::protect::ReloadCause::name);
    }

    /// Milliseconds since it began.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The nodes that were asked and how it went, `a:error_500,b:completed`.
    fn story(&self) -> String {
        let told = self.attempts.iter().map(|attempted| format!("{}:{}", attempted.node_id, attempted.outcome));
        told.collect::<Vec<_>>().join(",")
    }

    /// One line of the log, for a request that took `latency_ms`.
    pub(crate) fn log(&self, latency_ms: u64) {
        let last = self.attempts.last();
        tracing::info!(
            target: "herd::request",
            request_id = self.request_id,
            benchmark = self.benchmark,
            surface = self.surface.name(),
            key_id = self.key_id,
            model = self.model,
            served_model = self.served_model,
            stand_in = self.stand_in,
            node_id = last.map_or("", |last| last.node_id.as_str()),
            score = last.map_or(0.0, |last| last.score),
            attempts = self.story(),
            http_status = self.http_status,
            status = self.status.map_or("", Status::name),
            latency_ms,
            queue_ms = self.queue_ms,
            predicted_ms = self.predicted_ms,
            ttft_ms = self.ttft_ms,
            num_ctx = self.num_ctx,
            context_length = self.context_length,
            context_action = self.context_action,
            reload_cause = self.reload_cause,
            prompt_tokens = self.counts.prompt_tokens,
            completion_tokens = self.counts.completion_tokens,
            tokens_estimated = self.counts.estimated,
            load_ms = self.counts.load_ms,
            response_bytes = self.response_bytes,
            error = self.error,
            "request ended"
        );
    }
}
