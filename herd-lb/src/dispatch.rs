//! Late binding: requests wait here, not inside a node's hidden queue, and the first slot to free anywhere takes the
//! best of them.
//!
//! A request that finds room passes by without a lock, unless others wait for the same model. One task hands out what
//! becomes free ([`Dispatcher::run`]); who is next is herd-core's to say. Whoever stops waiting, for whatever reason,
//! drops its [`Ticket`], and with that is gone from the queue.

mod view;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use herd_admin::QueueView;
use herd_core::decide::Decision;
use herd_core::exchange::{self, Chooser, Dispatch, Found, Hold, Offer, Parked, Seek, TICK_MS, WaitingRoom};
use herd_core::queue::QueueLimits;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::LiveConfig;
use crate::fleet::Fleet;
use crate::selector::Selector;
use crate::wake::Wake;

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
    room: Mutex<WaitingRoom<Caller>>,
    numbers: AtomicU64,
    view: ArcSwap<QueueView>,
}

/// How a request that waits is reached.
pub struct Caller {
    /// Its name, for observers (the admin API).
    request_id: Arc<str>,
    hand: oneshot::Sender<Offer>,
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
        self.dispatcher.room(|room| room.get(self.id).map_or(0.0, |parked| parked.predicted_ms))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.dispatcher.room(|room| room.leave(self.id)) {
            self.dispatcher.wake.leave();
        }
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
            room: Mutex::default(),
            numbers: AtomicU64::new(0),
            view: ArcSwap::default(),
        }
    }

    /// Asks for a slot, or for a place in the queue.
    pub fn ask(self: &Arc<Self>, ask: Ask) -> Answer {
        let model = ask.seek.profile.model.key();
        let waiting = if self.wake.waiting() > 0 { self.room(|room| room.waiting_for(model)) } else { 0 };
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

    fn park(self: &Arc<Self>, ask: Ask, decision: Option<&Decision>) -> Answer {
        let Ask { seek, request_id } = ask;
        let id = self.numbers.fetch_add(1, Relaxed);
        let (hand, handed) = oneshot::channel();
        let waiter = seek.waiter(id, decision, &self.fleet.snapshot(), self.fleet.now_ms());
        let parked = Parked::new(seek, decision, Caller { request_id, hand });
        let limits = self.queue_limits();
        match self.room(|room| room.enter(waiter, parked, &limits)) {
            Ok(displaced) => {
                if let Some((caller, offer)) = displaced {
                    self.hand(caller, offer);
                }
            }
            Err(refused) => return Answer::Offer(refused),
        }
        self.wake.enter();
        Answer::Waits(Ticket { id, dispatcher: Arc::clone(self), handed })
    }

    /// Hands out slots until `stop` resolves.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut tick = tokio::time::interval(Duration::from_millis(TICK_MS));
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

    /// Hands out what is free.
    fn pass(&self) {
        if !exchange::pass(self, self.fleet.snapshot().nodes.len()) {
            self.wake.nudge();
        }
        self.publish_view();
    }

    /// Gives up all that wait, as the edge stops: each [`Ticket`] is told by the end of its sender.
    fn turn_away(&self) {
        for caller in self.room(WaitingRoom::clear) {
            self.wake.leave();
            drop(caller);
        }
        self.publish_view();
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.wake.waiting()
    }

    /// What waits, for observers (the admin API); never older than a tick.
    #[must_use]
    pub fn view(&self) -> Arc<QueueView> {
        self.view.load_full()
    }
}

impl Dispatch for Dispatcher {
    type Caller = Caller;

    fn room<R>(&self, act: impl FnOnce(&mut WaitingRoom<Caller>) -> R) -> R {
        // Each change under it is complete before anything can panic.
        act(&mut self.room.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn chooser(&self) -> &impl Chooser {
        &self.selector
    }

    fn queue_limits(&self) -> QueueLimits {
        self.config.now().queue
    }

    /// After the start an unknown model is waited for only while a node is missing that was known before.
    fn hold(&self) -> Hold {
        let hold = self.config.now().exchange.hold;
        if self.fleet.awaits_known() { hold } else { Hold { start_ms: 0, ..hold } }
    }

    fn hand(&self, caller: Caller, offer: Offer) {
        self.wake.leave();
        // Whoever has left in this moment gives its slot back by dropping it.
        drop(caller.hand.send(offer));
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
