//! Work that this edge has given to a node: exact, always fresh, and returned by a guard whatever happens.
//!
//! A heartbeat never writes these numbers; they are carried from snapshot to snapshot behind an `Arc`. What runs on a
//! node is counted for the machine, whatever its address; whether it can be reached is known of one address alone.

mod claim;
mod conversations;
mod model;
mod rate;
mod slots;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::launch::Signature;

pub use claim::{Claim, Seen};
pub use model::{ModelLoad, Work};
pub use slots::{
    BUSY_BACKOFF_BASE_MS, BUSY_BACKOFF_MAX_MS, SLOT_PROOF_MS, SLOT_REGAIN_MS, SLOT_TRY_BASE_MS, SLOT_TRY_MAX_MS,
    SLOTS_TRIED_MAX, Slots,
};

/// First ejection of a failing node; it doubles with every further failure. From Envoy's outlier detection, whose
/// base is 30 s, made shorter because a fleet of three cannot spare a node that long for one hiccup.
pub const EJECTION_BASE_MS: u64 = 1_000;
/// Longest ejection.
pub const EJECTION_MAX_MS: u64 = 60_000;
/// Failures in a row before a node is ejected.
pub const EJECTION_AFTER_FAILURES: u32 = 3;

/// What the edge counts of one node, over all its models, and what it knows of the node's address.
#[derive(Debug, Default)]
pub struct NodeLoad {
    /// Shared by all addresses that the node has had.
    counts: Arc<Counts>,
    probe: Probe,
    ejected_until_ms: AtomicU64,
    failures_in_a_row: AtomicU32,
    /// A request tries whether an ejected node has recovered.
    on_trial: AtomicBool,
}

/// What this edge runs on a machine. It belongs to the claims, and is right as long as one of them is held.
#[derive(Debug, Default)]
struct Counts {
    in_flight: AtomicU32,
    last_chosen: AtomicU64,
    /// Tickets of the claims that are held, added up.
    tickets: AtomicU64,
    loading: Mutex<Option<Loading>>,
    /// Whether `loading` is set: read first, as it mostly is not.
    is_loading: AtomicBool,
    reserved: Mutex<Option<Reservation>>,
    /// Until when `reserved` holds; 0 = it does not.
    reserved_until_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct Probe {
    failed: AtomicBool,
    /// When it last succeeded; 0 = never.
    succeeded_at_ms: AtomicU64,
    /// A request was answered: the node was reached, whatever probes find.
    answered: AtomicBool,
    /// Its agent was heard, and content, while all probes failed.
    agent_content: AtomicBool,
    /// Another probe failed after that.
    contradicted: AtomicBool,
    /// The edge has not seen an Ollama at this address yet, and sends nothing there before.
    unverified: AtomicBool,
    /// What it saw there instead is something else.
    foreign: AtomicBool,
}

/// A load that this edge has started on a node. Ollama does one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loading {
    /// [`crate::name::ModelName::key`] of the model.
    pub model: u64,
    /// When it began.
    pub since_ms: u64,
    /// When it is predicted to end.
    pub until_ms: u64,
}

impl Loading {
    /// Whether it takes so much longer than predicted that nobody should wait for it any more.
    #[must_use]
    pub fn is_overdue(&self, now_ms: u64) -> bool {
        let predicted = self.until_ms.saturating_sub(self.since_ms);
        now_ms.saturating_sub(self.since_ms) > predicted.saturating_mul(OVERDUE_FACTOR).saturating_add(OVERDUE_SLACK_MS)
    }
}

/// A load counts as overdue after so many times its prediction and [`OVERDUE_SLACK_MS`]: predictions of a first load
/// rest on assumptions about the disk.
const OVERDUE_FACTOR: u64 = 3;
const OVERDUE_SLACK_MS: u64 = 5_000;

/// A node that is kept free for requests of one model, which have waited long for it to be idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reservation {
    model: u64,
    signature: Signature,
}

impl NodeLoad {
    /// The load of the same machine at another address: what runs there goes on to be counted, while probes, failures
    /// and an ejection were the old address's. Who still holds this one, a request or a probe, goes on to judge that.
    #[must_use]
    pub fn at_another_address(&self) -> Self {
        Self { counts: Arc::clone(&self.counts), ..Self::default() }
    }

    /// Requests that this edge has sent to the node and not seen end, streams included.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.counts.in_flight.load(Relaxed)
    }

    /// Its turn among nodes that are equally good; the smaller goes first.
    ///
    /// Idle ones go before busy ones, and of those the one chosen longest ago. Of busy ones it is the one whose requests
    /// have begun most lately, by the mean of their tickets: what has run for long is likely to go on for long, and each
    /// request that joins it slows it down, so that the longest answers would be those that most have joined.
    #[must_use]
    pub fn turn(&self) -> u64 {
        match u64::from(self.in_flight()) {
            0 => self.counts.last_chosen.load(Relaxed),
            running => u64::MAX - self.counts.tickets.load(Relaxed) / running,
        }
    }

    /// Whether the edge's own health probe fails.
    #[must_use]
    pub fn probe_failed(&self) -> bool {
        self.probe.failed.load(Relaxed)
    }

    /// Whether the edge's own probe has succeeded and does not fail now: the node's Ollama lives, whatever its agent
    /// says or does not say.
    #[must_use]
    pub fn probe_succeeds(&self) -> bool {
        !self.probe_failed() && self.probe.succeeded_at_ms.load(Relaxed) > 0
    }

    /// Whether the node's agent reaches its Ollama and this edge never has: there is none for it, and waiting does not help.
    /// A node that died before its first probe is another matter: its agent is not heard either.
    #[must_use]
    pub fn never_reached(&self) -> bool {
        self.was_in_vain() && self.probe.contradicted.load(Relaxed)
    }

    /// Asks for proof that there is an Ollama at this address: until [`Self::verified`] nothing is sent there.
    pub fn ask_for_proof(&self) {
        self.probe.unverified.store(true, Relaxed);
    }

    /// Whether the edge has seen an Ollama at this address, or need not.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        !self.probe.unverified.load(Relaxed)
    }

    /// Whether the edge has looked, and what is at this address is no Ollama.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.probe.foreign.load(Relaxed) && !self.is_verified()
    }

    /// Notes that the edge has seen an Ollama at this address.
    pub fn verified(&self, now_ms: u64) {
        self.probe.foreign.store(false, Relaxed);
        self.probe_succeeded(now_ms);
        self.probe.unverified.store(false, Relaxed);
    }

    /// Notes that nothing answers at this address although an agent has just said that its Ollama does.
    pub fn looked_in_vain(&self) {
        self.set_probe_failed(true);
        self.probe_missed();
        self.agent_is_content();
    }

    /// Notes that something else answers at this address.
    pub fn found_foreign(&self) {
        self.probe.foreign.store(true, Relaxed);
    }

    /// Notes a heartbeat that tells of an Ollama that answers its agent.
    pub fn agent_is_content(&self) {
        if self.was_in_vain() {
            self.probe.agent_content.store(true, Relaxed);
        }
    }

    /// Notes that a probe failed. Only one that comes after the agent was heard contradicts it: a node that has just come
    /// back is heard before it is probed.
    pub fn probe_missed(&self) {
        if self.was_in_vain() && self.probe.agent_content.load(Relaxed) {
            self.probe.contradicted.store(true, Relaxed);
        }
    }

    /// Whether all probes have failed, and no request was ever answered.
    fn was_in_vain(&self) -> bool {
        let probe = &self.probe;
        self.probe_failed() && probe.succeeded_at_ms.load(Relaxed) == 0 && !probe.answered.load(Relaxed)
    }

    /// Notes that the node is suspected, or is no longer, after probes in a row.
    pub fn set_probe_failed(&self, failed: bool) {
        self.probe.failed.store(failed, Relaxed);
    }

    /// Notes a probe that was answered, which ends every suspicion.
    pub fn probe_succeeded(&self, now_ms: u64) {
        self.set_probe_failed(false);
        self.probe.succeeded_at_ms.store(now_ms.max(1), Relaxed);
    }

    /// Milliseconds until the node may be tried again after failures; 0 = now.
    #[must_use]
    pub fn ejected_for_ms(&self, now_ms: u64) -> u64 {
        self.ejected_until_ms.load(Relaxed).saturating_sub(now_ms)
    }

    /// Whether its ejection is over but one request still tries whether the node has recovered.
    #[must_use]
    pub fn on_trial(&self) -> bool {
        self.on_trial.load(Relaxed)
    }

    /// Notes that the node answered well.
    pub fn succeeded(&self) {
        self.failures_in_a_row.store(0, Relaxed);
        self.ejected_until_ms.store(0, Relaxed);
        self.probe.answered.store(true, Relaxed);
    }

    /// Notes that the node failed: refused, reset, or answered 5xx. After [`EJECTION_AFTER_FAILURES`] in a row it is
    /// ejected for a time that doubles with each further one; when that ends, one request is its trial.
    pub fn failed(&self, now_ms: u64) {
        let failures = self.failures_in_a_row.fetch_add(1, Relaxed).saturating_add(1);
        let Some(beyond) = failures.checked_sub(EJECTION_AFTER_FAILURES) else { return };
        let span = EJECTION_BASE_MS.saturating_mul(1 << beyond.min(16)).min(EJECTION_MAX_MS);
        self.ejected_until_ms.fetch_max(now_ms.saturating_add(span), Relaxed);
    }

    fn needs_trial(&self) -> bool {
        self.failures_in_a_row.load(Relaxed) >= EJECTION_AFTER_FAILURES
    }

    /// The load in progress that this edge started here.
    #[must_use]
    pub fn loading(&self) -> Option<Loading> {
        if self.counts.is_loading.load(Relaxed) { *lock(&self.counts.loading) } else { None }
    }

    /// Takes the node's one place for a load; false = it is taken.
    fn begin_load(&self, load: Loading) -> bool {
        let mut loading = lock(&self.counts.loading);
        if loading.is_some() {
            return false;
        }
        *loading = Some(load);
        self.counts.is_loading.store(true, Relaxed);
        true
    }

    fn end_load(&self) {
        let mut loading = lock(&self.counts.loading);
        *loading = None;
        self.counts.is_loading.store(false, Relaxed);
    }

    /// Keeps the node from requests that its runners serve but `model` under `signature` cannot share, until
    /// `until_ms`: what waits for it to be idle would otherwise be overtaken for ever.
    pub fn reserve(&self, model: u64, signature: Signature, until_ms: u64) {
        *lock(&self.counts.reserved) = Some(Reservation { model, signature });
        self.counts.reserved_until_ms.store(until_ms, Relaxed);
    }

    /// Whether the node is reserved for other requests than those for `model` under `signature`.
    #[must_use]
    pub fn is_reserved_for_others(&self, model: u64, signature: Signature, now_ms: u64) -> bool {
        self.is_reserved(now_ms)
            && lock(&self.counts.reserved).is_some_and(|held| held != Reservation { model, signature })
    }

    /// Whether the node is reserved at all.
    #[must_use]
    pub fn is_reserved(&self, now_ms: u64) -> bool {
        self.counts.reserved_until_ms.load(Relaxed) > now_ms
    }

    /// Ends a reservation.
    pub fn unreserve(&self) {
        self.counts.reserved_until_ms.store(0, Relaxed);
    }
}

/// A panic while one of these is held leaves values that are still values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::LaunchOptions;

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

    #[test]
    fn another_address_starts_afresh_and_counts_on() {
        let old = NodeLoad::default();
        old.set_probe_failed(true);
        (0..3).for_each(|_| old.failed(0));
        old.counts.in_flight.store(2, Relaxed);
        let new = old.at_another_address();
        assert!(!new.probe_failed() && !new.probe_succeeds() && new.ejected_for_ms(0) == 0);
        assert_eq!(new.in_flight(), 2);
        (0..9).for_each(|_| old.failed(0));
        new.probe_succeeded(5);
        old.set_probe_failed(true);
        assert!(new.ejected_for_ms(0) == 0 && new.probe_succeeds(), "what the old address does says nothing of it");
        old.counts.in_flight.store(0, Relaxed);
        assert_eq!(new.in_flight(), 0);
    }

    #[test]
    fn every_probe_that_is_answered_ends_the_suspicion() {
        let node = NodeLoad::default();
        node.set_probe_failed(true);
        node.probe_succeeded(0);
        assert!(node.probe_succeeds() && !node.probe_failed());
    }

    #[test]
    fn a_reservation_holds_for_others_and_ends_by_itself() {
        let node = NodeLoad::default();
        let (plain, other) =
            (Signature::DEFAULT, Signature::new(&LaunchOptions { num_gpu: Some(0), ..Default::default() }));
        assert!(!node.is_reserved_for_others(1, plain, 0));
        node.reserve(1, plain, 500);
        assert!(node.is_reserved_for_others(2, plain, 499) && node.is_reserved_for_others(1, other, 499));
        assert!(!node.is_reserved_for_others(1, plain, 499) && !node.is_reserved_for_others(2, plain, 500));
        node.unreserve();
        assert!(!node.is_reserved_for_others(2, plain, 0));
    }

    #[test]
    fn a_load_is_overdue_well_after_its_prediction() {
        let load = Loading { model: 1, since_ms: 1_000, until_ms: 3_000 };
        assert!(!load.is_overdue(12_000));
        assert!(load.is_overdue(12_001));
    }
}
