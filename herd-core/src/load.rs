//! Work that this edge has given to a node: exact, always fresh, and returned by a guard whatever happens.
//!
//! A heartbeat never writes these numbers; they are carried from snapshot to snapshot behind an `Arc`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::history::LatencyHistory;

/// What the edge counts of one node, over all its models.
#[derive(Debug)]
pub struct NodeLoad {
    in_flight: AtomicU32,
    last_chosen: AtomicU64,
    probe_failed: AtomicBool,
    ejected_until_ms: AtomicU64,
    failures_in_a_row: AtomicU32,
}

impl Default for NodeLoad {
    fn default() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            last_chosen: AtomicU64::new(0),
            probe_failed: AtomicBool::new(false),
            ejected_until_ms: AtomicU64::new(0),
            failures_in_a_row: AtomicU32::new(0),
        }
    }
}

/// First ejection of a failing node; it doubles with every further failure. From Envoy's outlier detection, whose
/// base is 30 s, made shorter because a fleet of three cannot spare a node that long for one hiccup.
pub const EJECTION_BASE_MS: u64 = 1_000;
/// Longest ejection.
pub const EJECTION_MAX_MS: u64 = 60_000;
/// Failures in a row before a node is ejected.
pub const EJECTION_AFTER_FAILURES: u32 = 3;

impl NodeLoad {
    /// Requests that this edge has sent to the node and not seen end, streams included.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Ticket of the last claim here: a smaller one was chosen longer ago.
    #[must_use]
    pub fn last_chosen(&self) -> u64 {
        self.last_chosen.load(Relaxed)
    }

    /// Whether the edge's own health probe fails.
    #[must_use]
    pub fn probe_failed(&self) -> bool {
        self.probe_failed.load(Relaxed)
    }

    /// Notes the outcome of a health probe.
    pub fn set_probe_failed(&self, failed: bool) {
        self.probe_failed.store(failed, Relaxed);
    }

    /// Milliseconds until the node may be tried again after failures; 0 = now.
    #[must_use]
    pub fn ejected_for_ms(&self, now_ms: u64) -> u64 {
        self.ejected_until_ms.load(Relaxed).saturating_sub(now_ms)
    }

    /// Notes that the node answered well.
    pub fn succeeded(&self) {
        self.failures_in_a_row.store(0, Relaxed);
        self.ejected_until_ms.store(0, Relaxed);
    }

    /// Notes that the node failed: refused, reset, or answered 5xx. After [`EJECTION_AFTER_FAILURES`] in a row it is
    /// ejected for a time that doubles with each further one; when that ends, the next request is its trial.
    pub fn failed(&self, now_ms: u64) {
        let failures = self.failures_in_a_row.fetch_add(1, Relaxed).saturating_add(1);
        let Some(beyond) = failures.checked_sub(EJECTION_AFTER_FAILURES) else { return };
        let span = EJECTION_BASE_MS.saturating_mul(1 << beyond.min(16)).min(EJECTION_MAX_MS);
        self.ejected_until_ms.fetch_max(now_ms.saturating_add(span), Relaxed);
    }
}

/// What the edge counts and learns of one model on one node.
#[derive(Debug, Default)]
pub struct ModelLoad {
    in_flight: AtomicU32,
    history: Mutex<LatencyHistory>,
    p75_ms: AtomicU64,
}

impl ModelLoad {
    /// Requests for the model that this edge has sent to the node and not seen end.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// 75th percentile of what requests took here, decayed; `None` = never measured.
    #[must_use]
    pub fn p75_ms(&self) -> Option<f64> {
        let stored = f64::from_bits(self.p75_ms.load(Relaxed));
        (stored > 0.0).then_some(stored)
    }

    /// Learns that a request took `service_ms` from dispatch to its last byte.
    pub fn observe(&self, service_ms: f64, now_ms: u64) {
        let mut history = self.lock_history();
        history.observe(service_ms, now_ms);
        let p75 = history.quantile(0.75).unwrap_or(0.0);
        self.p75_ms.store(p75.to_bits(), Relaxed);
    }

    fn lock_history(&self) -> MutexGuard<'_, LatencyHistory> {
        // A panic while holding it leaves counts that are still counts.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One slot of a (node, model), counted until this is dropped.
#[derive(Debug)]
#[must_use = "dropping the claim gives the slot back"]
pub struct Claim {
    node: Arc<NodeLoad>,
    model: Arc<ModelLoad>,
}

impl Claim {
    /// Takes a slot if the node's in-flight is still `seen`, what the choice was made on; `ticket` counts choices.
    ///
    /// `None` = others claimed meanwhile: choose again.
    pub fn try_take(node: &Arc<NodeLoad>, model: &Arc<ModelLoad>, seen: u32, ticket: u64) -> Option<Self> {
        node.in_flight.compare_exchange(seen, seen.saturating_add(1), Relaxed, Relaxed).ok()?;
        Some(Self::counted(node, model, ticket))
    }

    /// Takes a slot whatever others did meanwhile.
    pub fn take(node: &Arc<NodeLoad>, model: &Arc<ModelLoad>, ticket: u64) -> Self {
        node.in_flight.fetch_add(1, Relaxed);
        Self::counted(node, model, ticket)
    }

    fn counted(node: &Arc<NodeLoad>, model: &Arc<ModelLoad>, ticket: u64) -> Self {
        model.in_flight.fetch_add(1, Relaxed);
        node.last_chosen.fetch_max(ticket, Relaxed);
        Self { node: Arc::clone(node), model: Arc::clone(model) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.node.in_flight.fetch_sub(1, Relaxed);
        self.model.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_counts_until_dropped() {
        let (node, model) = (Arc::new(NodeLoad::default()), Arc::new(ModelLoad::default()));
        let first = Claim::try_take(&node, &model, 0, 1).unwrap();
        assert!(Claim::try_take(&node, &model, 0, 2).is_none(), "the choice was made on another count");
        let second = Claim::take(&node, &model, 3);
        assert_eq!((node.in_flight(), model.in_flight(), node.last_chosen()), (2, 2, 3));
        drop((first, second));
        assert_eq!((node.in_flight(), model.in_flight()), (0, 0));
    }

    #[test]
    fn claims_from_many_threads_never_pass_what_they_saw() {
        let (node, model) = (Arc::new(NodeLoad::default()), Arc::new(ModelLoad::default()));
        let won: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|ticket| {
                    let (node, model) = (&node, &model);
                    scope.spawn(move || {
                        let claim = Claim::try_take(node, model, 0, ticket);
                        let won = usize::from(claim.is_some());
                        std::mem::forget(claim);
                        won
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((won, node.in_flight()), (1, 1));
    }

    #[test]
    fn failures_in_a_row_eject_for_longer_and_longer() {
        let node = NodeLoad::default();
        node.failed(0);
        node.failed(0);
        assert_eq!(node.ejected_for_ms(0), 0);
        node.failed(0);
        assert_eq!(node.ejected_for_ms(0), 1_000);
        node.failed(1_000);
        assert_eq!(node.ejected_for_ms(1_000), 2_000);
        for _ in 0..40 {
            node.failed(1_000);
        }
        assert_eq!(node.ejected_for_ms(1_000), EJECTION_MAX_MS);
        node.succeeded();
        assert_eq!(node.ejected_for_ms(1_000), 0);
    }
}
