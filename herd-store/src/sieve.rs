//! Which refused requests get a row of their own: a flood of them is a number, and must not push out the rows of requests
//! that were served.

use std::collections::HashMap;

use herd_core::record::RequestRecord;
use herd_core::vocabulary::Status;

use super::rollup::MINUTE_MS;

/// Refused requests of one status that get a row each in one minute. Further ones are counted in the roll-ups.
pub(super) const ROWS_PER_MINUTE: u32 = 30;

/// Counts the refused requests of the minute.
#[derive(Debug, Clone, Default)]
pub(super) struct Sieve {
    /// Its number since 1970.
    minute: u64,
    /// By the status that clients got.
    rows: HashMap<u16, u32>,
}

impl Sieve {
    /// Whether `record` gets a row.
    pub(super) fn keeps(&mut self, record: &RequestRecord) -> bool {
        // What a node was asked for is more than a refusal.
        if record.known_status() != Some(Status::Rejected) || !record.node_id.is_empty() || record.benchmark {
            return true;
        }
        let minute = record.timestamp_ms / MINUTE_MS;
        if minute != self.minute {
            *self = Self { minute, rows: HashMap::new() };
        }
        let rows = self.rows.entry(record.http_status).or_default();
        *rows = rows.saturating_add(1);
        *rows <= ROWS_PER_MINUTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    #[test]
    fn of_each_kind_of_refusal_the_first_few_of_a_minute_get_a_row() {
        let refused = |http_status, timestamp_ms| RequestRecord {
            status: Some(Status::Rejected.into()),
            node_id: String::new(),
            http_status,
            ..record(1, timestamp_ms)
        };
        let mut sieve = Sieve::default();
        let kept = |sieve: &mut Sieve, status, at_ms| (0..100).filter(|_| sieve.keeps(&refused(status, at_ms))).count();
        assert_eq!([401, 404, 429].map(|status| kept(&mut sieve, status, 0)), [30; 3]);
        assert_eq!(kept(&mut sieve, 401, MINUTE_MS - 1), 0);
        assert_eq!(kept(&mut sieve, 401, MINUTE_MS), 30);
        assert!((0..100).all(|id| sieve.keeps(&record(id, MINUTE_MS))), "requests that were served all have one");
        let asked = RequestRecord { node_id: "a".into(), ..refused(503, MINUTE_MS) };
        assert!((0..100).all(|_| sieve.keeps(&asked)));
    }
}
