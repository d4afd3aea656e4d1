//! The pulls that run, those that ran lately, and those that failed. Plain data behind one lock.

use std::collections::VecDeque;
use std::sync::Arc;

use herd_core::name::{ModelName, NodeId};
use herd_core::pull::{Backoff, Daily};

use super::PullAsk;
use super::job::{Job, PullInfo};

/// Pulls that are over and still shown.
const RECENT_MAX: usize = 64;

/// All pulls.
#[derive(Debug, Default)]
pub(super) struct Book {
    running: Vec<Running>,
    recent: VecDeque<(Arc<Job>, u64)>,
    /// When a model may be pulled again by itself.
    pub(super) backoff: Backoff,
    /// What pulls of requests have fetched.
    pub(super) daily: Daily,
    /// No pull is started any more.
    pub(super) stopping: bool,
    last_id: u64,
}

#[derive(Debug)]
struct Running {
    job: Arc<Job>,
    /// Those who wait for it.
    waiting: usize,
    /// It goes on when nobody waits.
    kept: bool,
}

impl Book {
    /// A number for a new pull.
    pub(super) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The running pull that serves `ask` too, now with one more who waits for it.
    pub(super) fn join(&mut self, ask: &PullAsk) -> Option<Arc<Job>> {
        let is_there = |node: &NodeId| ask.node_id.as_ref().is_none_or(|id| node.as_str() == id);
        let serves = |one: &&mut Running| one.job.model == ask.model && is_there(&one.job.node_id);
        let running = self.running.iter_mut().find(serves)?;
        running.waiting += 1;
        running.kept |= ask.reason.is_auto();
        Some(Arc::clone(&running.job))
    }

    /// Notes that `job` runs, with one who waits for it.
    pub(super) fn begin(&mut self, job: Arc<Job>) {
        let kept = job.reason.is_auto();
        self.running.push(Running { job, waiting: 1, kept });
    }

    /// One who waited for the pull `id` is gone. Returns it when nobody wants it any more.
    pub(super) fn leave(&mut self, id: u64) -> Option<Arc<Job>> {
        let running = self.running.iter_mut().find(|one| one.job.id == id)?;
        running.waiting = running.waiting.saturating_sub(1);
        (running.waiting == 0 && !running.kept).then(|| Arc::clone(&running.job))
    }

    /// Moves the pull `id` to those that are over. Returns whether it ran.
    pub(super) fn end(&mut self, id: u64, ended_unix_ms: u64) -> bool {
        let Some(index) = self.running.iter().position(|one| one.job.id == id) else { return false };
        let ended = self.running.remove(index);
        self.recent.truncate(RECENT_MAX - 1);
        self.recent.push_front((ended.job, ended_unix_ms));
        true
    }

    /// The running pull `id`.
    pub(super) fn running(&self, id: u64) -> Option<Arc<Job>> {
        self.jobs().find(|job| job.id == id).cloned()
    }

    /// The running pulls.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.running.iter().map(|one| &one.job)
    }

    /// The nodes that pull now.
    pub(super) fn pulling(&self) -> Vec<NodeId> {
        self.jobs().map(|job| job.node_id.clone()).collect()
    }

    /// Bytes that pulls of requests have fetched within a day, those that run counted with all that they will fetch as far
    /// as that is known.
    pub(super) fn automatic_bytes(&self, now_ms: u64) -> u64 {
        let running = self.jobs().filter(|job| job.reason.is_auto()).map(|job| {
            let state = job.state.borrow();
            state.total_bytes.unwrap_or(0).max(state.completed_bytes)
        });
        running.fold(self.daily.bytes(now_ms), u64::saturating_add)
    }

    /// Whether `model` is being pulled.
    pub(super) fn is_pulling(&self, model: &ModelName) -> bool {
        self.jobs().any(|job| job.model == *model)
    }

    /// All pulls as they are shown: those that run, the oldest first, and those that are over, the latest first.
    pub(super) fn info(&self) -> (Vec<PullInfo>, Vec<PullInfo>) {
        let running = self.jobs().map(|job| job.info(None)).collect();
        let recent = self.recent.iter().map(|(job, ended)| job.info(Some(*ended))).collect();
        (running, recent)
    }
}
