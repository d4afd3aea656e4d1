//! One batch of records: rows, attempts, tags and roll-ups, in one transaction.

use std::collections::HashMap;

use herd_core::record::RequestRecord;
use rusqlite::{Connection, Statement};

use super::columns;
use super::rollup::{BY, CUBE, Cell, Grain, MINUTE_MS, MINUTES_KEPT_MS, upsert_sql};
use super::sieve::Sieve;
use super::to_db;
use super::vocabulary::{Dimension, OTHER, Vocabulary};

/// Rows of one statement.
const ROWS: usize = 16;

/// Writes batches.
#[derive(Debug)]
pub(super) struct BatchWriter {
    requests: Rows,
    attempts: Rows,
    tags: Rows,
    /// By [`Grain`].
    cube: [Option<String>; 3],
    by: [String; 3],
    vocabulary: Vocabulary,
    sieve: Sieve,
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

impl BatchWriter {
    pub(super) fn new() -> Self {
        Self {
            requests: Rows::new(&columns::insert_into(), columns::COLUMNS.len()),
            attempts: attempts(),
            tags: Rows::new("INSERT OR IGNORE INTO request_tags (tag, timestamp, trace_id)", 3),
            cube: Grain::ALL.map(|grain| Some(upsert_sql(grain.cube()?, &CUBE))),
            by: Grain::ALL.map(|grain| upsert_sql(grain.by(), &BY)),
            vocabulary: Vocabulary::default(),
            sieve: Sieve::default(),
        }
    }

    /// Writes `records`, all or none, at `now_ms` of the wall clock. Returns how many are counted in the roll-ups and have
    /// no row of their own.
    pub(super) fn write(
        &mut self,
        connection: &mut Connection,
        records: &[RequestRecord],
        now_ms: u64,
    ) -> rusqlite::Result<usize> {
        let before = self.sieve.clone();
        let transaction = connection.transaction()?;
        let written = self.rows(&transaction, records).and_then(|left_out| {
            self.add_up(&transaction, records, now_ms)?;
            Ok(left_out)
        });
        let written = written.and_then(|left_out| transaction.commit().map(|()| left_out));
        if written.is_err() {
            self.vocabulary.forget();
            self.sieve = before;
        }
        written
    }

    /// Forgets what it knew of the database, for when a transaction did not end well.
    pub(super) fn forget(&mut self) {
        self.vocabulary.forget();
    }

    /// Writes the rows of those of `records` that get one; returns how many do not.
    fn rows(&mut self, connection: &Connection, records: &[RequestRecord]) -> rusqlite::Result<usize> {
        let kept: Vec<&RequestRecord> = records.iter().filter(|record| self.sieve.keeps(record)).collect();
        in_rows(connection, &self.requests, kept.iter().copied(), columns::bind)?;
        // Rows of one transaction have ids in their order: nobody else writes meanwhile.
        let first = connection.last_insert_rowid() + 1 - i64::try_from(kept.len()).unwrap_or(0);
        let with_id = || (first..).zip(kept.iter().copied());
        let attempts =
            with_id().flat_map(|(id, record)| (0_i64..).zip(&record.attempts).map(move |(seq, one)| (id, seq, one)));
        in_rows(connection, &self.attempts, attempts, |statement, place, (id, seq, one)| {
            statement.raw_bind_parameter(place, id)?;
            statement.raw_bind_parameter(place + 1, seq)?;
            statement.raw_bind_parameter(place + 2, &one.node_id)?;
            statement.raw_bind_parameter(place + 3, one.outcome.name())?;
            statement.raw_bind_parameter(place + 4, one.score)?;
            statement.raw_bind_parameter(place + 5, one.started_ms)?;
            statement.raw_bind_parameter(place + 6, one.duration_ms)
        })?;
        let mut tags = Vec::new();
        for (id, record) in with_id() {
            let day = Grain::Daily.bucket(record.timestamp_ms);
            for tag in &record.tags {
                // Those that count as others are not looked for by name: each would cost the index a page of its own.
                if self.vocabulary.admit(connection, day, Dimension::Tag, tag)? != OTHER {
                    tags.push((id, record.timestamp_ms, tag));
                }
            }
        }
        in_rows(connection, &self.tags, tags.into_iter(), |statement, place, (id, timestamp_ms, tag)| {
            statement.raw_bind_parameter(place, tag)?;
            statement.raw_bind_parameter(place + 1, timestamp_ms as f64 / 1_000.0)?;
            statement.raw_bind_parameter(place + 2, id)
        })?;
        Ok(records.len() - kept.len())
    }

    /// Adds `records` to the roll-ups. Benchmarks are not usage.
    pub(super) fn add_up(
        &mut self,
        connection: &Connection,
        records: &[RequestRecord],
        now_ms: u64,
    ) -> rusqlite::Result<()> {
        let mut sums = Sums { recent_ms: now_ms.saturating_sub(MINUTES_KEPT_MS), ..Sums::default() };
        for (alike, cell) in self.group(connection, records.iter().filter(|record| !record.benchmark))? {
            self.sum(connection, &alike, &cell, &mut sums)?;
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

    /// The sums of `records` that are alike, in the order of the first of each: a request is in some twenty cells, and nearly
    /// all requests of a moment are in the same. Names that count as others are alike.
    fn group<'a>(
        &mut self,
        connection: &Connection,
        records: impl Iterator<Item = &'a RequestRecord>,
    ) -> rusqlite::Result<Vec<(Alike<'a>, Cell)>> {
        let mut groups: Vec<(Alike<'a>, Cell)> = Vec::new();
        let mut places = HashMap::new();
        for record in records {
            let alike = self.alike(connection, record)?;
            let known = places.get(&alike).copied();
            let place = known.unwrap_or(groups.len());
            if known.is_none() {
                places.insert(alike.clone(), place);
                groups.push((alike, Cell::default()));
            }
            groups[place].1.add(record);
        }
        Ok(groups)
    }

    fn alike<'a>(&mut self, connection: &Connection, record: &'a RequestRecord) -> rusqlite::Result<Alike<'a>> {
        let day = Grain::Daily.bucket(record.timestamp_ms);
        let mut admit = |dimension, name: &'a str| self.vocabulary.admit(connection, day, dimension, name);
        let mut tags: Vec<&'a str> = Vec::with_capacity(record.tags.len());
        for tag in &record.tags {
            let tag = admit(Dimension::Tag, tag)?;
            // The same tag twice, or two further ones, are one.
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        Ok(Alike {
            minute: Grain::Minutely.bucket(record.timestamp_ms),
            model: admit(Dimension::Model, &record.model)?,
            asked: admit(Dimension::Asked, &record.original_model)?,
            node: admit(Dimension::Node, &record.node_id)?,
            app: admit(Dimension::App, &record.app)?,
            surface: admit(Dimension::Surface, record.surface_name())?,
            key: if record.key_id.is_empty() { "" } else { admit(Dimension::Key, &record.key_id)? },
            tags,
        })
    }

    fn sum<'a>(
        &mut self,
        connection: &Connection,
        alike: &Alike<'a>,
        cell: &Cell,
        sums: &mut Sums<'a>,
    ) -> rusqlite::Result<()> {
        let began_ms = alike.minute * 1_000;
        let (day, hour) = (Grain::Daily.bucket(began_ms), Grain::Hourly.bucket(began_ms));
        let Alike { model, asked, node, app, surface, key, .. } = *alike;
        let mut values = vec![
            (Dimension::Total, "", ""),
            (Dimension::Model, model, ""),
            (Dimension::Asked, asked, ""),
            (Dimension::Node, node, ""),
            (Dimension::App, app, model),
            (Dimension::Surface, surface, ""),
            (Dimension::NodeModel, node, model),
        ];
        if !key.is_empty() {
            values.push((Dimension::Key, key, model));
        }
        values.extend(alike.tags.iter().map(|tag| (Dimension::Tag, *tag, model)));
        let [cube_model, cube_node, cube_app, cube_surface] =
            self.vocabulary.admit_combination(connection, day, [model, node, app, surface])?;
        sums.cube.entry((hour, cube_model, cube_node, cube_app, cube_surface)).or_default().merge(cell);
        let is_recent = began_ms.saturating_add(MINUTE_MS) > sums.recent_ms;
        for (dimension, value, second) in values {
            let (value, second) = self.vocabulary.admit_pair(connection, day, dimension, (value, second))?;
            sums.by.entry((dimension, hour, value, second)).or_default().merge(cell);
            if is_recent {
                let (value, second) = self.vocabulary.admit_to_minute(alike.minute, dimension, (value, second));
                sums.minutes.entry((dimension, alike.minute, value, second)).or_default().merge(cell);
            }
        }
        Ok(())
    }
}

/// What requests have in common that are in the same cells of every roll-up, by the names that the roll-ups know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Alike<'a> {
    /// Begin of the minute, Unix seconds.
    minute: u64,
    model: &'a str,
    asked: &'a str,
    node: &'a str,
    app: &'a str,
    surface: &'a str,
    /// Empty = none.
    key: &'a str,
    tags: Vec<&'a str>,
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

/// A statement that inserts many rows, and that for one.
#[derive(Debug)]
struct Rows {
    many: String,
    one: String,
    /// Parameters of a row.
    width: usize,
}

impl Rows {
    fn new(into: &str, width: usize) -> Self {
        let sql = |rows| format!("{into} VALUES {}", columns::places(rows, width));
        Self { many: sql(ROWS), one: sql(1), width }
    }
}

/// Statements that insert attempts of rows that are there.
fn attempts() -> Rows {
    let into = "INSERT INTO request_attempts (trace_id, seq, node_id, outcome, score, started_ms, duration_ms)";
    Rows::new(into, 7)
}

/// The statement that inserts one attempt.
pub(super) fn insert_attempt() -> String {
    attempts().one
}

/// Inserts `items`, as many as there are in one statement; `bind` binds one from a parameter on.
fn in_rows<T: Copy>(
    connection: &Connection,
    rows: &Rows,
    items: impl Iterator<Item = T>,
    mut bind: impl FnMut(&mut Statement<'_>, usize, T) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let items: Vec<T> = items.collect();
    let (many, few) = items.as_chunks::<ROWS>();
    for items in many.iter().map(|many| &many[..]).chain(few.chunks(1)) {
        let sql = if items.len() == ROWS { &rows.many } else { &rows.one };
        let mut statement = connection.prepare_cached(sql)?;
        for (at, item) in items.iter().enumerate() {
            bind(&mut statement, 1 + at * rows.width, *item)?;
        }
        statement.raw_execute()?;
    }
    Ok(())
}
