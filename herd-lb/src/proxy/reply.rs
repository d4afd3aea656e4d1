//! Answers that the edge gives itself: errors, in the form of the surface that was asked, and what it knows best.

use bytes::Bytes;
use herd_core::request::Dialect;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use pingora::http::ResponseHeader;
use pingora_proxy::Session;
use serde_json::json;

use super::response_headers::mark_as_data;

/// What an answer says that is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its media type; empty = there is nothing in it.
    pub media_type: &'static str,
    /// The body.
    pub bytes: Bytes,
}

/// An answer as the client will see it: an error, unless it has content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// For people.
    pub message: String,
    /// The field of the request that is at fault.
    pub param: Option<&'static str>,
    /// For programs, where the fleet API is asked.
    pub code: Option<&'static str>,
    /// Seconds after which to try again.
    pub retry_after_s: Option<u64>,
    /// Whether the connection can serve another request: not when part of this one is still under way.
    pub reusable: bool,
    /// What few answers have.
    extra: Option<Box<Extra>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Extra {
    headers: Vec<(&'static str, String)>,
    content: Option<Content>,
}

impl Reply {
    /// An error with `status`.
    #[must_use]
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, param: None, code: None, retry_after_s: None, reusable: true, extra: None }
    }

    /// An answer of `status` that has no body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self::new(status, "").content(Content { media_type: "", bytes: Bytes::new() })
    }

    /// With `content` instead of an error.
    #[must_use]
    pub fn content(mut self, content: Content) -> Self {
        self.extra.get_or_insert_default().content = Some(content);
        self
    }

    /// With a header field.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.extra.get_or_insert_default().headers.push((name, value.into()));
        self
    }

    /// With the field that is at fault.
    #[must_use]
    pub fn param(self, param: Option<&'static str>) -> Self {
        Self { param, ..self }
    }

    /// With the code by which the fleet API tells programs of it, if `path` is of that.
    #[must_use]
    pub fn code(self, path: &str, code: &'static str) -> Self {
        let fleets = !path.starts_with("/api/") && !path.starts_with("/v1/");
        Self { code: Some(code).filter(|_| fleets), ..self }
    }

    /// With a time to try again.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// With a time to try again, from a predicted wait: whole seconds, at least one and at most ten minutes.
    #[must_use]
    pub fn retry_after_ms(self, ms: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a small range")]
        let seconds = (ms / 1e3).ceil().clamp(1.0, 600.0) as u64;
        self.retry_after(seconds.max(1))
    }

    /// Closing the connection behind it.
    #[must_use]
    pub fn closing(self) -> Self {
        Self { reusable: false, ..self }
    }

    /// Its body in the words of `dialect`.
    #[must_use]
    pub fn body(&self, dialect: Dialect, request_id: &str) -> Bytes {
        let message = &self.message;
        let value = match dialect {
            _ if self.code.is_some() => json!({ "error": { "code": self.code, "message": message } }),
            Dialect::Ollama => json!({ "error": message }),
            Dialect::OpenAi => json!({ "error": {
                "message": message, "type": self.openai_type(), "param": self.param, "code": self.openai_code(),
            } }),
            Dialect::Anthropic => json!({
                "type": "error",
                "error": { "type": self.anthropic_type(), "message": message },
                "request_id": request_id,
            }),
        };
        value.to_string().into()
    }

    fn openai_type(&self) -> &'static str {
        match self.status {
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        }
    }

    fn openai_code(&self) -> Option<&'static str> {
        (self.status == 401).then_some("invalid_api_key")
    }

    fn anthropic_type(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        }
    }

    /// Sends it, with `fleet` headers. The caller has made sure that nothing was sent before.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn send(
        &self,
        session: &mut Session,
        dialect: Dialect,
        request_id: &str,
        fleet: &[(&'static str, String)],
    ) -> pingora::Result<()> {
        let extra = self.extra.as_deref();
        let (media_type, body) = match extra.and_then(|extra| extra.content.as_ref()) {
            Some(content) => (content.media_type, content.bytes.clone()),
            None => ("application/json; charset=utf-8", self.body(dialect, request_id)),
        };
        let mut header = ResponseHeader::build(self.status, Some(10 + fleet.len()))?;
        if !media_type.is_empty() {
            header.insert_header(CONTENT_TYPE, media_type)?;
        }
        // A 204 has no length, not even none.
        if self.status != 204 {
            header.insert_header(CONTENT_LENGTH, body.len())?;
        }
        mark_as_data(&mut header)?;
        if let Some(seconds) = self.retry_after_s {
            header.insert_header(RETRY_AFTER, seconds)?;
        }
        if self.status == 401 {
            header.insert_header(WWW_AUTHENTICATE, "Bearer realm=\"herd\"")?;
        }
        for (name, value) in fleet.iter().chain(extra.into_iter().flat_map(|extra| &extra.headers)) {
            header.insert_header(*name, value)?;
        }
        if !self.reusable {
            session.set_keepalive(None);
        }
        let without_body = session.req_header().method == http::Method::HEAD || body.is_empty();
        session.write_response_header(Box::new(header), without_body).await?;
        if without_body { Ok(()) } else { session.write_response_body(Some(body), true).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_speak_the_dialect_of_their_surface() {
        let reply = Reply::new(400, "say \"model\"").param(Some("model"));
        let text = |dialect| String::from_utf8(reply.body(dialect, "id-1").to_vec()).unwrap();
        assert_eq!(text(Dialect::Ollama), r#"{"error":"say \"model\""}"#);
        assert_eq!(
            text(Dialect::OpenAi),
            r#"{"error":{"code":null,"message":"say \"model\"","param":"model","type":"invalid_request_error"}}"#
        );
        assert_eq!(
            text(Dialect::Anthropic),
            r#"{"error":{"message":"say \"model\"","type":"invalid_request_error"},"request_id":"id-1","type":"error"}"#
        );
        let openai = String::from_utf8(Reply::new(401, "").body(Dialect::OpenAi, "").to_vec()).unwrap();
        assert!(openai.contains(r#""code":"invalid_api_key""#), "{openai}");
        assert_eq!(Reply::new(503, "").anthropic_type(), "overloaded_error");
        assert_eq!(Reply::new(404, "").openai_type(), "not_found_error");
    }
}
