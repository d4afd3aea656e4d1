//! What a node has been asked, for tests to look at.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use herd_core::name::fnv1a;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::{
    fault::{Fault, FaultKind},
    scheduler::SchedulerCounters,
};

/// Requests remembered one by one.
const RECENT_LIMIT: usize = 64;
/// Different paths or models counted by name; what comes later goes under `(other)`.
const NAMES_LIMIT: usize = 256;

/// Counters of one node, `/_sim/*` left out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SimStats {
    /// Requests received.
    pub requests: u64,
    /// The same, by path.
    pub by_path: BTreeMap<String, u64>,
    /// The same, by model as the client spelled it.
    pub by_model: BTreeMap<String, u64>,
    /// Requests whose answer has not ended.
    pub in_flight: u64,
    /// The most there were of these at once.
    pub in_flight_max: u64,
    /// Requests in a slot, by the name their runner shows.
    pub running: BTreeMap<String, u64>,
    /// Loads, reloads and what else the scheduler counts.
    #[serde(flatten)]
    pub scheduler: SchedulerCounters,
    /// Requests whose client left before the end of the answer.
    pub cancelled: u64,
    /// Requests struck by a fault, by kind.
    pub faults_injected: BTreeMap<FaultKind, u64>,
    /// The fault in force.
    pub fault: Fault,
    /// The last requests, oldest first.
    pub recent: Vec<SeenRequest>,
}

/// One request as it arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRequest {
    /// `POST`, `GET`, …
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Model as the client spelled it; empty when the body names none.
    pub model: String,
    /// `options.num_ctx`, if it is an integer.
    pub num_ctx: Option<i64>,
    /// The body's own `stream`.
    pub stream: Option<bool>,
    /// Length of the body.
    pub body_bytes: usize,
    /// FNV-1a of the body, as 16 hexadecimal digits.
    pub body_fnv64: String,
    /// Headers, names in lower case; of a repeated one the last.
    pub headers: BTreeMap<String, String>,
}

impl SeenRequest {
    /// What is known before the body is read.
    pub(crate) fn of_head(head: &http::request::Parts) -> Self {
        Self {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            headers: header_map(&head.headers),
            ..Self::default()
        }
    }

    /// Adds length and hash of the body.
    pub(crate) fn set_body(&mut self, body: &[u8]) {
        self.body_bytes = body.len();
        self.body_fnv64 = format!("{:016x}", fnv1a(body));
    }
}

fn header_map(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

/// Where the counting happens.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    stats: SimStats,
    recent: VecDeque<SeenRequest>,
}

impl Recorder {
    /// Counts a request; what it gives back ends its being in flight.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        let mut inner = self.lock();
        inner.stats.requests += 1;
        inner.stats.in_flight += 1;
        inner.stats.in_flight_max = inner.stats.in_flight_max.max(inner.stats.in_flight);
        InFlight { recorder: Arc::clone(self), complete: false }
    }

    /// Remembers what came.
    pub(crate) fn saw(&self, request: SeenRequest) {
        let mut inner = self.lock();
        count(&mut inner.stats.by_path, &request.path);
        if !request.model.is_empty() {
            count(&mut inner.stats.by_model, &request.model);
        }
        if inner.recent.len() == RECENT_LIMIT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(request);
    }

    /// Counts a request struck by a fault.
    pub(crate) fn struck(&self, kind: FaultKind) {
        *self.lock().stats.faults_injected.entry(kind).or_default() += 1;
    }

    /// What was counted here; the node adds what its scheduler and its fault switch know.
    pub(crate) fn snapshot(&self) -> SimStats {
        let inner = self.lock();
        SimStats { recent: inner.recent.iter().cloned().collect(), ..inner.stats.clone() }
    }

    /// Forgets everything but what is in flight.
    pub(crate) fn reset(&self) {
        let mut inner = self.lock();
        let in_flight = inner.stats.in_flight;
        *inner = Inner::default();
        inner.stats.in_flight = in_flight;
        inner.stats.in_flight_max = in_flight;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count += 1;
    } else {
        let name = if counts.len() < NAMES_LIMIT { name } else { "(other)" };
        *counts.entry(name.to_owned()).or_default() += 1;
    }
}

/// A request in flight, until dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the request's count"]
pub(crate) struct InFlight {
    recorder: Arc<Recorder>,
    complete: bool,
}

impl InFlight {
    /// The answer has been written to its end; without this the drop counts as a client that left.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut inner = self.recorder.lock();
        inner.stats.in_flight = inner.stats.in_flight.saturating_sub(1);
        inner.stats.cancelled += u64::from(!self.complete);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_requests_are_kept_and_in_flight_survives_a_reset() {
        let recorder = Arc::new(Recorder::default());
        let flight = recorder.begin();
        for n in 0..100 {
            recorder.saw(SeenRequest { path: format!("/{n}"), ..SeenRequest::default() });
        }
        let stats = recorder.snapshot();
        assert_eq!((stats.recent.len(), stats.in_flight), (RECENT_LIMIT, 1));
        recorder.reset();
        drop(flight);
        let stats = recorder.snapshot();
        assert_eq!((stats.in_flight, stats.cancelled, stats.requests), (0, 1, 0));
    }
}
