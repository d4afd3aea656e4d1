//! Forgets what is too old or too much, a little at a time, so that no batch waits long behind it.

use rusqlite::Connection;

use super::rollup::{Grain, MINUTES_KEPT_MS};
use super::vocabulary::Dimension;
use super::{DAY_MS, StoreSettings, to_db};

/// Requests that go at a time.
const ROWS: i64 = 500;
/// Rows of roll-ups that go at a time.
const CELLS: i64 = 500;
/// Days for which the score of the fleet's health is kept, each look of them.
const SCORE_DAYS: u32 = 100;
/// Freed pages that are given back to the disk at a time.
const PAGES: i64 = 1_000;

/// Forgets some of what is beyond `settings`. Returns whether there may be more.
pub(super) fn step(connection: &mut Connection, settings: &StoreSettings, now_ms: u64) -> rusqlite::Result<bool> {
    let days_ago = |days: u32| now_ms.saturating_sub(u64::from(days).saturating_mul(DAY_MS));
    let until = if used_bytes(connection)? > settings.max_bytes { u64::MAX } else { days_ago(settings.raw_days) };
    let transaction = connection.transaction()?;
    let requests = forget_requests(&transaction, until)?;
    let mut cells = 0;
    for grain in Grain::ALL {
        let before_ms = match grain {
            Grain::Minutely => now_ms.saturating_sub(MINUTES_KEPT_MS),
            Grain::Hourly | Grain::Daily => days_ago(settings.rollup_days),
        };
        cells += forget_cells(&transaction, grain, to_db(grain.bucket(before_ms)))?;
    }
    let before = to_db(Grain::Hourly.bucket(days_ago(settings.rollup_days)));
    cells += forget_residency(&transaction, before)?;
    cells += forget_scores(&transaction, to_db(days_ago(SCORE_DAYS)))?;
    transaction.commit()?;
    let pages = returnable_pages(connection)?;
    if pages > 0 {
        give_back(connection)?;
    }
    let full = i64::try_from(requests).is_ok_and(|rows| rows >= ROWS);
    Ok(full || cells > 0 || pages > PAGES)
}

/// What the database holds, without free pages.
fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = number("page_count")?.saturating_sub(number("freelist_count")?);
    Ok(super::from_db(pages.saturating_mul(number("page_size")?)))
}

/// The oldest requests that were over before `until_ms`. Returns how many went.
fn forget_requests(connection: &Connection, until_ms: u64) -> rusqlite::Result<usize> {
    let until = until_ms as f64 / 1_000.0;
    let old = "SELECT id FROM request_traces WHERE timestamp < ?1 ORDER BY timestamp, id LIMIT ?2";
    // Another program's tags may be no JSON.
    let tags = format!(
        "DELETE FROM request_tags WHERE (tag, timestamp, trace_id) IN (
            SELECT tag.value, t.timestamp, t.id FROM request_traces t,
                json_each(CASE WHEN json_valid(t.tags) THEN t.tags ELSE '[]' END) tag
            WHERE t.tags IS NOT NULL AND t.id IN ({old}))"
    );
    connection.prepare_cached(&tags)?.execute((until, ROWS))?;
    let attempts = format!("DELETE FROM request_attempts WHERE trace_id IN ({old})");
    connection.prepare_cached(&attempts)?.execute((until, ROWS))?;
    connection.prepare_cached(&format!("DELETE FROM request_traces WHERE id IN ({old})"))?.execute((until, ROWS))
}

fn forget_cells(connection: &Connection, grain: Grain, before: i64) -> rusqlite::Result<usize> {
    // Said by name, so that the key of the table is used, which begins with it.
    let dimensions = Dimension::ALL.map(|dimension| format!("'{}'", dimension.name())).join(", ");
    let by = format!(
        "DELETE FROM {0} WHERE (dimension, bucket, value, second) IN (
            SELECT dimension, bucket, value, second FROM {0}
            WHERE dimension IN ({dimensions}) AND bucket < ?1 LIMIT ?2)",
        grain.by()
    );
    let gone = connection.prepare_cached(&by)?.execute((before, CELLS))?;
    let Some(cube) = grain.cube() else { return Ok(gone) };
    let cube = format!(
        "DELETE FROM {cube} WHERE (bucket, model, node_id, app, surface) IN (
            SELECT bucket, model, node_id, app, surface FROM {cube} WHERE bucket < ?1 LIMIT ?2)"
    );
    Ok(gone + connection.prepare_cached(&cube)?.execute((before, CELLS))?)
}

fn forget_scores(connection: &Connection, before_ms: i64) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM health_scores WHERE at_ms IN (SELECT at_ms FROM health_scores WHERE at_ms < ?1 LIMIT ?2)";
    connection.prepare_cached(sql)?.execute((before_ms, CELLS))
}

fn forget_residency(connection: &Connection, before: i64) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM residency WHERE (bucket, node_id, model) IN (
            SELECT bucket, node_id, model FROM residency WHERE bucket < ?1 LIMIT ?2)";
    connection.prepare_cached(sql)?.execute((before, CELLS))
}

/// Free pages that can be given back: in a database that another program made none, they are used again.
fn returnable_pages(connection: &Connection) -> rusqlite::Result<i64> {
    const INCREMENTAL: i64 = 2;
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if number("auto_vacuum")? == INCREMENTAL { number("freelist_count") } else { Ok(0) }
}

/// Shrinks the file.
fn give_back(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    // The file shrinks with the next checkpoint, and who writes nothing more has none. It never waits for readers.
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
