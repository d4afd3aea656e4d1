//! Which names, and which combinations of them, the roll-ups know: a client that invents names cannot make them as long as
//! the rows, and neither can many users of many models on many nodes.
//!
//! What is beyond a limit counts as [`OTHER`] until the day is over. Of a pair the second name is given up first, so that the
//! sums of the first stay exact.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Row};

use super::rollup::{BY, CUBE, Grain};

/// Names of one dimension in one day. Further ones count as [`OTHER`] until the day is over.
pub(super) const NAMES: usize = 512;
/// Pairs of names of one dimension in one day, as of users and their models. Further ones count as the first name with
/// [`OTHER`].
pub(super) const PAIRS: usize = 2_048;
/// Combinations of model, node, application and surface in one day. Of further ones the application counts as [`OTHER`],
/// then the node too, then all.
pub(super) const COMBINATIONS: usize = 1_024;
/// Cells of one dimension in one minute.
pub(super) const MINUTE_CELLS: usize = 256;
/// Minutes whose cells are remembered: records come in the order of time, but for a few seconds.
const MINUTES: usize = 8;
/// What further names count as.
pub(super) const OTHER: &str = "(other)";
/// Days that are remembered at a time: today's, and those of a backfill.
const DAYS: usize = 4;

/// A dimension of the `_by` tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Dimension {
    /// All requests together; its only value is empty.
    Total,
    /// The model that served, or was asked for where none did.
    Model,
    /// The name that clients asked for.
    Asked,
    Node,
    /// With the model.
    App,
    Surface,
    /// With the model.
    Tag,
    /// Node and model together.
    NodeModel,
    /// API keys, with the model.
    Key,
}

impl Dimension {
    pub(super) const ALL: [Self; 9] = [
        Self::Total,
        Self::Model,
        Self::Asked,
        Self::Node,
        Self::App,
        Self::Surface,
        Self::Tag,
        Self::NodeModel,
        Self::Key,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Model => "model",
            Self::Asked => "asked",
            Self::Node => "node",
            Self::App => "app",
            Self::Surface => "surface",
            Self::Tag => "tag",
            Self::NodeModel => "node_model",
            Self::Key => "key",
        }
    }
}

/// A combination of model, node, application and surface.
pub(super) type Combination<'a> = [&'a str; 4];

/// The names and combinations that were met in each of the last days.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    known: HashMap<(u64, Dimension), HashSet<String>>,
    pairs: HashMap<(u64, Dimension), HashSet<String>>,
    combinations: HashMap<u64, HashSet<String>>,
    minutes: HashMap<u64, HashMap<Dimension, HashSet<String>>>,
}

impl Vocabulary {
    /// `name` as it counts in the day `day`: itself, or [`OTHER`] when there are too many.
    pub(super) fn admit<'a>(
        &mut self,
        connection: &Connection,
        day: u64,
        dimension: Dimension,
        name: &'a str,
    ) -> rusqlite::Result<&'a str> {
        let known = loaded(&mut self.known, (day, dimension), DAYS * Dimension::ALL.len(), || {
            stored(connection, day, dimension)
        })?;
        Ok(if admits(known, name, NAMES) { name } else { OTHER })
    }

    /// The pair of names as it counts in the day `day`.
    pub(super) fn admit_pair<'a>(
        &mut self,
        connection: &Connection,
        day: u64,
        dimension: Dimension,
        (value, second): (&'a str, &'a str),
    ) -> rusqlite::Result<(&'a str, &'a str)> {
        if second.is_empty() || second == OTHER {
            return Ok((value, second));
        }
        let most = DAYS * Dimension::ALL.len();
        let known = loaded(&mut self.pairs, (day, dimension), most, || stored_pairs(connection, day, dimension))?;
        Ok((value, if admits(known, &key(&[value, second]), PAIRS) { second } else { OTHER }))
    }

    /// The combination as it counts in the day `day`.
    pub(super) fn admit_combination<'a>(
        &mut self,
        connection: &Connection,
        day: u64,
        [model, node, app, surface]: Combination<'a>,
    ) -> rusqlite::Result<Combination<'a>> {
        let known = loaded(&mut self.combinations, day, DAYS, || stored_combinations(connection, day))?;
        let ladder = [
            ([model, node, app, surface], COMBINATIONS),
            ([model, node, OTHER, surface], COMBINATIONS + COMBINATIONS / 2),
            ([model, OTHER, OTHER, surface], COMBINATIONS * 2),
        ];
        let fits = ladder.into_iter().find(|(names, most)| admits(known, &key(names), *most));
        Ok(fits.map_or([OTHER; 4], |(names, _)| names))
    }

    /// The pair of names as it counts in the minute `minute`: fewer are told apart than in a day.
    pub(super) fn admit_to_minute<'a>(
        &mut self,
        minute: u64,
        dimension: Dimension,
        (value, second): (&'a str, &'a str),
    ) -> (&'a str, &'a str) {
        if !self.minutes.contains_key(&minute) && self.minutes.len() >= MINUTES {
            let oldest = self.minutes.keys().min().copied().unwrap_or_default();
            self.minutes.remove(&oldest);
        }
        let known = self.minutes.entry(minute).or_default().entry(dimension).or_default();
        if admits(known, &key(&[value, second]), MINUTE_CELLS) { (value, second) } else { (OTHER, OTHER) }
    }

    /// Forgets all, for when a transaction that used it did not end well.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Names side by side: no name has the separator in it that could make two of one.
fn key(names: &[&str]) -> String {
    names.join("\u{1f}")
}

/// Whether `name` is known, or there is room for it, so that it is from now on.
fn admits(known: &mut HashSet<String>, name: &str, most: usize) -> bool {
    if known.contains(name) {
        return true;
    }
    known.len() < most && known.insert(name.to_owned())
}

/// What is known under `key`, read by `read` the first time. When there are `most`, all are forgotten and read again.
fn loaded<K: Eq + std::hash::Hash>(
    all: &mut HashMap<K, HashSet<String>>,
    key: K,
    most: usize,
    read: impl FnOnce() -> rusqlite::Result<HashSet<String>>,
) -> rusqlite::Result<&mut HashSet<String>> {
    if !all.contains_key(&key) {
        if all.len() >= most {
            all.clear();
        }
        let known = read()?;
        return Ok(all.entry(key).or_insert(known));
    }
    Ok(all.entry(key).or_default())
}

/// What the roll-ups have of that day already.
fn stored(connection: &Connection, day: u64, dimension: Dimension) -> rusqlite::Result<HashSet<String>> {
    let [by, bucket, value, _] = BY;
    let sql = format!("SELECT DISTINCT {value} FROM {} WHERE {by} = ?1 AND {bucket} = ?2", Grain::Daily.by());
    let mut statement = connection.prepare_cached(&sql)?;
    let names = statement.query_map((dimension.name(), super::to_db(day)), |row| row.get(0))?;
    names.collect()
}

fn stored_pairs(connection: &Connection, day: u64, dimension: Dimension) -> rusqlite::Result<HashSet<String>> {
    let [by, bucket, value, second] = BY;
    let table = Grain::Daily.by();
    let sql = format!("SELECT {value}, {second} FROM {table} WHERE {by} = ?1 AND {bucket} = ?2 AND {second} <> ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let names = statement.query_map((dimension.name(), super::to_db(day), OTHER), |row| texts(row, 2))?;
    names.collect()
}

fn stored_combinations(connection: &Connection, day: u64) -> rusqlite::Result<HashSet<String>> {
    let [bucket, names @ ..] = CUBE;
    let Some(table) = Grain::Daily.cube() else { return Ok(HashSet::new()) };
    let sql = format!("SELECT {} FROM {table} WHERE {bucket} = ?1", names.join(", "));
    let mut statement = connection.prepare_cached(&sql)?;
    let names = statement.query_map([super::to_db(day)], |row| texts(row, names.len()))?;
    names.collect()
}

fn texts(row: &Row<'_>, columns: usize) -> rusqlite::Result<String> {
    let names: Vec<String> = (0..columns).map(|at| row.get(at)).collect::<rusqlite::Result<_>>()?;
    Ok(key(&names.iter().map(String::as_str).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file;

    #[test]
    fn few_days_are_remembered_at_a_time() {
        let connection = file::in_memory().unwrap();
        let mut vocabulary = Vocabulary::default();
        for day in 0..100 {
            vocabulary.admit_combination(&connection, day, ["m", "n", "a", "s"]).unwrap();
            for dimension in Dimension::ALL {
                vocabulary.admit(&connection, day, dimension, "m").unwrap();
                vocabulary.admit_pair(&connection, day, dimension, ("m", "n")).unwrap();
            }
            let most = DAYS * Dimension::ALL.len();
            assert!(vocabulary.combinations.len() <= DAYS, "{} days", vocabulary.combinations.len());
            assert!(vocabulary.known.len() <= most && vocabulary.pairs.len() <= most);
        }
    }
}
