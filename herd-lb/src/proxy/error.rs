//! Failures to what the client is told: the one mapping.

use std::net::SocketAddr;

use herd_core::alias::is_alias;
use herd_core::decide::Decision;
use herd_core::exchange::Refusal;
use herd_core::explain;
use herd_core::fleet::FleetSnapshot;
use herd_core::name::nearest;
use herd_core::request::{Dialect, Surface};
use herd_core::vocabulary::Failure;
use pingora::{Error, ErrorType};

use super::body::BodyError;
use super::ctx::Inference;
use super::reply::Reply;
use crate::trace::Status;

/// Nodes have the model, and none can serve it now: 503 with the reasons.
fn nobody_serves(inference: &Inference, decision: &Decision, snapshot: &FleetSnapshot) -> Reply {
    let (model, why) = (&inference.profile.model, explain::refusal(decision, snapshot));
    Reply::new(503, format!("no node can serve {model} now ({why})")).retry_after(1)
}

/// No node has the model: 404 in Ollama's words, with the reason why it was not pulled, and the name that may have been
/// meant.
pub(super) fn not_found(inference: &Inference, snapshot: &FleetSnapshot, why: Option<&str>) -> Reply {
    let (profile, asked) = (&inference.profile, &inference.model_as_requested);
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

/// What the client is told of a request that is not served.
pub(super) fn refusal(inference: &Inference, refusal: &Refusal) -> Reply {
    let status = refusal.http_status();
    match refusal {
        Refusal::QueueFull(full, predicted_ms) => {
            Reply::new(status, format!("the queue is full: {full}")).retry_after_ms(*predicted_ms)
        }
        Refusal::QueueTimeout(predicted_ms) => {
            Reply::new(status, "no slot became free in time (queue.max_wait_ms)").retry_after_ms(*predicted_ms)
        }
        Refusal::Nobody(nobody) => nobody_serves(inference, &nobody.0, &nobody.1),
        Refusal::ModelNotFound(nobody) => not_found(inference, &nobody.1, None),
        Refusal::Overflow(overflow, model) => Reply::new(
            status,
            format!(
                "the prompt is estimated at {} tokens, and {model} has a context of {} (context.overflow)",
                overflow.estimated_tokens, overflow.context_length
            ),
        ),
        Refusal::PullFailed { message, .. } => Reply::new(status, message.clone()),
        Refusal::Failed(failure, address) => Reply::new(status, failed(*failure, *address)),
        Refusal::Status(code) => Reply::new(status, format!("the node answered with status {code}")),
        Refusal::Stopping => stopping(),
        Refusal::Cancelled => Reply::new(status, "the request was cancelled by an operator"),
    }
}

fn failed(failure: Failure, address: SocketAddr) -> String {
    match failure {
        Failure::ConnectRefused => format!("the node refused the connection to {address}"),
        Failure::ConnectTimeout => format!("no connection to the node at {address} was made in time"),
        Failure::NoFirstByte | Failure::NoProgress | Failure::NodeDead => "the node did not answer in time".to_owned(),
        Failure::TornAnswer => "the node broke off in the middle of the answer".to_owned(),
        _ => "the node could not be reached or broke off".to_owned(),
    }
}

/// What the client is told of an error that is not a node's.
pub(super) fn reply(error: &Error) -> Reply {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout => {
            Reply::new(504, "the admin service did not answer in time")
        }
        _ => Reply::new(502, "the request could not be carried out"),
    }
}
