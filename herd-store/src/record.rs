//! What is known of one request at its end, and the bounds of it.

use serde::Serialize;
use serde_json::value::RawValue;

/// Most bytes of an id, a name or an address.
const NAME_BYTES: usize = 256;
/// Most bytes of an error message.
const MESSAGE_BYTES: usize = 2_000;
/// Most bytes of the signals of all candidates; JSON cannot be cut, so what is longer is left out.
const BREAKDOWN_BYTES: usize = 16 << 10;
/// Most tags of a request.
const TAGS: usize = 16;
/// Most attempts that are kept of a request.
const ATTEMPTS: usize = 32;
/// What the client gets when no node has the model.
const NOT_FOUND: u16 = 404;

/// One request, when it is over. Durations are in milliseconds; `None` and empty strings are what is not known.
///
/// As JSON it has the names of the columns, and `timestamp` in Unix seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TraceRecord {
    /// Its id.
    pub request_id: String,
    /// When it was over, Unix milliseconds.
    #[serde(rename = "timestamp", serialize_with = "seconds")]
    pub timestamp_ms: u64,
    /// The model that was asked last; the requested one when no node was asked.
    pub model: String,
    /// The model that the client asked for.
    pub original_model: String,
    /// The node that was asked last; empty = none.
    pub node_id: String,
    /// The surface that it came in on.
    pub original_format: String,
    /// How it ended: `completed`, `failed`, `rejected`, `incomplete`, `reaped` or `client_disconnected`.
    pub status: String,
    /// From the request read to its last byte.
    pub latency_ms: f64,
    /// From dispatch to the first byte of the answer: `queue + time to first token + decode = latency`.
    pub time_to_first_token_ms: Option<f64>,
    /// Waiting for a slot, in all.
    pub queue_ms: Option<f64>,
    /// Loading the model, as the backend told.
    pub load_ms: Option<f64>,
    /// From the first byte to the last.
    pub decode_ms: Option<f64>,
    /// Until the first byte of the answer, as predicted at the first choice.
    pub predicted_ms: Option<f64>,
    /// Tokens read.
    pub prompt_tokens: Option<u64>,
    /// Tokens written.
    pub completion_tokens: Option<u64>,
    /// Score of the last node.
    pub score: Option<f64>,
    /// The signals of all ranked candidates, JSON. Left out of lists.
    #[serde(serialize_with = "raw_json")]
    pub scores_breakdown: Option<String>,
    /// Further attempts after the first.
    pub retry_count: u32,
    /// Another model served.
    pub fallback_used: bool,
    /// Why another model served: `alias`, `fallback`, `upgrade`, `vram`.
    pub stand_in: String,
    /// The client's address.
    pub client_ip: String,
    /// The client's tags.
    pub tags: Vec<String>,
    /// The application that it is counted for; one for each request.
    pub app: String,
    /// The API key that it came with, by id.
    pub key_id: String,
    /// The client's program.
    pub user_agent: String,
    /// What went wrong.
    pub error_message: Option<String>,
    /// Status that the client got; 0 = none.
    pub http_status: u16,
    /// Whether the answer was streamed.
    pub stream: Option<bool>,
    /// `num_ctx` that was asked for, tokens.
    pub num_ctx: Option<u64>,
    /// The window that served it, tokens.
    pub context_length: Option<u64>,
    /// What happened to the context.
    pub context_action: String,
    /// Why the model was reloaded.
    pub reload_cause: String,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// Its class among waiting requests.
    pub priority: String,
    /// Made by a benchmark: kept, but counted in no usage.
    pub benchmark: bool,
    /// Why the backend stopped.
    pub finish_reason: String,
    /// Tokens of the prompt as estimated before.
    pub estimated_tokens: Option<u64>,
    /// That is more than the window that served it: the backend may have cut the prompt.
    pub overflow: bool,
    /// The nodes that were asked, in order. Left out of lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptRecord>,
}

/// One node that was asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AttemptRecord {
    /// The node.
    pub node_id: String,
    /// How it went.
    pub outcome: String,
    /// Its score then.
    pub score: Option<f64>,
    /// From the request read to when it was asked, milliseconds.
    pub started_ms: Option<f64>,
    /// How long that took, milliseconds.
    pub duration_ms: Option<f64>,
}

impl TraceRecord {
    /// Within the bounds of the store: strings are cut, numbers that are none become unknown.
    pub(super) fn bounded(mut self) -> Self {
        for name in [
            &mut self.request_id,
            &mut self.model,
            &mut self.original_model,
            &mut self.node_id,
            &mut self.original_format,
            &mut self.status,
            &mut self.stand_in,
            &mut self.client_ip,
            &mut self.app,
            &mut self.key_id,
            &mut self.user_agent,
            &mut self.context_action,
            &mut self.reload_cause,
            &mut self.priority,
            &mut self.finish_reason,
        ] {
            cut(name, NAME_BYTES);
        }
        if let Some(message) = &mut self.error_message {
            cut(message, MESSAGE_BYTES);
        }
        self.scores_breakdown = self.scores_breakdown.filter(|json| json.len() <= BREAKDOWN_BYTES);
        self.tags.truncate(TAGS);
        self.tags.iter_mut().for_each(|tag| cut(tag, NAME_BYTES));
        self.latency_ms = duration(Some(self.latency_ms)).unwrap_or(0.0);
        for time in [
            &mut self.time_to_first_token_ms,
            &mut self.queue_ms,
            &mut self.load_ms,
            &mut self.decode_ms,
            &mut self.predicted_ms,
        ] {
            *time = duration(*time);
        }
        self.score = self.score.filter(|score| score.is_finite());
        self.attempts.truncate(ATTEMPTS);
        self.attempts.iter_mut().for_each(AttemptRecord::bound);
        self
    }

    /// From the request read to the first byte of its answer, as far as that tells of a first token: an answer in one
    /// piece comes when it is written whole.
    #[must_use]
    pub fn ttft_ms(&self) -> Option<f64> {
        let first = self.time_to_first_token_ms.filter(|_| self.stream != Some(false))?;
        Some(first + self.queue_ms.unwrap_or(0.0))
    }

    /// It was refused, as no node has such a model.
    pub(super) fn is_unknown_model(&self) -> bool {
        self.http_status == NOT_FOUND && self.node_id.is_empty()
    }

    /// Tokens written per second; `None` = not known.
    pub(super) fn tokens_per_s(&self) -> Option<f64> {
        // An answer in one piece comes all at once, however long it was written.
        if self.stream == Some(false) {
            return None;
        }
        let decode_ms = self.decode_ms.filter(|ms| *ms > 0.0)?;
        // The first token comes with the first byte, so the time is that of the others.
        let tokens = self.completion_tokens?.checked_sub(1).filter(|tokens| *tokens > 0)?;
        Some(tokens as f64 * 1_000.0 / decode_ms)
    }
}

impl AttemptRecord {
    fn bound(&mut self) {
        cut(&mut self.node_id, NAME_BYTES);
        cut(&mut self.outcome, NAME_BYTES);
        self.score = self.score.filter(|score| score.is_finite());
        self.started_ms = duration(self.started_ms);
        self.duration_ms = duration(self.duration_ms);
    }
}

fn duration(ms: Option<f64>) -> Option<f64> {
    ms.filter(|ms| ms.is_finite()).map(|ms| ms.max(0.0))
}

fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn seconds<S: serde::Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(*ms as f64 / 1_000.0)
}

/// As the JSON it is; what is none becomes a string.
#[expect(clippy::ref_option, reason = "serde's signature")]
fn raw_json<S: serde::Serializer>(json: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(json) = json else { return serializer.serialize_none() };
    match RawValue::from_string(json.clone()) {
        Ok(raw) => raw.serialize(serializer),
        Err(_) => serializer.serialize_str(json),
    }
}
