//! The scheduler with a clock and somebody to wake: requests wait here, and leave by dropping what they were given.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, oneshot},
    time::sleep_until,
};

use super::{
    catalog::Stored,
    clock::Clock,
    scheduler::{Grant, Refusal, Runner, Scheduler, SchedulerCounters, Ticket, Want},
};

/// What a request does in its slot, fixed when it starts; where it is follows from the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) started: Duration,
    /// When the prompt has been read.
    pub(crate) decode_from: Duration,
    pub(crate) per_token: Duration,
    pub(crate) prompt_tokens: u32,
    pub(crate) answer_tokens: u32,
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

    /// Tokens of the prompt read and of the answer written by `now`.
    fn progress(&self, now: Duration) -> (u32, u32) {
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
    /// The slots, one by one.
    pub slots: Vec<SlotView>,
}

/// The scheduler of one node, shared by its requests.
#[derive(Debug)]
pub(crate) struct Engine {
    clock: Clock,
    state: Mutex<State>,
    /// Told when something became due earlier than [`State::armed`].
    earlier: Notify,
}

#[derive(Debug)]
struct State {
    scheduler: Scheduler,
    waiters: HashMap<Ticket, oneshot::Sender<Result<Grant, Refusal>>>,
    paces: HashMap<Ticket, Pace>,
    /// When the driver will look next.
    armed: Option<Duration>,
}

impl Engine {
    pub(crate) fn new(clock: Clock, scheduler: Scheduler) -> Self {
        let state = State { scheduler, waiters: HashMap::new(), paces: HashMap::new(), armed: None };
        Self { clock, state: Mutex::new(state), earlier: Notify::new() }
    }

    /// Waits until the request may run. Dropping the future, or the lease, is leaving.
    pub(crate) async fn acquire(self: &Arc<Self>, want: Want) -> Result<Lease, Refusal> {
        let (seat, decision) = self.submit(want);
        let grant = match decision {
            Decision::Now(result) => result?,
            // The sender lives in the state as long as the seat does.
            Decision::Later(answer) => answer.await.unwrap_or(Err(Refusal::Busy))?,
        };
        Ok(Lease { grant, seat })
    }

    fn submit(self: &Arc<Self>, want: Want) -> (Seat, Decision) {
        let mut state = self.lock();
        let ticket = state.scheduler.submit(self.clock.now(), want);
        let seat = Seat { engine: Arc::clone(self), ticket };
        let own = state.deliver(Some(ticket));
        let decision = own.map_or_else(
            || {
                let (sender, receiver) = oneshot::channel();
                state.waiters.insert(ticket, sender);
                Decision::Later(receiver)
            },
            Decision::Now,
        );
        self.rearm(&mut state);
        (seat, decision)
    }

    /// Unloads the runner of `model`'s weights once it is idle.
    pub(crate) fn unload(&self, model: &Stored) {
        self.change(|scheduler, now| scheduler.unload(now, &model.blob));
    }

    /// Lets the scheduler keep its times; runs as long as the node does.
    pub(crate) async fn drive(self: Arc<Self>) {
        loop {
            let due = {
                let mut state = self.lock();
                state.scheduler.advance(self.clock.now());
                state.deliver(None);
                state.armed = state.scheduler.next_deadline();
                state.armed
            };
            match due {
                None => self.earlier.notified().await,
                Some(due) => tokio::select! {
                    () = sleep_until(self.clock.instant(due)) => {}
                    () = self.earlier.notified() => {}
                },
            }
        }
    }

    /// Looks at the runners in memory, up to date.
    pub(crate) fn with_runners<T>(&self, look: impl FnOnce(&[Runner]) -> T) -> T {
        let mut state = self.lock();
        state.scheduler.advance(self.clock.now());
        state.deliver(None);
        look(state.scheduler.runners())
    }

    /// Slots of all runners.
    pub(crate) fn slots(&self) -> Vec<RunnerView> {
        let now = self.clock.now();
        let mut state = self.lock();
        state.scheduler.advance(now);
        state.deliver(None);
        state.scheduler.runners().iter().map(|runner| runner_view(runner, &state.paces, now)).collect()
    }

    /// What the scheduler has counted.
    pub(crate) fn counters(&self) -> SchedulerCounters {
        self.lock().scheduler.counters()
    }

    /// Forgets what the scheduler has counted.
    pub(crate) fn reset_counters(&self) {
        self.lock().scheduler.reset_counters();
    }

    fn change(&self, change: impl FnOnce(&mut Scheduler, Duration)) {
        let mut state = self.lock();
        change(&mut state.scheduler, self.clock.now());
        state.deliver(None);
        self.rearm(&mut state);
    }

    fn rearm(&self, state: &mut State) {
        let due = state.scheduler.next_deadline();
        // A later deadline needs no call: the driver wakes at the old one and looks again.
        if due.is_some_and(|due| state.armed.is_none_or(|armed| due < armed)) {
            state.armed = due;
            self.earlier.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Passes decisions on to those who wait; the one about `own` is returned instead.
    fn deliver(&mut self, own: Option<Ticket>) -> Option<Result<Grant, Refusal>> {
        let mut about_own = None;
        for (ticket, decision) in self.scheduler.take_decided() {
            if Some(ticket) == own {
                about_own = Some(decision);
            } else if let Some(waiter) = self.waiters.remove(&ticket) {
                // One who has just gone leaves by its seat, which gives the slot back.
                let _gone = waiter.send(decision);
            }
        }
        about_own
    }
}

enum Decision {
    Now(Result<Grant, Refusal>),
    Later(oneshot::Receiver<Result<Grant, Refusal>>),
}

/// A request's place in the scheduler, given up on drop.
#[derive(Debug)]
struct Seat {
    engine: Arc<Engine>,
    ticket: Ticket,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.engine.lock();
        state.waiters.remove(&self.ticket);
        state.paces.remove(&self.ticket);
        state.scheduler.leave(self.engine.clock.now(), self.ticket);
        state.deliver(None);
        self.engine.rearm(&mut state);
    }
}

/// A slot in a runner, held until dropped.
#[derive(Debug)]
#[must_use = "dropping the lease gives the slot back"]
pub(crate) struct Lease {
    pub(crate) grant: Grant,
    seat: Seat,
}

impl Lease {
    /// Says what the request does, for [`Engine::slots`].
    pub(crate) fn set_pace(&self, pace: Pace) {
        self.seat.engine.lock().paces.insert(self.seat.ticket, pace);
    }
}

fn runner_view(runner: &Runner, paces: &HashMap<Ticket, Pace>, now: Duration) -> RunnerView {
    let n_ctx = runner.launch.num_ctx;
    let slots: Vec<SlotView> = (0..runner.slots)
        .map(|id| {
            let ticket = runner.running.get(id as usize);
            let pace = ticket.and_then(|ticket| paces.get(ticket));
            let view = SlotView { id, is_processing: ticket.is_some(), n_ctx, ..SlotView::default() };
            pace.map_or(view.clone(), |pace| {
                let (n_prompt_tokens_processed, n_decoded) = pace.progress(now);
                let n_remain = pace.answer_tokens - n_decoded;
                SlotView { n_prompt_tokens: pace.prompt_tokens, n_prompt_tokens_processed, n_decoded, n_remain, ..view }
            })
        })
        .collect();
    RunnerView {
        model: runner.model.shown.clone(),
        blob: runner.model.blob.clone(),
        n_ctx,
        slots_total: runner.slots,
        slots_busy: u32::try_from(runner.running.len()).unwrap_or(u32::MAX),
        waiting: u32::try_from(runner.waiting.len()).unwrap_or(u32::MAX),
        tokens_left: slots.iter().map(|slot| u64::from(slot.n_remain)).sum(),
        prompt_tokens_left: slots.iter().map(SlotView::prompt_left).sum(),
        slots,
    }
}
