//! Puts the client's name for a model back into an answer that names another.

use super::framing::find;
use crate::splice::json_string;

const KEY: &[u8] = b"\"model\":";

/// Replaces the value of `"model"` members that have one certain value, in an answer that passes in pieces.
///
/// It looks for the bytes `"model":"NAME"`, with at most one space after the colon. They cannot stand inside a string:
/// there a quote has a backslash before it, so that the second quote of the pattern could not follow `model`; and a
/// first quote that has one is passed over. So no parser is needed, and one search serves whole answers, lines and
/// events, and the nested `message.model` and `response.model` of their first events. A tool call with an argument
/// `model` of the very same value is renamed too: the name is to be one that only the fleet knows.
#[derive(Debug, Clone)]
pub struct Renamer {
    from: Vec<u8>,
    to: Vec<u8>,
    /// What has come and may be the start of the pattern: shorter than the pattern.
    held: Vec<u8>,
    /// The byte before those.
    previous: u8,
}

enum Match {
    No,
    /// As far as the bytes go.
    Partly,
    /// The value begins there.
    At(usize),
}

impl Renamer {
    /// Renames `from`, as it is spelled in the answer, to `to`.
    #[must_use]
    pub fn new(from: &str, to: &str) -> Self {
        let [from, to] = [from, to].map(|name| json_string(name).into_bytes());
        Self { from, to, held: Vec::new(), previous: 0 }
    }

    /// The bytes that can go on after `chunk` has come. They may be more or fewer, or none.
    #[must_use]
    pub fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(chunk);
        let mut renamed = Vec::with_capacity(bytes.len() + self.to.len());
        let (mut copied, mut at, mut end) = (0, 0, bytes.len());
        while let Some(quote) = find(b'"', &bytes[at..]).map(|ahead| at + ahead) {
            let escaped = quote.checked_sub(1).map_or(self.previous, |before| bytes[before]) == b'\\';
            match if escaped { Match::No } else { self.matched(&bytes[quote..]) } {
                Match::No => at = quote + 1,
                Match::Partly => {
                    end = quote;
                    break;
                }
                Match::At(value) => {
                    renamed.extend_from_slice(&bytes[copied..quote + value]);
                    renamed.extend_from_slice(&self.to);
                    copied = quote + value + self.from.len();
                    at = copied;
                }
            }
        }
        renamed.extend_from_slice(&bytes[copied..end]);
        self.held = bytes.split_off(end);
        self.previous = bytes.last().copied().unwrap_or(self.previous);
        renamed
    }

    /// The bytes that were held back, at the end of the answer.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.held
    }

    /// Whether the pattern stands at the start of `bytes`.
    fn matched(&self, bytes: &[u8]) -> Match {
        let Some(value) = bytes.strip_prefix(KEY) else {
            return if KEY.starts_with(bytes) { Match::Partly } else { Match::No };
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if value.starts_with(&self.from) {
            Match::At(bytes.len() - value.len())
        } else if self.from.starts_with(value) {
            Match::Partly
        } else {
            Match::No
        }
    }
}
