//! What the edge knows of one request, from its header to its end. Whatever is counted is returned when it is dropped.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use herd_core::choice::Choice;
use herd_core::exchange::{Exchange, Request};
use herd_core::protect::overflow;
use herd_core::queue::{Class, Owner};
use herd_core::request::{Dialect, RequestProfile};
use herd_store::unix_ms;

use super::access::KeyUse;
use super::admin::ForAdmin;
use super::answer::Answer;
use super::body::Held;
use super::cors::Page;
use super::marks::Marks;
use super::reply::Reply;
use crate::active::ActiveGuard;
use crate::budget::Share;
use crate::connection::Connection;
use crate::live::{GivenId, Life, LiveGuard};
use crate::trace::Trace;

/// One request.
pub struct RequestCtx {
    /// Its connection.
    pub connection: Arc<Connection>,
    /// Its name: the client's, or made here.
    pub request_id: String,
    /// That the client's name for it is its own.
    pub given_id: Option<GivenId>,
    /// The form of errors that it understands.
    pub dialect: Dialect,
    /// What the edge's own benchmarks say of it, until it is known to be an inference request.
    pub marks: Marks,
    /// The web page that it comes from.
    pub page: Page,
    /// What becomes of it; `None` = not an inference request.
    pub inference: Option<Box<Inference>>,
    /// What a request to the admin service holds.
    pub for_admin: Option<ForAdmin>,
    /// The edge's own answer when it cannot be proxied.
    pub reply: Option<Reply>,
    /// Its place among the requests under way. Dropped last: once there are none the process ends, and what the others
    /// write when they are dropped, the trace above all, would be lost.
    pub active: Option<ActiveGuard>,
}

/// An inference request that has been let in and read.
pub struct Admitted {
    /// What it asks.
    pub profile: Arc<RequestProfile>,
    /// What the edge's own benchmarks say of it.
    pub marks: Marks,
    /// Priority class.
    pub class: Class,
    /// Fairness key.
    pub fairness_key: Owner,
    /// The API key that it showed, and its place among the key's requests.
    pub key: Option<KeyUse>,
    /// Its body.
    pub held: Held,
    /// Its record.
    pub trace: Trace,
}

/// The part of an inference request.
pub struct Inference {
    /// What it asks.
    pub profile: Arc<RequestProfile>,
    /// What the edge's own benchmarks say of it.
    pub marks: Marks,
    /// The API key that it showed, and its place among the key's requests.
    pub key: Option<KeyUse>,
    /// The model's name as the client wrote it.
    pub model_as_requested: String,
    /// Where it stands, and all that is decided about it.
    pub life: Life,
    /// Its body, until an answer has been accepted.
    pub held: Option<Held>,
    /// The body that the node gets that is asked now.
    pub outgoing: Option<Outgoing>,
    /// The answer that was accepted.
    pub answer: Option<Answer>,
    /// What is held back of it, as a share of the memory for bodies.
    pub held_answer: Option<Share>,
    /// Its place among the running requests.
    pub live: Option<LiveGuard>,
    /// Its record, told when this is dropped.
    pub trace: Trace,
}

/// A body on its way to a node.
pub struct Outgoing {
    /// The bytes; taken when they are sent.
    pub bytes: Option<Bytes>,
    /// How many they are.
    pub length: usize,
    /// Where the node is.
    pub address: SocketAddr,
}

/// A name for a request, 16 hexadecimal digits: the wall clock in milliseconds, then a number that goes up by one with
/// every request and starts anywhere. No two of one process are equal within a million requests of one millisecond.
///
/// Later names are larger, so that the store's index of them grows at its end: with random ones every record changed a
/// page of its own.
pub(super) fn new_id() -> String {
    static NUMBERS: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(fastrand::u64(..)));
    format!("{:016x}", unix_ms() << 20 | NUMBERS.fetch_add(1, Relaxed) & 0xf_ffff)
}

impl RequestCtx {
    /// A request that has just come in.
    #[must_use]
    pub fn new(connection: Arc<Connection>) -> Self {
        let request_id = new_id();
        let dialect = Dialect::Ollama;
        let (marks, page) = (Marks::default(), Page::default());
        let (inference, for_admin, reply, active) = (None, None, None, None);
        Self { connection, request_id, given_id: None, dialect, marks, page, inference, for_admin, reply, active }
    }

    /// The headers that tell how the request was routed.
    #[must_use]
    pub fn fleet_headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("X-Request-Id", self.request_id.clone())];
        headers.extend(self.page.headers());
        let Some(inference) = &self.inference else { return headers };
        let exchange = inference.life.lock();
        let record = exchange.record();
        headers.push(("X-Fleet-Attempts", record.attempts.len().to_string()));
        headers.push(("X-Fleet-Queue-Ms", format!("{:.0}", record.queue_ms.unwrap_or(0.0))));
        if !inference.profile.places.volatile.is_empty() {
            headers.push(("X-Fleet-Prompt", "stabilised".to_owned()));
        }
        if inference.profile.stream {
            // A proxy in front is to pass each word on when it comes.
            headers.extend([("Cache-Control", "no-cache".to_owned()), ("X-Accel-Buffering", "no".to_owned())]);
        }
        if let Some(attempt) = exchange.attempt() {
            attempt_headers(&mut headers, &inference.profile, &attempt.choice, record.predicted_ms);
        }
        headers
    }
}

fn attempt_headers(
    headers: &mut Vec<(&'static str, String)>,
    profile: &RequestProfile,
    choice: &Choice,
    predicted_ms: Option<f64>,
) {
    let plan = &choice.candidate.plan;
    headers.push(("X-Fleet-Node", choice.node().id.to_string()));
    headers.push(("X-Fleet-Model", choice.model.to_string()));
    headers.push(("X-Fleet-Score", format!("{:.1}", choice.candidate.total)));
    headers.push(("X-Fleet-Context", plan.action.to_string()));
    let kept = choice.kept_speed(profile);
    if !kept.is_empty() {
        let names: Vec<_> = kept.into_iter().map(|(name, _)| name).collect();
        headers.push(("X-Fleet-Speed-Options", format!("kept: {}", names.join(", "))));
    }
    if let Some(wait_ms) = predicted_ms {
        headers.push(("X-Fleet-Predicted-Wait-Ms", format!("{wait_ms:.0}")));
    }
    if let Some(stand_in) = choice.stand_in {
        headers.push(("X-Fleet-Fallback", profile.model.to_string()));
        headers.push(("X-Fleet-Fallback-Reason", stand_in.name().to_owned()));
    }
    if let Some(overflow) = overflow(profile, plan.window) {
        headers.push(("X-Fleet-Context-Overflow", overflow.to_string()));
    }
}

/// The model's name as the client wrote it.
pub(super) fn requested_name(profile: &RequestProfile, held: &Held) -> String {
    String::from_utf8_lossy(&held.bytes[profile.places.model.clone()]).trim_matches('"').to_owned()
}

impl Drop for RequestCtx {
    fn drop(&mut self) {
        self.connection.request_ended();
    }
}

impl Admitted {
    /// A request whose body has been read.
    #[must_use]
    pub fn new(profile: RequestProfile, held: Held, marks: Marks, key: Option<KeyUse>, mut trace: Trace) -> Self {
        trace.wants(profile.model.as_str());
        trace.num_ctx = profile.num_ctx;
        Self {
            profile: Arc::new(profile),
            marks,
            class: Class::default(),
            fairness_key: Owner::default(),
            key,
            held,
            trace,
        }
    }

    /// Its exchange begins; nodes whose numbers are `excluded` are not asked.
    #[must_use]
    pub fn begin(self, excluded: Vec<u32>, now_ms: u64) -> Inference {
        let Self { profile, marks, class, fairness_key, key, held, mut trace } = self;
        let request = Request {
            profile: Arc::clone(&profile),
            class,
            fairness_key,
            only_node: marks.only_node.clone(),
            benchmark: marks.benchmark,
        };
        let began_ms = now_ms.saturating_sub(trace.age_ms());
        let name = requested_name(&profile, &held);
        Inference {
            profile,
            marks,
            key,
            model_as_requested: name,
            life: Life::new(Exchange::new(request, excluded, trace.take_record(), began_ms, now_ms)),
            held: Some(held),
            outgoing: None,
            answer: None,
            held_answer: None,
            live: None,
            trace,
        }
    }
}
