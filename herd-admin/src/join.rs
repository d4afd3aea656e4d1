//! Proofs of the join token: `POST /heartbeat/challenge`, by which an edge shows an agent that it knows the agent's token,
//! and the proofs that heartbeats carry then. See [`herd_core::join`].

use axum::extract::{Request, State};
use axum::response::Response;
use herd_core::access::Need;
use herd_core::join::{self, Challenges, JoinSecret, SCHEME};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::access::scheme;
use crate::answer::{JSON, json};
use crate::body;
use crate::caller::Caller;
use crate::refusal::Refusal;
use crate::state::AdminState;

/// Two numbers in hexadecimal, and their names.
const BODY_BYTES: usize = 1 << 10;

#[derive(Deserialize)]
struct Asked {
    nonce: String,
    hint: String,
}

#[derive(Serialize)]
struct Shown {
    nonce: String,
    proof: String,
    valid_ms: u64,
}

#[derive(Serialize)]
struct Open {
    open: bool,
}

/// Shows an agent that this edge knows the token whose hint the agent gives, and nothing to anybody else.
pub(crate) async fn challenge(
    State(state): State<AdminState>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let shown = show(&state, caller, request).await;
    if let Err(refusal) = &shown {
        turned_away(&state, caller, "", refusal);
    }
    shown
}

async fn show(state: &AdminState, caller: Caller, request: Request) -> Result<Response, Refusal> {
    let body = body::read(request.into_body(), BODY_BYTES, state.config().body_timeout).await?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        Refusal::bad_request("invalid_json", format!("not a challenge: {}", body::json_error(&error)))
    })?;
    let (Some(agent), Some(hint)) = (join::unhex(&asked.nonce), join::unhex(&asked.hint)) else {
        return Err(Refusal::bad_request("invalid_json", "nonce and hint are 64 hexadecimal digits each"));
    };
    let Some(secret) = secrets(state).find(|secret| secret.is_hinted(&hint, &agent)) else {
        // Who takes every agent need not know each one's token.
        return if is_open(state, caller) {
            Ok(json(StatusCode::OK, JSON, &Open { open: true }))
        } else {
            Err(wrong_token())
        };
    };
    let salt = random()?;
    let edge = state.challenges().make(&agent, state.source().now_ms(), salt);
    let proof = join::hex(&secret.edge_proof(&agent, &edge));
    Ok(json(StatusCode::OK, JSON, &Shown { nonce: join::hex(&edge), proof, valid_ms: Challenges::VALID_MS }))
}

/// Whether an agent needs no token.
fn is_open(state: &AdminState, caller: Caller) -> bool {
    state.config().join_token.is_none() && !state.keys().posture().asks_for_key(Need::Node, caller.source)
}

fn wrong_token() -> Refusal {
    unauthorized(
        "the agent's join token is not this edge's: compare fleet.join_token (FLEET_JOIN_TOKEN) there with the agent's \
         (FLEET_JOIN_TOKEN, --join-token)",
    )
}

fn random() -> Result<[u8; 8], Refusal> {
    let mut salt = [0; 8];
    getrandom::fill(&mut salt).map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "random", format!("the system has no random numbers: {error}"))
    })?;
    Ok(salt)
}

/// The proof that `headers` carry, if they carry one.
pub(crate) fn proof(headers: &HeaderMap) -> Option<String> {
    let shown = headers.get(AUTHORIZATION).and_then(|value| scheme(value.as_bytes(), SCHEME.as_bytes()))?;
    Some(String::from_utf8_lossy(shown).into_owned())
}

/// Checks the `proof` of a heartbeat with these bytes.
///
/// # Errors
/// When its challenge is not one of ours, or too old: then the agent asks for another. When it is not the proof of a token
/// that we know.
pub(crate) fn check(state: &AdminState, proof: &str, heartbeat: &[u8]) -> Result<(), Refusal> {
    let (agent, edge, proof) = join::parse(proof)
        .ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, "challenge", "the proof cannot be read"))?;
    if !state.challenges().is_good(&agent, &edge, state.source().now_ms()) {
        let message = "the challenge is not one of this edge's, or too old: ask for another";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "challenge", message));
    }
    let is_known = secrets(state).any(|secret| secret.is_agent(&proof, &agent, &edge, heartbeat));
    if is_known { Ok(()) } else { Err(wrong_token()) }
}

/// All tokens that agents may show.
fn secrets(state: &AdminState) -> impl Iterator<Item = JoinSecret> {
    let config = state.config();
    let tokens = [&config.join_token, &config.own_agent];
    let tokens: Vec<_> = tokens.into_iter().flatten().map(crate::secret::Secret::for_joining).collect();
    tokens.into_iter().chain(state.keys().for_joining())
}

/// Says who was turned away and why, where an operator looks.
pub(crate) fn turned_away(state: &AdminState, caller: Caller, node_id: &str, refusal: &Refusal) {
    let (code, message) = (refusal.code(), refusal.message());
    if state.joins().refused(caller.ip, code, node_id, message, state.source().now_ms()) {
        tracing::warn!(node_id, address = %caller.ip, code, reason = message, "an agent is turned away");
    }
}

/// What an agent is told that does not show the token.
pub(crate) fn join_token_required() -> Refusal {
    unauthorized(
        "a join token is required: give the agent the edge's fleet.join_token (FLEET_JOIN_TOKEN, --join-token) or a key of \
         the scope node",
    )
}

/// What an agent is told whose word does not do.
pub(crate) fn unauthorized(message: &'static str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "join_token", message)
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}
