//! What goes into the scheduler and what comes out.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{catalog::Stored, launch::LoadOptions};

/// One request's place in the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

impl Ticket {
    pub(super) fn new(number: u64) -> Self {
        Self(number)
    }
}

/// How long a runner stays after its last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KeepAlive {
    /// That long; zero unloads at once.
    For(Duration),
    /// Until something else needs the room.
    Forever,
}

/// What Ollama shows as the end of a runner that stays for ever: about 292 years, the most a Go duration holds.
const FOREVER: Duration = Duration::from_nanos(i64::MAX as u64);

impl KeepAlive {
    /// From a configured number of milliseconds; negative is for ever.
    pub(crate) fn from_millis(millis: i64) -> Self {
        u64::try_from(millis).map_or(Self::Forever, |millis| Self::For(Duration::from_millis(millis)))
    }

    pub(super) fn end(self, now: Duration) -> Duration {
        match self {
            Self::For(time) => now.saturating_add(time),
            Self::Forever => now.saturating_add(FOREVER),
        }
    }
}

/// What a request wants.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) model: Arc<Stored>,
    pub(crate) options: LoadOptions,
    /// The request's own `keep_alive`; it stays with the runner.
    pub(crate) keep_alive: Option<KeepAlive>,
    /// Whether it runs something, or only has the model loaded.
    pub(crate) slot: bool,
}

/// Permission to run, until [`Scheduler::leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// When the request got its runner: what came before is Ollama's `load_duration`.
    pub(crate) attached_at: Duration,
    /// Context of the runner, per slot.
    pub(crate) num_ctx: u32,
}

/// Why a request may not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The queue for loads is full.
    Busy,
    /// The model with its context is larger than all memory.
    TooLarge {
        /// Bytes it takes.
        need: u64,
        /// Bytes there are.
        have: u64,
    },
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerCounters {
    /// Loads that finished.
    pub loads: u64,
    /// Those of them that replaced a runner of the same weights.
    pub reloads: u64,
    /// Loads given up because the client that asked for them left.
    pub loads_cancelled: u64,
    /// Idle runners stopped to make room for another model.
    pub evictions: u64,
    /// Requests refused because the queue was full.
    pub rejected_busy: u64,
}
