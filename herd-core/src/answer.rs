//! Watches answers on their way to the client: did they end as their surface ends answers, and what do they tell.
//!
//! A clean end of the HTTP body proves nothing, as Ollama ends it cleanly when its engine dies. An answer is complete
//! when its own last word was seen. What cannot be read from its beginning on, because it is compressed or no JSON at all,
//! is not judged: nothing is said of its end and nothing is appended to it.
//! Nothing here delays or changes a byte; [`Renamer`] alone does, where it is asked.
//! Memory does not grow with the answer, and a line that only carries a token is not parsed.

mod framing;
mod heard;
mod notice;
mod reader;
mod rename;
mod skim;

use crate::request::{Dialect, Surface};
use framing::{Events, Lines};
use heard::Kind;
use reader::Reader;

pub use notice::{Progress, comment, status_line};
pub use rename::Renamer;

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With its last word, or in a form that is not read here.
    Complete,
    /// Without it, and without an error.
    Truncated,
    /// With an error that the backend told or hinted at in the body.
    BackendError,
}

/// How the backend let an error be known after its head was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendError {
    /// In the surface's own form: the client knows.
    Told,
    /// By a chunk without model and content, which clients take for an empty one: the client does not know.
    Hinted,
}

words! {
    /// Why the model stopped, in one vocabulary for all surfaces.
    pub enum Reason {
        /// It had said all, or met a stop sequence.
        Stop = "stop",
        /// It met the limit of tokens.
        Length = "length",
        /// It wants a tool called.
        ToolCalls = "tool_calls",
        /// The request only loaded the model.
        Load = "load",
        /// The request only unloaded the model.
        Unload = "unload",
        /// A word that is not known here.
        Other = "other",
    }
}

impl Reason {
    /// Reads a surface's word.
    fn of(text: &[u8]) -> Self {
        match text {
            b"stop" | b"end_turn" | b"stop_sequence" | b"completed" => Self::Stop,
            b"length" | b"max_tokens" | b"incomplete" => Self::Length,
            b"tool_calls" | b"tool_use" => Self::ToolCalls,
            b"load" => Self::Load,
            b"unload" => Self::Unload,
            _ => Self::Other,
        }
    }
}

/// What the backend says it did. `None` is what it did not say, which is not zero.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer.
    pub completion_tokens: Option<u64>,
    /// [`Self::completion_tokens`] was estimated from what passed, because the backend did not tell it.
    pub estimated: bool,
    /// Loading the model and waiting for the scheduler, in milliseconds; Ollama's own API only, as are those below.
    pub load_ms: Option<f64>,
    /// Reading the prompt, in milliseconds.
    pub prefill_ms: Option<f64>,
    /// Writing the answer, in milliseconds.
    pub decode_ms: Option<f64>,
    /// All of it at the backend, in milliseconds.
    pub total_ms: Option<f64>,
}

impl Counts {
    /// Takes what `later` says. `/v1/completions` puts two zeros on every chunk before the last: they say nothing.
    fn update(&mut self, later: &Self) {
        if later.prompt_tokens.unwrap_or(0) + later.completion_tokens.unwrap_or(0) > 0 {
            self.prompt_tokens = later.prompt_tokens.or(self.prompt_tokens);
            self.completion_tokens = later.completion_tokens.or(self.completion_tokens);
        }
        self.load_ms = later.load_ms.or(self.load_ms);
        self.prefill_ms = later.prefill_ms.or(self.prefill_ms);
        self.decode_ms = later.decode_ms.or(self.decode_ms);
        self.total_ms = later.total_ms.or(self.total_ms);
    }
}

/// What was seen of an answer so far.
#[expect(clippy::struct_excessive_bools, reason = "any of them can come with any other")]
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// Its last word was there; not streamed: one whole JSON object was.
    pub terminated: bool,
    /// A part of the answer was there: text, thinking or a tool call; not streamed: any byte.
    pub first_token: bool,
    /// Parts of a streamed answer so far: about as many as its tokens, see [`Observation::counts`]. 0 where it is not
    /// streamed.
    pub pieces: u64,
    /// Something that had to be read was not JSON.
    pub garbage: bool,
    /// It was none from its beginning on: it is compressed, or another program answers. Such an answer is not judged.
    pub unreadable: bool,
    /// The backend's error in the body.
    pub backend_error: Option<BackendError>,
    /// Why the model stopped, where told.
    pub reason: Option<Reason>,
    /// What the backend did, where told.
    pub counts: Counts,
}

/// Pieces from which on an answer teaches how many tokens a piece has: in shorter ones the rounding shows.
const TEACHING_PIECES: u64 = 8;

impl Observation {
    /// What the backend did: as it told, and where a stream did not tell its tokens, or was cut before it could, those
    /// estimated from the pieces that passed. `tokens_per_piece` is what the model has shown; `None` = never measured,
    /// taken for one, which is what Ollama sends.
    #[must_use]
    pub fn counts(&self, tokens_per_piece: Option<f64>) -> Counts {
        if self.counts.completion_tokens.is_some() || self.pieces == 0 {
            return self.counts;
        }
        let text = (self.pieces as f64 * tokens_per_piece.unwrap_or(1.0)).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; no count is negative")]
        let tokens = (text.max(1.0) as u64).saturating_add(self.unseen_tokens());
        Counts { completion_tokens: Some(tokens), estimated: true, ..self.counts }
    }

    /// How many tokens a piece of this answer has; `None` = not told, or too short to tell.
    #[must_use]
    pub fn tokens_per_piece(&self) -> Option<f64> {
        let tokens = self.counts.completion_tokens?.saturating_sub(self.unseen_tokens());
        (self.pieces >= TEACHING_PIECES && tokens > 0).then(|| tokens as f64 / self.pieces as f64)
    }

    /// The token by which a model says that it has said all: it is counted, and is no part of the text.
    fn unseen_tokens(&self) -> u64 {
        u64::from(matches!(self.reason, Some(Reason::Stop | Reason::ToolCalls)))
    }
}

/// Watches one answer of status 200.
#[derive(Debug, Clone)]
pub struct Observer {
    framing: Framing,
    reader: Reader,
}

#[derive(Debug, Clone)]
enum Framing {
    Whole,
    Lines(Lines),
    Events(Events),
}

impl Observer {
    /// An answer on `surface`; `streamed` says what the request asked for, and counts only where there are streams.
    #[must_use]
    pub fn new(surface: Surface, streamed: bool) -> Self {
        let streamed = streamed && surface.can_stream();
        let framing = match surface.dialect() {
            _ if !streamed => Framing::Whole,
            Dialect::Ollama => Framing::Lines(Lines::default()),
            Dialect::OpenAi | Dialect::Anthropic => Framing::Events(Events::default()),
        };
        Self { framing, reader: Reader::new(surface, streamed) }
    }

    /// Looks at the next bytes of the body, cut anywhere.
    pub fn observe(&mut self, chunk: &[u8]) {
        match &mut self.framing {
            Framing::Whole => self.reader.feed(chunk, Kind::Unnamed),
            Framing::Lines(lines) => lines.observe(chunk, &mut self.reader),
            Framing::Events(events) => events.observe(chunk, &mut self.reader),
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> &Observation {
        &self.reader.seen
    }

    /// What the answer is if its body ended here, as its framing ends it.
    #[must_use]
    pub fn finish(&self) -> Ending {
        let seen = self.seen();
        match (seen.backend_error, seen.terminated) {
            _ if seen.unreadable => Ending::Complete,
            (Some(_), _) => Ending::BackendError,
            (None, true) => Ending::Complete,
            (None, false) => Ending::Truncated,
        }
    }

    /// What to send behind a streamed answer that broke off here, so that the client sees `message` as an error in the
    /// form of its surface.
    ///
    /// `None` when the answer is complete, when its backend told an error itself, or when it is not streamed or cannot be
    /// read: then the framing must show the break. A line that broke off is ended first; it cannot be taken back, so that a client
    /// that parses it fails there, which is an error as well.
    #[must_use]
    pub fn epilogue(&self, message: &str) -> Option<Vec<u8>> {
        let seen = self.seen();
        if seen.unreadable || seen.terminated || seen.backend_error == Some(BackendError::Told) {
            return None;
        }
        let mut bytes = match &self.framing {
            Framing::Whole => return None,
            Framing::Lines(lines) => notice::end_line(lines.mid_line).to_vec(),
            Framing::Events(events) => notice::end_event(events.mid_line, events.has_data).to_vec(),
        };
        let sequence = match &self.framing {
            Framing::Events(events) => events.count + u64::from(events.has_data),
            _ => 0,
        };
        bytes.extend_from_slice(notice::error(self.reader.surface, message, sequence).as_bytes());
        Some(bytes)
    }
}

#[cfg(test)]
mod tests;
