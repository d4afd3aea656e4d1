//! How a request ends: the last byte of its answer, or what the client is told instead; and what is learned from it.

use bytes::Bytes;
use herd_core::answer::Observer;
use herd_core::estimate::alone;
use herd_core::fleet::{Loaded, Model};
use herd_core::lesson::{Timing, lesson, load_ms_at_first_byte, was_loaded};
use herd_core::load::Work;
use herd_core::patience::GiveUp;
use pingora::{Error, Result};
use pingora_proxy::Session;

use super::answer::End;
use super::ctx::{Attempt, Inference, RequestCtx};
use super::reply::Reply;
use super::{Edge, error, is_clients, refused};
use crate::trace::Status;

impl Edge {
    /// Passes a chunk of the answer on, and ends the answer with it if it is the last.
    pub(super) fn pass_answer(&self, inference: &mut Inference, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        let Some(answer) = &mut inference.answer else { return Ok(()) };
        if let Some(chunk) = body.as_ref().filter(|chunk| !chunk.is_empty()) {
            let age_ms = inference.trace.age_ms();
            inference.trace.first_byte(age_ms as f64);
            inference.trace.response_bytes += chunk.len() as u64;
            if let Some(attempt) = &inference.attempt {
                attempt.last_byte.came(self.fleet.now_ms());
            }
            if let Some(live) = &inference.live {
                live.answers(inference.trace.response_bytes);
            }
        }
        answer.pass(body);
        if !end {
            return Ok(());
        }
        match answer.end(body) {
            End::Complete => Ok(()),
            End::Told => {
                inference.end(Status::Incomplete, "the answer ended before its own end");
                Ok(())
            }
            End::Untold => {
                inference.end(Status::Incomplete, "the answer ended before its own end");
                // Only a connection that breaks off can still tell the client.
                Err(refused("the answer ended before its own end").into_up())
            }
        }
    }

    /// Notes that the load which a request has caused is over.
    pub(super) fn note_load(&self, inference: &mut Inference) {
        let signature = inference.profile.launch;
        let Some(attempt) = &mut inference.attempt else { return };
        let Some(since_ms) = attempt.choice.slot.claim().and_then(|claim| claim.loading_since_ms()) else { return };
        let choice = &attempt.choice;
        if let Some(model) = choice.model() {
            let taken_ms = self.fleet.now_ms().saturating_sub(since_ms) as f64;
            let (profile, prefill_ms) = (&inference.profile, choice.candidate.prediction.prefill_ms);
            let load_ms = load_ms_at_first_byte(profile.surface.dialect(), profile.stream, taken_ms, prefill_ms);
            if !inference.marks.benchmark {
                model.load.observe_work(&Work { load_ms, ..Work::default() });
            }
            if choice.candidate.plan.cause.is_some() {
                model.load.reloaded();
            }
        }
        // In this order: between the two, others must not find a cold model and no load.
        self.fleet.loaded(&Loaded {
            node: choice.node().number,
            model: &choice.model,
            context_length: choice.candidate.plan.window,
            signature,
        });
        if let Some(claim) = attempt.choice.slot.claim() {
            claim.load_ended();
        }
    }

    /// Tells the client that its request has failed, in whatever way is left; returns the status for the log.
    pub(super) async fn tell_failure(&self, session: &mut Session, error: &Error, ctx: &mut RequestCtx) -> u16 {
        let cancelled = ctx.connection.awaited().cancelled();
        let gave_up = cancelled.or(ctx.inference.as_ref().and_then(|inference| inference.gave_up));
        let reply = match cancelled {
            Some(_) => Reply::new(503, "the request was cancelled by an operator"),
            None => ctx.reply.take().unwrap_or_else(|| error::reply(error, gave_up)),
        };
        // Pingora closes the connection of a request that failed, and the client must hear of that.
        let reply = reply.closing();
        let clients = is_clients(error);
        let answered = session.response_written().is_some();
        let mut last_words = None;
        let mut gone = clients;
        if let Some(inference) = &mut ctx.inference {
            inference.gave_up = gave_up;
            gone = clients && inference.gave_up.is_none();
            let status = match inference.gave_up {
                Some(GiveUp::Cancelled) => Status::Cancelled,
                Some(reason) if reason != GiveUp::Stopping && inference.answer.is_some() => Status::Reaped,
                _ if gone => Status::ClientDisconnected,
                _ if inference.answer.is_some() => Status::Incomplete,
                _ => Status::Failed,
            };
            let why = if gone { CLIENT_LEFT.to_owned() } else { reason(inference, &reply.message) };
            inference.end(status, &why);
            if !answered && !gone {
                inference.trace.http_status = reply.status;
            }
            last_words = last_words_of(inference, &reply.message);
        }
        if gone {
            return reply.status;
        }
        let sent = match last_words {
            None if answered => Ok(()),
            Some(words) if answered => session.write_response_body(Some(words.into()), true).await,
            _ => reply.send(session, ctx.dialect, &ctx.request_id, &ctx.fleet_headers()).await,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "the client left before its error");
        }
        reply.status
    }

    /// Notes how a request ended, and learns from it.
    pub(super) fn note_end(&self, inference: &mut Inference, error: Option<&Error>) {
        let status = match error {
            Some(error) if is_clients(error) => Status::ClientDisconnected,
            Some(_) => Status::Failed,
            None if inference.trace.http_status >= 400 => Status::Failed,
            None => Status::Completed,
        };
        inference.end(status, &error.map(ToString::to_string).unwrap_or_default());
        if let Some(observer) = inference.answer.as_ref().and_then(|answer| answer.observer()) {
            let model = inference.attempt.as_ref().and_then(|attempt| attempt.choice.model());
            inference.trace.counts = observer.seen().counts(model.and_then(|model| model.load.tokens_per_piece()));
            inference.trace.finish_reason = observer.seen().reason;
            if let (Some(key), Some(tokens)) = (&inference.key, inference.trace.counts.completion_tokens) {
                key.charge_answer(tokens, self.fleet.now_ms());
            }
            if !inference.marks.benchmark {
                self.learn(inference, observer);
            }
        }
    }

    fn learn(&self, inference: &Inference, observer: &Observer) {
        let Some(attempt) =
            inference.attempt.as_ref().filter(|_| inference.trace.known_status() == Some(Status::Completed))
        else {
            return;
        };
        let Some(model) = attempt.choice.model() else { return };
        let (seen, counts) = (observer.seen(), &inference.trace.counts);
        let (profile, plan) = (&inference.profile, &attempt.choice.candidate.plan);
        let lesson = lesson(counts, &self.timing(inference, attempt, model), model);
        if let Some(service_ms) = lesson.service_ms {
            model.load.observe(service_ms, self.fleet.now_ms());
        }
        model.load.observe_work(&alone(profile, attempt.choice.node(), model, plan, &lesson.work));
        seen.tokens_per_piece().into_iter().for_each(|tokens| model.load.observe_tokens_per_piece(tokens));
        model.load.remember(profile.conversation, profile.prompt_tokens + counts.completion_tokens.unwrap_or(0));
        if lesson.unforeseen_load {
            self.telemetry.unforeseen_load();
        }
    }

    fn timing(&self, inference: &Inference, attempt: &Attempt, model: &Model) -> Timing {
        let service_ms = attempt.began.elapsed().as_secs_f64() * 1e3;
        let since_first_ms = |first_ms: f64| (inference.trace.age_ms() as f64 - first_ms).max(0.0);
        let first_ms = inference.trace.first_byte_ms().filter(|_| inference.profile.stream);
        let (choice, snapshot) = (&attempt.choice, self.fleet.snapshot());
        let node = snapshot.nodes.iter().find(|node| node.number == choice.node().number);
        let after = node.and_then(|node| node.model(&choice.model));
        Timing {
            service_ms,
            first_byte_ms: first_ms.map(|first_ms| service_ms - since_first_ms(first_ms)),
            loaded: was_loaded(&choice.candidate.plan, model, after),
        }
    }
}

/// What the trace says where the end was the client's doing.
const CLIENT_LEFT: &str = "the client left, or sent what it may not";

fn reason(inference: &Inference, message: &str) -> String {
    inference.gave_up.map_or_else(|| message.to_owned(), |reason| format!("{}: {message}", reason.name()))
}

/// What ends a body that has begun, so that the client sees an error in its protocol's own form; `None` = the broken
/// connection tells.
fn last_words_of(inference: &mut Inference, message: &str) -> Option<Vec<u8>> {
    if let Some(answer) = &mut inference.answer {
        let epilogue = answer.epilogue(message)?;
        let mut words = answer.take_rest();
        words.extend(epilogue);
        return Some(words);
    }
    let surface = inference.profile.surface;
    inference.committed.then(|| Observer::new(surface, true).epilogue(message))?
}
