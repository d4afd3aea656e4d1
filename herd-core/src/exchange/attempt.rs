//! One node being asked.

use std::sync::Arc;

use super::silence::Silence;
use super::{Action, Env, Exchange, Note, State};
use crate::choice::Choice;
use crate::name::ModelName;
use crate::patience::{GiveUp, evidence};
use crate::protect::overflow;
use crate::record::Candidates;

/// One node being asked.
#[derive(Debug)]
pub struct Attempt {
    /// The node and its slot.
    pub choice: Choice,
    /// The name that the node is asked for, another than the model's when an alias keeps its runner.
    pub name: ModelName,
    /// When it was asked, milliseconds.
    pub began_ms: u64,
    /// How long it has been silent.
    pub silence: Silence,
}

impl Attempt {
    /// Whether the node is asked for an alias.
    #[must_use]
    pub fn uses_alias(&self) -> bool {
        self.name != self.choice.model
    }
}

impl Exchange {
    /// The request is on its way to the node that was chosen.
    pub(super) fn sent(&mut self, name: ModelName, env: &Env<'_>) -> Action {
        let mut choice = match self.take_state() {
            State::Chosen(choice) => *choice,
            other => {
                self.state = other;
                return Action::None;
            }
        };
        let age_ms = self.age_ms(env.now_ms) as f64;
        self.record.asks(choice.node().id.as_str(), choice.model.as_str(), &choice.candidate, age_ms);
        self.record.stands_in(choice.stand_in);
        self.record.overflow = overflow(&self.request.profile, choice.candidate.plan.window).is_some();
        let ranked = std::mem::take(&mut choice.ranked);
        self.record.candidates = Candidates::Ranked(ranked, Arc::clone(&choice.snapshot));
        let number = choice.node().number;
        self.tried.push(number);
        let before = evidence(&choice.snapshot, number, &choice.model).unwrap_or_default();
        let candidate = &choice.candidate;
        let silence = Silence::begin(&self.request.profile, &candidate.plan, &candidate.prediction, before, env.now_ms);
        self.state = State::Asking(Box::new(Attempt { choice, name, began_ms: env.now_ms, silence }));
        self.note(Note::Asked);
        Action::None
    }

    /// Stops waiting, wherever it is: a node that is asked keeps its slot until its connection is closed.
    pub fn abandon(&mut self, why: GiveUp) -> Action {
        let (attempt, delivery) = match self.take_state() {
            State::Ended => return Action::None,
            // It is over but for the last bytes on their way to the client.
            State::Delivering => {
                self.state = State::Delivering;
                return Action::None;
            }
            State::Abandoning(attempt, delivery, earlier) => {
                self.state = State::Abandoning(attempt, delivery, earlier);
                return Action::Abandon(earlier);
            }
            State::Waiting(_) | State::Chosen(_) => (None, None),
            State::Asking(attempt) => (Some(attempt), None),
            State::Replacing(replacement) => (Some(replacement.failed), None),
            State::Answering(attempt, delivery) => (Some(attempt), Some(delivery)),
        };
        self.state = State::Abandoning(attempt, delivery, why);
        Action::Abandon(why)
    }
}
