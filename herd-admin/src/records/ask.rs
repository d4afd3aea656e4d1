//! What a query says: a stretch of time, and which requests.

use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Deserialize;

use crate::refusal::Refusal;
use crate::state::unix_ms;
use crate::store::{GroupBy, Range};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The ranges that have a name.
const RANGES: [(&str, u64); 7] = [
    ("15m", 15 * MINUTE_MS),
    ("1h", HOUR_MS),
    ("6h", 6 * HOUR_MS),
    ("24h", DAY_MS),
    ("7d", 7 * DAY_MS),
    ("30d", 30 * DAY_MS),
    ("90d", 90 * DAY_MS),
];
/// Trends come in about so many points when no step is asked for.
const POINTS: u64 = 180;

/// The query of a sum.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ask {
    range: Option<String>,
    from_unix_ms: Option<u64>,
    to_unix_ms: Option<u64>,
    step_ms: Option<u64>,
    compare: Option<String>,
    pub(super) group_by: Option<GroupBy>,
    pub(super) model: Option<String>,
    pub(super) node: Option<String>,
    pub(super) app: Option<String>,
    format: Option<String>,
}

/// A query as it comes, or why it is none.
pub(crate) type Asked = Result<Query<Ask>, QueryRejection>;

impl Ask {
    pub(super) fn read(asked: Asked) -> Result<Self, Refusal> {
        let Query(ask) = asked.map_err(|error| Refusal::bad_request("query", error.body_text()))?;
        if !matches!(ask.format.as_deref(), None | Some("json" | "csv")) {
            return Err(Refusal::bad_request("format", "`format` is `json` or `csv`"));
        }
        Ok(ask)
    }

    pub(super) fn csv(&self) -> bool {
        self.format.as_deref() == Some("csv")
    }

    pub(super) fn compares(&self) -> bool {
        self.compare.as_deref().is_some_and(|value| !matches!(value, "0" | "false" | ""))
    }

    /// The stretch that is asked for, and the one of the same length before it.
    pub(super) fn ranges(&self) -> Result<(Range, Range), Refusal> {
        let (from_ms, to_ms) = stretch(self.range.as_deref(), self.from_unix_ms, self.to_unix_ms)?;
        let range = Range::new(from_ms, to_ms);
        let length_ms = range.to_ms() - range.from_ms();
        Ok((range, Range::new(range.from_ms().saturating_sub(length_ms), range.from_ms())))
    }

    /// Seconds of a step: as asked for, or so that `range` has a readable number of them.
    pub(super) fn step_s(&self, range: Range) -> u64 {
        let own = || (range.to_ms() - range.from_ms()) / POINTS;
        Duration::from_millis(self.step_ms.unwrap_or_else(own)).as_secs()
    }
}

/// The time from and to, Unix milliseconds; the last hour when nothing is said.
fn stretch(range: Option<&str>, from_ms: Option<u64>, to_ms: Option<u64>) -> Result<(u64, u64), Refusal> {
    let now_ms = unix_ms();
    if let Some(from_ms) = from_ms {
        let to_ms = to_ms.unwrap_or(now_ms + 1);
        let orderly = from_ms < to_ms;
        return orderly
            .then_some((from_ms, to_ms))
            .ok_or_else(|| Refusal::bad_request("range", "`from_unix_ms` must be before `to_unix_ms`"));
    }
    let name = range.unwrap_or("1h");
    let Some((_, span_ms)) = RANGES.iter().find(|(known, _)| *known == name) else {
        let names = RANGES.map(|(name, _)| name).join(", ");
        return Err(Refusal::bad_request("range", format!("`range` is one of {names}")));
    };
    let to_ms = to_ms.unwrap_or(now_ms + 1);
    Ok((to_ms.saturating_sub(*span_ms), to_ms))
}
