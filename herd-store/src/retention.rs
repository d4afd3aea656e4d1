//! Forgets what is too old or too much, a little at a time, so that no batch waits long behind it.

use rusqlite::{Connection, OptionalExtension};

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

/// Requests that stay whatever else there is: the newest. They go only when nothing but the newest roll-ups is left beside
/// them.
const FLOOR: i64 = 10_000;
/// And those that stay even then.
const LAST_FLOOR: i64 = 500;
/// Minutes, hours and days whose roll-ups stay as long as there is something else to forget: so many of the newest that have
/// any. They are counted and not measured by the clock, which may be wrong, or have been.
const MINUTES_FLOOR: i64 = 60;
const HOURS_KEPT: i64 = 35 * 24;
const HOURS_FLOOR: i64 = 48;
const DAYS_FLOOR: i64 = 35;

/// Forgets some of what is beyond `settings`: what is too old at `now_ms`, and of what is too much the first of [`shed`].
/// `now_ms: None` = the wall clock is not trusted, so that nothing is too old. Returns whether there may be more.
pub(super) fn step(
    connection: &mut Connection,
    settings: &StoreSettings,
    now_ms: Option<u64>,
) -> rusqlite::Result<bool> {
    let is_too_much = used_bytes(connection)? > settings.max_bytes;
    let transaction = connection.transaction()?;
    let mut more = false;
    if let Some(now_ms) = now_ms {
        more |= age(&transaction, settings, now_ms)?;
    }
    if is_too_much {
        more |= shed(&transaction)? > 0;
    }
    transaction.commit()?;
    let pages = returnable_pages(connection)?;
    if pages > 0 {
        give_back(connection)?;
    }
    Ok(more || pages > PAGES)
}

/// Forgets some of what is too old at `now_ms`; returns whether there may be more.
fn age(connection: &Connection, settings: &StoreSettings, now_ms: u64) -> rusqlite::Result<bool> {
    let days_ago = |days: u32| now_ms.saturating_sub(u64::from(days).saturating_mul(DAY_MS));
    let requests = forget_requests(connection, days_ago(settings.raw_days), ROWS)?;
    let mut cells = 0;
    for grain in Grain::ALL {
        let before_ms = match grain {
            Grain::Minutely => now_ms.saturating_sub(MINUTES_KEPT_MS),
            Grain::Hourly | Grain::Daily => days_ago(settings.rollup_days),
        };
        cells += forget_cells(connection, grain, to_db(grain.bucket(before_ms)))?;
    }
    let before = to_db(Grain::Hourly.bucket(days_ago(settings.rollup_days)));
    cells += forget_residency(connection, before)?;
    cells += forget_scores(connection, to_db(days_ago(SCORE_DAYS)))?;
    Ok(i64::try_from(requests).is_ok_and(|rows| rows >= ROWS) || cells > 0)
}

/// Forgets some of the oldest of what is missed least: minutes, then hours of more than a month ago, then single requests
/// but for the newest, then more hours, days and requests. Returns how many rows went; 0 = nothing may go.
fn shed(connection: &Connection) -> rusqlite::Result<usize> {
    let cells = |grain, kept| shed_cells(connection, grain, kept);
    let requests = |floor| shed_requests(connection, floor);
    let tiers: [&dyn Fn() -> rusqlite::Result<usize>; 6] = [
        &|| cells(Grain::Minutely, MINUTES_FLOOR),
        &|| cells(Grain::Hourly, HOURS_KEPT),
        &|| requests(FLOOR),
        &|| cells(Grain::Hourly, HOURS_FLOOR),
        &|| cells(Grain::Daily, DAYS_FLOOR),
        &|| requests(LAST_FLOOR),
    ];
    for tier in tiers {
        let gone = tier()?;
        if gone > 0 {
            return Ok(gone);
        }
    }
    Ok(0)
}

/// Some of the oldest bucket of `grain`, unless there are no more than `kept`.
fn shed_cells(connection: &Connection, grain: Grain, kept: i64) -> rusqlite::Result<usize> {
    // Every request is in the total, so that this has every bucket; what is left of older ones goes along.
    let table = grain.by();
    let sql = format!("SELECT bucket FROM {table} WHERE dimension = ?1 ORDER BY bucket DESC LIMIT 1 OFFSET ?2");
    let total = Dimension::Total.name();
    let newest_to_go: Option<i64> =
        connection.prepare_cached(&sql)?.query_row((total, kept), |row| row.get(0)).optional()?;
    let Some(newest_to_go) = newest_to_go else { return forget_cells_before_first(connection, grain) };
    let sql = format!("SELECT min(bucket) FROM {table} WHERE dimension = ?1");
    let oldest: i64 = connection.prepare_cached(&sql)?.query_row([total], |row| row.get(0))?;
    forget_cells(connection, grain, oldest.min(newest_to_go).saturating_add(1))
}

/// What is left of a bucket whose total has gone: the rest of it goes too.
fn forget_cells_before_first(connection: &Connection, grain: Grain) -> rusqlite::Result<usize> {
    let sql = format!("SELECT min(bucket) FROM {} WHERE dimension = ?1", grain.by());
    let oldest: Option<i64> =
        connection.prepare_cached(&sql)?.query_row([Dimension::Total.name()], |row| row.get(0))?;
    oldest.map_or(Ok(0), |oldest| forget_cells(connection, grain, oldest))
}

/// Some of the oldest requests, unless so few are left.
fn shed_requests(connection: &Connection, floor: i64) -> rusqlite::Result<usize> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM request_traces LIMIT ?1)";
    let known: i64 = connection.prepare_cached(sql)?.query_row([floor + ROWS], |row| row.get(0))?;
    forget_requests(connection, u64::MAX, (known - floor).clamp(0, ROWS))
}

/// What the database holds, without free pages.
pub(super) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = number("page_count")?.saturating_sub(number("freelist_count")?);
    Ok(super::from_db(pages.saturating_mul(number("page_size")?)))
}

/// The oldest requests that were over before `until_ms`, `rows` of them at most. Returns how many went.
fn forget_requests(connection: &Connection, until_ms: u64, rows: i64) -> rusqlite::Result<usize> {
    if rows == 0 {
        return Ok(0);
    }
    let until = until_ms as f64 / 1_000.0;
    let old = "SELECT id FROM request_traces WHERE timestamp < ?1 ORDER BY timestamp, id LIMIT ?2";
    // Another program's tags may be no JSON.
    let tags = format!(
        "DELETE FROM request_tags WHERE (tag, timestamp, trace_id) IN (
            SELECT tag.value, t.timestamp, t.id FROM request_traces t,
                json_each(CASE WHEN json_valid(t.tags) THEN t.tags ELSE '[]' END) tag
            WHERE t.tags IS NOT NULL AND t.id IN ({old}))"
    );
    connection.prepare_cached(&tags)?.execute((until, rows))?;
    let attempts = format!("DELETE FROM request_attempts WHERE trace_id IN ({old})");
    connection.prepare_cached(&attempts)?.execute((until, rows))?;
    connection.prepare_cached(&format!("DELETE FROM request_traces WHERE id IN ({old})"))?.execute((until, rows))
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
