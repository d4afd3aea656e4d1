//! Which node serves a request: from one snapshot to a ranking that explains itself.

use crate::eligible::{Ineligible, model_eligible, node_eligible};
use crate::estimate::{Prediction, needs_load, predict};
use crate::fleet::{FleetSnapshot, LifeLimits, Model, Node, NodeState};
use crate::name::ModelName;
use crate::protect::{ContextPlan, Protection, plan};
use crate::request::RequestProfile;
use crate::score::{Facts, Score, Weights};

/// How decisions are made.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Policy {
    /// What each signal may add.
    pub weights: Weights,
    /// When a silent node changes its state.
    pub life: LifeLimits,
    /// What is done about a client's `num_ctx`.
    pub protection: Protection,
}

/// Candidates that are ranked; the rest is in no order. A request has far fewer attempts.
pub const RANKED: usize = 16;

/// Scores closer than this are equal, in points: the signals are not more exact.
const TIE_BAND: f64 = 1.0;

/// One node that can serve the request.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its place in the snapshot.
    pub node: usize,
    /// Its score.
    pub score: Score,
    /// [`Score::total`] of it.
    pub total: f64,
    /// What it would take there.
    pub prediction: Prediction,
    /// What happens to the context there.
    pub plan: ContextPlan,
    /// The node's in-flight that the score was made on.
    pub seen_in_flight: u32,
    /// It is taken only when no other can serve: silent for long, or lacking something that its backend should say.
    pub last_resort: Option<&'static str>,
}

/// The outcome for one model: who could serve it, best first, and who could not.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The model that serves: the requested one or one of its fallbacks.
    pub model: ModelName,
    /// The best [`RANKED`] of them in order, then the others.
    pub candidates: Vec<Candidate>,
    /// Nodes that cannot serve it, with the reason.
    pub refused: Vec<(usize, Ineligible)>,
}

/// Chooses among the requested model and its fallbacks, in the client's order: the first that any node can serve.
///
/// When none can, the decision about the requested model is returned, with no candidates.
#[must_use]
pub fn decide(
    snapshot: &FleetSnapshot,
    profile: &RequestProfile,
    policy: &Policy,
    tried: &[u32],
    now_ms: u64,
) -> Decision {
    let question = Question { snapshot, profile, policy, tried, now_ms };
    let requested = question.rank(&profile.model);
    if requested.candidates.iter().any(|candidate| candidate.last_resort.is_none()) {
        return requested;
    }
    let fallbacks = profile.fallback_models.iter().map(|model| question.rank(model));
    fallbacks.into_iter().find(|decision| !decision.candidates.is_empty()).unwrap_or(requested)
}

struct Question<'a> {
    snapshot: &'a FleetSnapshot,
    profile: &'a RequestProfile,
    policy: &'a Policy,
    tried: &'a [u32],
    now_ms: u64,
}

impl Question<'_> {
    fn rank(&self, name: &ModelName) -> Decision {
        let key = name.key();
        let mut candidates = Vec::new();
        let mut refused = Vec::new();
        for (index, node) in self.snapshot.nodes.iter().enumerate() {
            match self.candidate(index, node, name, key) {
                Ok(candidate) => candidates.push(candidate),
                Err(reason) => refused.push((index, reason)),
            }
        }
        self.score(&mut candidates, key);
        order(&mut candidates, self.snapshot);
        Decision { model: name.clone(), candidates, refused }
    }

    /// The node as a candidate, not yet scored.
    fn candidate(&self, index: usize, node: &Node, name: &ModelName, key: u64) -> Result<Candidate, Ineligible> {
        let model = node.model_by_key(key).filter(|model| model.name == *name).ok_or(Ineligible::ModelAbsent)?;
        if self.tried.contains(&node.number) {
            return Err(Ineligible::AlreadyTried);
        }
        let stale = node.state(self.now_ms, &self.policy.life) == NodeState::Stale;
        let mut last_resort = stale.then_some("stale");
        for outcome in [node_eligible(node, self.now_ms, &self.policy.life), model_eligible(self.profile, node, model)]
        {
            match outcome {
                Ok(()) => {}
                Err(reason) if reason.yields_to_any() => last_resort = Some(reason.name()),
                Err(reason) => return Err(reason),
            }
        }
        let plan = plan(self.profile, node, model, None, self.policy.protection);
        let prediction = predict(self.profile, node, model, &plan, self.now_ms);
        let seen_in_flight = node.load.in_flight();
        let score = Score::default();
        Ok(Candidate { node: index, score, total: 0.0, prediction, plan, seen_in_flight, last_resort })
    }

    fn score(&self, candidates: &mut [Candidate], key: u64) {
        let loading = candidates.iter().filter(|candidate| needs_load(&candidate.plan));
        let load_elsewhere_ms = loading.map(|candidate| candidate.prediction.until_start_ms()).reduce(f64::min);
        for candidate in candidates {
            let node = &self.snapshot.nodes[candidate.node];
            let Some(model) = node.model_by_key(key) else { continue };
            candidate.score = Score::of(&self.facts(candidate, node, model, load_elsewhere_ms), &self.policy.weights);
            candidate.total = candidate.score.total();
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
}

/// Puts the best [`RANKED`] first, in order. Of those as good as the best, the one chosen longest ago leads, so that
/// equals take turns; the node's place, which is the order of ids, settles the rest.
fn order(candidates: &mut [Candidate], snapshot: &FleetSnapshot) {
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
    let Some(best) = ranked.first() else { return };
    let (best_total, best_resort) = (best.total, best.last_resort.is_some());
    let equals = ranked
        .iter()
        .take_while(|c| best_total - c.total <= TIE_BAND && c.last_resort.is_some() == best_resort)
        .count();
    ranked[..equals].sort_by_key(|candidate| snapshot.nodes[candidate.node].load.last_chosen());
}

#[cfg(test)]
mod tests;
