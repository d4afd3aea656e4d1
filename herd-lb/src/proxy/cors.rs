//! Web pages of other origins: which of them may use the models, and what their browsers are told (CORS).
//!
//! A page on the list may ask models and see the catalogue. Changes of the fleet are none of a foreign page's business:
//! their answers never name an origin, and the admin service refuses them besides.

use herd_admin::Page as From;
use herd_core::access::{Need, Source, need_of};
use herd_core::path::is_catalogue;
use herd_core::request::{COUNT_TOKENS_PATH, Surface};
use http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH, ORIGIN, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, Method};
use pingora_proxy::Session;

use super::Edge;
use super::ctx::RequestCtx;
use super::reply::Reply;

/// Methods that a page may use, as Ollama lists them.
const METHODS: &str = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS";
/// Headers that a page may send: Ollama's list, what Anthropic's and `OpenAI`'s libraries add, and herd's own.
const HEADERS: &str = "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,X-Api-Key,\
    OpenAI-Beta,OpenAI-Organization,OpenAI-Project,Idempotency-Key,\
    Anthropic-Version,Anthropic-Beta,Anthropic-Dangerous-Direct-Browser-Access,\
    X-Stainless-Arch,X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper,X-Stainless-Helper-Method,\
    X-Stainless-Lang,X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Read-Timeout,\
    X-Stainless-Retry-Count,X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout,\
    X-Request-Id,X-Herd-Tags,X-Fleet-Node,X-Fleet-Priority,X-Fleet-No-Fallback";
/// Further headers that one page may name: of the libraries of tomorrow.
const FURTHER_HEADERS_MAX: usize = 32;
/// How long a browser need not ask again, in seconds: Ollama's twelve hours.
const MAX_AGE_S: u32 = 43_200;

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");

/// The web page that a request comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// What is asked for is open to pages of other origins, so that the answer depends on where one is from.
    open: bool,
    /// The origin of one that may read the answer.
    origin: Option<String>,
}

impl Page {
    /// What its browser is told with the answer, whatever the answer is.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let vary = self.open.then(|| ("Vary", "Origin".to_owned()));
        let origin = self.origin.clone().map(|origin| ("Access-Control-Allow-Origin", origin));
        let exposed = self.origin.is_some().then(|| ("Access-Control-Expose-Headers", "*".to_owned()));
        [vary, origin, exposed].into_iter().flatten()
    }
}

impl Edge {
    /// Notes which page a request comes from, refuses those that may not use models, and answers a browser's question
    /// beforehand: that has no key, and needs none. Who may change or see the fleet is asked elsewhere.
    pub(super) fn admit_page(&self, session: &Session, ctx: &mut RequestCtx) -> Result<(), Reply> {
        let request = session.req_header();
        let headers = &request.headers;
        let before = request.method == Method::OPTIONS && headers.contains_key(ORIGIN);
        let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD).and_then(|method| method.to_str().ok());
        let method = if before { asked.unwrap_or("POST") } else { request.method.as_str() };
        let path = request.uri.path();
        // Beforehand it is the path that is open, as with Ollama; what the page then may do is asked when it does it.
        let catalogue = (before && is_catalogue(path)).then_some(Need::Catalogue);
        let Some(need) = open_need(method, path).or(catalogue) else { return Ok(()) };
        ctx.page.open = true;
        let trusted = match From::of(headers, &self.hosts) {
            From::None | From::Own => true,
            From::Foreign(Some(origin)) if self.hosts.trusts_page(origin) => {
                ctx.page.origin = Some(origin.to_owned());
                true
            }
            From::Foreign(Some(_)) => need == Need::Nothing && !before,
            // The admin service knows what a link or a picture may have.
            From::Linked | From::Foreign(None) => need != Need::Infer,
        };
        // A page cannot have a browser show a key of ours, so that who shows one is none.
        if !trusted && (before || !matches!(self.keys.check(need, Source::Network, headers), Ok(Some(_)))) {
            let message = "web pages of this site may not use the models (access.origins)";
            return Err(Reply::new(403, message).closing());
        }
        if before { Err(answer_before(headers)) } else { Ok(()) }
    }
}

/// What `method` on `path` needs, if pages of other origins may have it.
fn open_need(method: &str, path: &str) -> Option<Need> {
    if Surface::at(path).is_some() || path == COUNT_TOKENS_PATH {
        return Some(Need::Infer);
    }
    Some(need_of(method, path)).filter(|need| matches!(need, Need::Nothing | Need::Catalogue))
}

/// The answer to a browser that asks before it sends the request itself.
fn answer_before(headers: &HeaderMap) -> Reply {
    let reply = Reply::empty(204)
        .header("Access-Control-Allow-Methods", METHODS)
        .header("Access-Control-Allow-Headers", allowed_headers(headers))
        .header("Access-Control-Max-Age", MAX_AGE_S.to_string())
        .header("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
    let reply = if headers.contains_key(REQUEST_PRIVATE_NETWORK) {
        reply.header("Access-Control-Allow-Private-Network", "true")
    } else {
        reply
    };
    let has_body = headers.contains_key(TRANSFER_ENCODING) || headers.contains_key(CONTENT_LENGTH);
    if has_body { reply.closing() } else { reply }
}

/// The list, and what is asked for besides.
fn allowed_headers(headers: &HeaderMap) -> String {
    let asked = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|value| value.to_str().ok());
    let names = asked.flat_map(|value| value.split(',')).map(str::trim);
    let is_new = |name: &&str| !HEADERS.split(',').any(|known| known.eq_ignore_ascii_case(name));
    let names = names.filter(|name| HeaderName::from_bytes(name.as_bytes()).is_ok()).filter(is_new);
    let further: Vec<&str> = names.take(FURTHER_HEADERS_MAX).collect();
    std::iter::once(HEADERS).chain(further).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_the_catalogue_are_open_and_changes_are_not() {
        for (method, path) in [
            ("POST", "/api/chat"),
            ("GET", "/api/chat"),
            ("POST", "/v1/messages"),
            ("POST", "/v1/messages/count_tokens"),
            ("POST", "/v1/audio/transcriptions"),
            ("GET", "/api/status"),
            ("GET", "/v1/messages"),
            ("GET", "/v1/models"),
            ("GET", "/v1/models/tiny"),
            ("GET", "/api/tags"),
            ("HEAD", "/api/version"),
            ("POST", "/api/show"),
            ("GET", "/"),
        ] {
            assert!(open_need(method, path).is_some(), "{method} {path}");
        }
        for (method, path) in [
            ("POST", "/api/pull"),
            ("DELETE", "/api/delete"),
            ("POST", "/api/create"),
            ("POST", "/api/copy"),
            ("POST", "/api/push"),
            ("POST", "/api/blobs/sha256:00"),
            ("GET", "/fleet/status"),
            ("POST", "/fleet/explain"),
            ("GET", "/dashboard"),
            ("POST", "/dashboard/api/settings"),
            ("POST", "/heartbeat"),
            ("DELETE", "/api/tags"),
        ] {
            assert_eq!(open_need(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn headers_of_known_libraries_are_listed_and_others_may_be_named() {
        let asking = |value: &str| {
            let name = ACCESS_CONTROL_REQUEST_HEADERS;
            allowed_headers(&HeaderMap::from_iter([(name, value.parse().unwrap())]))
        };
        assert_eq!(asking("authorization, x-stainless-os,anthropic-version"), HEADERS);
        assert_eq!(asking("x-tomorrow, content-type"), format!("{HEADERS},x-tomorrow"));
        assert_eq!(asking("a b, é,,\"x\""), HEADERS);
        let many: Vec<String> = (0..40).map(|number| format!("x-{number}")).collect();
        assert_eq!(asking(&many.join(",")).split(',').count(), HEADERS.split(',').count() + FURTHER_HEADERS_MAX);
    }

    #[test]
    fn a_browser_hears_of_its_own_origin_alone() {
        let told = |page: Page| page.headers().map(|(name, _)| name).collect::<Vec<_>>();
        assert!(told(Page::default()).is_empty());
        assert_eq!(told(Page { open: true, origin: None }), ["Vary"]);
        let page = Page { open: true, origin: Some("http://localhost:3000".into()) };
        assert_eq!(told(page), ["Vary", "Access-Control-Allow-Origin", "Access-Control-Expose-Headers"]);
    }
}
