//! Reading request bodies: bounded in size and time.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::refusal::Refusal;

/// A body of up to this size is read to its end where its handler has not done so.
const SETTLED_BYTES: usize = 64 << 10;
/// How long that may take: through the edge, a body is there with its header.
const SETTLED_WITHIN: Duration = Duration::from_millis(500);

/// Lends the body to whatever answers, and reads what that has left of it; closes the connection where that is much or
/// slow to come.
///
/// A connection whose request was answered and not read cannot serve another one, and the edge, which keeps connections
/// to this service, would find out by failing that one. Nothing is read before the request has been looked at: whoever
/// is not let in is told so whether or not its body ever comes.
pub(crate) async fn settle(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let lent = Lent(Arc::new(Mutex::new(body)));
    let mut response = next.run(Request::from_parts(parts, Body::new(lent.clone()))).await;
    if !lent.is_over() && !lent.read_rest().await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A body that comes back when its borrower is done with it.
#[derive(Clone)]
struct Lent(Arc<Mutex<Body>>);

impl Lent {
    fn body(&self) -> MutexGuard<'_, Body> {
        // A panic leaves it as it was between two pieces.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.body().is_end_stream()
    }

    /// Whether it is at its end then.
    async fn read_rest(self) -> bool {
        let small = self.body().size_hint().upper().is_some_and(|bytes| bytes <= SETTLED_BYTES as u64);
        if !small {
            return false;
        }
        let rest = tokio::time::timeout(SETTLED_WITHIN, Limited::new(self, SETTLED_BYTES).collect());
        matches!(rest.await, Ok(Ok(_)))
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body().size_hint()
    }
}

/// The whole of `body`, refused as soon as it is known to be larger than `limit` bytes or slower than `timeout`.
pub(crate) async fn read(body: Body, limit: usize, timeout: Duration) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("request body exceeds its limit of {limit} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    // What Content-Length announces need not be read first.
    if usize::try_from(body.size_hint().lower()).map_or(true, |announced| announced > limit) {
        return Err(too_large());
    }
    match tokio::time::timeout(timeout, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::bad_request("body_broken", "request body ended early")),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "request body took too long")),
    }
}

/// Refuses what does not say that it is JSON.
///
/// A web page can make a browser post `text/plain` to any address unasked, but not `application/json`.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "content-type must be application/json";
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
}

/// What `error` says, without the text that it may quote at any length from a hostile body.
pub(crate) fn json_error(error: &serde_json::Error) -> String {
    const SHOWN: usize = 200;
    let text = error.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}... at line {} column {}", &text[..end], error.line(), error.column()),
        None => text,
    }
}
