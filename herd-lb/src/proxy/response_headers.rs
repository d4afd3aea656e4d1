//! What a client gets of a node's response header: what frames the data and says what it is, and nothing that a browser
//! would act on.
//!
//! Any machine that joined can answer, so that its answer is data whatever it says: it sets no cookie, sends nobody
//! elsewhere, asks nobody for a password, opens this origin to no page, and is no page itself.

use herd_admin::DATA_POLICY;
use herd_core::request::{Dialect, Surface};
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, DATE, RETRY_AFTER, TRANSFER_ENCODING,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;

/// What comes through; the rest is left out.
const PASSED_ON: [HeaderName; 5] = [CONTENT_LENGTH, TRANSFER_ENCODING, CONTENT_ENCODING, DATE, RETRY_AFTER];

const NDJSON: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";

/// Takes out of a node's response header what is not for clients, and says what the answer is.
///
/// # Errors
/// Never, but that Pingora's headers say they may.
pub(super) fn restrict(response: &mut ResponseHeader, surface: Surface, streamed: bool) -> Result<()> {
    let streamed = streamed && response.status == http::StatusCode::OK;
    let kind = kind(surface, streamed, response.headers.get(CONTENT_TYPE));
    let left_out: Vec<_> = response.headers.keys().filter(|name| !PASSED_ON.contains(name)).cloned().collect();
    for name in &left_out {
        response.remove_header(name);
    }
    response.insert_header(CONTENT_TYPE, kind)?;
    mark_as_data(response)
}

/// Says that an answer is data, for browsers that would show it as a page.
///
/// # Errors
/// Never, but that Pingora's headers say they may.
pub(super) fn mark_as_data(response: &mut ResponseHeader) -> Result<()> {
    response.insert_header(X_CONTENT_TYPE_OPTIONS, "nosniff")?;
    response.insert_header(CONTENT_SECURITY_POLICY, DATA_POLICY)
}

/// What the answer is: the surface's stream, or its JSON. A node says which of the two, as a request for a stream may be
/// answered at once; it can say nothing else.
pub(super) fn kind(surface: Surface, streamed: bool, said: Option<&HeaderValue>) -> &'static str {
    let native = surface.dialect() == Dialect::Ollama;
    let stream = if native { NDJSON } else { EVENTS };
    let json = if native { "application/json; charset=utf-8" } else { "application/json" };
    let said = said.and_then(|said| said.to_str().ok()).unwrap_or_default();
    let said = said.split(';').next().unwrap_or_default().trim();
    if surface == Surface::OpenAiTranscriptions && said.eq_ignore_ascii_case("text/plain") {
        // `response_format: text`.
        return "text/plain; charset=utf-8";
    }
    if said.eq_ignore_ascii_case("application/json") {
        json
    } else if streamed || said.eq_ignore_ascii_case(stream) {
        stream
    } else {
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(surface: Surface, streamed: bool, status: u16, said: &str, expected: &str) {
        let mut response = ResponseHeader::build(status, None).unwrap();
        response.append_header(CONTENT_TYPE, said).unwrap();
        restrict(&mut response, surface, streamed).unwrap();
        let told: Vec<_> = response.headers.get_all(CONTENT_TYPE).iter().collect();
        assert_eq!(told, [expected], "{said}");
    }

    #[test]
    fn an_answer_is_data_whatever_a_node_says() {
        let (native, openai) = (Surface::OllamaChat, Surface::OpenAiChat);
        is(native, true, 200, "application/x-ndjson", "application/x-ndjson");
        is(native, true, 200, "application/json; charset=utf-8", "application/json; charset=utf-8");
        is(openai, true, 200, "text/event-stream; charset=utf-7", "text/event-stream");
        is(openai, false, 200, "application/json", "application/json");
        let spoken = Surface::OpenAiTranscriptions;
        is(spoken, false, 200, "text/plain; charset=utf-7", "text/plain; charset=utf-8");
        is(spoken, false, 200, "text/html", "application/json");
        for page in ["text/html", "TEXT/HTML", "image/svg+xml", "text/javascript", "application/pdf", "", "x"] {
            is(native, true, 200, page, "application/x-ndjson");
            is(openai, true, 200, page, "text/event-stream");
            is(native, false, 200, page, "application/json; charset=utf-8");
            is(openai, true, 500, page, "application/json");
        }
    }

    #[test]
    fn nothing_else_comes_through() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        let hostile = [
            "Access-Control-Allow-Origin",
            "Access-Control-Allow-Credentials",
            "WWW-Authenticate",
            "Location",
            "Set-Cookie",
            "Refresh",
            "Link",
            "Clear-Site-Data",
            "Alt-Svc",
            "Strict-Transport-Security",
            "Connection",
            "Content-Security-Policy",
            "X-Content-Type-Options",
            "Content-Disposition",
            "Service-Worker-Allowed",
            "X-Fleet-Node",
            "X-Request-Id",
            "Report-To",
            "NEL",
            "SourceMap",
            "Upgrade",
            "Proxy-Authenticate",
            "ETag",
            "Cache-Control",
            "Timing-Allow-Origin",
            "Cross-Origin-Resource-Policy",
            "Server",
            "Via",
        ];
        for name in hostile {
            response.append_header(name, "evil").unwrap();
            response.append_header(name, "evil again").unwrap();
        }
        for (name, value) in
            [("Content-Length", "5"), ("Date", "now"), ("Retry-After", "3"), ("Content-Encoding", "gzip")]
        {
            response.insert_header(name, value).unwrap();
        }
        restrict(&mut response, Surface::OllamaChat, false).unwrap();
        let mut names: Vec<_> = response.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "content-encoding",
            "content-length",
            "content-security-policy",
            "content-type",
            "date",
            "retry-after",
            "x-content-type-options",
        ];
        assert_eq!(names, expected);
        assert!(response.headers.values().all(|value| !value.to_str().unwrap().contains("evil")));
    }
}
