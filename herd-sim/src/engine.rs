//! The scheduler with a clock and somebody to wake: requests wait here, and leave by dropping what they were given.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::sleep_until,
};

use super::{
    catalog::Stored,
    clock::Clock,
    scheduler::{Grant, Refusal, Runner, Scheduler, SchedulerCounters, Ticket, Want},
    slots::{Pace, RunnerView},
};

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
        let view = |runner: &Runner| RunnerView::of(runner, |ticket| state.paces.get(&ticket).copied(), now);
        state.scheduler.runners().iter().map(view).collect()
    }

    /// Name of the model being loaded, as `/api/ps` will show it; at most one.
    pub(crate) fn loading(&self) -> Vec<String> {
        let mut state = self.lock();
        state.scheduler.advance(self.clock.now());
        state.deliver(None);
        state.scheduler.loading().map(|model| model.shown.clone()).into_iter().collect()
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
