//! The terminal record of one inference request: filled while it lives, read by everything that counts or keeps it.
//!
//! Times are milliseconds. Ages count from when the request's header had been read. `None`, an empty string and an empty
//! list are what is not known.

mod candidates;

use crate::answer::{Counts, Reason};
use crate::decide::{Candidate, StandIn};
use crate::protect::{ContextAction, ReloadCause};
use crate::queue::Class;
use crate::request::Surface;
use crate::vocabulary::{Outcome, Recorded, Status};

pub use candidates::Candidates;

/// From here on loading counts as a cold load, milliseconds. Ollama reports tens of milliseconds for a loaded model.
const COLD_LOAD_MS: f64 = 1_000.0;
/// What the client gets when no node has the model.
const NOT_FOUND: u16 = 404;

/// What became of one inference request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestRecord {
    /// Its id: the client's, or made at the edge.
    pub request_id: String,
    /// When it ended, by the wall clock, Unix milliseconds.
    pub timestamp_ms: u64,
    /// Made by a benchmark: it is kept, but counts as nobody's use.
    pub benchmark: bool,
    /// Where it came in.
    pub surface: Option<Recorded<Surface>>,
    /// The model that it asked for; empty = that could not be read.
    pub original_model: String,
    /// The model that was asked last, and that it is counted for; the requested one where no node was asked.
    pub model: String,
    /// Why that is not the requested one; `None` = it is.
    pub stand_in: Option<StandIn>,
    /// Another model served than the one that was meant; an alias is a name for the same one.
    pub fallback_used: bool,
    /// The node that was asked last; empty = none was.
    pub node_id: String,
    /// Its score.
    pub score: Option<f64>,
    /// Attempts after the first.
    pub retry_count: u32,
    /// The nodes that were asked, in order. Left out of lists.
    pub attempts: Vec<AttemptRecord>,
    /// The nodes that were ranked for the last attempt. Left out of lists.
    pub candidates: Candidates,
    /// How it ended; `None` = it has not.
    pub status: Option<Recorded<Status>>,
    /// Status that the client got; 0 = none.
    pub http_status: u16,
    /// What went wrong.
    pub error_message: Option<String>,
    /// From the request read to its last byte.
    pub latency_ms: f64,
    /// Waiting for a slot, in all.
    pub queue_ms: Option<f64>,
    /// Until the first byte of the answer, as predicted at the first choice.
    pub predicted_ms: Option<f64>,
    /// From dispatch to the first byte of the answer's body: `queue + time to first token + decode = latency`.
    pub time_to_first_token_ms: Option<f64>,
    /// From the first byte of the answer to the last.
    pub decode_ms: Option<f64>,
    /// What the backend reported of its work. Of what it did not report, tokens may have been counted.
    pub counts: Counts,
    /// Tokens of the prompt, as estimated before a node was chosen.
    pub estimated_tokens: Option<u64>,
    /// `num_ctx` that was asked for, tokens.
    pub num_ctx: Option<u64>,
    /// The window that served it, tokens.
    pub context_length: Option<u64>,
    /// What happened to the context; `None` = no node was asked.
    pub context_action: Option<ContextAction>,
    /// Why the model was reloaded; `None` = it was not.
    pub reload_cause: Option<ReloadCause>,
    /// The prompt was estimated to exceed the window, so that the backend may have truncated it.
    pub overflow: bool,
    /// Why the backend stopped.
    pub finish_reason: Option<Reason>,
    /// The client's address.
    pub client_ip: String,
    /// The client's program.
    pub user_agent: String,
    /// The client's tags.
    pub tags: Vec<String>,
    /// The application that the request is counted for: one for each request.
    pub app: String,
    /// The API key that it showed, by id.
    pub key_id: String,
    /// Its class among waiting requests.
    pub priority: Option<Class>,
    /// Whether the client wants a stream.
    pub stream: Option<bool>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
}

/// One node that was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRecord {
    /// The node.
    pub node_id: String,
    /// How it went.
    pub outcome: Recorded<Outcome>,
    /// Its score then.
    pub score: Option<f64>,
    /// Age of the request when it was asked.
    pub started_ms: Option<f64>,
    /// How long that took; `None` = it is not over, or not known.
    pub duration_ms: Option<f64>,
}

impl Default for AttemptRecord {
    fn default() -> Self {
        let outcome = Outcome::Running.into();
        Self { node_id: String::new(), outcome, score: None, started_ms: None, duration_ms: None }
    }
}

impl RequestRecord {
    /// A request that begins.
    #[must_use]
    pub fn begin(request_id: String, surface: Surface) -> Self {
        Self { request_id, surface: Some(surface.into()), ..Self::default() }
    }

    /// Notes the model that the client asked for.
    pub fn wants(&mut self, model: &str) {
        model.clone_into(&mut self.original_model);
        model.clone_into(&mut self.model);
    }

    /// Notes that `candidate`, the node named `node_id`, is asked for `model` at the age `started_ms`.
    pub fn asks(&mut self, node_id: &str, model: &str, candidate: &Candidate, started_ms: f64) {
        self.retry_count = u32::try_from(self.attempts.len()).unwrap_or(u32::MAX);
        self.attempts.push(AttemptRecord {
            node_id: node_id.to_owned(),
            score: Some(candidate.total),
            started_ms: Some(started_ms),
            ..AttemptRecord::default()
        });
        node_id.clone_into(&mut self.node_id);
        model.clone_into(&mut self.model);
        self.score = Some(candidate.total);
        self.predicted_ms.get_or_insert(candidate.prediction.until_answer_ms());
        self.context_length = candidate.plan.window;
        self.context_action = Some(candidate.plan.action);
        self.reload_cause = candidate.plan.cause;
    }

    /// Notes why the model that is asked stands in for the requested one, if it does.
    pub fn stands_in(&mut self, stand_in: Option<StandIn>) {
        self.stand_in = stand_in;
        self.fallback_used = stand_in.is_some_and(|why| why != StandIn::Alias);
    }

    /// Notes that the attempt under way has failed at the age `age_ms`.
    pub fn attempt_failed(&mut self, outcome: Outcome, age_ms: f64) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.outcome = outcome.into();
            attempt.end(age_ms);
        }
    }

    /// Adds to the time spent waiting for a slot.
    pub fn waited(&mut self, ms: f64) {
        self.queue_ms = Some(self.queue_ms.unwrap_or(0.0) + ms);
    }

    /// Notes the first byte of the answer's body, once.
    pub fn first_byte(&mut self, age_ms: f64) {
        let queue_ms = self.queue_ms.unwrap_or(0.0);
        self.time_to_first_token_ms.get_or_insert((age_ms - queue_ms).max(0.0));
    }

    /// Forgets an answer of which nothing has reached the client.
    pub fn discard_answer(&mut self) {
        (self.response_bytes, self.time_to_first_token_ms) = (0, None);
        (self.counts, self.finish_reason) = (Counts::default(), None);
    }

    /// Notes how the request ended. Only the first call counts.
    pub fn end(&mut self, status: Status, error: &str) {
        if self.status.is_some() {
            return;
        }
        self.status = Some(status.into());
        self.error_message = Some(error.to_owned()).filter(|error| !error.is_empty());
        let running = |attempt: &&mut AttemptRecord| attempt.outcome.known() == Some(Outcome::Running);
        if let Some(attempt) = self.attempts.last_mut().filter(running) {
            attempt.outcome = Outcome::Ended(status).into();
        }
    }

    /// Makes it terminal, when its last byte has passed at the age `latency_ms`: what has no other end ends here. A
    /// request of which nothing says how it ended was cut off, as at the end of a drain.
    pub fn close(&mut self, latency_ms: f64, timestamp_ms: u64) {
        self.end(Status::Incomplete, "");
        self.latency_ms = latency_ms;
        self.timestamp_ms = timestamp_ms;
        self.queue_ms.get_or_insert(0.0);
        self.decode_ms = self.first_byte_ms().map(|first_ms| (latency_ms - first_ms).max(0.0));
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.end(latency_ms);
        }
    }

    /// How it ended; `None` = it has not, or as only another program knows.
    #[must_use]
    pub fn known_status(&self) -> Option<Status> {
        self.status.as_ref().and_then(Recorded::known)
    }

    /// The word for how it ended; empty = it has not.
    #[must_use]
    pub fn status_name(&self) -> &str {
        self.status.as_ref().map_or("", Recorded::name)
    }

    /// The word for where it came in; empty = unknown.
    #[must_use]
    pub fn surface_name(&self) -> &str {
        self.surface.as_ref().map_or("", Recorded::name)
    }

    /// Age at the first byte of the answer's body.
    #[must_use]
    pub fn first_byte_ms(&self) -> Option<f64> {
        self.time_to_first_token_ms.map(|ms| ms + self.queue_ms.unwrap_or(0.0))
    }

    /// The same, as far as that tells of a first token: an answer that is not streamed comes when it is written whole.
    #[must_use]
    pub fn ttft_ms(&self) -> Option<f64> {
        self.first_byte_ms().filter(|_| self.stream != Some(false))
    }

    /// Tokens written per second; `None` = not known.
    #[must_use]
    pub fn tokens_per_s(&self) -> Option<f64> {
        // An answer that is not streamed comes all at once, however long it was written.
        if self.stream == Some(false) {
            return None;
        }
        let decode_ms = self.decode_ms.filter(|ms| *ms > 0.0)?;
        // The first token comes with the first byte, so the time is that of the others.
        let tokens = self.counts.completion_tokens?.checked_sub(1).filter(|tokens| *tokens > 0)?;
        Some(tokens as f64 * 1_000.0 / decode_ms)
    }

    /// It was refused, as no node has such a model.
    #[must_use]
    pub fn is_unknown_model(&self) -> bool {
        self.http_status == NOT_FOUND && self.node_id.is_empty()
    }

    /// It waited for a model to be loaded, or loaded anew.
    #[must_use]
    pub fn is_cold_load(&self) -> bool {
        let planned = self.context_action.is_some_and(ContextAction::needs_load);
        planned || self.reload_cause.is_some() || self.counts.load_ms.is_some_and(|ms| ms >= COLD_LOAD_MS)
    }
}

impl AttemptRecord {
    /// Ends it at the age `age_ms` of its request, if it has not ended.
    fn end(&mut self, age_ms: f64) {
        if self.duration_ms.is_none() {
            self.duration_ms = Some((age_ms - self.started_ms.unwrap_or(0.0)).max(0.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_first_token_and_decode_add_up_to_the_latency() {
        let mut record = RequestRecord::begin("r".into(), Surface::OllamaChat);
        record.waited(40.0);
        record.waited(60.0);
        record.first_byte(350.0);
        record.first_byte(500.0);
        record.end(Status::Completed, "");
        record.end(Status::Failed, "too late");
        record.close(1_000.0, 7);
        let parts = (record.queue_ms, record.time_to_first_token_ms, record.decode_ms);
        assert_eq!(parts, (Some(100.0), Some(250.0), Some(650.0)));
        let end = (record.known_status(), record.error_message.as_deref(), record.timestamp_ms);
        assert_eq!(end, (Some(Status::Completed), None, 7));
        assert_eq!((record.ttft_ms(), record.tokens_per_s()), (Some(350.0), None));
        record.counts.completion_tokens = Some(66);
        assert_eq!(record.tokens_per_s(), Some(100.0));
        record.stream = Some(false);
        assert_eq!((record.ttft_ms(), record.tokens_per_s()), (None, None));
    }

    #[test]
    fn whatever_is_open_ends_with_the_record() {
        let mut record = RequestRecord::begin("r".into(), Surface::OllamaChat);
        let attempt = |started_ms| AttemptRecord { started_ms: Some(started_ms), ..AttemptRecord::default() };
        record.attempts = vec![attempt(10.0)];
        record.attempt_failed(Outcome::Failed(crate::vocabulary::Failure::Reset), 30.0);
        record.attempts.push(attempt(50.0));
        record.close(90.0, 1);
        let told: Vec<_> = record.attempts.iter().map(|one| (one.outcome.name(), one.duration_ms)).collect();
        assert_eq!(told, [("reset", Some(20.0)), ("incomplete", Some(40.0))]);
        assert_eq!(record.known_status(), Some(Status::Incomplete));
    }

    #[test]
    fn an_alias_is_no_other_model() {
        let mut record = RequestRecord::default();
        record.stands_in(Some(StandIn::Alias));
        assert!(!record.fallback_used);
        record.stands_in(Some(StandIn::Vram));
        assert!(record.fallback_used);
        record.stands_in(None);
        assert!(!record.fallback_used);
    }
}
