//! Brings heartbeats to one edge: always the newest, never a queue.
//!
//! Each edge has its own task with one slot, so a slow or absent edge delays no other and piles nothing up.

use std::time::Duration;

use bytes::Bytes;
use herd_core::name::NodeId;
use reqwest::{Client, RequestBuilder, StatusCode, Url, header};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::JoinToken;

/// First pause after a failure; doubled each time up to the heartbeat interval.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How long an attempt under way may go on after a stop, so that it does not arrive after the goodbye.
const LAST_ATTEMPT: Duration = Duration::from_millis(500);
/// How long the goodbye itself may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// How much of an answer is read, so that the connection can be used again.
const ANSWER_MAX_BYTES: usize = 64 << 10;

/// The newest heartbeat as JSON; `None` until there is one.
pub(crate) type Outbox = watch::Receiver<Option<Bytes>>;

/// An edge to report to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Router {
    /// What tells it from others: its URL, or its mDNS name.
    pub(crate) name: String,
    /// Base URLs under which it may be reached, best first; at least one.
    pub(crate) urls: Vec<Url>,
}

/// How to send, the same for every edge.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) client: Client,
    pub(crate) node_id: NodeId,
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
    #[error("refused with {0}")]
    Refused(StatusCode),
}

/// Sends every new heartbeat until `stop` is true or its sender is gone; then tells the edge that this node leaves.
pub(crate) async fn deliver(post: Post, router: Router, mut outbox: Outbox, mut stop: watch::Receiver<bool>) {
    let mut link = Link { post, router, url: 0, failures: 0, retry_at: None, known: None };
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

/// What was last said in the log about an edge; said again only when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Taking,
    Unreachable,
    Refusing(StatusCode),
}

struct Link {
    post: Post,
    router: Router,
    /// Index of the URL in use.
    url: usize,
    failures: u32,
    retry_at: Option<Instant>,
    known: Option<Known>,
}

impl Link {
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
            Ok(()) => {
                self.say(Known::Taking, None);
                self.failures = 0;
                self.retry_at = None;
            }
            Err(error) => {
                let known = match error {
                    SendError::Unreachable(_) => Known::Unreachable,
                    SendError::Refused(status) => Known::Refusing(status),
                };
                self.say(known, Some(&error));
                self.retry_at = Some(Instant::now() + self.pause(&error));
                self.failures = self.failures.saturating_add(1);
                self.url = (self.url + 1) % self.router.urls.len();
            }
        }
    }

    async fn send(&self, body: Bytes) -> Result<(), SendError> {
        let mut response = self.request(body).timeout(self.post.timeout).send().await?;
        let status = response.status();
        let mut read = 0;
        while let Some(chunk) = response.chunk().await? {
            read += chunk.len();
            if read > ANSWER_MAX_BYTES {
                break;
            }
        }
        if status.is_success() { Ok(()) } else { Err(SendError::Refused(status)) }
    }

    fn request(&self, body: Bytes) -> RequestBuilder {
        let url = self.router.urls[self.url].join("heartbeat").expect("a base URL takes a relative path");
        let request = self.post.client.post(url).header(header::CONTENT_TYPE, "application/json").body(body);
        match &self.post.token {
            Some(token) => request.bearer_auth(token.reveal()),
            None => request,
        }
    }

    /// Exponential, with jitter, so that a fleet does not return to a restarted edge all at once. What an edge refuses
    /// with a reason of ours (4xx) will not get better within milliseconds.
    fn pause(&self, error: &SendError) -> Duration {
        let longest = self.post.interval;
        let pause = match error {
            SendError::Refused(status) if status.is_client_error() => longest,
            _ => FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(longest),
        };
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Tells the edge to send nothing more here. Nothing can be done about a failure any more.
    async fn goodbye(&self) {
        if *self.post.paused.borrow() {
            return;
        }
        let leaving = serde_json::json!({ "node_id": self.post.node_id.as_str(), "draining": true }).to_string();
        let sent = self.request(leaving.into()).timeout(GOODBYE).send().await;
        tracing::info!(router = %self.router.name, told = sent.is_ok(), "leaving");
    }

    fn say(&mut self, known: Known, error: Option<&SendError>) {
        if self.known == Some(known) {
            return;
        }
        let (router, url) = (self.router.name.as_str(), self.router.urls[self.url].as_str());
        match error {
            None => tracing::info!(router, url, "reporting to this edge"),
            Some(error) if known == Known::Refusing(StatusCode::UNAUTHORIZED) => {
                tracing::warn!(router, url, %error, "this edge wants another join token");
            }
            Some(error) => tracing::warn!(router, url, %error, "this edge does not take heartbeats; trying on"),
        }
        self.known = Some(known);
    }
}

/// The innermost reason: the outer ones only repeat the URL.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
