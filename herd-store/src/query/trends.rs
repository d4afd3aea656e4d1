//! Requests over time.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::cells::{Fineness, Values, Wanted, by, cube};
use super::{Range, Summary};
use crate::rollup::{Cell, MINUTE_MS};
use crate::vocabulary::Dimension;
use crate::{DAY_MS, HOUR_MS, StoreError, StoreHandle};

/// Most points of a chart.
const POINTS: u64 = 1_000;
/// Widths of steps below a day.
const STEPS_S: [u64; 13] = [60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 14_400, 21_600, 43_200, 86_400];
/// Longest range in steps of hours when names are asked for that no table has together: then a row is read for each
/// combination of all names in each hour.
const HOURS_OF_CUBE: u64 = 3 * 24;

/// Of which requests; empty = of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrendFilter {
    /// Of this model.
    pub model: Option<String>,
    /// Of this node.
    pub node_id: Option<String>,
    /// Of this application.
    pub app: Option<String>,
    /// Of this surface.
    pub format: Option<String>,
}

/// Requests over time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trends {
    /// The range; in whole hours where its names are known by the hour only.
    pub range: Range,
    /// Width of a step, seconds: as asked for, or wider so that the answer stays small.
    pub step_s: u64,
    /// A point for each step, also for those without a request.
    pub data: Vec<TrendPoint>,
}

/// The requests of one step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrendPoint {
    /// Its begin, Unix seconds, a multiple of the step.
    pub bucket: u64,
    /// Its requests.
    #[serde(flatten)]
    pub summary: Summary,
}

impl StoreHandle {
    /// The requests of `range` that `filter` lets pass, in steps of `step_s` seconds or a little more; whole hours where
    /// the range has no minutes.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn trends(&self, range: Range, step_s: u64, filter: TrendFilter) -> Result<Trends, StoreError> {
        self.read(move |connection| trends(connection, range, step_s, &filter)).await
    }
}

fn trends(connection: &Connection, range: Range, step_s: u64, filter: &TrendFilter) -> Result<Trends, StoreError> {
    let names = [&filter.model, &filter.node_id, &filter.app, &filter.format].map(Option::as_deref);
    let values = match names {
        [None, None, None, None] => Some(Values::all(Dimension::Total)),
        [Some(model), None, None, None] => Some(Values::one(Dimension::Model, model)),
        [None, Some(node), None, None] => Some(Values::one(Dimension::Node, node)),
        [None, None, Some(app), None] => Some(Values::one(Dimension::App, app)),
        [None, None, None, Some(surface)] => Some(Values::one(Dimension::Surface, surface)),
        [Some(model), Some(node), None, None] => Some(Values::pair(Dimension::NodeModel, node, model)),
        [Some(model), None, Some(app), None] => Some(Values::pair(Dimension::App, app, model)),
        _ => None,
    };
    // All names together are known by the hour only.
    let range = if values.is_none() { Range::new(range.from_ms, range.to_ms) } else { range };
    let step_s = step(range, step_s, values.is_none());
    let fineness = match step_s {
        step_s if step_s.is_multiple_of(DAY_MS / 1_000) => Fineness::Days,
        step_s if step_s.is_multiple_of(HOUR_MS / 1_000) => Fineness::Hours,
        _ => Fineness::Minutes,
    };
    let wanted = Wanted { range, fineness };
    let bucket = |bucket: u64| bucket - bucket % step_s;
    let sums = match values {
        Some(values) => by(connection, wanted, values, |at, _, _| bucket(at))?,
        None => cube(connection, wanted, names, |at, _| bucket(at))?,
    };
    Ok(Trends { range, step_s, data: points(range, step_s, &sums) })
}

fn step(range: Range, step_s: u64, whole_cube: bool) -> u64 {
    let (minute, hour, day) = (MINUTE_MS / 1_000, HOUR_MS / 1_000, DAY_MS / 1_000);
    let seconds = (range.to_ms - range.from_ms) / 1_000;
    let finest = if range.is_of_hours() { hour } else { minute };
    let least = seconds.div_ceil(POINTS).max(finest);
    let least = if whole_cube && seconds > HOURS_OF_CUBE * hour { least.max(day) } else { least };
    let step_s = step_s.clamp(least, seconds.max(least));
    // Steps that fit into the next greater unit, so that each begins where people expect it.
    let whole = STEPS_S.into_iter().find(|whole| *whole >= step_s && whole.is_multiple_of(finest));
    whole.unwrap_or_else(|| step_s.next_multiple_of(day))
}

fn points(range: Range, step_s: u64, sums: &BTreeMap<u64, Cell>) -> Vec<TrendPoint> {
    let none = Cell::default();
    let (from, to) = (range.from_ms / 1_000, range.to_ms / 1_000);
    let buckets = (from - from % step_s..to).step_by(usize::try_from(step_s).unwrap_or(usize::MAX));
    buckets.map(|bucket| TrendPoint { bucket, summary: Summary::of(sums.get(&bucket).unwrap_or(&none)) }).collect()
}
