//! The one queue between those who serve requests and the thread that writes them.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use herd_core::record::RequestRecord;
use rusqlite::Connection;

use super::StoreError;

/// Records that the queue keeps room for after a burst.
const SPARE: usize = 1_024;
/// Commands that may wait.
pub(super) const COMMANDS: usize = 64;

/// Something to do with the writer's connection; none = it has none.
pub(super) type Command = Box<dyn FnOnce(Option<&mut Connection>) + Send>;

/// What waits for the writer.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// All that waits, taken at once: whoever leaves something holds the lock for one push, and the writer for a swap.
#[derive(Default)]
pub(super) struct Waiting {
    /// Requests that are over.
    pub(super) records: Vec<RequestRecord>,
    /// Commands, in order.
    pub(super) commands: VecDeque<Command>,
    /// Nothing more will come.
    pub(super) closed: bool,
}

impl Queue {
    /// Leaves `record` for the writer. Only the first wakes it: the others come together with that.
    pub(super) fn leave(&self, record: RequestRecord) -> Result<(), Box<RequestRecord>> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Box::new(record));
        }
        let first = waiting.records.is_empty();
        waiting.records.push(record);
        drop(waiting);
        if first {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Puts `command` last.
    ///
    /// # Errors
    /// When the queue is closed, or as many wait as may.
    pub(super) fn command(&self, command: Command) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(StoreError::Unavailable);
        }
        if waiting.commands.len() >= COMMANDS {
            return Err(StoreError::Busy);
        }
        waiting.commands.push_back(command);
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// From now on nothing is taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits for something to come, for `patience` at the most; returns whether it has.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        let nothing =
            |waiting: &mut Waiting| waiting.records.is_empty() && waiting.commands.is_empty() && !waiting.closed;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, nothing);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Waits for a command or the end, for `patience` at the most: records come together meanwhile.
    pub(super) fn gather(&self, patience: Duration) {
        let only_records = |waiting: &mut Waiting| waiting.commands.is_empty() && !waiting.closed;
        drop(self.changed.wait_timeout_while(self.lock(), patience, only_records));
    }

    /// Takes all that waits into `taken`, whose records are gone through already; it lends its room in return.
    pub(super) fn take(&self, taken: &mut Waiting) {
        taken.records.clear();
        taken.records.shrink_to(SPARE);
        let mut waiting = self.lock();
        std::mem::swap(&mut waiting.records, &mut taken.records);
        taken.commands.append(&mut waiting.commands);
        taken.closed = waiting.closed;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Held for a push or a swap and nothing else.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
