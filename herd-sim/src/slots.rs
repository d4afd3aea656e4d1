//! What the slots of a node are doing, as counts: what a `llama-server` tells an agent on a real node.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scheduler::{Runner, Ticket};

/// What a request does in its slot, fixed when it starts; where it is follows from the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) started: Duration,
    /// When the prompt has been read.
    pub(crate) decode_from: Duration,
    pub(crate) per_token: Duration,
    pub(crate) prompt_tokens: u32,
    pub(crate) answer_tokens: u32,
    /// Tokens read and written when the engine stopped in the middle; none while it gets on.
    pub(crate) frozen: Option<(u32, u32)>,
}

impl Pace {
    /// When the `n`th token of the answer is there.
    pub(crate) fn token_at(&self, n: u32) -> Duration {
        self.decode_from + self.per_token * n
    }

    /// How long the prompt takes.
    pub(crate) fn prefill(&self) -> Duration {
        self.decode_from.saturating_sub(self.started)
    }

    /// When the whole answer is there.
    pub(crate) fn end(&self) -> Duration {
        self.token_at(self.answer_tokens)
    }

    /// The same request in an engine that hangs after `written` tokens; with none of them, before the prompt is read.
    pub(crate) fn frozen_after(self, written: u32) -> Self {
        let read = if written == 0 { 0 } else { self.prompt_tokens };
        Self { frozen: Some((read, written.min(self.answer_tokens))), ..self }
    }

    /// Tokens of the prompt read and of the answer written by `now`.
    fn progress(&self, now: Duration) -> (u32, u32) {
        if let Some(frozen) = self.frozen {
            return frozen;
        }
        if now < self.decode_from {
            let share = now.saturating_sub(self.started).as_secs_f64() / self.prefill().as_secs_f64();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
            let read = (share * f64::from(self.prompt_tokens)) as u32;
            return (read, 0);
        }
        let decoding = now.saturating_sub(self.decode_from);
        let written = match self.per_token.as_nanos() {
            0 => self.answer_tokens,
            each => u32::try_from(decoding.as_nanos() / each).unwrap_or(u32::MAX),
        };
        (self.prompt_tokens, written.min(self.answer_tokens))
    }
}

/// One slot of a runner: counts only, as a `llama-server` reports them at `/slots`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Number of the slot in its runner.
    pub id: u32,
    /// Whether a request is in it.
    pub is_processing: bool,
    /// Context of the slot.
    pub n_ctx: u32,
    /// Tokens of the prompt.
    pub n_prompt_tokens: u32,
    /// Of these, tokens read so far.
    pub n_prompt_tokens_processed: u32,
    /// Tokens written so far.
    pub n_decoded: u32,
    /// Tokens still to write.
    pub n_remain: u32,
}

impl SlotView {
    fn prompt_left(&self) -> u64 {
        u64::from(self.n_prompt_tokens - self.n_prompt_tokens_processed)
    }

    fn done(&self) -> u64 {
        u64::from(self.n_prompt_tokens_processed) + u64::from(self.n_decoded)
    }
}

/// One runner and its slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerView {
    /// Name it was loaded under, as `/api/ps` shows it.
    pub model: String,
    /// Digest of the weights: aliases share it.
    pub blob: String,
    /// Context of one slot.
    pub n_ctx: u32,
    /// Slots it has.
    pub slots_total: u32,
    /// Slots in use.
    pub slots_busy: u32,
    /// Requests that wait for a slot; a real server shows them nowhere.
    pub waiting: u32,
    /// Tokens that the running requests have yet to write.
    pub tokens_left: u64,
    /// Tokens of their prompts that are yet to be read.
    pub prompt_tokens_left: u64,
    /// Tokens of their prompts read, and tokens they have written.
    #[serde(default)]
    pub tokens_done: u64,
    /// The slots, one by one.
    pub slots: Vec<SlotView>,
}

impl RunnerView {
    /// The slots of `runner` at `now`; `pace` knows what a running request does.
    pub(crate) fn of(runner: &Runner, pace: impl Fn(Ticket) -> Option<Pace>, now: Duration) -> Self {
        let slot = |id: u32| {
            let ticket = runner.running.get(id as usize).copied();
            let view =
                SlotView { id, is_processing: ticket.is_some(), n_ctx: runner.launch.num_ctx, ..SlotView::default() };
            let Some(pace) = ticket.and_then(&pace) else { return view };
            let (n_prompt_tokens_processed, n_decoded) = pace.progress(now);
            let n_remain = pace.answer_tokens - n_decoded;
            SlotView { n_prompt_tokens: pace.prompt_tokens, n_prompt_tokens_processed, n_decoded, n_remain, ..view }
        };
        let slots: Vec<SlotView> = (0..runner.slots).map(slot).collect();
        Self {
            model: runner.model.shown.clone(),
            blob: runner.model.blob.clone(),
            n_ctx: runner.launch.num_ctx,
            slots_total: runner.slots,
            slots_busy: u32::try_from(runner.running.len()).unwrap_or(u32::MAX),
            waiting: u32::try_from(runner.waiting.len()).unwrap_or(u32::MAX),
            tokens_left: slots.iter().map(|slot| u64::from(slot.n_remain)).sum(),
            prompt_tokens_left: slots.iter().map(SlotView::prompt_left).sum(),
            tokens_done: slots.iter().map(SlotView::done).sum(),
            slots,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_follows_from_the_time() {
        let millis = Duration::from_millis;
        let pace = Pace {
            started: millis(1000),
            decode_from: millis(2000),
            per_token: millis(100),
            prompt_tokens: 50,
            answer_tokens: 10,
            frozen: None,
        };
        let check = |at: u64, expected: (u32, u32)| assert_eq!(pace.progress(millis(at)), expected, "at {at} ms");
        check(1000, (0, 0));
        check(1500, (25, 0));
        check(2000, (50, 0));
        check(2250, (50, 2));
        check(60_000, (50, 10));
        let at_once = Pace { decode_from: millis(1000), per_token: Duration::ZERO, ..pace };
        assert_eq!(at_once.progress(millis(1000)), (50, 10));
        assert_eq!(pace.frozen_after(0).progress(millis(9000)), (0, 0));
        assert_eq!(pace.frozen_after(3).progress(millis(9000)), (50, 3));
    }
}
