//! The thread that writes: batches, commands and upkeep, and what it does when it cannot.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use herd_core::record::RequestRecord;
use rusqlite::Connection;

use super::clock::{Clocks, steady_ms};
use super::error::Trouble;
use super::health::{Shared, StoreState};
use super::queue::{Queue, Waiting};
use super::record::bounded;
use super::write::BatchWriter;
use super::{Place, STEPS, backfill, file, recent, retention};

/// Records from which on a batch is written without waiting for more.
const BATCH: usize = 512;
/// Most records in one transaction.
const BATCH_MAX: usize = 4_096;
/// Longest time from a record to its being written.
const BATCH_TIME: Duration = Duration::from_millis(250);
/// How long records come together before the writer takes them from the queue. Woken for every record, it would take a
/// core from whoever serves requests.
const GATHER: Duration = Duration::from_millis(50);
/// Records up to which the writer lets others go first: with more it would fall behind for good, where all cores are
/// taken.
const KEEPS_UP: usize = 512;
/// Pause before the database is opened again; it doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest.
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// Between two looks at what is too old or too much.
const UPKEEP_EVERY: Duration = Duration::from_mins(1);
/// And between two steps of it.
const UPKEEP_PAUSE: Duration = Duration::from_millis(5);

/// Is shown each record as it leaves the queue, whether or not it can be written.
pub(super) type Observer = Box<dyn FnMut(&RequestRecord) + Send>;

/// The writer.
pub(super) struct Writer {
    pub(super) place: Place,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    observer: Observer,
    batch: BatchWriter,
    /// What was taken from the queue last.
    taken: Waiting,
    /// Records taken from the queue and not yet written.
    pending: Vec<RequestRecord>,
    pause: Duration,
    /// A file was set aside and nothing has been written since.
    fresh: bool,
    /// Requests from before the start that are still to join the last hour; `None` = it is not known which.
    replay: Option<recent::Replay>,
    clocks: Clocks,
}

impl Writer {
    pub(super) fn new(place: Place, shared: Arc<Shared>, queue: Arc<Queue>, observer: Observer) -> Self {
        Self {
            place,
            shared,
            queue,
            observer,
            batch: BatchWriter::new(),
            taken: Waiting::default(),
            pending: Vec::with_capacity(BATCH),
            pause: FIRST_PAUSE,
            fresh: false,
            replay: None,
            clocks: Clocks::default(),
        }
    }

    /// Writes until the store is closed or no handle is left.
    pub(super) fn run(mut self) {
        let mut last_try = false;
        while let Err((trouble, message)) = self.session() {
            self.shared.failed(trouble, message);
            // A file that was made a moment ago and is corrupt again speaks of the disk: that is no reason to hurry.
            let hurry = trouble == Trouble::Corrupt && !self.fresh;
            if trouble == Trouble::Corrupt && self.set_aside() && hurry {
                continue;
            }
            if self.rest() {
                if last_try {
                    break;
                }
                last_try = true;
            }
        }
        self.take();
        self.refuse_commands();
        self.shared.drop_records(self.pending.len());
        self.shared.queue_len.store(0, Relaxed);
        self.shared.set_state(StoreState::Closed);
    }

    /// Opens the database and writes as long as that goes well.
    fn session(&mut self) -> Result<(), (Trouble, String)> {
        let mut connection = file::open(&self.place).map_err(|failure| (failure.trouble, failure.message))?;
        self.let_others_go_first(&connection).map_err(|error| (Trouble::Other, error.to_string()))?;
        self.measure();
        let told = |error: rusqlite::Error| (Trouble::of(&error), error.to_string());
        if self.replay.is_none() {
            self.replay = Some(recent::Replay::before_now(&connection).map_err(told)?);
        }
        let left = backfill::left(&connection).map_err(told)?;
        self.shared.backfill_left.store(left, Relaxed);
        self.shared.generation.fetch_max(1, Relaxed);
        self.serve(&mut connection).map_err(told)
    }

    /// Who serves requests may want the core that a batch is written on, and is not to wait for all of it.
    fn let_others_go_first(&self, connection: &Connection) -> rusqlite::Result<()> {
        let shared = Arc::clone(&self.shared);
        let goes_on = move || {
            if shared.queue_len.load(Relaxed) <= KEEPS_UP {
                std::thread::yield_now();
            }
            false
        };
        connection.progress_handler(STEPS, Some(goes_on))
    }

    fn serve(&mut self, connection: &mut Connection) -> rusqlite::Result<()> {
        // A batch from before the last failure goes first, and only then it is known that writing works.
        self.flush(connection)?;
        self.shared.set_state(StoreState::Ready);
        let mut upkeep_at = Instant::now();
        let mut more_upkeep = true;
        loop {
            self.collect(if more_upkeep { UPKEEP_PAUSE } else { BATCH_TIME });
            let closed = self.taken.closed;
            self.taken.commands.drain(..).for_each(|command| command(Some(connection)));
            self.flush(connection)?;
            if closed {
                return Ok(());
            }
            if self.shared.suspected.swap(false, Relaxed) && !file::is_whole(connection) {
                return Err(damaged());
            }
            if more_upkeep || upkeep_at.elapsed() >= UPKEEP_EVERY {
                upkeep_at = Instant::now();
                more_upkeep = self.upkeep(connection)?;
            }
        }
    }

    /// Takes records until there is a batch: enough of them, or the first has waited long enough, or somebody wants
    /// something else done. Waits for the first one for `patience`.
    fn collect(&mut self, patience: Duration) {
        if !self.queue.wait(patience) {
            return self.take();
        }
        let until = Instant::now() + BATCH_TIME;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.queue.gather(left.min(GATHER));
            self.take();
            let is_enough = self.pending.is_empty() || self.pending.len() >= BATCH || left.is_zero();
            if is_enough || self.is_wanted() {
                return;
            }
        }
    }

    /// Takes what is in the queue. What the records did counts from now on, whether or not it can be written.
    fn take(&mut self) {
        self.queue.take(&mut self.taken);
        let known = self.pending.len();
        for record in self.taken.records.drain(..) {
            (self.observer)(&record);
            self.pending.push(bounded(record));
        }
        self.shared.add_recent(&self.pending[known..], crate::unix_ms());
    }

    /// Whether something else than records is to be seen to.
    fn is_wanted(&self) -> bool {
        !self.taken.commands.is_empty() || self.taken.closed
    }

    fn refuse_commands(&mut self) {
        self.taken.commands.drain(..).for_each(|command| command(None));
    }

    fn flush(&mut self, connection: &mut Connection) -> rusqlite::Result<()> {
        while !self.pending.is_empty() {
            let count = self.pending.len().min(BATCH_MAX);
            let written = self.batch.write(connection, &self.pending[..count], crate::unix_ms());
            // One that fails for a reason of its own would fail again for ever.
            if written.as_ref().map_or_else(|error| Trouble::of(error) == Trouble::Other, |_| true) {
                self.pending.drain(..count);
                self.shared.queue_len.fetch_sub(count, Relaxed);
                self.shared.drop_records(if written.is_ok() { 0 } else { count });
            }
            let counted_only = written?;
            self.shared.counted_only.fetch_add(counted_only as u64, Relaxed);
            self.pause = FIRST_PAUSE;
            self.fresh = false;
            self.shared.written.fetch_add(count as u64, Relaxed);
            self.shared.file_bytes.store(file::bytes(&self.place), Relaxed);
        }
        self.pending.shrink_to(BATCH_MAX);
        Ok(())
    }

    /// How large the files are, and how much more they could be.
    fn measure(&self) {
        self.shared.file_bytes.store(file::bytes(&self.place), Relaxed);
        self.shared.set_disk_free(file::disk_free_bytes(&self.place));
    }

    /// One step of what is done beside; returns whether more is due at once.
    fn upkeep(&mut self, connection: &mut Connection) -> rusqlite::Result<bool> {
        if let Some(replay) = self.replay.as_mut().filter(|replay| !replay.is_over()) {
            let now_ms = crate::unix_ms();
            let records = replay.step(connection, now_ms)?;
            self.shared.add_recent(&records, now_ms);
            return Ok(true);
        }
        let backfilling = backfill::step(connection, &mut self.batch, crate::unix_ms());
        if backfilling.is_err() {
            self.batch.forget();
        }
        if backfilling? {
            self.shared.backfill_left.store(backfill::left(connection)?, Relaxed);
            return Ok(true);
        }
        self.shared.backfill_left.store(0, Relaxed);
        let now_ms = self.clocks.look(connection, steady_ms(), crate::unix_ms())?;
        let step = self.clocks.last_step().filter(|_| now_ms.is_none());
        self.shared.clock_step_ms.store(step.map_or(0, |step| step.by_ms), Relaxed);
        let more = retention::step(connection, &self.place.settings, now_ms)?;
        self.shared.used_bytes.store(retention::used_bytes(connection)?, Relaxed);
        self.measure();
        Ok(more)
    }

    /// Waits before the next try, longer each time. Returns whether the store is being closed.
    fn rest(&mut self) -> bool {
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        loop {
            self.take();
            self.refuse_commands();
            if self.taken.closed {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.queue.gather(left.min(BATCH_TIME));
        }
    }

    /// Puts the file aside; returns whether it is gone.
    fn set_aside(&mut self) -> bool {
        self.batch.forget();
        match file::set_aside(&self.place, crate::unix_ms()) {
            Ok(path) => {
                self.shared.generation.fetch_add(1, Relaxed);
                self.shared.set_aside(path.display().to_string());
                self.fresh = true;
                true
            }
            Err(error) => {
                self.shared.failed(Trouble::Unwritable, format!("cannot set the corrupt file aside: {error}"));
                false
            }
        }
    }
}

fn damaged() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some("a check found damage".into()))
}
