//! The file: made for its owner alone, opened, and set aside when it is damaged.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::Trouble;
use super::schema::{self, Migrated};
use super::{Place, rollup};

/// Longest wait for another process's lock.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Prepared statements that are kept for each connection.
const STATEMENTS: usize = 64;
/// Pages of 4 KiB in the log of the database from which on they are moved into it.
const LOG_PAGES: i64 = 4_096;
/// Largest log of the database that is kept after its pages were moved into it.
const LOG_BYTES: i64 = 64 << 20;
/// Memory for pages of the writer and of each reader, KiB.
const CACHE_KIB: i64 = 32 << 10;

/// Why the database cannot be opened.
#[derive(Debug)]
pub(super) struct OpenFailure {
    pub(super) trouble: Trouble,
    pub(super) message: String,
}

impl From<rusqlite::Error> for OpenFailure {
    fn from(error: rusqlite::Error) -> Self {
        Self { trouble: Trouble::of(&error), message: error.to_string() }
    }
}

/// Opens the database to write, makes it where there is none, and brings it up to date.
pub(super) fn open(place: &Place) -> Result<Connection, OpenFailure> {
    for_its_owner(place)
        .map_err(|error| OpenFailure { trouble: trouble_of_io(&error), message: format!("cannot open: {error}") })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(place.file(), flags)?;
    prepare(&connection)?;
    if let Some(pages) = place.settings.max_pages {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    if connection.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))? == 0 {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // A power cut may lose the last batches, never the database.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Pages that every batch changes are written to the database once for all of these.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", LOG_PAGES, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
    rollup::register(&connection)?;
    // A transaction that first reads and then writes could meet another's write between.
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    match schema::migrate(&mut connection)? {
        Migrated::Current => Ok(connection),
        Migrated::Newer => {
            Err(OpenFailure { trouble: Trouble::Newer, message: "a newer herd made this database".into() })
        }
    }
}

/// An empty database in memory, for what runs in virtual time.
#[cfg(any(test, feature = "testing"))]
pub(super) fn in_memory() -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    rollup::register(&connection)?;
    schema::migrate(&mut connection)?;
    Ok(connection)
}

/// Opens the database to read.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(LOCK_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // A hostile database must not make us run what its schema says.
    connection.pragma_update(None, "trusted_schema", false)
}

/// `SQLite` gives its log the mode of the database.
fn for_its_owner(place: &Place) -> std::io::Result<()> {
    fs::create_dir_all(&place.dir)?;
    let path = place.file();
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    for log in logs(&path).into_iter().filter(|log| log.exists()) {
        fs::set_permissions(log, Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn trouble_of_io(error: &std::io::Error) -> Trouble {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Trouble::Full,
        _ => Trouble::Unwritable,
    }
}

/// The files that `SQLite` keeps beside the database.
fn logs(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|suffix| with_suffix(path, suffix))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Puts a damaged database aside, with its log, for whoever wants to rescue something. Returns its new name.
pub(super) fn set_aside(place: &Place, now_ms: u64) -> std::io::Result<PathBuf> {
    let path = place.file();
    let mut aside = with_suffix(&path, &format!(".corrupt-{now_ms}"));
    while aside.exists() {
        aside = with_suffix(&aside, "x");
    }
    fs::rename(&path, &aside)?;
    for (log, suffix) in logs(&path).into_iter().zip(["-wal", "-shm"]).filter(|(log, _)| log.exists()) {
        fs::rename(log, with_suffix(&aside, suffix))?;
    }
    Ok(aside)
}

/// Bytes of the database and its log.
pub(super) fn bytes(place: &Place) -> u64 {
    let path = place.file();
    let all = logs(&path).into_iter().chain([path]);
    all.filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum()
}

/// Bytes that are free for it on its disk; `None` = the system does not tell.
pub(super) fn disk_free_bytes(place: &Place) -> Option<u64> {
    let disk = nix::sys::statvfs::statvfs(&place.dir).ok()?;
    #[expect(clippy::useless_conversion, reason = "the types differ between systems")]
    Some(u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size())))
}

/// Whether the database is whole, as far as a quick look tells.
pub(super) fn is_whole(connection: &Connection) -> bool {
    let told = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match told {
        Ok(told) => told == "ok",
        Err(error) => Trouble::of(&error) != Trouble::Corrupt,
    }
}
