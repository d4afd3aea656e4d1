//! How a request ends: what the client is told when its answer does not, and what is kept of it.

use herd_core::answer::Observer;
use herd_core::exchange::{Action, Client, Event};
use pingora::Error;
use pingora_proxy::Session;

use super::adapter::{client_event, is_clients, renew};
use super::ctx::{Inference, RequestCtx};
use super::{Edge, error};
use crate::trace::Trace;

impl Edge {
    /// Tells the client that its request has failed, in whatever way is left; returns the status for the log.
    pub(super) async fn tell_failure(&self, session: &mut Session, error: &Error, ctx: &mut RequestCtx) -> u16 {
        self.settle(error, ctx);
        // Pingora closes the connection of a request that failed, and the client must hear of that.
        let reply = ctx.reply.take().unwrap_or_else(|| error::reply(error)).closing();
        let client = match &mut ctx.inference {
            // There is nobody to be told.
            Some(inference) if inference.life.lock().client_is_gone() => return reply.status,
            None if is_clients(error) => return reply.status,
            None if session.response_written().is_some() => Client::Answer,
            None => Client::Nothing,
            // Its head was to be passed on, and the answer broke off before it was.
            Some(inference) if session.response_written().is_none() => {
                inference.life.lock().answered_instead(reply.status);
                Client::Nothing
            }
            Some(inference) => inference.life.lock().client(),
        };
        let sent = match client {
            Client::Nothing => {
                let limits = self.config.now().limits;
                match renew(session, &ctx.connection, &limits).await {
                    Ok(()) => reply.send(session, ctx.dialect, &ctx.request_id, &ctx.fleet_headers()).await,
                    Err(error) => Err(error),
                }
            }
            Client::Head | Client::Answer => {
                let words = ctx.inference.as_mut().and_then(|inference| last_words(inference, &reply.message));
                match words {
                    Some(words) => session.write_response_body(Some(words.into()), true).await,
                    None => Ok(()),
                }
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "client disconnected before its error was sent");
        }
        reply.status
    }

    /// Tells the exchange of an error that it has not been told of.
    fn settle(&self, error: &Error, ctx: &mut RequestCtx) {
        let Some(inference) = &mut ctx.inference else { return };
        self.observe(inference);
        let event = if is_clients(error) { client_event(error) } else { Event::Broke { reused: false } };
        if let Action::Refuse(refusal) = self.step(inference, event) {
            self.refuse(ctx, &refusal);
        }
    }

    /// Keeps what was seen of an answer that will not be read further.
    fn observe(&self, inference: &mut Inference) {
        let per_piece = inference.tokens_per_piece();
        if let Some(seen) = inference.answer.as_ref().and_then(|answer| answer.seen(per_piece)) {
            drop(self.step(inference, Event::Observed(seen)));
        }
    }

    /// Notes how a request ended.
    pub(super) fn note_end(&self, inference: &mut Inference, error: Option<&Error>) {
        if error.is_none() {
            drop(self.step(inference, Event::Delivered));
        }
        let tokens = inference.life.lock().record().counts.completion_tokens;
        if let (Some(key), Some(tokens)) = (&inference.key, tokens) {
            key.charge_answer(tokens, self.fleet.now_ms());
        }
        drop(self.step(inference, Event::Dropped));
    }
}

impl Drop for Inference {
    fn drop(&mut self) {
        let record = self.life.lock().abort();
        Trace::conclude(&mut self.trace, record);
    }
}

/// What ends a body that has begun, so that the client sees an error in its protocol's own form; `None` = the broken
/// connection tells.
fn last_words(inference: &mut Inference, message: &str) -> Option<Vec<u8>> {
    if let Some(answer) = &mut inference.answer {
        let epilogue = answer.epilogue(message)?;
        let mut words = answer.take_rest();
        words.extend(epilogue);
        return Some(words);
    }
    Observer::new(inference.profile.surface, true).epilogue(message)
}
