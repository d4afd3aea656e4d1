//! One inference request, from admitted to ended: a state machine without I/O, clock or randomness.
//!
//! The shape is quinn-proto's: the caller tells what happened with [`Exchange::handle`], calls
//! [`Exchange::handle_timeout`] at the time that [`Exchange::poll_timeout`] names, carries out the [`Action`] that either
//! returns, and drains [`Exchange::poll_note`] for what others are to be told. Nothing calls back and nothing waits in
//! here, so that the edge, the simulator and the tests drive the same type.
//!
//! | state | what it waits for | module |
//! |---|---|---|
//! | [`State::Waiting`] | a slot: offered, queued for, held for nodes that are away, or after a pull | `seek` |
//! | [`State::Chosen`] | the caller to send the request to the node of a claimed slot | `attempt` |
//! | [`State::Asking`] | the head of the node's answer | `attempt`, `silence` |
//! | [`State::Replacing`] | whether another node can be asked instead of one that failed | `retry` |
//! | [`State::Answering`] | the end of the answer, passed on or held back | `answer`, `silence` |
//! | [`State::Abandoning`] | the connection to close of a node that is no longer waited for | `retry` |
//! | [`State::Delivering`] | the client to have the last bytes | `end` |
//! | [`State::Ended`] | nothing; the record is final | `end` |
//!
//! A status reaches the client no earlier than the head of an accepted answer (a pull for a streaming client is the one
//! exception), and once a byte of an answer has reached it no other node is asked. Claimed slots live in the states, so
//! that leaving a state gives them back.

mod action;
mod answer;
mod attempt;
mod end;
mod event;
mod find;
mod learn;
mod policy;
mod retry;
mod room;
mod seek;
pub mod silence;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

pub use action::{Action, Note, Obtained, Refusal, Told};
pub use answer::Delivery;
pub use attempt::Attempt;
pub use event::{ConnectError, Event, Nobody, Offer, Pulled, Seen};
pub use find::{Chooser, Found, InTurn};
pub use policy::{Env, ExchangePolicy, Hold};
pub use room::{Dispatch, Parked, TICK_MS, WaitingRoom, pass};
pub use seek::{Mode, Seek, Step, Waiting};

use crate::choice::Choice;
use crate::load::{ModelLoad, NodeLoad};
use crate::patience::GiveUp;
use crate::queue::{Class, Owner};
use crate::record::RequestRecord;
use crate::request::RequestProfile;
use crate::vocabulary::Status;
use retry::Replacement;

/// What an exchange is about, fixed at its start.
#[derive(Debug, Clone)]
pub struct Request {
    /// What it needs.
    pub profile: Arc<RequestProfile>,
    /// Priority class.
    pub class: Class,
    /// Fairness key: requests with the same key share one part of the fleet when it is busy.
    pub fairness_key: Owner,
    /// Name of the one node that may serve it; `None` = any.
    pub only_node: Option<String>,
    /// It measures: it teaches nothing, and fails at once where another request would wait for a node that is away, a
    /// pull or another model.
    pub benchmark: bool,
}

/// A node that was not reached, or went away.
#[derive(Debug, Clone, Copy)]
struct Unreached {
    number: u32,
    /// It refused the connection: its host is there, and nobody listens.
    refused: bool,
}

/// One request being served.
#[derive(Debug)]
pub struct Exchange {
    request: Request,
    began_ms: u64,
    state: State,
    /// What the client has been sent.
    client: Client,
    /// Numbers of the nodes that are not to be asked (again).
    tried: Vec<u32>,
    /// Those of them that were not reached, or went away, so that they may be asked again when they have come back.
    unreachable: Vec<Unreached>,
    /// Nodes that answered with an error: a failure of theirs if a retry succeeds, else perhaps of the request.
    pending_failures: Vec<(Arc<NodeLoad>, Arc<ModelLoad>)>,
    /// Attempts in which a node may have begun to work, as far as they are over.
    attempts_spent: u32,
    /// Start of the hold period: since when it has waited for nodes that are away.
    hold_since_ms: Option<u64>,
    record: RequestRecord,
    /// Why the last node was no longer waited for; `None` = it was.
    gave_up: Option<GiveUp>,
    notes: VecDeque<Note>,
}

/// Where an exchange stands.
#[derive(Debug)]
pub enum State {
    /// It has no slot yet.
    Waiting(Waiting),
    /// It has a slot; the request is not sent yet.
    Chosen(Box<Choice>),
    /// The request is with a node that has not answered.
    Asking(Box<Attempt>),
    /// A node failed, and whether another can be asked is being found out.
    Replacing(Box<Replacement>),
    /// An answer was accepted.
    Answering(Box<Attempt>, Delivery),
    /// The node is no longer waited for, and its connection is being closed. Its slot is taken until then.
    Abandoning(Option<Box<Attempt>>, Option<Delivery>, GiveUp),
    /// The answer came to its end, and its last bytes are on their way to the client.
    Delivering,
    /// Over.
    Ended,
}

/// What the client has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Nothing.
    Nothing,
    /// A status and signs of life during a pull: whatever comes must be told in the body.
    Head,
    /// An answer, or a part of one.
    Answer,
}

impl Exchange {
    /// An exchange of a request that came at `began_ms` and is admitted at `now_ms`. Nodes whose numbers are `excluded` are
    /// not asked. `record` is what is known of it so far.
    #[must_use]
    pub fn new(request: Request, excluded: Vec<u32>, record: RequestRecord, began_ms: u64, now_ms: u64) -> Self {
        Self {
            request,
            began_ms,
            state: State::Waiting(Waiting::new(now_ms)),
            client: Client::Nothing,
            tried: excluded,
            unreachable: Vec::new(),
            pending_failures: Vec::new(),
            attempts_spent: 0,
            hold_since_ms: None,
            record,
            gave_up: None,
            notes: VecDeque::new(),
        }
    }

    /// What it is about.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the client has been sent.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client
    }

    /// What became of it so far.
    #[must_use]
    pub fn record(&self) -> &RequestRecord {
        &self.record
    }

    /// When the request came, on the receiver's clock.
    #[must_use]
    pub fn began_ms(&self) -> u64 {
        self.began_ms
    }

    /// Milliseconds since it began.
    #[must_use]
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.began_ms)
    }

    /// The node that is asked or answers.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        match &self.state {
            State::Asking(attempt) | State::Answering(attempt, _) | State::Abandoning(Some(attempt), ..) => {
                Some(attempt)
            }
            State::Replacing(replacement) => Some(&replacement.failed),
            _ => None,
        }
    }

    /// The slot that was claimed and the node to send the request to.
    #[must_use]
    pub fn chosen(&self) -> Option<&Choice> {
        match &self.state {
            State::Chosen(choice) => Some(choice),
            _ => self.attempt().map(|attempt| &attempt.choice),
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether the node is no longer waited for, and its connection is still to be closed.
    #[must_use]
    pub fn is_abandoning(&self) -> bool {
        matches!(self.state, State::Abandoning(..))
    }

    /// Whether the client is gone, so that there is nobody to be told anything.
    #[must_use]
    pub fn client_is_gone(&self) -> bool {
        self.record.known_status() == Some(Status::ClientDisconnected)
    }

    /// Whether a node is to be asked (again): the caller goes on with [`Event::Ready`].
    #[must_use]
    pub fn wants_node(&self) -> bool {
        matches!(self.state, State::Chosen(_) | State::Waiting(_))
    }

    /// What others are to be told, oldest first.
    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    fn note(&mut self, note: Note) {
        self.notes.push_back(note);
    }

    /// When [`Self::handle_timeout`] is to be called next, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self, env: &Env<'_>) -> Option<u64> {
        match &self.state {
            State::Waiting(waiting) => waiting.timeout_ms(env.policy),
            State::Asking(attempt) | State::Answering(attempt, _) => Some(attempt.silence.due_ms()),
            _ => None,
        }
    }

    /// Tells that the time named by [`Self::poll_timeout`] has come; `signs` is what is known of the node that is silent.
    pub fn handle_timeout(&mut self, env: &Env<'_>, signs: &dyn silence::Signs) -> Action {
        let may_ask_another = self.may_ask_another(env);
        match &mut self.state {
            State::Waiting(_) => self.wait_is_over(env),
            State::Asking(attempt) | State::Answering(attempt, _) => {
                let tried = may_ask_another.then_some(&self.tried[..]);
                match attempt.silence.judge(signs, tried, &env.policy.patience, env.now_ms) {
                    silence::Verdict::Wait => Action::None,
                    silence::Verdict::GiveUp(why) => self.abandon(why),
                }
            }
            _ => Action::None,
        }
    }

    /// Tells what happened; returns what is to be done. An event that does not fit the state is late and changes nothing.
    pub fn handle(&mut self, event: Event, env: &Env<'_>) -> Action {
        match event {
            Event::Ready => self.go_on(env),
            Event::Offered(offer) => self.offered(offer, env),
            Event::Pulled(pulled) => self.pulled(pulled, env),
            Event::HeadSent => self.head_sent(),
            Event::Sent { name } => self.sent(name, env),
            Event::Unconnected(error) => self.failed(error.into(), env),
            Event::Broke { reused } => self.broke(reused, env),
            Event::Head { status } => self.head(status, env),
            Event::Bytes(bytes) => self.bytes(bytes, env),
            Event::HeldTooMuch => self.pass_held(),
            Event::Finished(seen, now) => self.finished(seen, &now, env),
            Event::Observed(seen) => self.observed(&seen),
            Event::ClientLeft => self.client_left(Told::Disconnected, env),
            Event::ClientViolated => self.client_left(Told::Violated, env),
            Event::Delivered => self.delivered(),
            Event::Dropped => self.dropped(env),
        }
    }

    fn take_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Ended)
    }
}
