//! What can happen to an exchange.

use std::sync::Arc;

use super::Obtained;
use crate::answer::{Counts, Ending, Reason};
use crate::choice::Choice;
use crate::decide::Decision;
use crate::fleet::FleetSnapshot;
use crate::name::ModelName;
use crate::queue::QueueFull;
use crate::vocabulary::{Failure, Status};

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The caller is ready for the next step: at the start, and after [`super::Action::Retry`].
    Ready,
    /// The answer to [`super::Action::Seek`], and later that of the queue.
    Offered(Offer),
    /// The answer to [`super::Action::Pull`].
    Pulled(Pulled),
    /// A status was sent to the client while a pull runs.
    HeadSent,
    /// The answer to [`super::Action::Ask`]: the node is asked for `name`, another than the model's where an alias keeps
    /// its runner.
    Sent {
        /// The name.
        name: ModelName,
    },
    /// No connection to the node was made.
    Unconnected(ConnectError),
    /// The connection to the node broke, or was closed on [`super::Action::Abandon`].
    Broke {
        /// It had served an earlier request, so that the node may have closed it before this one came.
        reused: bool,
    },
    /// The head of the node's answer came.
    Head {
        /// Its status.
        status: u16,
    },
    /// Bytes of the body of the answer came.
    Bytes(usize),
    /// No more of the answer can be held back: what is held was passed on.
    HeldTooMuch,
    /// The body of the answer came to the end of its framing; with the fleet as it is then.
    Finished(Seen, Arc<FleetSnapshot>),
    /// The client has been sent all that there was for it.
    Delivered,
    /// The answer will not be read further; this is what was seen of it.
    Observed(Seen),
    /// The client disconnected.
    ClientLeft,
    /// The client violated the protocol.
    ClientViolated,
    /// The caller gives it up without a word, as when its task is dropped.
    Dropped,
}

/// Why no connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// Nobody listens there.
    Refused,
    /// None was made in time.
    TimedOut,
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused => Self::ConnectRefused,
            ConnectError::TimedOut => Self::ConnectTimeout,
        }
    }
}

/// What a request is offered that seeks a slot.
#[derive(Debug)]
pub enum Offer {
    /// A slot.
    Chosen(Box<Choice>, Obtained),
    /// A place in the queue, with the predicted wait in milliseconds.
    Queued {
        /// Predicted time until it starts.
        predicted_ms: f64,
    },
    /// Nodes can serve it, but none has room now; only where it would not wait.
    Full,
    /// No node can serve it, and waiting would not change that.
    Nobody(Nobody),
    /// Too many wait; with the predicted wait in milliseconds.
    QueueFull(QueueFull, f64),
    /// The edge stops, and hands out no more slots.
    Stopping,
}

/// A decision without candidates, with its reasons and the snapshot that it was made on.
pub type Nobody = Box<(Decision, Arc<FleetSnapshot>)>;

/// What came of a pull.
#[derive(Debug)]
pub enum Pulled {
    /// A node has the model now.
    Done,
    /// It cannot be had, at least not now.
    Failed {
        /// How the request ends by it.
        status: Status,
        /// HTTP status for the client.
        http_status: u16,
        /// For people.
        message: String,
    },
}

/// What was seen of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// What it is if it ends here.
    pub ending: Ending,
    /// Its backend told an error in the surface's own form, so that the client knows.
    pub error_told: bool,
    /// What the backend said of its work.
    pub counts: Counts,
    /// Why the model stopped; `None` = not told.
    pub reason: Option<Reason>,
    /// How many tokens a piece of it had; `None` = not told.
    pub tokens_per_piece: Option<f64>,
}

impl Seen {
    /// A whole answer of which nothing is known.
    pub const WHOLE: Self = Self {
        ending: Ending::Complete,
        error_told: false,
        counts: Counts {
            prompt_tokens: None,
            completion_tokens: None,
            estimated: false,
            load_ms: None,
            prefill_ms: None,
            decode_ms: None,
            total_ms: None,
        },
        reason: None,
        tokens_per_piece: None,
    };
}
