//! Watches the silence of the node that a connection's request waits for, and ends the waiting.
//!
//! Pingora waits for a node with one fixed timeout per read, while how long a silence may last depends on what the
//! node is doing. So the waiting is ended from the other side: while an answer is awaited, Pingora also reads from the
//! client's connection, to notice that it leaves, and that read fails when the exchange abandons the node. Nothing has
//! been read from the client by it, so that the request can go to another node.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use herd_core::patience::GiveUp;
use tokio::time::{Instant, Sleep};

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Look again after so many milliseconds, or when something happens; `None` = only then.
    Wait(Option<u64>),
    /// The node is no longer waited for.
    Abandoned(GiveUp),
}

/// Looks at the exchange, and has it judge the silence when that is due.
type Looker = Box<dyn FnMut() -> Look + Send>;

/// The request of one connection.
#[derive(Default)]
pub struct Awaited(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` = there is no request.
    looker: Option<Looker>,
    /// Stays from one request of a connection to the next: to put off a timer that runs costs next to nothing, while a
    /// new one, sooner than all others, wakes the thread that waits for the system.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Who is woken by [`Awaited::wake`].
    reader: Option<Waker>,
}

impl Awaited {
    /// Watches a request from now on with `looker`.
    pub fn begin(&self, looker: impl FnMut() -> Look + Send + 'static) {
        self.lock().looker = Some(Box::new(looker));
    }

    /// Has the request looked at, as something happened to it elsewhere.
    pub fn wake(&self) {
        if let Some(reader) = self.lock().reader.take() {
            reader.wake();
        }
    }

    /// Forgets the request: the connection may serve another.
    pub fn reset(&self) {
        let mut state = self.lock();
        *state = State { sleep: state.sleep.take(), ..State::default() };
    }

    /// Resolves when the node is no longer waited for; pending while all is well, or there is no request.
    pub fn poll_abandoned(&self, cx: &mut Context<'_>) -> Poll<GiveUp> {
        let mut state = self.lock();
        let State { looker, sleep, reader } = &mut *state;
        let Some(looker) = looker else { return Poll::Pending };
        if !reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            *reader = Some(cx.waker().clone());
        }
        loop {
            let ms = match looker() {
                Look::Abandoned(reason) => return Poll::Ready(reason),
                Look::Wait(None) => return Poll::Pending,
                Look::Wait(Some(ms)) => ms,
            };
            let until = Instant::now() + Duration::from_millis(ms.max(1));
            let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            sleep.as_mut().reset(until);
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A looker that panics has judged nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaited").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    async fn abandoned_within(awaited: &Awaited, ms: u64) -> Option<GiveUp> {
        let waiting = std::future::poll_fn(|cx| awaited.poll_abandoned(cx));
        tokio::time::timeout(Duration::from_millis(ms), waiting).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_exchange_is_looked_at_when_it_wants_to_be() {
        let awaited = Awaited::default();
        assert_eq!(abandoned_within(&awaited, 1_000).await, None);
        let begun = Instant::now();
        awaited.begin(move || match begun.elapsed().as_millis() {
            250.. => Look::Abandoned(GiveUp::NoFirstByte),
            _ => Look::Wait(Some(100)),
        });
        assert_eq!(abandoned_within(&awaited, 150).await, None);
        assert_eq!(abandoned_within(&awaited, 200).await, Some(GiveUp::NoFirstByte));
        awaited.begin(|| Look::Wait(None));
        assert_eq!(abandoned_within(&awaited, 600_000).await, None);
        awaited.begin(|| Look::Abandoned(GiveUp::NodeDead));
        awaited.reset();
        assert_eq!(abandoned_within(&awaited, 1_000).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_elsewhere_is_seen_at_once() {
        let awaited = Arc::new(Awaited::default());
        let cancelled = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = Arc::clone(&cancelled);
        awaited.begin(move || {
            let cancelled = seen.load(std::sync::atomic::Ordering::Relaxed);
            if cancelled { Look::Abandoned(GiveUp::Cancelled) } else { Look::Wait(Some(3_600_000)) }
        });
        let begun = Instant::now();
        let waiting = std::future::poll_fn(|cx| awaited.poll_abandoned(cx));
        let cancelling = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
            awaited.wake();
        };
        let (reason, ()) = tokio::join!(waiting, cancelling);
        assert_eq!((reason, begun.elapsed()), (GiveUp::Cancelled, Duration::from_secs(5)));
    }
}
