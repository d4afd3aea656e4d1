//! The policies that load balancers commonly have. They send everything at once, so that what waits does so inside the
//! nodes, and pass `num_ctx` on as it is.
//!
//! They get what their users give them in practice: the nodes that list a model are its pool, a node without a report
//! for 30 s is out, one that could not be reached is out for 10 s (nginx's `fail_timeout`), and a request is tried on
//! three nodes. Those called `-hot` first look among the nodes that have the model in memory, as balancers made for
//! Ollama do.

use std::collections::HashMap;

use crate::sim::node::Report;
use crate::sim::rng::Rng;
use crate::sim::router::{Action, Ended, Failed, Patience, Router, Sent, World};
use crate::sim::workload::{KEEP_ALIVE_MS, Request};

/// Silence after which a node is out.
const OFFLINE_MS: f64 = 30_000.0;
/// How long a node that failed is out.
const FAIL_TIMEOUT_MS: f64 = 10_000.0;
/// Nodes that a request is tried on.
const MAX_ATTEMPTS: usize = 3;
/// Time in which the peak of `peak-ewma` falls to a third, as in Finagle.
const EWMA_DECAY_MS: f64 = 10_000.0;

/// How a node is picked from the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Any.
    Random,
    /// One after the other.
    RoundRobin,
    /// The fewest requests of ours.
    LeastConnections,
    /// The shortest queue for its slots, ours as counted and others' as reported; where all are full, an idle node that loads.
    ShortestQueue,
    /// The one with fewer requests of ours, of two drawn.
    PowerOfTwo,
    /// The one with the lower expected latency, of two drawn: its decayed latency, which jumps to peaks, times what is
    /// outstanding (Finagle, linkerd).
    PeakEwma,
    /// The least product of the tokens of the prompt that are not cached there and the batch that they join (`LMetric`).
    PrefillTimesBatch,
}

/// What is known of one node.
#[derive(Debug, Clone, Default)]
struct Member {
    heard_ms: f64,
    out_until_ms: f64,
    loaded: Vec<usize>,
    slots: u32,
    /// Requests on the node by its last report that were not ours.
    others: u32,
    /// Ours, by model.
    ours: HashMap<usize, u32>,
    ewma_ms: f64,
    ewma_at_ms: f64,
    /// Conversations and how much of them was sent here last.
    conversations: HashMap<u64, u64>,
}

impl Member {
    fn connections(&self) -> u32 {
        self.ours.values().sum()
    }

    fn has_loaded(&self, model: usize) -> bool {
        self.loaded.contains(&model) || self.ours.get(&model).is_some_and(|count| *count > 0)
    }

    fn queue_per_slot(&self) -> f64 {
        f64::from(self.connections() + self.others) / f64::from(self.slots.max(1))
    }

    /// A latency above the average replaces it; one below moves it by how long ago the last one was.
    fn observe(&mut self, latency_ms: f64, now_ms: f64) {
        let keep = (-(now_ms - self.ewma_at_ms) / EWMA_DECAY_MS).exp();
        let average = self.ewma_ms * keep + latency_ms * (1.0 - keep);
        self.ewma_ms = if latency_ms > self.ewma_ms { latency_ms } else { average };
        self.ewma_at_ms = now_ms;
    }

    fn expected_ms(&self) -> f64 {
        self.ewma_ms * f64::from(self.connections() + 1)
    }
}

/// A common load balancer.
pub(crate) struct Simple {
    rule: Rule,
    hot_first: bool,
    rng: Rng,
    members: Vec<Member>,
    /// Nodes by model.
    pools: HashMap<usize, Vec<usize>>,
    turns: HashMap<usize, usize>,
    tried: HashMap<usize, Vec<usize>>,
}

impl Simple {
    pub(crate) fn new(rule: Rule, hot_first: bool, seed: u64) -> Self {
        let (members, pools) = (Vec::new(), HashMap::new());
        Self { rule, hot_first, rng: Rng::new(seed), members, pools, turns: HashMap::new(), tried: HashMap::new() }
    }

    /// The nodes from which one is picked.
    fn pool(&mut self, world: World<'_>, now_ms: f64, model: usize, tried: &[usize]) -> Vec<usize> {
        let listed = self.pools.entry(model).or_insert_with(|| {
            (0..world.nodes.len()).filter(|node| world.nodes[*node].models.contains(&model)).collect()
        });
        let untried = || listed.iter().copied().filter(|node| !tried.contains(node));
        let well = |node: &usize| {
            let member = &self.members[*node];
            now_ms - member.heard_ms <= OFFLINE_MS && member.out_until_ms <= now_ms
        };
        let mut pool: Vec<usize> = untried().filter(well).collect();
        if pool.is_empty() {
            pool = untried().collect();
        }
        let hot = |node: &usize| self.members[*node].has_loaded(model);
        if self.hot_first && pool.iter().any(hot) {
            let full = |node: &usize| self.members[*node].queue_per_slot() >= 1.0;
            let spills = self.rule == Rule::ShortestQueue && pool.iter().filter(|node| hot(node)).all(full);
            let idle = |node: &usize| spills && self.members[*node].queue_per_slot() == 0.0;
            pool.retain(|node| hot(node) || idle(node));
        }
        pool
    }

    fn pick(&mut self, pool: &[usize], request: &Request) -> usize {
        let members = &self.members;
        let least = |key: &dyn Fn(usize) -> f64| {
            let best = pool.iter().copied().min_by(|a, b| key(*a).total_cmp(&key(*b)));
            best.unwrap_or(pool[0])
        };
        match self.rule {
            Rule::Random => pool[self.rng.index(pool.len())],
            Rule::RoundRobin => {
                let turn = self.turns.entry(request.model).or_default();
                *turn += 1;
                pool[*turn % pool.len()]
            }
            Rule::LeastConnections => least(&|node| f64::from(members[node].connections())),
            Rule::ShortestQueue => least(&|node| members[node].queue_per_slot()),
            Rule::PowerOfTwo => self.of_two(pool, |member| f64::from(member.connections())),
            Rule::PeakEwma => self.of_two(pool, Member::expected_ms),
            Rule::PrefillTimesBatch => least(&|node| {
                let known = request.prefix.map_or(0, |(session, shared)| {
                    shared.min(members[node].conversations.get(&session).copied().unwrap_or_default())
                });
                let new = request.estimate.saturating_sub(known).max(1);
                new as f64 * f64::from(members[node].connections() + 1)
            }),
        }
    }

    fn of_two(&mut self, pool: &[usize], cost: impl Fn(&Member) -> f64) -> usize {
        let (a, b) = (pool[self.rng.index(pool.len())], pool[self.rng.index(pool.len())]);
        if cost(&self.members[b]) < cost(&self.members[a]) { b } else { a }
    }

    fn send(&mut self, world: World<'_>, now_ms: f64, request: usize, out: &mut Vec<Action>) {
        let asked = &world.requests[request];
        let tried = self.tried.get(&request).cloned().unwrap_or_default();
        let pool = self.pool(world, now_ms, asked.model, &tried);
        if pool.is_empty() || tried.len() >= MAX_ATTEMPTS {
            out.push(Action::Refuse { request });
            return;
        }
        let node = self.pick(&pool, asked);
        self.tried.entry(request).or_default().push(node);
        let member = &mut self.members[node];
        *member.ours.entry(asked.model).or_default() += 1;
        if let Some((session, _)) = asked.prefix {
            member.conversations.insert(session, asked.prompt + asked.output);
        }
        out.push(Action::Send(Sent { request, node, context: asked.num_ctx, keep_ms: KEEP_ALIVE_MS }));
    }

    fn gives_back(&mut self, world: World<'_>, request: usize, node: usize) {
        if let Some(count) = self.members[node].ours.get_mut(&world.requests[request].model) {
            *count -= 1;
        }
    }
}

impl Router for Simple {
    fn patience(&self) -> Patience {
        // nginx's proxy_read_timeout.
        Patience { connect_ms: 2_000.0, silence_ms: 60_000.0 }
    }

    fn heartbeat(&mut self, world: World<'_>, now_ms: f64, node: usize, report: &Report) {
        if self.members.is_empty() {
            self.members = vec![Member::default(); world.nodes.len()];
        }
        let member = &mut self.members[node];
        member.heard_ms = now_ms;
        member.slots = world.nodes[node].hardware.slots;
        member.loaded.clear();
        member.loaded.extend(report.runners.iter().map(|runner| runner.model).chain(report.loading));
        let reported: u32 = report.runners.iter().map(|runner| runner.busy + runner.waiting).sum();
        member.others = reported.saturating_sub(member.connections());
    }

    fn arrives(&mut self, world: World<'_>, now_ms: f64, request: usize, out: &mut Vec<Action>) {
        self.send(world, now_ms, request, out);
    }

    fn done(&mut self, world: World<'_>, now_ms: f64, ended: Ended, _out: &mut Vec<Action>) {
        self.gives_back(world, ended.request, ended.node);
        self.members[ended.node].observe(now_ms - ended.sent_ms, now_ms);
        self.tried.remove(&ended.request);
    }

    fn failed(&mut self, world: World<'_>, now_ms: f64, failed: Failed, out: &mut Vec<Action>) {
        self.gives_back(world, failed.request, failed.node);
        self.members[failed.node].out_until_ms = now_ms + FAIL_TIMEOUT_MS;
        if !failed.answered {
            self.send(world, now_ms, failed.request, out);
        }
    }
}
