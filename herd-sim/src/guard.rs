//! Who may ask: Ollama's checks of `Host` and `Origin`, and its CORS answers.

use std::net::IpAddr;

use http::{HeaderMap, Method, Response, StatusCode, header};

use super::{
    body::{self, Body},
    wire::header_value,
};

/// The name part of a `Host` or an origin's authority: without a port, without brackets.
fn host_name(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match authority.rsplit_once(':') {
        // More than one colon is an IPv6 address without a port.
        Some((name, _)) if !name.contains(':') => name,
        _ => authority,
    }
}

/// Whether a server on loopback answers a request for this `Host`.
pub(crate) fn host_is_allowed(host: &str) -> bool {
    let name = host_name(host).to_ascii_lowercase();
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_unspecified(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unspecified(),
        Err(_) => {
            let local = [".localhost", ".local", ".internal"];
            name.is_empty() || name == "localhost" || local.iter().any(|suffix| name.ends_with(suffix))
        }
    }
}

/// Whether a page from this `Origin` may ask.
fn origin_is_allowed(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    match scheme {
        "app" | "file" | "tauri" | "vscode-webview" | "vscode-file" => true,
        "http" | "https" => authority == host || ["localhost", "127.0.0.1", "0.0.0.0"].contains(&host_name(authority)),
        _ => false,
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The answer of the guards, if they have one: a refusal, or to a browser's preflight.
pub(crate) fn check(head: &http::request::Parts, loopback: bool) -> Option<Response<Body>> {
    let host = text(&head.headers, header::HOST).unwrap_or_default();
    let origin = text(&head.headers, header::ORIGIN);
    // The origin first: Ollama answers CORS before it looks at the host.
    if let Some(origin) = origin {
        if !origin_is_allowed(origin, host) {
            return Some(body::empty(StatusCode::FORBIDDEN));
        }
        if head.method == Method::OPTIONS {
            return Some(preflight(origin));
        }
    }
    (loopback && !host_is_allowed(host)).then(|| body::empty(StatusCode::FORBIDDEN))
}

/// Adds what a browser needs to show the answer to the page.
pub(crate) fn allow_origin(request: &HeaderMap, response: &mut Response<Body>) {
    if let Some(origin) = request.get(header::ORIGIN) {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.headers_mut().insert(header::VARY, http::HeaderValue::from_static("Origin"));
    }
}

fn preflight(origin: &str) -> Response<Body> {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization,Content-Type,User-Agent,Accept,X-Requested-With"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
        (header::ACCESS_CONTROL_MAX_AGE, "43200"),
        (header::VARY, "Origin"),
    ];
    let mut response = body::respond(StatusCode::NO_CONTENT, &headers, body::sized(bytes::Bytes::new()));
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, header_value(origin));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_hosts_are_answered() {
        for host in ["localhost:11434", "127.0.0.1", "192.168.1.5:11434", "[::1]:11434", "mac.local", "", "a.internal"]
        {
            assert!(host_is_allowed(host), "{host}");
        }
        for host in ["example.com", "8.8.8.8", "evil.com:11434", "localhost.evil.com"] {
            assert!(!host_is_allowed(host), "{host}");
        }
    }

    #[test]
    fn only_local_pages_may_ask() {
        for origin in ["http://localhost:3000", "https://127.0.0.1", "app://x", "http://herd:11435"] {
            assert!(origin_is_allowed(origin, "herd:11435"), "{origin}");
        }
        for origin in ["http://evil.com", "null", "ftp://localhost"] {
            assert!(!origin_is_allowed(origin, "herd:11435"), "{origin}");
        }
    }
}
