//! What the edge knows of one request, from its header to its end. Whatever is counted is returned when it is dropped.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use herd_core::request::{Dialect, RequestProfile};

use super::body::Held;
use super::reply::Reply;
use crate::active::ActiveGuard;
use crate::connection::Connection;
use crate::selector::Choice;
use crate::trace::{Status, Trace};

/// One request.
pub struct RequestCtx {
    /// Its connection.
    pub connection: Arc<Connection>,
    /// Its place among the requests under way.
    pub active: Option<ActiveGuard>,
    /// Its name: the client's, or made here.
    pub request_id: String,
    /// The form of errors that it understands.
    pub dialect: Dialect,
    /// What becomes of it; `None` = not an inference request.
    pub inference: Option<Inference>,
    /// The edge's own answer when it cannot be proxied.
    pub reply: Option<Reply>,
}

/// The part of an inference request.
pub struct Inference {
    /// What it asks.
    pub profile: RequestProfile,
    /// Its body, until an answer has been accepted.
    pub held: Option<Held>,
    /// Numbers of the nodes that were asked.
    pub tried: Vec<u32>,
    /// The node that is asked now.
    pub attempt: Option<Attempt>,
    /// The node to ask next, claimed when the retry was decided.
    pub next: Option<Choice>,
    /// How it ends.
    pub trace: Trace,
}

/// One node being asked.
pub struct Attempt {
    /// The node and its slot.
    pub choice: Choice,
    /// The body that it gets; taken when sent.
    pub body: Option<Bytes>,
    /// Length of that body.
    pub body_bytes: usize,
    /// When it was chosen.
    pub began: Instant,
}

impl RequestCtx {
    /// A request that has just come in.
    #[must_use]
    pub fn new(connection: Arc<Connection>) -> Self {
        let request_id = format!("{:016x}", fastrand::u64(..));
        let dialect = Dialect::Ollama;
        Self { connection, active: None, request_id, dialect, inference: None, reply: None }
    }

    /// The headers that tell how the request was routed.
    #[must_use]
    pub fn fleet_headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("X-Request-Id", self.request_id.clone())];
        let Some(inference) = &self.inference else { return headers };
        headers.push(("X-Fleet-Attempts", inference.trace.attempts.to_string()));
        if let Some(attempt) = &inference.attempt {
            let choice = &attempt.choice;
            headers.push(("X-Fleet-Node", choice.node().id.to_string()));
            headers.push(("X-Fleet-Model", choice.model.to_string()));
            headers.push(("X-Fleet-Score", format!("{:.1}", choice.candidate.total)));
            headers.push(("X-Fleet-Context", choice.candidate.plan.action.to_string()));
            let wait_ms = choice.candidate.prediction.until_start_ms();
            headers.push(("X-Fleet-Predicted-Wait-Ms", format!("{wait_ms:.0}")));
            if choice.model != inference.profile.model {
                headers.push(("X-Fleet-Fallback", inference.profile.model.to_string()));
            }
        }
        headers
    }
}

impl Drop for RequestCtx {
    fn drop(&mut self) {
        self.connection.request_ended();
    }
}

impl Inference {
    /// A request whose body has been read.
    #[must_use]
    pub fn new(profile: RequestProfile, held: Held, mut trace: Trace) -> Self {
        trace.model = profile.model.to_string();
        Self { profile, held: Some(held), tried: Vec::new(), attempt: None, next: None, trace }
    }

    /// Asks the node of `choice` from now on.
    pub fn begin_attempt(&mut self, choice: Choice) {
        let original = self.held.as_ref().map(|held| held.bytes.clone()).unwrap_or_default();
        let body = choice.body(&self.profile, &original);
        self.trace.attempts += 1;
        self.trace.node_id = choice.node().id.to_string();
        self.trace.score = choice.candidate.total;
        self.tried.push(choice.node().number);
        self.attempt = Some(Attempt { body_bytes: body.len(), body: Some(body), choice, began: Instant::now() });
    }

    /// Notes how the request ended, once.
    pub fn end(&mut self, status: Status, error: &str) {
        if self.trace.status.is_none() {
            self.trace.status = Some(status);
            error.clone_into(&mut self.trace.error);
        }
    }
}
