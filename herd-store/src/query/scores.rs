//! How healthy the fleet was.

use serde::Serialize;

use crate::{StoreError, StoreHandle, from_db, to_db};

/// Most points of an answer.
const POINTS: u64 = 1_000;

/// The score of one look at the fleet, or the worst of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HealthScore {
    /// When, Unix milliseconds; of several looks the first.
    pub at_unix_ms: u64,
    /// 0 to 100.
    pub score: u8,
    /// Open findings that are critical.
    pub critical: u64,
    /// Open findings that are warnings.
    pub warning: u64,
    /// Open findings that are hints.
    pub info: u64,
}

impl StoreHandle {
    /// Keeps the score of a look, without waiting; what fails later is only logged.
    ///
    /// # Errors
    /// When it is certain at once that it will not be kept.
    pub fn post_score(&self, score: HealthScore) -> Result<(), StoreError> {
        self.post("the health score", move |connection| {
            let sql = "INSERT OR REPLACE INTO health_scores (at_ms, score, critical, warning, info) \
                       VALUES (?1, ?2, ?3, ?4, ?5)";
            let [critical, warning, info] = [score.critical, score.warning, score.info].map(to_db);
            let row = (to_db(score.at_unix_ms), score.score, critical, warning, info);
            connection.prepare_cached(sql)?.execute(row).map(drop)
        })
    }

    /// The scores from `from_ms` to before `to_ms` (Unix milliseconds) in order of time. Of more than a thousand, each
    /// is the worst of a stretch.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn scores(&self, from_ms: u64, to_ms: u64) -> Result<Vec<HealthScore>, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT min(at_ms), min(score), max(critical), max(warning), max(info) FROM health_scores \
                       WHERE at_ms >= ?1 AND at_ms < ?2 GROUP BY (at_ms - ?1) / ?3 ORDER BY 1";
            let count = "SELECT count(*) FROM health_scores WHERE at_ms >= ?1 AND at_ms < ?2";
            let range = (to_db(from_ms), to_db(to_ms));
            let count = from_db(connection.prepare_cached(count)?.query_row(range, |row| row.get(0))?);
            let width_ms = if count > POINTS { (to_ms.saturating_sub(from_ms) / POINTS).max(1) } else { 1 };
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map((to_db(from_ms), to_db(to_ms), to_db(width_ms)), |row| {
                Ok(HealthScore {
                    at_unix_ms: from_db(row.get(0)?),
                    score: row.get(1)?,
                    critical: from_db(row.get(2)?),
                    warning: from_db(row.get(3)?),
                    info: from_db(row.get(4)?),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
