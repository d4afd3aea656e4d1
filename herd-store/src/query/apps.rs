//! Requests by application, by tag and by API key.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::Serialize;

use super::cells::{Values, Wanted, by};
use super::{ROWS, Range, Summary};
use crate::rollup::{Cell, Count, Grain};
use crate::vocabulary::Dimension;
use crate::{StoreError, StoreHandle};

/// Models that are told of each.
const TOP_MODELS: usize = 8;

/// Requests by application, by tag and by API key.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Apps {
    /// The range.
    pub range: Range,
    /// Applications, the most active first. Each request has one, so that they add up to all requests.
    pub apps: Vec<Asker>,
    /// Tags, the most used first. A request with three counts in three of them, and one without in none.
    pub tags: Vec<Asker>,
    /// API keys, the most used first. A request without one counts in none.
    pub keys: Vec<Asker>,
}

/// One application, tag or API key in a range.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Asker {
    /// The application (empty = not known), the tag, or the key's id.
    pub name: String,
    /// Its requests.
    #[serde(flatten)]
    pub summary: Summary,
    /// The models that it asks for most, eight at the most.
    pub top_models: Vec<ModelShare>,
}

/// What one model has of somebody's requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelShare {
    /// The model.
    pub model: String,
    /// Requests that it served.
    pub requests: u64,
    /// Tokens that it wrote for them.
    pub completion_tokens: u64,
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
    /// The requests of `range` by application, by tag and by API key.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn apps(&self, range: Range) -> Result<Apps, StoreError> {
        self.read(move |connection| {
            let [apps, tags, keys] =
                [Dimension::App, Dimension::Tag, Dimension::Key].map(|dimension| askers(connection, range, dimension));
            Ok(Apps { range, apps: apps?, tags: tags?, keys: keys? })
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

/// The most requests first, then by name.
fn askers(connection: &Connection, range: Range, dimension: Dimension) -> Result<Vec<Asker>, StoreError> {
    let sums = by(connection, Wanted::sums(range), Values::all(dimension), |_, name, model| {
        (name.to_owned(), model.to_owned())
    })?;
    let mut askers = BTreeMap::<String, (Cell, Vec<ModelShare>)>::new();
    for ((name, model), cell) in sums {
        let (all, models) = askers.entry(name).or_default();
        all.merge(&cell);
        // Older sums do not know the model.
        if !model.is_empty() {
            let (requests, completion_tokens) = (cell.count(Count::Requests), cell.count(Count::CompletionTokens));
            models.push(ModelShare { model, requests, completion_tokens });
        }
    }
    let mut askers: Vec<_> = askers
        .into_iter()
        .map(|(name, (cell, mut top_models))| {
            top_models.sort_by_key(|one| Reverse(one.requests));
            top_models.truncate(TOP_MODELS);
            Asker { name, summary: Summary::of(&cell), top_models }
        })
        .collect();
    askers.sort_by_key(|one| Reverse(one.summary.requests));
    askers.truncate(ROWS);
    Ok(askers)
}
