//! What the edge knows of one request, from its header to its end. Whatever is counted is returned when it is dropped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use herd_core::load::{ModelLoad, NodeLoad};
use herd_core::name::ModelName;
use herd_core::patience::GiveUp;
use herd_core::protect::overflow;
use herd_core::queue::Class;
use herd_core::request::{Dialect, RequestProfile};
use herd_core::vocabulary::Outcome;

use super::access::KeyUse;
use super::admin::ForAdmin;
use super::answer::Answer;
use super::body::Held;
use super::cors::Page;
use super::marks::Marks;
use super::reply::Reply;
use crate::active::ActiveGuard;
use crate::connection::Connection;
use crate::live::LiveGuard;
use crate::selector::Choice;
use crate::trace::{Status, Trace};
use crate::watch::LastByte;

/// One request.
pub struct RequestCtx {
    /// Its connection.
    pub connection: Arc<Connection>,
    /// Its name: the client's, or made here.
    pub request_id: String,
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

/// The part of an inference request.
pub struct Inference {
    /// What it asks.
    pub profile: Arc<RequestProfile>,
    /// What is special about it.
    pub marks: Marks,
    /// How urgent it is.
    pub class: Class,
    /// Whose it is, for fairness.
    pub app: u64,
    /// The API key that it showed, and its place among the key's requests.
    pub key: Option<KeyUse>,
    /// The model's name as the client spelled it.
    pub spelled: String,
    /// Its body, until an answer has been accepted.
    pub held: Option<Held>,
    /// Numbers of the nodes that were asked.
    pub tried: Vec<u32>,
    /// Those of them that were not reached, so that they may be asked again.
    pub unreached: Vec<u32>,
    /// Nodes that answered with an error: theirs, if another node serves the request.
    pub suspects: Vec<(Arc<NodeLoad>, Arc<ModelLoad>)>,
    /// Attempts in which a node may have begun to work on it, as far as they are over.
    pub sent: u32,
    /// The attempt that is over is followed by another, as has been decided.
    pub retrying: bool,
    /// Why the last node was no longer waited for.
    pub gave_up: Option<GiveUp>,
    /// Since when it has waited for nodes that are away.
    pub held_since_ms: Option<u64>,
    /// The node that is asked now.
    pub attempt: Option<Attempt>,
    /// The node to ask next, claimed when the retry was decided.
    pub next: Option<Box<Choice>>,
    /// The answer that was accepted.
    pub answer: Option<Answer>,
    /// A status has been sent before a node was found, so that whatever comes must be told in the body.
    pub committed: bool,
    /// Its place among the requests under way.
    pub live: Option<LiveGuard>,
    /// How it ends.
    pub trace: Trace,
}

/// One node being asked.
pub struct Attempt {
    /// The node and its slot.
    pub choice: Choice,
    /// The name that the node is asked for, another than the model's when an alias keeps its runner.
    pub name: ModelName,
    /// The body that it gets; taken when sent.
    pub body: Option<Bytes>,
    /// Length of that body.
    pub body_bytes: usize,
    /// When it was chosen.
    pub began: Instant,
    /// When the last byte of its answer came.
    pub last_byte: LastByte,
}

/// A name for a request, 16 hexadecimal digits: the wall clock in milliseconds, then a number that goes up by one with
/// every request and starts anywhere. No two of one process are equal within a million requests of one millisecond.
///
/// Later names are larger, so that the store's index of them grows at its end: with random ones every record changed a
/// page of its own.
fn new_id() -> String {
    static NUMBERS: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(fastrand::u64(..)));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_ms = u64::try_from(since.as_millis()).unwrap_or_default();
    format!("{:016x}", unix_ms << 20 | NUMBERS.fetch_add(1, Relaxed) & 0xf_ffff)
}

impl RequestCtx {
    /// A request that has just come in.
    #[must_use]
    pub fn new(connection: Arc<Connection>) -> Self {
        let request_id = new_id();
        let dialect = Dialect::Ollama;
        let (marks, page) = (Marks::default(), Page::default());
        let (inference, for_admin, reply, active) = (None, None, None, None);
        Self { connection, request_id, dialect, marks, page, inference, for_admin, reply, active }
    }

    /// The headers that tell how the request was routed.
    #[must_use]
    pub fn fleet_headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("X-Request-Id", self.request_id.clone())];
        headers.extend(self.page.headers());
        let Some(inference) = &self.inference else { return headers };
        headers.push(("X-Fleet-Attempts", inference.trace.attempts.len().to_string()));
        headers.push(("X-Fleet-Queue-Ms", format!("{:.0}", inference.trace.queue_ms.unwrap_or_default())));
        if !inference.profile.places.volatile.is_empty() {
            headers.push(("X-Fleet-Prompt", "stabilised".to_owned()));
        }
        if inference.profile.stream {
            // A proxy in front is to pass each word on when it comes.
            headers.extend([("Cache-Control", "no-cache".to_owned()), ("X-Accel-Buffering", "no".to_owned())]);
        }
        if let Some(attempt) = &inference.attempt {
            attempt_headers(&mut headers, inference, &attempt.choice);
        }
        headers
    }
}

fn attempt_headers(headers: &mut Vec<(&'static str, String)>, inference: &Inference, choice: &Choice) {
    let plan = &choice.candidate.plan;
    headers.push(("X-Fleet-Node", choice.node().id.to_string()));
    headers.push(("X-Fleet-Model", choice.model.to_string()));
    headers.push(("X-Fleet-Score", format!("{:.1}", choice.candidate.total)));
    headers.push(("X-Fleet-Context", plan.action.to_string()));
    if let Some(wait_ms) = inference.trace.predicted_ms {
        headers.push(("X-Fleet-Predicted-Wait-Ms", format!("{wait_ms:.0}")));
    }
    if let Some(stand_in) = choice.stand_in {
        headers.push(("X-Fleet-Fallback", inference.profile.model.to_string()));
        headers.push(("X-Fleet-Fallback-Reason", stand_in.name().to_owned()));
    }
    if let Some(overflow) = overflow(&inference.profile, plan.window) {
        headers.push(("X-Fleet-Context-Overflow", overflow.to_string()));
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
        trace.wants(profile.model.as_str());
        trace.num_ctx = profile.num_ctx;
        let spelled = String::from_utf8_lossy(&held.bytes[profile.places.model.clone()]).trim_matches('"').to_owned();
        Self {
            spelled,
            profile: Arc::new(profile),
            marks: Marks::default(),
            class: Class::default(),
            app: 0,
            key: None,
            held: Some(held),
            tried: Vec::new(),
            unreached: Vec::new(),
            suspects: Vec::new(),
            sent: 0,
            retrying: false,
            gave_up: None,
            held_since_ms: None,
            attempt: None,
            next: None,
            answer: None,
            committed: false,
            live: None,
            trace,
        }
    }

    /// Asks the node of `choice` for `name` with `body` from now on.
    pub fn begin_attempt(&mut self, mut choice: Choice, name: ModelName, body: Bytes) {
        self.trace.attempt(&mut choice, &self.profile);
        self.retrying = false;
        self.gave_up = None;
        self.tried.push(choice.node().number);
        if let Some(live) = &self.live {
            live.sent(choice.node().id.as_str());
        }
        self.attempt = Some(Attempt {
            body_bytes: body.len(),
            body: Some(body),
            choice,
            name,
            began: Instant::now(),
            last_byte: LastByte::default(),
        });
    }

    /// Gives up the node that is asked now, and its slot; the trace keeps why.
    pub fn end_attempt(&mut self, outcome: Outcome) {
        let age_ms = self.trace.age_ms() as f64;
        self.trace.attempt_failed(outcome, age_ms);
        self.attempt = None;
    }

    /// Notes how the request ended, once.
    pub fn end(&mut self, status: Status, error: &str) {
        self.trace.end(status, error);
    }
}
