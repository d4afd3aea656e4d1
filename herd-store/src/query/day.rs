//! What health checks and recommendations read of the last day, in one look.

use rusqlite::{Connection, OptionalExtension};

use super::cells::{Values, Wanted, by};
use super::{Range, Spread, Summary};
use crate::rollup::{Grain, Measure};
use crate::vocabulary::Dimension;
use crate::{DAY_MS, StoreError, StoreHandle, from_db, to_db};

/// How far back the first request is looked for: what matters is whether a day has been counted.
const FIRST_MS: u64 = 3 * DAY_MS;

/// The last 24 hours and what has passed of this one, added up.
#[derive(Debug, Clone)]
pub struct DaySums {
    /// When the first request of the last three days was over, Unix milliseconds; 0 = there was none.
    pub first_ms: u64,
    /// All requests.
    pub total: Summary,
    /// By node and model.
    pub pairs: Vec<PairDay>,
    /// By the name that clients asked for.
    pub asked: Vec<(String, Summary)>,
}

/// One model on one node.
#[derive(Debug, Clone)]
pub struct PairDay {
    /// The node.
    pub node_id: String,
    /// The model.
    pub model: String,
    /// Their requests.
    pub summary: Summary,
    /// Tokens of prompts with their answers; `None` = no backend told.
    pub used: Option<Spread>,
    /// The largest window that served, tokens; 0 = unknown.
    pub window: u64,
}

impl StoreHandle {
    /// The last day before `now_ms`.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn last_day(&self, now_ms: u64) -> Result<DaySums, StoreError> {
        self.read(move |connection| last_day(connection, now_ms)).await
    }
}

fn last_day(connection: &Connection, now_ms: u64) -> Result<DaySums, StoreError> {
    let wanted = Wanted::sums(Range::last(DAY_MS, now_ms));
    let mut total = by(connection, wanted, Values::all(Dimension::Total), |_, _, _| ())?;
    let pairs = by(connection, wanted, Values::all(Dimension::NodeModel), |_, node, model| {
        (node.to_owned(), model.to_owned())
    })?;
    let asked = by(connection, wanted, Values::all(Dimension::Asked), |_, name, _| name.to_owned())?;
    let pairs = pairs.into_iter().filter(|((node, model), _)| !node.is_empty() && !model.is_empty());
    Ok(DaySums {
        first_ms: first_ms(connection, now_ms.saturating_sub(FIRST_MS))?,
        total: Summary::of(&total.remove(&()).unwrap_or_default()),
        pairs: pairs
            .map(|((node_id, model), cell)| PairDay {
                node_id,
                model,
                summary: Summary::of(&cell),
                used: Spread::of(cell.measure(Measure::TotalSize)),
                window: cell.context_length,
            })
            .collect(),
        asked: asked
            .into_iter()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, cell)| (name, Summary::of(&cell)))
            .collect(),
    })
}

/// Of the first hour that has any: when its first request was over.
fn first_ms(connection: &Connection, from_ms: u64) -> rusqlite::Result<u64> {
    let sql = format!(
        "SELECT first_ms FROM {} WHERE dimension = ?1 AND bucket >= ?2 AND first_ms > 0 ORDER BY bucket LIMIT 1",
        Grain::Hourly.by()
    );
    let from = to_db(Grain::Hourly.bucket(from_ms));
    let mut statement = connection.prepare_cached(&sql)?;
    let first = statement.query_row((Dimension::Total.name(), from), |row| row.get(0)).optional()?;
    Ok(from_db(first.unwrap_or(0)))
}
