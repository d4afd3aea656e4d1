//! Pingora's peculiarities, as far as one request meets them. Nowhere else is any of this known.
//!
//! - **Retries** are asked for by an error whose `retry` is set, in whatever phase it occurs; then `upstream_peer` is
//!   called again. An error that was raised here comes back through `error_while_proxy`, where the exchange already
//!   knows better. `Error::retry` must not be asked while undecided: it panics.
//! - **The head of an answer** is written before its body has come. What is written is held back at the connection
//!   ([`crate::connection::Connection::hold_output`]); if it is not to be sent after all, the session still believes that
//!   it was, and is built anew ([`renew`]).
//! - **The client** is read from while a node is waited for, which is how its leaving is noticed, and how the waiting is
//!   ended from this side ([`crate::watch`]): such an end looks like the client's doing.
//! - **The body** of a request is sent again only from a buffer of 64 KiB; see [`super::body`].

use herd_core::exchange::{Action, ConnectError, Event};
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use super::Edge;
use super::body::{BodyError, rebuild};
use super::ctx::RequestCtx;
use crate::config::Limits;
use crate::connection::Connection;

/// Resolves when the client leaves, or violates the protocol; while a request waits, nothing else reads from it.
pub(super) async fn client_leaves(session: &mut Session) -> Box<Error> {
    loop {
        match session.downstream_session.read_body_or_idle(true).await {
            Ok(_) => {}
            Err(error) => return error.into_down(),
        }
    }
}

/// Whether `error` is the client's doing: it left, or violated the protocol.
pub(super) fn is_clients(error: &Error) -> bool {
    *error.esource() == ErrorSource::Downstream
}

/// Whether the client violated the protocol: it is still there, and sent what it may not.
pub(super) fn was_violated(error: &Error) -> bool {
    // What Pingora says of bytes behind the end of a body.
    matches!(error.etype(), ErrorType::ConnectError | ErrorType::InvalidHTTPHeader)
}

/// What the exchange is told of a client's error.
pub(super) fn client_event(error: &Error) -> Event {
    if was_violated(error) { Event::ClientViolated } else { Event::ClientLeft }
}

pub(super) fn connect_error(error: &Error) -> ConnectError {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => ConnectError::TimedOut,
        _ => ConnectError::Refused,
    }
}

/// Makes `session` one to which nothing has been written, if what was written has been held back.
pub(super) async fn renew(session: &mut Session, connection: &Connection, limits: &Limits) -> Result<()> {
    let held = connection.holds_output();
    connection.discard_output();
    if !held || session.response_written().is_none() {
        return Ok(());
    }
    rebuild(session).await.map_err(|error| match error {
        BodyError::Client(error) => error,
        error => Error::explain(ErrorType::InternalError, error.to_string()),
    })?;
    session.set_write_timeout(Some(limits.write_time));
    session.set_ignore_info_resp(true);
    Ok(())
}

impl Edge {
    /// Whether another node is asked after no connection was made.
    pub(super) fn retry_after_connect(&self, ctx: &mut RequestCtx, error: &Error) -> bool {
        let Some(inference) = &ctx.inference else { return false };
        let action = self.step(inference, Event::Unconnected(connect_error(error)));
        self.retries(ctx, &action)
    }

    /// Whether another node is asked after `error` ended an attempt on a connection that was `reused`.
    pub(super) fn retry_after_error(&self, ctx: &mut RequestCtx, error: &Error, reused: bool) -> bool {
        let Some(inference) = &ctx.inference else { return false };
        let (judged, abandoned) = {
            let exchange = inference.life.lock();
            (exchange.wants_node(), exchange.is_abandoning())
        };
        if judged {
            return true;
        }
        // The end of a wait from this side looks like the client's doing; the client's own is told later.
        if !abandoned && (is_clients(error) || *error.etype() == ErrorType::InternalError) {
            return false;
        }
        let action = self.step(inference, Event::Broke { reused });
        self.retries(ctx, &action)
    }

    fn retries(&self, ctx: &mut RequestCtx, action: &Action) -> bool {
        if let Action::Refuse(refusal) = action {
            self.refuse(ctx, refusal);
        }
        matches!(action, Action::Retry)
    }
}
