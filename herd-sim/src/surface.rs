//! The surfaces that clients speak, and how each writes an error.

use http::{Response, StatusCode, header};
use serde::Serialize;

use super::{
    body::{self, Body},
    json,
    text::random_hex24,
};

/// One of Ollama's surfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    /// `/api/chat`
    Chat,
    /// `/api/generate`
    Generate,
    /// `/api/embed`
    Embed,
    /// `/api/embeddings`, the older one
    Embeddings,
    /// `/v1/chat/completions`
    V1Chat,
    /// `/v1/completions`
    V1Completions,
    /// `/v1/embeddings`
    V1Embeddings,
    /// `/v1/responses`
    V1Responses,
    /// `/v1/messages`
    V1Messages,
}

impl Surface {
    /// How it writes its errors.
    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Chat | Self::Generate | Self::Embed | Self::Embeddings => Dialect::Native,
            Self::V1Chat | Self::V1Completions | Self::V1Embeddings | Self::V1Responses => Dialect::OpenAi,
            Self::V1Messages => Dialect::Anthropic,
        }
    }

    /// Whether a request that says nothing about it is streamed.
    pub(crate) fn streams_by_default(self) -> bool {
        matches!(self, Self::Chat | Self::Generate)
    }

    /// Name of the Go struct that the request is read into, as error texts have it.
    pub(crate) fn go_struct(self) -> &'static str {
        match self {
            Self::Chat => "ChatRequest",
            Self::Generate => "GenerateRequest",
            Self::Embed | Self::V1Embeddings => "EmbedRequest",
            Self::Embeddings => "EmbeddingRequest",
            Self::V1Chat => "ChatCompletionRequest",
            Self::V1Completions => "CompletionRequest",
            Self::V1Responses => "ResponsesRequest",
            Self::V1Messages => "MessagesRequest",
        }
    }
}

/// A way to write errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `{"error":"…"}`
    Native,
    /// `{"error":{"message":…}}`
    OpenAi,
    /// `{"type":"error",…}`
    Anthropic,
}

/// Where an error arose: decides its `Content-Type` and framing, as in Ollama.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The request could not be read; `/v1` has not yet wrapped the writer.
    Reading,
    /// Before the engine was asked.
    Handling,
    /// The engine refused, on a request that is streamed: headers of a stream, status of the error.
    Streaming,
}

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) stage: Stage,
}

impl ApiError {
    /// An error with this status and text.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), stage: Stage::Handling }
    }

    /// A 400.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A 400 about the body itself.
    pub(crate) fn unreadable(message: impl Into<String>) -> Self {
        Self { stage: Stage::Reading, ..Self::bad_request(message) }
    }

    /// A 404 for a model that is not there.
    pub(crate) fn no_model(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("model '{name}' not found"))
    }

    /// The queue for loads is full.
    pub(crate) fn busy() -> Self {
        let text = "server busy, please try again.  maximum pending requests exceeded";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    /// The same error, raised by the engine on a request that is (or is not) streamed.
    pub(crate) fn raised_by_engine(mut self, stream: bool) -> Self {
        if stream {
            self.stage = Stage::Streaming;
        }
        self
    }

    /// The response in `dialect`.
    pub(crate) fn respond(&self, dialect: Dialect) -> Response<Body> {
        let mut text = match dialect {
            Dialect::Native => json::to_vec(&NativeError { error: &self.message }),
            Dialect::OpenAi => json::to_vec(&OpenAiError::new(self)),
            Dialect::Anthropic => json::to_vec(&AnthropicError::new(self)),
        };
        let wrapped = dialect != Dialect::Native && self.stage != Stage::Reading;
        if wrapped {
            text.push(b'\n');
        }
        let content_type = match (wrapped, self.stage) {
            (true, _) | (_, Stage::Streaming) => body::JSON,
            _ => body::JSON_UTF8,
        };
        let body = if self.stage == Stage::Streaming { body::chunked(text.into()) } else { body::sized(text.into()) };
        body::respond(self.status, &[(header::CONTENT_TYPE, content_type)], body)
    }
}

#[derive(Serialize)]
pub(crate) struct NativeError<'a> {
    pub(crate) error: &'a str,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    error: OpenAiErrorBody<'a>,
}

#[derive(Serialize)]
struct OpenAiErrorBody<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<()>,
    code: Option<()>,
}

impl<'a> OpenAiError<'a> {
    fn new(error: &'a ApiError) -> Self {
        let r#type = match error.status {
            StatusCode::BAD_REQUEST => "invalid_request_error",
            StatusCode::NOT_FOUND => "not_found_error",
            _ => "api_error",
        };
        Self { error: OpenAiErrorBody { message: &error.message, r#type, param: None, code: None } }
    }
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    r#type: &'static str,
    error: AnthropicErrorBody<'a>,
    request_id: String,
}

#[derive(Serialize)]
struct AnthropicErrorBody<'a> {
    r#type: &'static str,
    message: &'a str,
}

impl<'a> AnthropicError<'a> {
    fn new(error: &'a ApiError) -> Self {
        let r#type = match error.status.as_u16() {
            400 => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            503 | 529 => "overloaded_error",
            _ => "api_error",
        };
        let request_id = format!("req_{}", random_hex24());
        Self { r#type: "error", error: AnthropicErrorBody { r#type, message: &error.message }, request_id }
    }
}
