//! Reading request bodies: bounded in size and time.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::refusal::Refusal;
use crate::state::AdminState;

/// Bodies up to here are read before a request is looked at.
const READ_FIRST_BYTES: u64 = 64 << 10;

/// Reads small bodies whoever wants them, and closes connections on which a larger one was refused.
///
/// A connection whose request was answered and not read cannot serve another one, and the edge, which keeps connections
/// to this service, would find out by failing that one.
pub(crate) async fn read_first(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let exact = body.size_hint().exact();
    let small = exact.filter(|bytes| *bytes <= READ_FIRST_BYTES).and_then(|bytes| usize::try_from(bytes).ok());
    let body = match small {
        Some(bytes) => match read(body, bytes, state.config().body_timeout).await {
            Ok(bytes) => Body::from(bytes),
            Err(refusal) => return refusal.into_response(),
        },
        None => body,
    };
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if small.is_none() && !response.status().is_success() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
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
