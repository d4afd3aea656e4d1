//! What a request is for, from its method and path alone; and who may ask the admin service for it.

use std::net::IpAddr;

use herd_core::access::Source;
use herd_core::request::{COUNT_TOKENS_PATH, Dialect, Surface};
use http::Method;

use crate::config::AdminExpose;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To a node.
    Inference(Surface),
    /// Answered here: how many tokens a request has.
    CountTokens,
    /// To the admin service.
    Admin,
    /// Nowhere.
    Refused(Refusal),
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 405: the path takes `POST` only.
    MethodNotAllowed,
    /// 403: not from there.
    Forbidden,
    /// 404: not on this port.
    NotFound,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The other end of the connection.
    pub client: Option<IpAddr>,
    /// What it counts as for its rights.
    pub source: Source,
    /// The client is in a network that is local (`fleet.networks`).
    pub on_lan: bool,
}

/// Decides where a request goes.
#[must_use]
pub fn route(method: &Method, path: &str, origin: Origin, expose: AdminExpose) -> Route {
    match Surface::at(path) {
        Some(surface) if method == Method::POST => Route::Inference(surface),
        // Anthropic clients probe with GET.
        Some(Surface::AnthropicMessages) if method == Method::GET => Route::Admin,
        None if path == COUNT_TOKENS_PATH && method == Method::POST => Route::CountTokens,
        Some(_) => Route::Refused(Refusal::MethodNotAllowed),
        None => admin(path, origin, expose),
    }
}

/// The form of errors on `path`.
#[must_use]
pub fn dialect(path: &str) -> Dialect {
    match Surface::at(path) {
        Some(surface) => surface.dialect(),
        None if path == COUNT_TOKENS_PATH => Dialect::Anthropic,
        None if path.starts_with("/v1/") => Dialect::OpenAi,
        None => Dialect::Ollama,
    }
}

/// Who may do what there is asked by the admin service, which is also reached without us; here it is only who reaches it.
fn admin(path: &str, origin: Origin, expose: AdminExpose) -> Route {
    // Scraped on the admin listener, which clients need not reach.
    if path == "/metrics" {
        return Route::Refused(Refusal::NotFound);
    }
    let guarded = ["/fleet", "/dashboard"].iter().any(|prefix| is_under(path, prefix));
    if !guarded {
        return Route::Admin;
    }
    let allowed = match expose {
        AdminExpose::Off => return Route::Refused(Refusal::NotFound),
        AdminExpose::Lan => origin.on_lan,
        AdminExpose::Local => origin.source == Source::Local,
    };
    if allowed { Route::Admin } else { Route::Refused(Refusal::Forbidden) }
}

fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use herd_core::network::Networks;

    use super::*;

    #[track_caller]
    fn check(method: &str, path: &str, address: &str, expose: AdminExpose, expected: Route) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let client: Option<IpAddr> = address.parse().ok();
        let on_lan = client.is_some_and(|ip| Networks::lan().contains(ip));
        let local = client.is_some_and(|ip: IpAddr| ip.to_canonical().is_loopback());
        let source = if local { Source::Local } else { Source::Network };
        let origin = Origin { client, source, on_lan };
        assert_eq!(route(&method, path, origin, expose), expected, "{method} {path} from {address}");
    }

    #[test]
    fn every_request_has_its_place() {
        use AdminExpose::{Lan, Local, Off};
        use Refusal::{Forbidden, MethodNotAllowed, NotFound};
        let (here, lan, far) = ("127.0.0.1", "192.168.1.7", "8.8.8.8");
        check("POST", "/api/chat", far, Off, Route::Inference(Surface::OllamaChat));
        check("GET", "/api/chat", here, Lan, Route::Refused(MethodNotAllowed));
        check("GET", "/v1/messages", here, Lan, Route::Admin);
        check("POST", "/v1/messages/count_tokens", far, Off, Route::CountTokens);
        check("GET", "/v1/messages/count_tokens", far, Off, Route::Admin);
        check("POST", "/v1/audio/transcriptions", far, Off, Route::Inference(Surface::OpenAiTranscriptions));
        check("DELETE", "/api/delete", far, Off, Route::Admin);
        check("HEAD", "/api/blobs/sha256:00", far, Off, Route::Admin);
        check("GET", "/api/tags", far, Off, Route::Admin);
        check("POST", "/heartbeat", lan, Lan, Route::Admin);
        check("GET", "/metrics", here, Lan, Route::Refused(NotFound));
        check("GET", "/fleet/status", lan, Lan, Route::Admin);
        check("GET", "/fleet/status", far, Lan, Route::Refused(Forbidden));
        check("GET", "/dashboard", "100.101.1.1", Lan, Route::Admin);
        check("GET", "/dashboard", "100.101.1.1", Local, Route::Refused(Forbidden));
        check("GET", "/fleet/status", lan, Local, Route::Refused(Forbidden));
        check("GET", "/fleet/status", here, Off, Route::Refused(NotFound));
        check("POST", "/fleet/explain", lan, Lan, Route::Admin);
        check("POST", "/fleet/nodes/a/drain", lan, Lan, Route::Admin);
        check("POST", "/fleet/nodes/a/drain", lan, Local, Route::Refused(Forbidden));
        check("POST", "/fleet/nodes/a/drain", far, Lan, Route::Refused(Forbidden));
        check("POST", "/fleet/nodes/a/drain", "::ffff:127.0.0.1", Lan, Route::Admin);
        check("GET", "/dashboard", lan, Lan, Route::Admin);
        check("GET", "/fleetwide", far, Lan, Route::Admin);
        check("GET", "/fleet/status", "unknown", Lan, Route::Refused(Forbidden));
    }

    #[test]
    fn a_proxy_on_this_machine_is_not_this_machine() {
        let origin = Origin { client: "127.0.0.1".parse().ok(), source: Source::Proxied, on_lan: true };
        let route = |expose| route(&Method::GET, "/fleet/status", origin, expose);
        assert_eq!(route(AdminExpose::Local), Route::Refused(Refusal::Forbidden));
        assert_eq!(route(AdminExpose::Lan), Route::Admin);
    }
}
