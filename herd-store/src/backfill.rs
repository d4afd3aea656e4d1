//! Adds up the requests of an older database, a little at a time while herd already runs.

use herd_core::record::RequestRecord;
use rusqlite::{Connection, OptionalExtension};

use super::columns;
use super::record::bounded;
use super::rollup::RETRIED;
use super::write::{BatchWriter, insert_attempt};

/// Rows in one step: some ten milliseconds.
const ROWS: i64 = 500;

/// How many rows are left at most.
pub(super) fn left(connection: &Connection) -> rusqlite::Result<u64> {
    let (done, end) = (upkeep(connection, "backfilled_to")?, upkeep(connection, "backfill_end")?);
    Ok(super::from_db(end - done))
}

/// Adds up the next rows, at `now_ms` of the wall clock. Returns whether some are left.
pub(super) fn step(connection: &mut Connection, batch: &mut BatchWriter, now_ms: u64) -> rusqlite::Result<bool> {
    let (done, end) = (upkeep(connection, "backfilled_to")?, upkeep(connection, "backfill_end")?);
    if done >= end {
        return Ok(false);
    }
    let transaction = connection.transaction()?;
    let rows = rows(&transaction, done, end)?;
    let next = rows.last().map_or(end, |(id, _)| *id);
    let mut records = Vec::with_capacity(rows.len());
    for (id, record) in rows {
        for tag in &record.tags {
            // The time as it stands there: ours is in whole milliseconds.
            let sql = "INSERT OR IGNORE INTO request_tags SELECT ?1, timestamp, id FROM request_traces WHERE id = ?2";
            transaction.prepare_cached(sql)?.execute((tag, id))?;
        }
        if record.status_name() == RETRIED && supersede(&transaction, id, &record)? {
            continue;
        }
        records.push(record);
    }
    batch.add_up(&transaction, &records, now_ms)?;
    transaction.execute("UPDATE herd_upkeep SET value = ?1 WHERE name = 'backfilled_to'", [next])?;
    transaction.commit()?;
    Ok(next < end)
}

fn rows(connection: &Connection, done: i64, end: i64) -> rusqlite::Result<Vec<(i64, RequestRecord)>> {
    let sql = format!(
        "SELECT {}, t.id FROM request_traces t WHERE t.id > ?1 AND t.id <= ?2 ORDER BY t.id LIMIT ?3",
        columns::listed("t")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map((done, end, ROWS), |row| Ok((row.get("id")?, bounded(columns::read(row)))))?;
    rows.collect()
}

/// ollama-herd has a row for each attempt. One that a later row of the same request follows becomes an attempt of that,
/// and counts no more; one that none follows is how the request ended. Returns whether a later row follows.
fn supersede(connection: &Connection, id: i64, record: &RequestRecord) -> rusqlite::Result<bool> {
    let sql = "SELECT max(id) FROM request_traces WHERE request_id = ?1 AND id > ?2";
    let last: Option<i64> =
        connection.prepare_cached(sql)?.query_row((&record.request_id, id), |row| row.get(0)).optional()?.flatten();
    let Some(last) = last else { return Ok(false) };
    let sql = "SELECT count(*) FROM request_attempts WHERE trace_id = ?1";
    let before: i64 = connection.prepare_cached(sql)?.query_row([last], |row| row.get(0))?;
    let mut attempt = connection.prepare_cached(&insert_attempt())?;
    let latency_ms = Some(record.latency_ms).filter(|ms| *ms > 0.0);
    attempt.execute((last, before, &record.node_id, record.status_name(), record.score, None::<f64>, latency_ms))?;
    connection.prepare_cached("UPDATE request_traces SET superseded = 1 WHERE id = ?1")?.execute([id])?;
    Ok(true)
}

fn upkeep(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT value FROM herd_upkeep WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?.unwrap_or(0))
}
