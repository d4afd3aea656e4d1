//! Where ended requests are left, and the thread that writes them down.
//!
//! A line of the log in two forms and a row of the store cost as much as all else that the edge does for a request. Who
//! serves leaves them here, and goes on to serve. The thread takes what has come together: woken for every request it
//! would take a core from those who serve, and so would the threads behind it, which write the log and the store.

use std::fmt;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Ended;

/// How long requests come together before they are written.
const TOGETHER: Duration = Duration::from_millis(50);
/// Requests that may lie here. Beyond them whoever serves writes: the thread is behind, and that slows all down to
/// what it can do.
const LEFT_MAX: usize = 4_096;
/// Requests at a time up to which the thread lets others go first: with more it would fall behind for good, where all
/// cores are taken.
const KEEPS_UP: usize = 256;
/// What the thread keeps room for after a burst.
const SPARE: usize = 512;
/// Longest that the end of the process waits for what is left.
const END: Duration = Duration::from_secs(2);

/// The desk. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Desk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    pile: Mutex<Pile>,
    changed: Condvar,
}

#[derive(Default)]
struct Pile {
    left: Vec<Ended>,
    closed: bool,
}

/// The thread that writes. Dropping it has it write what is left, and end.
#[must_use = "dropping it ends the thread"]
pub struct Clerk {
    desk: Desk,
    ended: Receiver<()>,
}

impl Desk {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn open() -> std::io::Result<(Self, Clerk)> {
        let desk = Self::default();
        let (end, ended) = channel();
        let shared = Arc::clone(&desk.0);
        std::thread::Builder::new().name("herd-records".into()).spawn(move || {
            shared.work();
            // Nobody may be waiting for it any more.
            end.send(()).ok();
        })?;
        Ok((desk.clone(), Clerk { desk, ended }))
    }

    /// Leaves a request. Whoever finds no room, or the thread gone, writes it.
    pub(super) fn leave(&self, ended: Ended) {
        let mut pile = self.0.lock();
        if pile.closed || pile.left.len() >= LEFT_MAX {
            drop(pile);
            return ended.write();
        }
        let first = pile.left.is_empty();
        pile.left.push(ended);
        drop(pile);
        if first {
            self.0.changed.notify_one();
        }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pile> {
        // Held for a push or a swap and nothing else.
        self.pile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut taken = Vec::new();
        loop {
            let pile = self.lock();
            let waits = |pile: &mut Pile| pile.left.is_empty() && !pile.closed;
            let pile = self.changed.wait_while(pile, waits).unwrap_or_else(PoisonError::into_inner);
            let open = |pile: &mut Pile| !pile.closed;
            let together = self.changed.wait_timeout_while(pile, TOGETHER, open);
            let (mut pile, _) = together.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut taken, &mut pile.left);
            let closed = pile.closed;
            drop(pile);
            let keeps_up = taken.len() <= KEEPS_UP;
            for ended in taken.drain(..) {
                ended.write();
                if keeps_up {
                    // Who serves may want this core, and is not to wait for all of them.
                    std::thread::yield_now();
                }
            }
            taken.shrink_to(SPARE);
            if closed {
                return;
            }
        }
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.desk.0.lock().closed = true;
        self.desk.0.changed.notify_one();
        // A store or a log that hangs must not keep the process.
        self.ended.recv_timeout(END).ok();
    }
}

#[cfg(test)]
mod tests {
    use herd_core::request::Surface;
    use prometheus::Registry;

    use super::*;
    use crate::record::Recorder;
    use crate::telemetry::Telemetry;
    use crate::trace::Trace;

    /// Requests end at a desk, some of them when it is closed already.
    #[test]
    fn whatever_is_left_is_written_before_the_thread_ends() {
        let dir = std::env::temp_dir().join(format!("herd-desk-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (store, thread) = herd_store::Store::open(&dir, herd_store::StoreSettings::default()).unwrap();
        let (desk, clerk) = Desk::open().unwrap();
        let telemetry = Telemetry::new(&Registry::new()).unwrap();
        let recorder = Arc::new(Recorder::new(telemetry, Some(store.clone()), Some(desk)));
        let end = || drop(Trace::begin("r".into(), Surface::OllamaChat, Arc::clone(&recorder)));
        (0..100).for_each(|_| end());
        drop(clerk);
        end();
        assert!(thread.close(Duration::from_secs(20)));
        assert_eq!((store.health().written, store.health().dropped), (101, 0));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
