//! One batch of records: rows, attempts, tags and roll-ups, in one transaction.

use std::collections::HashMap;

use rusqlite::{Connection, Statement};

use super::columns;
use super::record::TraceRecord;
use super::rollup::{BY, CUBE, Cell, Grain, MINUTES_KEPT_MS, upsert_sql};
use super::to_db;
use super::vocabulary::{Dimension, Vocabulary};

/// Writes batches.
#[derive(Debug)]
pub(super) struct Scribe {
    insert: String,
    /// By [`Grain`].
    cube: [Option<String>; 3],
    by: [String; 3],
    vocabulary: Vocabulary,
}

/// Hour, model, node, app, surface.
type CubeKey<'a> = (u64, &'a str, &'a str, &'a str, &'a str);
/// Dimension, begin in Unix seconds, value, second value.
type ByKey<'a> = (Dimension, u64, &'a str, &'a str);

/// What a batch adds, by hour. A day's cells get the same.
#[derive(Default)]
struct Sums<'a> {
    cube: HashMap<CubeKey<'a>, Cell>,
    by: HashMap<ByKey<'a>, Cell>,
    /// By minute, of those that are recent.
    minutes: HashMap<ByKey<'a>, Cell>,
    /// From when on they are, Unix milliseconds.
    recent_ms: u64,
}

impl Scribe {
    pub(super) fn new() -> Self {
        Self {
            insert: columns::insert_sql(),
            cube: Grain::ALL.map(|grain| Some(upsert_sql(grain.cube()?, &CUBE))),
            by: Grain::ALL.map(|grain| upsert_sql(grain.by(), &BY)),
            vocabulary: Vocabulary::default(),
        }
    }

    /// Writes `records`, all or none.
    pub(super) fn write(&mut self, connection: &mut Connection, records: &[TraceRecord]) -> rusqlite::Result<()> {
        let transaction = connection.transaction()?;
        let written = self.rows(&transaction, records).and_then(|()| self.add_up(&transaction, records));
        match written.and_then(|()| transaction.commit()) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.vocabulary.forget();
                Err(error)
            }
        }
    }

    /// Forgets what it knew of the database, for when a transaction did not end well.
    pub(super) fn forget(&mut self) {
        self.vocabulary.forget();
    }

    fn rows(&self, connection: &Connection, records: &[TraceRecord]) -> rusqlite::Result<()> {
        let mut row = connection.prepare_cached(&self.insert)?;
        let mut attempt = connection.prepare_cached(INSERT_ATTEMPT)?;
        let mut tag = connection.prepare_cached(INSERT_TAG)?;
        for record in records {
            columns::insert(&mut row, record)?;
            let id = connection.last_insert_rowid();
            for (seq, one) in (0_i64..).zip(&record.attempts) {
                attempt.execute((id, seq, &one.node_id, &one.outcome, one.score, one.started_ms, one.duration_ms))?;
            }
            for one in &record.tags {
                tag.execute((one, record.timestamp_ms as f64 / 1_000.0, id))?;
            }
        }
        Ok(())
    }

    /// Adds `records` to the roll-ups. Benchmarks are not usage.
    pub(super) fn add_up(&mut self, connection: &Connection, records: &[TraceRecord]) -> rusqlite::Result<()> {
        let mut sums = Sums { recent_ms: crate::state::unix_ms().saturating_sub(MINUTES_KEPT_MS), ..Sums::default() };
        for record in records.iter().filter(|record| !record.benchmark) {
            self.sum(connection, record, &mut sums)?;
        }
        for (at, grain) in Grain::ALL.into_iter().enumerate() {
            if let Some(sql) = &self.cube[at] {
                add_to_cube(&mut *connection.prepare_cached(sql)?, grain, &sums.cube)?;
            }
            let by = if grain == Grain::Minutely { &sums.minutes } else { &sums.by };
            add_to_by(&mut *connection.prepare_cached(&self.by[at])?, grain, by)?;
        }
        Ok(())
    }

    fn sum<'a>(
        &mut self,
        connection: &Connection,
        record: &'a TraceRecord,
        sums: &mut Sums<'a>,
    ) -> rusqlite::Result<()> {
        let day = Grain::Daily.bucket(record.timestamp_ms);
        let hour = Grain::Hourly.bucket(record.timestamp_ms);
        let mut admit = |dimension, name| self.vocabulary.admit(connection, day, dimension, name);
        let model = admit(Dimension::Model, &record.model)?;
        let asked = admit(Dimension::Asked, &record.original_model)?;
        let node = admit(Dimension::Node, &record.node_id)?;
        let app = admit(Dimension::App, &record.app)?;
        let surface = admit(Dimension::Surface, &record.original_format)?;
        let mut values = vec![
            (Dimension::Total, "", ""),
            (Dimension::Model, model, ""),
            (Dimension::Asked, asked, ""),
            (Dimension::Node, node, ""),
            (Dimension::App, app, model),
            (Dimension::Surface, surface, ""),
            (Dimension::NodeModel, node, model),
        ];
        if !record.key_id.is_empty() {
            values.push((Dimension::Key, admit(Dimension::Key, &record.key_id)?, model));
        }
        for tag in &record.tags {
            let tag = (Dimension::Tag, admit(Dimension::Tag, tag)?, model);
            // The same tag twice, or two further ones, are one.
            if !values.contains(&tag) {
                values.push(tag);
            }
        }
        sums.cube.entry((hour, model, node, app, surface)).or_default().add(record);
        let minute = (record.timestamp_ms >= sums.recent_ms).then(|| Grain::Minutely.bucket(record.timestamp_ms));
        for (dimension, value, second) in values {
            sums.by.entry((dimension, hour, value, second)).or_default().add(record);
            if let Some(minute) = minute {
                sums.minutes.entry((dimension, minute, value, second)).or_default().add(record);
            }
        }
        Ok(())
    }
}

fn add_to_cube(
    statement: &mut Statement<'_>,
    grain: Grain,
    cells: &HashMap<CubeKey<'_>, Cell>,
) -> rusqlite::Result<()> {
    for ((hour, model, node, app, surface), cell) in cells {
        statement.raw_bind_parameter(1, bucket(grain, *hour))?;
        for (place, name) in (2..).zip([model, node, app, surface]) {
            statement.raw_bind_parameter(place, name)?;
        }
        cell.upsert(statement, 6)?;
    }
    Ok(())
}

fn add_to_by(statement: &mut Statement<'_>, grain: Grain, cells: &HashMap<ByKey<'_>, Cell>) -> rusqlite::Result<()> {
    for ((dimension, begin, value, second), cell) in cells {
        statement.raw_bind_parameter(1, dimension.name())?;
        statement.raw_bind_parameter(2, bucket(grain, *begin))?;
        statement.raw_bind_parameter(3, value)?;
        statement.raw_bind_parameter(4, second)?;
        cell.upsert(statement, 5)?;
    }
    Ok(())
}

fn bucket(grain: Grain, begin: u64) -> i64 {
    to_db(grain.bucket(begin * 1_000))
}

pub(super) const INSERT_ATTEMPT: &str = "INSERT INTO request_attempts \
    (trace_id, seq, node_id, outcome, score, started_ms, duration_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const INSERT_TAG: &str = "INSERT OR IGNORE INTO request_tags (tag, timestamp, trace_id) VALUES (?1, ?2, ?3)";
