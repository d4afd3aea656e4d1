//! Answers in JSON, with the content types that Ollama and `OpenAI` use.

use std::sync::{Mutex, PoisonError};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use herd_core::name::fnv1a;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;

use crate::refusal::Refusal;
pub(crate) use crate::refusal::{JSON, OLLAMA_JSON};
use crate::view::View;

/// Lines of JSON.
pub(crate) const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// `value` as JSON that nobody may keep.
pub(crate) fn json(status: StatusCode, content_type: HeaderValue, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(CONTENT_TYPE, content_type), (CACHE_CONTROL, NO_STORE)], body).into_response(),
        Err(error) => unserialisable(&error),
    }
}

/// `value` as JSON with an `ETag`, or 304 when the client has it: for catalogues, which change seldom and are polled.
pub(crate) fn json_if_changed(request: &HeaderMap, content_type: HeaderValue, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => bytes_if_changed(request, content_type, body.into()),
        Err(error) => unserialisable(&error),
    }
}

fn bytes_if_changed(request: &HeaderMap, content_type: HeaderValue, body: Bytes) -> Response {
    let tag = format!("\"{:016x}\"", fnv1a(&body));
    let unchanged = has_tag(request, &tag);
    let Ok(tag) = HeaderValue::try_from(tag) else { return body.into_response() };
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, HeaderValue::from_static("no-cache")), (ETAG, tag)];
    if unchanged {
        (StatusCode::NOT_MODIFIED, headers, Body::empty()).into_response()
    } else {
        (headers, body).into_response()
    }
}

/// How long a shared answer is told to all who ask, milliseconds.
const SHARED_MS: u64 = 200;

/// The last answer of a route whose answers may be large: whoever asks within a moment gets the same bytes, and however
/// many read them slowly hold one copy.
#[derive(Debug, Default)]
pub(crate) struct SharedAnswer(Mutex<Option<(Moment, Bytes)>>);

/// The picture of the fleet that an answer is of, and when.
type Moment = (u64, u64);

impl SharedAnswer {
    /// [`json_if_changed`] of what `make` says about `view`.
    pub(crate) fn json_if_changed<T: Serialize>(
        &self,
        view: &View,
        request: &HeaderMap,
        content_type: HeaderValue,
        make: impl FnOnce() -> T,
    ) -> Response {
        let moment = (view.snapshot.version, view.now_ms / SHARED_MS);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let body = match &*last {
            Some((of, body)) if *of == moment => body.clone(),
            _ => match serde_json::to_vec(&make()) {
                Ok(body) => {
                    let body = Bytes::from(body);
                    *last = Some((moment, body.clone()));
                    body
                }
                Err(error) => return unserialisable(&error),
            },
        };
        drop(last);
        bytes_if_changed(request, content_type, body)
    }
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Whether `If-None-Match` names `tag`, weakly or not.
fn has_tag(request: &HeaderMap, tag: &str) -> bool {
    let values = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

fn unserialisable(error: &serde_json::Error) -> Response {
    tracing::error!(%error, "an answer could not be written as JSON");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer could not be written").into_response()
}
