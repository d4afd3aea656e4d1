//! Brings heartbeats to one edge: always the newest, never a queue.
//!
//! Each edge has its own task with one slot, so a slow or absent edge delays no other and piles nothing up.

mod join;

use std::time::Duration;

use bytes::Bytes;
use herd_core::join::JoinSecret;
use herd_core::name::NodeId;
use reqwest::{Client, RequestBuilder, StatusCode, Url, header};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::JoinToken;
use crate::ollama::{Version, get_json};
use join::{Session, Shows};

/// First pause after a failure; doubled each time up to the heartbeat interval.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How long an attempt under way may go on after a stop, so that it does not arrive after the goodbye.
const LAST_ATTEMPT: Duration = Duration::from_millis(500);
/// How long the goodbye itself may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// How much of an answer is read.
const ANSWER_MAX_BYTES: usize = 64 << 10;
/// What has not changed is said in the log again after so long.
pub(crate) const TELL_AGAIN: Duration = Duration::from_mins(1);
/// Longest piece of an answer that is repeated in the log, in characters.
const QUOTE_MAX: usize = 400;

/// The newest heartbeat as JSON; `None` until there is one.
pub(crate) type Outbox = watch::Receiver<Option<Bytes>>;

/// An edge to report to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Router {
    /// What tells it from others: its URL, or its mDNS name.
    pub(crate) name: String,
    /// Base URLs under which it may be reached, best first; at least one.
    pub(crate) urls: Vec<Url>,
    /// It announced itself, and nobody has named it: it may be anybody.
    pub(crate) discovered: bool,
}

/// How to send, the same for every edge.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) client: Client,
    pub(crate) node_id: NodeId,
    /// Name of this run.
    pub(crate) boot: String,
    pub(crate) token: Option<JoinToken>,
    pub(crate) timeout: Duration,
    pub(crate) interval: Duration,
    /// While it is true nothing is sent.
    pub(crate) paused: watch::Receiver<bool>,
}

/// Why an edge did not take a heartbeat.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("no answer: {}", root_cause(.0))]
    Unreachable(#[from] reqwest::Error),
    /// By an edge, with its reason.
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    /// What answers is not an edge.
    #[error("{0}")]
    NoEdge(String),
    /// It does not show that it knows the join token, so that it is not told.
    #[error("{0}")]
    Token(String),
}

/// Sends every new heartbeat until `stop` is true or its sender is gone; then tells the edge that this node leaves.
pub(crate) async fn deliver(post: Post, router: Router, mut outbox: Outbox, mut stop: watch::Receiver<bool>) {
    let mut link = Link::new(post, router);
    outbox.mark_changed();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            ready = link.ready(&mut outbox) => if !ready { break },
        }
        let Some(body) = outbox.borrow_and_update().clone() else { continue };
        let cut = async {
            stopped(&mut stop).await;
            sleep(LAST_ATTEMPT).await;
        };
        tokio::select! {
            () = link.attempt(body) => {}
            () = cut => break,
        }
    }
    link.goodbye().await;
}

/// Waits for a stop; a stop's sender that is gone is one.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    stop.wait_for(|stop| *stop).await.ok();
}

/// What was last said in the log about an edge; said again when it changes, and each minute while something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Taking,
    /// It takes heartbeats, and there is something to mend all the same.
    Notice(String),
    Unreachable,
    Refusing(String),
}

struct Link {
    post: Post,
    router: Router,
    /// Index of the URL in use.
    url: usize,
    failures: u32,
    retry_at: Option<Instant>,
    /// What the edge at that URL and this agent have shown each other.
    session: Option<Session>,
    known: Option<Known>,
    said_at: Instant,
}

impl Link {
    fn new(post: Post, router: Router) -> Self {
        Self { post, router, url: 0, failures: 0, retry_at: None, session: None, known: None, said_at: Instant::now() }
    }

    /// Waits for a new heartbeat, or after a failure for the end of the pause. False = there will be no more.
    async fn ready(&self, outbox: &mut Outbox) -> bool {
        let more = match self.retry_at {
            None => outbox.changed().await.is_ok(),
            Some(at) => {
                sleep_until(at).await;
                true
            }
        };
        // Nobody is left to end a pause whose sender is gone.
        self.post.paused.clone().wait_for(|paused| !*paused).await.ok();
        more
    }

    async fn attempt(&mut self, body: Bytes) {
        match self.send(body).await {
            Ok(notice) => {
                self.say(notice.map_or(Known::Taking, Known::Notice), None);
                self.failures = 0;
                self.retry_at = None;
            }
            Err(error) => {
                let known = match &error {
                    SendError::Unreachable(_) => Known::Unreachable,
                    refused => Known::Refusing(refused.to_string()),
                };
                self.say(known, Some(&error));
                self.retry_at = Some(Instant::now() + self.pause(&error));
                self.failures = self.failures.saturating_add(1);
                self.url = (self.url + 1) % self.router.urls.len();
                self.session = None;
            }
        }
    }

    /// Sends a heartbeat. What comes back is something to mend that the edge has noticed, if anything.
    async fn send(&mut self, body: Bytes) -> Result<Option<String>, SendError> {
        let (status, answer) = match self.ask(body.clone()).await? {
            // The edge was started anew, and knows nothing of what was shown to the one before.
            (StatusCode::UNAUTHORIZED, answer) if answer["error"]["code"] == "challenge" => {
                self.session = None;
                self.ask(body).await?
            }
            told => told,
        };
        if status.is_success() {
            return Ok(answer["notice"].as_str().map(quoted));
        }
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
            && let Some(what) = self.who_answers().await
        {
            return Err(SendError::NoEdge(what));
        }
        Err(refused(status, &answer))
    }

    async fn ask(&mut self, body: Bytes) -> Result<(StatusCode, Value), SendError> {
        let request = self.request(body).await?;
        let response = request.timeout(self.post.timeout).send().await?;
        Ok((response.status(), read(response).await?))
    }

    /// What answers where an edge should be, by what it says of its version; `None` = nobody can tell.
    async fn who_answers(&self) -> Option<String> {
        let url = &self.router.urls[self.url];
        let version = url.join("/api/version").ok()?;
        let answer = get_json::<Value>(&self.post.client, version, self.post.timeout, ANSWER_MAX_BYTES).await.ok()?;
        let who = Version::from(answer);
        let mut plain = url.clone();
        plain.set_path("/");
        if who.is_herd {
            return (url.path() != "/").then(|| format!("the edge is at {plain}: drop {} from the URL", url.path()));
        }
        let version = Some(quoted(&who.version)).filter(|version| !version.is_empty())?;
        Some(format!(
            "{plain} is an Ollama ({version}), not an edge: give the agent the edge's address (--router-url, usually port 11435)"
        ))
    }

    /// A heartbeat with the proof that this agent knows the join token. Only an edge that was named by its URL, and cannot
    /// prove anything itself, is shown the token.
    async fn request(&mut self, body: Bytes) -> Result<RequestBuilder, SendError> {
        let url = self.router.urls[self.url].join("heartbeat").expect("a base URL takes a relative path");
        let request = self.post.client.post(url).header(header::CONTENT_TYPE, "application/json");
        let Some(token) = self.post.token.clone() else { return Ok(request.body(body)) };
        let session = if let Some(session) = self.session.take().filter(Session::is_good) {
            session
        } else {
            let (client, url) = (&self.post.client, &self.router.urls[self.url]);
            Session::ask(client, url, JoinSecret::of(token.reveal()), self.post.timeout).await?
        };
        let shows = self.session.insert(session).shows(&body);
        match shows {
            Shows::Proof(proof) => Ok(request.header(header::AUTHORIZATION, proof).body(body)),
            Shows::Nothing => Ok(request.body(body)),
            Shows::Token if self.router.discovered => Err(SendError::Token(
                "it announces itself as an edge and does not show that it knows the join token, so that it is not told: name \
                 it (--router-url) if it is yours and older"
                    .into(),
            )),
            Shows::Token => Ok(request.bearer_auth(token.reveal()).body(body)),
        }
    }

    /// Exponential, with jitter, so that a fleet does not return to a restarted edge all at once. What an edge refuses
    /// with a reason of ours (4xx) will not get better within milliseconds.
    fn pause(&self, error: &SendError) -> Duration {
        let longest = self.post.interval;
        let pause = match error {
            SendError::Refused { status, .. } if status.is_client_error() => longest,
            SendError::NoEdge(_) | SendError::Token(_) => longest,
            _ => FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(longest),
        };
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Tells the edge to send nothing more here. Nothing can be done about a failure any more.
    async fn goodbye(&mut self) {
        if *self.post.paused.borrow() {
            return;
        }
        if matches!(self.known, Some(Known::Refusing(_))) {
            // It has no node of ours to take out.
            return;
        }
        let (node_id, boot) = (self.post.node_id.clone(), self.post.boot.clone());
        let leaving =
            serde_json::json!({ "node_id": node_id.as_str(), "draining": true, "herd": { "boot": boot } }).to_string();
        let told = async {
            let request = self.request(leaving.into()).await.ok()?;
            request.send().await.ok()
        };
        let told = tokio::time::timeout(GOODBYE, told).await.is_ok_and(|answer| answer.is_some());
        tracing::info!(router = %self.router.name, told, "leaving");
    }

    fn say(&mut self, known: Known, error: Option<&SendError>) {
        let same = self.known.as_ref() == Some(&known);
        if same && (known == Known::Taking || self.said_at.elapsed() < TELL_AGAIN) {
            return;
        }
        let (router, url) = (self.router.name.as_str(), self.router.urls[self.url].as_str());
        match (&known, error) {
            (Known::Notice(notice), _) => tracing::warn!(router, url, %notice, "this edge cannot use this node yet"),
            (_, None) => tracing::info!(router, url, "reporting to this edge"),
            (Known::Refusing(_), Some(error)) => {
                tracing::warn!(router, url, %error, "this edge refuses the node; trying again");
            }
            (_, Some(error)) => tracing::warn!(
                router,
                url,
                %error,
                "this edge is not reached; trying again: does herd run there, is the address right (--router-url, usually \
                 port 11435), and does a firewall let it through?"
            ),
        }
        (self.known, self.said_at) = (Some(known), Instant::now());
    }
}

/// Why an edge did not take what it was sent. One of herd has codes for its reasons; the Python project's tells them
/// otherwise.
fn refused(status: StatusCode, answer: &Value) -> SendError {
    let told = answer["error"]["message"].as_str().or_else(|| answer["detail"].as_str());
    let message = told.map_or_else(|| format!("refused with {status}"), |told| format!("{} ({status})", quoted(told)));
    SendError::Refused { status, message }
}

/// The JSON of an answer, null where it is none; what is too long is not read to its end.
async fn read(mut response: reqwest::Response) -> Result<Value, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_MAX_BYTES {
            break;
        }
    }
    Ok(serde_json::from_slice(&body).unwrap_or_default())
}

/// A stranger's words as far as they are fit for a log.
fn quoted(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(QUOTE_MAX).collect()
}

/// The innermost reason: the outer ones only repeat the URL.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Why `router` takes no heartbeat of `post`, in words; empty = it takes them.
#[cfg(test)]
pub(crate) async fn refusal(post: Post, router: Router) -> String {
    let mut link = Link::new(post, router);
    link.send(Bytes::from_static(b"{}")).await.err().map(|error| error.to_string()).unwrap_or_default()
}
