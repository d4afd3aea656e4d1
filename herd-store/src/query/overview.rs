//! All requests of a range, and the same by model.

use rusqlite::Connection;
use serde::Serialize;

use super::cells::{Values, Wanted, by};
use super::{ROWS, Range, Summary};
use crate::rollup::{Cell, Grain};
use crate::vocabulary::Dimension;
use crate::{StoreError, StoreHandle};

/// All requests of a range.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    /// The range, in whole hours.
    pub range: Range,
    /// The requests.
    #[serde(flatten)]
    pub summary: Summary,
    /// Models that served or were asked for.
    pub models_count: usize,
    /// Nodes that were asked.
    pub nodes_count: usize,
    /// Applications.
    pub apps_count: usize,
}

/// Requests by model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Models {
    /// The range, in whole hours.
    pub range: Range,
    /// The models, the most used first.
    pub models: Vec<ModelUsage>,
    /// The same by day, in order of days.
    pub daily: Vec<ModelDay>,
    /// There are more days than an answer holds.
    pub truncated: bool,
}

/// One model in a range.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelUsage {
    /// The model.
    pub model: String,
    /// Its requests.
    #[serde(flatten)]
    pub summary: Summary,
}

/// One model on one day.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelDay {
    /// The model.
    pub model: String,
    /// The day's begin in UTC, Unix seconds.
    pub day_bucket: u64,
    /// Its requests.
    #[serde(flatten)]
    pub summary: Summary,
}

impl StoreHandle {
    /// All requests of `range`.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn overview(&self, range: Range) -> Result<Overview, StoreError> {
        self.read(move |connection| overview(connection, range)).await
    }

    /// The requests of `range` by model.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn models(&self, range: Range) -> Result<Models, StoreError> {
        self.read(move |connection| models(connection, range)).await
    }
}

fn overview(connection: &Connection, range: Range) -> Result<Overview, StoreError> {
    let wanted = Wanted::sums(range);
    let mut total = by(connection, wanted, Values::all(Dimension::Total), |_, _, _| ())?;
    let count = |dimension| -> Result<usize, StoreError> {
        let values = by(connection, wanted, Values::all(dimension), |_, value, _| value.to_owned())?;
        Ok(values.keys().filter(|value| !value.is_empty()).count())
    };
    Ok(Overview {
        range,
        summary: Summary::of(&total.remove(&()).unwrap_or_default()),
        models_count: count(Dimension::Model)?,
        nodes_count: count(Dimension::Node)?,
        apps_count: count(Dimension::App)?,
    })
}

fn models(connection: &Connection, range: Range) -> Result<Models, StoreError> {
    let days = by(connection, Wanted::sums(range), Values::all(Dimension::Model), |bucket, model, _| {
        (Grain::Daily.bucket(bucket * 1_000), model.to_owned())
    })?;
    let mut sums = std::collections::BTreeMap::<&str, Cell>::new();
    for ((_, model), cell) in &days {
        sums.entry(model).or_default().merge(cell);
    }
    let mut models: Vec<_> = sums
        .into_iter()
        .map(|(model, cell)| ModelUsage { model: model.to_owned(), summary: Summary::of(&cell) })
        .collect();
    models.sort_by(|a, b| b.summary.requests.cmp(&a.summary.requests).then_with(|| a.model.cmp(&b.model)));
    let truncated = days.len() > ROWS;
    let daily = days.into_iter().take(ROWS);
    let daily =
        daily.map(|((day_bucket, model), cell)| ModelDay { model, day_bucket, summary: Summary::of(&cell) }).collect();
    Ok(Models { range, models, daily, truncated })
}
