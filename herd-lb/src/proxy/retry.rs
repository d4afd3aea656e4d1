//! What a node's failure means: for the node, for the request, and for the fleet's budget of retries.

use std::sync::{Arc, Mutex, PoisonError};

use herd_core::budget::{BudgetLimits, RetryBudget};
use herd_core::load::{ModelLoad, NodeLoad};
use herd_core::vocabulary::{Failure, GiveUp, Outcome};
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::answer::Answer;
use super::ctx::{Inference, RequestCtx};
use super::marks::Marks;
use super::{Edge, is_clients};
use crate::selector;

/// A node that failed counts as this slow, so that fast failures do not look like speed.
const FAILURE_PENALTY_MS: f64 = 60_000.0;

/// What a connection that could not be made says of the node.
pub(super) fn failure_of_connect(error: &Error) -> Failure {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::ConnectTimeout,
        _ => Failure::ConnectRefused,
    }
}

/// Retries that may be made over all requests.
#[derive(Debug)]
pub struct Retries(Mutex<RetryBudget>);

impl Retries {
    /// A full budget.
    #[must_use]
    pub fn new(limits: BudgetLimits) -> Self {
        Self(Mutex::new(RetryBudget::new(limits)))
    }

    /// A request begins.
    pub fn earn(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).earn();
    }

    /// Retries that are left.
    #[must_use]
    pub fn left(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).left()
    }

    fn spend(&self, now_ms: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spend(now_ms)
    }
}

impl Edge {
    /// Takes a node's answer, or asks the next node instead.
    pub(super) fn accept_or_retry(&self, inference: &mut Inference, response: &mut ResponseHeader) -> Result<()> {
        let status = response.status.as_u16();
        let failure = Failure::of_status(status);
        if let Some(failure) = failure
            && self.retry(inference, failure)
        {
            let mut error = Error::explain(ErrorType::HTTPStatus(status), failure.name()).into_up();
            error.set_retry(true);
            return Err(error);
        }
        if inference.committed && status >= 400 {
            // With this type it has been judged: see `retry_after_error`.
            return Err(Error::explain(ErrorType::HTTPStatus(status), "the node answered with an error").into_up());
        }
        self.accept(inference, response, status);
        Ok(())
    }

    fn accept(&self, inference: &mut Inference, response: &mut ResponseHeader, status: u16) {
        let now_ms = self.fleet.now_ms();
        inference.held = None;
        inference.trace.http_status = status;
        let Some(attempt) = &mut inference.attempt else { return };
        attempt.last_byte.came(now_ms);
        let failure = Failure::of_status(status);
        if failure.is_none() {
            attempt.choice.node().load.succeeded();
        }
        if status == 200 {
            for suspect in std::mem::take(&mut inference.suspects) {
                self.convict(&inference.marks, &suspect);
            }
            self.note_load(inference);
        }
        let Some(attempt) = &inference.attempt else { return };
        if let Some(model) = attempt.choice.model().filter(|_| status == 200) {
            model.load.accepted();
        }
        if failure == Some(Failure::Busy) && !response.headers.contains_key(RETRY_AFTER) {
            let rests_ms = attempt.choice.model().map_or(0, |model| model.load.backs_off_for_ms(now_ms));
            drop(response.insert_header(RETRY_AFTER, rests_ms.div_ceil(1000).max(1)));
        }
        let renamed = attempt.name != attempt.choice.model;
        if renamed {
            response.remove_header(&CONTENT_LENGTH);
        }
        let open_ended = !response.headers.contains_key(CONTENT_LENGTH);
        if renamed && response.version == http::Version::HTTP_11 {
            drop(response.insert_header(http::header::TRANSFER_ENCODING, "chunked"));
        }
        let surface = inference.profile.surface;
        let answer = Answer::new(surface, inference.profile.stream, status, open_ended);
        let told = inference.spelled.as_str();
        inference.answer = Some(if renamed { answer.renamed(attempt.name.as_str(), told) } else { answer });
    }

    /// Notes a failure, and whether another node is asked instead: while none has answered, within the limits of this
    /// request and of the fleet, and if there is one.
    pub(super) fn retry(&self, inference: &mut Inference, failure: Failure) -> bool {
        self.blame(inference, failure);
        let Some(number) = inference.attempt.as_ref().map(|attempt| attempt.choice.node().number) else { return false };
        inference.sent += u32::from(failure.was_sent());
        if failure.is_absence() {
            inference.unreached.push(number);
        }
        let benchmark = inference.marks.benchmark;
        let lost_alias = self.lost_alias(inference, failure);
        if lost_alias || (benchmark && failure == Failure::StaleConnection) {
            // The same node gets a new one: an alias, or a connection.
            inference.tried.retain(|tried| *tried != number);
        }
        let limits = &self.config.now().retry;
        let may = inference.answer.is_none()
            && inference.sent < limits.max_attempts
            && inference.trace.began().elapsed() < limits.deadline
            // A benchmark is to see the failures of its node.
            && (!benchmark || lost_alias || failure == Failure::StaleConnection)
            && self.find_another(inference, failure, number);
        if may {
            self.telemetry_of(&inference.marks).retried(failure);
            inference.end_attempt(Outcome::Failed(failure));
            inference.retrying = true;
        }
        may
    }

    /// Whether a busy node is not asked again: no more than one attempt is left, and another node can be asked, be it
    /// that it is busy too or must load the model.
    fn is_left_at_last(&self, inference: &Inference, others: &selector::Outcome) -> bool {
        let last = inference.sent + 1 == self.config.now().retry.max_attempts;
        last && !matches!(others, selector::Outcome::Nobody(_))
    }

    fn find_another(&self, inference: &mut Inference, failure: Failure, number: u32) -> bool {
        let mut outcome = self.dispatcher.another(&inference.profile, &inference.tried);
        let free = matches!(outcome, selector::Outcome::Chosen(_));
        if failure == Failure::Busy && !free && !self.is_left_at_last(inference, &outcome) {
            // It rests a moment; then it may have room, sooner than the others perhaps.
            inference.tried.retain(|tried| *tried != number);
            outcome = self.dispatcher.another(&inference.profile, &inference.tried);
        }
        let nobody = matches!(outcome, selector::Outcome::Nobody(_));
        if nobody && !(failure.is_absence() && (self.awaits_unreached(inference) || self.has_stand_in(inference))) {
            return false;
        }
        // A retry of what was never sent adds no work to the fleet.
        if failure.was_sent() && !self.retries.spend(self.fleet.now_ms()) {
            inference.next = None;
            self.telemetry_of(&inference.marks).budget_exhausted();
            return false;
        }
        if let selector::Outcome::Chosen(choice) = outcome {
            if inference.marks.forbid(&choice) {
                return false;
            }
            inference.next = Some(choice);
        }
        true
    }

    /// Whether the node has lost the alias that it was asked for; then it is not thought to have it any more.
    fn lost_alias(&self, inference: &Inference, failure: Failure) -> bool {
        let Some(attempt) = inference.attempt.as_ref().filter(|_| failure == Failure::ModelNotFound) else {
            return false;
        };
        let lost = attempt.name != attempt.choice.model;
        if lost {
            self.aliases.lost(attempt.choice.node().address);
        }
        lost
    }

    /// Whether there are nodes that were not reached and are still worth waiting for.
    pub(super) fn awaits_unreached(&self, inference: &Inference) -> bool {
        let held_ms = inference.held_since_ms.map_or(0, |since_ms| self.fleet.now_ms().saturating_sub(since_ms));
        !inference.unreached.is_empty() && held_ms < self.config.now().hold.max_ms
    }

    /// Whether another model can serve a request whose nodes have been waited for in vain; claimed if it can at once.
    fn has_stand_in(&self, inference: &mut Inference) -> bool {
        match self.dispatcher.last_chance(&inference.profile, &inference.tried) {
            selector::Outcome::Chosen(choice) => inference.next = Some(choice),
            selector::Outcome::Full(_) => {}
            selector::Outcome::Nobody(_) => return false,
        }
        true
    }

    /// Notes what a failure says of the node. That it answered with an error may be the request's own fault, which
    /// Ollama also calls 500: the node is blamed only when another one serves the request.
    fn blame(&self, inference: &mut Inference, failure: Failure) {
        let Some(attempt) = &inference.attempt else { return };
        let Some(model) = attempt.choice.model() else { return };
        let suspect = (Arc::clone(&attempt.choice.node().load), Arc::clone(&model.load));
        match failure {
            Failure::Busy => suspect.1.refused_as_busy(self.fleet.now_ms()),
            Failure::ErrorStatus => inference.suspects.push(suspect),
            _ if failure.is_nodes_fault() => self.convict(&inference.marks, &suspect),
            _ => {}
        }
    }

    fn convict(&self, marks: &Marks, (node, model): &(Arc<NodeLoad>, Arc<ModelLoad>)) {
        let now_ms = self.fleet.now_ms();
        node.failed(now_ms);
        if !marks.benchmark {
            model.observe(FAILURE_PENALTY_MS, now_ms);
        }
    }

    /// Whether another node is asked after `error` has ended an attempt.
    pub(super) fn retry_after_error(
        &self,
        error: &Error,
        session: &Session,
        ctx: &mut RequestCtx,
        reused: bool,
    ) -> bool {
        let gave_up = ctx.connection.awaited().take_gave_up();
        ctx.connection.awaited().end();
        let Some(inference) = &mut ctx.inference else { return false };
        inference.gave_up = gave_up;
        let unanswered = inference.answer.is_none() && (session.response_written().is_none() || inference.committed);
        if !unanswered || gave_up == Some(GiveUp::Cancelled) {
            return false;
        }
        let failure = match (gave_up, error.etype()) {
            // An error of ours: what the node has done has been judged.
            (None, ErrorType::InternalError) => return false,
            (Some(reason), _) => match Failure::of_give_up(reason) {
                Some(failure) => failure,
                // The edge stops.
                None => return false,
            },
            // The answer that made us retry has been judged, and the next node chosen.
            (None, ErrorType::HTTPStatus(_)) => return std::mem::take(&mut inference.retrying),
            _ if is_clients(error) => return false,
            // One such connection is bad luck; a second one may as well be a request that nodes do not survive, which
            // must not go through the whole fleet.
            _ if reused && !has_met(inference, Failure::StaleConnection) => Failure::StaleConnection,
            _ => Failure::Reset,
        };
        self.retry(inference, failure)
    }
}

/// Whether an attempt of this request has ended so before.
fn has_met(inference: &Inference, failure: Failure) -> bool {
    let met = Some(Outcome::Failed(failure));
    inference.trace.attempts.iter().any(|attempt| attempt.outcome.known() == met)
}
