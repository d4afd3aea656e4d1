//! API keys of inference requests: whether one comes in, what it counts against, and that no node sees its key.

use std::sync::Arc;

use herd_admin::access::{Key, Keys};
use herd_core::access::meter::{Exceeded, InFlight};
use herd_core::access::{Need, Source};
use herd_core::request::RequestProfile;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName};
use pingora::http::RequestHeader;
use pingora_proxy::Session;

use super::Edge;
use super::marks::Marks;
use super::reply::Reply;
use crate::trace::Trace;

/// A key that a request has shown, and its place among the key's requests until this is dropped.
#[derive(Debug)]
pub struct KeyUse {
    key: Arc<Key>,
    _in_flight: InFlight,
}

impl KeyUse {
    /// The key's name in logs.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.key.id
    }

    /// Takes the estimated tokens of the prompt's text.
    pub(super) fn take_prompt(&self, profile: &RequestProfile, now_ms: u64) -> Result<(), Reply> {
        self.key.meter.take_prompt(profile.text_tokens(), now_ms).map_err(told)
    }

    /// Charges the tokens of the answer, once they are known: at the request's end.
    pub fn charge_answer(&self, completion_tokens: u64, now_ms: u64) {
        self.key.meter.charge_answer(completion_tokens, now_ms);
    }
}

impl Edge {
    /// Lets an inference request in by its header alone, before anything of its body is read.
    pub(super) fn enter(&self, session: &Session, marks: &Marks, trace: &mut Trace) -> Result<Option<KeyUse>, Reply> {
        if marks.benchmark {
            // The edge's secret has let it in, which is on an operator's word.
            return Ok(None);
        }
        let key = self.use_key(&session.req_header().headers)?;
        if let Some(key) = &key {
            key.id().clone_into(&mut trace.key_id);
        }
        Ok(key)
    }

    /// The key that `headers` show, if one is needed, with a place among its requests.
    pub(super) fn use_key(&self, headers: &HeaderMap) -> Result<Option<KeyUse>, Reply> {
        // Where it comes from makes no difference to inference.
        let key = self.keys.check(Need::Infer, Source::Network, headers);
        let key = key.map_err(|denied| Reply::new(denied.status(), denied.to_string()).closing())?;
        let Some(key) = key else { return Ok(None) };
        let in_flight = key.meter.admit(self.fleet.now_ms()).map_err(|why| told(why).closing())?;
        Ok(Some(KeyUse { key, _in_flight: in_flight }))
    }
}

fn told(why: Exceeded) -> Reply {
    Reply::new(429, why.to_string()).retry_after_ms(why.wait_ms() as f64)
}

/// Headers by which clients prove who they are, to herd or to what they take it for.
const CREDENTIALS: [HeaderName; 5] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("x-api-key"),
    // As Azure's clients show theirs.
    HeaderName::from_static("api-key"),
];

/// Takes what a client proves itself with out of what a node gets: nodes are machines of a network, and Ollama asks for
/// none. Where the operator `forwards` authorization, as to a proxy with keys of its own before each Ollama, keys of
/// herd's own stay here all the same.
pub(super) fn take_credentials_out(request: &mut RequestHeader, forwards: bool) {
    let forwards = forwards && !Keys::any_in(&request.headers);
    for name in CREDENTIALS.iter().filter(|name| !(forwards && **name == AUTHORIZATION)) {
        request.remove_header(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn kept(forwards: bool, headers: &[(&str, &str)], expected: &[&str]) {
        let mut request = RequestHeader::build("POST", b"/api/chat", None).unwrap();
        for (name, value) in headers {
            request.append_header((*name).to_owned(), *value).unwrap();
        }
        take_credentials_out(&mut request, forwards);
        let names: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, expected, "{headers:?}");
    }

    #[test]
    fn no_node_sees_what_a_client_proves_itself_with() {
        let foreign = [("Authorization", "Bearer sk-1"), ("X-Api-Key", "sk-2"), ("Api-Key", "3"), ("Cookie", "a=b")];
        kept(false, &foreign, &[]);
        kept(true, &foreign, &["authorization"]);
        kept(true, &[("Authorization", "Basic eA=="), ("Authorization", "Bearer herd_1")], &[]);
        kept(true, &[("X-Api-Key", "x"), ("X-Api-Key", "herd_1"), ("Authorization", "Bearer sk-1")], &[]);
    }
}
