//! What requests took lately on each node, for the scorer at its start.

use rusqlite::Connection;
use serde::Serialize;

use crate::rollup::Grain;
use crate::vocabulary::Dimension;
use crate::{DAY_MS, StoreError, StoreHandle, columns, to_db};

/// Requests that are read of each model on each node.
const REQUESTS: u32 = 200;
/// Pairs of node and model.
const PAIRS: u32 = 1_000;

/// What completed requests took on one node with one model, from dispatch to the last byte.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecentLatency {
    /// The node.
    pub node_id: String,
    /// The model.
    pub model: String,
    /// The 75th percentile, milliseconds.
    pub p75_ms: f64,
    /// Each: when it was over (Unix milliseconds) and what it took (milliseconds), the oldest first.
    pub requests: Vec<(u64, f64)>,
}

impl StoreHandle {
    /// What the last 200 completed requests of each model on each node took, of the 24 hours before `now_ms`
    /// (Unix milliseconds). Benchmarks do not count.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn latency_p75(&self, now_ms: u64) -> Result<Vec<RecentLatency>, StoreError> {
        self.read(move |connection| latency_p75(connection, now_ms)).await
    }
}

fn latency_p75(connection: &Connection, now_ms: u64) -> Result<Vec<RecentLatency>, StoreError> {
    let since_ms = now_ms.saturating_sub(DAY_MS);
    let since = since_ms as f64 / 1_000.0;
    let mut recent = Vec::new();
    for (node_id, model) in pairs(connection, since_ms)? {
        let mut requests = last(connection, (&node_id, &model), since)?;
        requests.reverse();
        let mut sorted: Vec<_> = requests.iter().map(|(_, ms)| *ms).collect();
        sorted.sort_by(f64::total_cmp);
        // The least that three quarters do not exceed.
        let rank = (sorted.len() * 3).div_ceil(4);
        if let Some(p75_ms) = rank.checked_sub(1).and_then(|at| sorted.get(at)).copied() {
            recent.push(RecentLatency { node_id, model, p75_ms, requests });
        }
    }
    Ok(recent)
}

/// Each pair of node and model with a request since then. The roll-ups know: a scan would read every request.
fn pairs(connection: &Connection, since_ms: u64) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = format!(
        "SELECT DISTINCT value, second FROM {} WHERE dimension = ?1 AND bucket >= ?2 AND value <> '' LIMIT ?3",
        Grain::Hourly.by()
    );
    let since = to_db(Grain::Hourly.bucket(since_ms));
    let mut statement = connection.prepare_cached(&sql)?;
    let pairs =
        statement.query_map((Dimension::NodeModel.name(), since, PAIRS), |row| Ok((row.get(0)?, row.get(1)?)))?;
    pairs.collect()
}

fn last(connection: &Connection, (node, model): (&str, &str), since: f64) -> rusqlite::Result<Vec<(u64, f64)>> {
    let sql = "SELECT timestamp, max(latency_ms - coalesce(queue_ms, 0), 0) FROM request_traces \
               WHERE node_id = ?1 AND model = ?2 AND timestamp >= ?3 AND status = 'completed' AND benchmark = 0 \
               AND latency_ms IS NOT NULL ORDER BY timestamp DESC LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let rows =
        statement.query_map((node, model, since, REQUESTS), |row| Ok((columns::millis(row.get(0)?), row.get(1)?)))?;
    rows.collect()
}
