//! Finds the JSON texts in a streamed answer: one a line, or in the data of server-sent events.

use super::heard::Kind;
use super::reader::Reader;

/// Longest event name that is told from others, and longest field name, in bytes: those of `/v1/responses` are long.
const NAME_MAX: usize = 48;
/// What ends a stream of `/v1/chat/completions` and `/v1/completions`.
const DONE: &[u8] = b"[DONE]";

/// The first place of `byte`.
///
/// Looks at 32 bytes at a time without a branch for each, which the compiler turns into a few vector instructions.
pub(super) fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    let (blocks, _) = bytes.as_chunks::<32>();
    let lacks = |block: &[u8; 32]| block.iter().fold(0, |any, b| any | u8::from(*b == byte)) == 0;
    let free = blocks.iter().take_while(|block| lacks(block)).count() * 32;
    bytes[free..].iter().position(|b| *b == byte).map(|at| free + at)
}

/// Newline-delimited JSON. A text that is printed over several lines ends with its last.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines {
    /// A text has begun and not ended.
    pub(super) mid_line: bool,
}

impl Lines {
    pub(super) fn observe(&mut self, mut chunk: &[u8], reader: &mut Reader) {
        while let Some(at) = find(b'\n', chunk) {
            let line = &chunk[..at];
            if self.mid_line || !reader.skips(line) {
                reader.feed(line, Kind::Unnamed);
                self.mid_line = reader.continues();
                if self.mid_line {
                    reader.feed(b"\n", Kind::Unnamed);
                } else {
                    reader.end(true);
                }
            } else {
                reader.count_piece();
            }
            chunk = &chunk[at + 1..];
        }
        if !chunk.is_empty() {
            reader.feed(chunk, Kind::Unnamed);
            self.mid_line = true;
        }
    }
}

/// What the rest of a line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Line {
    /// Its field is not known yet.
    #[default]
    Start,
    /// A value begins, perhaps with a space that is not part of it.
    Space(Field),
    Value(Field),
}

/// What a field is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Data,
    Event,
    /// A comment, `id`, `retry` or anything else.
    Other,
}

/// Server-sent events.
#[derive(Debug, Clone, Default)]
pub(super) struct Events {
    /// A line has begun and not ended.
    pub(super) mid_line: bool,
    /// The event under way has data.
    pub(super) has_data: bool,
    /// Events with data that have ended.
    pub(super) count: u64,
    line: Line,
    /// The field, while it is read.
    field: Name,
    /// The name of the event under way.
    name: Name,
    /// The beginning of its data.
    head: Name,
    /// The rest of its data is not read.
    dull: bool,
}

impl Events {
    pub(super) fn observe(&mut self, mut chunk: &[u8], reader: &mut Reader) {
        while let Some(at) = find(b'\n', chunk) {
            let line = &chunk[..at];
            if self.mid_line || !self.skip_line(line, reader) {
                self.piece(line, reader);
                self.end_line(reader);
            }
            chunk = &chunk[at + 1..];
        }
        if !chunk.is_empty() {
            self.piece(chunk, reader);
        }
    }

    /// Leaves a whole line of data unread if it holds a token and nothing else; false when it must be read.
    fn skip_line(&mut self, line: &[u8], reader: &mut Reader) -> bool {
        let Some(data) = line.strip_prefix(b"data: ").filter(|_| !self.has_data) else { return false };
        let skips = reader.skips(data);
        if skips {
            self.has_data = true;
            reader.skip(data);
            reader.count_piece();
        }
        skips
    }

    fn piece(&mut self, mut piece: &[u8], reader: &mut Reader) {
        self.mid_line |= !piece.is_empty();
        if self.line == Line::Start {
            let Some(colon) = find(b':', piece) else { return self.field.push(piece) };
            self.field.push(&piece[..colon]);
            self.line = Line::Space(match self.field.bytes() {
                b"data" => Field::Data,
                b"event" => Field::Event,
                _ => Field::Other,
            });
            piece = &piece[colon + 1..];
        }
        if let Line::Space(field) = self.line
            && !piece.is_empty()
        {
            piece = piece.strip_prefix(b" ").unwrap_or(piece);
            self.start_value(field, reader);
        }
        match self.line {
            Line::Value(Field::Data) if !piece.is_empty() => self.data(piece, reader),
            Line::Value(Field::Event) => self.name.push(piece),
            _ => {}
        }
    }

    fn start_value(&mut self, field: Field, reader: &mut Reader) {
        self.line = Line::Value(field);
        match field {
            // The lines of one event's data are joined by newlines.
            Field::Data if self.has_data && !self.dull => reader.feed(b"\n", self.kind()),
            Field::Event => self.name = Name::default(),
            _ => {}
        }
    }

    fn data(&mut self, piece: &[u8], reader: &mut Reader) {
        if !self.has_data {
            self.has_data = true;
            self.dull = self.kind() == Kind::Dull && reader.seen.first_token;
        }
        if self.dull {
            return;
        }
        if self.head.length < DONE.len() {
            self.head.push(piece);
            if self.is_done() {
                reader.done();
            }
        }
        let kind = self.kind();
        reader.feed(piece, kind);
    }

    fn end_line(&mut self, reader: &mut Reader) {
        let field = self.field.bytes();
        if self.line == Line::Start && (field.is_empty() || field == b"\r") {
            self.end_event(reader);
        }
        self.field = Name::default();
        self.line = Line::Start;
        self.mid_line = false;
    }

    fn end_event(&mut self, reader: &mut Reader) {
        if self.has_data {
            self.count += 1;
            if self.kind() == Kind::Error {
                reader.told();
            }
            if self.dull && is_delta(self.name()) {
                reader.count_piece();
            }
            reader.end(!self.dull && !self.is_done());
        }
        *self = Self { count: self.count, ..Self::default() };
    }

    fn kind(&self) -> Kind {
        Kind::of(self.name())
    }

    fn name(&self) -> &[u8] {
        let name = self.name.bytes();
        name.strip_suffix(b"\r").unwrap_or(name)
    }

    fn is_done(&self) -> bool {
        self.head.bytes().starts_with(DONE)
    }
}

/// Whether an event of this name carries a part of the answer.
fn is_delta(name: &[u8]) -> bool {
    name == b"content_block_delta" || name.ends_with(b".delta")
}

/// The beginning of a name.
#[derive(Debug, Clone)]
struct Name {
    kept: [u8; NAME_MAX],
    length: usize,
}

impl Default for Name {
    fn default() -> Self {
        Self { kept: [0; NAME_MAX], length: 0 }
    }
}

impl Name {
    fn push(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(NAME_MAX - self.length);
        self.kept[self.length..self.length + count].copy_from_slice(&bytes[..count]);
        self.length += count;
    }

    fn bytes(&self) -> &[u8] {
        &self.kept[..self.length]
    }
}
