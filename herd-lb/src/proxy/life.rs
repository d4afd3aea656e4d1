//! The exchange of one request, as the edge drives it: what happened goes in, and what must be done at once is done.

use std::sync::Arc;

use herd_core::budget::{BudgetLimits, Retries};
use herd_core::exchange::silence::Known;
use herd_core::exchange::{Action, Dispatch as _, Env, Event, Exchange, ExchangePolicy, Mode, Note, State};
use herd_core::fleet::Loaded;

use super::Edge;
use super::ctx::Inference;
use crate::config::LiveConfig;
use crate::dispatch::Dispatcher;
use crate::fleet::Fleet;
use crate::live::Life;
use crate::telemetry::QueueRefusal;
use crate::watch::Look;

/// What an exchange is driven with besides events: the fleet, the clock and the operator's word.
pub struct Driver {
    /// The configuration in force.
    pub config: LiveConfig,
    /// The nodes.
    pub fleet: Arc<Fleet>,
    /// Hands out their slots.
    pub dispatcher: Arc<Dispatcher>,
    /// Retries that may be made.
    pub retries: Arc<Retries>,
}

impl Driver {
    /// Drives the exchanges of requests for `fleet`, whose slots `dispatcher` hands out.
    #[must_use]
    pub fn new(config: &LiveConfig, fleet: &Arc<Fleet>, dispatcher: &Arc<Dispatcher>, budget: BudgetLimits) -> Self {
        let (fleet, dispatcher) = (Arc::clone(fleet), Arc::clone(dispatcher));
        Self { config: config.clone(), fleet, dispatcher, retries: Arc::new(Retries::new(budget)) }
    }

    fn env<'a>(&'a self, policy: &'a ExchangePolicy) -> Env<'a> {
        Env { now_ms: self.fleet.now_ms(), policy, retries: &self.retries }
    }

    fn handle(&self, exchange: &mut Exchange, event: Event) -> Action {
        let config = self.config.now();
        let mut action = exchange.handle(event, &self.env(&config.exchange));
        // A replacement is sought while Pingora waits to be told whether there is one.
        while let Action::Seek(seek) = &action
            && seek.mode != Mode::Queue
        {
            let offer = self.dispatcher.offer(seek);
            action = exchange.handle(Event::Offered(offer), &self.env(&config.exchange));
        }
        action
    }

    fn timeout(&self, exchange: &mut Exchange) -> Action {
        let config = self.config.now();
        let known = Known::of(exchange, &*self.fleet, self.dispatcher.chooser(), self.fleet.cutting());
        exchange.handle_timeout(&self.env(&config.exchange), &known)
    }

    /// Milliseconds until the exchange wants to be looked at; `None` = when something happens.
    fn due_in_ms(&self, exchange: &Exchange) -> Option<u64> {
        let config = self.config.now();
        let env = self.env(&config.exchange);
        exchange.poll_timeout(&env).map(|due_ms| due_ms.saturating_sub(env.now_ms))
    }

    /// How the connection of the client watches the silence of the node that is asked.
    pub(super) fn looker(self: &Arc<Self>, life: Life) -> impl FnMut() -> Look + Send + 'static {
        let driver = Arc::clone(self);
        move || {
            let mut exchange = life.lock();
            loop {
                match exchange.state() {
                    State::Abandoning(_, _, why) => return Look::Abandoned(*why),
                    // Waits for a slot are timed where they are waited for.
                    State::Waiting(_) => return Look::Wait(None),
                    _ => {}
                }
                match driver.due_in_ms(&exchange) {
                    Some(0) => {}
                    due => return Look::Wait(due),
                }
                if let Action::Abandon(why) = driver.timeout(&mut exchange) {
                    return Look::Abandoned(why);
                }
            }
        }
    }
}

impl Edge {
    /// Tells the exchange what happened; returns what is to be done that cannot be done at once.
    pub(super) fn step(&self, inference: &Inference, event: Event) -> Action {
        self.with(inference, |exchange| self.driver.handle(exchange, event))
    }

    /// The time of a wait for a slot has come.
    pub(super) fn wait_is_over(&self, inference: &Inference) -> Action {
        self.with(inference, |exchange| self.driver.timeout(exchange))
    }

    /// When a wait for a slot ends by itself, on the edge's clock; `None` = it does not.
    pub(super) fn wait_ends_ms(&self, inference: &Inference) -> Option<u64> {
        let due_in_ms = self.driver.due_in_ms(&inference.life.lock())?;
        Some(self.fleet.now_ms().saturating_add(due_in_ms))
    }

    fn with(&self, inference: &Inference, act: impl FnOnce(&mut Exchange) -> Action) -> Action {
        let mut exchange = inference.life.lock();
        let action = act(&mut exchange);
        self.carry_notes(inference, &mut exchange);
        if let Some(live) = &inference.live {
            live.show(&exchange);
        }
        action
    }

    /// Tells others what the exchange has for them.
    fn carry_notes(&self, inference: &Inference, exchange: &mut Exchange) {
        let telemetry = self.telemetry_of(&inference.marks);
        while let Some(note) = exchange.poll_note() {
            match note {
                Note::Chosen(how) => telemetry.chosen(how.into()),
                Note::Asked => {
                    if let Some(attempt) = exchange.attempt() {
                        telemetry.asked(&attempt.choice.candidate);
                    }
                }
                Note::Retried(failure) => telemetry.retried(failure),
                Note::BudgetExhausted => telemetry.budget_exhausted(),
                Note::QueueRefused { timeout: true } => telemetry.queue_refused(QueueRefusal::Timeout),
                Note::QueueRefused { timeout: false } => telemetry.queue_refused(QueueRefusal::Full),
                Note::Loaded { node, model, context_length, signature } => {
                    self.fleet.loaded(&Loaded { node, model: &model, context_length, signature });
                    exchange.load_known();
                }
                Note::UnforeseenLoad => telemetry.unforeseen_load(),
                Note::AliasLost(address) => self.aliases.lost(address),
            }
        }
    }
}
