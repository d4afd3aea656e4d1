//! Who used what.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::cells::{Names, Values, Wanted, by};
use super::{ROWS, Range, Summary};
use crate::rollup::{Cell, Grain};
use crate::vocabulary::Dimension;
use crate::{StoreError, StoreHandle};

/// By what requests are added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// By node.
    Node,
    /// By model.
    Model,
    /// By application.
    App,
    /// By surface.
    Surface,
    /// By day.
    Day,
    /// By node and model.
    NodeModel,
    /// By node, model and day, as ollama-herd does.
    #[default]
    NodeModelDay,
}

/// Requests of a range in groups.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Usage {
    /// The range, in whole hours.
    pub range: Range,
    /// By what.
    pub group_by: GroupBy,
    /// The groups: the newest day first, then the most requests.
    pub data: Vec<UsageRow>,
    /// There are more groups than an answer holds.
    pub truncated: bool,
}

/// One group; what it is not grouped by is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UsageRow {
    /// The day's begin in UTC, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day_bucket: Option<u64>,
    /// The node; empty = none was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The application; empty = not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The surface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_format: Option<String>,
    /// The requests.
    #[serde(flatten)]
    pub summary: Summary,
}

impl StoreHandle {
    /// The requests of `range` in groups.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn usage(&self, group_by: GroupBy, range: Range) -> Result<Usage, StoreError> {
        self.read(move |connection| usage(connection, group_by, range)).await
    }
}

/// Day, node, model, app, surface.
type Key = (Option<u64>, Names<Option<String>>);

fn usage(connection: &Connection, group_by: GroupBy, range: Range) -> Result<Usage, StoreError> {
    let day = |bucket: u64| Some(Grain::Daily.bucket(bucket * 1_000));
    let own = |name: &str| Some(name.to_owned());
    let dimension = match group_by {
        GroupBy::Node => Dimension::Node,
        GroupBy::Model => Dimension::Model,
        GroupBy::App => Dimension::App,
        GroupBy::Surface => Dimension::Surface,
        GroupBy::Day => Dimension::Total,
        GroupBy::NodeModel | GroupBy::NodeModelDay => Dimension::NodeModel,
    };
    let key = |bucket, value: &str, second: &str| match group_by {
        GroupBy::Node => (None, [own(value), None, None, None]),
        GroupBy::Model => (None, [None, own(value), None, None]),
        GroupBy::App => (None, [None, None, own(value), None]),
        GroupBy::Surface => (None, [None, None, None, own(value)]),
        GroupBy::Day => (day(bucket), [const { None }; 4]),
        GroupBy::NodeModel => (None, [own(value), own(second), None, None]),
        GroupBy::NodeModelDay => (day(bucket), [own(value), own(second), None, None]),
    };
    let sums = by(connection, Wanted::sums(range), Values::all(dimension), key)?;
    let truncated = sums.len() > ROWS;
    let mut data: Vec<_> = sums.into_iter().map(row).collect();
    data.sort_by_key(|row| std::cmp::Reverse((row.day_bucket, row.summary.requests)));
    data.truncate(ROWS);
    Ok(Usage { range, group_by, data, truncated })
}

fn row(((day_bucket, [node_id, model, app, original_format]), cell): (Key, Cell)) -> UsageRow {
    UsageRow { day_bucket, node_id, model, app, original_format, summary: Summary::of(&cell) }
}
