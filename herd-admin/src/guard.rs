//! What a request must not be: the work of another site's web page in somebody's browser. Whether its sender may do what
//! it asks is decided by the gate before.

use herd_core::access::Need;
use http::header::{ACCEPT_LANGUAGE, HOST, ORIGIN, USER_AGENT, VIA};
use http::request::Parts;
use http::{HeaderMap, Method};

use crate::access::Actor;
use crate::body::require_json;
use crate::caller::{Caller, is_proxied};
use crate::hosts::Hosts;
use crate::page::{FETCH_SITE, Page, text};
use crate::refusal::Refusal;

/// The proof that a request may change the fleet. Only the gate makes one.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    /// Where from.
    pub(crate) caller: Caller,
    /// Who, for the audit log.
    pub(crate) actor: Actor,
}

/// The same for a change through Ollama's own API.
pub(crate) type ModelOperator = Operator;

/// Why a request's host need not be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It has to be.
    Nothing,
    /// The edge has looked at it, or a proxy has forwarded it, for what changes nothing.
    Host,
    /// The request shows a key, which no page of another site can.
    Key,
}

/// Refuses what a page of another site could have asked for; `trusted` = its sender has shown a key, or the edge that
/// forwards it has looked at its host.
///
/// Signs of life are for everybody, and a link to a page may stand anywhere. Models may be listed by the pages that may
/// ask them. The fleet is shown to our own page alone, and changed by it alone; heartbeats come from no page.
///
/// Whatever has a body names JSON as what it is, which a page cannot do unasked. Ollama's own paths are the exception:
/// its documentation posts with curl, which says that it sends a form; there a browser alone has to name JSON. What
/// tells one is its `User-Agent`, and the headers that it sends besides.
pub(crate) fn check(need: Need, parts: &Parts, hosts: &Hosts, trusted: Trust) -> Result<(), Refusal> {
    let headers = &parts.headers;
    let host = text(headers, &HOST);
    let (is_ours, rule) = match (need, trusted) {
        (Need::Nothing | Need::Node, _) | (_, Trust::Key) => (true, ""),
        (Need::Change, _) => (host.is_some_and(|host| hosts.has(host)), "none of this machine's names and addresses"),
        (_, Trust::Host) => (true, ""),
        _ => (host.is_none_or(|host| hosts.admits(host)), "no name of this herd"),
    };
    if !is_ours {
        let message = format!("Host is {rule}: add it to admin.hosts if it is yours, or show an API key");
        return Err(Refusal::forbidden("foreign_host", message));
    }
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let admitted = match (need, Page::of(headers, hosts)) {
        (Need::Nothing, _) | (_, Page::None) => true,
        (Need::Node, _) => {
            return Err(Refusal::forbidden("browser", "heartbeats come from agents, not from web pages"));
        }
        (_, Page::Own) => true,
        (_, Page::Linked) => reads,
        (Need::Catalogue | Need::Infer, Page::Foreign(Some(origin))) => hosts.trusts_page(origin),
        (_, Page::Foreign(_)) => false,
    };
    if !admitted {
        return Err(Refusal::forbidden("foreign_origin", "requests from other sites are refused"));
    }
    let asks_for_json = match need {
        Need::Change => !parts.uri.path().starts_with("/api/") || is_browser(headers),
        Need::Node => true,
        _ => !reads && is_browser(headers),
    };
    if asks_for_json { require_json(headers) } else { Ok(()) }
}

/// Whether a page of some site may have sent this. A page can have its browser name another program as its
/// `User-Agent`, but not leave out what languages its user reads.
fn may_be_a_page(headers: &HeaderMap) -> bool {
    is_browser(headers) || headers.contains_key(ACCEPT_LANGUAGE)
}

/// Whether a proxy has forwarded this, whose clients may call it by any name. A page can write every header that says so
/// but `Via`.
#[must_use]
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(VIA) || (is_proxied(headers) && !may_be_a_page(headers))
}

/// Every browser says that it is Mozilla.
fn is_browser(headers: &HeaderMap) -> bool {
    let says_so = text(headers, &USER_AGENT).is_some_and(|agent| agent.starts_with("Mozilla/") || agent == "?");
    says_so || headers.contains_key(ORIGIN) || headers.contains_key(FETCH_SITE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use herd_core::access::need_of;
    use http::HeaderName;
    use http::header::CONTENT_TYPE;

    fn hosts() -> Hosts {
        let own = ["studio", "studio.local"].map(str::to_owned);
        let listeners = ["192.168.1.5:11435".parse().unwrap(), "127.0.0.1:11436".parse().unwrap()];
        Hosts::new(&listeners, own).with_names(&["herd.example:8443".to_owned()])
    }

    #[track_caller]
    fn asks(line: &str, headers: &[(HeaderName, &str)], code: Option<&str>) {
        let (method, path) = line.split_once(' ').unwrap();
        let (mut parts, ()) = http::Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
        parts.headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        parts.headers.insert(HOST, "127.0.0.1:11436".parse().unwrap());
        for (name, value) in headers {
            parts.headers.insert(name.clone(), value.parse().unwrap());
        }
        let refused = check(need_of(method, path), &parts, &hosts(), Trust::Nothing).err();
        assert_eq!(refused.as_ref().map(Refusal::code), code, "{line} {headers:?}");
    }

    #[track_caller]
    fn checks(path: &str, headers: &[(HeaderName, &str)], code: Option<&str>) {
        asks(&format!("POST {path}"), headers, code);
    }

    #[test]
    fn no_foreign_page_sees_the_fleet_or_has_a_node_asked() {
        let form = (CONTENT_TYPE, "text/plain");
        let evil = (ORIGIN, "http://evil.example");
        let picture = [(FETCH_SITE, "cross-site")];
        let followed = [(FETCH_SITE, "cross-site"), (HeaderName::from_static("sec-fetch-mode"), "navigate")];
        for path in ["/api/show", "/fleet/explain"] {
            checks(path, std::slice::from_ref(&evil), Some("foreign_origin"));
            checks(path, &[(ORIGIN, "null"), form.clone()], Some("foreign_origin"));
            checks(path, &picture, Some("foreign_origin"));
            checks(path, &followed, Some("foreign_origin"));
            checks(path, &[form.clone(), (USER_AGENT, "Mozilla/5.0")], Some("unsupported_media_type"));
            checks(path, &[form.clone(), (USER_AGENT, "curl/8.5.0")], None);
            checks(path, &[(ORIGIN, "http://127.0.0.1:11436")], None);
        }
        for path in ["/fleet/status", "/dashboard/events", "/dashboard/api/traces", "/api/tags", "/v1/models"] {
            let ask = format!("GET {path}");
            asks(&ask, std::slice::from_ref(&evil), Some("foreign_origin"));
            asks(&ask, &picture, Some("foreign_origin"));
            asks(&ask, &followed, None);
            asks(&ask, &[], None);
        }
        let app = (ORIGIN, "http://localhost:3000");
        asks("GET /api/tags", std::slice::from_ref(&app), None);
        asks("POST /api/show", std::slice::from_ref(&app), None);
        asks("GET /fleet/status", std::slice::from_ref(&app), Some("foreign_origin"));
        asks("POST /fleet/pin", &[app], Some("foreign_origin"));
        asks("GET /healthz", std::slice::from_ref(&evil), None);
        checks("/heartbeat", &[evil], Some("browser"));
        checks("/heartbeat", &[(FETCH_SITE, "same-origin")], Some("browser"));
        checks("/heartbeat", &[form], Some("unsupported_media_type"));
    }

    #[test]
    fn no_foreign_page_may_change_the_fleet() {
        let check = |headers: &[_], code| checks("/fleet/nodes/a/drain", headers, code);
        check(&[], None);
        check(&[(ORIGIN, "http://127.0.0.1:11436")], None);
        check(&[(ORIGIN, "http://127.0.0.1:3000")], Some("foreign_origin"));
        check(&[(ORIGIN, "null")], Some("foreign_origin"));
        check(&[(ORIGIN, "https://evil.example")], Some("foreign_origin"));
        check(&[(ORIGIN, "file://127.0.0.1:11436")], Some("foreign_origin"));
        check(&[(FETCH_SITE, "same-origin")], None);
        check(&[(FETCH_SITE, "same-site")], Some("foreign_origin"));
        check(&[(FETCH_SITE, "cross-site")], Some("foreign_origin"));
        check(&[(CONTENT_TYPE, "text/plain")], Some("unsupported_media_type"));
        check(&[(CONTENT_TYPE, "text/plain; application/json")], Some("unsupported_media_type"));
        check(&[(CONTENT_TYPE, "application/json; charset=utf-8")], None);
    }

    #[test]
    fn ollamas_own_paths_ask_browsers_alone_for_json() {
        let form = (CONTENT_TYPE, "application/x-www-form-urlencoded");
        checks("/api/pull", &[form.clone(), (USER_AGENT, "curl/8.5.0")], None);
        checks("/api/pull", &[form.clone(), (USER_AGENT, "Mozilla/5.0 (X11)")], Some("unsupported_media_type"));
        checks("/api/pull", &[form.clone(), (FETCH_SITE, "same-origin")], Some("unsupported_media_type"));
        checks("/fleet/pin", &[form, (USER_AGENT, "curl/8.5.0")], Some("unsupported_media_type"));
        checks("/api/pull", &[(ORIGIN, "https://evil.example")], Some("foreign_origin"));
    }

    #[track_caller]
    fn known(hosts: &Hosts, list: &[&str], expected: bool) {
        for host in list {
            assert_eq!(hosts.has(host), expected, "{host}");
        }
    }

    #[test]
    fn hosts_are_those_of_this_machine() {
        let ours = ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.2:80", "[::1]:11435", "[::ffff:127.0.0.1]"];
        let listed = ["192.168.1.5:11435", "192.168.1.5:80", "STUDIO", "studio.local:11435", "herd.example:8443"];
        known(&hosts(), &ours, true);
        known(&hosts(), &listed, true);
        let foreign = [
            "",
            "evil.example",
            "evil.example:11435",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "herd.example",
            "herd.example:80",
            "192.168.1.6",
            "[fe80::1]",
            "[fe80::1%25eth0]",
            "0x7f.1",
            "localhost@evil.example",
            "evil@localhost",
            "localhost:port",
            "localhost:99999",
            "localhost, evil.example",
            "[::1",
            "::1",
        ];
        known(&hosts(), &foreign, false);
    }

    #[test]
    fn models_and_the_fleet_are_asked_for_by_local_names_and_addresses() {
        let hosts = hosts();
        for host in
            ["8.8.8.8", "[2001:db8::1]:80", "ollama:11435", "pi.lan", "ai.home.arpa:1", "x.internal", "studio.local."]
        {
            assert!(hosts.admits(host), "{host}");
            assert!(!hosts.has(host), "{host}");
        }
        for host in ["localhost", "herd.localhost", "studio", "herd.example:8443", "127.0.0.1"] {
            assert!(hosts.admits(host), "{host}");
        }
        for host in
            ["evil.example", "herd.example", "lan.evil.example", "localhost.evil.example", "evil.lan.example", "", "?"]
        {
            assert!(!hosts.admits(host), "{host}");
        }
    }

    #[test]
    fn names_that_a_proxy_passes_on_are_not_this_machines() {
        let hosts = hosts();
        for host in
            ["localhost:11435", "127.0.0.1", "[::1]:80", "0.0.0.0:1", "STUDIO", "studio.local:11435", "192.168.1.5"]
        {
            assert!(hosts.is_here(host), "{host}");
        }
        for host in ["herd.example:8443", "chat.example", "8.8.8.8", "other", "?"] {
            assert!(!hosts.is_here(host), "{host}");
        }
    }

    #[test]
    fn reads_are_refused_by_a_foreign_name_but_for_whoever_shows_a_key() {
        let check = |path: &str, trusted| {
            let request = http::Request::get(path).header(HOST, "evil.example:11435");
            let (parts, ()) = request.body(()).unwrap().into_parts();
            super::check(need_of("GET", path), &parts, &hosts(), trusted).err().map(|refusal| refusal.code())
        };
        for path in ["/fleet/status", "/api/tags", "/v1/models", "/dashboard"] {
            assert_eq!(check(path, Trust::Nothing), Some("foreign_host"), "{path}");
            assert_eq!(check(path, Trust::Host), None, "{path}");
            assert_eq!(check(path, Trust::Key), None, "{path}");
        }
        assert_eq!(check("/healthz", Trust::Nothing), None);
    }

    #[test]
    fn a_listener_on_all_interfaces_is_reached_by_any_address_but_by_no_other_name() {
        let hosts = Hosts::new(&["[::]:11435".parse().unwrap()], []);
        known(&hosts, &["192.168.1.6", "[fe80::1]:11435", "10.0.0.1:8080"], true);
        known(&hosts, &["evil.example", "192.168.1.6.evil.example"], false);
    }

    #[test]
    fn pages_of_other_sites_ask_no_models() {
        let hosts = Hosts::new(&["0.0.0.0:11435".parse().unwrap()], []).with_names(&["herd.example".to_owned()]);
        let rows = [
            ("http://localhost:3000", true),
            ("http://127.0.0.2", false),
            ("https://herd.example", true),
            ("vscode-webview://x", true),
            ("https://evil.example", false),
            ("http://203.0.113.5", false),
            ("http://localhost.evil.example", false),
            ("chrome-extension://x", false),
            ("null", false),
        ];
        for (origin, trusted) in rows {
            assert_eq!(hosts.trusts_page(origin), trusted, "{origin}");
        }
    }

    #[test]
    fn a_header_twice_is_none() {
        let request = http::Request::post("/fleet/pin").header(HOST, "localhost").header(HOST, "evil.example");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(check(Need::Change, &parts, &hosts(), Trust::Nothing).unwrap_err().code(), "foreign_host");
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
