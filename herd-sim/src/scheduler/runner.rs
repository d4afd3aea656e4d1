//! One model in memory: its slots, who waits for them, and when it goes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{Grant, KeepAlive, Refusal, Ticket, Want};
use crate::{catalog::Stored, launch::Launch};

type Decided = (Ticket, Result<Grant, Refusal>);

/// A loaded model.
#[derive(Debug)]
pub(crate) struct Runner {
    /// The model that had it loaded; aliases of the same weights are served too.
    pub(crate) model: Arc<Stored>,
    pub(crate) launch: Launch,
    pub(crate) memory_bytes: u64,
    pub(crate) slots: u32,
    /// As `/api/ps` shows it: not moved while requests run.
    pub(crate) expires_at: Duration,
    pub(crate) running: Vec<Ticket>,
    pub(crate) waiting: VecDeque<(Ticket, Grant)>,
    keep_alive: KeepAlive,
}

impl Runner {
    pub(super) fn new(
        now: Duration,
        model: Arc<Stored>,
        launch: Launch,
        memory_bytes: u64,
        slots: u32,
        keep_alive: KeepAlive,
    ) -> Self {
        let (running, waiting) = (Vec::new(), VecDeque::new());
        Self { model, launch, memory_bytes, slots, expires_at: keep_alive.end(now), running, waiting, keep_alive }
    }

    /// Whether a request for the weights `blob`, launched as `wanted`, can run here.
    pub(super) fn serves(&self, blob: &str, wanted: &Launch) -> bool {
        self.model.blob == blob && !self.launch.needs_reload(wanted)
    }

    /// Takes a request in; the answer is there at once unless it waits for a slot.
    pub(super) fn attach(&mut self, now: Duration, ticket: Ticket, want: &Want) -> Option<Decided> {
        if let Some(keep_alive) = want.keep_alive {
            self.keep_alive = keep_alive;
        }
        let grant = Grant { attached_at: now, num_ctx: self.launch.num_ctx };
        if !want.slot {
            self.refresh(now);
        } else if self.running.len() < self.slots as usize {
            self.running.push(ticket);
        } else {
            self.waiting.push_back((ticket, grant));
            return None;
        }
        Some((ticket, Ok(grant)))
    }

    /// Lets a request go; the next one that waits gets its slot.
    pub(super) fn leave(&mut self, now: Duration, ticket: Ticket) -> Option<Decided> {
        let before = self.running.len() + self.waiting.len();
        self.running.retain(|running| *running != ticket);
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        if self.running.len() + self.waiting.len() == before {
            return None;
        }
        self.refresh(now);
        if self.running.len() == self.slots as usize {
            return None;
        }
        let (next, grant) = self.waiting.pop_front()?;
        self.running.push(next);
        Some((next, Ok(grant)))
    }

    /// Makes the runner go as soon as it is idle.
    pub(super) fn expire(&mut self, now: Duration) {
        self.keep_alive = KeepAlive::For(Duration::ZERO);
        self.expires_at = now;
    }

    /// Starts the keep-alive anew, if nothing runs.
    fn refresh(&mut self, now: Duration) {
        if self.is_idle() {
            self.expires_at = self.keep_alive.end(now);
        }
    }

    /// Whether nobody runs or waits here.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// When it goes if nobody comes; none while it is busy, or when it stays for ever.
    pub(super) fn idle_deadline(&self) -> Option<Duration> {
        (self.is_idle() && self.keep_alive != KeepAlive::Forever).then_some(self.expires_at)
    }

    /// Whether its time has come.
    pub(super) fn is_expired(&self, now: Duration) -> bool {
        self.idle_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Who is stopped first when room is needed, least first: shortest keep-alive, then the path of the weights.
    pub(super) fn eviction_order(&self) -> (KeepAlive, &str) {
        (self.keep_alive, &self.model.blob)
    }
}
