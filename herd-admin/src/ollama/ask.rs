//! The body of a request about one model, as Ollama finds things in it.

use axum::extract::Request;
use herd_core::name::{ModelName, NameError};
use serde_json::{Map, Value};

use crate::body::{self, json_error};
use crate::refusal::Refusal;
use crate::state::AdminState;

/// Largest body of a request that changes something: names and flags.
pub(crate) const BODY_BYTES: usize = 64 << 10;

/// A request about one model.
#[derive(Debug)]
pub(crate) struct ModelAsk {
    /// The model: `model`, or the older `name`.
    pub(crate) name: ModelName,
    /// The same as the client spells it.
    pub(crate) spelling: String,
    fields: Map<String, Value>,
}

impl ModelAsk {
    /// Reads the body of `request`, which changes something: names and flags, and nothing larger.
    ///
    /// # Errors
    /// When the body is too large or too slow, is not an object of JSON, or names no model.
    pub(crate) async fn of(state: &AdminState, request: Request) -> Result<Self, Refusal> {
        Self::read(&body::read(request.into_body(), BODY_BYTES, state.config().body_timeout).await?)
    }

    /// Reads `body`.
    ///
    /// # Errors
    /// When it is not an object of JSON, or names no model.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let bad = |message: &str| Refusal::bad_request("invalid_request", message);
        let fields = fields(body)?;
        let text = text(&fields, "model").or_else(|| text(&fields, "name"));
        let spelling = text.ok_or_else(|| bad("model is required"))?.to_owned();
        let name = ModelName::asked(&spelling).map_err(|why| bad(&said(&why)))?;
        Ok(Self { name, spelling, fields })
    }

    /// The text at `key`; `None` = there is none, or an empty one.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        text(&self.fields, key)
    }

    /// Whether `key` is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        field(&self.fields, key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// What the object at `key` names, such as the digests of `files`.
    pub(crate) fn texts_of(&self, key: &str) -> impl Iterator<Item = &str> {
        let object = field(&self.fields, key).and_then(Value::as_object);
        object.into_iter().flat_map(Map::values).filter_map(Value::as_str)
    }

    /// Whether the answer is to be streamed: yes, unless it says no.
    pub(crate) fn streams(&self) -> bool {
        field(&self.fields, "stream").and_then(Value::as_bool).unwrap_or(true)
    }
}

/// The members of `body`.
///
/// # Errors
/// When it is not an object of JSON.
pub(crate) fn fields(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Refusal::bad_request("invalid_request", "missing request body"));
    }
    serde_json::from_slice(body).map_err(|error| Refusal::bad_request("invalid_request", json_error(&error)))
}

/// What is wrong with a name, as Ollama says it.
fn said(why: &NameError) -> String {
    if *why == NameError::Empty { "model is required".to_owned() } else { why.to_string() }
}

/// Keys compare as in Go, without case.
fn field<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

/// The text at `key`; `None` = there is none, or an empty one.
pub(crate) fn text<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    field(fields, key)?.as_str().filter(|text| !text.is_empty())
}
