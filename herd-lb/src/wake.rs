//! Tells whoever hands out slots that something has changed, when anybody waits for that.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, fence};

use herd_core::choice::Freed;
use tokio::sync::Notify;

/// A nudge that costs next to nothing while nobody waits.
#[derive(Debug, Default)]
pub struct Wake {
    waiting: AtomicUsize,
    notify: Notify,
}

impl Wake {
    /// Says that a slot is free, or that the fleet is another. Many nudges before somebody looks are one.
    pub fn nudge(&self) {
        // What changed must be seen by whoever is counted after this; with the fence in `enter`, one of the two sees
        // the other.
        fence(std::sync::atomic::Ordering::SeqCst);
        if self.waiting() > 0 {
            self.notify.notify_one();
        }
    }

    /// Counts one who waits, and has the fleet looked at once more: it may have changed just before.
    pub fn enter(&self) {
        self.waiting.fetch_add(1, Relaxed);
        fence(std::sync::atomic::Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Ends what [`Self::enter`] began.
    pub fn leave(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Resolves after a nudge.
    pub async fn nudged(&self) {
        self.notify.notified().await;
    }
}

impl Freed for Wake {
    fn slot_freed(&self) {
        self.nudge();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nudges_are_heard_only_while_somebody_waits() {
        let wake = Wake::default();
        let heard = || async { tokio::time::timeout(std::time::Duration::from_secs(1), wake.nudged()).await.is_ok() };
        wake.nudge();
        assert!(!heard().await);
        wake.enter();
        assert!(heard().await, "who comes has the fleet looked at");
        wake.nudge();
        wake.nudge();
        assert!(heard().await && !heard().await);
        wake.leave();
        wake.nudge();
        assert!(!heard().await);
    }
}
