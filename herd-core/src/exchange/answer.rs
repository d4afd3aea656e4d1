//! The answer of a node: taken, watched to its end, and passed on or held back.

use super::silence::Stage;
use super::{Action, Attempt, Client, Env, Exchange, Refusal, Seen, State};
use crate::answer::Ending;
use crate::fleet::FleetSnapshot;
use crate::vocabulary::{Failure, Status};

/// How an answer comes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As it comes.
    Passing,
    /// When it is complete: a client that does not stream has no use for a part, and a node that fails before costs it
    /// nothing.
    Held,
}

/// What is told of an answer that ended before its own end.
const TORN: &str = "the answer ended before its own end";

impl Exchange {
    /// The head of an answer came.
    pub(super) fn head(&mut self, status: u16, env: &Env<'_>) -> Action {
        match self.take_state() {
            State::Asking(attempt) => match Failure::of_status(status) {
                Some(failure) => self.replace(attempt, failure, Some(status), env),
                None => self.accept(attempt, status, env),
            },
            other => {
                self.state = other;
                Action::None
            }
        }
    }

    /// Takes the answer of `status` from the node of `attempt`.
    pub(super) fn accept(&mut self, mut attempt: Box<Attempt>, status: u16, env: &Env<'_>) -> Action {
        if Failure::of_status(status).is_none() {
            attempt.choice.node().load.succeeded();
        }
        if status == 200 {
            for (node, model) in std::mem::take(&mut self.pending_failures) {
                self.penalise(&node, &model, env);
            }
            self.learn_load(&mut attempt, env);
            if let Some(model) = attempt.choice.model() {
                model.load.accepted();
            }
        }
        if self.client == Client::Head && status >= 400 {
            return self.refuse(Status::Failed, Refusal::Status(status), env);
        }
        self.record.http_status = status;
        let held = status == 200 && !self.request.profile.stream && self.client == Client::Nothing;
        let delivery = if held { Delivery::Held } else { Delivery::Passing };
        attempt.silence.byte(delivery.stage(), env.now_ms);
        if delivery == Delivery::Passing {
            self.client = Client::Answer;
        }
        self.state = State::Answering(attempt, delivery);
        Action::Accept(delivery)
    }

    /// Bytes of the answer's body came.
    pub(super) fn bytes(&mut self, bytes: usize, env: &Env<'_>) -> Action {
        if let State::Answering(attempt, delivery) = &mut self.state {
            attempt.silence.byte(delivery.stage(), env.now_ms);
            let age_ms = self.age_ms(env.now_ms) as f64;
            self.record.first_byte(age_ms);
            self.record.response_bytes += bytes as u64;
        }
        Action::None
    }

    /// No more of the answer can be held back.
    pub(super) fn pass_held(&mut self) -> Action {
        if let State::Answering(_, delivery) = &mut self.state {
            *delivery = Delivery::Passing;
            self.client = Client::Answer;
        }
        Action::None
    }

    /// The answer came to the end of its framing.
    pub(super) fn finished(&mut self, seen: Seen, now: &FleetSnapshot, env: &Env<'_>) -> Action {
        let (attempt, delivery) = match self.take_state() {
            State::Answering(attempt, delivery) => (attempt, delivery),
            other => {
                self.state = other;
                return Action::None;
            }
        };
        drop(self.observed(&seen));
        let whole = seen.ending == Ending::Complete;
        if !whole && delivery == Delivery::Held && !seen.error_told {
            return self.replace(attempt, Failure::TornAnswer, None, env);
        }
        if whole && self.record.http_status < 400 {
            self.learn(&attempt, &seen, now, env);
        }
        self.client = Client::Answer;
        self.state = State::Delivering;
        if !whole {
            self.record.end(Status::Incomplete, TORN);
        }
        match (whole || seen.error_told, delivery) {
            (true, Delivery::Held) => Action::Release,
            (true, Delivery::Passing) => Action::Done,
            (false, _) => Action::TellTorn,
        }
    }

    /// Keeps what was seen of an answer.
    pub(super) fn observed(&mut self, seen: &Seen) -> Action {
        self.record.counts = seen.counts;
        self.record.finish_reason = seen.reason;
        Action::None
    }
}

impl Delivery {
    fn stage(self) -> Stage {
        match self {
            Self::Held => Stage::Held,
            Self::Passing => Stage::Passing,
        }
    }
}
