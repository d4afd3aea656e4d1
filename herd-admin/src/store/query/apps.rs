//! Requests by application, and by tag.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::Serialize;

use super::cells::{Values, Wanted, by};
use super::{ROWS, Range, Summary};
use crate::store::rollup::{Cell, Grain};
use crate::store::vocabulary::Dimension;
use crate::store::{StoreError, StoreHandle};

/// Requests by application and by tag.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Apps {
    /// The range, in whole hours.
    pub range: Range,
    /// Applications, the most active first. Each request has one, so that they add up to all requests.
    pub apps: Vec<AppUsage>,
    /// Tags, the most used first. A request with three counts in three of them, and one without in none.
    pub tags: Vec<TagUsage>,
}

/// One application in a range.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AppUsage {
    /// The application; empty = not known.
    pub app: String,
    /// Its requests.
    #[serde(flatten)]
    pub summary: Summary,
}

/// One tag in a range.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TagUsage {
    /// The tag.
    pub tag: String,
    /// The requests that have it.
    #[serde(flatten)]
    pub summary: Summary,
}

/// One application on one day.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AppDay {
    /// The application; empty = not known.
    pub app: String,
    /// The day's begin in UTC, Unix seconds.
    pub day_bucket: u64,
    /// Its requests.
    #[serde(flatten)]
    pub summary: Summary,
}

impl StoreHandle {
    /// The requests of `range` by application, and by tag.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn apps(&self, range: Range) -> Result<Apps, StoreError> {
        self.read(move |connection| {
            let apps = ranked(sums(connection, range, Dimension::App)?);
            let tags = ranked(sums(connection, range, Dimension::Tag)?);
            Ok(Apps {
                range,
                apps: apps.map(|(app, summary)| AppUsage { app, summary }).collect(),
                tags: tags.map(|(tag, summary)| TagUsage { tag, summary }).collect(),
            })
        })
        .await
    }

    /// The requests of `range` by application and day, in order of days; so many as an answer holds.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn apps_daily(&self, range: Range) -> Result<Vec<AppDay>, StoreError> {
        self.read(move |connection| {
            let days = by(connection, Wanted::sums(range), Values::all(Dimension::App), |bucket, app, _| {
                (Grain::Daily.bucket(bucket * 1_000), app.to_owned())
            })?;
            let days = days.into_iter().take(ROWS);
            Ok(days.map(|((day_bucket, app), cell)| AppDay { app, day_bucket, summary: Summary::of(&cell) }).collect())
        })
        .await
    }
}

fn sums(connection: &Connection, range: Range, dimension: Dimension) -> Result<BTreeMap<String, Cell>, StoreError> {
    by(connection, Wanted::sums(range), Values::all(dimension), |_, value, _| value.to_owned())
}

/// The most requests first, then by name.
fn ranked(sums: BTreeMap<String, Cell>) -> impl Iterator<Item = (String, Summary)> {
    let mut ranked: Vec<_> = sums.into_iter().map(|(name, cell)| (name, Summary::of(&cell))).collect();
    ranked.sort_by_key(|(_, summary)| std::cmp::Reverse(summary.requests));
    ranked.into_iter().take(ROWS)
}
