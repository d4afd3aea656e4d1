//! Response bodies and heads.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderName, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body as _, Frame, SizeHint};

use super::stats::InFlight;

/// Every response body; an error in it cuts the connection without the end of the message.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What gin writes for JSON.
pub(crate) const JSON_UTF8: &str = "application/json; charset=utf-8";
/// What the `/v1` layer writes for JSON.
pub(crate) const JSON: &str = "application/json";
/// Native streams.
pub(crate) const NDJSON: &str = "application/x-ndjson";
/// `/v1` streams.
pub(crate) const SSE: &str = "text/event-stream";

/// Above this Go's server stops buffering and sends chunks.
const GO_BUFFER_BYTES: usize = 2048;

/// A body with a length.
pub(crate) fn sized(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body in one chunk.
pub(crate) fn chunked(bytes: Bytes) -> Body {
    streamed(stream::iter([Ok(bytes)]))
}

/// A body as Go sends what a handler wrote in one go: with a length when small, else in chunks.
pub(crate) fn buffered(bytes: Bytes) -> Body {
    if bytes.len() <= GO_BUFFER_BYTES { sized(bytes) } else { chunked(bytes) }
}

/// One chunk per item.
pub(crate) fn streamed(frames: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    use futures_util::StreamExt as _;
    StreamBody::new(frames.map(|frame| frame.map(Frame::data))).boxed_unsync()
}

/// The same body; `flight` ends with it, complete if the client was there until then.
pub(crate) fn tracked(body: Body, mut flight: InFlight) -> Body {
    if body.size_hint().exact().is_some() {
        // Written in one go: nothing is left to wait for.
        flight.complete();
        return body;
    }
    Tracked { body, flight }.boxed_unsync()
}

struct Tracked {
    body: Body,
    flight: InFlight,
}

impl hyper::body::Body for Tracked {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // The end, or a cut of our own making: either way nobody left.
        if !matches!(frame, Some(Ok(_))) {
            self.flight.complete();
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response with those headers.
pub(crate) fn respond(status: StatusCode, headers: &[(HeaderName, &'static str)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    response
}

/// A 200 of JSON as gin writes it.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Response<Body> {
    let body = buffered(super::json::to_vec(value).into());
    respond(StatusCode::OK, &[(http::header::CONTENT_TYPE, JSON_UTF8)], body)
}

/// A 200 of JSON as the `/v1` layer writes it: without a charset, with a newline.
pub(crate) fn json_v1<T: serde::Serialize>(value: &T) -> Response<Body> {
    let mut text = super::json::to_vec(value);
    text.push(b'\n');
    respond(StatusCode::OK, &[(http::header::CONTENT_TYPE, JSON)], buffered(text.into()))
}

/// A status without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    respond(status, &[], sized(Bytes::new()))
}

/// Plain text, as the router of gin writes it.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    respond(status, &[(http::header::CONTENT_TYPE, "text/plain")], sized(Bytes::from_static(text.as_bytes())))
}
