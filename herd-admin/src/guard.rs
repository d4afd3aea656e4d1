//! Who may change the fleet: somebody at this machine, and not a web page in their browser.

use axum::extract::FromRequestParts;
use http::header::{HOST, ORIGIN, USER_AGENT};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName};

use crate::body::require_json;
use crate::caller::Caller;
use crate::refusal::Refusal;
use crate::state::AdminState;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The proof that a request may change the fleet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operator {
    /// Who.
    pub(crate) caller: Caller,
}

impl FromRequestParts<AdminState> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Refusal> {
        let caller = Caller::from_request_parts(parts, state).await?;
        check(caller, &parts.headers)?;
        require_json(&parts.headers)?;
        Ok(Self { caller })
    }
}

/// The proof that a request may change models through Ollama's own API.
///
/// The same as [`Operator`], but for the content type, which Ollama never asks for: its documentation posts with curl,
/// which says that it sends a form. A browser would say so unasked too, so it still has to name JSON. What tells one is
/// its `User-Agent`; the headers that it sends besides are checked in any case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelOperator {
    /// Who.
    pub(crate) caller: Caller,
}

impl FromRequestParts<AdminState> for ModelOperator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Refusal> {
        let caller = Caller::from_request_parts(parts, state).await?;
        check(caller, &parts.headers)?;
        if is_browser(&parts.headers) {
            require_json(&parts.headers)?;
        }
        Ok(Self { caller })
    }
}

/// Every browser says that it is Mozilla.
fn is_browser(headers: &HeaderMap) -> bool {
    let says_so = header(headers, &USER_AGENT).is_some_and(|agent| agent.starts_with("Mozilla/") || agent == "?");
    says_so || headers.contains_key(ORIGIN) || headers.contains_key(FETCH_SITE)
}

fn check(caller: Caller, headers: &HeaderMap) -> Result<(), Refusal> {
    if !caller.ip.is_loopback() {
        return Err(Refusal::forbidden("not_local", "the fleet can be changed from this machine only"));
    }
    let host = header(headers, &HOST);
    if !host.is_some_and(is_this_machine) {
        return Err(Refusal::forbidden("foreign_host", "Host must be localhost or an IP address"));
    }
    if !is_same_origin(headers, host.unwrap_or_default()) {
        return Err(Refusal::forbidden("foreign_origin", "requests from other sites are refused"));
    }
    Ok(())
}

/// Against DNS rebinding: a page of another site can have its own name resolve to this machine, but cannot be reached
/// by an address or by `localhost`.
fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

/// Browsers say where a request comes from in one or both of these headers; programs that are not browsers in none.
fn is_same_origin(headers: &HeaderMap, host: &str) -> bool {
    let site_is_own = header(headers, &FETCH_SITE).is_none_or(|site| matches!(site, "same-origin" | "none"));
    let origin_is_own = header(headers, &ORIGIN).is_none_or(|origin| {
        let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        name.is_some_and(|name| name.eq_ignore_ascii_case(host))
    });
    site_is_own && origin_is_own
}

/// Its text; one that is not text is as good as a foreign one.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::CONTENT_TYPE;

    #[track_caller]
    fn check_with(ip: &str, headers: &[(HeaderName, &str)], allowed: bool) {
        let caller = Caller { ip: ip.parse().unwrap(), via_edge: false };
        let mut map = HeaderMap::new();
        map.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        map.insert(HOST, "127.0.0.1:11436".parse().unwrap());
        for (name, value) in headers {
            map.insert(name.clone(), value.parse().unwrap());
        }
        let checked = check(caller, &map).and_then(|()| require_json(&map));
        assert_eq!(checked.is_ok(), allowed, "{ip} {headers:?}");
    }

    #[test]
    fn only_this_machine_and_no_foreign_page_may_change_the_fleet() {
        check_with("127.0.0.1", &[], true);
        check_with("::1", &[(HOST, "[::1]:11435")], true);
        check_with("127.0.0.1", &[(HOST, "LocalHost")], true);
        check_with("192.168.1.7", &[], false);
        check_with("127.0.0.1", &[(HOST, "evil.example:11435")], false);
        check_with("127.0.0.1", &[(HOST, "localhost.evil.example")], false);
        check_with("127.0.0.1", &[(ORIGIN, "http://127.0.0.1:11436")], true);
        check_with("127.0.0.1", &[(ORIGIN, "http://127.0.0.1:3000")], false);
        check_with("127.0.0.1", &[(ORIGIN, "null")], false);
        check_with("127.0.0.1", &[(ORIGIN, "https://evil.example")], false);
        check_with("127.0.0.1", &[(FETCH_SITE, "same-origin")], true);
        check_with("127.0.0.1", &[(FETCH_SITE, "cross-site")], false);
        check_with("127.0.0.1", &[(CONTENT_TYPE, "text/plain")], false);
        check_with("127.0.0.1", &[(CONTENT_TYPE, "application/json; charset=utf-8")], true);
    }

    #[test]
    fn browsers_are_told_from_programs() {
        let is = |name: HeaderName, value: &str| is_browser(&HeaderMap::from_iter([(name, value.parse().unwrap())]));
        assert!(is(USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64)"));
        assert!(is(ORIGIN, "http://127.0.0.1:11436"));
        assert!(is(FETCH_SITE, "same-origin"));
        assert!(!is(USER_AGENT, "curl/8.5.0"));
        assert!(!is(USER_AGENT, "ollama/0.33.0 (amd64 linux) Go/go1.24"));
        assert!(!is_browser(&HeaderMap::new()));
    }
}
