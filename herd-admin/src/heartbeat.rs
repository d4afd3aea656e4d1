//! `POST /heartbeat`: where agents report. A heartbeat is hostile until the edge has accepted it.

use axum::extract::{Request, State};
use axum::response::Response;
use herd_core::access::{Denied, Need, Scope, Source};
use herd_core::fleet::{Condition, HeartbeatError, Sender};
use herd_core::name::NodeId;
use herd_core::wire::{Heartbeat, HeartbeatReply};
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::access::{refused, scheme};
use crate::answer::{JSON, json};
use crate::body;
use crate::caller::Caller;
use crate::join::{self, join_token_required, turned_away, unauthorized};
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::state::AdminState;

/// Takes one heartbeat. The answer never carries commands: an edge does not run things on nodes.
pub(crate) async fn heartbeat(
    State(state): State<AdminState>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let mut node_id = String::new();
    let taken = take(&state, caller, request, &mut node_id).await;
    match &taken {
        Ok(_) => state.joins().accepted(caller.ip, &node_id),
        Err(refusal) => turned_away(&state, caller, &node_id, refusal),
    }
    taken
}

/// Takes a heartbeat; `node_id` is the node's name as soon as that is known.
async fn take(state: &AdminState, caller: Caller, request: Request, node_id: &mut String) -> Result<Response, Refusal> {
    let config = state.config();
    let (parts, body) = request.into_parts();
    let proof = join::proof(&parts.headers);
    let shows = if proof.is_some() { false } else { admit(&parts.headers, caller, state)? };
    let body = body::read(body, config.heartbeat_body_bytes, config.body_timeout).await?;
    if let Some(proof) = &proof {
        join::check(state, proof, &body)?;
    }
    let trusted = shows || proof.is_some();
    let heartbeat = parse(&body)?;
    if let Ok(id) = NodeId::new(&heartbeat.node_id) {
        id.as_str().clone_into(node_id);
    }
    let leaving = heartbeat.draining.then(|| heartbeat.node_id.clone());
    let networks = state.source().networks();
    let sender = Sender {
        ip: caller.ip,
        trusted,
        welcome: config.allow_public_nodes || networks.contains(caller.ip),
        here: networks.is_own(caller.ip) && caller.source != Source::Proxied,
        proxied: caller.source == Source::Proxied,
        edge_port: config.edge.map(|edge| edge.port()),
        to_be_verified: false,
    };
    let node_state = state.source().heartbeat(heartbeat, sender).map_err(|error| refusal(&error))?;
    let notice = notice(state, node_id);
    Ok(json(StatusCode::OK, JSON, &reply(node_state, leaving, notice)))
}

/// What keeps the edge from using the node named `id`, although its agent is heard; `None` = nothing.
fn notice(state: &AdminState, id: &str) -> Option<String> {
    let view = state.view();
    let node = view.snapshot.node(id).filter(|node| !node.draining)?;
    let (address, port) = (node.address, node.address.port());
    match node.condition(view.now_ms, &view.policy.life) {
        Condition::ProbeFails => Some(format!(
            "the edge gets no answer from Ollama at {address}: start it with OLLAMA_HOST=0.0.0.0:{port}, and let the edge \
             through the firewall"
        )),
        Condition::NotOllama => Some(format!(
            "what answers the edge at {address} is not an Ollama (/api/version): give the agent Ollama's own address \
             (--ollama-url, usually port 11434)"
        )),
        Condition::SameOllama => {
            let first = node.same_ollama_as.as_ref().map(ToString::to_string).unwrap_or_default();
            Some(format!(
                "node {first} reports the same Ollama at {address}; requests go there: stop one of the two agents"
            ))
        }
        _ => None,
    }
}

/// Whether the sender is trusted, decided before its body is read.
fn admit(headers: &HeaderMap, caller: Caller, state: &AdminState) -> Result<bool, Refusal> {
    let (config, keys) = (state.config(), state.keys());
    let token = headers.get(AUTHORIZATION).and_then(|value| scheme(value.as_bytes(), b"Bearer "));
    let shows = |secret: &Option<Secret>| secret.as_ref().zip(token).is_some_and(|(secret, shown)| secret.is(shown));
    if shows(&config.join_token) {
        return Ok(true);
    }
    let key = keys.check(Need::Node, caller.source, headers);
    if matches!(key, Ok(Some(_))) {
        return Ok(true);
    }
    let guarded = config.join_token.is_some() || keys.posture().asks_for_key(Need::Node, Source::Local);
    if shows(&config.own_agent) {
        // The operator has told this process where its Ollama is.
        return Ok(true);
    }
    match key {
        Err(Denied::Proxied(_) | Denied::Missing(Scope::Node)) if caller.source == Source::Proxied => {
            Err(unauthorized(
                "a heartbeat that comes through a proxy needs the edge's fleet.join_token, or a key of the scope node: set \
                 join_token on the agent",
            ))
        }
        Err(denied) => Err(refused(denied, "/heartbeat")),
        Ok(_) if guarded => Err(join_token_required()),
        Ok(_) => Ok(false),
    }
}

fn parse(body: &[u8]) -> Result<Heartbeat, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request("invalid_json", format!("not a heartbeat: {}", body::json_error(&error))))
}

fn reply(node_state: &str, leaving: Option<String>, notice: Option<String>) -> HeartbeatReply {
    match leaving {
        Some(node_id) => {
            HeartbeatReply { status: "draining".into(), node_status: None, node_id: Some(node_id), notice: None }
        }
        None => HeartbeatReply { status: "ok".into(), node_status: Some(node_state.into()), node_id: None, notice },
    }
}

/// What an agent can do about it is in the status: mend the report, ask the operator, wait.
fn refusal(error: &HeartbeatError) -> Refusal {
    use HeartbeatError as Error;
    let status = match error {
        Error::NodeId(_) | Error::Number(_) | Error::TooMuch { .. } | Error::NoOllama => StatusCode::BAD_REQUEST,
        Error::Source(_) | Error::NotYours | Error::Elsewhere { .. } | Error::Behind(_) | Error::Itself(_) => {
            StatusCode::FORBIDDEN
        }
        Error::Taken { .. } | Error::Stale { .. } | Error::Ahead { .. } => StatusCode::CONFLICT,
        Error::Full(_) | Error::Crowded { .. } | Error::Models(_) => StatusCode::TOO_MANY_REQUESTS,
    };
    let refusal = Refusal::new(status, error.code(), error.to_string());
    if status == StatusCode::TOO_MANY_REQUESTS {
        // A place is free when a silent node has been forgotten: no use in asking every five seconds.
        return refusal.with_header(RETRY_AFTER, HeaderValue::from_static("60"));
    }
    refusal
}
