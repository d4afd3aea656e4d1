//! The threads that serve clients, each with an event loop of its own.
//!
//! A runtime that shares its work among threads has one of them wait for the system and wakes the others for what it
//! finds; with few requests under way, a thread is woken for nearly every step of each. Here a connection stays with
//! the thread it was given to, and so do the connections to nodes that its requests use. The price is that whoever keeps
//! the thread keeps all its connections waiting: so what takes long is done on other threads, or in turns.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// Serves the connections that it is given. Dropping it ends its thread, and what that still does.
#[derive(Debug)]
pub struct Worker {
    runtime: Handle,
    tasks: TaskTracker,
    _end: oneshot::Sender<()>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses a thread or what its event loop needs.
    pub fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name(format!("edge {number}")).spawn(move || run(runtime, ended))?;
        Ok(Self { runtime: handle, tasks: TaskTracker::new(), _end: end })
    }

    /// Serves one more connection, until `serving` is done.
    pub fn serve(&self, serving: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(serving, &self.runtime);
    }

    /// Connections that it serves.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.tasks.len()
    }

    /// Resolves once it serves none, when none is added any more.
    pub async fn done(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Of `loads`, the place of the smallest; among equals the first one from `turn` on, so that turns go round.
#[must_use]
pub fn least_busy(loads: impl ExactSizeIterator<Item = usize>, turn: usize) -> usize {
    let count = loads.len().max(1);
    let rank = |place: usize| (place + count - turn % count) % count;
    loads.enumerate().min_by_key(|(place, load)| (*load, rank(*place))).map_or(0, |(place, _)| place)
}

fn run(runtime: Runtime, ended: oneshot::Receiver<()>) {
    // Told, or its other end dropped: both end it.
    runtime.block_on(ended).ok();
    // Work on blocking threads is for requests that are gone.
    runtime.shutdown_background();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(loads: &[usize], turn: usize, expected: usize) {
        assert_eq!(least_busy(loads.iter().copied(), turn), expected, "{loads:?} {turn}");
    }

    #[test]
    fn the_least_busy_is_next_and_equals_take_turns() {
        check(&[3, 1, 2], 0, 1);
        check(&[2, 2, 2], 0, 0);
        check(&[2, 2, 2], 1, 1);
        check(&[2, 2, 2], 5, 2);
        check(&[1, 2, 1], 1, 2);
        check(&[1, 2, 1], 3, 0);
        check(&[9], 7, 0);
        check(&[], 1, 0);
    }

    #[tokio::test]
    async fn connections_are_counted_while_they_are_served() {
        let worker = Worker::start(0).unwrap();
        let (leave, left) = oneshot::channel::<()>();
        worker.serve(async move { drop(left.await) });
        assert_eq!(worker.connections(), 1);
        worker.serve(async { panic!("a connection that fails is over as well") });
        leave.send(()).unwrap();
        worker.done().await;
        assert_eq!(worker.connections(), 0);
    }
}
