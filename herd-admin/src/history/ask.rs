//! What a request for the past asks: its range, filters and form, read in one place.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Query};
use herd_store::{DAY_MS, HOUR_MS, Range};
use http::request::Parts;

use crate::refusal::Refusal;
use crate::state::AdminState;
use herd_store::unix_ms;

const MINUTE_MS: u64 = 60_000;

/// The ranges that have names.
const RANGES: [(&str, u64); 9] = [
    ("5m", 5 * MINUTE_MS),
    ("15m", 15 * MINUTE_MS),
    ("1h", HOUR_MS),
    ("6h", 6 * HOUR_MS),
    ("24h", DAY_MS),
    ("7d", 7 * DAY_MS),
    ("30d", 30 * DAY_MS),
    ("90d", 90 * DAY_MS),
    ("365d", 365 * DAY_MS),
];

/// Steps of a range where nobody says how many.
const STEPS: u64 = 96;
/// Longest text of a filter: names of the store are no longer.
const TEXT_BYTES: usize = 256;

/// The query of a request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    given: BTreeMap<String, String>,
    now_ms: u64,
}

impl FromRequestParts<AdminState> for Ask {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &AdminState) -> Result<Self, Refusal> {
        let query = Query::<BTreeMap<String, String>>::try_from_uri(&parts.uri);
        let Query(given) = query.map_err(|error| Refusal::bad_request("query", error.body_text()))?;
        Ok(Self { given, now_ms: unix_ms() })
    }
}

impl Ask {
    /// The text at `name`; `None` = not given, or empty.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let text = self.given.get(name).filter(|text| !text.is_empty())?;
        Some(text[..text.floor_char_boundary(TEXT_BYTES)].to_owned())
    }

    /// The number at `name`, within `least` and `most` whatever it is; `None` = not given.
    ///
    /// # Errors
    /// When it is no whole number.
    pub(crate) fn number(&self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.given.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let number = text.parse::<i128>();
        let number = number.map_err(|_| Refusal::bad_request("query", format!("{name} must be a whole number")))?;
        let within = number.clamp(i128::from(least), i128::from(most));
        Ok(Some(u64::try_from(within).unwrap_or(most)))
    }

    /// Whether `name` is switched on.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.given.get(name).is_some_and(|text| matches!(text.as_str(), "1" | "true" | "yes"))
    }

    /// Whether the answer is to be CSV.
    pub(crate) fn wants_csv(&self) -> bool {
        self.given.get("format").is_some_and(|format| format == "csv")
    }

    /// From when to before when, Unix milliseconds: `range`, or `from_unix_ms` and `to_unix_ms`; `None` = neither.
    pub(crate) fn span(&self) -> Result<Option<(u64, u64)>, Refusal> {
        let from_ms = self.number("from_unix_ms", 0, u64::MAX)?;
        let to_ms = self.number("to_unix_ms", 0, u64::MAX)?;
        if from_ms.is_some() || to_ms.is_some() {
            let to_ms = to_ms.unwrap_or(self.now_ms.saturating_add(1));
            let from_ms = from_ms.unwrap_or_else(|| to_ms.saturating_sub(HOUR_MS));
            if from_ms >= to_ms {
                return Err(Refusal::bad_request("range", "from_unix_ms must be before to_unix_ms"));
            }
            return Ok(Some((from_ms, to_ms)));
        }
        let Some(name) = self.given.get("range") else { return Ok(None) };
        let known = RANGES.iter().find(|(known, _)| known == name);
        let (_, span_ms) = known.ok_or_else(|| {
            let names: Vec<_> = RANGES.iter().map(|(name, _)| *name).collect();
            Refusal::bad_request("range", format!("range must be one of {}", names.join(", ")))
        })?;
        Ok(Some((self.now_ms.saturating_sub(*span_ms), self.now_ms.saturating_add(1))))
    }

    /// The minutes that are asked for, or the hours where no minutes are kept; the last hour when nothing is said.
    pub(crate) fn range(&self) -> Result<Range, Refusal> {
        let last_hour = (self.now_ms.saturating_sub(HOUR_MS), self.now_ms.saturating_add(1));
        let (from_ms, to_ms) = self.span()?.unwrap_or(last_hour);
        Ok(Range::fine(from_ms, to_ms, self.now_ms))
    }

    /// When it was asked, Unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The range of the same length before `range`.
    pub(super) fn before(&self, range: Range) -> Range {
        range.before(self.now_ms)
    }

    /// Width of a step, seconds: as asked for, else so that the range has about a hundred of them.
    pub(super) fn step_s(&self, range: Range) -> Result<u64, Refusal> {
        let given = self.number("step_ms", 1, u64::MAX)?.map(|ms| ms.div_ceil(1_000));
        Ok(given.unwrap_or((range.to_ms() - range.from_ms()) / 1_000 / STEPS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pairs: &[(&str, &str)]) -> Ask {
        let given = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ask { given, now_ms: 1_795_348_800_000 }
    }

    #[test]
    fn numbers_are_clamped() {
        for (text, number) in [("-1", 1), ("0", 1), ("7", 7), ("99999999999999999999999", 1_000)] {
            assert_eq!(ask(&[("limit", text)]).number("limit", 1, 1_000).unwrap(), Some(number), "{text}");
        }
        assert_eq!(ask(&[]).number("limit", 1, 1_000).unwrap(), None);
        assert!(ask(&[("limit", "x")]).number("limit", 1, 1_000).is_err());
    }

    #[test]
    fn ranges_are_whole_minutes_where_those_are_kept_else_whole_hours() {
        let day = ask(&[("range", "24h")]);
        let range = day.range().unwrap();
        assert_eq!(range.to_ms() - range.from_ms(), 25 * HOUR_MS, "the hour that has begun is part of it");
        assert_eq!(day.before(range).to_ms(), range.from_ms());
        assert_eq!(day.step_s(range).unwrap(), 25 * 3_600 / STEPS);
        for (name, minutes) in [("15m", 15), ("1h", 60), ("6h", 360)] {
            let ask = ask(&[("range", name)]);
            let range = ask.range().unwrap();
            assert_eq!(range.to_ms() - range.from_ms(), (minutes + 1) * MINUTE_MS, "and the minute that has begun");
            let before = ask.before(range);
            assert_eq!(
                (before.to_ms(), before.from_ms()),
                (range.from_ms(), range.from_ms() - (minutes + 1) * MINUTE_MS)
            );
        }
        let given = ask(&[("from_unix_ms", "3600000"), ("to_unix_ms", "7200000")]).range().unwrap();
        assert_eq!((given.from_ms(), given.to_ms()), (HOUR_MS, 2 * HOUR_MS));
        assert!(ask(&[("range", "2h")]).range().is_err());
        assert!(ask(&[("from_unix_ms", "5"), ("to_unix_ms", "5")]).range().is_err());
        ask(&[("from_unix_ms", "-5"), ("to_unix_ms", "18446744073709551616")]).range().unwrap();
    }
}
