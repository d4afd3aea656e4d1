//! From a request to a node that is asked: a slot at once, or after waiting for one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use herd_core::decide::Decision;
use herd_core::fleet::{Condition, FleetSnapshot};
use herd_core::name::ModelName;
use herd_core::patience::{Evidence, GiveUp, Verdict, Watch, evidence};
use herd_core::protect::{ContextAction, Protection, overflow};
use herd_core::splice::splice;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use pingora_proxy::Session;
use tokio::time::Instant;

use super::ctx::{Inference, RequestCtx};
use super::reply::Reply;
use super::{Edge, error, refused};
use crate::dispatch::{Answer, Ask, Handed, Ticket};
use crate::selector::Choice;
use crate::telemetry::{Chosen, QueueRefusal};
use crate::trace::Status;

/// Making a copy of a larger body than this leaves the worker thread to other requests.
const BLOCKING_SPLICE_BYTES: usize = 1 << 20;
/// Pause before nodes that were not reached are asked again.
const UNREACHED_PAUSE: Duration = Duration::from_millis(250);

impl Edge {
    /// Chooses a node, waits for one of its slots where there is none free, and begins to ask it.
    pub(super) async fn begin_attempt(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        let next = ctx.inference.as_mut().and_then(|inference| Some((inference.next.take()?, &inference.marks)));
        let choice = match next {
            Some((choice, marks)) => {
                self.telemetry_of(marks).chosen(Chosen::Retry);
                *choice
            }
            None => *self.obtain(session, ctx).await?,
        };
        self.refuse_overflow(&choice, ctx)?;
        self.warn_of_reload(&ctx.request_id, &choice);
        let address = choice.node().address;
        let Some(inference) = &mut ctx.inference else { return Err(refused("not an inference request")) };
        let name = self.aliases.name_for(&choice).await;
        let body = body_for(&choice, inference, &name).await;
        inference.begin_attempt(choice, name, body);
        self.watch(ctx);
        let attempt = ctx.inference.as_ref().and_then(|inference| inference.attempt.as_ref());
        Ok(Box::new(self.peer(address, attempt.map_or(0, |attempt| attempt.body_bytes))))
    }

    /// A claimed slot, however long it takes within the limits.
    async fn obtain(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<Choice>> {
        let began = Instant::now();
        // What the last attempt was watched for is over, however it ended.
        ctx.connection.awaited().end();
        let outcome = self.wait_for_slot(session, ctx).await;
        if let Some(inference) = &mut ctx.inference {
            let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            inference.trace.waited(waited_ms as f64);
        }
        match outcome {
            Ok(choice) => Ok(choice),
            Err(Unserved::Left(error)) => Err(error),
            Err(Unserved::Refused(status, reply)) => {
                if let Some(inference) = &mut ctx.inference {
                    let asked = !inference.trace.attempts.is_empty();
                    inference.end(if asked { Status::Failed } else { status }, &reply.message);
                }
                ctx.reply = Some(reply);
                Err(refused("no node serves the request"))
            }
        }
    }

    async fn wait_for_slot(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<Choice>, Unserved> {
        let deadline_ms = self.fleet.now_ms().saturating_add(self.config.now().queue.max_wait_ms);
        let request_id: Arc<str> = ctx.request_id.as_str().into();
        loop {
            let Some(inference) = &mut ctx.inference else { return Err(Unserved::Left(refused("not inference"))) };
            self.pause_for_unreached(session, inference).await?;
            let awaits_unreached = self.awaits_unreached(inference);
            let ask = Ask { awaits_unreached, ..ask(inference, &request_id) };
            let answer = match self.dispatcher.ask(ask) {
                Answer::Waits(ticket) => {
                    inference.trace.predicted_ms.get_or_insert(ticket.predicted_ms());
                    self.wait(session, inference, ticket, deadline_ms).await?
                }
                Answer::Chosen(choice) if inference.marks.forbid(&choice) => {
                    inference.tried.push(choice.node().number);
                    continue;
                }
                Answer::Chosen(choice) => {
                    self.telemetry_of(&inference.marks).chosen(Chosen::AtOnce);
                    return Ok(choice);
                }
                Answer::Nobody(nobody) => Handed::Nobody(nobody),
                Answer::Refused(full, predicted_ms) => {
                    self.telemetry_of(&inference.marks).queue_refused(QueueRefusal::Full);
                    let reply = Reply::new(503, format!("the queue is full: {full}")).retry_after_ms(predicted_ms);
                    return Err(Unserved::Refused(Status::Rejected, reply));
                }
            };
            let nobody = match answer {
                Handed::Chosen(choice) if inference.marks.forbid(&choice) => {
                    inference.tried.push(choice.node().number);
                    continue;
                }
                Handed::Chosen(choice) => {
                    self.telemetry_of(&inference.marks).chosen(Chosen::Waited);
                    return Ok(choice);
                }
                Handed::Nobody(nobody) => nobody,
            };
            let measures = inference.marks.benchmark;
            if !measures && self.may_ask_again(inference) {
                continue;
            }
            if measures || !inference.trace.attempts.is_empty() || self.is_known(&inference.profile.model) {
                self.telemetry_of(&inference.marks).nobody(&nobody.0);
                return Err(unserved(inference, &nobody));
            }
            self.pull_missing(session, ctx).await?;
        }
    }

    /// Waits for the turn of `ticket`, the client's leaving, or the deadline, whichever is first.
    async fn wait(
        &self,
        session: &mut Session,
        inference: &mut Inference,
        mut ticket: Ticket,
        deadline_ms: u64,
    ) -> Result<Handed, Unserved> {
        let turn = tokio::select! {
            biased;
            turn = ticket.turn() => Some(turn),
            // By the edge's own clock: time that the process slept through was nobody's waiting.
            () = self.fleet.until(deadline_ms) => None,
            left = client_leaves(session) => return Err(Unserved::Left(left)),
        };
        match turn {
            Some(Some(handed)) => Ok(handed),
            Some(None) => Err(Unserved::Refused(Status::Rejected, error::stopping())),
            None => {
                self.telemetry_of(&inference.marks).queue_refused(QueueRefusal::Timeout);
                let message = "no slot became free in time (queue.max_wait_ms)";
                let reply = Reply::new(503, message).retry_after_ms(ticket.predicted_ms());
                Err(Unserved::Refused(Status::Rejected, reply))
            }
        }
    }

    /// Lets nodes that were not reached come to themselves before they are asked again.
    async fn pause_for_unreached(&self, session: &mut Session, inference: &mut Inference) -> Result<(), Unserved> {
        if inference.held_since_ms.is_none() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(UNREACHED_PAUSE) => Ok(()),
            left = client_leaves(session) => Err(Unserved::Left(left)),
        }
    }

    /// Whether nodes that were not reached may be asked once more, and if so, makes that possible.
    pub(super) fn may_ask_again(&self, inference: &mut Inference) -> bool {
        let now_ms = self.fleet.now_ms();
        let since_ms = *inference.held_since_ms.get_or_insert(now_ms);
        let in_time = now_ms.saturating_sub(since_ms) < self.config.now().hold.max_ms;
        if inference.unreached.is_empty() || !in_time {
            return false;
        }
        let unreached = std::mem::take(&mut inference.unreached);
        inference.tried.retain(|number| !unreached.contains(number));
        true
    }

    fn refuse_overflow(&self, choice: &Choice, ctx: &mut RequestCtx) -> Result<()> {
        let Some(inference) = ctx.inference.as_mut().filter(|_| self.config.now().refuse_overflow) else {
            return Ok(());
        };
        let Some(overflow) = overflow(&inference.profile, choice.candidate.plan.window) else { return Ok(()) };
        let message = format!(
            "the prompt is estimated at {} tokens, and {} has a context of {} (context.overflow)",
            overflow.estimated_tokens, choice.model, overflow.context_length
        );
        inference.trace.http_status = 413;
        inference.end(Status::Rejected, &message);
        ctx.reply = Some(Reply::new(413, message));
        Err(refused("the prompt exceeds the window"))
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

    /// Watches the node that is asked now, from the first to the last byte of its answer.
    fn watch(&self, ctx: &RequestCtx) {
        let Some(inference) = &ctx.inference else { return };
        let Some(attempt) = &inference.attempt else { return };
        let choice = &attempt.choice;
        let (number, model) = (choice.node().number, choice.model.clone());
        let before: Evidence = evidence(&choice.snapshot, number, &model).unwrap_or_default();
        let prediction = choice.candidate.prediction;
        let now_ms = self.fleet.now_ms();
        let whole = !inference.profile.stream;
        let mut watch = Watch::begin(self.config.now().patience, &prediction, whole, before, now_ms);
        let (fleet, last_byte) = (Arc::clone(&self.fleet), attempt.last_byte.clone());
        ctx.connection.awaited().begin(move || {
            if let Some(at_ms) = last_byte.at_ms() {
                watch.byte(at_ms);
            }
            if fleet.cutting() {
                return Verdict::GiveUp(GiveUp::Stopping);
            }
            let (snapshot, now_ms) = (fleet.snapshot(), fleet.now_ms());
            let node = snapshot.nodes.iter().find(|node| node.number == number);
            let life = fleet.policy().life;
            let condition = node.map_or(Condition::Unreachable, |node| node.condition(now_ms, &life));
            watch.judge(evidence(&snapshot, number, &model), condition, now_ms)
        });
    }
}

/// The body as the node of `choice` is to get it.
async fn body_for(choice: &Choice, inference: &Inference, name: &ModelName) -> Bytes {
    let original = inference.held.as_ref().map(|held| held.bytes.clone()).unwrap_or_default();
    let edits = choice.edits(&inference.profile, name);
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

/// No node serves the request, and none will.
fn unserved(inference: &Inference, nobody: &(Decision, Arc<FleetSnapshot>)) -> Unserved {
    Unserved::Refused(Status::Rejected, error::nobody(inference, &nobody.0, &nobody.1))
}

/// Why a request is given no slot.
pub(super) enum Unserved {
    /// The client left.
    Left(Box<Error>),
    /// It is told so.
    Refused(Status, Reply),
}

fn ask(inference: &Inference, request_id: &Arc<str>) -> Ask {
    Ask {
        profile: Arc::clone(&inference.profile),
        tried: inference.tried.clone(),
        class: inference.class,
        app: inference.app,
        request_id: Arc::clone(request_id),
        holds: !inference.marks.benchmark,
        held_since_ms: inference.held_since_ms,
        awaits_unreached: false,
    }
}

/// Resolves when the client leaves, or sends what it may not; while a request waits, nothing else reads from it.
pub(super) async fn client_leaves(session: &mut Session) -> Box<Error> {
    loop {
        match session.downstream_session.read_body_or_idle(true).await {
            Ok(_) => {}
            Err(error) => return error.into_down(),
        }
    }
}
