//! Changes byte ranges of a body and nothing else.

use std::ops::Range;

/// One change: what stands at `range` becomes `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Where, in the original body.
    pub range: Range<usize>,
    /// What comes in its place.
    pub text: String,
}

impl Edit {
    /// Takes `range` out.
    #[must_use]
    pub fn cut(range: Range<usize>) -> Self {
        Self { range, text: String::new() }
    }

    /// Puts `text` in at `at`.
    #[must_use]
    pub fn insert(at: usize, text: String) -> Self {
        Self { range: at..at, text }
    }
}

/// `body` with `edits` made. They must not overlap; their order does not matter.
///
/// # Panics
/// When a range lies outside the body or overlaps another: ranges come from inspecting this very body.
#[must_use]
pub fn splice(body: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut ordered: Vec<&Edit> = edits.iter().collect();
    ordered.sort_by_key(|edit| edit.range.start);
    let added: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut spliced = Vec::with_capacity(body.len() + added);
    let mut from = 0;
    for edit in ordered {
        spliced.extend_from_slice(&body[from..edit.range.start]);
        spliced.extend_from_slice(edit.text.as_bytes());
        from = edit.range.end;
    }
    spliced.extend_from_slice(&body[from..]);
    spliced
}

/// `text` as a JSON string, quotes included.
#[must_use]
pub fn json_string(text: &str) -> String {
    use std::fmt::Write as _;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c < ' ' => write!(quoted, "\\u{:04x}", u32::from(c)).expect("a String takes every write"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
