//! Reads a request body whole, within its limits, so that it can be inspected before the peer is chosen and sent again
//! on a retry.
//!
//! Pingora re-sends a body that was read early only from its retry buffer, which holds 64 KiB; without one, the
//! upstream waits for a body for ever. So the buffer is switched on when the rest of the body fits into it, and where
//! the length is not known and the body was larger, the session is built anew around a body of one byte
//! ([`Session`] is the same connection). Either way `request_body_filter` is then called, and puts the held body in.

use std::io::Read as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use pingora::protocols::http::ServerSession;
use pingora_proxy::Session;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::config::Limits;

/// Pingora's retry buffer, which is not configurable.
const RETRY_BUFFER_BYTES: usize = 64 << 10;
/// The budget is counted in units of this, so that large budgets fit into a semaphore.
const BUDGET_UNIT_BYTES: usize = 1 << 10;
/// Decoding more than this leaves the worker thread, which has other requests to serve.
const BLOCKING_BYTES: usize = 256 << 10;
/// Read so much of a body that is there already, and the other requests of the thread have their turn: some 50 µs.
const TURN_BYTES: usize = 256 << 10;

/// All bodies held at one time.
#[derive(Debug, Clone)]
pub struct Budget {
    free: std::sync::Arc<Semaphore>,
    units: usize,
}

impl Budget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / BUDGET_UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { free: std::sync::Arc::new(Semaphore::new(units)), units }
    }

    /// Bytes that are held now.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.units.saturating_sub(self.free.available_permits()) * BUDGET_UNIT_BYTES
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, BodyError> {
        let units = u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX);
        std::sync::Arc::clone(&self.free).try_acquire_many_owned(units).map_err(|_| BodyError::Budget)
    }
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is larger than the limit, as it came or decoded.
    #[error("request body exceeds the limit of {0} bytes")]
    TooLarge(usize),
    /// It came too slowly.
    #[error("request body took too long to arrive")]
    TooSlow,
    /// All bodies together are as large as they may be.
    #[error("the edge holds as many request bodies as it may; try again")]
    Budget,
    /// Its encoding is not one of gzip, deflate, zstd.
    #[error("content-encoding {0:?} is not supported")]
    Encoding(String),
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
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::TooLarge(_) => Some("too_large"),
            Self::TooSlow => Some("too_slow"),
            Self::Budget => Some("too_many"),
            Self::Encoding(_) | Self::Corrupt(_) | Self::Client(_) => None,
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
    _budget: OwnedSemaphorePermit,
}

/// Reads the body of `session`.
///
/// # Errors
/// When it is over a limit, does not decode, or the client leaves.
pub async fn hold(session: &mut Session, limits: &Limits, budget: &Budget) -> Result<Held, BodyError> {
    let encoding = Encoding::of(session)?;
    let length = content_length(session);
    if length.is_some_and(|length| length > limits.request_body_bytes) {
        return Err(BodyError::TooLarge(limits.request_body_bytes));
    }
    if session.req_header().headers.contains_key(EXPECT) {
        session.downstream_session.write_continue_response().await?;
    }
    let (raw, mut permit) = receive(session, length, limits, budget).await?;
    if !raw.is_empty() && session.downstream_session.get_retry_buffer().is_none() {
        rebuild(session).await?;
    }
    let Some(encoding) = encoding else { return Ok(Held { bytes: raw, decoded: false, _budget: permit }) };
    let room = budget.take(limits.request_body_bytes.min(raw.len().saturating_mul(8)))?;
    let bytes = decode(encoding, raw, limits.request_body_bytes).await?;
    permit.merge(room);
    Ok(Held { bytes, decoded: true, _budget: permit })
}

/// Reads until the end, switching the retry buffer on in time.
async fn receive(
    session: &mut Session,
    length: Option<usize>,
    limits: &Limits,
    budget: &Budget,
) -> Result<(Bytes, OwnedSemaphorePermit), BodyError> {
    let started = Instant::now();
    let mut permit = budget.take(length.unwrap_or(0))?;
    let mut body = BytesMut::with_capacity(length.unwrap_or(0).min(RETRY_BUFFER_BYTES));
    let mut since_turn = 0;
    loop {
        if length.is_none_or(|length| length - body.len().min(length) <= RETRY_BUFFER_BYTES) {
            session.downstream_session.enable_retry_buffering();
        }
        let deadline = started + time_allowed(body.len(), limits);
        let chunk = timeout_at(deadline, session.downstream_session.read_request_body())
            .await
            .map_err(|_| BodyError::TooSlow)??;
        let Some(chunk) = chunk else { return Ok((body.freeze(), permit)) };
        if body.len() + chunk.len() > limits.request_body_bytes {
            return Err(BodyError::TooLarge(limits.request_body_bytes));
        }
        if length.is_none() {
            permit.merge(budget.take(chunk.len())?);
        }
        make_room(&mut body, chunk.len(), length);
        body.extend_from_slice(&chunk);
        since_turn += chunk.len();
        if since_turn >= TURN_BYTES {
            since_turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Once a body has shown to be large there is room for all of it at once: growing by doubling moves it again and again.
/// Its length is within the limit and in the budget, and what is not written to is no memory, so that a lie costs none.
fn make_room(body: &mut BytesMut, chunk: usize, length: Option<usize>) {
    if body.capacity() - body.len() < chunk {
        body.reserve(length.map_or(chunk, |length| length.saturating_sub(body.len())).max(chunk));
    }
}

/// A body may take a fixed time, and longer by what has come of it at the slowest allowed average.
fn time_allowed(received: usize, limits: &Limits) -> Duration {
    limits.body_time + Duration::from_millis(received as u64 * 1_000 / limits.body_bytes_per_s as u64)
}

fn content_length(session: &Session) -> Option<usize> {
    session.req_header().headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Builds the session anew on the same connection, around a body of one byte: what has been read is held by us.
///
/// Bytes that the client sent beyond this request are lost with the old session, so the connection is closed after
/// the answer.
async fn rebuild(session: &mut Session) -> Result<(), BodyError> {
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

/// An encoding of request bodies. Pingora never decodes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Gzip,
    Deflate,
    Zstd,
}

impl Encoding {
    fn of(session: &Session) -> Result<Option<Self>, BodyError> {
        let Some(value) = session.req_header().headers.get(CONTENT_ENCODING) else { return Ok(None) };
        let name = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "deflate" => Ok(Some(Self::Deflate)),
            "zstd" => Ok(Some(Self::Zstd)),
            _ => Err(BodyError::Encoding(name)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    fn decode(self, raw: &[u8], limit: usize) -> Result<Bytes, BodyError> {
        // Reading one byte more than allowed tells a body at the limit from one beyond it.
        let most = limit as u64 + 1;
        let mut decoded = Vec::new();
        let read = match self {
            Self::Gzip => flate2::read::MultiGzDecoder::new(raw).take(most).read_to_end(&mut decoded),
            Self::Deflate => flate2::read::ZlibDecoder::new(raw).take(most).read_to_end(&mut decoded),
            Self::Zstd => zstd::stream::read::Decoder::with_buffer(raw)
                .and_then(|decoder| decoder.take(most).read_to_end(&mut decoded)),
        };
        read.map_err(|_| BodyError::Corrupt(self.name()))?;
        if decoded.len() > limit { Err(BodyError::TooLarge(limit)) } else { Ok(decoded.into()) }
    }
}

async fn decode(encoding: Encoding, raw: Bytes, limit: usize) -> Result<Bytes, BodyError> {
    if raw.len() < BLOCKING_BYTES / 8 {
        return encoding.decode(&raw, limit);
    }
    let decoded = tokio::task::spawn_blocking(move || encoding.decode(&raw, limit)).await;
    decoded.unwrap_or(Err(BodyError::Corrupt(encoding.name())))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const TEXT: &[u8] = b"{\"model\":\"m\"}";

    #[test]
    fn encoded_bodies_decode_up_to_the_limit() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(TEXT).unwrap();
        let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        deflate.write_all(TEXT).unwrap();
        let encoded = [
            (Encoding::Gzip, gzip.finish().unwrap()),
            (Encoding::Deflate, deflate.finish().unwrap()),
            (Encoding::Zstd, zstd::encode_all(TEXT, 1).unwrap()),
        ];
        for (encoding, raw) in encoded {
            assert_eq!(encoding.decode(&raw, TEXT.len()).unwrap(), TEXT);
            assert!(matches!(encoding.decode(&raw, TEXT.len() - 1), Err(BodyError::TooLarge(_))));
            assert!(matches!(encoding.decode(&raw[..raw.len() - 6], 99), Err(BodyError::Corrupt(_))), "{encoding:?}");
        }
    }

    #[test]
    fn the_budget_is_given_back() {
        let budget = Budget::new(4 << 10);
        let first = budget.take(3 << 10).unwrap();
        assert!(matches!(budget.take(2 << 10), Err(BodyError::Budget)));
        drop(first);
        assert!(budget.take(4 << 10).is_ok());
    }

    #[test]
    fn a_large_body_may_take_longer() {
        let config = crate::config::Config::build("", |_| None, &[]).unwrap();
        assert_eq!(time_allowed(0, &config.limits), config.limits.body_time);
        assert_eq!(time_allowed(320 << 10, &config.limits), config.limits.body_time + Duration::from_secs(10));
    }
}
