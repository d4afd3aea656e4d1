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
use herd_core::fleet::FleetSnapshot;
use herd_core::queue::{Class, Queue, QueueFull, Waiter, group};
use herd_core::request::RequestProfile;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::LiveConfig;
use crate::fleet::Fleet;
use crate::selector::{Choice, Outcome, Place, Selector};
use crate::wake::Wake;

/// How often those who wait are decided anew though nothing was heard: back-offs, ejections and ages end by time alone.
const TICK: Duration = Duration::from_millis(200);

/// A request that asks for a slot.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What it needs.
    pub profile: Arc<RequestProfile>,
    /// Numbers of the nodes that were asked already.
    pub tried: Vec<u32>,
    /// How urgent it is.
    pub class: Class,
    /// Whose it is.
    pub app: u64,
    /// Its name, for those who look.
    pub request_id: Arc<str>,
    /// It waits for nodes that are briefly away.
    pub holds: bool,
    /// When it began to wait for a node that is away; kept over its attempts.
    pub held_since_ms: Option<u64>,
    /// Nodes that it did not reach are asked again in a moment: no other model serves it meanwhile.
    pub awaits_unreached: bool,
}

/// What came of asking.
pub enum Answer {
    /// A slot.
    Chosen(Box<Choice>),
    /// It waits.
    Waits(Ticket),
    /// No node can serve it, and waiting would not change that.
    Nobody(Box<(Decision, Arc<FleetSnapshot>)>),
    /// Too many wait; with the predicted wait, milliseconds.
    Refused(QueueFull, f64),
}

/// What a waiting request is handed.
pub enum Handed {
    /// A slot.
    Chosen(Box<Choice>),
    /// No node can serve it any more.
    Nobody(Box<(Decision, Arc<FleetSnapshot>)>),
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
    hand: oneshot::Sender<Handed>,
    /// Since when no node could serve it.
    held_since_ms: Option<u64>,
    /// What it waits for, for those who look.
    reason: &'static str,
    /// Until it is predicted to start, milliseconds.
    predicted_ms: f64,
}

/// A place in the queue, given up when this is dropped.
pub struct Ticket {
    id: u64,
    dispatcher: Arc<Dispatcher>,
    handed: oneshot::Receiver<Handed>,
}

impl Ticket {
    /// Resolves when the request's turn has come, or no node can serve it any more; `None` = the edge stops. Safe to
    /// cancel.
    pub async fn turn(&mut self) -> Option<Handed> {
        (&mut self.handed).await.ok()
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

    /// Asks for a slot.
    pub fn ask(self: &Arc<Self>, ask: Ask) -> Answer {
        let model = ask.profile.model.key();
        let waiting = if self.wake.waiting() > 0 { self.lock().queue.waiting_for(model) } else { 0 };
        if waiting > 0 {
            let place = Place { ahead: u32::try_from(waiting).unwrap_or(u32::MAX), ..Place::default() };
            let decision = self.selector.look(&ask.profile, &ask.tried, place);
            return self.park(ask, Some(&decision));
        }
        match self.selector.choose(&ask.profile, &ask.tried, Place::default()) {
            Outcome::Chosen(choice) => Answer::Chosen(choice),
            Outcome::Full(full) => self.park(ask, Some(&full.0)),
            Outcome::Nobody(nobody) if self.may_hold(&ask, &nobody.0, &nobody.1, ask.held_since_ms) => {
                self.park(ask, None)
            }
            Outcome::Nobody(nobody) if ask.awaits_unreached => Answer::Nobody(nobody),
            Outcome::Nobody(nobody) => match self.last_chance(&ask.profile, &ask.tried) {
                Outcome::Chosen(choice) => Answer::Chosen(choice),
                Outcome::Full(full) => self.park(ask, Some(&full.0)),
                Outcome::Nobody(_) => Answer::Nobody(nobody),
            },
        }
    }

    /// Any loaded model that can do the same, for a request whose nodes have been waited for in vain.
    #[must_use]
    pub fn last_chance(&self, profile: &RequestProfile, tried: &[u32]) -> Outcome {
        self.selector.choose(profile, tried, Place { allow_any_substitute: true, ..Place::default() })
    }

    /// Claims a slot at once or not at all: for a retry, for which the answer so far is given up.
    #[must_use]
    pub fn another(&self, profile: &RequestProfile, tried: &[u32]) -> Outcome {
        self.selector.choose(profile, tried, Place::default())
    }

    fn park(self: &Arc<Self>, ask: Ask, decision: Option<&Decision>) -> Answer {
        let id = self.numbers.fetch_add(1, Relaxed);
        let now_ms = self.fleet.now_ms();
        let best = decision.and_then(|decision| decision.candidates.first());
        let predicted_ms = decision.and_then(Decision::until_start_ms).unwrap_or(0.0);
        let (hand, handed) = oneshot::channel();
        let reason = best.map_or("queue", |best| best.readiness.name());
        let windows = ask.profile.num_ctx.map(|_| self.fleet.snapshot().windows(&ask.profile.model));
        let group = group(&ask.profile, &ask.tried, &windows.unwrap_or_default());
        let mut state = self.lock();
        let work_ms = best.map(|best| best.prediction.prefill_ms + best.prediction.decode_ms);
        let waiter = Waiter {
            id,
            class: ask.class,
            app: ask.app,
            model: ask.profile.model.key(),
            group,
            expected_ms: work_ms.unwrap_or(f64::NAN),
            since_ms: now_ms,
        };
        if let Err(full) = state.queue.admit(waiter, &self.config.now().queue) {
            let queued_ms = state.parked.values().map(|parked| parked.predicted_ms).fold(predicted_ms, f64::max);
            return Answer::Refused(full, queued_ms);
        }
        let held_since_ms = ask.held_since_ms;
        state.parked.insert(id, Parked { ask: Arc::new(ask), hand, held_since_ms, reason, predicted_ms });
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

    /// Whether a request that no node can serve now should wait for one: nodes that have its model are briefly away,
    /// or the edge has just started and has not heard of all.
    fn may_hold(&self, ask: &Ask, decision: &Decision, snapshot: &FleetSnapshot, since_ms: Option<u64>) -> bool {
        let (hold, now_ms) = (self.config.now().hold, self.fleet.now_ms());
        let held_ms = since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        let away = decision
            .refused
            .iter()
            .any(|(index, reason)| reason.passes() && !ask.tried.contains(&snapshot.nodes[*index].number));
        let starting = now_ms < hold.start_ms && ask.tried.is_empty() && self.fleet.awaits_known();
        ask.holds && ((away && held_ms < hold.max_ms) || starting)
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
