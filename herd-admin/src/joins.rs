//! Agents that are turned away: told in the log once a minute for each reason, and to the health checks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use herd_core::health::JoinRefusal;

/// Addresses and reasons that are remembered. Beyond that an attacker fills the log, not an operator's question.
const REMEMBERED_MAX: usize = 256;
/// The same refusal is logged again after so long.
const LOG_AGAIN_MS: u64 = 60_000;
/// An agent that has not asked for so long is no longer turned away.
const FORGOTTEN_AFTER_MS: u64 = 180_000;

/// Agents that were turned away lately.
#[derive(Debug, Default)]
pub(crate) struct Joins(Mutex<BTreeMap<(IpAddr, &'static str), Refused>>);

#[derive(Debug)]
struct Refused {
    node_id: String,
    message: String,
    count: u64,
    logged_at_ms: u64,
    last_at_ms: u64,
}

impl Joins {
    /// Notes that an agent at `ip` was turned away; true = it is time to say so in the log.
    pub(crate) fn refused(&self, ip: IpAddr, code: &'static str, node_id: &str, message: &str, now_ms: u64) -> bool {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, one| now_ms.saturating_sub(one.last_at_ms) < FORGOTTEN_AFTER_MS);
        if let Some(known) = refused.get_mut(&(ip, code)) {
            known.count += 1;
            known.last_at_ms = now_ms;
            node_id.clone_into(&mut known.node_id);
            message.clone_into(&mut known.message);
            let due = now_ms.saturating_sub(known.logged_at_ms) >= LOG_AGAIN_MS;
            if due {
                known.logged_at_ms = now_ms;
            }
            return due;
        }
        if refused.len() >= REMEMBERED_MAX {
            return false;
        }
        let (node_id, message) = (node_id.to_owned(), message.to_owned());
        let first = Refused { node_id, message, count: 1, logged_at_ms: now_ms, last_at_ms: now_ms };
        refused.insert((ip, code), first);
        true
    }

    /// Notes that a heartbeat from `ip` for `node_id` was taken.
    pub(crate) fn accepted(&self, ip: IpAddr, node_id: &str) {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !refused.is_empty() {
            refused.retain(|(from, _), one| *from != ip || !(one.node_id.is_empty() || one.node_id == node_id));
        }
    }

    /// Those that are turned away now, the most persistent first.
    pub(crate) fn list(&self, now_ms: u64) -> Vec<JoinRefusal> {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = refused.iter().filter(|(_, one)| now_ms.saturating_sub(one.last_at_ms) < FORGOTTEN_AFTER_MS);
        let tell = |((ip, code), one): (&(IpAddr, &'static str), &Refused)| JoinRefusal {
            address: ip.to_string(),
            node_id: one.node_id.clone(),
            code: (*code).to_owned(),
            message: one.message.clone(),
            count: one.count,
        };
        let mut list: Vec<JoinRefusal> = current.map(tell).collect();
        list.sort_by_key(|refusal| std::cmp::Reverse(refusal.count));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 168, 7, last].into()
    }

    #[test]
    fn each_reason_is_logged_once_a_minute() {
        let joins = Joins::default();
        let logs = |last, code, now_ms| joins.refused(ip(last), code, "n", "why", now_ms);
        assert!(logs(1, "taken", 0) && !logs(1, "taken", 5_000) && !logs(1, "taken", 59_999));
        assert!(logs(1, "join_token", 6_000) && logs(2, "taken", 6_000));
        assert!(logs(1, "taken", 60_000) && !logs(1, "taken", 119_999));
        let list = joins.list(120_000);
        assert_eq!((list.len(), list[0].count, list[0].address.as_str()), (3, 5, "192.168.7.1"));
        assert_eq!(joins.list(119_999 + FORGOTTEN_AFTER_MS).len(), 0);
    }

    #[test]
    fn who_is_taken_at_last_is_no_longer_turned_away() {
        let joins = Joins::default();
        joins.refused(ip(1), "taken", "a", "why", 0);
        joins.refused(ip(1), "join_token", "", "why", 0);
        joins.refused(ip(2), "taken", "a", "why", 0);
        joins.accepted(ip(1), "b");
        assert_eq!(joins.list(1).len(), 2, "the name that another agent there wants is still taken");
        joins.accepted(ip(1), "a");
        assert_eq!(joins.list(1).len(), 1);
    }

    #[test]
    fn strangers_do_not_fill_log_and_memory() {
        let joins = Joins::default();
        let logged =
            (0..2_000_u32).filter(|n| joins.refused(IpAddr::from(n.to_be_bytes()), "source", "", "", 0)).count();
        assert_eq!((logged, joins.list(0).len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }
}
