//! `POST /heartbeat`: where agents report. A heartbeat is hostile until the edge has accepted it.

use axum::extract::{Request, State};
use axum::response::Response;
use herd_core::access::Need;
use herd_core::fleet::{HeartbeatError, Sender};
use herd_core::wire::{Heartbeat, HeartbeatReply};
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::access::{refused, scheme};
use crate::answer::{JSON, json};
use crate::body;
use crate::caller::Caller;
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::state::AdminState;

/// Takes one heartbeat. The answer never carries commands: an edge does not run things on nodes.
pub(crate) async fn heartbeat(
    State(state): State<AdminState>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let config = state.config();
    let (parts, body) = request.into_parts();
    let trusted = admit(&parts.headers, caller, &state)?;
    let body = body::read(body, config.heartbeat_body_bytes, config.body_timeout).await?;
    let heartbeat = parse(&body)?;
    let leaving = heartbeat.draining.then(|| heartbeat.node_id.clone());
    let sender = Sender { ip: caller.ip, trusted, allow_public: config.allow_public_nodes };
    let node_state = state.source().heartbeat(heartbeat, sender).map_err(|error| refusal(&error))?;
    Ok(json(StatusCode::OK, JSON, &reply(node_state, leaving)))
}

/// Whether the sender is trusted, decided before its body is read.
fn admit(headers: &HeaderMap, caller: Caller, state: &AdminState) -> Result<bool, Refusal> {
    let (config, keys) = (state.config(), state.keys());
    let token = headers.get(AUTHORIZATION).and_then(|value| scheme(value.as_bytes(), b"Bearer "));
    let shows = |secret: &Option<Secret>| secret.as_ref().zip(token).is_some_and(|(secret, shown)| secret.is(shown));
    if shows(&config.join_token) {
        return Ok(true);
    }
    let key = keys.check(Need::Node, caller.is_local(), headers);
    if matches!(key, Ok(Some(_))) {
        return Ok(true);
    }
    let guarded = config.join_token.is_some() || keys.posture().asks_for_key(Need::Node, true);
    if shows(&config.own_agent) {
        // Where anybody may join, it is nobody special.
        return Ok(guarded);
    }
    match key {
        Err(denied) => Err(refused(denied, "/heartbeat")),
        Ok(_) if guarded => {
            let message = "a join token is required: Authorization: Bearer <token>";
            Err(Refusal::new(StatusCode::UNAUTHORIZED, "join_token", message)
                .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
        }
        Ok(_) => Ok(false),
    }
}

fn parse(body: &[u8]) -> Result<Heartbeat, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request("invalid_json", format!("not a heartbeat: {}", body::json_error(&error))))
}

fn reply(node_state: &str, leaving: Option<String>) -> HeartbeatReply {
    match leaving {
        Some(node_id) => HeartbeatReply { status: "draining".into(), node_status: None, node_id: Some(node_id) },
        None => HeartbeatReply { status: "ok".into(), node_status: Some(node_state.into()), node_id: None },
    }
}

/// What an agent can do about it is in the status: mend the report, ask the operator, wait.
fn refusal(error: &HeartbeatError) -> Refusal {
    let (status, code) = match error {
        HeartbeatError::NodeId(_) => (StatusCode::BAD_REQUEST, "node_id"),
        HeartbeatError::Number(_) => (StatusCode::BAD_REQUEST, "number"),
        HeartbeatError::TooMuch { .. } => (StatusCode::BAD_REQUEST, "too_much"),
        HeartbeatError::NoOllama => (StatusCode::BAD_REQUEST, "no_ollama"),
        HeartbeatError::Source(_) => (StatusCode::FORBIDDEN, "source"),
        HeartbeatError::NotYours => (StatusCode::FORBIDDEN, "not_yours"),
        HeartbeatError::Taken(_) => (StatusCode::CONFLICT, "taken"),
        HeartbeatError::Full(_) => (StatusCode::TOO_MANY_REQUESTS, "fleet_full"),
    };
    let refusal = Refusal::new(status, code, error.to_string());
    if status == StatusCode::TOO_MANY_REQUESTS {
        // A place is free when a silent node has been forgotten: no use in asking every five seconds.
        return refusal.with_header(RETRY_AFTER, HeaderValue::from_static("60"));
    }
    refusal
}
