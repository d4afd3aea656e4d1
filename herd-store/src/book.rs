//! What is kept beside requests: the audit log, settings and benchmark runs.

use rusqlite::{Connection, OptionalExtension, Row};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{StoreError, StoreHandle, columns, from_db, to_db};

/// Most entries of one answer.
const ENTRIES: u32 = 1_000;
/// Most bytes of a field of the audit log.
const FIELD_BYTES: usize = 4_096;
/// Entries that the audit log keeps: the oldest go.
const AUDIT_KEPT: i64 = 100_000;

/// A change that somebody made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// Its number, rising; 0 = not yet stored.
    pub id: u64,
    /// When, Unix milliseconds.
    pub timestamp_ms: u64,
    /// Who: a key's id or an address.
    pub actor: String,
    /// What, as `node.drain`.
    pub action: String,
    /// To what.
    pub target: String,
    /// What else there is to say.
    pub detail: String,
}

/// A run of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkRun {
    /// Its id.
    pub run_id: String,
    /// When it began, Unix milliseconds.
    pub timestamp_ms: u64,
    /// `running`, `complete`, `cancelled` or `error`.
    pub status: String,
    /// What was to be measured.
    pub config: Value,
    /// What was measured; null = nothing yet.
    pub results: Value,
}

impl StoreHandle {
    /// Appends to the audit log, without waiting: what fails later is only logged.
    ///
    /// # Errors
    /// When it is certain at once that it will not be kept.
    pub fn post_audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.post("an entry of the audit log", move |connection| append(connection, &entry))
    }

    /// The audit log, newest first, from before entry `before` (`None` = from its end).
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn audit(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT id, timestamp, actor, action, target, detail FROM audit_log \
                       WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let entries = statement.query_map((to_db(before.unwrap_or(u64::MAX)), clamped(limit)), audit_entry)?;
            Ok(entries.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Keeps `value` under `key`.
    ///
    /// # Errors
    /// When `value` has no form in JSON, or the database cannot be written now.
    pub async fn set_setting<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StoreError> {
        let json = to_json(value)?;
        let key = key.to_owned();
        self.write(move |connection| {
            let sql =
                "INSERT INTO settings (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
            connection.execute(sql, (key, json)).map(drop)
        })
        .await
    }

    /// What is kept under `key`; `None` = nothing.
    ///
    /// # Errors
    /// When it cannot be decoded as `T`, or the database does not answer in time.
    pub async fn setting<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        let key = key.to_owned();
        let json: Option<String> = self
            .read(move |connection| {
                let mut statement = connection.prepare_cached("SELECT value FROM settings WHERE key = ?1")?;
                Ok(statement.query_row([key], |row| row.get(0)).optional()?)
            })
            .await?;
        json.map(|json| serde_json::from_str(&json).map_err(|error| StoreError::Failed(error.to_string()))).transpose()
    }

    /// Keeps a benchmark run, in place of one with the same id, without waiting: what fails later is only logged.
    ///
    /// # Errors
    /// When it is certain at once that it will not be kept.
    pub fn post_benchmark(&self, run: BenchmarkRun) -> Result<(), StoreError> {
        self.post("a benchmark", move |connection| put(connection, run))
    }

    /// The benchmark run with that id; `None` = there is none.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn benchmark(&self, run_id: &str) -> Result<Option<BenchmarkRun>, StoreError> {
        let run_id = run_id.to_owned();
        self.read(move |connection| {
            let sql = "SELECT run_id, timestamp, status, config, results FROM benchmark_runs WHERE run_id = ?1";
            Ok(connection.prepare_cached(sql)?.query_row([run_id], benchmark_run).optional()?)
        })
        .await
    }

    /// Benchmark runs, newest first.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn benchmarks(&self, limit: u32) -> Result<Vec<BenchmarkRun>, StoreError> {
        self.read(move |connection| benchmarks(connection, limit)).await
    }
}

fn append(connection: &Connection, entry: &AuditEntry) -> rusqlite::Result<()> {
    let sql = "INSERT INTO audit_log (timestamp, actor, action, target, detail) VALUES (?1, ?2, ?3, ?4, ?5)";
    let [actor, action, target, detail] =
        [&entry.actor, &entry.action, &entry.target, &entry.detail].map(|field| bounded(field));
    let seconds = entry.timestamp_ms as f64 / 1_000.0;
    connection.prepare_cached(sql)?.execute((seconds, actor, action, target, detail))?;
    let id = connection.last_insert_rowid();
    connection.prepare_cached("DELETE FROM audit_log WHERE id <= ?1")?.execute([id - AUDIT_KEPT]).map(drop)
}

fn put(connection: &Connection, run: BenchmarkRun) -> rusqlite::Result<()> {
    let sql = "INSERT INTO benchmark_runs (run_id, timestamp, status, config, results) \
               VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET timestamp = excluded.timestamp, \
               status = excluded.status, config = excluded.config, results = excluded.results";
    let seconds = run.timestamp_ms as f64 / 1_000.0;
    let (config, results) = (run.config.to_string(), run.results.to_string());
    connection.execute(sql, (run.run_id, seconds, run.status, config, results)).map(drop)
}

fn benchmarks(connection: &Connection, limit: u32) -> Result<Vec<BenchmarkRun>, StoreError> {
    let sql = "SELECT run_id, timestamp, status, config, results FROM benchmark_runs ORDER BY timestamp DESC LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let runs = statement.query_map([clamped(limit)], benchmark_run)?;
    Ok(runs.collect::<Result<_, _>>()?)
}

fn benchmark_run(row: &Row<'_>) -> rusqlite::Result<BenchmarkRun> {
    let json = |at| -> rusqlite::Result<Value> {
        let text: Option<String> = row.get(at)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    };
    Ok(BenchmarkRun {
        run_id: row.get(0)?,
        timestamp_ms: columns::millis(row.get(1)?),
        status: row.get(2)?,
        config: json(3)?,
        results: json(4)?,
    })
}

fn audit_entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        id: from_db(row.get(0)?),
        timestamp_ms: columns::millis(row.get(1)?),
        actor: row.get(2)?,
        action: row.get(3)?,
        target: row.get(4)?,
        detail: row.get(5)?,
    })
}

fn bounded(field: &str) -> &str {
    &field[..field.floor_char_boundary(FIELD_BYTES)]
}

fn clamped(limit: u32) -> u32 {
    limit.clamp(1, ENTRIES)
}

fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(error.to_string()))
}
