//! What every policy is: told what a router is told, it says what is to be done.

use super::node::{Report, Timing};
use super::workload::{NodeSpec, Request};

/// What a policy wants done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Action {
    /// Send a request to a node.
    Send(Sent),
    /// Tell the client that its request fails.
    Refuse {
        /// The request.
        request: usize,
    },
    /// Close the connection to the node that a request was sent to: it is no longer waited for.
    Abandon {
        /// The request.
        request: usize,
    },
    /// Have a node load a model with nobody waiting for it.
    Preload {
        /// The node.
        node: usize,
        /// Index of the model.
        model: usize,
    },
}

/// A request on its way to a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sent {
    /// The request.
    pub(crate) request: usize,
    /// The node.
    pub(crate) node: usize,
    /// `num_ctx` as it is sent; `None` = the request names none.
    pub(crate) context: Option<u64>,
    /// `keep_alive`, milliseconds.
    pub(crate) keep_ms: f64,
}

/// How a node has failed a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody listened, or no connection was made in time.
    Unreached,
    /// The connection was reset.
    Reset,
    /// Silence for longer than the policy waits.
    Silent,
    /// It said that it is busy.
    Busy,
    /// It said that the model does not fit.
    Error,
}

/// How long a policy waits for what does not answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Patience {
    /// For a connection.
    pub(crate) connect_ms: f64,
    /// For a node that has fallen silent; infinite = the policy gives it up itself.
    pub(crate) silence_ms: f64,
}

/// What a policy knows from the start, which agents and configuration files tell in practice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World<'a> {
    /// The fleet: machines, and what is on their disks.
    pub(crate) nodes: &'a [NodeSpec],
    /// The requests, for those that have arrived.
    pub(crate) requests: &'a [Request],
}

/// A policy.
pub(crate) trait Router {
    /// How long it waits.
    fn patience(&self) -> Patience;

    /// A report has come; it was made when the node looked like that.
    fn heartbeat(&mut self, world: World<'_>, now_ms: f64, node: usize, report: &Report);

    /// The router's own health probe has found that a node answers, or that it no longer does.
    fn probed(&mut self, _now_ms: f64, _node: usize, _answers: bool) {}

    /// A client has sent a request.
    fn arrives(&mut self, world: World<'_>, now_ms: f64, request: usize, out: &mut Vec<Action>);

    /// The first byte of an answer has come.
    fn first_byte(&mut self, _world: World<'_>, _now_ms: f64, _request: usize, _node: usize, _out: &mut Vec<Action>) {}

    /// An answer is complete.
    fn done(&mut self, world: World<'_>, now_ms: f64, ended: Ended, out: &mut Vec<Action>);

    /// A node has failed a request. Where nothing was answered the policy may send it again; else it has failed.
    fn failed(&mut self, world: World<'_>, now_ms: f64, failed: Failed, out: &mut Vec<Action>);

    /// All that is due at this time has happened.
    fn settle(&mut self, _world: World<'_>, _now_ms: f64, _out: &mut Vec<Action>) {}

    /// Whether requests wait at it.
    fn waits(&self) -> bool {
        false
    }

    /// When it wants to be asked to settle though nothing happens.
    fn wakes_ms(&self) -> Option<f64> {
        None
    }
}

/// An answer that is complete.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ended {
    /// The request.
    pub(crate) request: usize,
    /// The node.
    pub(crate) node: usize,
    /// When it was sent there.
    pub(crate) sent_ms: f64,
    /// What the answer tells.
    pub(crate) timing: Timing,
}

/// A request that a node has failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Failed {
    /// The request.
    pub(crate) request: usize,
    /// The node.
    pub(crate) node: usize,
    /// How.
    pub(crate) failure: Failure,
    /// Its answer had begun, so that it cannot be sent again.
    pub(crate) answered: bool,
}
