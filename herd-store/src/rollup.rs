//! Requests of an hour or a day, added up: what charts and tables are made of, at any number of requests.
//!
//! `rollup_hourly` and `rollup_daily` have a row for each (bucket, model, node, app, surface). The `_by` tables have the
//! same sums by one dimension alone, or by it and the model, so that a chart of a month reads hundreds of rows instead of
//! hundreds of thousands. A request is in one row of each, but for the dimension `tag`: there it is in one row for each of
//! its tags. `rollup_minutely_by` is for charts of the last hours, and is kept no longer than those need it.

use herd_core::histogram::Histogram;
use herd_core::record::RequestRecord;
use herd_core::vocabulary::{Recorded, Status};
use herd_core::words;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{Connection, Row, Statement};

use super::{from_db, to_db};

/// How ollama-herd says that an attempt failed and another was made.
pub(super) const RETRIED: &str = "retried";
/// A minute.
pub(super) const MINUTE_MS: u64 = 60_000;
/// How long minutes are kept: six hours, the six before them to compare, and some room.
pub(super) const MINUTES_KEPT_MS: u64 = 13 * super::HOUR_MS;

words! {
    /// What is counted of requests, besides how they ended.
    pub(super) enum Count {
        /// All of them.
        Requests = "requests",
        /// Ended in a way that only another program's rows know.
        Other = "other",
        PromptTokens = "prompt_tokens",
        CompletionTokens = "completion_tokens",
        RequestBytes = "request_bytes",
        ResponseBytes = "response_bytes",
        Retries = "retries",
        Fallbacks = "fallbacks",
        Reloads = "reloads",
        ColdLoads = "cold_loads",
        /// Prompts estimated to exceed the window that served them.
        Overflows = "overflows",
        /// Refused, as no node has such a model.
        Unknown = "unknown_models",
    }
}

words! {
    /// What is measured.
    pub(super) enum Measure {
        /// Of completed requests, milliseconds.
        Latency = "latency_ms",
        /// From the request read to the first byte of answers that were streamed, milliseconds.
        Ttft = "time_to_first_token_ms",
        /// Of all that know it, milliseconds.
        Queue = "queue_ms",
        /// Tokens per second.
        DecodeRate = "tokens_per_s",
        /// Tokens of a prompt.
        PromptSize = "prompt_size",
        /// Tokens of a prompt and its answer.
        TotalSize = "total_size",
        /// Loading a model that was not in memory, milliseconds.
        Load = "load_ms",
    }
}

/// Columns of which the greatest stays.
const GREATEST: [&str; 3] = ["num_ctx_max", "context_length_max", "last_ms"];
/// The column of which the least stays.
const LEAST: &str = "first_ms";

/// Requests, added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Cell {
    /// By [`Status`].
    ended: [u64; Status::ALL.len()],
    counts: [u64; Count::ALL.len()],
    measures: [Histogram; Measure::ALL.len()],
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

    /// How many ended with `status`.
    pub(super) fn ended(&self, status: Status) -> u64 {
        self.ended[status as usize]
    }

    /// All of `measure`.
    pub(super) fn measure(&self, measure: Measure) -> &Histogram {
        &self.measures[measure as usize]
    }

    /// Adds a request.
    pub(super) fn add(&mut self, record: &RequestRecord) {
        let (reloaded, cold) = (record.reload_cause.is_some(), record.is_cold_load());
        let counts = &record.counts;
        let (prompt, completion) = (counts.prompt_tokens.unwrap_or(0), counts.completion_tokens.unwrap_or(0));
        let status = ending(record);
        if let Some(status) = status {
            self.ended[status as usize] = self.ended[status as usize].saturating_add(1);
        }
        for (count, more) in [
            (Count::Requests, 1),
            (Count::Other, u64::from(status.is_none())),
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
        let completed = status == Some(Status::Completed);
        for (measure, value) in [
            // 0 = not known.
            (Measure::Latency, Some(record.latency_ms).filter(|ms| completed && *ms > 0.0)),
            (Measure::Ttft, record.ttft_ms()),
            (Measure::Queue, record.queue_ms),
            (Measure::DecodeRate, record.tokens_per_s()),
            (Measure::PromptSize, counts.prompt_tokens.map(|tokens| tokens as f64)),
            (Measure::TotalSize, counts.prompt_tokens.map(|tokens| tokens.saturating_add(completion) as f64)),
            (Measure::Load, counts.load_ms.filter(|_| cold && !reloaded)),
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
        let (ended, counts) = (self.ended.iter_mut().zip(other.ended), self.counts.iter_mut().zip(other.counts));
        for (sum, more) in ended.chain(counts) {
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
        for (place, sum) in self.ended.iter_mut().chain(&mut self.counts).enumerate() {
            *sum = sum.saturating_add(from_db(row.get(at + place)?));
        }
        let at = at + Status::ALL.len() + Count::ALL.len();
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
        for number in self.ended.into_iter().chain(self.counts).chain(numbers) {
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

/// How a request ended; `None` = as only another program knows.
fn ending(record: &RequestRecord) -> Option<Status> {
    match record.status.as_ref()? {
        Recorded::Known(status) => Some(*status),
        // A row of ollama-herd that no later one follows: the client got an error.
        Recorded::Foreign(text) => (**text == *RETRIED).then_some(Status::Failed),
    }
}

/// The columns of which the sum stays.
fn counted() -> impl Iterator<Item = &'static str> {
    Status::ALL.into_iter().map(Status::name).chain(Count::ALL.into_iter().map(Count::name))
}

/// The columns of a cell and how each is declared.
pub(super) fn declared() -> impl Iterator<Item = (&'static str, &'static str)> {
    let numbers = counted().chain(GREATEST).chain([LEAST]);
    let numbers = numbers.map(|name| (name, "INTEGER NOT NULL DEFAULT 0"));
    numbers.chain(Measure::ALL.into_iter().map(|one| (one.name(), "BLOB NOT NULL DEFAULT x''")))
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
    let sums = counted().map(|name| format!("{name} = {name} + excluded.{name}"));
    let greatest = GREATEST.iter().map(|name| format!("{name} = max({name}, excluded.{name})"));
    let least = [format!("{LEAST} = min({LEAST}, excluded.{LEAST})")];
    let measures =
        Measure::ALL.into_iter().map(Measure::name).map(|name| format!("{name} = herd_merge({name}, excluded.{name})"));
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
