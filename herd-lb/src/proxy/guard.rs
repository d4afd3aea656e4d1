//! What a request header may not be, and the form in which it goes on.

use std::borrow::Cow;

use herd_core::path::{self, Reading};
use http::Uri;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora_proxy::Session;

use super::reply::Reply;
use crate::config::Limits;

/// Longest request id that is taken from a client.
const REQUEST_ID_MAX_BYTES: usize = 128;

/// Brings a request into the form in which it is routed and passed on: its target is a path with its escapes decoded, and
/// offers to speak another protocol are gone, which a server may ignore (RFC 9110, 7.8).
pub(super) fn tidy(request: &mut RequestHeader) {
    request.remove_header(&UPGRADE);
    request.remove_header("HTTP2-Settings");
    // A request to a proxy names the host in its target too, and Pingora takes all of that for the path.
    let raw = request.raw_path();
    let absolute: Option<Uri> = if raw.starts_with(b"/") { None } else { String::from_utf8_lossy(raw).parse().ok() };
    let target = absolute.as_ref().unwrap_or(&request.uri);
    let authority = target.authority().map(ToString::to_string);
    let path = match path::read(request.method.as_str(), target.path()) {
        Reading::Routed(Cow::Owned(decoded)) => decoded,
        _ if authority.is_some() && target.path().starts_with('/') => target.path().to_owned(),
        _ => return,
    };
    let query = target.query().map(|query| format!("?{query}")).unwrap_or_default();
    // What cannot be written so stays as it was, and no route is there.
    if request.set_raw_path(format!("{path}{query}").as_bytes()).is_err() {
        return;
    }
    // Of the two hosts the one in the target counts (RFC 9112, 3.2.2).
    if let Some(authority) = authority.filter(|_| request.headers.contains_key(HOST)) {
        drop(request.insert_header(HOST, authority));
    }
}

/// Refuses headers that are over a limit, ambiguous, or ask for what the edge does not do.
pub(super) fn check(session: &Session, limits: &Limits) -> Result<(), Reply> {
    let request = session.req_header();
    let headers = &request.headers;
    if headers.len() > limits.header_count {
        let limit = limits.header_count;
        return Err(Reply::new(431, format!("request has more than {limit} header fields")).closing());
    }
    let raw = raw_header(session);
    if raw.as_ref().is_some_and(|raw| raw.len() > limits.header_bytes) {
        let limit = limits.header_bytes;
        return Err(Reply::new(431, format!("request header exceeds {limit} bytes")).closing());
    }
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version >= http::Version::HTTP_11) {
        return Err(Reply::new(400, "exactly one Host header is required").closing());
    }
    if headers.contains_key(TRANSFER_ENCODING) && raw.is_some_and(|raw| has_field(&raw, CONTENT_LENGTH.as_str())) {
        return Err(Reply::new(400, "Content-Length and Transfer-Encoding exclude each other").closing());
    }
    if herd_admin::via::has_come_back(headers) {
        let message = "the request has come back to this herd: one of its nodes is a herd itself. Point that node's agent \
                       at its Ollama";
        return Err(Reply::new(508, message).closing());
    }
    Ok(())
}

/// Pingora drops `Content-Length` when both framings are given; only the raw bytes still show that.
fn raw_header(session: &Session) -> Option<bytes::Bytes> {
    match &*session.downstream_session {
        ServerSession::H1(session) => Some(session.get_headers_raw_bytes()),
        _ => None,
    }
}

fn has_field(raw: &[u8], name: &str) -> bool {
    raw.split(|byte| *byte == b'\n').skip(1).any(|line| {
        let field = line.split(|byte| *byte == b':').next().unwrap_or_default();
        field.trim_ascii().eq_ignore_ascii_case(name.as_bytes())
    })
}

/// The client's own request id, if it is fit to stand in logs and headers.
pub(super) fn request_id(request: &RequestHeader) -> Option<String> {
    let id = request.headers.get("X-Request-Id")?.to_str().ok()?;
    let sane = (1..=REQUEST_ID_MAX_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    sane.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_request_ids_are_taken() {
        let take = |id: &str| {
            let mut request = RequestHeader::build("POST", b"/", None).unwrap();
            request.insert_header("X-Request-Id", id).unwrap();
            request_id(&request)
        };
        assert_eq!(take("a1-b.c_d").as_deref(), Some("a1-b.c_d"));
        for bad in ["", "a b", "<x>", &"x".repeat(129)] {
            assert_eq!(take(bad), None, "{bad}");
        }
    }

    #[track_caller]
    fn tidied(target: &str, path: &str, host: &str) {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        for (name, value) in [("Host", "here"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAEA"), ("X-Kept", "1")] {
            request.insert_header(name, value).unwrap();
        }
        tidy(&mut request);
        assert_eq!((request.raw_path(), &request.headers[HOST]), (path.as_bytes(), &host.parse().unwrap()), "{target}");
        let names: Vec<_> = request.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["host", "x-kept"], "{target}");
    }

    #[test]
    fn a_request_goes_on_as_a_path_without_offers() {
        tidied("/api/tags", "/api/tags", "here");
        tidied("/api/%74ags?a=%20b", "/api/tags?a=%20b", "here");
        tidied("/api/ta%20gs", "/api/ta%20gs", "here");
        tidied("http://there:80/api/tags?a=b", "/api/tags?a=b", "there:80");
        tidied("HTTP://there/api/%74ags", "/api/tags", "there");
        tidied("//api/tags", "//api/tags", "here");
        tidied("*", "*", "here");
    }

    #[test]
    fn fields_are_found_in_raw_headers() {
        let raw = b"POST / HTTP/1.1\r\nHost: a\r\ncontent-Length : 4\r\n\r\n";
        assert!(has_field(raw, "content-length"));
        assert!(!has_field(b"POST /content-length: HTTP/1.1\r\nHost: a\r\n\r\n", "content-length"));
    }
}
