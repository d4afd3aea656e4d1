//! The stream of one client.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};

use super::snapshot;
use crate::refusal::Refusal;
use crate::state::AdminState;
use crate::stop::stopped;

/// Longest silence: proxies take a connection for dead after some.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");
/// Tells nginx not to hold events back.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

struct Client {
    state: AdminState,
    told: broadcast::Receiver<Bytes>,
    over: watch::Receiver<bool>,
    begun: bool,
    _place: OwnedSemaphorePermit,
}

/// A snapshot, then what changes.
pub(crate) async fn events(State(state): State<AdminState>) -> Result<Response, Refusal> {
    let events = state.events();
    let place = Arc::clone(&events.clients).try_acquire_owned().map_err(|_| {
        let refusal =
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_clients", "too many clients listen already");
        refusal.with_header(RETRY_AFTER, HeaderValue::from_static("10"))
    })?;
    // First, so that nothing is missed between the snapshot and the first change.
    let (told, over) = (events.told.subscribe(), events.over.subscribe());
    events.wake.notify_one();
    let client = Client { state: state.clone(), told, over, begun: false, _place: place };
    let stream = stream::unfold(client, |mut client| async move {
        let bytes = client.next().await?;
        Some((Ok::<_, Infallible>(bytes), client))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

impl Client {
    /// `None` = it is over.
    async fn next(&mut self) -> Option<Bytes> {
        if *self.over.borrow() {
            return None;
        }
        if !self.begun {
            self.begun = true;
            return Some(snapshot(&self.state));
        }
        tokio::select! {
            () = stopped(&mut self.over) => None,
            told = tokio::time::timeout(KEEP_ALIVE, self.told.recv()) => match told {
                Err(_) => Some(ALIVE),
                Ok(Ok(event)) => Some(event),
                Ok(Err(RecvError::Lagged(_))) => {
                    // Older than the snapshot.
                    self.told = self.told.resubscribe();
                    Some(snapshot(&self.state))
                }
                Ok(Err(RecvError::Closed)) => None,
            },
        }
    }
}
