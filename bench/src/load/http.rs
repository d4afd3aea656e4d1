//! As much of HTTP/1.1 as the generator needs to read answers, cut anywhere.

/// Longest head that is read, in bytes.
const HEAD_MAX: usize = 64 << 10;

/// Why an answer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Its head is not one of HTTP/1.1, or too long.
    Head,
    /// A chunk's size is not a number, or does not end where it should.
    Chunk,
    /// There is more than one answer.
    Surplus,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Head => "the head cannot be read",
            Self::Chunk => "the chunks cannot be read",
            Self::Surplus => "bytes after the answer",
        })
    }
}

impl std::error::Error for Broken {}

/// Where a reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of the body are still to come.
    Body(u64),
    /// The body ends with the connection.
    UntilClosed,
    /// In the size of a chunk, of which so much is known.
    Size(u64),
    /// Behind the size of a chunk, up to the end of its line.
    SizeEnd(u64),
    /// So many bytes of a chunk are still to come.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    /// In a line behind the last chunk that has so many bytes.
    Trailer(usize),
    Done,
}

/// Reads one answer.
#[derive(Debug, Clone)]
pub struct Reader {
    state: State,
    head: Vec<u8>,
    /// Its status; 0 until the head has been read.
    pub status: u16,
    /// The server closes the connection after it.
    pub closes: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self { state: State::Head, head: Vec::new(), status: 0, closes: false }
    }
}

impl Reader {
    /// Whether nothing of the answer has come.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.state == State::Head && self.head.is_empty()
    }

    /// Whether all of it has come.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The connection has ended; whether the answer may end with it.
    #[must_use]
    pub fn ends_here(&self) -> bool {
        matches!(self.state, State::UntilClosed | State::Done)
    }

    /// Reads `bytes` and gives the body in them to `take`; true = the answer is over.
    ///
    /// # Errors
    /// When it is no answer.
    pub fn feed(&mut self, mut bytes: &[u8], take: &mut impl FnMut(&[u8])) -> Result<bool, Broken> {
        if self.state == State::Head {
            bytes = self.head(bytes)?;
        }
        while !bytes.is_empty() {
            let read = match self.state {
                State::Body(left) => self.run(bytes, left, State::Body, State::Done, take),
                State::Chunk(left) => self.run(bytes, left, State::Chunk, State::ChunkEnd, take),
                State::UntilClosed => {
                    take(bytes);
                    bytes.len()
                }
                State::Done => return Err(Broken::Surplus),
                _ => {
                    self.framing(bytes[0])?;
                    1
                }
            };
            bytes = &bytes[read..];
        }
        Ok(self.is_done())
    }

    fn head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Broken> {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let from = before.saturating_sub(3);
        let Some(end) = self.head[from..].windows(4).position(|four| four == b"\r\n\r\n") else {
            return if self.head.len() > HEAD_MAX { Err(Broken::Head) } else { Ok(&[]) };
        };
        let end = from + end + 4;
        self.parse(end)?;
        Ok(&bytes[end - before..])
    }

    fn parse(&mut self, end: usize) -> Result<(), Broken> {
        let text = std::str::from_utf8(&self.head[..end]).map_err(|_| Broken::Head)?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        self.status = status.ok_or(Broken::Head)?;
        self.state = State::UntilClosed;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                let length = value.parse().map_err(|_| Broken::Head)?;
                self.state = if length == 0 { State::Done } else { State::Body(length) };
            } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
                self.state = State::Size(0);
            } else if name.eq_ignore_ascii_case("connection") {
                self.closes |= value.eq_ignore_ascii_case("close");
            }
        }
        Ok(())
    }

    /// A run of body bytes of which `left` are still to come; how many of `bytes` belong to it.
    fn run(
        &mut self,
        bytes: &[u8],
        left: u64,
        within: fn(u64) -> State,
        after: State,
        take: &mut impl FnMut(&[u8]),
    ) -> usize {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        take(&bytes[..count]);
        let left = left - count as u64;
        self.state = if left == 0 { after } else { within(left) };
        count
    }

    fn framing(&mut self, byte: u8) -> Result<(), Broken> {
        self.state = match (self.state, byte) {
            (State::Size(size), b'\r' | b';') => State::SizeEnd(size),
            (State::Size(size), digit) => {
                let digit = char::from(digit).to_digit(16).ok_or(Broken::Chunk)?;
                State::Size(size.checked_mul(16).ok_or(Broken::Chunk)? + u64::from(digit))
            }
            (State::SizeEnd(0), b'\n') => State::Trailer(0),
            (State::SizeEnd(size), b'\n') => State::Chunk(size),
            (State::SizeEnd(size), _) => State::SizeEnd(size),
            (State::ChunkEnd, b'\r') => State::ChunkEnd,
            (State::ChunkEnd, b'\n') => State::Size(0),
            (State::Trailer(0), b'\n') => State::Done,
            (State::Trailer(_), b'\n') => State::Trailer(0),
            (State::Trailer(length), b'\r') => State::Trailer(length),
            (State::Trailer(length), _) => State::Trailer(length + 1),
            _ => return Err(Broken::Chunk),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, body: &str) {
        for cut in 0..=text.len() {
            let (mut reader, mut got) = (Reader::default(), Vec::new());
            let (first, second) = text.as_bytes().split_at(cut);
            let mut take = |bytes: &[u8]| got.extend_from_slice(bytes);
            reader.feed(first, &mut take).unwrap();
            assert!(second.is_empty() || !reader.is_done(), "cut at {cut}");
            reader.feed(second, &mut take).unwrap();
            assert!(reader.ends_here(), "cut at {cut}");
            assert_eq!((reader.status, String::from_utf8(got).unwrap().as_str()), (200, body), "cut at {cut}");
        }
    }

    #[test]
    fn answers_are_read_however_they_are_cut() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello");
        check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "");
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "abc0123456789",
        );
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\nX-T: 1\r\n\r\n", "a");
        check("HTTP/1.1 200 OK\r\n\r\nto the end", "to the end");
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let feed = |text: &str| Reader::default().feed(text.as_bytes(), &mut |_| {});
        assert_eq!(feed("SSH-2.0\r\n\r\n"), Err(Broken::Head));
        assert_eq!(feed("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab"), Err(Broken::Surplus));
        assert_eq!(feed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz"), Err(Broken::Chunk));
        let mut reader = Reader::default();
        reader.feed(b"HTTP/1.1 503 x\r\nConnection: close\r\n\r\n", &mut |_| {}).unwrap();
        assert!(reader.closes && reader.status == 503);
    }
}
