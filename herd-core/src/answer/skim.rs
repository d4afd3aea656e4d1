//! A JSON reader for text that passes by in pieces: it keeps where it stands and no text.
//!
//! [`Scanner`](crate::inspect::json::Scanner) needs the whole text at once. A final line of `/api/generate` holds the
//! conversation as token numbers, and an answer that is not streamed has any length, so that neither may be collected.
//! It is a little laxer than the grammar: the inside of a number is not checked, nor is UTF-8.

use super::heard::Key;
use crate::inspect::json::plain_length;

/// Deepest place from which values are reported, in open containers.
pub(super) const PATH_MAX: usize = 5;
/// Deepest nesting that is followed: the containers are kept as bits of a `u128`.
const DEPTH_MAX: usize = 128;
/// Longest beginning of a text that is kept, in bytes; more than any name that is compared.
const TEXT_MAX: usize = 40;

/// A value, at its end; a container at its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// The beginning of a string, up to [`TEXT_MAX`] bytes, escapes as they stand.
    Text(&'a [u8]),
    /// A number; empty when it is longer than [`TEXT_MAX`].
    Number(&'a [u8]),
    Bool(bool),
    Null,
    Container,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Root,
    Value,
    FirstItem,
    FirstKey,
    NextKey,
    Colon,
    After,
    Text,
    Escape,
    /// Hexadecimal digits still to come.
    Hex(u8),
    Scalar,
    Closed,
    Broken,
}

/// Where in one JSON object a reader stands.
#[derive(Debug, Clone)]
pub(super) struct Skimmer {
    state: State,
    depth: usize,
    /// One bit for each open container, the innermost lowest; 1 is an object.
    kinds: u128,
    /// The key below each open container.
    path: [Key; PATH_MAX],
    in_key: bool,
    text: [u8; TEXT_MAX],
    /// Bytes of the text or number so far, kept or not.
    length: usize,
}

impl Skimmer {
    pub(super) fn new() -> Self {
        Self {
            state: State::Root,
            depth: 0,
            kinds: 0,
            path: [Key::Other; PATH_MAX],
            in_key: false,
            text: [0; TEXT_MAX],
            length: 0,
        }
    }

    /// Nothing but white space so far.
    pub(super) fn is_fresh(&self) -> bool {
        self.state == State::Root
    }

    /// The object has ended and nothing else came.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// It is no JSON object, or something came after it.
    pub(super) fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Counts the object as read to its end.
    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Reads up to the end of the object or to an error; returns the bytes read. `take` gets the keys on the way to
    /// each value that is at most [`PATH_MAX`] deep.
    pub(super) fn feed(&mut self, bytes: &[u8], take: &mut impl FnMut(&[Key], Value<'_>)) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            at += match self.state {
                State::Text => self.text(&bytes[at..], take),
                State::Scalar => self.scalar(&bytes[at..], take),
                State::Closed | State::Broken => break,
                _ => self.step(bytes[at], take),
            };
        }
        at
    }

    /// What follows the object: white space, or it is broken.
    pub(super) fn trail(&mut self, bytes: &[u8]) {
        if !bytes.iter().all(u8::is_ascii_whitespace) {
            self.state = State::Broken;
        }
    }

    fn step(&mut self, byte: u8, take: &mut impl FnMut(&[Key], Value<'_>)) -> usize {
        let inside_text = matches!(self.state, State::Escape | State::Hex(_));
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') && !inside_text {
            return 1;
        }
        match (self.state, byte) {
            (State::Root | State::Value | State::FirstItem, b'{') => self.open(true, take),
            (State::Value | State::FirstItem, b'[') => self.open(false, take),
            (State::Value | State::FirstItem, b'"') => self.start_text(false),
            (State::Value | State::FirstItem, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                self.length = 0;
                self.keep(&[byte]);
                self.state = State::Scalar;
            }
            (State::FirstKey | State::NextKey, b'"') => self.start_text(true),
            (State::Colon, b':') => self.state = State::Value,
            (State::After, b',') => self.state = if self.kinds & 1 == 1 { State::NextKey } else { State::Value },
            (State::FirstKey, b'}') | (State::FirstItem, b']') => self.leave(),
            (State::After, b'}') if self.kinds & 1 == 1 => self.leave(),
            (State::After, b']') if self.kinds & 1 == 0 => self.leave(),
            (State::Escape, b'u') => self.state = State::Hex(4),
            (State::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.state = State::Text,
            (State::Hex(1), byte) if byte.is_ascii_hexdigit() => self.state = State::Text,
            (State::Hex(left), byte) if byte.is_ascii_hexdigit() => self.state = State::Hex(left - 1),
            _ => self.state = State::Broken,
        }
        1
    }

    fn open(&mut self, is_object: bool, take: &mut impl FnMut(&[Key], Value<'_>)) {
        self.report(Value::Container, take);
        if self.depth == DEPTH_MAX {
            self.state = State::Broken;
            return;
        }
        self.depth += 1;
        self.kinds = self.kinds << 1 | u128::from(is_object);
        if !is_object {
            self.name(Key::Item);
        }
        self.state = if is_object { State::FirstKey } else { State::FirstItem };
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.kinds >>= 1;
        self.state = if self.depth == 0 { State::Closed } else { State::After };
    }

    fn start_text(&mut self, in_key: bool) {
        self.in_key = in_key;
        self.length = 0;
        self.state = State::Text;
    }

    fn text(&mut self, bytes: &[u8], take: &mut impl FnMut(&[Key], Value<'_>)) -> usize {
        let plain = plain_length(bytes);
        self.keep(&bytes[..plain]);
        match bytes.get(plain) {
            None => return plain,
            Some(b'"') if self.in_key => {
                let key = if self.depth <= PATH_MAX { Key::of(self.kept()) } else { Key::Other };
                self.name(key);
                self.state = State::Colon;
            }
            Some(b'"') => {
                self.report(Value::Text(self.kept()), take);
                self.state = State::After;
            }
            Some(b'\\') => {
                // Kept, so that a text of escapes alone is not taken for an empty one.
                self.keep(b"\\");
                self.state = State::Escape;
            }
            Some(_) => self.state = State::Broken,
        }
        plain + 1
    }

    fn scalar(&mut self, bytes: &[u8], take: &mut impl FnMut(&[Key], Value<'_>)) -> usize {
        let more = bytes.iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')).count();
        self.keep(&bytes[..more]);
        if more == bytes.len() {
            return more;
        }
        let value = match self.kept() {
            b"true" => Value::Bool(true),
            b"false" => Value::Bool(false),
            b"null" => Value::Null,
            _ if self.length > TEXT_MAX => Value::Number(&[]),
            number if is_number_like(number) => Value::Number(number),
            _ => {
                self.state = State::Broken;
                return more;
            }
        };
        self.report(value, take);
        self.state = State::After;
        more
    }

    fn report(&self, value: Value<'_>, take: &mut impl FnMut(&[Key], Value<'_>)) {
        if let Some(path) = self.path.get(..self.depth) {
            take(path, value);
        }
    }

    /// Sets the key below the innermost container.
    fn name(&mut self, key: Key) {
        if let Some(place) = self.path.get_mut(self.depth - 1) {
            *place = key;
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.length < TEXT_MAX {
            let count = bytes.len().min(TEXT_MAX - self.length);
            self.text[self.length..self.length + count].copy_from_slice(&bytes[..count]);
        }
        self.length += bytes.len();
    }

    fn kept(&self) -> &[u8] {
        &self.text[..self.length.min(TEXT_MAX)]
    }
}

fn is_number_like(text: &[u8]) -> bool {
    matches!(text.first(), Some(b'-' | b'0'..=b'9'))
        && text.last().is_some_and(u8::is_ascii_digit)
        && text.iter().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
}
