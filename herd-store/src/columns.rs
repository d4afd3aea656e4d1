//! The columns of `request_traces`: each declared, written and read in one place.

use herd_core::record::{Candidates, RequestRecord};
use herd_core::vocabulary::{Class, ContextAction, Reason, Recorded, ReloadCause, StandIn, Word};
use rusqlite::types::{FromSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Row, Statement};

use super::{from_db, to_db};

/// One column.
pub(super) struct Column {
    pub(super) name: &'static str,
    /// How it is declared.
    pub(super) kind: &'static str,
    /// What it holds of a record.
    write: fn(&RequestRecord) -> ToSqlOutput<'_>,
    /// What a record takes from it. Rows of ollama-herd may lack anything or hold odd types: those read as unknown.
    read: fn(&mut RequestRecord, ValueRef<'_>),
}

/// A column that is kept for other programs and read by none of ours.
const UNREAD: fn(&mut RequestRecord, ValueRef<'_>) = |_, _| {};

/// Every column but the id. Those that a query of many rows reads come first, the wide ones last: `SQLite` need not
/// follow a row beyond what is asked for.
pub(super) static COLUMNS: [Column; 41] = [
    Column {
        name: "request_id",
        kind: "TEXT NOT NULL",
        write: |one| text(&one.request_id),
        read: |one, value| one.request_id = string(value),
    },
    Column {
        name: "timestamp",
        kind: "REAL NOT NULL",
        write: |one| real(Some(one.timestamp_ms as f64 / 1_000.0)),
        read: |one, value| one.timestamp_ms = millis(get(value).unwrap_or(0.0)),
    },
    Column {
        name: "model",
        kind: "TEXT NOT NULL",
        write: |one| text(&one.model),
        read: |one, value| one.model = string(value),
    },
    Column {
        name: "node_id",
        kind: "TEXT NOT NULL",
        write: |one| text(&one.node_id),
        read: |one, value| one.node_id = string(value),
    },
    Column {
        name: "status",
        kind: "TEXT NOT NULL",
        write: |one| text(one.status_name()),
        read: |one, value| one.status = Recorded::parse(words(value)),
    },
    Column {
        name: "latency_ms",
        kind: "REAL",
        write: |one| real(Some(one.latency_ms)),
        read: |one, value| one.latency_ms = get(value).unwrap_or(0.0),
    },
    Column {
        name: "time_to_first_token_ms",
        kind: "REAL",
        write: |one| real(one.time_to_first_token_ms),
        read: |one, value| one.time_to_first_token_ms = get(value),
    },
    Column {
        name: "queue_ms",
        kind: "REAL",
        write: |one| real(one.queue_ms),
        read: |one, value| one.queue_ms = get(value),
    },
    Column {
        name: "load_ms",
        kind: "REAL",
        write: |one| real(one.counts.load_ms),
        read: |one, value| one.counts.load_ms = get(value),
    },
    Column {
        name: "decode_ms",
        kind: "REAL",
        write: |one| real(one.decode_ms),
        read: |one, value| one.decode_ms = get(value),
    },
    Column {
        name: "predicted_ms",
        kind: "REAL",
        write: |one| real(one.predicted_ms),
        read: |one, value| one.predicted_ms = get(value),
    },
    Column {
        name: "prompt_tokens",
        kind: "INTEGER",
        write: |one| whole(one.counts.prompt_tokens),
        read: |one, value| one.counts.prompt_tokens = number(value),
    },
    Column {
        name: "completion_tokens",
        kind: "INTEGER",
        write: |one| whole(one.counts.completion_tokens),
        read: |one, value| one.counts.completion_tokens = number(value),
    },
    Column {
        name: "original_model",
        kind: "TEXT NOT NULL",
        write: |one| text(&one.original_model),
        read: |one, value| one.original_model = string(value),
    },
    Column {
        name: "original_format",
        kind: "TEXT",
        write: |one| known(one.surface_name()),
        read: |one, value| one.surface = Recorded::parse(words(value)),
    },
    Column { name: "app", kind: "TEXT", write: |one| known(&one.app), read: |one, value| one.app = string(value) },
    Column {
        name: "key_id",
        kind: "TEXT",
        write: |one| known(&one.key_id),
        read: |one, value| one.key_id = string(value),
    },
    Column {
        name: "client_ip",
        kind: "TEXT",
        write: |one| known(&one.client_ip),
        read: |one, value| one.client_ip = string(value),
    },
    Column {
        name: "http_status",
        kind: "INTEGER",
        write: |one| whole(Some(u64::from(one.http_status)).filter(|status| *status > 0)),
        read: |one, value| one.http_status = get(value).unwrap_or(0),
    },
    Column {
        name: "stream",
        kind: "INTEGER",
        write: |one| whole(one.stream.map(u64::from)),
        read: |one, value| one.stream = get(value),
    },
    Column {
        name: "retry_count",
        kind: "INTEGER DEFAULT 0",
        write: |one| whole(Some(one.retry_count.into())),
        read: |one, value| one.retry_count = get(value).unwrap_or(0),
    },
    Column {
        name: "fallback_used",
        kind: "INTEGER DEFAULT 0",
        write: |one| whole(Some(one.fallback_used.into())),
        read: |one, value| one.fallback_used = get(value).unwrap_or(false),
    },
    Column {
        name: "stand_in",
        kind: "TEXT",
        write: |one| word(one.stand_in),
        read: |one, value| one.stand_in = StandIn::parse(words(value)),
    },
    Column { name: "score", kind: "REAL", write: |one| real(one.score), read: |one, value| one.score = get(value) },
    Column {
        name: "num_ctx",
        kind: "INTEGER",
        write: |one| whole(one.num_ctx),
        read: |one, value| one.num_ctx = number(value),
    },
    Column {
        name: "context_length",
        kind: "INTEGER",
        write: |one| whole(one.context_length),
        read: |one, value| one.context_length = number(value),
    },
    Column {
        name: "context_action",
        kind: "TEXT",
        write: |one| word(one.context_action),
        read: |one, value| one.context_action = ContextAction::parse(words(value)),
    },
    Column {
        name: "reload_cause",
        kind: "TEXT",
        write: |one| word(one.reload_cause),
        read: |one, value| one.reload_cause = ReloadCause::parse(words(value)),
    },
    Column {
        name: "request_bytes",
        kind: "INTEGER",
        write: |one| whole(Some(one.request_bytes)),
        read: |one, value| one.request_bytes = number(value).unwrap_or(0),
    },
    Column {
        name: "response_bytes",
        kind: "INTEGER",
        write: |one| whole(Some(one.response_bytes)),
        read: |one, value| one.response_bytes = number(value).unwrap_or(0),
    },
    Column {
        name: "priority",
        kind: "TEXT",
        write: |one| word(one.priority),
        read: |one, value| one.priority = Class::parse(words(value)),
    },
    Column {
        name: "benchmark",
        kind: "INTEGER NOT NULL DEFAULT 0",
        write: |one| whole(Some(one.benchmark.into())),
        read: |one, value| one.benchmark = get(value).unwrap_or(false),
    },
    Column {
        // Rows of ollama-herd that are an attempt of a request with a later row.
        name: "superseded",
        kind: "INTEGER NOT NULL DEFAULT 0",
        write: |_| whole(Some(0)),
        read: UNREAD,
    },
    Column {
        name: "overflow",
        kind: "INTEGER NOT NULL DEFAULT 0",
        write: |one| whole(Some(one.overflow.into())),
        read: |one, value| one.overflow = get(value).unwrap_or(false),
    },
    Column {
        name: "finish_reason",
        kind: "TEXT",
        write: |one| word(one.finish_reason),
        read: |one, value| one.finish_reason = Reason::parse(words(value)),
    },
    Column {
        name: "estimated_tokens",
        kind: "INTEGER",
        write: |one| whole(one.estimated_tokens),
        read: |one, value| one.estimated_tokens = number(value),
    },
    Column {
        // As ollama-herd has it; the attempts tell it better.
        name: "excluded_nodes",
        kind: "TEXT",
        write: excluded_nodes,
        read: UNREAD,
    },
    Column {
        name: "user_agent",
        kind: "TEXT",
        write: |one| known(&one.user_agent),
        read: |one, value| one.user_agent = string(value),
    },
    Column {
        name: "tags",
        kind: "TEXT",
        write: |one| json_list(&one.tags),
        read: |one, value| one.tags = serde_json::from_str(words(value)).unwrap_or_default(),
    },
    Column {
        name: "error_message",
        kind: "TEXT",
        write: |one| known(one.error_message.as_deref().unwrap_or_default()),
        read: |one, value| one.error_message = get(value),
    },
    Column {
        name: "scores_breakdown",
        kind: "TEXT",
        write: |one| match &one.candidates {
            Candidates::Json(json) => text(json),
            Candidates::None | Candidates::Ranked(..) => ToSqlOutput::Owned(Value::Null),
        },
        read: |one, value| {
            let json = words(value);
            one.candidates = if json.is_empty() { Candidates::None } else { Candidates::Json(json.into()) };
        },
    },
];

/// How many of them lists read: all but the last, the breakdown of scores.
const LISTED: usize = COLUMNS.len() - 1;

/// The columns of lists, with `alias` before each.
pub(super) fn listed(alias: &str) -> String {
    named(&COLUMNS[..LISTED], alias)
}

/// Every column, with `alias` before each.
pub(super) fn whole_row(alias: &str) -> String {
    named(&COLUMNS, alias)
}

fn named(columns: &[Column], alias: &str) -> String {
    columns.iter().map(|column| format!("{alias}.{}", column.name)).collect::<Vec<_>>().join(", ")
}

/// The beginning of the statement that inserts rows.
pub(super) fn insert_into() -> String {
    let names: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
    format!("INSERT INTO request_traces ({})", names.join(", "))
}

/// So many `rows` of so many parameters.
pub(super) fn places(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    vec![row; rows].join(", ")
}

/// Binds `record` to the parameters of one row, from `place` on.
pub(super) fn bind(statement: &mut Statement<'_>, place: usize, record: &RequestRecord) -> rusqlite::Result<()> {
    for (place, column) in (place..).zip(&COLUMNS) {
        statement.raw_bind_parameter(place, (column.write)(record))?;
    }
    Ok(())
}

/// Reads a row that starts with the columns of [`listed`]; the breakdown and the attempts are left out.
pub(super) fn read(row: &Row<'_>) -> RequestRecord {
    read_columns(row, &COLUMNS[..LISTED])
}

/// Reads a row that starts with the columns of [`whole_row`]; the attempts are left out.
pub(super) fn read_whole(row: &Row<'_>) -> RequestRecord {
    read_columns(row, &COLUMNS)
}

fn read_columns(row: &Row<'_>, columns: &[Column]) -> RequestRecord {
    let mut record = RequestRecord::default();
    for (place, column) in columns.iter().enumerate() {
        if let Ok(value) = row.get_ref(place) {
            (column.read)(&mut record, value);
        }
    }
    record
}

/// Text that may be empty.
fn text(text: &str) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
}

/// Text; the empty one is unknown.
fn known(known: &str) -> ToSqlOutput<'_> {
    if known.is_empty() { ToSqlOutput::Owned(Value::Null) } else { text(known) }
}

fn word(word: Option<impl Word>) -> ToSqlOutput<'static> {
    known(word.map_or("", Word::word))
}

fn real(number: Option<f64>) -> ToSqlOutput<'static> {
    ToSqlOutput::Owned(number.into())
}

fn whole(number: Option<u64>) -> ToSqlOutput<'static> {
    ToSqlOutput::Owned(number.map(to_db).into())
}

fn json_list(list: &[impl serde::Serialize]) -> ToSqlOutput<'static> {
    let json = (!list.is_empty()).then(|| serde_json::to_string(list).ok()).flatten();
    ToSqlOutput::Owned(json.into())
}

/// The nodes that had failed before the last one, as ollama-herd tells them.
fn excluded_nodes(record: &RequestRecord) -> ToSqlOutput<'_> {
    let before = record.attempts.split_last().map_or(&[][..], |(_, before)| before);
    let before: Vec<_> = before.iter().map(|attempt| &attempt.node_id).collect();
    json_list(&before)
}

/// The value as a `T`; `None` = it is null, or of another type.
pub(super) fn get<T: FromSql>(value: ValueRef<'_>) -> Option<T> {
    T::column_result(value).ok()
}

fn number(value: ValueRef<'_>) -> Option<u64> {
    get(value).map(from_db)
}

fn words(value: ValueRef<'_>) -> &str {
    value.as_str().unwrap_or_default()
}

fn string(value: ValueRef<'_>) -> String {
    words(value).to_owned()
}

/// Unix seconds of the database in milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts from floats saturate")]
pub(super) fn millis(seconds: f64) -> u64 {
    (seconds * 1_000.0).round() as u64
}
