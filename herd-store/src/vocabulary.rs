//! Which names the roll-ups know, so that a client that invents names cannot make them as long as the rows.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::rollup::{BY, Grain};

/// Names of one dimension in one day. Further ones count as [`OTHER`] until the day is over.
pub(super) const NAMES: usize = 512;
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

/// The names that were met in each of the last days.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    known: HashMap<(u64, Dimension), HashSet<String>>,
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
        let key = (day, dimension);
        if !self.known.contains_key(&key) {
            if self.known.len() >= DAYS * Dimension::ALL.len() {
                self.known.clear();
            }
            self.known.insert(key, stored(connection, day, dimension)?);
        }
        let known = self.known.entry(key).or_default();
        if known.contains(name) {
            return Ok(name);
        }
        if known.len() >= NAMES {
            return Ok(OTHER);
        }
        known.insert(name.to_owned());
        Ok(name)
    }

    /// Forgets all, for when a transaction that used it did not end well.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

/// What the roll-ups have of that day already.
fn stored(connection: &Connection, day: u64, dimension: Dimension) -> rusqlite::Result<HashSet<String>> {
    let [by, bucket, value, _] = BY;
    let table = Grain::Daily.by();
    let sql = format!("SELECT {value} FROM {table} WHERE {by} = ?1 AND {bucket} = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let names = statement.query_map((dimension.name(), super::to_db(day)), |row| row.get(0))?;
    names.collect()
}
