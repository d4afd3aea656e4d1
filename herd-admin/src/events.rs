//! `GET /dashboard/events`: what changes, as it changes (server-sent events).
//!
//! One producer looks at the fleet twice a second and tells all clients the same bytes; while nobody listens it does
//! nothing. Each client first gets a snapshot, and another one when it was too slow for what came since.

mod channel;
mod deltas;
mod http;

use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) use channel::Events;
use channel::event;
pub(crate) use http::events;

use crate::history::Now;
use crate::state::AdminState;
use crate::stop::stopped;
use crate::{live, pull, queue, status};

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(500);
/// Requests under way that are told of.
const REQUESTS: usize = 200;

/// Tells what changes until `shutdown`, then ends all streams.
pub(crate) async fn run(state: AdminState, mut shutdown: watch::Receiver<bool>) {
    let events = state.events();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = None;
    while !*shutdown.borrow() {
        if events.told.receiver_count() == 0 {
            known = None;
            events.ended.lock().unwrap_or_else(PoisonError::into_inner).clear();
            tokio::select! {
                () = stopped(&mut shutdown) => break,
                () = events.wake.notified() => {}
            }
        }
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            _ = ticks.tick() => {}
        }
        let now = picture(&state);
        match &known {
            Some(before) => deltas::between(before, &now).into_iter().for_each(|event| events.tell(event)),
            // What changed between a client's own snapshot and this one is in no difference.
            None => events.tell(now.snapshot()),
        }
        known = Some(now);
        let ended = std::mem::take(&mut *events.ended.lock().unwrap_or_else(PoisonError::into_inner));
        for event in ended {
            events.tell(event);
        }
    }
    events.over.send_replace(true);
}

/// All that is told of a moment.
#[derive(Debug)]
struct Picture {
    status: Value,
    queue: Value,
    requests: Value,
    pulls: Value,
    health: Value,
    now: Value,
}

fn picture(state: &AdminState) -> Picture {
    let report = state.checks().report();
    Picture {
        status: status::told(state),
        queue: queue::told(state),
        requests: live::told(state, REQUESTS),
        pulls: pull::told(state),
        health: json!({ "score": report.score, "status": report.status, "critical": report.critical,
            "warning": report.warning, "info": report.info }),
        now: serde_json::to_value(Now::of(state)).unwrap_or_default(),
    }
}

impl Picture {
    /// All of it, as one event.
    fn snapshot(&self) -> Bytes {
        let Self { status, queue, requests, pulls, health, now } = self;
        let snapshot = json!({ "status": status, "queue": queue, "requests": requests, "pulls": pulls,
            "health": health, "overview_now": now });
        event("snapshot", &snapshot)
    }
}

/// What a client gets first.
fn snapshot(state: &AdminState) -> Bytes {
    picture(state).snapshot()
}
