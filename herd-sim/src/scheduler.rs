//! Which requests may run: loads, slots, eviction and expiry, as a pure state machine.
//!
//! It follows Ollama's scheduler as observed (`facts/ollama-api.md` §4-§6): one queue for everything that needs a
//! load, whose head blocks the rest; requests for a runner that fits pass by; slots are a wait inside the runner.
//! Time is an argument, as the duration since the node started, and nothing here waits: the caller asks for
//! [`Scheduler::next_deadline`] and comes back. The engine gives it a clock and somebody to wake.

mod runner;
#[cfg(test)]
mod tests;
mod types;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    catalog::Stored,
    config::SimConfig,
    launch::{Launch, LoadOptions},
};
pub(crate) use runner::Runner;
pub use types::SchedulerCounters;
pub(crate) use types::{Grant, KeepAlive, Refusal, Ticket, Want};

/// What the node's configuration says about loads.
#[derive(Debug, Clone)]
struct Limits {
    config: Arc<SimConfig>,
}

/// A request at the head of the queue: the only one that may start a load.
#[derive(Debug)]
struct Head {
    ticket: Ticket,
    want: Want,
    /// Whether it has already stopped a runner of the same weights.
    reload: bool,
}

/// The one load in progress.
#[derive(Debug)]
struct Loading {
    head: Head,
    runner: Runner,
    done_at: Duration,
    /// Requests that the runner will fit once it is there.
    joiners: Vec<(Ticket, Want)>,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    runners: Vec<Runner>,
    head: Option<Head>,
    queue: VecDeque<(Ticket, Want)>,
    loading: Option<Loading>,
    decided: Vec<(Ticket, Result<Grant, Refusal>)>,
    counters: SchedulerCounters,
    last_ticket: u64,
}

impl Scheduler {
    pub(crate) fn new(config: Arc<SimConfig>) -> Self {
        Self {
            limits: Limits { config },
            runners: Vec::new(),
            head: None,
            queue: VecDeque::new(),
            loading: None,
            decided: Vec::new(),
            counters: SchedulerCounters::default(),
            last_ticket: 0,
        }
    }

    /// Hands a request in. The answer comes from [`Self::take_decided`], at once or later.
    pub(crate) fn submit(&mut self, now: Duration, want: Want) -> Ticket {
        self.advance(now);
        self.last_ticket += 1;
        let ticket = Ticket::new(self.last_ticket);
        let launch = self.limits.launch(&want);
        if let Some(runner) = self.runners.iter_mut().find(|r| r.serves(&want.model.blob, &launch)) {
            self.decided.extend(runner.attach(now, ticket, &want));
        } else if let Some(loading) = self.loading.as_mut().filter(|l| l.runner.serves(&want.model.blob, &launch)) {
            loading.joiners.push((ticket, want));
        } else {
            self.enqueue(ticket, want);
            self.settle(now);
        }
        ticket
    }

    /// Puts a request at the end of the queue; without a head it will be that, and needs no room.
    fn enqueue(&mut self, ticket: Ticket, want: Want) {
        if self.head.is_some() && self.queue.len() >= self.limits.config.max_queue {
            self.counters.rejected_busy += 1;
            self.decided.push((ticket, Err(Refusal::Busy)));
        } else {
            self.queue.push_back((ticket, want));
        }
    }

    /// Ends a request, wherever it is: finished, or its client gone.
    pub(crate) fn leave(&mut self, now: Duration, ticket: Ticket) {
        self.advance(now);
        self.decided.retain(|(decided, _)| *decided != ticket);
        self.queue.retain(|(queued, _)| *queued != ticket);
        if self.head.as_ref().is_some_and(|head| head.ticket == ticket) {
            self.head = None;
        }
        self.leave_load(ticket);
        for runner in &mut self.runners {
            self.decided.extend(runner.leave(now, ticket));
        }
        self.settle(now);
    }

    /// Stops the runner of `blob` once it is idle: what a `keep_alive` of zero without a prompt asks for.
    pub(crate) fn unload(&mut self, now: Duration, blob: &str) {
        self.advance(now);
        if let Some(runner) = self.runners.iter_mut().find(|runner| runner.model.blob == blob) {
            runner.expire(now);
        }
        self.settle(now);
    }

    /// Puts a model in memory without the time a load takes; for the start of a node.
    pub(crate) fn preload(&mut self, now: Duration, model: &Arc<Stored>, num_ctx: Option<u32>) {
        let options = LoadOptions { num_ctx: num_ctx.map(i64::from), ..LoadOptions::default() };
        let want = Want { model: Arc::clone(model), options, keep_alive: None, slot: false };
        self.runners.retain(|runner| runner.model.blob != model.blob);
        self.runners.push(self.limits.runner(now, &want));
    }

    /// Does everything that is due at `now`, in the order of its times.
    pub(crate) fn advance(&mut self, now: Duration) {
        while let Some(due) = self.next_deadline().filter(|due| *due <= now) {
            self.settle(due);
        }
    }

    /// When something will happen by itself: the end of a load, or of a runner's keep-alive.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let load = self.loading.as_ref().map(|loading| loading.done_at);
        self.runners.iter().filter_map(Runner::idle_deadline).chain(load).min()
    }

    /// The decisions since the last call, each once.
    pub(crate) fn take_decided(&mut self) -> Vec<(Ticket, Result<Grant, Refusal>)> {
        std::mem::take(&mut self.decided)
    }

    /// The runners in memory, those still loading left out as Ollama does.
    pub(crate) fn runners(&self) -> &[Runner] {
        &self.runners
    }

    /// The model of the load in progress.
    pub(crate) fn loading(&self) -> Option<&Stored> {
        self.loading.as_ref().map(|loading| &*loading.runner.model)
    }

    /// What happened so far.
    pub(crate) fn counters(&self) -> SchedulerCounters {
        self.counters
    }

    /// Forgets what happened so far; runners and requests stay.
    pub(crate) fn reset_counters(&mut self) {
        self.counters = SchedulerCounters::default();
    }

    /// Lets everything happen that can happen at `now`.
    fn settle(&mut self, now: Duration) {
        self.runners.retain(|runner| !runner.is_expired(now));
        loop {
            self.finish_load(now);
            if self.head.is_none() {
                self.head = self.queue.pop_front().map(|(ticket, want)| Head { ticket, want, reload: false });
            }
            let Some(head) = self.head.take() else { return };
            self.head = self.place(now, head);
            if self.head.is_some() {
                return;
            }
        }
    }

    /// Serves the head, starts its load, or gives it back because it must wait.
    fn place(&mut self, now: Duration, mut head: Head) -> Option<Head> {
        if self.loading.is_some() {
            return Some(head);
        }
        let launch = self.limits.launch(&head.want);
        let need = self.limits.memory(&head.want.model, &launch);
        let have = self.limits.config.memory_bytes;
        if need > have {
            self.decided.push((head.ticket, Err(Refusal::TooLarge { need, have })));
            return None;
        }
        if let Some(index) = self.runners.iter().position(|r| r.model.blob == head.want.model.blob) {
            let runner = self.runners.get_mut(index)?;
            if !runner.launch.needs_reload(&launch) {
                self.decided.extend(runner.attach(now, head.ticket, &head.want));
                return None;
            }
            if !runner.is_idle() {
                return Some(head);
            }
            self.runners.remove(index);
            head.reload = true;
        }
        if !self.make_room(need) {
            return Some(head);
        }
        self.start_load(now, head);
        None
    }

    /// Stops idle runners until `need` bytes and one more runner fit; says whether they do.
    fn make_room(&mut self, need: u64) -> bool {
        let limit = self.limits.config.loaded_limit();
        let memory = self.limits.config.memory_bytes;
        loop {
            let used: u64 = self.runners.iter().map(|runner| runner.memory_bytes).sum();
            if self.runners.len() < limit && used.saturating_add(need) <= memory {
                return true;
            }
            // The shortest keep-alive goes first, not the least recently used; ties by the path of the weights.
            let idle = self.runners.iter().enumerate().filter(|(_, runner)| runner.is_idle());
            let victim = idle.min_by_key(|&(_, runner)| runner.eviction_order());
            let Some((index, _)) = victim else { return false };
            self.runners.remove(index);
            self.counters.evictions += 1;
        }
    }

    fn start_load(&mut self, now: Duration, head: Head) {
        let done_at = now + self.limits.config.load_time(head.want.model.model.size_bytes);
        let runner = self.limits.runner(done_at, &head.want);
        self.loading = Some(Loading { head, runner, done_at, joiners: Vec::new() });
    }

    /// Puts a runner whose load is over in service, with everybody who waits for it.
    fn finish_load(&mut self, now: Duration) {
        let Some(loading) = self.loading.take_if(|loading| loading.done_at <= now) else { return };
        let Loading { head, mut runner, joiners, .. } = loading;
        self.counters.loads += 1;
        self.counters.reloads += u64::from(head.reload);
        for (ticket, want) in std::iter::once((head.ticket, head.want)).chain(joiners) {
            self.decided.extend(runner.attach(now, ticket, &want));
        }
        self.runners.push(runner);
    }

    /// Takes `ticket` out of the load in progress; without the request that started it the load is given up.
    fn leave_load(&mut self, ticket: Ticket) {
        let Some(mut loading) = self.loading.take() else { return };
        if loading.head.ticket == ticket {
            self.counters.loads_cancelled += 1;
            // The others never queued; Ollama now sends them to the end of the queue.
            loading.joiners.into_iter().for_each(|(ticket, want)| self.enqueue(ticket, want));
        } else {
            loading.joiners.retain(|(joined, _)| *joined != ticket);
            self.loading = Some(loading);
        }
    }
}

impl Limits {
    fn launch(&self, want: &Want) -> Launch {
        Launch::resolve(&want.options, &want.model, self.config.context_length)
    }

    fn memory(&self, model: &Stored, launch: &Launch) -> u64 {
        let per_token = model.model.kv_bytes_per_token.unwrap_or(self.config.kv_bytes_per_token);
        let tokens = u64::from(launch.num_ctx) * u64::from(self.slots(model));
        model.model.size_bytes.saturating_add(per_token.saturating_mul(tokens))
    }

    /// Models that only embed get one slot, whatever the server is told.
    fn slots(&self, model: &Stored) -> u32 {
        if model.is_embedding_only() { 1 } else { self.config.num_parallel }
    }

    fn runner(&self, now: Duration, want: &Want) -> Runner {
        let launch = self.launch(want);
        let memory_bytes = self.memory(&want.model, &launch);
        let keep_alive = want.keep_alive.unwrap_or(KeepAlive::from_millis(self.config.keep_alive_ms));
        Runner::new(now, Arc::clone(&want.model), launch, memory_bytes, self.slots(&want.model), keep_alive)
    }
}
