//! Running a generation: wait for a runner, read the prompt, write the answer token by token.
//!
//! No task is spawned: a stream is polled by its connection, so that a client which leaves drops it, and with it the
//! slot. As in Ollama, nothing is sent before the first token is there, not even headers.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode};

use super::{
    body::{self, Body},
    broken,
    config::time_for,
    engine::Lease,
    exchange::{Exchange, Failure},
    fault::{FaultKind, Struck},
    plan::{Answer, Piece, Plan},
    scheduler::{Grant, Refusal},
    slots::Pace,
    surface::{ApiError, Surface},
    wire::{self, Encoder, Frames, Said, Totals},
};

/// What a real server reports as `load_duration` when the model is there already.
const WARM_LOAD: Duration = Duration::from_millis(1);
/// Durations of zero are left out on the wire; work that took no time here took this.
const LEAST: Duration = Duration::from_micros(1);
/// Ollama lets no answer grow beyond this many contexts.
const CONTEXTS_PER_ANSWER: u32 = 10;

/// Waits for a runner; `load_duration` runs until the grant's `attached_at`.
pub(crate) async fn acquire(exchange: &Exchange, want: super::scheduler::Want) -> Result<Lease, Failure> {
    exchange.node.engine.acquire(want).await.map_err(|refusal| {
        Failure::Api(match refusal {
            Refusal::Busy => ApiError::busy(),
            Refusal::TooLarge { need, have } => {
                let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
                let (need, have) = (gib(need), gib(have));
                let text =
                    format!("model requires more system memory ({need:.1} GiB) than is available ({have:.1} GiB)");
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        })
    })
}

/// Runs `plan` to the first token of a stream, or to the end of a whole answer.
pub(crate) async fn run(mut exchange: Exchange, plan: Plan) -> Result<Response<Body>, Failure> {
    let submitted = exchange.node.clock.now();
    let lease = acquire(&exchange, plan.want.clone()).await?;
    let prompt_tokens = plan.fit(lease.grant.num_ctx)?;
    let answer = bounded(&plan.answer, lease.grant.num_ctx);
    exchange.hang(Some((&lease, pace(&exchange, prompt_tokens, answer.tokens)))).await;
    let mut generation = Generation::start(exchange, &plan, &answer, (lease, submitted), prompt_tokens);
    let headers = wire::headers(plan.surface, plan.stream);
    if plan.stream {
        generation.first().await;
        return Ok(body::respond(StatusCode::OK, &headers, generation.into_body()));
    }
    let whole = generation.whole().await;
    broken::respond(generation.exchange, generation.lease, &headers, whole.into())
}

/// The answer as far as a context of `num_ctx` lets it grow.
fn bounded(answer: &Answer, num_ctx: u32) -> Answer {
    let most = num_ctx.saturating_mul(CONTEXTS_PER_ANSWER);
    let mut answer = answer.clone();
    answer.cut |= answer.tokens > most;
    answer.tokens = answer.tokens.min(most);
    answer
}

/// What a request that starts now will do in its slot.
pub(crate) fn pace(exchange: &Exchange, prompt_tokens: u32, answer_tokens: u32) -> Pace {
    let (config, slowness, started) = (&exchange.node.config, exchange.slowness(), exchange.node.clock.now());
    let prefill = time_for(f64::from(prompt_tokens) * slowness, config.prefill_tokens_per_s);
    let per_token = time_for(slowness, config.decode_tokens_per_s);
    Pace { started, decode_from: started + prefill, per_token, prompt_tokens, answer_tokens, frozen: None }
}

/// An answer being written.
struct Generation {
    exchange: Exchange,
    lease: Option<Lease>,
    grant: Grant,
    encoder: Box<dyn Encoder>,
    surface: Surface,
    pieces: Box<dyn Iterator<Item = Piece> + Send>,
    pace: Pace,
    submitted: Duration,
    cut: bool,
    written: u32,
    frames: Frames,
    frames_sent: u32,
    ended: bool,
}

impl Generation {
    fn start(
        exchange: Exchange,
        plan: &Plan,
        answer: &Answer,
        (lease, submitted): (Lease, Duration),
        prompt_tokens: u32,
    ) -> Self {
        let pace = pace(&exchange, prompt_tokens, answer.tokens);
        lease.set_pace(pace);
        Self {
            grant: lease.grant,
            lease: Some(lease),
            encoder: wire::encoder(plan, exchange.node.clock),
            surface: plan.surface,
            pieces: Box::new(answer.pieces()),
            pace,
            submitted,
            cut: answer.cut,
            written: 0,
            frames: Frames::new(),
            frames_sent: 0,
            ended: false,
            exchange,
        }
    }

    /// Waits for the first token.
    async fn first(&mut self) {
        self.encoder.begin(self.pace.prompt_tokens, &mut self.frames);
        self.more().await;
    }

    /// Adds the frames of the next token, or of the end.
    async fn more(&mut self) {
        if let Some(piece) = self.pieces.next() {
            self.written += 1;
            self.exchange.node.clock.wait_until(self.pace.token_at(self.written)).await;
            self.encoder.piece(piece, &mut self.frames);
        } else {
            self.exchange.node.clock.wait_until(self.pace.end()).await;
            self.encoder.end(&self.totals(), &mut self.frames);
            self.finish();
        }
    }

    /// The whole answer, at the time of its last token.
    async fn whole(&mut self) -> Vec<u8> {
        self.exchange.node.clock.wait_until(self.pace.end()).await;
        let mut said = Said::default();
        self.pieces.by_ref().for_each(|piece| said.push(piece));
        self.encoder.whole(&said, &self.totals())
    }

    /// The model is done: the slot is free, though the client may still be reading.
    fn finish(&mut self) {
        self.ended = true;
        self.lease = None;
    }

    fn totals(&self) -> Totals {
        let now = self.exchange.node.clock.now();
        let load = self.grant.attached_at.saturating_sub(self.submitted) + WARM_LOAD;
        let prompt_time = self.pace.prefill().max(LEAST);
        let eval_time = now.saturating_sub(self.pace.decode_from).max(LEAST);
        Totals {
            total: (now.saturating_sub(self.submitted)).max(load + prompt_time + eval_time),
            load,
            prompt_tokens: self.pace.prompt_tokens,
            prompt_time,
            eval_tokens: self.pace.answer_tokens,
            eval_time,
            cut: self.cut,
        }
    }

    fn into_body(self) -> Body {
        body::streamed(stream::unfold(self, |mut generation| async move {
            let frame = generation.next().await?;
            Some((frame, generation))
        }))
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        while self.frames.is_empty() && !self.ended {
            self.more().await;
        }
        if let Some(struck) = self.strike().await {
            return struck;
        }
        self.frames_sent += 1;
        self.frames.pop_front().map(Ok)
    }

    /// What a fault in the middle of an answer makes of it: nothing (yet), its end, or an error.
    async fn strike(&mut self) -> Option<Option<io::Result<Bytes>>> {
        let sent = self.frames_sent;
        let due =
            |struck: &mut Struck| struck.fault.fault.is_mid_stream() && sent >= struck.fault.after_chunks.unwrap_or(0);
        let mut struck = self.exchange.struck.take_if(due)?;
        if struck.fault.fault == FaultKind::GarbageLine {
            return Some(Some(Ok(wire::garbage(self.surface))));
        }
        self.frames.clear();
        if struck.fault.fault == FaultKind::HangMidStream {
            // A hung engine keeps its slot.
            if let Some(lease) = &self.lease {
                lease.set_pace(self.pace.frozen_after(self.written));
            }
            struck.lifted().await;
        }
        self.finish();
        match struck.fault.fault {
            FaultKind::CrashMidStream => {
                self.frames.extend(self.encoder.crash());
                None
            }
            FaultKind::CleanEnd => Some(None),
            kind => Some(Some(Err(self.exchange.cut(kind).await))),
        }
    }
}
