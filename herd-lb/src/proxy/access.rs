//! API keys of inference requests: whether one comes in, what it counts against, and that no node sees its key.

use std::sync::Arc;

use herd_admin::access::{Key, Keys};
use herd_core::access::Need;
use herd_core::access::meter::{Exceeded, InFlight};
use herd_core::request::RequestProfile;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use pingora::http::RequestHeader;
use pingora_proxy::Session;

use super::Edge;
use super::ctx::RequestCtx;
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
        let key = self.keys.check(Need::Infer, false, headers);
        let key = key.map_err(|denied| Reply::new(denied.status(), denied.to_string()).closing())?;
        let Some(key) = key else { return Ok(None) };
        let in_flight = key.meter.admit(self.fleet.now_ms()).map_err(|why| told(why).closing())?;
        Ok(Some(KeyUse { key, _in_flight: in_flight }))
    }
}

fn told(why: Exceeded) -> Reply {
    Reply::new(429, why.to_string()).retry_after_ms(why.wait_ms() as f64)
}

/// Takes keys of ours out of what a node gets. Others are the client's business with it, as where a proxy stands before
/// Ollama.
pub(super) fn take_keys_out(request: &mut RequestHeader, ctx: &RequestCtx) {
    let shown = ctx.inference.as_ref().is_some_and(|inference| inference.key.is_some());
    if shown || Keys::any_in(&request.headers) {
        request.remove_header(&AUTHORIZATION);
        request.remove_header("X-Api-Key");
    }
}
