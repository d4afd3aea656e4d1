//! Why the store does not answer.

use rusqlite::ErrorCode;

/// Why a question to the store has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database is not open: ask again later.
    #[error("the trace store is not open")]
    Unavailable,
    /// Too many questions wait: ask again later.
    #[error("too many queries are waiting")]
    Busy,
    /// It took longer than a query may: ask for less.
    #[error("the query took longer than it may")]
    Deadline,
    /// The cursor is none of ours.
    #[error("the cursor is not one that a page gave")]
    Cursor,
    /// The file is damaged; the writer looks at it.
    #[error("the database is damaged")]
    Damaged,
    /// `SQLite` refused.
    #[error("the database failed: {0}")]
    Failed(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::Deadline,
            Some(ErrorCode::CannotOpen) => Self::Unavailable,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// What keeps the writer from writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Another process holds the database.
    Locked,
    /// No room on the disk.
    Full,
    /// The file is no database, or a damaged one.
    Corrupt,
    /// The file cannot be opened or written.
    Unwritable,
    /// A newer herd made it.
    Newer,
    /// Something about the statement or its values: the next batch may do better.
    Other,
}

impl Trouble {
    pub(super) fn of(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt,
            Some(
                ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::SystemIoFailure
                | ErrorCode::FileLockingProtocolFailed,
            ) => Self::Unwritable,
            _ => Self::Other,
        }
    }
}
