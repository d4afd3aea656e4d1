//! The thread that writes: batches, commands and upkeep, and what it does when it cannot.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use herd_core::record::RequestRecord;
use rusqlite::Connection;

use super::error::Trouble;
use super::health::{Shared, StoreState};
use super::write::Scribe;
use super::{Place, STEPS, backfill, file, recent, retention};

/// Records in one transaction.
const BATCH: usize = 512;
/// Longest time from a record to its being written.
const BATCH_TIME: Duration = Duration::from_millis(250);
/// How long the writer rests between two looks at the channel while it fills a batch. Woken for every record, it would
/// take a core from whoever serves requests.
const LOOK: Duration = Duration::from_millis(50);
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
/// Commands that may wait.
pub(super) const COMMANDS: usize = 64;

/// What reaches the writer in its channel.
#[derive(Debug)]
pub(super) enum Letter {
    /// A request that is over.
    Record(Box<RequestRecord>),
    /// There is a command, or it is time to stop.
    Wake,
}

/// Something to do with the writer's connection; none = it has none.
pub(super) type Command = Box<dyn FnOnce(Option<&mut Connection>) + Send>;

/// Commands that wait.
#[derive(Default)]
pub(super) struct Commands(Mutex<VecDeque<Command>>);

impl Commands {
    /// Puts `command` last; returns whether there was room.
    pub(super) fn push(&self, command: Command) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = waiting.len() < COMMANDS;
        if room {
            waiting.push_back(command);
        }
        room
    }

    fn take(&self) -> VecDeque<Command> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The writer.
pub(super) struct Writer {
    pub(super) place: Place,
    pub(super) shared: Arc<Shared>,
    pub(super) letters: Receiver<Letter>,
    pub(super) commands: Arc<Commands>,
    scribe: Scribe,
    /// Records taken from the channel and not yet written.
    pending: Vec<RequestRecord>,
    pause: Duration,
    /// No handle is left.
    orphaned: bool,
    /// A file was set aside and nothing has been written since.
    fresh: bool,
    /// Requests from before the start that are still to join the last hour; `None` = it is not known which.
    replay: Option<recent::Replay>,
}

/// What one round of waiting for records brought.
enum Round {
    Go,
    /// Nothing will come any more.
    Over,
}

impl Writer {
    pub(super) fn new(place: Place, shared: Arc<Shared>, letters: Receiver<Letter>, commands: Arc<Commands>) -> Self {
        Self {
            place,
            shared,
            letters,
            commands,
            scribe: Scribe::new(),
            pending: Vec::with_capacity(BATCH),
            pause: FIRST_PAUSE,
            orphaned: false,
            fresh: false,
            replay: None,
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
        self.commands.take().into_iter().for_each(|command| command(None));
        let lost = self.pending.len() + self.letters.try_iter().filter(|l| matches!(l, Letter::Record(_))).count();
        self.shared.drop_records(lost);
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
            let round = self.collect(if more_upkeep { UPKEEP_PAUSE } else { BATCH_TIME });
            self.commands.take().into_iter().for_each(|command| command(Some(connection)));
            self.flush(connection)?;
            if matches!(round, Round::Over) {
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

    /// Takes records as [`Self::take`] does; what they did counts from now on, whether or not it can be written.
    fn collect(&mut self, patience: Duration) -> Round {
        let known = self.pending.len();
        let round = self.take(patience);
        self.shared.add_recent(&self.pending[known..]);
        round
    }

    /// Takes records from the channel until there is a batch: enough of them, or the first has waited long enough.
    /// Waits for the first one for `patience`.
    fn take(&mut self, patience: Duration) -> Round {
        let closing = self.shared.closing();
        let mut until = Instant::now() + if closing { Duration::ZERO } else { patience };
        while self.pending.len() < BATCH {
            let letter = match self.next(until, closing) {
                Ok(letter) => letter,
                // Closing, and nothing has been there since: what comes now is too late.
                Err(RecvTimeoutError::Timeout) if closing => return Round::Over,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    self.orphaned = true;
                    return Round::Over;
                }
            };
            match letter {
                Letter::Record(record) => {
                    if self.pending.is_empty() && !closing {
                        until = Instant::now() + BATCH_TIME;
                    }
                    self.shared.queue_len.fetch_sub(1, Relaxed);
                    self.pending.push(*record);
                }
                Letter::Wake if closing => {}
                Letter::Wake => break,
            }
        }
        Round::Go
    }

    /// The next letter. While a batch fills, those that come are not waited for one by one.
    fn next(&self, until: Instant, closing: bool) -> Result<Letter, RecvTimeoutError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.pending.is_empty() || closing {
                return self.letters.recv_timeout(left);
            }
            match self.letters.try_recv() {
                Ok(letter) => return Ok(letter),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if left.is_zero() => return Err(RecvTimeoutError::Timeout),
                Err(TryRecvError::Empty) => std::thread::park_timeout(left.min(LOOK)),
            }
        }
    }

    fn flush(&mut self, connection: &mut Connection) -> rusqlite::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let count = self.pending.len();
        if let Err(error) = self.scribe.write(connection, &self.pending) {
            if Trouble::of(&error) == Trouble::Other {
                // It would fail again for ever.
                self.pending.clear();
                self.shared.drop_records(count);
            }
            return Err(error);
        }
        self.pending.clear();
        self.pause = FIRST_PAUSE;
        self.fresh = false;
        self.shared.written.fetch_add(count as u64, Relaxed);
        self.shared.file_bytes.store(file::bytes(&self.place), Relaxed);
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
            let records = replay.step(connection, crate::unix_ms())?;
            self.shared.add_recent(&records);
            return Ok(true);
        }
        let backfilling = backfill::step(connection, &mut self.scribe);
        if backfilling.is_err() {
            self.scribe.forget();
        }
        if backfilling? {
            self.shared.backfill_left.store(backfill::left(connection)?, Relaxed);
            return Ok(true);
        }
        self.shared.backfill_left.store(0, Relaxed);
        let more = retention::step(connection, &self.place.settings, crate::unix_ms())?;
        self.measure();
        Ok(more)
    }

    /// Waits before the next try, longer each time. Returns whether the store is being closed.
    fn rest(&mut self) -> bool {
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        loop {
            self.commands.take().into_iter().for_each(|command| command(None));
            if self.shared.closing() || self.orphaned {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Records stay in the channel, which is bounded.
            std::thread::park_timeout(left.min(BATCH_TIME));
        }
    }

    /// Puts the file aside; returns whether it is gone.
    fn set_aside(&mut self) -> bool {
        self.scribe.forget();
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
