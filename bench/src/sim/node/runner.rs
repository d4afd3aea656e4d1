//! One runner: a model in memory, with slots that work and requests that wait for them.

use std::collections::VecDeque;

use super::{Job, Output, RunnerReport, Timing};
use crate::sim::catalogue::{Hardware, MODELS};

/// Prompt tokens that are read between two steps of those that write (`llama-server`'s batch).
const CHUNK_TOKENS: f64 = 512.0;

/// Work of less than this time is done: clocks are rounded, and leave as much.
const DONE_MS: f64 = 1e-6;

/// A request that waits for a slot.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) job: Job,
    /// How long it has waited for a load.
    pub(super) load_ms: f64,
}

/// A request that has a slot.
#[derive(Debug)]
struct Run {
    job: Job,
    load_ms: f64,
    /// It reads its prompt; else it writes its answer.
    reads: bool,
    /// Tokens to read or to write.
    left: f64,
    /// Tokens per millisecond.
    rate: f64,
    began_ms: f64,
    read_at_ms: f64,
}

/// A place for one request, which keeps what it has read.
#[derive(Debug, Default)]
struct Slot {
    run: Option<Run>,
    /// The conversation in its cache, and its tokens.
    cache: Option<(u64, u64)>,
    used_at_ms: f64,
}

/// A model in memory.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) model: usize,
    pub(super) context: u64,
    pub(super) bytes: u64,
    pub(super) keep_ms: f64,
    slots: Vec<Slot>,
    waiting: VecDeque<Waiting>,
    idle_since_ms: f64,
}

impl Runner {
    pub(super) fn new(hardware: &Hardware, model: usize, context: u64, keep_ms: f64) -> Self {
        Self {
            model,
            context,
            bytes: hardware.runner_bytes(&MODELS[model], context),
            keep_ms,
            slots: (0..hardware.slots).map(|_| Slot::default()).collect(),
            waiting: VecDeque::new(),
            idle_since_ms: 0.0,
        }
    }

    pub(super) fn works(&self) -> bool {
        self.slots.iter().any(|slot| slot.run.is_some())
    }

    pub(super) fn has_free_slot(&self) -> bool {
        self.slots.iter().any(|slot| slot.run.is_none())
    }

    pub(super) fn report(&self) -> RunnerReport {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        RunnerReport {
            model: self.model,
            context: self.context,
            bytes: self.bytes,
            busy: count(self.slots.iter().filter(|slot| slot.run.is_some()).count()),
            waiting: count(self.waiting.len()),
        }
    }

    pub(super) fn admit(&mut self, waiting: Waiting, now_ms: f64, out: &mut Vec<Output>) {
        self.keep_ms = waiting.job.keep_ms;
        if waiting.job.prompt == 0 && waiting.job.output == 0 {
            self.idle_since_ms = now_ms;
            let timing = Timing { load_ms: waiting.load_ms, prefill_ms: 0.0, decode_ms: 0.0 };
            out.push(Output::Done(waiting.job.attempt, timing));
            return;
        }
        self.waiting.push_back(waiting);
        self.fill(now_ms);
    }

    pub(super) fn cancel(&mut self, attempt: usize, now_ms: f64) {
        self.waiting.retain(|waiting| waiting.job.attempt != attempt);
        for slot in &mut self.slots {
            if slot.run.as_ref().is_some_and(|run| run.job.attempt == attempt) {
                slot.run = None;
                self.idle_since_ms = now_ms;
            }
        }
        self.fill(now_ms);
    }

    /// Gives free slots to those who wait.
    fn fill(&mut self, now_ms: f64) {
        while let Some(slot) = self.free_slot()
            && let Some(Waiting { job, load_ms }) = self.waiting.pop_front()
        {
            let slot = &mut self.slots[slot];
            let known = match (job.prefix, slot.cache) {
                (Some((session, shared)), Some((cached, tokens))) if session == cached => shared.min(tokens),
                _ => 0,
            };
            // The last token of a prompt is always read.
            let left = job.prompt.saturating_sub(known).max(1) as f64;
            slot.cache = job.prefix.map(|(session, _)| (session, job.prompt + job.output));
            let run = Run { job, load_ms, reads: true, left, rate: 0.0, began_ms: now_ms, read_at_ms: now_ms };
            slot.run = Some(run);
        }
    }

    /// The free slot for who is next: the one that remembers its conversation, else the one not used for longest.
    fn free_slot(&self) -> Option<usize> {
        let session = self.waiting.front()?.job.prefix.map(|(session, _)| session);
        let free = || self.slots.iter().enumerate().filter(|(_, slot)| slot.run.is_none());
        let remembers = |slot: &Slot| session.is_some() && slot.cache.map(|(session, _)| session) == session;
        let known = free().find(|(_, slot)| remembers(slot));
        let oldest = || free().min_by(|(_, a), (_, b)| a.used_at_ms.total_cmp(&b.used_at_ms));
        known.or_else(oldest).map(|(place, _)| place)
    }

    pub(super) fn advance(&mut self, passed_ms: f64, now_ms: f64, out: &mut Vec<Output>) {
        let mut freed = false;
        for slot in &mut self.slots {
            let Some(run) = &mut slot.run else { continue };
            run.left -= run.rate * passed_ms;
            let done = DONE_MS * run.rate.max(1.0);
            if run.left > done {
                continue;
            }
            if run.reads {
                // Reading the prompt yields the first token.
                (run.reads, run.read_at_ms) = (false, now_ms);
                run.left = run.job.output.saturating_sub(1) as f64;
                out.push(Output::FirstByte(run.job.attempt));
            }
            if run.left <= done {
                let timing = Timing {
                    load_ms: run.load_ms,
                    prefill_ms: run.read_at_ms - run.began_ms,
                    decode_ms: now_ms - run.read_at_ms,
                };
                out.push(Output::Done(run.job.attempt, timing));
                (slot.run, slot.used_at_ms, freed) = (None, now_ms, true);
            }
        }
        if freed {
            self.idle_since_ms = now_ms;
            self.fill(now_ms);
        }
    }

    /// When it is unloaded because nobody has used it.
    pub(super) fn expires_ms(&self) -> f64 {
        if self.works() { f64::INFINITY } else { self.idle_since_ms + self.keep_ms }
    }

    /// When something is due; infinite = never.
    pub(super) fn next_ms(&self, now_ms: f64) -> f64 {
        let runs = self.slots.iter().filter_map(|slot| slot.run.as_ref());
        let done = runs.map(|run| now_ms + run.left.max(0.0) / run.rate).fold(f64::INFINITY, f64::min);
        done.min(self.expires_ms())
    }

    /// Sets how fast each request gets on while so many runners `work` on the device.
    pub(super) fn set_rates(&mut self, hardware: &Hardware, work: usize) {
        let model = &MODELS[self.model];
        let runs = || self.slots.iter().filter_map(|slot| slot.run.as_ref());
        let reading = runs().filter(|run| run.reads).count();
        let writing = runs().count() - reading;
        let share = 1.0 / work.max(1) as f64;
        let step_ms = if writing == 0 { 0.0 } else { hardware.step_ms(model, writing) };
        let chunk_ms = if reading == 0 { 0.0 } else { CHUNK_TOKENS / hardware.prefill_per_ms(model) };
        let round_ms = step_ms + chunk_ms;
        for run in self.slots.iter_mut().filter_map(|slot| slot.run.as_mut()) {
            let tokens = if run.reads { CHUNK_TOKENS / reading as f64 } else { 1.0 };
            run.rate = share * tokens / round_ms;
        }
    }
}
