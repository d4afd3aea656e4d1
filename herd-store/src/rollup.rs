//! Requests of an hour or a day, added up: what charts and tables are made of, at any number of requests.
//!
//! `rollup_hourly` and `rollup_daily` have a row for each (bucket, model, node, app, surface). The `_by` tables have the
//! same sums by one dimension alone, or by it and the model, so that a chart of a month reads hundreds of rows instead of
//! hundreds of thousands. A request is in one row of each, but for the dimension `tag`: there it is in one row for each of
//! its tags. `rollup_minutely_by` is for charts of the last hours, and is kept no longer than those need it.

use herd_core::histogram::Histogram;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{Connection, Row, Statement};

use super::record::TraceRecord;
use super::{from_db, to_db};

/// From here on loading counts as a cold load, milliseconds. Ollama tells tens of milliseconds for a loaded model.
const COLD_LOAD_MS: f64 = 1_000.0;
/// A minute.
pub(super) const MINUTE_MS: u64 = 60_000;
/// How long minutes are kept: six hours, the six before them to compare, and some room.
pub(super) const MINUTES_KEPT_MS: u64 = 13 * super::HOUR_MS;

/// What is counted. The first eight are requests by how they ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    Requests,
    Completed,
    Failed,
    Rejected,
    Incomplete,
    Reaped,
    ClientDisconnected,
    /// Ended in a way that only another program's rows know.
    Other,
    PromptTokens,
    CompletionTokens,
    RequestBytes,
    ResponseBytes,
    Retries,
    Fallbacks,
    Reloads,
    ColdLoads,
    /// Prompts estimated to exceed the window that served them.
    Overflows,
    /// Refused, as no node has such a model.
    Unknown,
}

/// The columns of [`Count`], in its order.
const COUNTS: [&str; 18] = [
    "requests",
    "completed",
    "failed",
    "rejected",
    "incomplete",
    "reaped",
    "client_disconnected",
    "other",
    "prompt_tokens",
    "completion_tokens",
    "request_bytes",
    "response_bytes",
    "retries",
    "fallbacks",
    "reloads",
    "cold_loads",
    "overflows",
    "unknown_models",
];

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(super) enum Measure {
    /// Of completed requests, milliseconds.
    Latency,
    /// From the request read to the first byte of answers that were streamed, milliseconds.
    Ttft,
    /// Of all that know it, milliseconds.
    Queue,
    /// Tokens per second.
    DecodeRate,
    /// Tokens of a prompt.
    PromptSize,
    /// Tokens of a prompt and its answer.
    TotalSize,
    /// Loading a model that was not in memory, milliseconds.
    Load,
}

/// The columns of [`Measure`], in its order.
const MEASURES: [&str; 7] =
    ["latency_ms", "time_to_first_token_ms", "queue_ms", "tokens_per_s", "prompt_size", "total_size", "load_ms"];

/// Columns of which the greatest stays.
const GREATEST: [&str; 3] = ["num_ctx_max", "context_length_max", "last_ms"];
/// The column of which the least stays.
const LEAST: &str = "first_ms";

/// Requests, added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Cell {
    counts: [u64; COUNTS.len()],
    measures: [Histogram; MEASURES.len()],
    /// The most context that was asked for, tokens; 0 = none.
    pub(super) num_ctx: u64,
    /// The largest window that served, tokens; 0 = none.
    pub(super) context_length: u64,
    /// When the last of them was over, Unix milliseconds.
    pub(super) last_ms: u64,
    /// When the first of them was over; 0 = there are none.
    pub(super) first_ms: u64,
}

impl Cell {
    /// How many of `count` there are.
    pub(super) fn count(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    /// All of `measure`.
    pub(super) fn measure(&self, measure: Measure) -> &Histogram {
        &self.measures[measure as usize]
    }

    /// Adds a request.
    pub(super) fn add(&mut self, record: &TraceRecord) {
        let reloaded = !record.reload_cause.is_empty();
        let loaded = matches!(record.context_action.as_str(), "load" | "reload");
        let cold = loaded || reloaded || record.load_ms.is_some_and(|ms| ms >= COLD_LOAD_MS);
        let (prompt, completion) = (record.prompt_tokens.unwrap_or(0), record.completion_tokens.unwrap_or(0));
        let ending = ending(&record.status);
        for (count, more) in [
            (Count::Requests, 1),
            (ending, 1),
            (Count::PromptTokens, prompt),
            (Count::CompletionTokens, completion),
            (Count::RequestBytes, record.request_bytes),
            (Count::ResponseBytes, record.response_bytes),
            (Count::Retries, u64::from(record.retry_count)),
            (Count::Fallbacks, u64::from(record.fallback_used)),
            (Count::Reloads, u64::from(reloaded)),
            (Count::ColdLoads, u64::from(cold)),
            (Count::Overflows, u64::from(record.overflow)),
            (Count::Unknown, u64::from(record.is_unknown_model())),
        ] {
            let sum = &mut self.counts[count as usize];
            *sum = sum.saturating_add(more);
        }
        let completed = matches!(ending, Count::Completed);
        for (measure, value) in [
            (Measure::Latency, completed.then_some(record.latency_ms)),
            (Measure::Ttft, record.ttft_ms()),
            (Measure::Queue, record.queue_ms),
            (Measure::DecodeRate, record.tokens_per_s()),
            (Measure::PromptSize, record.prompt_tokens.map(|tokens| tokens as f64)),
            (Measure::TotalSize, record.prompt_tokens.map(|tokens| tokens.saturating_add(completion) as f64)),
            (Measure::Load, record.load_ms.filter(|_| cold && !reloaded)),
        ] {
            if let Some(value) = value {
                self.measures[measure as usize].observe(value);
            }
        }
        self.num_ctx = self.num_ctx.max(record.num_ctx.unwrap_or(0));
        self.context_length = self.context_length.max(record.context_length.unwrap_or(0));
        self.seen(record.timestamp_ms, record.timestamp_ms);
    }

    /// Adds all requests of `other`.
    pub(super) fn merge(&mut self, other: &Self) {
        for (sum, more) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.saturating_add(more);
        }
        for (measure, more) in self.measures.iter_mut().zip(&other.measures) {
            measure.merge(more);
        }
        self.num_ctx = self.num_ctx.max(other.num_ctx);
        self.context_length = self.context_length.max(other.context_length);
        self.seen(other.first_ms, other.last_ms);
    }

    fn seen(&mut self, first_ms: u64, last_ms: u64) {
        self.last_ms = self.last_ms.max(last_ms);
        let known = [self.first_ms, first_ms].into_iter().filter(|ms| *ms > 0);
        self.first_ms = known.min().unwrap_or(0);
    }

    /// Adds the cell that `row` holds from column `at` on, as [`columns`] lists them.
    pub(super) fn merge_row(&mut self, row: &Row<'_>, at: usize) -> rusqlite::Result<()> {
        for (place, sum) in self.counts.iter_mut().enumerate() {
            *sum = sum.saturating_add(from_db(row.get(at + place)?));
        }
        let at = at + COUNTS.len();
        self.num_ctx = self.num_ctx.max(from_db(row.get(at)?));
        self.context_length = self.context_length.max(from_db(row.get(at + 1)?));
        self.seen(from_db(row.get(at + 3)?), from_db(row.get(at + 2)?));
        let at = at + GREATEST.len() + 1;
        for (place, measure) in self.measures.iter_mut().enumerate() {
            // One that is no histogram counts as far as it could be read: the sums beside it are right.
            measure.merge_bytes(row.get_ref(at + place)?.as_blob().unwrap_or(&[]));
        }
        Ok(())
    }

    /// Binds it to an [`upsert_sql`] from parameter `at` on, and runs that.
    pub(super) fn upsert(&self, statement: &mut Statement<'_>, mut at: usize) -> rusqlite::Result<()> {
        let numbers = [self.num_ctx, self.context_length, self.last_ms, self.first_ms];
        for number in self.counts.into_iter().chain(numbers) {
            statement.raw_bind_parameter(at, to_db(number))?;
            at += 1;
        }
        for measure in &self.measures {
            statement.raw_bind_parameter(at, measure.to_bytes())?;
            at += 1;
        }
        statement.raw_execute().map(drop)
    }
}

fn ending(status: &str) -> Count {
    match status {
        "completed" => Count::Completed,
        // A row of ollama-herd that no later one follows: the client got an error.
        "failed" | "retried" => Count::Failed,
        "rejected" => Count::Rejected,
        "incomplete" => Count::Incomplete,
        "reaped" => Count::Reaped,
        "client_disconnected" => Count::ClientDisconnected,
        _ => Count::Other,
    }
}

/// The columns of a cell and how each is declared.
pub(super) fn declared() -> impl Iterator<Item = (&'static str, &'static str)> {
    let numbers = COUNTS.into_iter().chain(GREATEST).chain([LEAST]);
    let numbers = numbers.map(|name| (name, "INTEGER NOT NULL DEFAULT 0"));
    numbers.chain(MEASURES.into_iter().map(|name| (name, "BLOB NOT NULL DEFAULT x''")))
}

/// The columns of a cell, in the order in which [`Cell`] reads and binds them.
fn names() -> impl Iterator<Item = &'static str> {
    declared().map(|(name, _)| name)
}

/// The same, to select them.
pub(super) fn columns() -> String {
    names().collect::<Vec<_>>().join(", ")
}

/// The columns that make up a key of the cube.
pub(super) const CUBE: [&str; 5] = ["bucket", "model", "node_id", "app", "surface"];
/// The same of a `_by` table; `second` is the model in the dimensions that have it, else empty.
pub(super) const BY: [&str; 4] = ["dimension", "bucket", "value", "second"];

/// A grain of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    /// By one dimension only, and of the last [`MINUTES_KEPT_MS`].
    Minutely,
    Hourly,
    Daily,
}

impl Grain {
    pub(super) const ALL: [Self; 3] = [Self::Minutely, Self::Hourly, Self::Daily];

    /// The table by all dimensions; none = there is none.
    pub(super) fn cube(self) -> Option<&'static str> {
        match self {
            Self::Minutely => None,
            Self::Hourly => Some("rollup_hourly"),
            Self::Daily => Some("rollup_daily"),
        }
    }

    /// The table by one dimension.
    pub(super) fn by(self) -> &'static str {
        match self {
            Self::Minutely => "rollup_minutely_by",
            Self::Hourly => "rollup_hourly_by",
            Self::Daily => "rollup_daily_by",
        }
    }

    /// Width of a bucket.
    pub(super) fn width_ms(self) -> u64 {
        match self {
            Self::Minutely => MINUTE_MS,
            Self::Hourly => super::HOUR_MS,
            Self::Daily => super::DAY_MS,
        }
    }

    /// The start of the bucket of a moment, Unix seconds.
    pub(super) fn bucket(self, unix_ms: u64) -> u64 {
        (unix_ms - unix_ms % self.width_ms()) / 1_000
    }
}

/// The statement that makes `table` with `key`.
pub(super) fn create_sql(table: &str, key: &[&str]) -> String {
    let keys = key.iter().map(|name| {
        let kind = if *name == "bucket" { "INTEGER" } else { "TEXT" };
        format!("{name} {kind} NOT NULL")
    });
    let sums = declared().map(|(name, kind)| format!("{name} {kind}"));
    let all: Vec<_> = keys.chain(sums).collect();
    format!("CREATE TABLE {table} ({}, PRIMARY KEY ({})) WITHOUT ROWID", all.join(", "), key.join(", "))
}

/// The statement that adds a cell to `table`: first the key, then what [`Cell::upsert`] binds.
pub(super) fn upsert_sql(table: &str, key: &[&'static str]) -> String {
    let all: Vec<_> = key.iter().copied().chain(names()).collect();
    let places: Vec<_> = (1..=all.len()).map(|place| format!("?{place}")).collect();
    let sums = COUNTS.iter().map(|name| format!("{name} = {name} + excluded.{name}"));
    let greatest = GREATEST.iter().map(|name| format!("{name} = max({name}, excluded.{name})"));
    let least = [format!("{LEAST} = min({LEAST}, excluded.{LEAST})")];
    let measures = MEASURES.iter().map(|name| format!("{name} = herd_merge({name}, excluded.{name})"));
    let sets: Vec<_> = sums.chain(greatest).chain(least).chain(measures).collect();
    format!(
        "INSERT INTO {table} ({}) VALUES ({}) ON CONFLICT DO UPDATE SET {}",
        all.join(", "),
        places.join(", "),
        sets.join(", ")
    )
}

/// Teaches `connection` the function that upserts merge histograms with.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("herd_merge", 2, flags, |context: &Context<'_>| {
        let [old, new] = [0, 1].map(|at| context.get_raw(at).as_blob().unwrap_or(&[]));
        if old.is_empty() || new.is_empty() {
            return Ok([old, new].concat());
        }
        let mut merged = Histogram::default();
        merged.merge_bytes(old);
        merged.merge_bytes(new);
        Ok(merged.to_bytes())
    })
}
