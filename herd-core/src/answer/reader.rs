//! Turns the JSON texts of an answer, one after the other and each in any number of pieces, into an observation.

use super::heard::{Heard, Kind};
use super::skim::Skimmer;
use super::{BackendError, Observation};
use crate::request::{Dialect, Surface};

/// Longest of the endings that [`is_dull`] looks for, and one byte before it.
const TAIL_BYTES: usize = 32;

/// Bytes of a text with a tool call around the call itself, as Ollama writes them.
const CALL_FRAME_BYTES: u64 = 200;
/// Bytes of a tool call that make a token, as with other text.
const BYTES_PER_TOKEN: u64 = 4;

/// Reads JSON texts.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) surface: Surface,
    pub(super) seen: Observation,
    streamed: bool,
    skimmer: Skimmer,
    heard: Heard,
    tail: Tail,
    /// Bytes of the current text so far.
    text_bytes: u64,
    /// A text has been read to its end.
    any_read: bool,
}

impl Reader {
    pub(super) fn new(surface: Surface, streamed: bool) -> Self {
        Self {
            surface,
            seen: Observation::default(),
            streamed,
            skimmer: Skimmer::new(),
            heard: Heard::default(),
            tail: Tail::default(),
            text_bytes: 0,
            any_read: false,
        }
    }

    /// Whether a whole text can be left unread: it holds a token and nothing else.
    pub(super) fn skips(&self, text: &[u8]) -> bool {
        self.streamed && self.seen.first_token && is_dull(self.surface, text)
    }

    /// Leaves one whole text unread.
    pub(super) fn skip(&mut self, text: &[u8]) {
        self.skimmer.close();
        self.tail.push(text);
    }

    /// Takes note of a part of the answer that was left unread.
    pub(super) fn count_piece(&mut self) {
        self.seen.pieces += 1;
    }

    /// Reads a piece of the current text. `kind` is what its event is called.
    pub(super) fn feed(&mut self, piece: &[u8], kind: Kind) {
        let was_closed = self.skimmer.is_closed();
        let heard = &mut self.heard;
        let read = self.skimmer.feed(piece, &mut |path, value| heard.take(path, value));
        let (text, rest) = piece.split_at(read);
        self.text_bytes += text.len() as u64;
        if self.skimmer.is_closed() {
            if !was_closed {
                self.tail.push(text);
                self.commit(kind);
                self.tail.push(rest);
            } else if self.streamed {
                self.tail.push(rest);
            }
            self.skimmer.trail(rest);
        } else if self.streamed {
            self.tail.push(piece);
        }
        if !self.streamed {
            self.seen.first_token |= !self.skimmer.is_fresh();
            self.note_garbage(self.skimmer.is_broken());
        }
    }

    /// Whether the current text goes on behind the line that has ended: it is sound so far, and has not come to its end.
    pub(super) fn continues(&self) -> bool {
        let over = self.skimmer.is_fresh() || self.skimmer.is_closed() || self.skimmer.is_broken();
        !over && !self.skips(self.tail.bytes())
    }

    fn note_garbage(&mut self, garbage: bool) {
        self.seen.garbage |= garbage;
        self.seen.unreadable |= garbage && !self.any_read;
    }

    /// Ends the current text and starts the next. `expected` is false for a text that need not be JSON.
    pub(super) fn end(&mut self, expected: bool) {
        let sound = self.skimmer.is_fresh() || self.skimmer.is_closed();
        self.note_garbage(expected && !sound && !self.skips(self.tail.bytes()));
        self.skimmer = Skimmer::new();
        self.heard = Heard::default();
        self.tail = Tail::default();
        self.text_bytes = 0;
    }

    /// Takes note of `data: [DONE]`.
    pub(super) fn done(&mut self) {
        self.seen.terminated |= matches!(self.surface, Surface::OpenAiChat | Surface::OpenAiCompletions);
    }

    /// Takes note of an event that is an error whatever its data.
    pub(super) fn told(&mut self) {
        self.seen.backend_error = Some(BackendError::Told);
    }

    /// Takes what the text that has just been read to its end says.
    fn commit(&mut self, kind: Kind) {
        self.any_read = true;
        // The same rule as for texts in one piece, or else an answer would be read otherwise when cut otherwise.
        if self.skips(self.tail.bytes()) {
            return self.count_piece();
        }
        let heard = std::mem::take(&mut self.heard);
        let kind = if heard.kind == Kind::Unnamed { kind } else { heard.kind };
        let seen = &mut self.seen;
        if self.streamed {
            seen.pieces += pieces(&heard, self.text_bytes);
        }
        seen.first_token |= heard.content;
        seen.reason = heard.reason.or(seen.reason);
        seen.counts.update(&heard.counts);
        if heard.error || kind == Kind::Error {
            seen.backend_error = Some(BackendError::Told);
        } else if hints_error(self.surface, &heard) && self.streamed && seen.backend_error.is_none() {
            seen.backend_error = Some(BackendError::Hinted);
        }
        seen.terminated |= !self.streamed || ends_stream(self.surface, &heard, kind);
    }
}

/// Pieces of the answer in one text. A tool call comes whole, however many tokens it has.
fn pieces(heard: &Heard, text_bytes: u64) -> u64 {
    let call = text_bytes.saturating_sub(CALL_FRAME_BYTES) / BYTES_PER_TOKEN;
    match (heard.content, heard.tool_call) {
        (_, true) => call.max(1),
        (content, false) => u64::from(content),
    }
}

fn ends_stream(surface: Surface, heard: &Heard, kind: Kind) -> bool {
    match surface {
        Surface::AnthropicMessages | Surface::OpenAiResponses => kind == Kind::End,
        _ => surface.dialect() == Dialect::Ollama && heard.done,
    }
}

/// Whether it is the chunk that Ollama writes for an error which it does not tell.
fn hints_error(surface: Surface, heard: &Heard) -> bool {
    surface.dialect() == Dialect::OpenAi && heard.model_empty && !heard.content
}

/// Whether a text ends like one that holds a token and nothing else.
///
/// In a valid object `"done":false}` at the end is its own last member, as a quote inside a string has a backslash
/// before it. The same holds for the chat chunk; there an empty delta is left to be read, as it may be the one that
/// says that the engine died.
fn is_dull(surface: Surface, text: &[u8]) -> bool {
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    match surface {
        Surface::OllamaChat | Surface::OllamaGenerate => text.ends_with(br#""done":false}"#),
        Surface::OpenAiChat => text
            .strip_suffix(br#""},"finish_reason":null}]}"#)
            .is_some_and(|before| before.last().is_some_and(|byte| *byte != b'"')),
        _ => false,
    }
}

/// The last bytes of a text that comes in pieces.
#[derive(Debug, Clone, Default)]
struct Tail {
    kept: [u8; TAIL_BYTES],
    length: usize,
}

impl Tail {
    fn push(&mut self, piece: &[u8]) {
        let new = &piece[piece.len().saturating_sub(TAIL_BYTES)..];
        let old = self.length.min(TAIL_BYTES - new.len());
        self.kept.copy_within(self.length - old..self.length, 0);
        self.kept[old..old + new.len()].copy_from_slice(new);
        self.length = old + new.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.kept[..self.length]
    }
}
