//! What requests took lately on each node, for the scorer at its start.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::Serialize;

use crate::rollup::Grain;
use crate::vocabulary::Dimension;
use crate::{DAY_MS, StoreError, StoreHandle, columns, to_db};

/// Requests that are read of each model on each node.
const REQUESTS: usize = 200;
/// Requests of a model that are looked at for each of those: others failed, or went to busier nodes.
const LOOKED_AT_FOR_ONE: usize = 20;
/// And in all, of one model.
const LOOKED_AT: usize = 50_000;
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
    // What was over in the future was over under a clock that was ahead: it is not the latest.
    let range = (since_ms as f64 / 1_000.0, now_ms as f64 / 1_000.0);
    let mut nodes = BTreeMap::<String, BTreeMap<String, Vec<(u64, f64)>>>::new();
    for (node_id, model) in pairs(connection, since_ms, now_ms)? {
        nodes.entry(model).or_default().insert(node_id, Vec::new());
    }
    let mut recent = Vec::new();
    for (model, mut nodes) in nodes {
        read_last(connection, &model, range, &mut nodes)?;
        recent.extend(nodes.into_iter().filter_map(|(node_id, requests)| of_pair(node_id, &model, requests)));
    }
    Ok(recent)
}

/// One pair's, from its requests, the newest first.
fn of_pair(node_id: String, model: &str, mut requests: Vec<(u64, f64)>) -> Option<RecentLatency> {
    requests.reverse();
    let mut sorted: Vec<_> = requests.iter().map(|(_, ms)| *ms).collect();
    sorted.sort_by(f64::total_cmp);
    // The least that three quarters do not exceed.
    let rank = (sorted.len() * 3).div_ceil(4);
    let p75_ms = rank.checked_sub(1).and_then(|at| sorted.get(at)).copied()?;
    Some(RecentLatency { node_id, model: model.to_owned(), p75_ms, requests })
}

/// Each pair of node and model with a request since then. The roll-ups know: a scan would read every request.
fn pairs(connection: &Connection, since_ms: u64, now_ms: u64) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = format!(
        "SELECT DISTINCT value, second FROM {} WHERE dimension = ?1 AND bucket >= ?2 AND bucket <= ?3 AND value <> '' LIMIT ?4",
        Grain::Hourly.by()
    );
    let [since, until] = [since_ms, now_ms].map(|ms| to_db(Grain::Hourly.bucket(ms)));
    let mut statement = connection.prepare_cached(&sql)?;
    let pairs = statement
        .query_map((Dimension::NodeModel.name(), since, until, PAIRS), |row| Ok((row.get(0)?, row.get(1)?)))?;
    pairs.collect()
}

/// Gives each of `nodes` its last requests with `model`, the newest first: in one walk back through the model's, as no
/// index knows the node.
fn read_last(
    connection: &Connection,
    model: &str,
    (since, until): (f64, f64),
    nodes: &mut BTreeMap<String, Vec<(u64, f64)>>,
) -> rusqlite::Result<()> {
    let sql = "SELECT node_id, timestamp, max(latency_ms - coalesce(queue_ms, 0), 0), \
               status = 'completed' AND benchmark = 0 AND latency_ms IS NOT NULL \
               FROM request_traces INDEXED BY idx_traces_model_timestamp \
               WHERE model = ?1 AND timestamp >= ?2 AND timestamp <= ?3 ORDER BY timestamp DESC LIMIT ?4";
    let looked_at = nodes.len().saturating_mul(REQUESTS * LOOKED_AT_FOR_ONE).min(LOOKED_AT);
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query((model, since, until, i64::try_from(looked_at).unwrap_or(i64::MAX)))?;
    let mut wanting = nodes.len();
    while let Some(row) = rows.next()?.filter(|_| wanting > 0) {
        let requests = nodes.get_mut(row.get_ref(0)?.as_str().unwrap_or_default());
        if let Some(requests) = requests.filter(|requests| requests.len() < REQUESTS)
            && row.get(3)?
        {
            requests.push((columns::millis(row.get(1)?), row.get(2)?));
            wanting -= usize::from(requests.len() == REQUESTS);
        }
    }
    Ok(())
}
