//! What a node's failure means: for the node, for the request, and for the fleet's budget of retries.
//!
//! While the client has no byte of an answer, another node is asked: within the attempts and the time of the request and
//! the budget of the fleet, and if there is one. Where there is none, the node's own answer is the client's, if it gave
//! one.

use std::sync::Arc;

use super::{Action, Attempt, Client, Delivery, Env, Exchange, Mode, Note, Offer, Refusal, State, Waiting};
use crate::choice::Choice;
use crate::load::{ModelLoad, NodeLoad};
use crate::patience::GiveUp;
use crate::vocabulary::{Failure, Outcome, Status};

/// A node that failed counts as this slow, so that fast failures do not look like speed.
const FAILURE_PENALTY_MS: f64 = 60_000.0;

/// A failed attempt for which another is sought.
#[derive(Debug)]
pub struct Replacement {
    /// The attempt. Its slot is taken until it is known what follows.
    pub failed: Box<Attempt>,
    /// How it failed.
    pub failure: Failure,
    /// What is sought.
    sought: Sought,
    /// The status of the node's own answer, which the client gets if no other node is asked; `None` = it gave none.
    status: Option<u16>,
}

/// What is sought in place of a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sought {
    /// Another node.
    Other,
    /// Any node, the one that was busy included.
    OtherOrSame,
    /// A node with any model that can do the same.
    Substitute,
}

impl Exchange {
    /// The connection broke, or was closed because the node is no longer waited for.
    pub(super) fn broke(&mut self, reused: bool, env: &Env<'_>) -> Action {
        match &self.state {
            State::Abandoning(..) => self.abandoned(env),
            // One such connection is bad luck; a second one may as well be a request that nodes do not survive, which
            // must not go through the whole fleet.
            State::Asking(_) if reused && !self.has_met(Failure::StaleConnection) => {
                self.failed(Failure::StaleConnection, env)
            }
            State::Asking(_) | State::Answering(..) => self.failed(Failure::Reset, env),
            // It was judged already, and another node was chosen or is waited for.
            State::Waiting(_) | State::Chosen(_) => Action::Retry,
            State::Replacing(_) | State::Delivering | State::Ended => Action::None,
        }
    }

    /// The node that is asked failed.
    pub(super) fn failed(&mut self, failure: Failure, env: &Env<'_>) -> Action {
        match self.take_state() {
            State::Asking(attempt) | State::Answering(attempt, Delivery::Held) => {
                self.replace(attempt, failure, None, env)
            }
            State::Answering(attempt, Delivery::Passing) => {
                let address = attempt.choice.node().address;
                self.state = State::Answering(attempt, Delivery::Passing);
                self.refuse(Status::Incomplete, Refusal::Failed(failure, address), env)
            }
            other => {
                self.state = other;
                Action::None
            }
        }
    }

    /// The connection of a node that is no longer waited for has been closed, or there was none.
    pub(super) fn abandoned(&mut self, env: &Env<'_>) -> Action {
        let State::Abandoning(attempt, delivery, why) = self.take_state() else { return Action::None };
        self.gave_up = Some(why);
        let Some(failure) = Failure::of_give_up(why) else {
            return match (why, delivery) {
                (GiveUp::Cancelled, _) => self.refuse(Status::Cancelled, Refusal::Cancelled, env),
                (_, Some(_)) => self.refuse(Status::Incomplete, Refusal::Stopping, env),
                (_, None) => self.refuse(Status::Rejected, Refusal::Stopping, env),
            };
        };
        match (attempt, delivery) {
            (Some(attempt), Some(Delivery::Passing)) => {
                let address = attempt.choice.node().address;
                self.refuse(Status::Reaped, Refusal::Failed(failure, address), env)
            }
            (Some(attempt), _) => self.replace(attempt, failure, None, env),
            // Nothing that waits for a slot is given up for its silence.
            (None, _) => self.refuse(Status::Failed, Refusal::Stopping, env),
        }
    }

    /// Whether an attempt has ended with `failure` before.
    fn has_met(&self, failure: Failure) -> bool {
        self.record.attempts.iter().any(|attempt| attempt.outcome.known() == Some(Outcome::Failed(failure)))
    }

    /// Notes a failure, and seeks another node where one may be asked.
    pub(super) fn replace(
        &mut self,
        failed: Box<Attempt>,
        failure: Failure,
        status: Option<u16>,
        env: &Env<'_>,
    ) -> Action {
        self.record_failure(&failed, failure, env);
        let number = failed.choice.node().number;
        self.attempts_spent += u32::from(failure.was_sent());
        if failure.is_absence() {
            self.unreachable.push(super::Unreached { number, refused: failure == Failure::ConnectRefused });
        }
        let alias_lost = failure == Failure::ModelNotFound && failed.uses_alias();
        if alias_lost {
            self.note(Note::AliasLost(failed.choice.node().address));
        }
        // The same node gets a new one: an alias, or a connection.
        let repeats = alias_lost || (self.request.benchmark && failure == Failure::StaleConnection);
        if repeats {
            self.tried.retain(|tried| *tried != number);
        }
        let may = self.may_ask_again(self.attempts_spent, env) && (!self.request.benchmark || repeats);
        let replacement = Replacement { failed, failure, sought: Sought::Other, status };
        if !may {
            return self.cannot_replace(replacement, env);
        }
        self.seek_replacement(replacement, env)
    }

    /// Whether another node may be asked once the one that is asked has been given up, if there is one.
    pub(super) fn may_ask_another(&self, env: &Env<'_>) -> bool {
        // A benchmark is to see the failures of its node.
        !self.request.benchmark
            && self.may_ask_again(self.attempts_spent + 1, env)
            && env.retries.left(env.now_ms) >= 1.0
    }

    /// Whether a node may be asked (again) after so many attempts.
    fn may_ask_again(&self, attempts_spent: u32, env: &Env<'_>) -> bool {
        self.client != Client::Answer
            && attempts_spent < env.policy.max_attempts
            && self.age_ms(env.now_ms) < env.policy.retry_deadline_ms
    }

    fn seek_replacement(&mut self, replacement: Replacement, env: &Env<'_>) -> Action {
        let mode = if replacement.sought == Sought::Substitute { Mode::AnySubstitute } else { Mode::AtOnce };
        self.state = State::Replacing(Box::new(replacement));
        Action::Seek(Box::new(self.seek(mode, env)))
    }

    /// What is there in place of a failed attempt.
    pub(super) fn replacement_offered(&mut self, offer: Offer, env: &Env<'_>) -> Action {
        let State::Replacing(replacement) = self.take_state() else { return Action::None };
        let mut replacement = *replacement;
        let nobody = !matches!(offer, Offer::Chosen(..) | Offer::Full);
        if replacement.sought == Sought::Other && self.may_ask_the_same(&replacement, &offer, env) {
            // It rests a moment; then it may have room, sooner than the others perhaps.
            let number = replacement.failed.choice.node().number;
            self.tried.retain(|tried| *tried != number);
            replacement.sought = Sought::OtherOrSame;
            return self.seek_replacement(replacement, env);
        }
        if nobody && replacement.sought == Sought::Substitute {
            return self.cannot_replace(replacement, env);
        }
        if nobody && !replacement.failure.is_absence() {
            return self.cannot_replace(replacement, env);
        }
        if nobody && !self.awaits_unreachable(env) {
            replacement.sought = Sought::Substitute;
            return self.seek_replacement(replacement, env);
        }
        // A retry of what was never sent adds no work to the fleet.
        if replacement.failure.was_sent() && !env.retries.spend(env.now_ms) {
            self.note(Note::BudgetExhausted);
            return self.cannot_replace(replacement, env);
        }
        match offer {
            Offer::Chosen(choice, _) if self.forbids(&choice) => self.cannot_replace(replacement, env),
            Offer::Chosen(choice, _) => self.retry(&replacement, Some(choice), env),
            _ => self.retry(&replacement, None, env),
        }
    }

    /// Whether a node that was busy may be asked once more: no other has room, and it is not the last attempt while
    /// another node could be asked, be it that it is busy too or must load the model.
    fn may_ask_the_same(&self, replacement: &Replacement, offer: &Offer, env: &Env<'_>) -> bool {
        let last = self.attempts_spent + 1 == env.policy.max_attempts;
        replacement.failure == Failure::Busy
            && match offer {
                Offer::Chosen(..) => false,
                Offer::Full => !last,
                _ => true,
            }
    }

    /// Another node is asked: `next`, or the one whose slot is waited for.
    fn retry(&mut self, replacement: &Replacement, next: Option<Box<Choice>>, env: &Env<'_>) -> Action {
        let age_ms = self.age_ms(env.now_ms) as f64;
        self.record.attempt_failed(Outcome::Failed(replacement.failure), age_ms);
        self.record.discard_answer();
        self.note(Note::Retried(replacement.failure));
        self.state = match next {
            Some(choice) => {
                self.note(Note::Chosen(super::Obtained::Retry));
                State::Chosen(choice)
            }
            None => State::Waiting(Waiting::new(env.now_ms)),
        };
        Action::Retry
    }

    /// No other node is asked: the client gets what the failed one said, or is told that it failed.
    fn cannot_replace(&mut self, replacement: Replacement, env: &Env<'_>) -> Action {
        let Replacement { failed, failure, status, .. } = replacement;
        if let Some(status) = status {
            return self.accept(failed, status, env);
        }
        let address = failed.choice.node().address;
        let ended = match failure {
            Failure::NoProgress => Status::Reaped,
            Failure::TornAnswer => Status::Incomplete,
            Failure::Reset if self.record.first_byte_ms().is_some() => Status::Incomplete,
            _ => Status::Failed,
        };
        self.refuse(ended, Refusal::Failed(failure, address), env)
    }

    /// Notes what a failure says of the node.
    fn record_failure(&mut self, failed: &Attempt, failure: Failure, env: &Env<'_>) {
        let Some(model) = failed.choice.model() else { return };
        let (node, model) = (Arc::clone(&failed.choice.node().load), Arc::clone(&model.load));
        match failure {
            Failure::Busy => model.refused_as_busy(env.now_ms),
            _ if failure.may_be_the_requests() => self.pending_failures.push((node, model)),
            _ if failure.is_nodes_fault() => self.penalise(&node, &model, env),
            _ => {}
        }
    }

    /// Counts a failure against a node.
    pub(super) fn penalise(&self, node: &NodeLoad, model: &ModelLoad, env: &Env<'_>) {
        node.failed(env.now_ms);
        if !self.request.benchmark {
            model.observe(FAILURE_PENALTY_MS, env.now_ms);
        }
    }
}
