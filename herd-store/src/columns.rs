//! The columns of `request_traces`, once for making, writing and reading.

use rusqlite::types::{FromSql, ToSql};
use rusqlite::{Row, Statement};

use super::record::TraceRecord;
use super::{from_db, to_db};

/// Every column but the id: its name, and how it is declared. Those that a query of many rows reads come first, the
/// wide ones last: `SQLite` need not follow a row beyond what is asked for.
pub(super) const COLUMNS: [(&str, &str); 41] = [
    ("request_id", "TEXT NOT NULL"),
    ("timestamp", "REAL NOT NULL"),
    ("model", "TEXT NOT NULL"),
    ("node_id", "TEXT NOT NULL"),
    ("status", "TEXT NOT NULL"),
    ("latency_ms", "REAL"),
    ("time_to_first_token_ms", "REAL"),
    ("queue_ms", "REAL"),
    ("load_ms", "REAL"),
    ("decode_ms", "REAL"),
    ("predicted_ms", "REAL"),
    ("prompt_tokens", "INTEGER"),
    ("completion_tokens", "INTEGER"),
    ("original_model", "TEXT NOT NULL"),
    ("original_format", "TEXT"),
    ("app", "TEXT"),
    ("key_id", "TEXT"),
    ("client_ip", "TEXT"),
    ("http_status", "INTEGER"),
    ("stream", "INTEGER"),
    ("retry_count", "INTEGER DEFAULT 0"),
    ("fallback_used", "INTEGER DEFAULT 0"),
    ("stand_in", "TEXT"),
    ("score", "REAL"),
    ("num_ctx", "INTEGER"),
    ("context_length", "INTEGER"),
    ("context_action", "TEXT"),
    ("reload_cause", "TEXT"),
    ("request_bytes", "INTEGER"),
    ("response_bytes", "INTEGER"),
    ("priority", "TEXT"),
    ("benchmark", "INTEGER NOT NULL DEFAULT 0"),
    // Rows of ollama-herd that are an attempt of a request with a later row.
    ("superseded", "INTEGER NOT NULL DEFAULT 0"),
    ("overflow", "INTEGER NOT NULL DEFAULT 0"),
    ("finish_reason", "TEXT"),
    ("estimated_tokens", "INTEGER"),
    ("excluded_nodes", "TEXT"),
    ("user_agent", "TEXT"),
    ("tags", "TEXT"),
    ("error_message", "TEXT"),
    ("scores_breakdown", "TEXT"),
];

/// How many of them [`read`] needs when the breakdown is left out: all but the last.
const LISTED: usize = COLUMNS.len() - 1;

/// The columns, with `alias` before each.
pub(super) fn listed(alias: &str) -> String {
    let names = COLUMNS[..LISTED].iter().map(|(name, _)| format!("{alias}.{name}"));
    names.collect::<Vec<_>>().join(", ")
}

/// The statement that inserts a row.
pub(super) fn insert_sql() -> String {
    let names: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let places: Vec<_> = (1..=COLUMNS.len()).map(|place| format!("?{place}")).collect();
    format!("INSERT INTO request_traces ({}) VALUES ({})", names.join(", "), places.join(", "))
}

/// Binds `record` to [`insert_sql`] and runs it.
pub(super) fn insert(statement: &mut Statement<'_>, record: &TraceRecord) -> rusqlite::Result<()> {
    let mut bind = Binding { statement, at: 0 };
    bind.next(&record.request_id)?;
    bind.next(record.timestamp_ms as f64 / 1_000.0)?;
    bind.next(&record.model)?;
    bind.next(&record.node_id)?;
    bind.next(&record.status)?;
    bind.next(record.latency_ms)?;
    bind.next(record.time_to_first_token_ms)?;
    bind.next(record.queue_ms)?;
    bind.next(record.load_ms)?;
    bind.next(record.decode_ms)?;
    bind.next(record.predicted_ms)?;
    bind.next(record.prompt_tokens.map(to_db))?;
    bind.next(record.completion_tokens.map(to_db))?;
    bind.next(&record.original_model)?;
    bind.text(&record.original_format)?;
    bind.text(&record.app)?;
    bind.text(&record.key_id)?;
    bind.text(&record.client_ip)?;
    bind.next((record.http_status > 0).then_some(record.http_status))?;
    bind.next(record.stream)?;
    bind.next(record.retry_count)?;
    bind.next(record.fallback_used)?;
    bind.text(&record.stand_in)?;
    bind.next(record.score)?;
    bind.next(record.num_ctx.map(to_db))?;
    bind.next(record.context_length.map(to_db))?;
    bind.text(&record.context_action)?;
    bind.text(&record.reload_cause)?;
    bind.next(to_db(record.request_bytes))?;
    bind.next(to_db(record.response_bytes))?;
    bind.text(&record.priority)?;
    bind.next(record.benchmark)?;
    bind.next(false)?;
    bind.next(record.overflow)?;
    bind.text(&record.finish_reason)?;
    bind.next(record.estimated_tokens.map(to_db))?;
    bind.next(excluded_nodes(record))?;
    bind.text(&record.user_agent)?;
    bind.next(json_list(&record.tags))?;
    bind.next(record.error_message.as_deref())?;
    bind.next(record.scores_breakdown.as_deref())?;
    bind.statement.raw_execute().map(drop)
}

struct Binding<'a, 'c> {
    statement: &'a mut Statement<'c>,
    at: usize,
}

impl Binding<'_, '_> {
    fn next(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.at += 1;
        self.statement.raw_bind_parameter(self.at, value)
    }

    /// Text; the empty one is unknown.
    fn text(&mut self, text: &str) -> rusqlite::Result<()> {
        self.next((!text.is_empty()).then_some(text))
    }
}

/// The nodes that had failed before the last one, as ollama-herd tells them.
fn excluded_nodes(record: &TraceRecord) -> Option<String> {
    let (_, before) = record.attempts.split_last()?;
    let before: Vec<_> = before.iter().map(|attempt| &attempt.node_id).collect();
    json_list(&before)
}

fn json_list(list: &[impl serde::Serialize]) -> Option<String> {
    (!list.is_empty()).then(|| serde_json::to_string(list).ok())?
}

/// Reads a row that starts with the columns of [`listed`]; the breakdown and the attempts are left out.
///
/// Rows of ollama-herd may lack anything or hold odd types; these read as unknown.
pub(super) fn read(row: &Row<'_>) -> TraceRecord {
    let mut next = Reading { row, at: 0 };
    let mut record = TraceRecord {
        request_id: next.text(),
        timestamp_ms: millis(next.get().unwrap_or(0.0)),
        model: next.text(),
        node_id: next.text(),
        status: next.text(),
        latency_ms: next.get().unwrap_or(0.0),
        time_to_first_token_ms: next.get(),
        queue_ms: next.get(),
        load_ms: next.get(),
        decode_ms: next.get(),
        predicted_ms: next.get(),
        prompt_tokens: next.number(),
        completion_tokens: next.number(),
        original_model: next.text(),
        original_format: next.text(),
        app: next.text(),
        key_id: next.text(),
        client_ip: next.text(),
        http_status: next.get().unwrap_or(0),
        stream: next.get(),
        retry_count: next.get().unwrap_or(0),
        fallback_used: next.get().unwrap_or(false),
        stand_in: next.text(),
        score: next.get(),
        num_ctx: next.number(),
        context_length: next.number(),
        context_action: next.text(),
        reload_cause: next.text(),
        request_bytes: next.number().unwrap_or(0),
        response_bytes: next.number().unwrap_or(0),
        priority: next.text(),
        benchmark: next.get().unwrap_or(false),
        ..TraceRecord::default()
    };
    next.at += 1; // superseded
    record.overflow = next.get().unwrap_or(false);
    record.finish_reason = next.text();
    record.estimated_tokens = next.number();
    next.at += 1; // excluded_nodes, which the attempts tell better
    record.user_agent = next.text();
    record.tags = next.get::<String>().and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    record.error_message = next.get();
    record
}

struct Reading<'a, 'r> {
    row: &'a Row<'r>,
    at: usize,
}

impl Reading<'_, '_> {
    fn get<T: FromSql>(&mut self) -> Option<T> {
        let value = self.row.get::<_, Option<T>>(self.at);
        self.at += 1;
        value.ok().flatten()
    }

    fn text(&mut self) -> String {
        self.get().unwrap_or_default()
    }

    fn number(&mut self) -> Option<u64> {
        self.get().map(from_db)
    }
}

/// Unix seconds of the database in milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts from floats saturate")]
pub(super) fn millis(seconds: f64) -> u64 {
    (seconds * 1_000.0).round() as u64
}
