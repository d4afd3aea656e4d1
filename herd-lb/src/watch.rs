//! Watches the answer that a connection waits for, and ends the waiting.
//!
//! Pingora waits for a node with one fixed timeout per read, while how long a silence may last depends on what the
//! node is doing. So the waiting is ended from the other side: while an answer is awaited, Pingora also reads from the
//! client's connection, to notice that it leaves, and that read fails when the watch says so. Nothing has been read
//! from the client by it, so that the request can go to another node.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use herd_core::patience::{GiveUp, Verdict};
use tokio::time::{Instant, Sleep};

/// Judges the silence, each time it is asked.
type Judge = Box<dyn FnMut() -> Verdict + Send>;

/// What is awaited on one connection.
#[derive(Default)]
pub struct Awaited(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` = nothing is awaited.
    watch: Option<Judge>,
    /// Whether the judge is to be asked when `sleep` ends, not at once.
    waits: bool,
    /// Stays from one request of a connection to the next: to put off a timer that runs costs next to nothing, while a
    /// new one, sooner than all others, wakes the thread that waits for the system.
    sleep: Option<Pin<Box<Sleep>>>,
    gave_up: Option<GiveUp>,
    /// Somebody has ended the request; it stays ended.
    cancelled: Option<GiveUp>,
    /// Who is to be woken when that happens.
    reader: Option<Waker>,
}

impl Awaited {
    /// Watches from now on; `judge` is asked at once and whenever it wants to be.
    pub fn begin(&self, judge: impl FnMut() -> Verdict + Send + 'static) {
        let mut state = self.lock();
        state.gave_up = None;
        state.waits = false;
        state.watch = Some(Box::new(judge));
    }

    /// Watches no longer.
    pub fn end(&self) {
        self.lock().watch = None;
    }

    /// Ends the request, whatever it waits for.
    pub fn cancel(&self, reason: GiveUp) {
        let mut state = self.lock();
        state.cancelled = Some(reason);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Forgets the request: the connection may serve another.
    pub fn reset(&self) {
        let mut state = self.lock();
        *state = State { sleep: state.sleep.take(), ..State::default() };
    }

    /// Why the request was ended, if somebody has.
    #[must_use]
    pub fn cancelled(&self) -> Option<GiveUp> {
        self.lock().cancelled
    }

    /// Why the waiting was ended, told once.
    pub fn take_gave_up(&self) -> Option<GiveUp> {
        self.lock().gave_up.take()
    }

    /// Resolves when the waiting is to end; pending while all is well, or nothing is awaited.
    pub fn poll_gave_up(&self, cx: &mut Context<'_>) -> Poll<GiveUp> {
        let mut state = self.lock();
        let State { watch, waits, sleep, gave_up, cancelled, reader } = &mut *state;
        if let Some(reason) = *cancelled {
            *gave_up = Some(reason);
            return Poll::Ready(reason);
        }
        if !reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            *reader = Some(cx.waker().clone());
        }
        let Some(judge) = watch else { return Poll::Pending };
        loop {
            if *waits && sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_pending()) {
                return Poll::Pending;
            }
            match judge() {
                Verdict::Wait(ms) => {
                    let until = Instant::now() + Duration::from_millis(ms.max(1));
                    match sleep {
                        Some(sleep) => sleep.as_mut().reset(until),
                        None => *sleep = Some(Box::pin(tokio::time::sleep_until(until))),
                    }
                    *waits = true;
                }
                Verdict::GiveUp(reason) => {
                    *watch = None;
                    *gave_up = Some(reason);
                    return Poll::Ready(reason);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A judge that panics has judged nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaited").finish_non_exhaustive()
    }
}

/// When the last byte of an answer came, noted for every chunk without a lock.
#[derive(Debug, Clone, Default)]
pub struct LastByte(Arc<AtomicU64>);

impl LastByte {
    /// Notes a byte.
    pub fn came(&self, now_ms: u64) {
        self.0.store(now_ms.max(1), Relaxed);
    }

    /// When the last one came; `None` = none has.
    #[must_use]
    pub fn at_ms(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|at_ms| *at_ms > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn gives_up_within(awaited: &Awaited, ms: u64) -> Option<GiveUp> {
        let waiting = std::future::poll_fn(|cx| awaited.poll_gave_up(cx));
        tokio::time::timeout(Duration::from_millis(ms), waiting).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_judge_is_asked_when_it_wants_to_be() {
        let awaited = Awaited::default();
        assert_eq!(gives_up_within(&awaited, 1_000).await, None);
        let mut looks = 0;
        awaited.begin(move || {
            looks += 1;
            if looks < 3 { Verdict::Wait(100) } else { Verdict::GiveUp(GiveUp::NoFirstByte) }
        });
        assert_eq!(gives_up_within(&awaited, 150).await, None);
        assert_eq!(gives_up_within(&awaited, 100).await, Some(GiveUp::NoFirstByte));
        assert_eq!(gives_up_within(&awaited, 1_000).await, None, "it is over");
        assert_eq!((awaited.take_gave_up(), awaited.take_gave_up()), (Some(GiveUp::NoFirstByte), None));
        // The timer that stays is no reason to ask the next judge later than it wants.
        awaited.begin(|| Verdict::Wait(60_000));
        assert_eq!(gives_up_within(&awaited, 10).await, None);
        awaited.reset();
        let mut looks = 0;
        awaited.begin(move || {
            looks += 1;
            if looks < 2 { Verdict::Wait(100) } else { Verdict::GiveUp(GiveUp::NoFirstByte) }
        });
        assert_eq!(gives_up_within(&awaited, 150).await, Some(GiveUp::NoFirstByte));
        awaited.begin(|| Verdict::GiveUp(GiveUp::NodeDead));
        awaited.end();
        assert_eq!(gives_up_within(&awaited, 1_000).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_request_is_ended_at_once_and_stays_so() {
        let awaited = Arc::new(Awaited::default());
        let waiting = std::future::poll_fn(|cx| awaited.poll_gave_up(cx));
        let cancelling = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            awaited.cancel(GiveUp::Cancelled);
        };
        let (reason, ()) = tokio::join!(waiting, cancelling);
        assert_eq!(reason, GiveUp::Cancelled);
        assert_eq!(gives_up_within(&awaited, 1).await, Some(GiveUp::Cancelled));
        awaited.reset();
        assert_eq!(gives_up_within(&awaited, 1).await, None);
    }
}
