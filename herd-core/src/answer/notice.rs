//! What the edge may put into a stream itself: an error at its end, a sign of life before its first token.

use crate::request::{Dialect, Surface};
use crate::splice::json_string;

/// Ends a line that broke off. An empty line would be an error to Ollama's own clients, so that none is made.
pub(super) fn end_line(mid_line: bool) -> &'static [u8] {
    if mid_line { b"\n" } else { b"" }
}

/// Ends an event that broke off. One without data is not ended: what follows takes its place and its name.
pub(super) fn end_event(mid_line: bool, has_data: bool) -> &'static [u8] {
    match (mid_line, has_data) {
        (true, true) => b"\n\n",
        (true, false) | (false, true) => b"\n",
        (false, false) => b"",
    }
}

/// An error in the form of `surface`, for a stream. `sequence` is the number of the next event, which only
/// `/v1/responses` has.
///
/// The error of `/v1/responses` has its members twice. On top is what the API documents; of its official libraries,
/// those for Python and Go raise only what has a top-level `error`, and the one for Node reads its text from there. A
/// `response.failed` would need a whole response object and is raised by none of them.
pub(super) fn error(surface: Surface, message: &str, sequence: u64) -> String {
    let message = json_string(message);
    match surface.dialect() {
        Dialect::Ollama => format!("{{\"error\":{message}}}\n"),
        Dialect::Anthropic => format!(
            "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"api_error\",\"message\":{message}}}}}\n\n"
        ),
        Dialect::OpenAi if surface == Surface::OpenAiResponses => format!(
            "event: error\ndata: {{\"type\":\"error\",\"code\":\"server_error\",\"message\":{message},\"param\":null,\
             \"sequence_number\":{sequence},\"error\":{{\"message\":{message},\"type\":\"api_error\",\"param\":null,\
             \"code\":\"server_error\"}}}}\n\n"
        ),
        Dialect::OpenAi => format!(
            "data: {{\"error\":{{\"message\":{message},\"type\":\"api_error\",\"param\":null,\"code\":null}}}}\n\n"
        ),
    }
}

/// Bytes that keep an idle stream of `surface` alive and that its clients ignore; `None` where there are none.
///
/// They may stand wherever a line may begin. It is one line without the usual empty line behind it: releases of the
/// official libraries for Go and Python take that for the end of an event without data and fail on it.
#[must_use]
pub fn comment(surface: Surface) -> Option<&'static [u8]> {
    let is_events = surface.can_stream() && surface.dialect() != Dialect::Ollama;
    is_events.then_some(b": keep-alive\n")
}

/// What a client of Ollama's own API can be told before its first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The model, as the client named it.
    pub model: &'a str,
    /// The time, as RFC 3339: Ollama's client for Go refuses anything else.
    pub created_at: &'a str,
    /// For people. `success` alone would end the stream for Ollama's client for JavaScript.
    pub status: &'a str,
}

/// A line for a stream of `/api/chat` or `/api/generate` that adds nothing to the answer but a `status`.
///
/// It is shaped as a chunk with empty content, since those clients read every line as one and ignore members that they
/// do not know. `None` on other surfaces, and for the status `success`.
#[must_use]
pub fn status_line(surface: Surface, progress: &Progress<'_>) -> Option<Vec<u8>> {
    let empty = match surface {
        Surface::OllamaChat => r#""message":{"role":"assistant","content":""}"#,
        Surface::OllamaGenerate => r#""response":"""#,
        _ => return None,
    };
    if progress.status == "success" {
        return None;
    }
    let [model, created_at, status] = [progress.model, progress.created_at, progress.status].map(json_string);
    let line =
        format!("{{\"model\":{model},\"created_at\":{created_at},{empty},\"done\":false,\"status\":{status}}}\n");
    Some(line.into_bytes())
}
