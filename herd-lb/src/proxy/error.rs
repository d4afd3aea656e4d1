//! Failures to what the client is told: the one mapping.

use herd_core::alias::is_alias;
use herd_core::decide::Decision;
use herd_core::explain::refusal;
use herd_core::fleet::FleetSnapshot;
use herd_core::name::nearest;
use herd_core::patience::GiveUp;
use herd_core::request::{Dialect, Surface};
use pingora::{Error, ErrorType};

use super::body::BodyError;
use super::ctx::Inference;
use super::reply::Reply;
use crate::trace::Status;

/// No node can serve the request: 503 with the reasons where a node has the model, else 404.
pub(super) fn nobody(inference: &Inference, decision: &Decision, snapshot: &FleetSnapshot) -> Reply {
    let model = &inference.profile.model;
    if snapshot.nodes.iter().any(|node| node.model(model).is_some()) {
        let why = refusal(decision, snapshot);
        return Reply::new(503, format!("no node can serve {model} now ({why})")).retry_after(1);
    }
    not_found(inference, snapshot, None)
}

/// No node has the model: 404 in Ollama's words, with the reason why it was not pulled, and the name that may have been
/// meant.
pub(super) fn not_found(inference: &Inference, snapshot: &FleetSnapshot, why: Option<&str>) -> Reply {
    let (profile, asked) = (&inference.profile, &inference.spelled);
    let mut message = match profile.surface {
        Surface::OllamaEmbed | Surface::OllamaEmbeddings => {
            format!("model \"{asked}\" not found, try pulling it first")
        }
        _ => format!("model '{asked}' not found"),
    };
    if let Some(why) = why {
        message = format!("{message} ({why})");
    }
    let models = snapshot.nodes.iter().flat_map(|node| &node.models).map(|model| &model.name);
    if let Some(name) = nearest(&profile.model, models.filter(|name| !is_alias(name))) {
        message = format!("{message}; did you mean {name}?");
    }
    Reply::new(404, message).param((profile.surface.dialect() == Dialect::OpenAi).then_some("model"))
}

/// The body could not be read.
pub(super) fn body(error: &BodyError) -> (Status, Reply) {
    let (status, message) = (Status::Rejected, error.to_string());
    match error {
        BodyError::TooLarge(_) | BodyError::TooDense(_) => (status, Reply::new(413, message).closing()),
        BodyError::TooSlow => (status, Reply::new(408, message).closing()),
        BodyError::Budget(_) => (status, Reply::new(503, message).retry_after(1).closing()),
        BodyError::Corrupt(_) => (status, Reply::new(400, message).closing()),
        BodyError::Client(error) if matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError) => {
            (Status::ClientDisconnected, Reply::new(400, "the request body broke off").closing())
        }
        BodyError::Client(_) => (status, Reply::new(400, "the request body is malformed").closing()),
    }
}

/// The edge takes no more requests, or no longer waits for this one.
pub(super) fn stopping() -> Reply {
    Reply::new(503, "herd is stopping; try again").retry_after(1).closing()
}

/// The last node failed without an answer.
pub(super) fn reply(error: &Error, gave_up: Option<GiveUp>) -> Reply {
    match error.etype() {
        _ if gave_up == Some(GiveUp::Stopping) => stopping(),
        _ if gave_up.is_some() => silent(),
        ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout => silent(),
        ErrorType::HTTPStatus(status) => Reply::new(*status, format!("the node answered with status {status}")),
        _ => Reply::new(502, "the node could not be reached or broke off"),
    }
}

/// The last node was silent for too long.
pub(super) fn silent() -> Reply {
    Reply::new(504, "the node did not answer in time")
}
