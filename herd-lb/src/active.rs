//! Requests under way, counted by guards, and a way to wait until there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Notify;

/// Requests of all kinds that the edge has begun and not ended.
#[derive(Debug, Clone, Default)]
pub struct Active(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    requests: AtomicUsize,
    idle: Notify,
}

impl Active {
    /// Counts one more until the guard is dropped.
    pub fn begin(&self) -> ActiveGuard {
        self.0.requests.fetch_add(1, SeqCst);
        ActiveGuard(Arc::clone(&self.0))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.requests.load(SeqCst)
    }

    /// Resolves once there are none.
    pub async fn idle(&self) {
        loop {
            let notified = self.0.idle.notified();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// One request under way.
#[derive(Debug)]
#[must_use = "dropping the guard ends the request's count"]
pub struct ActiveGuard(Arc<Counter>);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_when_the_last_guard_is_gone() {
        let active = Active::default();
        active.idle().await;
        let (first, second) = (active.begin(), active.begin());
        let mut idle = std::pin::pin!(active.idle());
        assert!(futures_poll(idle.as_mut()).await.is_none());
        drop(first);
        assert!(futures_poll(idle.as_mut()).await.is_none());
        drop(second);
        idle.await;
    }

    async fn futures_poll<F: Future>(future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
