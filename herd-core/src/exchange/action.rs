//! What is to be done for an exchange, and what others are told of it.

use std::net::SocketAddr;

use super::{Delivery, Nobody, Seek};
use crate::launch::Signature;
use crate::name::ModelName;
use crate::patience::GiveUp;
use crate::protect::Overflow;
use crate::queue::QueueFull;
use crate::vocabulary::Failure;

/// What the caller does next.
#[derive(Debug)]
#[must_use = "the exchange waits for its action to be carried out"]
pub enum Action {
    /// Nothing: it goes on when something happens.
    None,
    /// Ask for a slot; the answer is [`super::Event::Offered`].
    Seek(Box<Seek>),
    /// Wait for the turn in the queue, for the client to leave, or for [`super::Exchange::poll_timeout`].
    Wait,
    /// Pull the model; the answer is [`super::Event::Pulled`].
    Pull,
    /// Prepare the body for the node of [`super::Exchange::chosen`] and send it; say so with [`super::Event::Sent`].
    Ask,
    /// This attempt is over. Close its connection, send nothing to the client, and go on with [`super::Event::Ready`].
    Retry,
    /// Take the answer: pass it on, or hold it back.
    Accept(Delivery),
    /// The answer that was held back is complete: send it.
    Release,
    /// The answer has come to its end.
    Done,
    /// The answer ended before its own end: tell the client in the body, or by breaking the connection.
    TellTorn,
    /// Close the connection to the node: it is no longer waited for. [`super::Event::Broke`] goes on from there.
    Abandon(GiveUp),
    /// The request is over: tell the client, if it is still there.
    Refuse(Refusal),
    /// The request is over, and nobody is there to be told.
    End,
}

/// What the client is told of a request that is not served.
#[derive(Debug)]
pub enum Refusal {
    /// Too many wait; with the predicted wait in milliseconds.
    QueueFull(QueueFull, f64),
    /// No slot became free in time; with the wait that was predicted, in milliseconds.
    QueueTimeout(f64),
    /// Nodes have its model, and none can serve it now.
    Nobody(Nobody),
    /// No node has its model.
    ModelNotFound(Nobody),
    /// The prompt exceeds the window, and such requests are refused.
    Overflow(Overflow, ModelName),
    /// The pull of its model failed.
    PullFailed {
        /// HTTP status.
        http_status: u16,
        /// For people.
        message: String,
    },
    /// The last node that was asked failed without an answer of its own.
    Failed(Failure, SocketAddr),
    /// The node answered with an error after the client had been sent a status.
    Status(u16),
    /// The edge stops.
    Stopping,
    /// An operator ended it.
    Cancelled,
}

impl Refusal {
    /// HTTP status for the client.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self {
            Self::QueueFull(..) | Self::QueueTimeout(_) | Self::Nobody(_) | Self::Stopping | Self::Cancelled => 503,
            Self::ModelNotFound(_) => 404,
            Self::Overflow(..) => 413,
            Self::PullFailed { http_status, .. } => *http_status,
            Self::Failed(
                Failure::ConnectTimeout | Failure::NoFirstByte | Failure::NoProgress | Failure::NodeDead,
                _,
            ) => 504,
            Self::Failed(..) => 502,
            Self::Status(status) => *status,
        }
    }
}

/// How a client's leaving is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It closed the connection.
    Disconnected,
    /// It sent what the protocol does not allow.
    Violated,
}

impl Told {
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Disconnected => "client disconnected",
            Self::Violated => "client violated the protocol",
        }
    }
}

/// How a slot was obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obtained {
    /// It was free.
    AtOnce,
    /// The request waited for it.
    Waited,
    /// It was claimed when the retry was decided.
    Retry,
}

/// What others are told.
#[derive(Debug)]
pub enum Note {
    /// A slot was obtained.
    Chosen(Obtained),
    /// A node is asked: see [`super::Exchange::attempt`].
    Asked,
    /// Another node is asked, or the same one again, after a failure.
    Retried(Failure),
    /// A retry was not made: the fleet's budget is spent.
    BudgetExhausted,
    /// The queue was full, or the wait was too long.
    QueueRefused {
        /// It was the wait.
        timeout: bool,
    },
    /// A load that this request caused is over. Once the fleet knows, [`super::Exchange::load_known`] gives up the
    /// node's place for loads: in this order, as others must not find a cold model and no load.
    Loaded {
        /// Number of the node.
        node: u32,
        /// The model.
        model: ModelName,
        /// The context that the node was asked for; `None` = its default.
        context_length: Option<u64>,
        /// The launch options of the request.
        signature: Signature,
    },
    /// A node loaded the model although it was known as loaded.
    UnforeseenLoad,
    /// The node at this address has lost the alias that it was asked for.
    AliasLost(SocketAddr),
}
