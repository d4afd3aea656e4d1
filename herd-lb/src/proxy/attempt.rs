//! From a request to a node that is asked: a slot at once, or after waiting for one.

use bytes::Bytes;
use herd_core::choice::Choice;
use herd_core::exchange::{Action, Event, Offer, Pulled, Refusal};
use herd_core::name::ModelName;
use herd_core::protect::{ContextAction, Protection};
use herd_core::splice::{Edit, splice};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use pingora_proxy::Session;

use super::adapter::{client_event, client_leaves, renew};
use super::ctx::{Inference, Outgoing, RequestCtx};
use super::pull::Unpulled;
use super::{Edge, error, refused};
use crate::dispatch::{Answer, Ask, Ticket};

/// Making a copy of a larger body than this leaves the worker thread to other requests.
const BLOCKING_SPLICE_BYTES: usize = 1 << 20;

impl Edge {
    /// Obtains a slot, however long that takes within the limits, and begins to ask its node.
    pub(super) async fn begin_attempt(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        // What an earlier node began to answer was held back, and is forgotten.
        renew(session, &ctx.connection, &self.config.now().limits).await?;
        let asked = inference_mut(ctx)?;
        (asked.answer, asked.held_answer) = (None, None);
        let mut left = None;
        let mut ticket = None;
        let mut action = self.step(inference(ctx)?, Event::Ready);
        loop {
            action = match action {
                Action::Seek(seek) => {
                    let ask = Ask { seek: *seek, request_id: ctx.request_id.as_str().into() };
                    self.seek(inference(ctx)?, ask, &mut ticket)
                }
                Action::Wait | Action::None => self.wait(session, inference(ctx)?, &mut ticket, &mut left).await,
                Action::Pull => {
                    let event = match self.pull_missing(session, ctx).await {
                        Ok(()) => Event::Pulled(Pulled::Done),
                        Err(Unpulled::Left(error)) => client_gone(error, &mut left),
                        Err(Unpulled::Failed(status, reply)) => {
                            let (http_status, message) = (reply.status, reply.message.clone());
                            ctx.reply = Some(reply);
                            Event::Pulled(Pulled::Failed { status, http_status, message })
                        }
                    };
                    self.step(inference(ctx)?, event)
                }
                Action::Ask => return self.ask(ctx).await,
                Action::Refuse(refusal) => {
                    self.refuse(ctx, &refusal);
                    return Err(refused("no node serves the request"));
                }
                // The client left; or something that no node was asked for is over.
                _ => return Err(left.unwrap_or_else(|| refused("the request is over"))),
            };
        }
    }

    fn seek(&self, inference: &Inference, ask: Ask, ticket: &mut Option<Ticket>) -> Action {
        *ticket = None;
        let offer = match self.driver.dispatcher.ask(ask) {
            Answer::Offer(offer) => offer,
            Answer::Waits(waits) => {
                let predicted_ms = waits.predicted_ms();
                *ticket = Some(waits);
                Offer::Queued { predicted_ms }
            }
        };
        self.step(inference, Event::Offered(offer))
    }

    /// Waits for the request's turn, its client's leaving, or the time at which the exchange goes on by itself.
    async fn wait(
        &self,
        session: &mut Session,
        inference: &Inference,
        ticket: &mut Option<Ticket>,
        left: &mut Option<Box<Error>>,
    ) -> Action {
        let ends_ms = self.wait_ends_ms(inference);
        let turn = async {
            match ticket {
                Some(ticket) => ticket.turn().await,
                None => std::future::pending().await,
            }
        };
        let over = async {
            match ends_ms {
                // By the edge's own clock: time that the process slept through was nobody's waiting.
                Some(at_ms) => self.fleet.until(at_ms).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            offer = turn => Event::Offered(offer),
            () = over => return self.wait_is_over(inference),
            error = client_leaves(session) => client_gone(error, left),
        };
        if matches!(event, Event::Offered(_)) {
            *ticket = None;
        }
        self.step(inference, event)
    }

    /// Makes the body for the node that was chosen, and asks it.
    async fn ask(&self, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        let request_id = ctx.request_id.clone();
        let asked = inference(ctx)?;
        let (address, alias) = {
            let exchange = asked.life.lock();
            let choice = exchange.chosen().ok_or_else(|| refused("no node was chosen"))?;
            self.warn_of_reload(&request_id, choice);
            (choice.node().address, self.aliases.wanted(choice))
        };
        let name = match alias {
            Some(alias) => self.aliases.ensure(alias).await,
            None => None,
        };
        let (name, edits) = {
            let exchange = asked.life.lock();
            let choice = exchange.chosen().ok_or_else(|| refused("no node was chosen"))?;
            let name: ModelName = name.unwrap_or_else(|| choice.model.clone());
            let edits = choice.edits(&asked.profile, &name);
            (name, edits)
        };
        let original = asked.held.as_ref().map(|held| held.bytes.clone()).unwrap_or_default();
        let body = spliced(original, edits).await;
        let length = body.len();
        let peer = self.peer(address, length);
        drop(self.step(asked, Event::Sent { name }));
        inference_mut(ctx)?.outgoing = Some(Outgoing { bytes: Some(body), length, address });
        Ok(Box::new(peer))
    }

    /// Keeps what the client will be told.
    pub(super) fn refuse(&self, ctx: &mut RequestCtx, refusal: &Refusal) {
        let Some(inference) = &mut ctx.inference else { return };
        if let Refusal::Nobody(nobody) | Refusal::ModelNotFound(nobody) = refusal {
            self.telemetry_of(&inference.marks).nobody(&nobody.0);
        }
        let reply = ctx.reply.take().unwrap_or_else(|| error::refusal(inference, refusal));
        inference.life.lock().told(&reply.message);
        ctx.reply = Some(reply);
    }

    /// In the mode `warn` a client's `num_ctx` is forwarded, and the operator is told what it does.
    fn warn_of_reload(&self, request_id: &str, choice: &Choice) {
        let plan = &choice.candidate.plan;
        let warns = self.fleet.policy().protection == Protection::Warn;
        if warns && plan.action == ContextAction::Reload {
            let (node_id, model) = (choice.node().id.as_str(), choice.model.as_str());
            tracing::warn!(request_id, node_id, model, num_ctx = plan.window, "num_ctx makes the model reload");
        }
    }
}

fn inference(ctx: &RequestCtx) -> Result<&Inference> {
    ctx.inference.as_deref().ok_or_else(|| refused("not an inference request"))
}

fn inference_mut(ctx: &mut RequestCtx) -> Result<&mut Inference> {
    ctx.inference.as_deref_mut().ok_or_else(|| refused("not an inference request"))
}

/// What the exchange is told of a client that is gone; `left` keeps the error for Pingora.
fn client_gone(error: Box<Error>, left: &mut Option<Box<Error>>) -> Event {
    let event = client_event(&error);
    *left = Some(error);
    event
}

/// The body as the node is to get it.
async fn spliced(original: Bytes, edits: Vec<Edit>) -> Bytes {
    if edits.is_empty() {
        return original;
    }
    if original.len() < BLOCKING_SPLICE_BYTES {
        return splice(&original, &edits).into();
    }
    let task = tokio::task::spawn_blocking(move || splice(&original, &edits).into());
    // It cannot fail but by a panic, and then the node refuses the request.
    task.await.unwrap_or_default()
}
