//! How a request comes to a slot: at once, after its turn in the queue, after nodes that are away have come back, or after
//! its model was pulled.

use std::sync::Arc;

use super::end::is_known;
use super::silence::ASLEEP_MS;
use super::{
    Action, Client, Env, Exchange, ExchangePolicy, Hold, Nobody, Note, Obtained, Offer, Pulled, Refusal, State,
};
use crate::choice::Choice;
use crate::decide::Decision;
use crate::fleet::FleetSnapshot;
use crate::protect::overflow;
use crate::queue::{Class, Owner};
use crate::request::RequestProfile;
use crate::vocabulary::Status;

/// Pause before nodes that were not reached are asked again, milliseconds.
const UNREACHABLE_PAUSE_MS: u64 = 250;
/// Longest that nodes are waited for that all refuse connections. An Ollama that is started anew listens within a second
/// or two; one that does not run is better told of at once.
const REFUSED_HOLD_MS: u64 = 2_500;
/// What a request whose deadline passed while this process was frozen still gets, milliseconds: for slots that became
/// free meanwhile.
const GRACE_MS: u64 = 1_000;

/// A request without a slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waiting {
    /// Since when, milliseconds.
    pub since_ms: u64,
    /// From when its wait in the queue is measured, milliseconds.
    pub queued_from_ms: u64,
    /// What it waits for.
    pub step: Step,
}

/// What a request without a slot waits for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// The caller to go on.
    Ready,
    /// An offer.
    Seeking,
    /// Its turn in the queue, which was predicted to come after so many milliseconds.
    Queued {
        /// The prediction.
        predicted_ms: f64,
    },
    /// Nodes that were not reached to come back.
    Pausing {
        /// When they are asked again.
        until_ms: u64,
    },
    /// A pull of its model.
    Pulling,
}

/// A request for a slot.
#[derive(Debug, Clone)]
pub struct Seek {
    /// What it needs.
    pub profile: Arc<RequestProfile>,
    /// Numbers of the nodes that are not asked.
    pub tried: Vec<u32>,
    /// Priority class.
    pub class: Class,
    /// Fairness key.
    pub fairness_key: Owner,
    /// Whether it waits for nodes that are briefly away.
    pub holds: bool,
    /// Start of the hold period; kept over its attempts. `None` = it has not begun.
    pub hold_since_ms: Option<u64>,
    /// Nodes that it did not reach are asked again in a moment: no other model serves it meanwhile.
    pub awaits_unreachable: bool,
    /// What it takes.
    pub mode: Mode,
}

/// What a request for a slot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A slot, or a place in the queue.
    Queue,
    /// A slot that is free now, or none.
    AtOnce,
    /// The same, of any loaded model that can do the same.
    AnySubstitute,
}

/// What becomes of a request for a slot that no node can serve now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenNobody {
    /// It waits: nodes with its model are briefly away, or have not reported yet.
    Hold,
    /// Any loaded model that can do the same may serve it; else it is told that nobody can.
    TrySubstitutes,
    /// It is told that nobody can.
    Tell,
}

impl Seek {
    /// What becomes of it when `decision` has no candidate; `hold_since_ms` is the start of its hold period if that has
    /// begun.
    #[must_use]
    pub(super) fn when_nobody(
        &self,
        decision: &Decision,
        snapshot: &FleetSnapshot,
        hold: &Hold,
        hold_since_ms: Option<u64>,
        now_ms: u64,
    ) -> WhenNobody {
        let held_ms = hold_since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        let returns = |(index, reason): &(usize, crate::eligible::Ineligible)| {
            reason.passes() && !self.tried.contains(&snapshot.nodes[*index].number)
        };
        let away = held_ms < hold.max_ms && decision.refused.iter().any(returns);
        let starting = now_ms < hold.start_ms && self.tried.is_empty();
        match self.holds && (away || starting) {
            true => WhenNobody::Hold,
            false if self.awaits_unreachable => WhenNobody::Tell,
            false => WhenNobody::TrySubstitutes,
        }
    }
}

impl Waiting {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { since_ms: now_ms, queued_from_ms: now_ms, step: Step::Ready }
    }

    pub(super) fn timeout_ms(&self, policy: &ExchangePolicy) -> Option<u64> {
        match self.step {
            Step::Queued { .. } => Some(self.queued_from_ms.saturating_add(policy.max_wait_ms)),
            Step::Pausing { until_ms } => Some(until_ms),
            Step::Ready | Step::Seeking | Step::Pulling => None,
        }
    }
}

impl Exchange {
    /// The caller is ready.
    pub(super) fn go_on(&mut self, env: &Env<'_>) -> Action {
        match &self.state {
            State::Chosen(choice) => {
                let overflow = overflow(&self.request.profile, choice.candidate.plan.window);
                match overflow.filter(|_| env.policy.refuse_overflow) {
                    Some(overflow) => {
                        let model = choice.model.clone();
                        self.refuse(Status::Rejected, Refusal::Overflow(overflow, model), env)
                    }
                    None => Action::Ask,
                }
            }
            State::Waiting(waiting) if waiting.step == Step::Ready => self.seek_slot(env),
            State::Abandoning(..) => self.abandoned(env),
            _ => Action::None,
        }
    }

    fn seek_slot(&mut self, env: &Env<'_>) -> Action {
        self.step(Step::Seeking);
        Action::Seek(Box::new(self.seek(Mode::Queue, env)))
    }

    pub(super) fn seek(&self, mode: Mode, env: &Env<'_>) -> Seek {
        Seek {
            profile: Arc::clone(&self.request.profile),
            tried: self.tried.clone(),
            class: self.request.class,
            fairness_key: self.request.fairness_key,
            holds: !self.request.benchmark,
            hold_since_ms: self.hold_since_ms,
            awaits_unreachable: self.awaits_unreachable(env),
            mode,
        }
    }

    fn step(&mut self, step: Step) {
        if let State::Waiting(waiting) = &mut self.state {
            waiting.step = step;
        }
    }

    /// An offer came.
    pub(super) fn offered(&mut self, offer: Offer, env: &Env<'_>) -> Action {
        match &self.state {
            State::Waiting(Waiting { step: Step::Seeking | Step::Queued { .. }, .. }) => self.take_offer(offer, env),
            State::Replacing(_) => self.replacement_offered(offer, env),
            State::Abandoning(..) => self.abandoned(env),
            // Late: a slot in it is given back by dropping it.
            _ => Action::None,
        }
    }

    fn take_offer(&mut self, offer: Offer, env: &Env<'_>) -> Action {
        match offer {
            Offer::Chosen(choice, _) if self.forbids(&choice) => {
                self.tried.push(choice.node().number);
                drop(choice);
                self.seek_slot(env)
            }
            Offer::Chosen(choice, how) => self.take_choice(choice, how, env),
            Offer::Queued { predicted_ms } => {
                self.record.predicted_ms.get_or_insert(predicted_ms);
                self.step(Step::Queued { predicted_ms });
                Action::Wait
            }
            Offer::Full => Action::Wait,
            Offer::Nobody(nobody) => self.nobody(nobody, env),
            Offer::QueueFull(full, predicted_ms) => {
                self.note(Note::QueueRefused { timeout: false });
                self.refuse(Status::Rejected, Refusal::QueueFull(full, predicted_ms), env)
            }
            Offer::Stopping => self.refuse(Status::Rejected, Refusal::Stopping, env),
        }
    }

    fn take_choice(&mut self, choice: Box<Choice>, how: Obtained, env: &Env<'_>) -> Action {
        self.note(Note::Chosen(how));
        self.end_wait(env);
        self.state = State::Chosen(choice);
        self.go_on(env)
    }

    /// Adds what it waited to the record.
    pub(super) fn end_wait(&mut self, env: &Env<'_>) {
        if let State::Waiting(waiting) = &self.state {
            self.record.waited(env.now_ms.saturating_sub(waiting.since_ms) as f64);
        }
    }

    /// Whether the request may not go to the node of `choice`: one that joined after the others were excluded.
    pub(super) fn forbids(&self, choice: &Choice) -> bool {
        self.request.only_node.as_ref().is_some_and(|only| choice.node().id.as_str() != only)
    }

    fn nobody(&mut self, nobody: Nobody, env: &Env<'_>) -> Action {
        let benchmark = self.request.benchmark;
        if !benchmark && self.requeue_unreachable(env) {
            self.step(Step::Pausing { until_ms: env.now_ms + UNREACHABLE_PAUSE_MS });
            return Action::Wait;
        }
        let known = is_known(&nobody, &self.request.profile.model);
        if benchmark || !self.record.attempts.is_empty() || known {
            let refusal = if known { Refusal::Nobody(nobody) } else { Refusal::ModelNotFound(nobody) };
            return self.refuse(Status::Rejected, refusal, env);
        }
        self.step(Step::Pulling);
        Action::Pull
    }

    /// Makes nodes that were not reached eligible again, if they are still worth waiting for.
    fn requeue_unreachable(&mut self, env: &Env<'_>) -> bool {
        self.hold_since_ms.get_or_insert(env.now_ms);
        // A pause that was worth it ends with an attempt, whose failure says more than that there was one.
        if !self.is_worth_waiting(UNREACHABLE_PAUSE_MS, env) {
            return false;
        }
        let unreachable = std::mem::take(&mut self.unreachable);
        self.tried.retain(|number| !unreachable.iter().any(|one| one.number == *number));
        true
    }

    /// Whether there are nodes that were not reached and are still worth waiting for.
    pub(super) fn awaits_unreachable(&self, env: &Env<'_>) -> bool {
        self.is_worth_waiting(0, env)
    }

    /// The same for so much longer than they are held for.
    fn is_worth_waiting(&self, longer_ms: u64, env: &Env<'_>) -> bool {
        let held_ms = self.hold_since_ms.map_or(0, |since_ms| env.now_ms.saturating_sub(since_ms));
        let all_refuse = self.unreachable.iter().all(|one| one.refused);
        let most_ms = env.policy.hold.max_ms.min(if all_refuse { REFUSED_HOLD_MS } else { u64::MAX });
        !self.unreachable.is_empty() && most_ms > 0 && held_ms < most_ms.saturating_add(longer_ms)
    }

    /// The client has a status before there is an answer.
    pub(super) fn head_sent(&mut self) -> Action {
        if self.client == Client::Nothing && !self.has_ended() {
            self.client = Client::Head;
            self.record.http_status = 200;
        }
        Action::None
    }

    /// A pull is over.
    pub(super) fn pulled(&mut self, pulled: Pulled, env: &Env<'_>) -> Action {
        let State::Waiting(waiting) = &mut self.state else { return self.go_on(env) };
        match pulled {
            Pulled::Done => {
                waiting.queued_from_ms = env.now_ms;
                self.seek_slot(env)
            }
            Pulled::Failed { status, http_status, message } => {
                self.refuse(status, Refusal::PullFailed { http_status, message }, env)
            }
        }
    }

    /// The time of a wait has come.
    pub(super) fn wait_is_over(&mut self, env: &Env<'_>) -> Action {
        let State::Waiting(waiting) = &mut self.state else { return Action::None };
        let Some(due_ms) = waiting.timeout_ms(env.policy).filter(|due_ms| env.now_ms >= *due_ms) else {
            return Action::None;
        };
        match waiting.step {
            Step::Queued { .. } if env.now_ms - due_ms > ASLEEP_MS => {
                waiting.queued_from_ms = (env.now_ms + GRACE_MS).saturating_sub(env.policy.max_wait_ms);
                Action::None
            }
            Step::Queued { predicted_ms } => {
                self.note(Note::QueueRefused { timeout: true });
                self.refuse(Status::Rejected, Refusal::QueueTimeout(predicted_ms), env)
            }
            _ => self.seek_slot(env),
        }
    }
}
