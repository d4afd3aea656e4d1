//! Connections that read, and the time that a query may take.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::health::Shared;
use super::{Place, STEPS, StoreError, file};

/// Queries at a time.
const CONNECTIONS: usize = 2;
/// Queries that may wait.
const WAITING: usize = 256;

/// Longest wait for a file that is not open yet.
const OPENING: Duration = Duration::from_secs(1);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// Connections that read.
#[derive(Debug)]
pub(super) struct Readers {
    place: Place,
    shared: Arc<Shared>,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Those that nobody uses, each with the generation of its file.
    idle: Mutex<Vec<(u64, Connection)>>,
}

impl Readers {
    pub(super) fn new(place: Place, shared: Arc<Shared>) -> Self {
        Self {
            place,
            shared,
            turns: Arc::new(Semaphore::new(CONNECTIONS)),
            waiting: AtomicUsize::new(0),
            idle: Mutex::default(),
        }
    }

    /// Lets `ask` read one picture of the database on a blocking thread.
    pub(super) async fn ask<T, F>(self: &Arc<Self>, ask: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let until = Instant::now() + self.place.settings.query_deadline;
        self.opened(until.min(Instant::now() + OPENING)).await?;
        let turn = {
            let _place = Waiting::enter(&self.waiting)?;
            let turn = tokio::time::timeout_at(until.into(), Arc::clone(&self.turns).acquire_owned()).await;
            turn.map_err(|_| StoreError::Busy)?.map_err(|_| StoreError::Unavailable)?
        };
        let readers = Arc::clone(self);
        let asked = tokio::task::spawn_blocking(move || {
            let answer = readers.read(until, ask);
            drop(turn);
            answer
        });
        asked.await.map_err(|error| StoreError::Failed(error.to_string()))?
    }

    /// Waits until the file is open, which it is soon after the start.
    async fn opened(&self, until: Instant) -> Result<(), StoreError> {
        while self.shared.generation.load(Relaxed) == 0 {
            if Instant::now() >= until {
                return Err(StoreError::Unavailable);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn read<T, F>(&self, until: Instant, ask: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Connection) -> Result<T, StoreError>,
    {
        let generation = self.shared.generation.load(Relaxed);
        let connection = self.take(generation)?;
        let late = move || {
            // Who serves requests may want this core, and is not to wait until the system takes it from us.
            std::thread::yield_now();
            Instant::now() >= until
        };
        connection.progress_handler(STEPS, Some(late))?;
        let answer = one_picture(&connection, ask);
        connection.progress_handler(0, None::<fn() -> bool>)?;
        match &answer {
            Err(StoreError::Deadline) => {
                self.shared.deadlines.fetch_add(1, Relaxed);
            }
            Err(StoreError::Damaged) => {
                self.shared.suspected.store(true, Relaxed);
                return answer;
            }
            _ => {}
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((generation, connection));
        answer
    }

    fn take(&self, generation: u64) -> Result<Connection, StoreError> {
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|(of, _)| *of == generation);
            if let Some((_, connection)) = idle.pop() {
                return Ok(connection);
            }
        }
        Ok(file::open_to_read(&self.place.file())?)
    }
}

fn one_picture<T, F>(connection: &Connection, ask: F) -> Result<T, StoreError>
where
    F: FnOnce(&Connection) -> Result<T, StoreError>,
{
    let picture = connection.unchecked_transaction()?;
    ask(&picture)
}

/// A place among those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Result<Self, StoreError> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Relaxed) < WAITING { Ok(place) } else { Err(StoreError::Busy) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
