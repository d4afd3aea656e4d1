//! What the roll-ups do not tell of the last hour: why models were reloaded, and which attempts failed.

use rusqlite::Connection;

use crate::store::{StoreError, StoreHandle};

/// Most rows of each answer.
const GROUPS: u32 = 5_000;

/// Requests that have something in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Common {
    /// The node.
    pub(crate) node_id: String,
    /// The model.
    pub(crate) model: String,
    /// Why it was reloaded, or how the attempt went.
    pub(crate) what: String,
    /// How many.
    pub(crate) count: u64,
}

/// What went wrong lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Reloads by cause.
    pub(crate) reloads: Vec<Common>,
    /// Attempts after which another one was made, by how they went.
    pub(crate) retried: Vec<Common>,
}

impl StoreHandle {
    /// Reloads and failed attempts of requests that were over at `since_ms` (Unix milliseconds) or later.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub(crate) async fn trouble(&self, since_ms: u64) -> Result<Trouble, StoreError> {
        let since = since_ms as f64 / 1_000.0;
        self.read(move |connection| {
            Ok(Trouble { reloads: common(connection, RELOADS, since)?, retried: common(connection, RETRIED, since)? })
        })
        .await
    }
}

const RELOADS: &str = "SELECT node_id, model, reload_cause, COUNT(*) FROM request_traces \
    WHERE timestamp >= ?1 AND reload_cause <> '' AND node_id <> '' AND benchmark = 0 GROUP BY 1, 2, 3 LIMIT ?2";

/// The last attempt of a request is how the request ended.
const RETRIED: &str = "SELECT a.node_id, t.model, a.outcome, COUNT(*) FROM request_traces t \
    JOIN request_attempts a ON a.trace_id = t.id \
    WHERE t.timestamp >= ?1 AND t.retry_count > 0 AND t.benchmark = 0 \
    AND EXISTS (SELECT 1 FROM request_attempts later WHERE later.trace_id = t.id AND later.seq > a.seq) \
    GROUP BY 1, 2, 3 LIMIT ?2";

fn common(connection: &Connection, sql: &str, since: f64) -> rusqlite::Result<Vec<Common>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((since, GROUPS), |row| {
        Ok(Common {
            node_id: row.get(0)?,
            model: row.get(1)?,
            what: row.get(2)?,
            count: crate::store::from_db(row.get(3)?),
        })
    })?;
    rows.collect()
}
