//! The one gate before all routes: what a request needs, who it comes from, and whether that is enough.

use std::sync::Arc;

use axum::extract::{FromRequestParts as _, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use herd_core::access::{Denied, Need, need_of};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};

use super::audit::Actor;
use crate::caller::{Caller, told_apart};
use crate::guard::{self, Trust};
use crate::refusal::Refusal;
use crate::state::AdminState;

/// Lets a request through to its route, or refuses it. A change that gets through carries a [`guard::Operator`].
///
/// Heartbeats have a token besides keys, so their route asks for it.
pub(crate) async fn gate(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path();
    let need = need_of(parts.method.as_str(), path);
    if need == Need::Nothing {
        return next.run(Request::from_parts(parts, body)).await;
    }
    if need == Need::Node {
        return match guard::check(need, &parts, &state.config().hosts, Trust::Nothing) {
            Ok(()) => next.run(Request::from_parts(parts, body)).await,
            Err(refusal) => refusal.into_response(),
        };
    }
    let caller = match Caller::from_request_parts(&mut parts, &state).await {
        Ok(caller) if state.keys().posture().favours_local(need) => {
            told_apart(caller, &parts, state.config().local_users).await
        }
        Ok(caller) => caller,
        Err(refusal) => return refusal.into_response(),
    };
    let path = parts.uri.path();
    let key = match state.keys().check(need, caller.source, &parts.headers) {
        Ok(key) => key,
        Err(denied) => return refused(denied, path).into_response(),
    };
    let trusted = match &key {
        Some(_) => Trust::Key,
        None if caller.via_edge || guard::is_forwarded(&parts.headers) => Trust::Host,
        None => Trust::Nothing,
    };
    if let Err(refusal) = guard::check(need, &parts, &state.config().hosts, trusted) {
        return refusal.into_response();
    }
    if need == Need::Change {
        let key = key.map(|key| (Arc::clone(&key.id), Arc::clone(&key.name)));
        parts.extensions.insert(guard::Operator { caller, actor: Actor { ip: Some(caller.ip), key } });
    }
    next.run(Request::from_parts(parts, body)).await
}

/// What a denied request is told.
pub(crate) fn refused(denied: Denied, path: &str) -> Refusal {
    let status = StatusCode::from_u16(denied.status()).unwrap_or(StatusCode::FORBIDDEN);
    let refusal = Refusal::new(status, denied.code(), denied.to_string());
    if status != StatusCode::UNAUTHORIZED {
        return refusal;
    }
    // Only pages are for browsers, which ask their user for a password then: the key, under any name.
    let pages = path.strip_prefix("/dashboard").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let challenge = if pages { "Basic realm=\"herd\", charset=\"UTF-8\"" } else { "Bearer realm=\"herd\"" };
    refusal.with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}
