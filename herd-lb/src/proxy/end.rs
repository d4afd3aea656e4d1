//! How a request ends: the last byte of its answer, or what the client is told instead; and what is learned from it.

use bytes::Bytes;
use herd_core::answer::{Observer, Reason};
use herd_core::estimate::{alone, needs_load};
use herd_core::fleet::Loaded;
use herd_core::load::Work;
use herd_core::patience::GiveUp;
use pingora::{Error, Result};
use pingora_proxy::Session;

use super::answer::End;
use super::ctx::{Inference, RequestCtx};
use super::reply::Reply;
use super::{Edge, error, is_clients, refused};
use crate::trace::Status;

impl Edge {
    /// Passes a chunk of the answer on, and ends the answer with it if it is the last.
    pub(super) fn pass_answer(&self, inference: &mut Inference, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        let Some(answer) = &mut inference.answer else { return Ok(()) };
        if let Some(chunk) = body.as_ref().filter(|chunk| !chunk.is_empty()) {
            let age_ms = inference.trace.age_ms();
            inference.trace.ttft_ms.get_or_insert(age_ms);
            inference.trace.response_bytes += chunk.len();
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
            let load_ms = (taken_ms - choice.candidate.prediction.prefill_ms).max(1.0);
            if !inference.marks.benchmark {
                model.load.observe_work(&Work { load_ms: Some(load_ms), ..Work::default() });
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
            inference.trace.counts = observer.seen().counts;
            inference.trace.finish_reason = observer.seen().reason.map_or("", Reason::name);
            if let (Some(key), Some(tokens)) = (&inference.key, inference.trace.counts.completion_tokens) {
                key.charge_answer(tokens, self.fleet.now_ms());
            }
            if !inference.marks.benchmark {
                self.learn(inference, observer);
            }
        }
    }

    fn learn(&self, inference: &Inference, observer: &Observer) {
        let Some(attempt) = inference.attempt.as_ref().filter(|_| inference.trace.status == Some(Status::Completed))
        else {
            return;
        };
        let Some(model) = attempt.choice.model() else { return };
        let service_ms = attempt.began.elapsed().as_secs_f64() * 1e3;
        model.load.observe(service_ms, self.fleet.now_ms());
        let counts = &observer.seen().counts;
        let pair = |tokens: Option<u64>, ms: Option<f64>| Some((tokens?, ms?)).filter(|(tokens, _)| *tokens > 0);
        let loads = needs_load(&attempt.choice.candidate.plan);
        let work = Work {
            load_ms: counts.load_ms.filter(|_| loads),
            prefill: pair(counts.prompt_tokens, counts.prefill_ms),
            decode: pair(
                counts.completion_tokens,
                counts.decode_ms.or_else(|| decode_ms(inference, service_ms, loads)),
            ),
        };
        let (profile, plan) = (&inference.profile, &attempt.choice.candidate.plan);
        model.load.observe_work(&alone(profile, attempt.choice.node(), model, plan, &work));
        model.load.remember(profile.conversation, profile.prompt_tokens + counts.completion_tokens.unwrap_or(0));
        if !loads && counts.load_ms.is_some_and(|ms| ms >= UNFORESEEN_LOAD_MS) {
            self.telemetry.unforeseen_load();
        }
    }
}

/// What the trace says where the end was the client's doing.
const CLIENT_LEFT: &str = "the client left, or sent what it may not";

/// A load that was not foreseen is told from the millisecond or two that Ollama reports for a loaded model.
const UNFORESEEN_LOAD_MS: f64 = 250.0;

/// Time of writing an answer whose backend tells only its tokens: from the first byte of a stream, or all of it.
fn decode_ms(inference: &Inference, service_ms: f64, loads: bool) -> Option<f64> {
    if loads {
        return None;
    }
    let total_ms = inference.trace.age_ms() as f64;
    match inference.trace.ttft_ms.filter(|_| inference.profile.stream) {
        Some(ttft_ms) => Some((total_ms - ttft_ms as f64).max(0.0)),
        None => Some(service_ms),
    }
}

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
