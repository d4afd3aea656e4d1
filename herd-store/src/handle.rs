//! The store as others hold it: opening, recording, closing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use herd_core::record::RequestRecord;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::health::{Shared, StoreHealth, StoreState};
use super::queue::{Command, Queue};
use super::reader::Readers;
use super::recent::LastHour;
use super::writer::{Observer, Writer};
use super::{Place, StoreError, StoreSettings};

/// Longest wait for the writer to do something: it may be bringing a large database up to date.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// The store.
#[derive(Debug)]
pub struct Store;

impl Store {
    /// Starts a store in `dir`. Returns at once: the database is opened by the writer's thread, whose failures show in
    /// [`StoreHandle::health`], and records may already be given.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn open(dir: &Path, settings: StoreSettings) -> std::io::Result<(StoreHandle, StoreThread)> {
        Self::open_observed(dir, settings, |_| {})
    }

    /// The same; the writer's thread shows each record to `observer` as it leaves the queue, some tenths of a second
    /// after it was given, whether or not it can be written.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn open_observed(
        dir: &Path,
        settings: StoreSettings,
        observer: impl FnMut(&RequestRecord) + Send + 'static,
    ) -> std::io::Result<(StoreHandle, StoreThread)> {
        let limit = settings.queue.max(1);
        let shared = Arc::new(Shared::new(settings.max_bytes));
        let place = Place { dir: dir.into(), settings };
        let queue = Arc::new(Queue::default());
        let readers = Arc::new(Readers::new(place.clone(), Arc::clone(&shared)));
        let observer: Observer = Box::new(observer);
        let writer = Writer::new(place, Arc::clone(&shared), Arc::clone(&queue), observer);
        let (ended, end) = channel();
        let thread = thread::Builder::new().name("herd-store-writer".into()).spawn(move || {
            writer.run();
            drop(ended);
        });
        drop(thread?);
        let handles = Arc::new(LastHandle(Arc::clone(&queue)));
        let handle = StoreHandle { queue: Arc::clone(&queue), shared: Arc::clone(&shared), handles, readers, limit };
        Ok((handle, StoreThread { queue, shared, end }))
    }
}

/// The store, to write and to ask. Cloning is cheap.
#[derive(Clone)]
pub struct StoreHandle {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    /// Records that may wait.
    limit: usize,
    #[expect(dead_code, reason = "its end is its use")]
    handles: Arc<LastHandle>,
}

/// Has the writer end when the last handle is gone.
struct LastHandle(Arc<Queue>);

impl Drop for LastHandle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl std::fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreHandle").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl StoreHandle {
    /// Hands over a request that is over. Never waits: when the queue is full or closed, it is counted as dropped and
    /// given back.
    ///
    /// # Errors
    /// With the record, which will not be kept and is shown to no observer.
    pub fn record(&self, record: RequestRecord) -> Result<(), Box<RequestRecord>> {
        // First counted, so that the writer never counts down what was not counted up.
        let before = self.shared.queue_len.fetch_add(1, Relaxed);
        let left = if before < self.limit { self.queue.leave(record) } else { Err(Box::new(record)) };
        left.inspect_err(|_| {
            self.shared.queue_len.fetch_sub(1, Relaxed);
            self.shared.drop_records(1);
        })
    }

    /// How the store is. Never waits.
    #[must_use]
    pub fn health(&self) -> StoreHealth {
        self.shared.health(self.limit)
    }

    /// What requests of the last hour did, by what the writer has taken: it lags a quarter of a second, and after a start
    /// the requests from before join it within seconds. Does not read the database.
    #[must_use]
    pub fn last_hour(&self, now_ms: u64) -> LastHour {
        self.shared.last_hour(now_ms)
    }

    /// Waits until the database is open, `limit` at most. Returns whether it is.
    pub async fn ready(&self, limit: Duration) -> bool {
        let mut state = self.shared.state.subscribe();
        let ready = state.wait_for(|state| *state == StoreState::Ready);
        tokio::time::timeout(limit, ready).await.is_ok_and(|state| state.is_ok())
    }

    /// What the writer is doing, for tests that wait for it.
    #[cfg(test)]
    pub(super) fn shared_state(&self) -> tokio::sync::watch::Receiver<StoreState> {
        self.shared.state.subscribe()
    }

    /// Asks something of a reader.
    pub(super) async fn read<T, F>(&self, ask: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.readers.ask(ask).await
    }

    /// Lets the writer do something between two batches, and waits for it. What took too long may be done later.
    pub(super) async fn write<T, F>(&self, act: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let command = Box::new(move |connection: Option<&mut Connection>| {
            let done = match connection {
                Some(connection) => act(connection).map_err(StoreError::from),
                None => Err(StoreError::Unavailable),
            };
            // Who asked may be gone; it is done all the same.
            drop(answer.send(done));
        });
        self.command(command)?;
        match tokio::time::timeout(WRITE_LIMIT, answered).await {
            Ok(answer) => answer.unwrap_or(Err(StoreError::Unavailable)),
            Err(_) => Err(StoreError::Deadline),
        }
    }

    /// Lets the writer do something between two batches, without waiting for it; what fails then is only logged.
    pub(super) fn post<F>(&self, what: &'static str, act: F) -> Result<(), StoreError>
    where
        F: FnOnce(&mut Connection) -> rusqlite::Result<()> + Send + 'static,
    {
        self.command(Box::new(move |connection| {
            let done = connection.map_or(Err(StoreError::Unavailable), |connection| Ok(act(connection)?));
            if let Err(error) = done {
                tracing::warn!(what, %error, "not kept");
            }
        }))
    }

    fn command(&self, command: Command) -> Result<(), StoreError> {
        self.queue.command(command)
    }
}

/// The writer's thread, to end it.
pub struct StoreThread {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    end: Receiver<()>,
}

impl std::fmt::Debug for StoreThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreThread").finish_non_exhaustive()
    }
}

impl StoreThread {
    /// Writes what waits and ends, waiting `limit` at most; blocks. Returns whether all was written: what was not is
    /// counted as dropped. Records that come from now on are dropped.
    #[must_use = "records may have been lost"]
    pub fn close(self, limit: Duration) -> bool {
        let dropped = self.shared.dropped.load(Relaxed);
        let until = Instant::now() + limit;
        self.queue.close();
        // Nothing is ever sent: the end of the channel is the end of the thread.
        self.end.recv_timeout(until.saturating_duration_since(Instant::now())).ok();
        let ended = *self.shared.state.borrow() == StoreState::Closed;
        ended && self.shared.dropped.load(Relaxed) == dropped
    }
}
