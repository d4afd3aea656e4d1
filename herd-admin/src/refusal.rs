//! Refusals, and the form in which each surface tells them.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

/// JSON as Ollama's own API says it.
pub(crate) const OLLAMA_JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
/// JSON everywhere else.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why a request is not answered as asked.
///
/// As a response it has no body yet: [`in_the_form_of_the_surface`] writes that.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// With a stable `code` for programs and a `message` for people. No internals in either.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), header: None }
    }

    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// Stable, for programs.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// For people.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// With one more header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some((name, value)) = self.header.clone() {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The form of error answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `{"error":"..."}`
    Ollama,
    /// `{"error":{"message","type","param","code"}}`
    OpenAi,
    /// `{"error":{"code","message"}}`
    Herd,
}

impl Form {
    fn of(path: &str) -> Self {
        if path.starts_with("/api/") {
            Self::Ollama
        } else if path.starts_with("/v1/") {
            Self::OpenAi
        } else {
            Self::Herd
        }
    }

    fn content_type(self) -> HeaderValue {
        if self == Self::Ollama { OLLAMA_JSON } else { JSON }
    }

    fn body(self, refusal: &Refusal) -> Value {
        let message = &refusal.message;
        match self {
            Self::Ollama => json!({ "error": message }),
            Self::OpenAi => {
                let kind = match refusal.status {
                    StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        "invalid_request_error"
                    }
                    StatusCode::NOT_FOUND => "not_found_error",
                    _ => "api_error",
                };
                let code = (refusal.status == StatusCode::UNAUTHORIZED).then_some("invalid_api_key");
                json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
            }
            Self::Herd => json!({ "error": { "code": refusal.code, "message": message } }),
        }
    }
}

/// The `Content-Security-Policy` of everything but the dashboard's page and its files: should a browser ever show it as
/// a page, that page is of no origin, runs nothing and loads nothing.
pub const DATA_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

/// Writes the bodies of refusals, in one place for all surfaces, and marks every answer as being what it says it is, and
/// as data where it does not say that it is more.
pub(crate) async fn in_the_form_of_the_surface(request: Request, next: Next) -> Response {
    let form = Form::of(request.uri().path());
    let mut response = next.run(request).await;
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().entry(CONTENT_SECURITY_POLICY).or_insert(DATA_POLICY);
    let Some(refusal) = response.extensions_mut().remove::<Refusal>() else { return response };
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, form.content_type());
    *response.body_mut() = Body::from(form.body(&refusal).to_string());
    response
}

/// Answers what no route has.
pub(crate) async fn unknown_path() -> Refusal {
    Refusal::not_found("not_found", "404 page not found")
}

/// Answers a method that a route does not have. axum adds `Allow`.
pub(crate) async fn wrong_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "405 method not allowed")
}
