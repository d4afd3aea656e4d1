//! Waiting for a pull.

use std::fmt;
use std::sync::Arc;

use herd_core::name::{ModelName, NodeId};
use tokio::sync::watch;

use super::job::Job;
use super::pulls::{LOST, Shared};
use super::state::{FailureKind, PullFailure, PullPhase, PullState};

/// A pull to wait for. Dropping the last handle of a pull that only operators asked for cancels it.
pub struct PullHandle {
    /// Its number, unique in this process.
    pub id: u64,
    /// The model.
    pub model: ModelName,
    /// The node that it goes to.
    pub node_id: NodeId,
    /// How far it is: always the latest, however slowly it is looked at.
    pub progress: watch::Receiver<PullState>,
    shared: Arc<Shared>,
    kept: bool,
}

impl PullHandle {
    /// Lets the pull run to its end, although nobody waits for it here any more.
    pub(super) fn keep_running(mut self) {
        self.kept = true;
    }

    pub(super) fn new(shared: &Arc<Shared>, job: &Job) -> Self {
        let (model, node_id, progress) = (job.model.clone(), job.node_id.clone(), job.state.subscribe());
        Self { id: job.id, model, node_id, progress, shared: Arc::clone(shared), kept: false }
    }

    /// Waits until the pull is over; returns how it ended.
    pub async fn finished(&mut self) -> PullState {
        let ended = self.progress.wait_for(|state| state.phase.is_over()).await.map(|state| state.clone());
        // Without its sender nobody can end it any more.
        ended.unwrap_or_else(|_| self.lost())
    }

    /// How far the pull is, once that is other than when it was last looked at.
    pub(super) async fn changed(&mut self) -> PullState {
        match self.progress.changed().await {
            Ok(()) => self.progress.borrow_and_update().clone(),
            Err(_) => self.lost(),
        }
    }

    fn lost(&self) -> PullState {
        let mut state = self.progress.borrow().clone();
        if !state.phase.is_over() {
            state.end(PullPhase::Failed(PullFailure::new(FailureKind::Node, LOST)));
        }
        state
    }
}

impl Drop for PullHandle {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut book = self.shared.book();
        if let Some(job) = book.leave(self.id) {
            self.shared.finish(&mut book, &job, PullPhase::Cancelled("nobody waits for it any more".to_owned()));
        }
    }
}

impl fmt::Debug for PullHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting for pull {} of {} on {}", self.id, self.model, self.node_id)
    }
}
