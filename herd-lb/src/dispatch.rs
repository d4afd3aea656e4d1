//! Late binding: requests wait here, not inside a node's hidden queue, and the first slot to free anywhere takes the
//! best of them.
//!
//! A request that finds room passes by without a lock, unless others wait for the same model. One task hands out what
//! becomes free ([`Dispatcher::run`]); who is next is herd-core's to say. Whoever stops waiting, for whatever reason,
//! drops its [`Ticket`], and with that is gone from the queue.

mod pass;
mod view;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use herd_admin::QueueView;
use herd_core::decide::Decision;
use herd_core::estimate::needs_load;
use herd_core::exchange::{Chooser as _, Found, Hold, Offer, Seek};
use herd_core::queue::{Queue, QueueFull};
use herd_core::request::RequestProfile;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::LiveConfig;
use crate::fleet::Fleet;
use crate::selector::{Place, Selector};
use crate::wake::Wake;

/// How often those who wait are decided anew though nothing was heard: back-offs, ejections and ages end by time alone.
const TICK: Duration = Duration::from_millis(200);

/// A request that asks for a slot.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What it takes and waits for.
    pub seek: Seek,
    /// Its name, for observers (the admin API).
    pub request_id: Arc<str>,
}

/// What came of asking.
pub enum Answer {
    /// What the request is offered.
    Offer(Offer),
    /// It waits.
    Waits(Ticket),
}

/// Hands out slots.
pub struct Dispatcher {
    fleet: Arc<Fleet>,
    selector: Selector,
    config: LiveConfig,
    wake: Arc<Wake>,
    state: Mutex<State>,
    numbers: AtomicU64,
    view: ArcSwap<QueueView>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    parked: HashMap<u64, Parked>,
}

/// A request that waits.
struct Parked {
    ask: Arc<Ask>,
    hand: oneshot::Sender<Offer>,
    /// Start of the hold period, when no node could serve it; `None` = some could.
    hold_since_ms: Option<u64>,
    /// What it waits for, for observers (the admin API).
    reason: &'static str,
    /// Until it is predicted to start, milliseconds.
    predicted_ms: f64,
}

/// A place in the queue, given up when this is dropped.
pub struct Ticket {
    id: u64,
    dispatcher: Arc<Dispatcher>,
    handed: oneshot::Receiver<Offer>,
}

impl Ticket {
    /// Resolves when the request's turn has come, no node can serve it any more, or the edge stops. Safe to cancel.
    pub async fn turn(&mut self) -> Offer {
        (&mut self.handed).await.unwrap_or(Offer::Stopping)
    }

    /// Predicted time until it starts, milliseconds.
    #[must_use]
    pub fn predicted_ms(&self) -> f64 {
        self.dispatcher.lock().parked.get(&self.id).map_or(0.0, |parked| parked.predicted_ms)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.dispatcher.forget(self.id);
        // A slot that was handed over but not taken: dropping it tells the next one.
        drop(self.handed.try_recv());
    }
}

impl Dispatcher {
    /// Hands out the slots of `fleet`, as `config` says.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>, selector: Selector, config: LiveConfig) -> Self {
        let wake = fleet.changed();
        Self {
            fleet,
            selector,
            config,
            wake,
            state: Mutex::default(),
            numbers: AtomicU64::new(0),
            view: ArcSwap::default(),
        }
    }

    /// Asks for a slot, or for a place in the queue.
    pub fn ask(self: &Arc<Self>, ask: Ask) -> Answer {
        let model = ask.seek.profile.model.key();
        let waiting = if self.wake.waiting() > 0 { self.lock().queue.waiting_for(model) } else { 0 };
        match ask.seek.first(&self.selector, waiting, &self.hold()) {
            Found::Offer(offer) => Answer::Offer(offer),
            Found::Wait(decision) => self.park(ask, decision.as_ref()),
        }
    }

    /// Offers a slot at once or not at all.
    #[must_use]
    pub fn offer(&self, seek: &Seek) -> Offer {
        seek.at_once(&self.selector)
    }

    /// Whether a node that is not in `tried` has the model in memory and could be sent the request of `profile` now.
    #[must_use]
    pub fn has_alternative(&self, profile: &RequestProfile, tried: &[u32]) -> bool {
        let decision = self.selector.look(profile, tried, Place::default());
        decision.ready().any(|candidate| candidate.last_resort.is_none() && !needs_load(&candidate.plan))
    }

    /// How long nodes that are away are waited for; after the start an unknown model only while a node is missing that
    /// was known before.
    fn hold(&self) -> Hold {
        let hold = self.config.now().exchange.hold;
        if self.fleet.awaits_known() { hold } else { Hold { start_ms: 0, ..hold } }
    }

    fn park(self: &Arc<Self>, ask: Ask, decision: Option<&Decision>) -> Answer {
        let id = self.numbers.fetch_add(1, Relaxed);
        let best = decision.and_then(|decision| decision.candidates.first());
        let predicted_ms = decision.and_then(Decision::until_start_ms).unwrap_or(0.0);
        let (hand, handed) = oneshot::channel();
        let reason = best.map_or("queue", |best| best.readiness.name());
        let waiter = ask.seek.waiter(id, decision, &self.fleet.snapshot(), self.fleet.now_ms());
        let mut state = self.lock();
        let limits = self.config.now().queue;
        match state.queue.admit(waiter, &limits) {
            Ok(displaced) => {
                if let Some(parked) = displaced.and_then(|displaced| state.parked.remove(&displaced.id)) {
                    self.wake.leave();
                    let full = QueueFull::Model(limits.max_waiting_per_model);
                    // Whoever is not there to hear it has left anyway.
                    drop(parked.hand.send(Offer::QueueFull(full, parked.predicted_ms)));
                }
            }
            Err(full) => {
                let queued_ms = state.parked.values().map(|parked| parked.predicted_ms).fold(predicted_ms, f64::max);
                return Answer::Offer(Offer::QueueFull(full, queued_ms));
            }
        }
        let hold_since_ms = ask.seek.hold_since_ms;
        state.parked.insert(id, Parked { ask: Arc::new(ask), hand, hold_since_ms, reason, predicted_ms });
        drop(state);
        self.wake.enter();
        Answer::Waits(Ticket { id, dispatcher: Arc::clone(self), handed })
    }

    /// Takes `id` out of the queue, if it is still there.
    fn forget(&self, id: u64) {
        let mut state = self.lock();
        state.queue.remove(id);
        if state.parked.remove(&id).is_some() {
            self.wake.leave();
        }
    }

    /// Hands out slots until `stop` resolves.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = self.wake.nudged() => {}
                _ = tick.tick() => {}
                () = &mut stop => return,
            }
            if self.fleet.cutting() {
                self.turn_away();
            } else if self.wake.waiting() > 0 || !self.view.load().waiting.is_empty() {
                let began = Instant::now();
                self.pass();
                rest(began.elapsed()).await;
            }
        }
    }

    /// Gives up all that wait, as the edge stops: each [`Ticket`] is told by the end of its sender.
    fn turn_away(&self) {
        let mut state = self.lock();
        let parked = std::mem::take(&mut state.parked);
        for id in parked.keys() {
            state.queue.remove(*id);
        }
        drop(state);
        for one in parked.into_values() {
            self.wake.leave();
            drop(one.hand);
        }
        self.publish_view();
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.wake.waiting()
    }

    /// What waits, for those who look; never older than a tick.
    #[must_use]
    pub fn view(&self) -> Arc<QueueView> {
        self.view.load_full()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change under it is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pass that took long is followed by a rest of three times as long: handing out slots costs a quarter of a core at most.
/// Shorter passes are not worth a timer.
async fn rest(took: Duration) {
    if took >= Duration::from_millis(1) {
        tokio::time::sleep(took * 3).await;
    }
}

#[cfg(test)]
mod tests;
