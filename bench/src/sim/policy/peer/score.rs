//! The points of ollama-herd 0.11.4, restated from a description of its behaviour: eight signals, bounded, summed.
//!
//! Left out is what the simulated fleets do not have: learned capacity, swap, other runtimes, models of unknown size.

use std::collections::BTreeMap;

/// A model in memory, as its heartbeats tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resident {
    /// Weights and cache, GiB.
    pub(super) size_gib: f64,
    /// Tokens.
    pub(super) context: u64,
}

/// A node, as its heartbeats tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PeerNode {
    /// Bandwidth by the table of chips, GB/s; `None` = the chip is not in it.
    pub(super) bandwidth: Option<f64>,
    /// Installed memory, GiB.
    pub(super) total_gib: f64,
    /// Available memory, GiB.
    pub(super) available_gib: f64,
    /// Models on disk with their sizes, decimal GB.
    pub(super) sizes_gb: BTreeMap<usize, f64>,
    /// Models in memory.
    pub(super) loaded: BTreeMap<usize, Resident>,
    /// When models were first missed in memory, milliseconds.
    pub(super) unloaded_at_ms: BTreeMap<usize, f64>,
    /// The last heartbeat.
    pub(super) heard_ms: f64,
}

/// What a request is scored by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ask {
    /// Its model.
    pub(super) model: usize,
    /// Estimated tokens; 0 = not known, as on a retry.
    pub(super) tokens: u64,
}

/// What is known of one queue, `node:model`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct QueueFacts {
    /// Waiting and running.
    pub(super) depth: usize,
    /// 75th percentile of what requests took; `None` = none did.
    pub(super) p75_ms: Option<f64>,
    /// The session of the request was here last.
    pub(super) pinned: bool,
}

/// Points by signal, in the order of the description.
pub(super) type Points = [f64; 8];

/// The memory that a token needs, learned for each model from its latest heartbeats: MB per token, and its context.
pub(super) type KvLearned = BTreeMap<usize, (f64, u64)>;

const OFFLINE_MS: f64 = 30_000.0;
const WARM_MS: f64 = 1_800_000.0;

impl PeerNode {
    /// Why it does not come into question, if it does not.
    pub(super) fn is_eliminated(&self, model: usize, kv: &KvLearned, now_ms: f64) -> bool {
        let offline = now_ms - self.heard_ms > OFFLINE_MS;
        let absent = !self.loaded.contains_key(&model) && !self.sizes_gb.contains_key(&model);
        let fits = self.loaded.contains_key(&model) || self.available_gib >= self.fit_cost(model, kv);
        offline || absent || !fits
    }

    pub(super) fn is_hot(&self, model: usize) -> bool {
        self.loaded.contains_key(&model)
    }

    /// GiB and decimal GB are compared as if they were one.
    fn fit_cost(&self, model: usize, kv: &KvLearned) -> f64 {
        if let Some(resident) = self.loaded.get(&model) {
            return resident.size_gib;
        }
        let weights = self.weights(model);
        kv.get(&model).map_or(weights, |(mb_per_token, context)| weights + mb_per_token * *context as f64 / 1024.0)
    }

    fn weights(&self, model: usize) -> f64 {
        self.sizes_gb.get(&model).copied().unwrap_or(100.0)
    }

    /// Requests that a queue sends at once.
    pub(super) fn concurrency(&self, model: usize, num_parallel: u32) -> usize {
        let resident = self.loaded.get(&model).map_or(0.0, |resident| resident.size_gib);
        let headroom = self.available_gib - resident;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let slots = (headroom / 2.0).floor().clamp(1.0, 8.0) as usize;
        slots.min(num_parallel.max(1) as usize).max(1)
    }
}

/// The points of `node`; `median` is that of the known bandwidths of the nodes that are not offline.
pub(super) fn points(
    node: &PeerNode,
    ask: Ask,
    queue: QueueFacts,
    kv: &KvLearned,
    median: Option<f64>,
    now_ms: f64,
) -> Points {
    [
        warmth(node, ask.model, now_ms),
        memory_fit(node, ask.model, kv),
        queue_depth(node, queue, median),
        wait_time(node, ask.model, queue),
        role_affinity(node, ask.model),
        // Without learned capacity.
        0.0,
        context_fit(node, ask),
        if queue.pinned { 20.0 / (1.0 + queue.depth as f64 / 2.0) } else { 0.0 },
    ]
}

fn warmth(node: &PeerNode, model: usize, now_ms: f64) -> f64 {
    if node.is_hot(model) {
        return 50.0;
    }
    let warm = node.unloaded_at_ms.get(&model).is_some_and(|at_ms| now_ms - at_ms < WARM_MS);
    if warm { 30.0 } else { 10.0 }
}

fn memory_fit(node: &PeerNode, model: usize, kv: &KvLearned) -> f64 {
    if node.is_hot(model) {
        return 20.0;
    }
    match node.available_gib / node.fit_cost(model, kv) {
        ratio if ratio > 2.0 => 20.0,
        ratio if ratio > 1.5 => 15.0,
        ratio if ratio > 1.2 => 8.0,
        ratio if ratio >= 1.0 => 3.0,
        _ => 0.0,
    }
}

fn queue_depth(node: &PeerNode, queue: QueueFacts, median: Option<f64>) -> f64 {
    let depth = queue.depth as f64;
    let effective = match (node.bandwidth, median) {
        (Some(bandwidth), Some(median)) if median > 0.0 => depth / (bandwidth / median).clamp(0.25, 4.0),
        _ => depth,
    };
    -(6.0 * effective).min(30.0)
}

fn wait_time(node: &PeerNode, model: usize, queue: QueueFacts) -> f64 {
    if queue.depth == 0 {
        return 0.0;
    }
    let weights = node.weights(model);
    let guess_ms = || {
        let tokens_per_s = match node.bandwidth {
            Some(bandwidth) => (bandwidth * 1.2 / (weights / 10.0).max(1.0)).max(10.0),
            None => (100.0 / weights.max(1.0)).max(1.0),
        };
        100.0 / tokens_per_s * 1e3
    };
    let p75_ms = queue.p75_ms.unwrap_or_else(guess_ms);
    -(queue.depth as f64 * p75_ms / 1e3 / 10.0).min(25.0)
}

fn role_affinity(node: &PeerNode, model: usize) -> f64 {
    let weights = node.weights(model);
    let (large, small) = (weights > 20.0, weights < 8.0);
    if let Some(bandwidth) = node.bandwidth {
        let points = (5.0 + bandwidth / 40.0).min(25.0);
        return match (large, small) {
            (true, _) => points,
            (_, true) => (18.0 - 0.6 * points).max(3.0),
            _ => 0.6 * points,
        };
    }
    let total = node.total_gib;
    match (large, small) {
        (true, _) if total >= 128.0 => 15.0,
        (true, _) if total >= 32.0 => 5.0,
        (true, _) => 0.0,
        (_, true) if total <= 32.0 => 15.0,
        (_, true) if total <= 128.0 => 8.0,
        (_, true) => 3.0,
        _ => 5.0,
    }
}

fn context_fit(node: &PeerNode, ask: Ask) -> f64 {
    let context = node.loaded.get(&ask.model).map_or(0, |resident| resident.context);
    if ask.tokens == 0 || context == 0 {
        return 0.0;
    }
    match context as f64 / ask.tokens as f64 {
        ratio if ratio < 1.0 => -15.0,
        ratio if ratio < 1.5 => 3.0,
        ratio if ratio < 3.0 => 7.5,
        ratio if ratio < 8.0 => 12.0,
        _ => 15.0,
    }
}

/// The middle of the known bandwidths, or the mean of the two in the middle.
pub(super) fn median(mut bandwidths: Vec<f64>) -> Option<f64> {
    bandwidths.sort_by(f64::total_cmp);
    let middle = bandwidths.len() / 2;
    match bandwidths.len() {
        0 => None,
        length if length % 2 == 1 => Some(bandwidths[middle]),
        _ => Some(f64::midpoint(bandwidths[middle - 1], bandwidths[middle])),
    }
}

/// The 75th percentile as it counts: sorted, the entry at three quarters of the number, rounded down.
pub(super) fn p75_ms(latencies_ms: &[f64]) -> Option<f64> {
    let mut sorted = latencies_ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * 3 / 4).min(sorted.len().saturating_sub(1))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: usize = 0;

    fn studio() -> PeerNode {
        PeerNode {
            bandwidth: Some(819.0),
            total_gib: 512.0,
            available_gib: 300.0,
            sizes_gb: [(MODEL, 42.5)].into(),
            loaded: [(MODEL, Resident { size_gib: 42.5, context: 131_072 })].into(),
            ..PeerNode::default()
        }
    }

    fn cold(bandwidth: Option<f64>, total_gib: f64, available_gib: f64, size_gb: f64) -> PeerNode {
        PeerNode { bandwidth, total_gib, available_gib, sizes_gb: [(MODEL, size_gb)].into(), ..PeerNode::default() }
    }

    fn total(node: &PeerNode, depth: usize, p75_ms: Option<f64>, fleet: &[&PeerNode]) -> f64 {
        let middle = median(fleet.iter().filter_map(|node| node.bandwidth).collect());
        let queue = QueueFacts { depth, p75_ms, pinned: false };
        points(node, Ask { model: MODEL, tokens: 500 }, queue, &KvLearned::new(), middle, 0.0).iter().sum()
    }

    #[track_caller]
    fn near(actual: f64, expected: f64, within: f64) {
        assert!((actual - expected).abs() <= within, "{actual} is not {expected}");
    }

    /// Section 1.6 of the description; its median is that of the second node where only that one is named.
    #[test]
    fn a_hot_node_and_an_idle_cold_one_have_the_points_of_the_worked_example() {
        let (studio, mbp) = (studio(), cold(Some(546.0), 128.0, 90.0, 42.5));
        // The example divides by 1.5: a median of 546.
        let fleet = [&studio, &mbp, &cold(Some(100.0), 16.0, 8.0, 4.7)];
        near(total(&mbp, 0, None, &fleet), 48.65, 0.01);
        for (depth, p75_ms, expected) in [
            (0, None, 110.0),
            (4, None, 93.8),
            (10, None, 79.6),
            (40, None, 78.3),
            (4, Some(20_000.0), 86.0),
            (13, Some(20_000.0), 55.0),
        ] {
            near(total(&studio, depth, p75_ms, &fleet), expected, 0.05);
        }
    }

    #[test]
    fn small_models_go_to_small_machines_as_in_the_worked_example() {
        let nodes = |known: bool| {
            let bandwidth = |gbps: f64| known.then_some(gbps);
            [
                cold(bandwidth(100.0), 24.0, 16.0, 4.7),
                cold(bandwidth(546.0), 128.0, 90.0, 4.7),
                cold(bandwidth(819.0), 512.0, 300.0, 4.7),
            ]
        };
        for (known, expected) in [(true, [43.5, 36.8, 33.0]), (false, [45.0, 38.0, 33.0])] {
            let nodes = nodes(known);
            let fleet: Vec<&PeerNode> = nodes.iter().collect();
            for (node, expected) in nodes.iter().zip(expected) {
                near(total(node, 0, None, &fleet), expected, 0.06);
            }
        }
    }

    #[test]
    fn a_large_model_of_unknown_bandwidth_is_scored_by_memory() {
        let studio = PeerNode { bandwidth: None, ..studio() };
        let mbp = cold(None, 128.0, 90.0, 60.0);
        near(total(&studio, 0, None, &[&studio]), 100.0, 1e-9);
        near(total(&mbp, 0, None, &[&mbp]), 33.0, 1e-9);
    }

    /// Section 10.1.
    #[test]
    fn queues_send_as_many_at_once_as_in_the_worked_examples() {
        let check = |available_gib: f64, size_gib: f64, num_parallel: u32, expected: usize| {
            let resident = Resident { size_gib, context: 4_096 };
            let loaded = if size_gib > 0.0 { [(MODEL, resident)].into() } else { BTreeMap::new() };
            let node = PeerNode { available_gib, loaded, ..PeerNode::default() };
            assert_eq!(node.concurrency(MODEL, num_parallel), expected, "{available_gib} {size_gib} {num_parallel}");
        };
        check(100.0, 5.0, 0, 1);
        check(100.0, 5.0, 4, 4);
        check(12.0, 5.0, 4, 3);
        check(6.0, 5.0, 4, 1);
        check(16.0, 5.0, 8, 5);
        check(100.0, 0.0, 16, 8);
        check(300.0, 60.0, 4, 4);
    }

    /// Section 10.7.
    #[test]
    fn a_session_binds_less_the_more_waits() {
        let bonus = |depth| {
            let queue = QueueFacts { depth, p75_ms: None, pinned: true };
            points(&studio(), Ask { model: MODEL, tokens: 0 }, queue, &KvLearned::new(), None, 0.0)[7]
        };
        near(bonus(0), 20.0, 1e-9);
        near(bonus(1), 13.33, 0.01);
        near(bonus(4), 6.67, 0.01);
    }

    #[test]
    fn what_cannot_serve_is_eliminated() {
        let kv = KvLearned::from([(MODEL, (1.0, 20_480))]);
        let node = cold(None, 64.0, 60.0, 42.5);
        assert!(!node.is_eliminated(MODEL, &KvLearned::new(), 30_000.0));
        assert!(node.is_eliminated(MODEL, &KvLearned::new(), 30_001.0), "silent");
        assert!(node.is_eliminated(1, &KvLearned::new(), 0.0), "absent");
        assert!(node.is_eliminated(MODEL, &kv, 0.0), "42.5 and a learned cache of 20");
        let resident = PeerNode { available_gib: 1.0, ..studio() };
        assert!(!resident.is_eliminated(MODEL, &kv, 0.0), "what is loaded fits");
    }

    #[test]
    fn percentiles_are_counted_as_there() {
        assert_eq!(p75_ms(&[]), None);
        assert_eq!(p75_ms(&[4.0, 1.0, 3.0, 2.0]), Some(4.0));
        assert_eq!(median(vec![819.0, 546.0]), Some(682.5));
    }
}
