//! What the requests of the last hour did, in memory: what health checks look at every few seconds.
//!
//! The roll-ups end with whole hours and know neither why a model was loaded anew nor how an attempt went; reading that
//! from single requests costs more the more there are. So the writer's thread adds up each record as it takes it, in
//! slices of five minutes: "the last hour" is its last 55 to 60 minutes. Traffic never waits for this lock.

use std::collections::{BTreeMap, HashMap, VecDeque};

use herd_core::health::{PredictionError, Reloads};
use herd_core::record::{AttemptRecord, RequestRecord};
use herd_core::vocabulary::{Failure, Outcome, Recorded, ReloadCause, Status};
use rusqlite::Connection;

use super::rollup::Cell;
use super::{HOUR_MS, Summary, columns};

/// Width of a slice.
const SLICE_MS: u64 = 5 * 60_000;
/// Slices of an hour.
const SLICES: u64 = HOUR_MS / SLICE_MS;
/// Pairs of a node and a model, and names that were asked for, in one slice. Of further ones nothing is known but the
/// total.
const NAMES: usize = 512;

/// Requests that have something in common, added up.
#[derive(Debug, Clone, Default)]
pub struct Work {
    cell: Cell,
    details: Details,
}

/// What a [`Summary`] does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Details {
    /// Attempts that failed here and were made again.
    pub retries: u64,
    /// Those of them that were answered "busy".
    pub busy: u64,
    /// Requests for which a loaded model was loaded anew, by cause.
    pub reloads: Reloads,
    predictions: u64,
    predicted_ms: f64,
    actual_ms: f64,
}

/// What clients asked for by one name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Requests.
    pub requests: u64,
    /// Refused, as no node has such a model.
    pub unknown: u64,
    /// Served by another model.
    pub stand_ins: u64,
}

impl Work {
    /// The sums that roll-ups have too.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(&self.cell)
    }

    /// And the rest.
    #[must_use]
    pub fn details(&self) -> &Details {
        &self.details
    }

    fn add(&mut self, record: &RequestRecord) {
        self.cell.add(record);
        self.details.add(record);
    }

    fn merge(&mut self, other: &Self) {
        self.cell.merge(&other.cell);
        self.details.merge(&other.details);
    }
}

impl Details {
    /// What was predicted until answers begin, and what it took.
    #[must_use]
    pub fn prediction(&self) -> PredictionError {
        let mean = |sum: f64| if self.predictions == 0 { 0.0 } else { sum / self.predictions as f64 };
        PredictionError {
            samples: self.predictions,
            predicted_ms: mean(self.predicted_ms),
            actual_ms: mean(self.actual_ms),
        }
    }

    fn add(&mut self, record: &RequestRecord) {
        match record.reload_cause {
            None => {}
            Some(ReloadCause::ContextLarger) => self.reloads.context_larger += 1,
            Some(ReloadCause::ContextDiffers) => self.reloads.context_differs += 1,
            Some(ReloadCause::NodeDefault) => self.reloads.node_default += 1,
            Some(ReloadCause::LaunchOptions) => self.reloads.launch_options += 1,
        }
        // A failed attempt takes its time too, and nobody predicts failures.
        let at_first = record.retry_count == 0 && record.known_status() == Some(Status::Completed);
        if let Some((predicted, actual)) = record.predicted_ms.zip(record.ttft_ms()).filter(|_| at_first) {
            self.predictions += 1;
            self.predicted_ms += predicted;
            self.actual_ms += actual;
        }
    }

    fn merge(&mut self, other: &Self) {
        let (mine, more) = (&mut self.reloads, &other.reloads);
        for (sum, more) in [
            (&mut self.retries, other.retries),
            (&mut self.busy, other.busy),
            (&mut self.predictions, other.predictions),
            (&mut mine.context_larger, more.context_larger),
            (&mut mine.context_differs, more.context_differs),
            (&mut mine.node_default, more.node_default),
            (&mut mine.launch_options, more.launch_options),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.predicted_ms += other.predicted_ms;
        self.actual_ms += other.actual_ms;
    }
}

impl Asked {
    fn add(&mut self, record: &RequestRecord) {
        self.requests += 1;
        self.unknown += u64::from(record.is_unknown_model());
        self.stand_ins += u64::from(record.fallback_used);
    }

    fn merge(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.unknown = self.unknown.saturating_add(other.unknown);
        self.stand_ins = self.stand_ins.saturating_add(other.stand_ins);
    }
}

/// The last hour, by slices.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// The oldest first.
    slices: VecDeque<Slice>,
}

#[derive(Debug, Default)]
struct Slice {
    /// Its number since 1970.
    at: u64,
    total: Work,
    /// By node and model.
    pairs: HashMap<String, HashMap<String, Work>>,
    pairs_len: usize,
    asked: HashMap<String, Asked>,
}

/// The last hour, added up.
#[derive(Debug, Default)]
pub struct LastHour {
    /// All requests.
    pub total: Work,
    /// By node and model.
    pub pairs: BTreeMap<(String, String), Work>,
    /// By the name that was asked for.
    pub asked: BTreeMap<String, Asked>,
}

impl Recent {
    /// Adds `records`, at `now_ms` of the wall clock. Benchmarks are not counted, and neither is what was over in the future:
    /// the clock was ahead then, or is behind now.
    pub(super) fn add(&mut self, records: &[RequestRecord], now_ms: u64) {
        let now = now_ms / SLICE_MS;
        self.forget(now);
        for record in records.iter().filter(|record| !record.benchmark) {
            if let Some(slice) = self.slice(record.timestamp_ms / SLICE_MS, now) {
                slice.add(record);
            }
        }
    }

    /// The slice numbered `at`; `None` = it is no slice of the hour before the slice `now`.
    fn slice(&mut self, at: u64, now: u64) -> Option<&mut Slice> {
        if !is_of_the_hour(at, now) {
            return None;
        }
        let place = self.slices.partition_point(|slice| slice.at < at);
        if self.slices.get(place).is_none_or(|slice| slice.at != at) {
            self.slices.insert(place, Slice { at, ..Slice::default() });
        }
        self.slices.get_mut(place)
    }

    /// Forgets what is not of the hour before the slice `now`: older ones, and those of a future from which the clock has
    /// been set back.
    fn forget(&mut self, now: u64) {
        self.slices.retain(|slice| is_of_the_hour(slice.at, now));
    }

    /// The last hour before `now_ms`.
    pub(super) fn sum(&mut self, now_ms: u64) -> LastHour {
        self.forget(now_ms / SLICE_MS);
        let mut hour = LastHour::default();
        for slice in &self.slices {
            hour.total.merge(&slice.total);
            for (node, models) in &slice.pairs {
                for (model, work) in models {
                    hour.pairs.entry((node.clone(), model.clone())).or_default().merge(work);
                }
            }
            for (name, asked) in &slice.asked {
                hour.asked.entry(name.clone()).or_default().merge(*asked);
            }
        }
        hour
    }
}

/// Whether the slice `at` is one of the hour that ends with the slice `now`. Clocks of writers differ by moments, so that
/// the next one is, too.
fn is_of_the_hour(at: u64, now: u64) -> bool {
    at + SLICES > now && at <= now + 1
}

impl Slice {
    fn add(&mut self, record: &RequestRecord) {
        self.total.add(record);
        if let Some(pair) = self.pair(&record.node_id, &record.model) {
            pair.add(record);
        }
        // The last attempt is how the request ended.
        for attempt in record.attempts.iter().rev().skip(1) {
            if let Some(pair) = self.pair(&attempt.node_id, &record.model) {
                pair.details.retries += 1;
                pair.details.busy += u64::from(attempt.outcome.known() == Some(Outcome::Failed(Failure::Busy)));
            }
        }
        if let Some(asked) = named(&mut self.asked, &record.original_model) {
            asked.add(record);
        }
    }

    fn pair(&mut self, node: &str, model: &str) -> Option<&mut Work> {
        if node.is_empty() || model.is_empty() {
            return None;
        }
        if !self.pairs.get(node).is_some_and(|models| models.contains_key(model)) {
            if self.pairs_len >= NAMES {
                return None;
            }
            self.pairs_len += 1;
            self.pairs.entry(node.to_owned()).or_default().insert(model.to_owned(), Work::default());
        }
        self.pairs.get_mut(node)?.get_mut(model)
    }
}

fn named<'a, T: Default>(names: &'a mut HashMap<String, T>, name: &str) -> Option<&'a mut T> {
    if !names.contains_key(name) {
        if name.is_empty() || names.len() >= NAMES {
            return None;
        }
        names.insert(name.to_owned(), T::default());
    }
    names.get_mut(name)
}

/// Requests from before a restart, which are still of the last hour: the newest first, a little at a time.
#[derive(Debug)]
pub(super) struct Replay {
    /// Row from which on they are known.
    known_from: i64,
    /// How many more steps are made.
    steps_left: u32,
}

/// Rows in one step: some milliseconds.
const ROWS: i64 = 500;
/// Steps in all: 50,000 rows. A fleet that serves more in an hour tells within minutes what it is like.
const REPLAY_STEPS: u32 = 100;

impl Replay {
    /// All that are there now.
    pub(super) fn before_now(connection: &Connection) -> rusqlite::Result<Self> {
        let last: Option<i64> = connection.query_row("SELECT max(id) FROM request_traces", [], |row| row.get(0))?;
        Ok(Self { known_from: last.unwrap_or(0).saturating_add(1), steps_left: REPLAY_STEPS })
    }

    pub(super) fn is_over(&self) -> bool {
        self.steps_left == 0
    }

    /// The next of them, of the hour before `now_ms`.
    pub(super) fn step(&mut self, connection: &Connection, now_ms: u64) -> rusqlite::Result<Vec<RequestRecord>> {
        let seconds = |ms: u64| ms as f64 / 1_000.0;
        let (since, until) = (seconds(now_ms.saturating_sub(HOUR_MS)), seconds(now_ms.saturating_add(SLICE_MS)));
        let sql = format!(
            "SELECT {}, t.id FROM request_traces t \
             WHERE t.id < ?1 AND t.id >= ?2 AND t.timestamp >= ?3 AND t.timestamp <= ?4 AND t.superseded = 0",
            columns::listed("t")
        );
        let next = self.known_from.saturating_sub(ROWS);
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map((self.known_from, next, since, until), |row| {
            Ok((row.get::<_, i64>("id")?, columns::read(row)))
        })?;
        let mut records = Vec::new();
        for row in rows {
            let (id, mut record) = row?;
            if record.retry_count > 0 {
                record.attempts = attempts(connection, id)?;
            }
            records.push(record);
        }
        self.known_from = next;
        self.steps_left = if self.is_before(connection, since)? { 0 } else { self.steps_left.saturating_sub(1) };
        Ok(records)
    }

    /// Whether no row is left that could be of the hour: rows are in the order in which they were written, so that before
    /// those that were too old then are only older ones. A clock that was ahead for a while makes none of them old.
    fn is_before(&self, connection: &Connection, since: f64) -> rusqlite::Result<bool> {
        let sql = "SELECT count(*) FROM request_traces WHERE id < ?1 AND id >= ?2 AND timestamp >= ?3";
        let before = (self.known_from, self.known_from.saturating_sub(ROWS), since);
        connection.prepare_cached(sql)?.query_row(before, |row| row.get(0)).map(|rows: i64| rows == 0)
    }
}

/// The attempts of the request in row `id`, in order.
pub(super) fn attempts(connection: &Connection, id: i64) -> rusqlite::Result<Vec<AttemptRecord>> {
    let sql = "SELECT node_id, outcome, score, started_ms, duration_ms FROM request_attempts \
               WHERE trace_id = ?1 ORDER BY seq";
    let mut statement = connection.prepare_cached(sql)?;
    let attempts = statement.query_map([id], |row| {
        Ok(AttemptRecord {
            node_id: columns::get(row.get_ref(0)?).unwrap_or_default(),
            outcome: Recorded::parse(row.get_ref(1)?.as_str().unwrap_or_default()).unwrap_or(Outcome::Running.into()),
            score: columns::get(row.get_ref(2)?),
            started_ms: columns::get(row.get_ref(3)?),
            duration_ms: columns::get(row.get_ref(4)?),
        })
    })?;
    attempts.collect()
}
