//! How long models were in memory.

use serde::Serialize;

use super::Range;
use crate::rollup::Grain;
use crate::{StoreError, StoreHandle, from_db, to_db};

/// Most rows that are added at a time.
const ADDED: usize = 4_096;

/// How long one model was in the memory of one node, of the time that the node was known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Residency {
    /// The node.
    pub node_id: String,
    /// The model; empty = the time that the node was known.
    pub model: String,
    /// How long, milliseconds.
    pub ms: u64,
}

impl StoreHandle {
    /// Adds to the hour of `at_ms` (Unix milliseconds), without waiting; what fails later is only logged.
    ///
    /// # Errors
    /// When it is certain at once that it will not be kept.
    pub fn post_residency(&self, at_ms: u64, rows: Vec<Residency>) -> Result<(), StoreError> {
        let bucket = to_db(Grain::Hourly.bucket(at_ms));
        self.post("how long models were in memory", move |connection| {
            let transaction = connection.transaction()?;
            let sql = "INSERT INTO residency (bucket, node_id, model, ms) VALUES (?1, ?2, ?3, ?4) \
                       ON CONFLICT DO UPDATE SET ms = ms + excluded.ms";
            let mut statement = transaction.prepare_cached(sql)?;
            for row in rows.iter().take(ADDED) {
                statement.execute((bucket, &row.node_id, &row.model, to_db(row.ms)))?;
            }
            drop(statement);
            transaction.commit()
        })
    }

    /// How long each model was in each node's memory in the hours that `range` touches.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn residency(&self, range: Range) -> Result<Vec<Residency>, StoreError> {
        let hours = Range::new(range.from_ms(), range.to_ms());
        self.read(move |connection| {
            let sql = "SELECT node_id, model, sum(ms) FROM residency WHERE bucket >= ?1 AND bucket < ?2 GROUP BY 1, 2";
            let mut statement = connection.prepare_cached(sql)?;
            let span = (to_db(hours.from_ms() / 1_000), to_db(hours.to_ms() / 1_000));
            let rows = statement.query_map(span, |row| {
                Ok(Residency { node_id: row.get(0)?, model: row.get(1)?, ms: from_db(row.get(2)?) })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
