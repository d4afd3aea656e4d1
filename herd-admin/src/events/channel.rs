//! What the producer of events and its clients share.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use herd_core::record::RequestRecord;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore, broadcast, watch};

use crate::history::TraceRow;

/// Clients at a time.
const CLIENTS: usize = 200;
/// Events that a client may be behind before it needs a new snapshot.
const BEHIND: usize = 256;
/// Ended requests that are told at each look; further ones are left out.
const ENDED: usize = 20;

/// What clients and producer share.
#[derive(Debug)]
pub(crate) struct Events {
    pub(super) clients: Arc<Semaphore>,
    pub(super) told: broadcast::Sender<Bytes>,
    pub(super) ended: Mutex<Vec<Bytes>>,
    /// Somebody began to listen.
    pub(super) wake: Notify,
    /// The service ends.
    pub(super) over: watch::Sender<bool>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            clients: Arc::new(Semaphore::new(CLIENTS)),
            told: broadcast::Sender::new(BEHIND),
            ended: Mutex::default(),
            wake: Notify::new(),
            over: watch::Sender::new(false),
        }
    }
}

impl Events {
    /// A request has ended. Never waits; costs nothing while nobody listens.
    pub(crate) fn request_ended(&self, record: &RequestRecord) {
        if self.told.receiver_count() == 0 {
            return;
        }
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() < ENDED {
            ended.push(event("trace", &TraceRow::from(record)));
        }
    }

    pub(super) fn tell(&self, event: Bytes) {
        // Nobody may be listening any more.
        self.told.send(event).ok();
    }
}

/// One event. JSON has no line breaks, so it is one line.
pub(super) fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}
