//! How each surface writes an answer: field order, framing and terminators as a real Ollama 0.33 has them.

mod anthropic;
mod native;
mod openai;
mod responses;

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};

pub(crate) use native::ndjson;

use super::{
    body,
    clock::Clock,
    plan::{Piece, Plan},
    surface::{Dialect, Surface},
};

/// HTTP chunks that wait to be written; one event or line each.
pub(crate) type Frames = VecDeque<Bytes>;

/// What an answer amounted to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) total: Duration,
    /// Load and the wait for it, not the wait for a slot.
    pub(crate) load: Duration,
    pub(crate) prompt_tokens: u32,
    pub(crate) prompt_time: Duration,
    pub(crate) eval_tokens: u32,
    pub(crate) eval_time: Duration,
    /// Whether the limit ended it.
    pub(crate) cut: bool,
}

/// A whole answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    pub(crate) thinking: String,
    pub(crate) text: String,
}

impl Said {
    /// Adds a token.
    pub(crate) fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Thought(token) => self.thinking.push_str(token),
            Piece::Text(token) => self.text.push_str(token),
        }
    }
}

/// Writes one answer.
pub(crate) trait Encoder: Send {
    /// What comes before the first token.
    fn begin(&mut self, prompt_tokens: u32, out: &mut Frames);
    /// One token.
    fn piece(&mut self, piece: Piece, out: &mut Frames);
    /// The end of a stream, its terminator included.
    fn end(&mut self, totals: &Totals, out: &mut Frames);
    /// What is written when the engine dies in the middle.
    fn crash(&mut self) -> Option<Bytes>;
    /// The whole answer of a request that is not streamed.
    fn whole(&mut self, said: &Said, totals: &Totals) -> Vec<u8>;
}

/// The encoder of `plan`'s surface.
pub(crate) fn encoder(plan: &Plan, clock: Clock) -> Box<dyn Encoder> {
    match plan.surface {
        Surface::V1Chat => Box::new(openai::Chat::new(plan, clock)),
        Surface::V1Completions => Box::new(openai::Completion::new(plan, clock)),
        Surface::V1Messages => Box::new(anthropic::Messages::new(plan)),
        Surface::V1Responses => Box::new(responses::Responses::new(plan, clock)),
        _ => Box::new(native::Native::new(plan, clock)),
    }
}

/// A line that is neither JSON nor UTF-8.
pub(crate) const GARBAGE: &[u8] = b"\xff\xfe{this is no JSON\n";

/// The same as one frame of a stream of `surface`: a line, or an event.
pub(crate) fn garbage(surface: Surface) -> Bytes {
    match surface.dialect() {
        Dialect::Native => Bytes::from_static(GARBAGE),
        Dialect::OpenAi | Dialect::Anthropic => [b"data: ", GARBAGE, b"\n"].concat().into(),
    }
}

/// The answer to a native request that only loads (or unloads) its model.
pub(crate) fn empty_answer(plan: &Plan, clock: Clock, reason: &'static str) -> Vec<u8> {
    native::Native::new(plan, clock).empty(reason)
}

/// Headers of an answer.
pub(crate) fn headers(surface: Surface, stream: bool) -> Vec<(HeaderName, &'static str)> {
    let native = surface.dialect() == Dialect::Native;
    let content_type = match (stream, native) {
        (true, true) => body::NDJSON,
        (true, false) => body::SSE,
        (false, true) => body::JSON_UTF8,
        (false, false) => body::JSON,
    };
    let mut headers = Vec::with_capacity(3);
    if stream && matches!(surface, Surface::V1Messages | Surface::V1Responses) {
        headers.push((header::CACHE_CONTROL, "no-cache"));
        headers.push((header::CONNECTION, "keep-alive"));
    }
    headers.push((header::CONTENT_TYPE, content_type));
    headers
}

/// A header value from text that may have anything in it.
pub(crate) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Nanoseconds, as Go writes a duration.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether a metric is left out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
