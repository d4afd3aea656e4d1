//! Many clients with many contexts, in virtual time: how often a model is loaded for them.

use std::collections::VecDeque;

use super::*;

/// What a mixture of requests has cost.
#[derive(Debug, Default, PartialEq, Eq)]
struct Costs {
    served: usize,
    loads: usize,
    reloads: usize,
}

/// One request that runs.
struct Running {
    claim: Claim,
    /// When its load ends, and the context that it loads.
    loads: Option<(u64, u64)>,
    node: u32,
    until_ms: u64,
}

struct Mixture {
    snapshot: FleetSnapshot,
    policy: Policy,
    running: Vec<Running>,
    costs: Costs,
    tickets: u64,
}

impl Mixture {
    fn new(nodes: usize, protection: Protection) -> Self {
        let ids: Vec<String> = (0..nodes).map(|index| format!("n{index}")).collect();
        let spec = NodeSpec { default_context: Some(4096), slots: Some(2), ..NodeSpec::default().cold("m") };
        let nodes: Vec<_> = ids.iter().map(|id| (id.as_str(), spec.clone())).collect();
        // No heartbeat comes in between: all that is known is what the edge itself sees.
        let life = LifeLimits { stale_after_ms: u64::MAX, offline_after_ms: u64::MAX, ..LifeLimits::default() };
        let policy = Policy { life, protection, ..Policy::default() };
        let snapshot = fleet(&nodes, NOW);
        Self { snapshot, policy, running: Vec::new(), costs: Costs::default(), tickets: 0 }
    }

    /// What has happened by `now_ms`.
    fn settle(&mut self, now_ms: u64) {
        let model = name("m");
        for running in &mut self.running {
            let Some((_, context)) = running.loads.take_if(|(until_ms, _)| *until_ms <= now_ms) else { continue };
            let signature = Signature::DEFAULT;
            let loaded = Loaded { node: running.node, model: &model, context_length: Some(context), signature };
            self.snapshot = self.snapshot.with_loaded(&loaded, now_ms).unwrap();
            assert!(running.claim.load_ended().is_some());
        }
        self.running.retain(|running| running.until_ms > now_ms);
    }

    /// Sends `profile` somewhere, if there is room.
    fn send(&mut self, profile: &RequestProfile, now_ms: u64) -> bool {
        let decision = Question { now_ms, ..question(&self.snapshot, profile, &self.policy) }.decide();
        let Some(chosen) = decision.ready().next() else { return false };
        let (node, model) = (&self.snapshot.nodes[chosen.node], &self.snapshot.nodes[chosen.node].models[0]);
        self.tickets += 1;
        let claim = Claim::try_take(&node.load, &model.load, &chosen.seen, self.tickets).unwrap();
        match chosen.plan.action {
            ContextAction::Load => self.costs.loads += 1,
            ContextAction::Reload => self.costs.reloads += 1,
            _ => {}
        }
        self.costs.served += 1;
        let window = chosen.plan.window.unwrap();
        let loads = chosen.seen.load.map(|load| (load.until_ms, window));
        let until_ms = loads.map_or(now_ms, |(until_ms, _)| until_ms) + 2_000;
        self.running.push(Running { claim, loads, node: node.number, until_ms });
        true
    }

    /// Requests that ask for these contexts, one every 700 ms, in the order of their coming.
    fn run(mut self, contexts: impl Iterator<Item = u64>) -> Costs {
        let mut coming: VecDeque<u64> = contexts.collect();
        let mut waiting: VecDeque<RequestProfile> = VecDeque::new();
        for now_ms in (NOW..NOW + 10_000_000).step_by(100) {
            self.settle(now_ms);
            if (now_ms - NOW).is_multiple_of(700) {
                waiting.extend(coming.pop_front().map(asking));
            }
            while waiting.front().is_some_and(|profile| self.send(profile, now_ms)) {
                waiting.pop_front();
            }
            if coming.is_empty() && waiting.is_empty() {
                break;
            }
        }
        drop(self.running);
        assert_eq!(self.snapshot.in_flight(), 0);
        self.costs
    }
}

/// Ten contexts in turn, the largest first.
fn ten_contexts() -> impl Iterator<Item = u64> {
    (0..200).map(|index| 10_240 - 1_024 * (index % 10))
}

#[test]
fn protected_clients_never_reload_a_model_that_holds_what_they_ask() {
    for nodes in [1, 3] {
        let costs = Mixture::new(nodes, Protection::Strip).run(ten_contexts());
        assert_eq!((costs.served, costs.reloads), (200, 0), "{costs:?}");
        assert!(costs.loads <= nodes, "{costs:?}");
    }
}

#[test]
fn a_client_that_asks_for_more_reloads_once_for_all_that_follow() {
    let rising = (0..200).map(|index| if index < 100 { 4096 } else { 8192 });
    let costs = Mixture::new(1, Protection::Strip).run(rising);
    assert_eq!(costs, Costs { served: 200, loads: 1, reloads: 1 });
}

#[test]
fn unprotected_clients_reload_it_nearly_every_time() {
    for protection in [Protection::Passthrough, Protection::Warn] {
        let costs = Mixture::new(2, protection).run(ten_contexts());
        assert_eq!(costs.served, 200);
        assert!(costs.reloads > 150, "{costs:?}");
    }
}
