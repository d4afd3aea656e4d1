//! The lines in which Ollama tells how far a pull is. A node is not trusted: lines and texts are bounded.

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use super::state::{FailureKind, Layer, PullFailure};

/// Longest line. Ollama's have about 200 bytes.
const LINE_MAX_BYTES: usize = 64 << 10;
/// The most characters that are kept of a status, a digest or an error.
const TEXT_MAX_CHARS: usize = 400;

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Lines(BytesMut);

impl Lines {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole line, without its end; `None` = it has not come yet.
    ///
    /// # Errors
    /// When it is too long.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, PullFailure> {
        let end = self.0.iter().position(|byte| *byte == b'\n');
        if end.unwrap_or(self.0.len()) > LINE_MAX_BYTES {
            return Err(PullFailure::new(FailureKind::Node, "the node sent a line that is too long"));
        }
        Ok(end.map(|end| self.0.split_to(end + 1).split_to(end).freeze()))
    }

    /// Bytes that are held.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What is left when no more comes: the last line, if it had no end.
    pub(super) fn rest(self) -> Bytes {
        self.0.freeze()
    }
}

/// One line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// What is done.
    pub(super) status: String,
    /// The layer that it is done to.
    pub(super) layer: Option<Layer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    status: String,
    digest: Option<String>,
    total: Option<u64>,
    completed: Option<u64>,
    error: Option<String>,
}

impl Line {
    /// Reads it.
    ///
    /// # Errors
    /// When it says that the pull failed, or is none of Ollama's.
    pub(super) fn read(line: &[u8]) -> Result<Self, PullFailure> {
        let strange = |_| PullFailure::new(FailureKind::Node, "the node's answer is not in Ollama's form");
        let told: Told = serde_json::from_slice(line).map_err(strange)?;
        if let Some(error) = told.error.filter(|error| !error.is_empty()) {
            return Err(PullFailure::said_by_ollama(bounded(&error)));
        }
        let layer = told.digest.zip(told.total).map(|(digest, total_bytes)| Layer {
            digest: bounded(&digest),
            total_bytes,
            completed_bytes: told.completed,
        });
        Ok(Self { status: bounded(&told.status), layer })
    }
}

/// `text` without control characters, cut where it is too long.
fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_any_pieces() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in ["{\"a\"", ":1}\n\n{", "}\n{\"b\":2}"] {
            lines.push(piece.as_bytes());
            while let Some(line) = lines.next().unwrap() {
                found.push(line);
            }
        }
        assert_eq!(found, ["{\"a\":1}", "", "{}"]);
        assert_eq!(lines.rest(), "{\"b\":2}");
        let mut endless = Lines::default();
        endless.push(&vec![b'x'; LINE_MAX_BYTES + 1]);
        assert!(endless.next().is_err());
    }

    #[test]
    fn a_line_is_read_or_tells_why_not() {
        let layer = |completed_bytes| Some(Layer { digest: "sha256:a".into(), total_bytes: 9, completed_bytes });
        let read = |line: &str| Line::read(line.as_bytes()).unwrap();
        assert_eq!(read(r#"{"status":"pulling manifest"}"#), Line { status: "pulling manifest".into(), layer: None });
        let line = r#"{"status":"pulling a","digest":"sha256:a","total":9}"#;
        assert_eq!(read(line), Line { status: "pulling a".into(), layer: layer(None) });
        let line = r#"{"status":"pulling a","digest":"sha256:a","total":9,"completed":4,"new":1}"#;
        assert_eq!(read(line), Line { status: "pulling a".into(), layer: layer(Some(4)) });
        let failed = Line::read(br#"{"error":"file does\u0000 not exist"}"#).unwrap_err();
        assert_eq!((failed.kind, failed.message.as_str()), (FailureKind::UnknownModel, "file does not exist"));
        for strange in ["", "7", "<html>", r#"{"total":-1}"#, r#"{"status":7}"#] {
            assert_eq!(Line::read(strange.as_bytes()).unwrap_err().kind, FailureKind::Node, "{strange}");
        }
        let long = format!(r#"{{"status":"{}"}}"#, "ä".repeat(9000));
        assert_eq!(read(&long).status.chars().count(), TEXT_MAX_CHARS);
    }
}
