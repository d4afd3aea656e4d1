//! Reads a request body whole, within its limits, so that it can be inspected before the peer is chosen and sent again
//! on a retry.
//!
//! Pingora re-sends a body that was read early only from its retry buffer, which holds 64 KiB; without one, the
//! upstream waits for a body for ever. So the buffer is switched on when the rest of the body fits into it, and where
//! the length is not known and the body was larger, the session is built anew around a body of one byte
//! ([`Session`] is the same connection). Either way `request_body_filter` is then called, and puts the held body in.

mod decode;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use pingora::protocols::http::ServerSession;
use pingora_proxy::Session;
use tokio::time::{Instant, timeout_at};

use crate::budget::{Budget, Share, Spent};
use crate::config::Limits;
use crate::telemetry::BodyRefusal;
use decode::{Decoder, Encoding};

/// Pingora's retry buffer, which is not configurable.
const RETRY_BUFFER_BYTES: usize = 64 << 10;
/// Room for a body of unknown length that has outgrown [`RETRY_BUFFER_BYTES`]; beyond it there is room for the largest.
const LONG_BYTES: usize = 256 << 10;
/// Worked off so much of a body that is there already, and the other requests of the thread have their turn: some 50 µs
/// of reading, and up to a millisecond of decoding.
const TURN_BYTES: usize = 256 << 10;
/// So much may be decoded from however little.
const DECODED_FREE_BYTES: usize = 256 << 10;

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is larger than the limit, as it came or decoded.
    #[error("request body exceeds the limit of {0} bytes")]
    TooLarge(usize),
    /// It decodes to so many times its size and more.
    #[error("request body decodes to more than {0} times its size (limits.decoded_ratio)")]
    TooDense(usize),
    /// It came too slowly.
    #[error("request body took too long to arrive")]
    TooSlow,
    /// All bodies together are as large as they may be.
    #[error("{0}; try again")]
    Budget(#[from] Spent),
    /// It does not decode.
    #[error("request body does not decode as {0}")]
    Corrupt(&'static str),
    /// The client left, or broke the protocol.
    #[error(transparent)]
    Client(#[from] Box<pingora::Error>),
}

impl BodyError {
    /// The limit that it was refused for, in the word of metrics; `None` = it was for another reason.
    #[must_use]
    pub fn limit(&self) -> Option<BodyRefusal> {
        match self {
            Self::TooLarge(_) | Self::TooDense(_) => Some(BodyRefusal::TooLarge),
            Self::TooSlow => Some(BodyRefusal::TooSlow),
            Self::Budget(_) => Some(BodyRefusal::TooMany),
            Self::Corrupt(_) | Self::Client(_) => None,
        }
    }
}

/// A body and its share of the budget.
#[derive(Debug)]
pub struct Held {
    /// The bytes, decoded.
    pub bytes: Bytes,
    /// Whether the client's bytes were encoded.
    pub decoded: bool,
    /// What the client says of their encoding, if that is none that can be decoded: they are taken as they are.
    pub unknown_encoding: Option<String>,
    _share: Share,
}

/// Reads the body of `session`, decoding it as it comes.
///
/// # Errors
/// When it is over a limit, does not decode, or the client leaves.
pub async fn hold(session: &mut Session, limits: &Limits, budget: &Budget) -> Result<Held, BodyError> {
    let (encoding, unknown_encoding) = Encoding::of(session);
    let length = content_length(session);
    if length.is_some_and(|length| length > limits.request_body_bytes) {
        return Err(BodyError::TooLarge(limits.request_body_bytes));
    }
    if length.is_some_and(|length| length > budget.free_bytes()) {
        return Err(BodyError::Budget(Spent));
    }
    if session.req_header().headers.contains_key(EXPECT) {
        session.downstream_session.write_continue_response().await?;
    }
    let mut body = Arriving::new(limits, budget, encoding, length)?;
    receive(session, length, limits, &mut body).await?;
    if body.raw_bytes > 0 && session.downstream_session.get_retry_buffer().is_none() {
        rebuild(session).await?;
    }
    Ok(Held { unknown_encoding, ..body.finish()? })
}

/// Reads until the end, switching the retry buffer on in time.
async fn receive(
    session: &mut Session,
    length: Option<usize>,
    limits: &Limits,
    body: &mut Arriving,
) -> Result<(), BodyError> {
    let started = Instant::now();
    loop {
        if length.is_none_or(|length| length.saturating_sub(body.raw_bytes) <= RETRY_BUFFER_BYTES) {
            session.downstream_session.enable_retry_buffering();
        }
        let deadline = started + time_allowed(body.raw_bytes, limits);
        let chunk = timeout_at(deadline, session.downstream_session.read_request_body())
            .await
            .map_err(|_| BodyError::TooSlow)??;
        let Some(chunk) = chunk else { return Ok(()) };
        body.take(&chunk).await?;
    }
}

/// A body as far as it has come. What it takes is charged before.
struct Arriving {
    text: Text,
    decoding: Option<Decoding>,
    /// Bytes that have come, encoded or not.
    raw_bytes: usize,
    limit: usize,
    since_turn: usize,
}

/// A decoder, and what it takes of the budget until it is done.
struct Decoding {
    decoder: Decoder,
    share: Share,
    ratio: usize,
}

impl Arriving {
    fn new(
        limits: &Limits,
        budget: &Budget,
        encoding: Option<Encoding>,
        length: Option<usize>,
    ) -> Result<Self, BodyError> {
        let limit = limits.request_body_bytes;
        let expected = length.filter(|_| encoding.is_none());
        let text = Text { bytes: Vec::new(), share: budget.share(), limit, expected };
        let decoding = match encoding {
            None => None,
            Some(encoding) => {
                let (decoder, mut share) = (Decoder::new(encoding)?, budget.share());
                share.grow(decoder.memory_bytes())?;
                Some(Decoding { decoder, share, ratio: limits.decoded_ratio })
            }
        };
        Ok(Self { text, decoding, raw_bytes: 0, limit, since_turn: 0 })
    }

    /// Takes what has come next.
    async fn take(&mut self, raw: &[u8]) -> Result<(), BodyError> {
        if self.raw_bytes == 0 && is_plain(raw) {
            self.decoding = None;
        }
        let buffered = self.raw_bytes.min(RETRY_BUFFER_BYTES);
        self.raw_bytes += raw.len();
        if self.raw_bytes > self.limit {
            return Err(BodyError::TooLarge(self.limit));
        }
        // Pingora keeps a copy of so much.
        self.text.share.grow(self.raw_bytes.min(RETRY_BUFFER_BYTES) - buffered)?;
        if self.decoding.is_none() {
            self.text.add(raw)?;
            return self.worked(raw.len()).await;
        }
        let mut rest = raw;
        while let Some(worked) = self.decode(&mut rest)? {
            self.worked(worked).await?;
        }
        Ok(())
    }

    /// Decodes a piece of `raw`; `None` = nothing is left of it, else how much work it was in bytes.
    fn decode(&mut self, raw: &mut &[u8]) -> Result<Option<usize>, BodyError> {
        let Some(decoding) = &mut self.decoding else { return Ok(None) };
        let Some(step) = decoding.decoder.step(raw)? else { return Ok(None) };
        *raw = &raw[step.taken..];
        self.text.add(step.decoded)?;
        let worked = step.taken + step.decoded.len();
        if self.text.bytes.len() > self.raw_bytes.saturating_mul(decoding.ratio).max(DECODED_FREE_BYTES) {
            return Err(BodyError::TooDense(decoding.ratio));
        }
        decoding.share.grow_to(decoding.decoder.memory_bytes())?;
        Ok(Some(worked))
    }

    /// Lets the other requests of the thread have their turn after every [`TURN_BYTES`].
    async fn worked(&mut self, bytes: usize) -> Result<(), BodyError> {
        self.since_turn += bytes;
        if self.since_turn >= TURN_BYTES {
            self.since_turn = 0;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn finish(self) -> Result<Held, BodyError> {
        let decoded = self.decoding.is_some();
        if let Some(decoding) = self.decoding {
            decoding.decoder.finish()?;
        }
        let Text { mut bytes, share, .. } = self.text;
        if bytes.capacity() - bytes.len() > RETRY_BUFFER_BYTES {
            bytes.shrink_to_fit();
        }
        Ok(Held { bytes: bytes.into(), decoded, unknown_encoding: None, _share: share })
    }
}

/// Whether a body that begins so is JSON as it comes, whatever its header says: Ollama does not look at that.
fn is_plain(begin: &[u8]) -> bool {
    begin.trim_ascii_start().first() == Some(&b'{')
}

/// The bytes that are kept.
struct Text {
    bytes: Vec<u8>,
    share: Share,
    limit: usize,
    /// How many there will be, where that is known.
    expected: Option<usize>,
}

impl Text {
    fn add(&mut self, piece: &[u8]) -> Result<(), BodyError> {
        let after = self.bytes.len() + piece.len();
        if after > self.limit {
            return Err(BodyError::TooLarge(self.limit));
        }
        self.share.grow(piece.len())?;
        if after > self.bytes.capacity() {
            let more = self.room_for(after) - self.bytes.len();
            self.bytes.try_reserve_exact(more).map_err(|_| Spent)?;
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Once a body has shown to be large there is room for all of it at once: growing by doubling would move it again
    /// and again, and hold it twice each time. What is not written to is no memory, so that a lie costs none.
    fn room_for(&self, bytes: usize) -> usize {
        let largest = self.expected.unwrap_or(self.limit).max(bytes);
        let long = if self.expected.is_some() { RETRY_BUFFER_BYTES } else { LONG_BYTES.min(self.limit / 8) };
        let step = [RETRY_BUFFER_BYTES, long].into_iter().find(|step| bytes <= *step);
        step.unwrap_or(largest).min(largest)
    }
}

/// A body may take a fixed time, and longer by what has come of it at the slowest allowed average.
fn time_allowed(received: usize, limits: &Limits) -> Duration {
    limits.body_time + Duration::from_millis(received as u64 * 1_000 / limits.body_bytes_per_s as u64)
}

/// The length that the request of `session` gives its body; `None` = it gives none.
pub(super) fn content_length(session: &Session) -> Option<usize> {
    session.req_header().headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Builds the session anew on the same connection, around a body of one byte: what has been read is held by us.
///
/// Bytes that the client sent beyond this request are lost with the old session, so the connection is closed after
/// the answer.
pub(super) async fn rebuild(session: &mut Session) -> Result<(), BodyError> {
    let header = header_of_one_byte(session);
    let placeholder = ServerSession::new_http1(Box::new(std::io::Cursor::new(Vec::new())));
    let ServerSession::H1(old) = std::mem::replace(&mut *session.downstream_session, placeholder) else {
        return Err(pingora::Error::explain(pingora::ErrorType::InternalError, "not an HTTP/1 session").into());
    };
    let mut renewed = pingora::protocols::http::v1::server::HttpSession::new(old.into_inner());
    renewed.set_pipelined_prefix(header);
    renewed.read_request().await?;
    renewed.enable_retry_buffering();
    *session.downstream_session = ServerSession::H1(renewed);
    session.set_keepalive(None);
    while session.downstream_session.read_request_body().await?.is_some() {}
    Ok(())
}

fn header_of_one_byte(session: &Session) -> BytesMut {
    let request = session.req_header();
    let mut raw = BytesMut::with_capacity(1_024);
    raw.extend_from_slice(request.method.as_str().as_bytes());
    raw.extend_from_slice(b" ");
    raw.extend_from_slice(request.raw_path());
    raw.extend_from_slice(b" HTTP/1.1\r\n");
    let framing = [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT];
    for (name, value) in request.headers.iter().filter(|(name, _)| !framing.contains(name)) {
        raw.extend_from_slice(name.as_str().as_bytes());
        raw.extend_from_slice(b": ");
        raw.extend_from_slice(value.as_bytes());
        raw.extend_from_slice(b"\r\n");
    }
    raw.extend_from_slice(b"content-length: 1\r\n\r\n ");
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(limit: usize) -> Limits {
        let config = crate::config::Config::build("", |_| None, &[]).unwrap();
        Limits { request_body_bytes: limit, ..config.limits }
    }

    /// What becomes of `raw` when it comes in pieces of 64 KiB, and the most that it took of `budget`.
    fn arrive(
        raw: &[u8],
        encoding: Option<Encoding>,
        limits: &Limits,
        budget: &Budget,
    ) -> (Result<Held, BodyError>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut body = Arriving::new(limits, budget, encoding, None).unwrap();
        let mut most = 0;
        for piece in raw.chunks(64 << 10) {
            let taken = runtime.block_on(body.take(piece));
            most = most.max(budget.used_bytes());
            if let Err(error) = taken {
                return (Err(error), most);
            }
        }
        (body.finish(), most)
    }

    #[test]
    fn encoded_bodies_are_held_to_the_limit_and_the_ratio() {
        let budget = Budget::new(64 << 20);
        let text: Vec<u8> =
            (0..100_000_u32).flat_map(|number| (number.wrapping_mul(2_654_435_761) >> 8).to_le_bytes()).collect();
        let raw = zstd::encode_all(&text[..], 1).unwrap();
        let zstd = Some(Encoding::Zstd);
        let (held, _) = arrive(&raw, zstd, &limits(text.len()), &budget);
        assert!(held.is_ok_and(|held| held.decoded && held.bytes == text));
        let (refused, _) = arrive(&raw, zstd, &limits(text.len() - 1), &budget);
        assert!(matches!(refused, Err(BodyError::TooLarge(_))));
        let (broken, _) = arrive(&raw[..raw.len() - 1], zstd, &limits(text.len()), &budget);
        assert!(matches!(broken, Err(BodyError::Corrupt(_))));
        let small = zstd::encode_all(&vec![b' '; DECODED_FREE_BYTES][..], 1).unwrap();
        assert!(arrive(&small, zstd, &limits(1 << 20), &budget).0.is_ok(), "a small body may be as dense as it likes");
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_bomb_is_refused_for_little_and_never_beyond_the_budget() {
        let zeros = vec![0; 32 << 20];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, &zeros).unwrap();
        let bombs =
            [(Encoding::Gzip, gzip.finish().unwrap()), (Encoding::Zstd, zstd::encode_all(&zeros[..], 19).unwrap())];
        for (encoding, raw) in bombs {
            let budget = Budget::new(64 << 20);
            let (refused, most) = arrive(&raw, Some(encoding), &limits(64 << 20), &budget);
            assert!(matches!(refused, Err(BodyError::TooDense(100))), "{encoding:?} {refused:?}");
            assert!(most < 8 << 20, "{encoding:?} {most}");
            // Where every density is allowed, what is decoded is charged as it comes.
            let lenient = Limits { decoded_ratio: 100_000, ..limits(64 << 20) };
            let budget = Budget::new(4 << 20);
            let (refused, most) = arrive(&raw, Some(encoding), &lenient, &budget);
            assert!(matches!(refused, Err(BodyError::Budget(_))), "{encoding:?} {refused:?}");
            assert_eq!((most <= 4 << 20, budget.used_bytes()), (true, 0));
        }
    }

    #[test]
    fn a_body_is_never_held_twice() {
        for (limit, expected) in [(64 << 20, None), (64 << 20, Some(60 << 20)), (2 << 20, None), (100_000, None)] {
            let mut text = Text { bytes: Vec::new(), share: Budget::new(1 << 40).share(), limit, expected };
            let (mut moved, piece) = (0, [0; 10_000]);
            while text.bytes.len() + piece.len() <= expected.unwrap_or(limit) {
                let before = (text.bytes.as_ptr(), text.bytes.len());
                text.add(&piece).unwrap();
                if text.bytes.as_ptr() != before.0 {
                    moved += before.1;
                }
            }
            assert!(moved <= limit / 4 + RETRY_BUFFER_BYTES && text.bytes.capacity() <= limit, "{limit}: {moved}");
            assert!(matches!(text.add(&vec![0; limit]), Err(BodyError::TooLarge(_))));
        }
    }

    #[test]
    fn a_large_body_may_take_longer() {
        let limits = limits(1 << 20);
        assert_eq!(time_allowed(0, &limits), limits.body_time);
        assert_eq!(time_allowed(320 << 10, &limits), limits.body_time + Duration::from_secs(10));
    }
}
