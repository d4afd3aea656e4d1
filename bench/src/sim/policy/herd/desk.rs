//! Where herd's decisions get their facts in virtual time: the fleet, the clock and the room in which requests wait.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use herd_core::budget::{BudgetLimits, Retries};
use herd_core::choice::{FleetView as _, Freed};
use herd_core::decide::{Order, Policy};
use herd_core::exchange::silence::Known;
use herd_core::exchange::{
    Action, Chooser, Dispatch, Env, Exchange, ExchangePolicy, Found, Hold, Mode, Note, Offer, Parked, Seek, TICK_MS,
    WaitingRoom, pass,
};
use herd_core::fleet::{Applied, FleetSnapshot, HeartbeatLimits, Loaded};
use herd_core::inspect::{InspectLimits, inspect};
use herd_core::queue::QueueLimits;
use herd_core::request::{RequestProfile, Surface};
use herd_core::wire::Heartbeat;

use super::report::sender;
use crate::sim::catalogue::MODELS;
use crate::sim::engine::PASS_MS_PER_NODE;
use crate::sim::workload::Request;
use crate::view::View;

/// The fleet as the edge knows it, and the slots that it hands out.
pub(super) struct Desk {
    view: View,
    changed: Arc<Changed>,
    room: RefCell<WaitingRoom<usize>>,
    /// What was handed out in the pass under way.
    handed: RefCell<Vec<(usize, Offer)>>,
    policy: ExchangePolicy,
    retries: Retries,
    profiles: Vec<RequestProfile>,
    passed_ms: f64,
}

/// Whether anything has become free, or is new, since slots were handed out.
#[derive(Debug, Default)]
struct Changed(AtomicBool);

impl Freed for Changed {
    fn slot_freed(&self) {
        self.0.store(true, Relaxed);
    }
}

impl Dispatch for Desk {
    type Caller = usize;

    fn room<R>(&self, act: impl FnOnce(&mut WaitingRoom<usize>) -> R) -> R {
        act(&mut self.room.borrow_mut())
    }

    fn chooser(&self) -> &impl Chooser {
        &self.view
    }

    fn queue_limits(&self) -> QueueLimits {
        QueueLimits::default()
    }

    fn hold(&self) -> Hold {
        self.policy.hold
    }

    fn hand(&self, request: usize, offer: Offer) {
        self.handed.borrow_mut().push((request, offer));
    }
}

impl Desk {
    pub(super) fn new(order: Order) -> Self {
        let changed: Arc<Changed> = Arc::default();
        let freed = Arc::clone(&changed) as Arc<dyn Freed>;
        let default = ExchangePolicy::default();
        Self {
            view: View::new(Policy { order, ..Policy::default() }, Some(freed)),
            changed,
            room: RefCell::default(),
            handed: RefCell::default(),
            // All nodes report before the first request comes.
            policy: ExchangePolicy { hold: Hold { start_ms: 0, ..default.hold }, ..default },
            retries: Retries::new(BudgetLimits::default()),
            profiles: MODELS.iter().map(|model| profile_of(model.name)).collect(),
            passed_ms: 0.0,
        }
    }

    pub(super) fn env(&self) -> Env<'_> {
        Env { now_ms: self.view.now_ms, policy: &self.policy, retries: &self.retries }
    }

    /// Sets the clock; returns what it shows.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    pub(super) fn set_time(&mut self, now_ms: f64) -> u64 {
        self.view.now_ms = now_ms as u64;
        self.view.now_ms
    }

    pub(super) fn fleet(&self) -> Arc<FleetSnapshot> {
        self.view.snapshot()
    }

    /// A request has come.
    pub(super) fn earn_retry(&self) {
        self.retries.earn();
    }

    /// What a client asks for.
    pub(super) fn profile(&self, request: &Request) -> RequestProfile {
        RequestProfile {
            prompt_tokens: request.estimate,
            tokens_at_once: request.estimate,
            num_ctx: request.num_ctx,
            max_output_tokens: request.limit,
            conversation: request.prefix.map(|(session, _)| session),
            ..self.profiles[request.model].clone()
        }
    }

    pub(super) fn heartbeat(&mut self, heartbeat: Heartbeat) {
        let limits = HeartbeatLimits { nodes: 1 << 16, ..HeartbeatLimits::default() };
        let applied = self.view.snapshot.apply(heartbeat, sender(), self.view.now_ms, &self.view.policy.life, &limits);
        if let Ok(Applied::Changed(next)) = applied {
            self.replace(next);
        }
    }

    pub(super) fn probed(&self, node: usize, answers: bool) {
        let load = &self.view.snapshot.nodes[node].load;
        load.set_probe_failed(!answers);
        if answers {
            load.probe_succeeded(self.view.now_ms);
        }
        self.changed.slot_freed();
    }

    fn replace(&mut self, next: FleetSnapshot) {
        self.view.snapshot = Arc::new(next);
        self.changed.slot_freed();
    }

    /// What the exchange has for the fleet.
    pub(super) fn hear(&mut self, exchange: &mut Exchange) {
        while let Some(note) = exchange.poll_note() {
            let Note::Loaded { node, model, context_length, signature } = note else { continue };
            let loaded = Loaded { node, model: &model, context_length, signature };
            if let Some(next) = self.view.snapshot.with_loaded(&loaded, self.view.now_ms) {
                self.replace(next);
            }
            exchange.load_known();
            self.changed.slot_freed();
        }
    }

    /// What `request` finds that seeks a slot; `ticket` is its place in the room, if that is what it gets.
    pub(super) fn offer(&mut self, request: usize, seek: Seek, ticket: &mut Option<u64>) -> Offer {
        if seek.mode != Mode::Queue {
            return seek.at_once(&self.view);
        }
        let waiting = self.room.borrow().waiting_for(seek.profile.model.key());
        let decision = match seek.first(&self.view, waiting, &self.policy.hold) {
            Found::Offer(offer) => return offer,
            Found::Wait(decision) => decision,
        };
        let id = self.view.ticket();
        let waiter = seek.waiter(id, decision.as_ref(), &self.view.snapshot, self.view.now_ms);
        let parked = Parked::new(seek, decision.as_ref(), request);
        let predicted_ms = parked.predicted_ms;
        match self.room.borrow_mut().enter(waiter, parked, &QueueLimits::default()) {
            Ok(displaced) => self.handed.borrow_mut().extend(displaced),
            Err(offer) => return offer,
        }
        self.changed.slot_freed();
        *ticket = Some(id);
        Offer::Queued { predicted_ms }
    }

    pub(super) fn leave(&self, ticket: Option<u64>) {
        ticket.map(|id| self.room.borrow_mut().leave(id));
    }

    /// The exchange wants to go on by itself.
    pub(super) fn time_has_come(&self, exchange: &mut Exchange) -> Action {
        let known = Known::of(exchange, &self.view, &self.view, false);
        exchange.handle_timeout(&self.env(), &known)
    }

    /// Hands out slots, if that is due.
    pub(super) fn pass(&mut self, now_ms: f64) -> Vec<(usize, Offer)> {
        if self.passes_ms().is_some_and(|at_ms| now_ms >= at_ms) {
            self.changed.0.store(false, Relaxed);
            self.passed_ms = now_ms;
            if !pass(&*self, self.view.snapshot.nodes.len()) {
                self.changed.slot_freed();
            }
        }
        self.handed.take()
    }

    /// When slots are handed out next; `None` = nobody waits. What happens while that goes on is looked at afterwards.
    pub(super) fn passes_ms(&self) -> Option<f64> {
        let took_ms = self.view.snapshot.nodes.len() as f64 * PASS_MS_PER_NODE;
        let rest_ms = if self.changed.0.load(Relaxed) { took_ms } else { took_ms.max(TICK_MS as f64) };
        (!self.room.borrow().is_empty()).then_some(self.passed_ms + rest_ms)
    }
}

/// What a client asks of `model`, made by the same code that reads bodies. No other model may answer.
fn profile_of(model: &str) -> RequestProfile {
    let body = format!(r#"{{"model":"{model}","fallback":false,"messages":[{{"role":"user","content":"x"}}]}}"#);
    inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).expect("the body is right")
}
