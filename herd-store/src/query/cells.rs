//! Reads the cells of a range: whole days from the daily roll-ups, the hours at its ends from the hourly ones, and the
//! minutes at the ends of those from the ones by the minute.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::Range;
use crate::rollup::{Cell, Grain, columns};
use crate::vocabulary::Dimension;
use crate::{StoreError, from_db, to_db};

/// A part of a range that one table holds: its grain, and from and to before which second.
type Part = (Grain, u64, u64);

/// How fine the buckets have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fineness {
    /// Minutes.
    Minutes,
    /// Hours where the range has whole ones.
    Hours,
    /// Days where it has whole ones.
    Days,
}

impl Range {
    fn parts(self, fineness: Fineness) -> Vec<Part> {
        let grains: &[Grain] = match fineness {
            Fineness::Minutes => &[Grain::Minutely],
            Fineness::Hours => &[Grain::Hourly, Grain::Minutely],
            Fineness::Days => &[Grain::Daily, Grain::Hourly, Grain::Minutely],
        };
        split((self.from_ms / 1_000, self.to_ms / 1_000), grains)
    }
}

/// The stretch from `from` to before `to`, Unix seconds, in the coarsest of `grains` where it has whole buckets of it.
fn split((from, to): (u64, u64), grains: &[Grain]) -> Vec<Part> {
    let Some((grain, finer)) = grains.split_first().filter(|_| from < to) else { return Vec::new() };
    if finer.is_empty() {
        return vec![(*grain, from, to)];
    }
    let width = grain.width_ms() / 1_000;
    let (first, last) = (from.next_multiple_of(width), to - to % width);
    if first >= last {
        return split((from, to), finer);
    }
    let mut parts = split((from, first), finer);
    parts.push((*grain, first, last));
    parts.extend(split((last, to), finer));
    parts
}

/// What to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) range: Range,
    pub(super) fineness: Fineness,
}

impl Wanted {
    /// A range for its sums.
    pub(super) fn sums(range: Range) -> Self {
        Self { range, fineness: Fineness::Days }
    }
}

/// Of which values: of one dimension, all of them or one; where it has the model beside it, of one model or all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    dimension: Dimension,
    only: Option<(&'a str, Option<&'a str>)>,
}

impl<'a> Values<'a> {
    pub(super) fn all(dimension: Dimension) -> Self {
        Self { dimension, only: None }
    }

    pub(super) fn one(dimension: Dimension, value: &'a str) -> Self {
        Self { dimension, only: Some((value, None)) }
    }

    /// Of one value with one model.
    pub(super) fn pair(dimension: Dimension, value: &'a str, model: &'a str) -> Self {
        Self { dimension, only: Some((value, Some(model))) }
    }
}

/// Sums `values` by what `key` makes of a bucket (Unix seconds), a value and its second part.
pub(super) fn by<K: Ord>(
    connection: &Connection,
    wanted: Wanted,
    values: Values<'_>,
    key: impl Fn(u64, &str, &str) -> K,
) -> Result<BTreeMap<K, Cell>, StoreError> {
    let mut sums = BTreeMap::new();
    for (grain, from, to) in wanted.range.parts(wanted.fineness) {
        let which = match values.only {
            None => "",
            Some((_, None)) => "AND value = ?4",
            Some((_, Some(_))) => "AND value = ?4 AND second = ?5",
        };
        let sql = format!(
            "SELECT bucket, value, second, {} FROM {} WHERE dimension = ?1 AND bucket >= ?2 AND bucket < ?3 {which}",
            columns(),
            grain.by()
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let (dimension, from, to) = (values.dimension.name(), to_db(from), to_db(to));
        let mut rows = match values.only {
            Some((value, Some(second))) => statement.query((dimension, from, to, value, second))?,
            Some((value, None)) => statement.query((dimension, from, to, value))?,
            None => statement.query((dimension, from, to))?,
        };
        while let Some(row) = rows.next()? {
            let name = |at| row.get_ref(at).ok().and_then(|name| name.as_str().ok()).unwrap_or_default();
            let key = key(from_db(row.get(0)?), name(1), name(2));
            sums.entry(key).or_insert_with(Cell::default).merge_row(row, 3)?;
        }
    }
    Ok(sums)
}

/// Model, node, app and surface.
pub(super) type Names<T> = [T; 4];

/// The same over all dimensions at once, for those requests that have the names of `only`. It reads a row for each
/// combination of names in each bucket.
pub(super) fn cube<K: Ord>(
    connection: &Connection,
    wanted: Wanted,
    only: Names<Option<&str>>,
    key: impl Fn(u64, Names<&str>) -> K,
) -> Result<BTreeMap<K, Cell>, StoreError> {
    let mut sums = BTreeMap::new();
    for (grain, from, to) in wanted.range.parts(wanted.fineness) {
        // Minutes are not kept so: a range for this is one of whole hours.
        let Some(table) = grain.cube() else { continue };
        let sql = format!(
            "SELECT bucket, model, node_id, app, surface, {} FROM {table} WHERE bucket >= ?1 AND bucket < ?2 \
             AND (?3 IS NULL OR model = ?3) AND (?4 IS NULL OR node_id = ?4) \
             AND (?5 IS NULL OR app = ?5) AND (?6 IS NULL OR surface = ?6)",
            columns()
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let [model, node, app, surface] = only;
        let mut rows = statement.query((to_db(from), to_db(to), model, node, app, surface))?;
        while let Some(row) = rows.next()? {
            let name = |at| row.get_ref(at).ok().and_then(|name| name.as_str().ok()).unwrap_or_default();
            let key = key(from_db(row.get(0)?), [1, 2, 3, 4].map(name));
            sums.entry(key).or_insert_with(Cell::default).merge_row(row, 5)?;
        }
    }
    Ok(sums)
}
