//! One model's nodes: who could serve it, how well, and who may be sent it now.

use super::{Candidate, Decision, Order, Question, StandIn};
use crate::eligible::{Ineligible, model_eligible, node_eligible};
use crate::estimate::{needs_load, predict, usable_slots};
use crate::fleet::{FleetSnapshot, Model, Node, NodeState};
use crate::load::{Loading, Seen};
use crate::name::ModelName;
use crate::protect::{ContextAction, plan};
use crate::ready::{Readiness, readiness};
use crate::score::{Facts, Score};

/// Candidates that are ranked; the rest is in no order. A request has far fewer attempts.
pub const RANKED: usize = 16;

/// Scores closer than this are equal, in points: the signals are not more exact.
const TIE_BAND: f64 = 1.0;

impl Question<'_> {
    /// Ranks the nodes for the model `name`, which serves as `stand_in`.
    pub(super) fn rank(&self, name: &ModelName, stand_in: Option<StandIn>) -> Decision {
        let key = name.key();
        let mut candidates = Vec::new();
        let mut refused = Vec::new();
        for (index, node) in self.snapshot.nodes.iter().enumerate() {
            match self.candidate(index, node, name, key) {
                Ok(mut candidate) => {
                    if stand_in == Some(StandIn::Upgrade) && !needs_load(&candidate.plan) {
                        candidate.plan.action = ContextAction::Upgraded;
                    }
                    candidates.push(candidate);
                }
                Err(reason) => refused.push((index, reason)),
            }
        }
        self.add_queue(&mut candidates, key);
        self.hold_loads(&mut candidates, key);
        self.score(&mut candidates, key);
        self.order(&mut candidates);
        Decision { model: name.clone(), stand_in, candidates, refused }
    }

    /// The node as a candidate, not yet scored.
    fn candidate(&self, index: usize, node: &Node, name: &ModelName, key: u64) -> Result<Candidate, Ineligible> {
        let model = node.model_by_key(key).filter(|model| model.name == *name).ok_or(Ineligible::ModelAbsent)?;
        if self.tried.contains(&node.number) {
            return Err(Ineligible::AlreadyTried);
        }
        let life = &self.policy.life;
        let stale = node.state(self.now_ms, life) == NodeState::Stale;
        let mut last_resort = stale.then_some("stale");
        for outcome in [node_eligible(node, self.now_ms, life), model_eligible(self.profile, node, model)] {
            match outcome {
                Ok(()) => {}
                Err(reason) if reason.yields_to_any() => last_resort = Some(reason.name()),
                Err(reason) => return Err(reason),
            }
        }
        // Read before everything that it must vouch for.
        let (in_flight, on_model) = (node.load.in_flight(), model.load.in_flight());
        let mut plan = plan(self.profile, node, model, model.load.launched(), self.policy.protection);
        if self.policy.openai_alias {
            plan = plan.by_alias(self.profile, node, model);
        }
        let prediction = predict(self.profile, node, model, &plan, self.now_ms);
        let readiness = readiness(self.profile, node, model, &plan, self.now_ms);
        let load = needs_load(&plan).then(|| Loading {
            model: key,
            since_ms: self.now_ms,
            until_ms: self.now_ms.saturating_add(millis(prediction.load_ms)),
        });
        let score = Score::default();
        let seen = Seen { in_flight, on_model, load };
        Ok(Candidate { node: index, score, total: 0.0, prediction, plan, seen, readiness, last_resort })
    }

    /// Adds the requests that wait at the edge to the wait at the nodes that have the model: they share that work by
    /// their slots.
    fn add_queue(&self, candidates: &mut [Candidate], key: u64) {
        if self.ahead == 0 {
            return;
        }
        let slots = |candidate: &Candidate| {
            let node = &self.snapshot.nodes[candidate.node];
            node.model_by_key(key).map_or(1, |model| usable_slots(node, model, self.now_ms))
        };
        let serves = |candidate: &Candidate| !starts_load(candidate);
        let all: u32 = candidates.iter().filter(|candidate| serves(candidate)).map(slots).sum();
        let ahead = f64::from(self.ahead) / f64::from(all.max(1));
        for candidate in candidates.iter_mut().filter(|candidate| serves(candidate)) {
            let service_ms = candidate.prediction.prefill_ms + candidate.prediction.decode_ms;
            candidate.prediction.wait_ms += ahead * service_ms;
        }
    }

    /// One load of a model at a time: while a node loads it, the others wait for that; and while a node has it, another
    /// load must pay.
    ///
    /// It pays when the wait for those that have it is longer than the load, as far as their speed has been measured:
    /// a guess is no reason to push other models out of memory. Without a measurement, or in spite of it, it pays once
    /// the request has waited as long as the load takes, which is at most twice the best choice in hindsight (the
    /// ski-rental rule: Karlin, Manasse, Rudolph and Sleator, 1988).
    fn hold_loads(&self, candidates: &mut [Candidate], key: u64) {
        let healthy = |candidate: &&Candidate| candidate.last_resort.is_none();
        let under_way = candidates.iter().filter(healthy).any(|candidate| candidate.readiness == Readiness::Loading);
        let serving = candidates.iter().filter(healthy).filter(|candidate| !starts_load(candidate));
        let waits =
            serving.map(|candidate| if self.is_measured(candidate, key) { until_start(candidate) } else { 0.0 });
        let soonest_ms = waits.reduce(f64::min);
        let free = candidates.iter_mut().filter(|c| starts_load(c) && c.readiness == Readiness::Free);
        for candidate in free {
            let load_ms = until_start(candidate);
            if under_way {
                candidate.readiness = Readiness::LoadsElsewhere;
            } else if soonest_ms.is_some_and(|soonest_ms| soonest_ms.max(self.waited_ms as f64) <= load_ms) {
                candidate.readiness = Readiness::LoadDoesNotPay;
            }
        }
    }

    /// Whether what requests take there is known and not guessed.
    fn is_measured(&self, candidate: &Candidate, key: u64) -> bool {
        let model = self.snapshot.nodes[candidate.node].model_by_key(key);
        model.is_some_and(|model| model.load.p75_ms().is_some() || model.load.decode_ms_per_token().is_some())
    }

    fn score(&self, candidates: &mut [Candidate], key: u64) {
        let loading = candidates.iter().filter(|candidate| starts_load(candidate));
        let load_elsewhere_ms = loading.map(|candidate| candidate.prediction.until_start_ms()).reduce(f64::min);
        for candidate in candidates {
            let node = &self.snapshot.nodes[candidate.node];
            let Some(model) = node.model_by_key(key) else { continue };
            candidate.score = Score::of(&self.facts(candidate, node, model, load_elsewhere_ms), &self.policy.weights);
            candidate.total = match self.policy.order {
                Order::Score => candidate.score.total(),
                // In tenths of a second, so that the band of ties stays narrow.
                Order::Eta => -candidate.prediction.total_ms().min(1e12) / 100.0,
            };
        }
    }

    fn facts<'a>(
        &'a self,
        candidate: &Candidate,
        node: &'a Node,
        model: &'a Model,
        load_elsewhere_ms: Option<f64>,
    ) -> Facts<'a> {
        Facts {
            profile: self.profile,
            node,
            model,
            plan: candidate.plan,
            prediction: candidate.prediction,
            load_elsewhere_ms,
            now_ms: self.now_ms,
        }
    }

    /// Puts the best [`RANKED`] first, in order. Of those as good as the best, the one chosen longest ago leads, so
    /// that equals take turns; the node's place, which is the order of ids, settles the rest.
    fn order(&self, candidates: &mut [Candidate]) {
        let by_rank = |a: &Candidate, b: &Candidate| {
            let last_resort = a.last_resort.is_some().cmp(&b.last_resort.is_some());
            last_resort.then(b.total.total_cmp(&a.total)).then(a.node.cmp(&b.node))
        };
        if candidates.len() > RANKED {
            candidates.select_nth_unstable_by(RANKED - 1, by_rank);
        }
        let ranked = candidates.len().min(RANKED);
        let ranked = &mut candidates[..ranked];
        ranked.sort_unstable_by(by_rank);
        take_turns(ranked, self.snapshot);
    }
}

fn take_turns(ranked: &mut [Candidate], snapshot: &FleetSnapshot) {
    let Some(best) = ranked.first() else { return };
    let (best_total, best_resort) = (best.total, best.last_resort.is_some());
    let equals = ranked
        .iter()
        .take_while(|c| best_total - c.total <= TIE_BAND && c.last_resort.is_some() == best_resort)
        .count();
    ranked[..equals].sort_by_key(|candidate| snapshot.nodes[candidate.node].load.last_chosen());
}

/// Whether a request sent there would start a load: one that is under way is joined.
fn starts_load(candidate: &Candidate) -> bool {
    needs_load(&candidate.plan) && candidate.readiness != Readiness::Loading
}

fn until_start(candidate: &Candidate) -> f64 {
    candidate.prediction.until_start_ms()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
fn millis(ms: f64) -> u64 {
    ms as u64
}
