//! The threads that serve clients, each with an event loop of its own.
//!
//! A runtime that shares its work among threads has one of them wait for the system and wakes the others for what it
//! finds; with few requests under way, a thread is woken for nearly every step of each. Here a connection stays with
//! the thread it was given to, and so do the connections to nodes that its requests use. What takes long is done on
//! other threads anyway, and so no connection keeps the others of its thread waiting.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// Serves the connections that it is given. Dropping it ends its thread, and what that still does.
#[derive(Debug)]
pub struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
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
        Ok(Self { runtime: handle, connections: Arc::default(), _end: end })
    }

    /// Serves one more connection, until `serving` is done.
    pub fn serve(&self, tasks: &TaskTracker, serving: impl Future<Output = ()> + Send + 'static) {
        let counted = Counted::new(&self.connections);
        let serving = async move {
            serving.await;
            drop(counted);
        };
        tasks.spawn_on(serving, &self.runtime);
    }

    /// Connections that it serves.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
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

/// One connection more, for as long as this is there.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
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
        let tasks = TaskTracker::new();
        let (leave, left) = oneshot::channel::<()>();
        worker.serve(&tasks, async move { drop(left.await) });
        worker.serve(&tasks, async { panic!("a connection that fails is over as well") });
        leave.send(()).unwrap();
        tasks.close();
        tasks.wait().await;
        assert_eq!(worker.connections(), 0);
    }
}
