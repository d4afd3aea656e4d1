//! ollama-herd 0.11.4, restated: its points ([`score`]), a queue per `node:model` with its cap, sessions that stick,
//! pre-warming and rebalancing every five seconds, its context protection and its retries.
//!
//! Two of its behaviours are switched off for a fair comparison, as they are for herd: another model never answers
//! (`X-Fleet-No-Fallback`, and no auto-upgrade for a larger context). Every client has an address of its own, which its
//! session stickiness needs. Its prefix affinity is left out: it counts only before a session has one.

mod score;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::sim::catalogue::MODELS;
use crate::sim::node::Report;
use crate::sim::router::{Action, Ended, Failed, Failure, Patience, Router, Sent, World};
use crate::sim::workload::NodeSpec;
use score::{Ask, KvLearned, PeerNode, Points, QueueFacts, Resident, median, p75_ms, points};

const GIB: f64 = 1_073_741_824.0;
/// How often it pre-warms and rebalances.
const CYCLE_MS: f64 = 5_000.0;
const PRE_WARM_DEPTH: usize = 3;
const REBALANCE_PENDING: usize = 4;
const REBALANCE_MOST: usize = 3;
/// Rows of the latency of a queue that count.
const LATENCIES: usize = 500;
const SESSION_TTL_MS: f64 = 900_000.0;
/// Requests that no node can take are held, and looked at again.
const HOLD_MS: f64 = 30_000.0;
const HOLD_POLL_MS: f64 = 2_000.0;
const MAX_RETRIES: usize = 2;

/// A queue's key: node and model.
type Key = (usize, usize);

#[derive(Debug, Default)]
struct PeerQueue {
    pending: VecDeque<usize>,
    running: HashSet<usize>,
    concurrency: usize,
    latencies_ms: VecDeque<f64>,
    p75_ms: Option<f64>,
}

impl PeerQueue {
    fn depth(&self) -> usize {
        self.pending.len() + self.running.len()
    }
}

/// Where a request is.
#[derive(Debug, Clone)]
struct Routed {
    /// The queue whose slot it holds.
    key: Key,
    excluded: Vec<usize>,
}

/// A router.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    nodes: Vec<PeerNode>,
    kv: KvLearned,
    queues: BTreeMap<Key, PeerQueue>,
    sessions: HashMap<(u64, usize), (usize, f64)>,
    routed: HashMap<usize, Routed>,
    /// Requests that no node can take: since when, and when they are looked at again.
    held: VecDeque<(usize, f64, f64)>,
    warming: HashSet<Key>,
    cycled_ms: f64,
}

impl Peer {
    /// The nodes that can take `ask`, the best first; equals in the order in which they registered.
    fn ranked(&self, ask: Ask, pinned: Option<usize>, now_ms: f64) -> Vec<(usize, f64)> {
        let online = self.nodes.iter().filter(|node| now_ms - node.heard_ms <= 30_000.0);
        let middle = median(online.filter_map(|node| node.bandwidth).collect());
        let mut ranked = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if node.is_eliminated(ask.model, &self.kv, now_ms) {
                continue;
            }
            let queue = self.queues.get(&(number, ask.model));
            let facts = QueueFacts {
                depth: queue.map_or(0, PeerQueue::depth),
                p75_ms: queue.and_then(|queue| queue.p75_ms),
                pinned: pinned == Some(number),
            };
            let points: Points = points(node, ask, facts, &self.kv, middle, now_ms);
            ranked.push((number, points.iter().sum::<f64>()));
        }
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked
    }

    /// Routes a request to a queue, or holds it; false = no node can take it.
    fn route(&mut self, world: World<'_>, now_ms: f64, request: usize, out: &mut Vec<Action>) -> bool {
        let asked = &world.requests[request];
        let session = (asked.app, asked.model);
        let pin = self.sessions.get(&session).filter(|(_, at_ms)| now_ms - at_ms <= SESSION_TTL_MS);
        let pinned = pin.map(|(node, _)| *node);
        let ask = Ask { model: asked.model, tokens: asked.estimate };
        let Some((node, _)) = self.ranked(ask, pinned, now_ms).first().copied() else { return false };
        self.sessions.insert(session, (node, now_ms));
        let key = (node, asked.model);
        self.routed.insert(request, Routed { key, excluded: Vec::new() });
        self.queues.entry(key).or_default().pending.push_back(request);
        self.enqueued(world, key, out);
        true
    }

    /// The cap of a queue is computed when something is put into it.
    fn enqueued(&mut self, world: World<'_>, key: Key, out: &mut Vec<Action>) {
        let concurrency = self.nodes[key.0].concurrency(key.1, world.nodes[key.0].hardware.slots);
        self.queues.entry(key).or_default().concurrency = concurrency;
        self.work(world, key, out);
    }

    fn work(&mut self, world: World<'_>, key: Key, out: &mut Vec<Action>) {
        loop {
            let Some(queue) = self.queues.get_mut(&key) else { return };
            if queue.running.len() >= queue.concurrency {
                return;
            }
            let Some(request) = queue.pending.pop_front() else { return };
            queue.running.insert(request);
            out.push(self.sent(world, request, key.0));
        }
    }

    /// Context protection: the context in memory is filled in unless the client asks for more.
    fn sent(&self, world: World<'_>, request: usize, node: usize) -> Action {
        let asked = &world.requests[request];
        let resident = self.nodes[node].loaded.get(&asked.model).map(|resident| resident.context);
        let context = match (asked.num_ctx, resident) {
            (Some(wanted), Some(loaded)) if wanted > loaded => Some(wanted),
            (_, Some(loaded)) => Some(loaded),
            (wanted, None) => wanted,
        };
        Action::Send(Sent { request, node, context, keep_ms: f64::INFINITY })
    }

    fn release(&mut self, world: World<'_>, request: usize, out: &mut Vec<Action>) {
        let Some(routed) = self.routed.remove(&request) else { return };
        if let Some(queue) = self.queues.get_mut(&routed.key) {
            queue.running.remove(&request);
        }
        self.work(world, routed.key, out);
    }

    fn pre_warm(&mut self, now_ms: f64, out: &mut Vec<Action>) {
        let deep: BTreeMap<Key, usize> = self
            .queues
            .iter()
            .map(|(key, queue)| (*key, queue.depth()))
            .filter(|(_, d)| *d >= PRE_WARM_DEPTH)
            .collect();
        for (_, model) in deep.into_keys() {
            let ranked = self.ranked(Ask { model, tokens: 0 }, None, now_ms);
            let Some((node, _)) = ranked.get(1).copied() else { continue };
            if !self.nodes[node].is_hot(model) && self.warming.insert((node, model)) {
                out.push(Action::Preload { node, model });
            }
        }
        // A warming is over when its model is seen in memory.
        let nodes = &self.nodes;
        self.warming.retain(|(node, model)| !nodes[*node].is_hot(*model));
    }

    fn rebalance(&mut self, world: World<'_>, now_ms: f64, out: &mut Vec<Action>) {
        let long: Vec<Key> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.pending.len() >= REBALANCE_PENDING)
            .map(|(key, _)| *key)
            .collect();
        for (source, model) in long {
            let ranked = self.ranked(Ask { model, tokens: 0 }, None, now_ms);
            let depth = |node: usize| self.queues.get(&(node, model)).map_or(0, PeerQueue::depth);
            let takes =
                |node: &usize| *node != source && self.nodes[*node].is_hot(model) && depth(*node) < REBALANCE_PENDING;
            let Some(target) = ranked.into_iter().map(|(node, _)| node).find(takes) else { continue };
            self.shift((source, model), (target, model));
            self.enqueued(world, (target, model), out);
        }
    }

    /// Moves the oldest that wait.
    fn shift(&mut self, from: Key, to: Key) {
        let Some(queue) = self.queues.get_mut(&from) else { return };
        let count = (queue.pending.len() / 2).min(REBALANCE_MOST);
        let moved: Vec<usize> = queue.pending.drain(..count).collect();
        for request in &moved {
            if let Some(routed) = self.routed.get_mut(request) {
                routed.key = to;
            }
        }
        self.queues.entry(to).or_default().pending.extend(moved);
    }

    fn poll_held(&mut self, world: World<'_>, now_ms: f64, out: &mut Vec<Action>) {
        for _ in 0..self.held.len() {
            let Some((request, since_ms, due_ms)) = self.held.pop_front() else { return };
            if due_ms > now_ms {
                self.held.push_back((request, since_ms, due_ms));
            } else if !self.route(world, now_ms, request, out) {
                if now_ms - since_ms >= HOLD_MS {
                    out.push(Action::Refuse { request });
                } else {
                    self.held.push_back((request, since_ms, now_ms + HOLD_POLL_MS));
                }
            }
        }
    }
}

impl Router for Peer {
    fn patience(&self) -> Patience {
        Patience { connect_ms: 10_000.0, silence_ms: 600_000.0 }
    }

    fn heartbeat(&mut self, world: World<'_>, now_ms: f64, node: usize, report: &Report) {
        if self.nodes.is_empty() {
            self.nodes = world.nodes.iter().map(describe).collect();
        }
        let hardware = world.nodes[node].hardware;
        let known = &mut self.nodes[node];
        let loaded: BTreeMap<usize, Resident> = report
            .runners
            .iter()
            .map(|runner| (runner.model, Resident { size_gib: runner.bytes as f64 / GIB, context: runner.context }))
            .collect();
        for model in known.loaded.keys().filter(|model| !loaded.contains_key(model)) {
            known.unloaded_at_ms.insert(*model, now_ms);
        }
        for (model, resident) in &loaded {
            known.unloaded_at_ms.remove(model);
            let weights = known.sizes_gb.get(model).copied().unwrap_or_default();
            if resident.size_gib >= weights {
                let mb_per_token = (resident.size_gib - weights) * 1024.0 / resident.context as f64;
                self.kv.insert(*model, (mb_per_token, resident.context));
            }
        }
        // What psutil calls available: models in a discrete GPU do not count.
        let used = if hardware.discrete { 0 } else { hardware.memory_bytes - report.free_bytes };
        known.available_gib = (hardware.system_bytes as f64 * 0.85 - used as f64).max(0.0) / GIB;
        known.loaded = loaded;
        known.heard_ms = now_ms;
    }

    fn arrives(&mut self, world: World<'_>, now_ms: f64, request: usize, out: &mut Vec<Action>) {
        if !self.route(world, now_ms, request, out) {
            self.held.push_back((request, now_ms, now_ms + HOLD_POLL_MS));
        }
    }

    fn done(&mut self, world: World<'_>, now_ms: f64, ended: Ended, out: &mut Vec<Action>) {
        let key = (ended.node, world.requests[ended.request].model);
        let queue = self.queues.entry(key).or_default();
        queue.latencies_ms.push_back(now_ms - ended.sent_ms);
        if queue.latencies_ms.len() > LATENCIES {
            queue.latencies_ms.pop_front();
        }
        queue.p75_ms = p75_ms(queue.latencies_ms.make_contiguous());
        self.release(world, ended.request, out);
    }

    /// A retry runs at once on the next best node, without a slot there and with the old one kept.
    fn failed(&mut self, world: World<'_>, now_ms: f64, failed: Failed, out: &mut Vec<Action>) {
        let request = failed.request;
        let model = world.requests[request].model;
        let ranked = self.ranked(Ask { model, tokens: 0 }, None, now_ms);
        let next = self.routed.get_mut(&request).and_then(|routed| {
            routed.excluded.push(failed.node);
            let may = !failed.answered && failed.failure != Failure::Busy && routed.excluded.len() <= MAX_RETRIES;
            let untried = ranked.iter().map(|(node, _)| *node).find(|node| !routed.excluded.contains(node));
            untried.filter(|_| may)
        });
        if let Some(node) = next {
            out.push(self.sent(world, request, node));
            return;
        }
        self.release(world, request, out);
        if !failed.answered {
            out.push(Action::Refuse { request });
        }
    }

    fn settle(&mut self, world: World<'_>, now_ms: f64, out: &mut Vec<Action>) {
        self.poll_held(world, now_ms, out);
        if now_ms >= self.cycled_ms + CYCLE_MS {
            self.cycled_ms = now_ms;
            self.pre_warm(now_ms, out);
            self.rebalance(world, now_ms, out);
        }
    }

    fn waits(&self) -> bool {
        !self.held.is_empty() || self.queues.values().any(|queue| !queue.pending.is_empty())
    }

    fn wakes_ms(&self) -> Option<f64> {
        let polls = self.held.iter().map(|(_, _, due_ms)| *due_ms);
        polls.chain([self.cycled_ms + CYCLE_MS]).reduce(f64::min)
    }
}

fn describe(spec: &NodeSpec) -> PeerNode {
    PeerNode {
        bandwidth: Some(spec.hardware.bandwidth_gbps),
        total_gib: spec.hardware.system_bytes as f64 / GIB,
        sizes_gb: spec.models.iter().map(|model| (*model, MODELS[*model].bytes as f64 / 1e9)).collect(),
        // Not heard of yet.
        heard_ms: f64::NEG_INFINITY,
        ..PeerNode::default()
    }
}
