//! A validating JSON scanner that reports byte ranges and builds nothing.
//!
//! It accepts what RFC 8259 accepts, down to a nesting limit, and as Ollama's decoder does it takes strings that are no
//! UTF-8, whose bad bytes count as U+FFFD. Skipping a value takes no recursion and a bit of memory for each level, so that a hostile body costs what its length costs.

use std::borrow::Cow;
use std::ops::Range;

/// Deepest nesting that a scanner can be asked to accept: that of Ollama's decoder.
pub const DEPTH_CEILING: u32 = 10_000;

/// What is wrong with a text that should be JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It ends too early.
    #[error("unexpected EOF")]
    End,
    /// It does not follow the grammar.
    #[error("invalid JSON at byte {0}")]
    Syntax(usize),
    /// It nests too deeply.
    #[error("JSON nested deeper than {0} levels")]
    Depth(u32),
}

/// What a value is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A digit or `-`
    Number,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
}

/// A place in a JSON text.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    depth_max: u32,
}

impl<'a> Scanner<'a> {
    /// Starts at the beginning of `bytes`; `depth_max` is at most [`DEPTH_CEILING`].
    #[must_use]
    pub fn new(bytes: &'a [u8], depth_max: u32) -> Self {
        Self { bytes, at: 0, depth: 0, depth_max: depth_max.min(DEPTH_CEILING) }
    }

    /// The kind of the next value.
    ///
    /// # Errors
    /// When no value starts here.
    pub fn kind(&mut self) -> Result<Kind, JsonError> {
        self.blank();
        Ok(match self.peek()? {
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            b'"' => Kind::String,
            b'-' | b'0'..=b'9' => Kind::Number,
            b't' | b'f' => Kind::Bool,
            b'n' => Kind::Null,
            _ => return Err(JsonError::Syntax(self.at)),
        })
    }

    /// Visits the members of the object that starts here. `visit` gets the key and must consume the value; it also
    /// gets the byte range from the key's first quote on, to which a member's range can be extended.
    ///
    /// # Errors
    /// When it is no object, or what `visit` says.
    pub fn object<E: From<JsonError>>(
        &mut self,
        mut visit: impl FnMut(&mut Self, &str, usize) -> Result<(), E>,
    ) -> Result<Range<usize>, E> {
        let start = self.open(b'{')?;
        let mut more = !self.closes(b'}')?;
        while more {
            self.blank();
            let key_start = self.at;
            let key = self.string()?;
            self.expect(b':')?;
            visit(self, &self.text(&key), key_start)?;
            more = self.separated(b'}')?;
        }
        self.depth -= 1;
        Ok(start..self.at)
    }

    /// Visits the elements of the array that starts here; `visit` must consume each.
    ///
    /// # Errors
    /// When it is no array, or what `visit` says.
    pub fn array<E: From<JsonError>>(
        &mut self,
        mut visit: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<Range<usize>, E> {
        let start = self.open(b'[')?;
        let mut more = !self.closes(b']')?;
        while more {
            visit(self)?;
            more = self.separated(b']')?;
        }
        self.depth -= 1;
        Ok(start..self.at)
    }

    /// Validates one value of any kind and returns its range.
    ///
    /// # Errors
    /// When it is not valid JSON.
    pub fn skip(&mut self) -> Result<Range<usize>, JsonError> {
        self.blank();
        let start = self.at;
        match self.peek()? {
            b'{' | b'[' => self.skip_container()?,
            _ => self.skip_scalar()?,
        }
        Ok(start..self.at)
    }

    /// Validates a string and returns its range, quotes included.
    ///
    /// # Errors
    /// When it is no valid string.
    pub fn string(&mut self) -> Result<Range<usize>, JsonError> {
        self.blank();
        let start = self.at;
        self.expect(b'"')?;
        loop {
            self.at += plain_length(&self.bytes[self.at..]);
            match self.peek()? {
                b'"' => break self.at += 1,
                b'\\' => self.escape()?,
                _ => return Err(JsonError::Syntax(self.at)),
            }
        }
        Ok(start..self.at)
    }

    /// The text of a string whose range [`Self::string`] returned.
    ///
    /// Unpaired surrogates become U+FFFD, as in Go's decoder.
    #[must_use]
    pub fn text(&self, string: &Range<usize>) -> Cow<'a, str> {
        let raw = &self.bytes[string.start + 1..string.end - 1];
        let raw = String::from_utf8_lossy(raw);
        if raw.contains('\\') { Cow::Owned(unescape(&raw)) } else { raw }
    }

    /// A scanner of the same text that goes on at `place`, which this one has passed.
    #[must_use]
    pub fn back_at(&self, place: usize) -> Self {
        Self { at: place, ..self.clone() }
    }

    /// The bytes of a range that this scanner returned.
    #[must_use]
    pub fn slice(&self, range: &Range<usize>) -> &'a [u8] {
        &self.bytes[range.clone()]
    }

    /// Checks that nothing but white space follows.
    ///
    /// # Errors
    /// When something does.
    #[cfg(test)]
    pub(crate) fn finish(&mut self) -> Result<(), JsonError> {
        self.blank();
        if self.at == self.bytes.len() { Ok(()) } else { Err(JsonError::Syntax(self.at)) }
    }

    fn open(&mut self, bracket: u8) -> Result<usize, JsonError> {
        self.blank();
        let start = self.at;
        self.expect(bracket)?;
        self.depth += 1;
        if self.depth > self.depth_max { Err(JsonError::Depth(self.depth_max)) } else { Ok(start) }
    }

    fn closes(&mut self, bracket: u8) -> Result<bool, JsonError> {
        self.blank();
        let closes = self.peek()? == bracket;
        self.at += usize::from(closes);
        Ok(closes)
    }

    /// After a member or element: true when another follows.
    fn separated(&mut self, bracket: u8) -> Result<bool, JsonError> {
        self.blank();
        match self.peek()? {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            byte if byte == bracket => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(JsonError::Syntax(self.at)),
        }
    }

    /// Skips a container without recursion.
    fn skip_container(&mut self) -> Result<(), JsonError> {
        let base = self.depth;
        let mut kinds = Kinds::default();
        loop {
            self.blank();
            if matches!(self.peek()?, b'{' | b'[') {
                if self.enter(&mut kinds)? {
                    continue;
                }
            } else {
                self.skip_scalar()?;
            }
            if !self.next_value(base, &mut kinds)? {
                return Ok(());
            }
        }
    }

    /// Opens the container that starts here and moves to its first value; false when it was empty and has closed.
    fn enter(&mut self, kinds: &mut Kinds) -> Result<bool, JsonError> {
        let is_object = self.peek()? == b'{';
        let (open, close) = if is_object { (b'{', b'}') } else { (b'[', b']') };
        self.open(open)?;
        if self.closes(close)? {
            self.depth -= 1;
            return Ok(false);
        }
        kinds.push(is_object);
        if is_object {
            self.member_key()?;
        }
        Ok(true)
    }

    /// Moves to the next value inside the containers opened since `base`; false when the outermost has closed.
    fn next_value(&mut self, base: u32, kinds: &mut Kinds) -> Result<bool, JsonError> {
        while self.depth > base {
            let in_object = kinds.last();
            if self.separated(if in_object { b'}' } else { b']' })? {
                if in_object {
                    self.member_key()?;
                }
                return Ok(true);
            }
            self.depth -= 1;
            kinds.pop();
        }
        Ok(false)
    }

    fn member_key(&mut self) -> Result<(), JsonError> {
        self.string()?;
        self.expect(b':')
    }

    fn skip_scalar(&mut self) -> Result<(), JsonError> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => Err(JsonError::Syntax(self.at)),
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.at += usize::from(self.peek()? == b'-');
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits()?,
            _ => return Err(JsonError::Syntax(self.at)),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek()?, b'+' | b'-'));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek()?.is_ascii_digit() {
            return Err(JsonError::Syntax(self.at));
        }
        self.at += self.bytes[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JsonError> {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(word) {
            self.at += word.len();
            Ok(())
        } else if word.starts_with(rest) {
            Err(JsonError::End)
        } else {
            Err(JsonError::Syntax(self.at))
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                let hex = self.bytes.get(self.at + 1..self.at + 5).ok_or(JsonError::End)?;
                if !hex.iter().all(u8::is_ascii_hexdigit) {
                    return Err(JsonError::Syntax(self.at));
                }
                self.at += 5;
            }
            _ => return Err(JsonError::Syntax(self.at)),
        }
        Ok(())
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        self.blank();
        if self.peek()? == byte {
            self.at += 1;
            Ok(())
        } else {
            Err(JsonError::Syntax(self.at))
        }
    }

    fn peek(&self) -> Result<u8, JsonError> {
        self.bytes.get(self.at).copied().ok_or(JsonError::End)
    }

    fn blank(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }
}

/// Containers that are open, a bit for each: 1 = object. The outer ones of a deep nesting are put aside.
#[derive(Debug, Default)]
struct Kinds {
    inner: u64,
    count: u32,
    outer: Vec<u64>,
}

impl Kinds {
    fn push(&mut self, is_object: bool) {
        if self.count == u64::BITS {
            self.outer.push(self.inner);
            self.count = 0;
        }
        self.inner = self.inner << 1 | u64::from(is_object);
        self.count += 1;
    }

    fn last(&self) -> bool {
        self.inner & 1 == 1
    }

    fn pop(&mut self) {
        self.inner >>= 1;
        self.count -= 1;
        if self.count == 0
            && let Some(outer) = self.outer.pop()
        {
            (self.inner, self.count) = (outer, u64::BITS);
        }
    }
}

/// Bytes before the first quote, backslash or control character.
///
/// Eight at a time: the three tests are the usual word-parallel ones (Mycroft's zero-byte test, and the "less than"
/// test of the Bit Twiddling Hacks collection).
pub(crate) fn plain_length(bytes: &[u8]) -> usize {
    const BLOCK: usize = 32;
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    // Without a branch for each byte the compiler makes a few vector instructions of a block.
    let special = |byte: u8| u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < 0x20);
    let is_plain = |block: &&[u8; BLOCK]| block.iter().fold(0, |any, byte| any | special(*byte)) == 0;
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    let mut length = BLOCK * blocks.iter().take_while(is_plain).count();
    for chunk in bytes[length..].chunks_exact(8) {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        let word = u64::from_le_bytes(eight);
        let quote = zero_byte(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_byte(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = quote | backslash | control;
        if found != 0 {
            return length + found.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let rest = &bytes[length..];
    length + rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len())
}

fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('t') => text.push('\t'),
            Some('u') => text.push(unescape_unicode(&mut chars)),
            Some(other) => text.push(other),
            None => {}
        }
    }
    text
}

fn unescape_unicode(chars: &mut std::str::Chars<'_>) -> char {
    let first = hex4(chars);
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER);
    }
    let mut ahead = chars.clone();
    if ahead.next() == Some('\\') && ahead.next() == Some('u') {
        let second = hex4(&mut ahead);
        if (0xdc00..0xe000).contains(&second) {
            *chars = ahead;
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        }
    }
    char::REPLACEMENT_CHARACTER
}

fn hex4(chars: &mut std::str::Chars<'_>) -> u32 {
    (0..4).fold(0, |value, _| value << 4 | chars.next().and_then(|c| c.to_digit(16)).unwrap_or(0))
}
