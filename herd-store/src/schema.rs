//! The tables, and how an older database becomes the newest, step by step.

use std::collections::HashSet;

use rusqlite::{Connection, Transaction};

use super::columns::{COLUMNS, Column};
use super::rollup::{BY, CUBE, Grain, create_sql, declared};

/// A step from one version to the next.
type Step = fn(&Transaction<'_>) -> rusqlite::Result<()>;

/// The steps, in order; the version of a database is how many were taken. A step that was released never changes.
const STEPS: [Step; 3] = [from_nothing_or_ollama_herd, minutes_residency_and_health, fewer_indexes];

/// What came of bringing a database up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Migrated {
    /// It is as this herd makes it.
    Current,
    /// A newer herd made it.
    Newer,
}

/// Brings the database up to date, each step whole or not at all.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<Migrated> {
    let newest = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    let before = version(connection)?;
    if before > newest {
        return Ok(Migrated::Newer);
    }
    if before == 0 {
        keep_ollama_herds(connection)?;
    }
    for (before, step) in (0..newest).zip(STEPS).skip(version(connection)? as usize) {
        let transaction = connection.transaction()?;
        // Another process may have taken it while this one waited for the lock.
        if version(&transaction)? == before {
            step(&transaction)?;
            transaction.pragma_update(None, "user_version", before + 1)?;
        }
        transaction.commit()?;
    }
    add_counts(connection)?;
    Ok(Migrated::Current)
}

/// Keeps a copy of a database that ollama-herd made beside it, before anything in it is changed: its owner may go back.
fn keep_ollama_herds(connection: &Connection) -> rusqlite::Result<()> {
    let file = connection.path().filter(|path| !path.is_empty()).map(|path| format!("{path}.ollama-herd"));
    let rows = columns_of(connection, "request_traces")?;
    let Some(copy) = file.filter(|_| !rows.is_empty()) else { return Ok(()) };
    if std::path::Path::new(&copy).exists() {
        return Ok(());
    }
    // A copy that is cut off must not pass for one.
    let part = format!("{copy}.part");
    drop(std::fs::remove_file(&part));
    empty_for_its_owner(&part);
    connection.execute("VACUUM INTO ?1", [&part])?;
    if let Err(error) = std::fs::rename(&part, &copy) {
        tracing::error!(copy, %error, "the copy of ollama-herd's database is left under its first name");
        return Ok(());
    }
    tracing::info!(copy, "ollama-herd's database is brought up to date; a copy of it as it was is kept");
    Ok(())
}

/// Makes an empty file, which the database fills: a copy has the rows of the database, and is nobody else's to read either.
fn empty_for_its_owner(path: &str) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    if let Err(error) = options.open(path) {
        tracing::warn!(path, %error, "the copy of ollama-herd's database cannot be made private beforehand");
    }
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Version 1. A database of ollama-herd has version 0, like an empty one: its rows stay, get the columns that they
/// lack, and are left to the backfill to add up.
fn from_nothing_or_ollama_herd(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let old = columns_of(transaction, "request_traces")?;
    if old.is_empty() {
        let declared: Vec<_> = COLUMNS.iter().map(|one| format!("{} {}", one.name, one.kind)).collect();
        let sql = format!("CREATE TABLE request_traces (id INTEGER PRIMARY KEY, {})", declared.join(", "));
        transaction.execute_batch(&sql)?;
    }
    for Column { name, kind, .. } in COLUMNS.iter().filter(|one| !old.is_empty() && !old.contains(one.name)) {
        // A column that must have a value needs one for the rows that are there.
        let kind = kind.replace("TEXT NOT NULL", "TEXT NOT NULL DEFAULT ''").replace("REAL NOT NULL", "REAL");
        transaction.execute_batch(&format!("ALTER TABLE request_traces ADD COLUMN {name} {kind}"))?;
    }
    let old_runs = columns_of(transaction, "benchmark_runs")?;
    if !old_runs.is_empty() {
        transaction.execute_batch("ALTER TABLE benchmark_runs RENAME TO ollama_herd_benchmark_runs")?;
    }
    for grain in [Grain::Hourly, Grain::Daily] {
        if let Some(cube) = grain.cube() {
            transaction.execute_batch(&create_sql(cube, &CUBE))?;
        }
        transaction.execute_batch(&create_sql(grain.by(), &BY))?;
    }
    index_by_value(transaction, Grain::Hourly)?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(INDEXES)?;
    if !old_runs.is_empty() {
        transaction.execute_batch(COPY_RUNS)?;
    }
    let last: Option<i64> = transaction.query_row("SELECT max(id) FROM request_traces", [], |row| row.get(0))?;
    let upkeep = "INSERT INTO herd_upkeep (name, value) VALUES ('backfilled_to', 0), ('backfill_end', ?1)";
    transaction.execute(upkeep, [last.unwrap_or(0)])?;
    Ok(())
}

/// Version 2: what is counted by the minute and by health checks, how long models were in memory, and how healthy the
/// fleet was.
fn minutes_residency_and_health(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    add_columns(transaction, "request_traces", COLUMNS.iter().map(|one| (one.name, one.kind)))?;
    for grain in [Grain::Hourly, Grain::Daily] {
        for table in grain.cube().into_iter().chain([grain.by()]) {
            add_columns(transaction, table, declared())?;
        }
    }
    transaction.execute_batch(&create_sql(Grain::Minutely.by(), &BY))?;
    index_by_value(transaction, Grain::Minutely)?;
    transaction.execute_batch(RESIDENCY_AND_HEALTH)
}

/// Version 3: two indexes go that cost every write and answered what others answer well enough.
fn fewer_indexes(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "DROP INDEX IF EXISTS idx_traces_node_model_timestamp; DROP INDEX IF EXISTS idx_traces_client_timestamp;",
    )
}

/// What is counted by the vocabulary has a column for each word: a new word is a new column, and no version.
fn add_counts(connection: &mut Connection) -> rusqlite::Result<()> {
    for table in Grain::ALL.into_iter().flat_map(|grain| grain.cube().into_iter().chain([grain.by()])) {
        let known = columns_of(connection, table)?;
        if declared().any(|(name, _)| !known.contains(name)) {
            let transaction = connection.transaction()?;
            add_columns(&transaction, table, declared())?;
            transaction.commit()?;
        }
    }
    Ok(())
}

/// A chart of one value reads its buckets alone, not those of all values.
fn index_by_value(transaction: &Transaction<'_>, grain: Grain) -> rusqlite::Result<()> {
    let sql = format!("CREATE INDEX idx_{0}_value ON {0} (dimension, value, second, bucket)", grain.by());
    transaction.execute_batch(&sql)
}

const RESIDENCY_AND_HEALTH: &str = "
CREATE TABLE residency (
    bucket INTEGER NOT NULL, node_id TEXT NOT NULL, model TEXT NOT NULL, ms INTEGER NOT NULL,
    PRIMARY KEY (bucket, node_id, model)
) WITHOUT ROWID;
CREATE TABLE health_scores (
    at_ms INTEGER PRIMARY KEY, score INTEGER NOT NULL, critical INTEGER NOT NULL, warning INTEGER NOT NULL,
    info INTEGER NOT NULL
);
";

/// Those of `columns` that `table` lacks.
fn add_columns<'a>(
    transaction: &Transaction<'_>,
    table: &str,
    columns: impl Iterator<Item = (&'a str, &'a str)>,
) -> rusqlite::Result<()> {
    let known = columns_of(transaction, table)?;
    for (name, kind) in columns.filter(|(name, _)| !known.contains(*name)) {
        transaction.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {kind}"))?;
    }
    Ok(())
}

/// Names of the columns of `table`; none = there is no such table.
fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<HashSet<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    names.collect()
}

const TABLES: &str = "
CREATE TABLE request_attempts (
    trace_id INTEGER NOT NULL, seq INTEGER NOT NULL, node_id TEXT NOT NULL, outcome TEXT NOT NULL, score REAL,
    started_ms REAL, duration_ms REAL, PRIMARY KEY (trace_id, seq)
) WITHOUT ROWID;
CREATE TABLE request_tags (
    tag TEXT NOT NULL, timestamp REAL NOT NULL, trace_id INTEGER NOT NULL, PRIMARY KEY (tag, timestamp, trace_id)
) WITHOUT ROWID;
CREATE TABLE benchmark_runs (
    run_id TEXT PRIMARY KEY, timestamp REAL NOT NULL, status TEXT NOT NULL, config TEXT NOT NULL, results TEXT
) WITHOUT ROWID;
CREATE INDEX idx_benchmark_runs_by_time ON benchmark_runs (timestamp);
CREATE TABLE audit_log (
    id INTEGER PRIMARY KEY, timestamp REAL NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE herd_upkeep (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

/// Every index costs every write, so each has a question that is asked often and that the time's index would answer by
/// reading far back:
///
/// - by request id: one request, from a log line or the header of an answer;
/// - by time: pages of all requests, and what is to be forgotten;
/// - by model: pages of a model, and at the start what its last requests took on each node;
/// - by application: pages of an application;
/// - by status of those that did not complete, which are few: what goes wrong.
///
/// Each ends with the time, so that a page reads one stretch. Other filters (node, surface, address, key) look at the
/// requests along the narrowest of these. Indexes of ollama-herd that these replace go.
const INDEXES: &str = "
DROP INDEX IF EXISTS idx_traces_tags;
DROP INDEX IF EXISTS idx_traces_node_model;
CREATE INDEX IF NOT EXISTS idx_traces_request_id ON request_traces (request_id);
CREATE INDEX IF NOT EXISTS idx_traces_timestamp ON request_traces (timestamp);
CREATE INDEX IF NOT EXISTS idx_traces_model_timestamp ON request_traces (model, timestamp);
CREATE INDEX IF NOT EXISTS idx_traces_app_timestamp ON request_traces (app, timestamp);
CREATE INDEX IF NOT EXISTS idx_traces_uncompleted ON request_traces (status, timestamp) WHERE status <> 'completed';
";

/// The runs that ollama-herd measured, in our form; its own table stays as it was, under another name.
const COPY_RUNS: &str = "
INSERT INTO benchmark_runs (run_id, timestamp, status, config, results)
SELECT run_id, timestamp, 'complete', json_object('source', 'ollama-herd', 'duration_s', duration_s), json_object(
    'total_requests', total_requests, 'total_failures', total_failures, 'total_prompt_tokens', total_prompt_tokens,
    'total_completion_tokens', total_completion_tokens, 'requests_per_sec', requests_per_sec,
    'tokens_per_sec', tokens_per_sec, 'latency_p50_ms', latency_p50_ms, 'latency_p95_ms', latency_p95_ms,
    'latency_p99_ms', latency_p99_ms, 'ttft_p50_ms', ttft_p50_ms, 'ttft_p95_ms', ttft_p95_ms,
    'ttft_p99_ms', ttft_p99_ms, 'per_model_results', per_model_results, 'per_node_results', per_node_results
) FROM ollama_herd_benchmark_runs WHERE 1 ON CONFLICT DO NOTHING;
";
