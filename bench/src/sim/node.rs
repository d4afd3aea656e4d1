//! One machine with its Ollama, in virtual time.
//!
//! What it does is what a real server was seen to do: a runner per model with a number of slots and one context, one
//! load at a time from one queue, reloads for every other context, loads that wait for busy runners and hold all other
//! loads up meanwhile, requests for what is in memory that pass them by, and waiting without bounds for a slot.
//!
//! The device is shared: runners that work take turns, and within a runner the sequences of a batch are written
//! together, which costs little more than writing one, while a prompt that is read holds the others up.

mod runner;

use std::collections::VecDeque;

use super::catalogue::{Hardware, MODELS};
use runner::{Runner, Waiting};

/// Most requests that wait for a load (`OLLAMA_MAX_QUEUE`).
const MAX_QUEUE: usize = 512;

/// A request as a node gets it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    /// Whose it is.
    pub(crate) attempt: usize,
    /// Index of its model.
    pub(crate) model: usize,
    /// `num_ctx`; `None` = the node's default.
    pub(crate) context: Option<u64>,
    /// Tokens of the prompt. An empty request, without prompt and answer, only loads the model.
    pub(crate) prompt: u64,
    /// Its conversation, and how many tokens of the prompt were there, or were answered, before.
    pub(crate) prefix: Option<(u64, u64)>,
    /// Tokens of the answer.
    pub(crate) output: u64,
    /// `keep_alive`, milliseconds.
    pub(crate) keep_ms: f64,
}

/// What an answer tells of itself, as Ollama's does.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::struct_field_names, reason = "units stand in names")]
pub(crate) struct Timing {
    /// Waiting for a load and the load; 0 = it was in memory.
    pub(crate) load_ms: f64,
    /// Reading the prompt.
    pub(crate) prefill_ms: f64,
    /// Writing the answer.
    pub(crate) decode_ms: f64,
}

/// Something that happened on a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Output {
    /// The first token of an answer.
    FirstByte(usize),
    /// The last one.
    Done(usize, Timing),
    /// A request has made Ollama load its model.
    Loads {
        /// Whose request.
        attempt: usize,
        /// The context that the model had in memory before; `None` = it was not there.
        had: Option<u64>,
    },
    /// The model does not fit.
    Refused(usize),
}

/// A load under way.
#[derive(Debug)]
struct Load {
    first: Pending,
    runner: Runner,
    until_ms: f64,
}

/// A request that waits for a load.
#[derive(Debug)]
struct Pending {
    job: Job,
    since_ms: f64,
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) hardware: &'static Hardware,
    runners: Vec<Runner>,
    pending: VecDeque<Pending>,
    loading: Option<Load>,
    /// Models in the page cache, the oldest first.
    cached: Vec<usize>,
    at_ms: f64,
    busy_ms: f64,
    peak_bytes: u64,
}

/// One runner as an agent sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RunnerReport {
    /// Index of its model.
    pub(crate) model: usize,
    /// Tokens in each slot.
    pub(crate) context: u64,
    /// Memory.
    pub(crate) bytes: u64,
    /// Requests that it runs.
    pub(crate) busy: u32,
    /// Requests that wait inside it.
    pub(crate) waiting: u32,
}

/// A node as its agent reports it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    /// Runners in memory; one that is loading is not among them.
    pub(crate) runners: Vec<RunnerReport>,
    /// The model that is being loaded.
    pub(crate) loading: Option<usize>,
    /// Memory for models that is not in use.
    pub(crate) free_bytes: u64,
}

impl Node {
    pub(crate) fn new(hardware: &'static Hardware) -> Self {
        Self {
            hardware,
            runners: Vec::new(),
            pending: VecDeque::new(),
            loading: None,
            cached: Vec::new(),
            at_ms: 0.0,
            busy_ms: 0.0,
            peak_bytes: 0,
        }
    }

    /// Puts a model into memory before anything happens.
    pub(crate) fn preload(&mut self, model: usize, context: Option<u64>) {
        let context = self.hardware.effective_context(&MODELS[model], context);
        let runner = Runner::new(self.hardware, model, context, super::workload::KEEP_ALIVE_MS);
        assert!(self.used_bytes() + runner.bytes <= self.hardware.memory_bytes, "a workload preloads what fits");
        self.runners.push(runner);
        self.touch_cache(model);
    }

    /// Takes a request at the time to which the node has been advanced; false = it says that it is busy.
    pub(crate) fn submit(&mut self, job: Job, out: &mut Vec<Output>) -> bool {
        let context = self.context_of(&job);
        let hot = self.runners.iter_mut().find(|runner| runner.model == job.model && runner.context == context);
        if let Some(runner) = hot {
            runner.admit(Waiting { job, load_ms: 0.0 }, self.at_ms, out);
        } else if self.pending.len() >= MAX_QUEUE {
            return false;
        } else {
            self.pending.push_back(Pending { job, since_ms: self.at_ms });
            self.pump(out);
        }
        self.settle();
        true
    }

    /// Stops working for `attempt`, wherever it is.
    pub(crate) fn cancel(&mut self, attempt: usize, out: &mut Vec<Output>) {
        self.pending.retain(|pending| pending.job.attempt != attempt);
        if self.loading.as_ref().is_some_and(|load| load.first.job.attempt == attempt) {
            self.loading = None;
        }
        for runner in &mut self.runners {
            runner.cancel(attempt, self.at_ms);
        }
        self.pump(out);
        self.settle();
    }

    /// Forgets everything, as after a restart.
    pub(crate) fn restart(&mut self) {
        *self =
            Self { at_ms: self.at_ms, busy_ms: self.busy_ms, peak_bytes: self.peak_bytes, ..Self::new(self.hardware) };
    }

    /// Lets time pass up to `now_ms` without doing anything.
    pub(crate) fn sleep_until(&mut self, now_ms: f64) {
        self.at_ms = now_ms;
    }

    /// Lets time pass up to `now_ms`, which must not be beyond [`Self::next_ms`], and does what is due then.
    pub(crate) fn advance(&mut self, now_ms: f64, out: &mut Vec<Output>) {
        let passed_ms = now_ms - self.at_ms;
        if self.runners.iter().any(Runner::works) {
            self.busy_ms += passed_ms;
        }
        self.at_ms = now_ms;
        for runner in &mut self.runners {
            runner.advance(passed_ms, now_ms, out);
        }
        if self.loading.as_ref().is_some_and(|load| load.until_ms <= now_ms)
            && let Some(Load { first, mut runner, .. }) = self.loading.take()
        {
            runner.admit(Waiting { job: first.job, load_ms: now_ms - first.since_ms }, now_ms, out);
            self.runners.push(runner);
        }
        self.runners.retain(|runner| runner.expires_ms() > now_ms);
        self.pump(out);
        self.settle();
    }

    /// When something is due here next.
    pub(crate) fn next_ms(&self) -> Option<f64> {
        let runners = self.runners.iter().map(|runner| runner.next_ms(self.at_ms));
        let loading = self.loading.iter().map(|load| load.until_ms);
        runners.chain(loading).reduce(f64::min).filter(|next_ms| next_ms.is_finite())
    }

    /// What its agent sees.
    pub(crate) fn report(&self) -> Report {
        Report {
            runners: self.runners.iter().map(Runner::report).collect(),
            loading: self.loading.as_ref().map(|load| load.runner.model),
            free_bytes: self.hardware.memory_bytes.saturating_sub(self.used_bytes()),
        }
    }

    /// Whether `model` is in memory with at least `context` tokens, and a slot of it is free.
    pub(crate) fn could_serve(&self, model: usize, context: u64) -> bool {
        let serves = |runner: &Runner| runner.model == model && runner.context >= context && runner.has_free_slot();
        self.runners.iter().any(serves)
    }

    /// Time for which its device has worked.
    pub(crate) fn busy_ms(&self) -> f64 {
        self.busy_ms
    }

    /// The most memory that was ever in use.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    fn context_of(&self, job: &Job) -> u64 {
        self.hardware.effective_context(&MODELS[job.model], job.context)
    }

    fn used_bytes(&self) -> u64 {
        let loading = self.loading.iter().map(|load| &load.runner);
        self.runners.iter().chain(loading).map(|runner| runner.bytes).sum()
    }

    /// Works off the queue of loads as far as that goes now.
    fn pump(&mut self, out: &mut Vec<Output>) {
        while self.loading.is_none()
            && let Some(first) = self.pending.pop_front()
        {
            let context = self.context_of(&first.job);
            let place = self.runners.iter().position(|runner| runner.model == first.job.model);
            match place {
                Some(place) if self.runners[place].context == context => {
                    let load_ms = self.at_ms - first.since_ms;
                    self.runners[place].admit(Waiting { job: first.job, load_ms }, self.at_ms, out);
                    continue;
                }
                // What it needs waits for what runs; all that is behind it waits for that.
                Some(place) if self.runners[place].works() => return self.pending.push_front(first),
                _ => {}
            }
            let runner = Runner::new(self.hardware, first.job.model, context, first.job.keep_ms);
            if runner.bytes > self.hardware.memory_bytes {
                out.push(Output::Refused(first.job.attempt));
                continue;
            }
            let had = place.map(|place| self.runners.remove(place).context);
            if !self.make_room(runner.bytes) {
                return self.pending.push_front(first);
            }
            self.begin_load(first, runner, had, out);
        }
    }

    fn begin_load(&mut self, first: Pending, runner: Runner, had: Option<u64>, out: &mut Vec<Output>) {
        let cached = self.touch_cache(runner.model);
        let until_ms = self.at_ms + self.hardware.load_ms(&MODELS[runner.model], cached);
        out.push(Output::Loads { attempt: first.job.attempt, had });
        self.loading = Some(Load { first, runner, until_ms });
        self.peak_bytes = self.peak_bytes.max(self.used_bytes());
    }

    /// Evicts idle runners until `bytes` more fit: as Ollama does, those with the shortest `keep_alive` first, and among
    /// equals in the order of their paths, not of their last use.
    fn make_room(&mut self, bytes: u64) -> bool {
        let most = self.hardware.max_loaded as usize;
        while self.used_bytes() + bytes > self.hardware.memory_bytes || self.runners.len() >= most {
            let idle = self.runners.iter().enumerate().filter(|(_, runner)| !runner.works());
            let first = idle.min_by(|(_, a), (_, b)| a.keep_ms.total_cmp(&b.keep_ms).then(a.model.cmp(&b.model)));
            let Some((place, _)) = first else { return false };
            self.runners.remove(place);
        }
        true
    }

    /// Notes that a model is read; returns whether it was in the page cache.
    fn touch_cache(&mut self, model: usize) -> bool {
        let was = self.cached.iter().position(|cached| *cached == model);
        if let Some(place) = was {
            self.cached.remove(place);
        }
        self.cached.push(model);
        // Half of the host's memory is taken to be left for it.
        let room = self.hardware.system_bytes / 2;
        while self.cached.len() > 1 && self.cached.iter().map(|model| MODELS[*model].bytes).sum::<u64>() > room {
            self.cached.remove(0);
        }
        was.is_some()
    }

    /// How fast everything goes on from here.
    fn settle(&mut self) {
        let working = self.runners.iter().filter(|runner| runner.works()).count();
        for runner in &mut self.runners {
            runner.set_rates(self.hardware, working);
        }
        debug_assert!(self.used_bytes() <= self.hardware.memory_bytes, "memory is a limit");
    }
}

#[cfg(test)]
mod tests;
