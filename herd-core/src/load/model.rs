//! What the edge counts and learns of one runner: one model on one node, with every name that it has there.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::conversations::Conversations;
use super::lock;
use super::rate::Rate;
use super::slots::{Learned, Slots};
use crate::history::LatencyHistory;
use crate::launch::{SIGNATURE_WORDS, Signature};

/// What the edge counts and learns of one model on one node.
#[derive(Debug, Default)]
pub struct ModelLoad {
    pub(super) in_flight: AtomicU32,
    /// The most in flight since the last heartbeat.
    peak: AtomicU32,
    history: Mutex<LatencyHistory>,
    p75_ms: AtomicU64,
    load_ms: Rate,
    prefill_ms_per_token: Rate,
    decode_ms_per_token: Rate,
    output_tokens: Rate,
    tokens_per_piece: Rate,
    slots: Learned,
    launched: [AtomicU64; SIGNATURE_WORDS],
    conversations: Conversations,
    reloads: AtomicU32,
    pinned: AtomicBool,
}

/// What one answer took, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Loading the model, milliseconds.
    pub load_ms: Option<f64>,
    /// Reading the prompt: its tokens and milliseconds.
    pub prefill: Option<(u64, f64)>,
    /// Writing the answer: its tokens and milliseconds.
    pub decode: Option<(u64, f64)>,
}

impl ModelLoad {
    /// Requests in flight for this model on this node.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Counts one more; returns how many there were.
    pub(super) fn claimed(&self) -> u32 {
        let before = self.in_flight.fetch_add(1, Relaxed);
        self.peak.fetch_max(before.saturating_add(1), Relaxed);
        before
    }

    /// The most in flight since [`Self::restart_peak`]. What an agent saw running at some time since may have been
    /// these, so that only what is beyond them is known to be somebody else's.
    #[must_use]
    pub fn peak(&self) -> u32 {
        self.peak.load(Relaxed).max(self.in_flight())
    }

    /// Counts the peak anew from here: a heartbeat has come.
    pub fn restart_peak(&self) {
        self.peak.store(self.in_flight(), Relaxed);
    }

    /// 75th percentile of what requests took here, decayed; `None` = never measured.
    #[must_use]
    pub fn p75_ms(&self) -> Option<f64> {
        let stored = f64::from_bits(self.p75_ms.load(Relaxed));
        (stored > 0.0).then_some(stored)
    }

    /// Learns that a request took `service_ms` from dispatch to its last byte.
    pub fn observe(&self, service_ms: f64, now_ms: u64) {
        let mut history = lock(&self.history);
        history.observe(service_ms, now_ms);
        let p75 = history.quantile(0.75).unwrap_or(0.0);
        self.p75_ms.store(p75.to_bits(), Relaxed);
    }

    /// Learns what the parts of an answer took.
    pub fn observe_work(&self, work: &Work) {
        let per_token = |(tokens, ms): (u64, f64)| ms / tokens.max(1) as f64;
        work.load_ms.into_iter().for_each(|ms| self.load_ms.observe(ms));
        work.prefill.into_iter().for_each(|prefill| self.prefill_ms_per_token.observe(per_token(prefill)));
        if let Some(decode) = work.decode {
            self.decode_ms_per_token.observe(per_token(decode));
            self.output_tokens.observe(decode.0 as f64);
        }
    }

    /// What a load has taken here, milliseconds, decayed; `None` = never measured.
    #[must_use]
    pub fn load_ms(&self) -> Option<f64> {
        self.load_ms.get()
    }

    /// Milliseconds per prompt token, decayed; `None` = never measured.
    #[must_use]
    pub fn prefill_ms_per_token(&self) -> Option<f64> {
        self.prefill_ms_per_token.get()
    }

    /// Milliseconds per token of an answer, decayed; `None` = never measured.
    #[must_use]
    pub fn decode_ms_per_token(&self) -> Option<f64> {
        self.decode_ms_per_token.get()
    }

    /// Tokens of an answer, decayed; `None` = never measured.
    #[must_use]
    pub fn output_tokens(&self) -> Option<f64> {
        self.output_tokens.get()
    }

    /// Learns how many tokens a piece of a streamed answer has.
    pub fn observe_tokens_per_piece(&self, tokens_per_piece: f64) {
        self.tokens_per_piece.observe(tokens_per_piece);
    }

    /// Tokens of one piece of a streamed answer, decayed; `None` = never measured.
    #[must_use]
    pub fn tokens_per_piece(&self) -> Option<f64> {
        self.tokens_per_piece.get()
    }

    /// Learns that the node answered "busy": it has fewer slots for us than we thought, and rests a while.
    pub fn refused_as_busy(&self, now_ms: u64) {
        // The refused request itself is still counted.
        self.slots.refused(self.in_flight().saturating_sub(1), now_ms);
    }

    /// Notes that the node took a request.
    pub fn accepted(&self) {
        self.slots.accepted();
    }

    /// Milliseconds until the node is asked again after it was busy; 0 = now.
    #[must_use]
    pub fn backs_off_for_ms(&self, now_ms: u64) -> u64 {
        self.slots.rests_for_ms(now_ms)
    }

    /// The slots to count with when the node tells of `slots`: fewer after it was busy or let requests wait, one more again
    /// with every [`super::SLOT_REGAIN_MS`]; more where it does not tell and was seen to run more side by side.
    #[must_use]
    pub fn usable_slots(&self, slots: Slots, now_ms: u64) -> u32 {
        self.slots.usable(slots, now_ms)
    }

    /// Learns that an answer was written from `from_ms` to `to_ms`, as far as is known on our clock.
    pub fn ran(&self, from_ms: u64, to_ms: u64, now_ms: u64) {
        self.slots.ran(from_ms, to_ms, now_ms);
    }

    /// Learns whether a request waited for a slot inside the node, though only `others` of ours ran there when it was sent.
    pub fn waited_inside(&self, waited: bool, others: u32, now_ms: u64) {
        self.slots.waited(waited, others, now_ms);
    }

    /// Whether a request that has waited for long may try a slot that is not known to be there.
    #[must_use]
    pub fn may_try_slot(&self, slots: Slots, now_ms: u64) -> bool {
        self.slots.may_try(slots, now_ms)
    }

    /// Notes that one does.
    pub fn slot_tried(&self, now_ms: u64) {
        self.slots.tried(now_ms);
    }

    /// The launch options that its runner was started with; `None` = this edge did not start it, or it has been
    /// unloaded since.
    #[must_use]
    pub fn launched(&self) -> Option<Signature> {
        Signature::from_bits(std::array::from_fn(|place| self.launched[place].load(Relaxed)))
    }

    /// Notes the launch options that a load or reload of ours has used.
    pub fn set_launched(&self, signature: Option<Signature>) {
        let words = signature.map_or([0; SIGNATURE_WORDS], Signature::to_bits);
        for (place, word) in self.launched.iter().zip(words) {
            place.store(word, Relaxed);
        }
    }

    /// An operator wants it to stay in memory, so that no request may say for how long.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Relaxed)
    }

    /// Says so, or takes it back.
    pub fn set_pinned(&self, pinned: bool) {
        self.pinned.store(pinned, Relaxed);
    }

    /// Notes an answer to a request of `conversation`: prompt and answer, so many tokens, are in the cache of its slot.
    pub fn remember(&self, conversation: Option<u64>, tokens: u64) {
        self.conversations.remember(conversation, tokens);
    }

    /// Tokens of `conversation` that the runner is likely to have in the cache of one of its `slots`, so that it need
    /// not read them again.
    #[must_use]
    pub fn cached_tokens(&self, conversation: u64, slots: u32) -> u64 {
        self.conversations.cached(conversation, slots)
    }

    /// Notes that the runner has ended, or is a new one: what it had in its caches is lost.
    pub fn forget_conversations(&self) {
        self.conversations.forget();
    }

    /// Reloads that requests of ours have caused here.
    #[must_use]
    pub fn reloads(&self) -> u32 {
        self.reloads.load(Relaxed)
    }

    /// Counts a reload.
    pub fn reloaded(&self) {
        self.reloads.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_refused_as_busy_is_none_of_those_that_run() {
        let model = ModelLoad::default();
        (0..3).for_each(|_| _ = model.claimed());
        model.refused_as_busy(1_000);
        assert_eq!(model.usable_slots(Slots::told(4), 1_000), 2);
    }

    #[test]
    fn the_peak_is_what_ran_since_the_last_look() {
        let model = ModelLoad::default();
        model.claimed();
        model.claimed();
        model.in_flight.fetch_sub(2, Relaxed);
        assert_eq!(model.peak(), 2);
        model.restart_peak();
        assert_eq!(model.peak(), 0);
    }

    #[test]
    fn parts_of_an_answer_become_rates() {
        let model = ModelLoad::default();
        model.observe_work(&Work { load_ms: None, prefill: Some((100, 50.0)), decode: Some((10, 200.0)) });
        assert_eq!((model.prefill_ms_per_token(), model.decode_ms_per_token()), (Some(0.5), Some(20.0)));
        assert_eq!((model.output_tokens(), model.load_ms()), (Some(10.0), None));
    }
}
