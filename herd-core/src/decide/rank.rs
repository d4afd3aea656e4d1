//! One model's nodes: who could serve it, how well, and who may be sent it now.

use std::cmp::Ordering;

use super::{Candidate, Decision, Order, Question, StandIn};
use crate::eligible::{Ineligible, model_eligible, node_eligible};
use crate::estimate::{Prediction, SLOWER_BY, Usual, load_ms, lost_ms, needs_load, predict, usable_slots};
use crate::fleet::{Model, Node, NodeState};
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
        let nodes = &self.snapshot.nodes;
        // A candidate is large, and room for all costs less than moving them as they become more.
        let (mut candidates, mut models) = (Vec::with_capacity(nodes.len()), Vec::with_capacity(nodes.len()));
        let mut refused = Vec::new();
        let everywhere = nodes.iter().filter_map(|node| Some((node.as_ref(), node.model_by_key(key)?)));
        let usual = Usual::of(everywhere);
        for (index, node) in nodes.iter().enumerate() {
            let model = node.model_by_key(key).filter(|model| model.name == *name).ok_or(Ineligible::ModelAbsent);
            match model.and_then(|model| Ok((model, self.candidate(index, node, model, usual)?))) {
                Ok((model, mut candidate)) => {
                    if stand_in == Some(StandIn::Upgrade) && !needs_load(&candidate.plan) {
                        candidate.plan.action = ContextAction::Upgraded;
                    }
                    candidates.push(candidate);
                    models.push(model);
                }
                Err(reason) => refused.push((index, reason)),
            }
        }
        self.add_queue(&mut candidates, &models);
        self.count_the_wait_so_far(&mut candidates);
        hold_loads(&mut candidates, &models, self.waited_ms);
        self.score(&mut candidates, &models);
        order(&mut candidates);
        Decision { model: name.clone(), stand_in, candidates, refused }
    }

    /// The node as a candidate, not yet scored.
    fn candidate(&self, index: usize, node: &Node, model: &Model, usual: Usual) -> Result<Candidate, Ineligible> {
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
        let last_chosen = node.load.last_chosen();
        let mut plan = plan(self.profile, node, model, model.load.launched(), self.policy.protection);
        if self.policy.openai_alias {
            plan = plan.by_alias(self.profile, node, model);
        }
        let mut prediction = predict(self.profile, node, model, &plan, usual, self.now_ms);
        let mut readiness = readiness(self.profile, node, model, &plan, self.now_ms);
        if readiness == Readiness::Free && on_model >= usable_slots(node, model, self.now_ms) {
            // Full when it was read: a slot that was free in between may be taken again, and a claim would not see it.
            readiness = Readiness::Occupied;
        }
        if readiness == Readiness::Reserved {
            // Whom it is kept for loads and runs first.
            prediction.wait_ms += load_ms(model, self.now_ms) + prediction.prefill_ms + prediction.decode_ms;
        }
        let load = needs_load(&plan).then(|| Loading {
            model: model.key,
            since_ms: self.now_ms,
            until_ms: self.now_ms.saturating_add(millis(prediction.load_ms)),
        });
        let score = Score::default();
        let seen = Seen { in_flight, on_model, load };
        Ok(Candidate { node: index, score, total: 0.0, prediction, plan, seen, readiness, last_resort, last_chosen })
    }

    /// Adds the requests that wait at the edge to the wait at the busy nodes that have the model, which work them off
    /// together, each at its own pace. A free slot is taken at once: those ahead have left it.
    fn add_queue(&self, candidates: &mut [Candidate], models: &[&Model]) {
        if self.ahead == 0 {
            return;
        }
        let counts = counts(candidates);
        let busy = |candidate: &Candidate| !starts_load(candidate) && candidate.readiness != Readiness::Free;
        let per_ms = |(candidate, model): (&Candidate, &&Model)| {
            let slots = usable_slots(&self.snapshot.nodes[candidate.node], model, self.now_ms);
            f64::from(slots) / (candidate.prediction.prefill_ms + candidate.prediction.decode_ms)
        };
        let those = candidates.iter().zip(models).filter(|(candidate, _)| counts(candidate) && busy(candidate));
        let all_per_ms: f64 = those.map(per_ms).sum();
        if all_per_ms <= 0.0 {
            return;
        }
        let wait_ms = f64::from(self.ahead) / all_per_ms;
        for candidate in candidates.iter_mut().filter(|candidate| busy(candidate)) {
            candidate.prediction.wait_ms += wait_ms;
        }
    }

    /// Where a slot is free, one that has been waited for longer than was predicted is taken to need as long again: what
    /// runs there may be many times longer than what waits, and a guess of its speed may be wrong for good. So nobody
    /// waits beside a free slot for more than about the time that it would have taken there.
    fn count_the_wait_so_far(&self, candidates: &mut [Candidate]) {
        // When a load pays is another question.
        let is_free = |candidate: &Candidate| candidate.readiness == Readiness::Free && !starts_load(candidate);
        if !candidates.iter().any(is_free) {
            return;
        }
        for candidate in candidates.iter_mut().filter(|candidate| candidate.readiness.is_waited_for()) {
            candidate.prediction.wait_ms = candidate.prediction.wait_ms.max(self.waited_ms as f64);
        }
    }

    fn score(&self, candidates: &mut [Candidate], models: &[&Model]) {
        let counts = counts(candidates);
        let loading = candidates.iter().filter(|candidate| counts(candidate) && starts_load(candidate));
        let load_elsewhere = loading.map(|candidate| candidate.prediction).reduce(sooner);
        let counted = candidates.iter().filter(|candidate| counts(candidate));
        let fastest_ms = counted.map(|one| one.prediction.wait_ms + one.prediction.run_ms()).reduce(f64::min);
        for (candidate, model) in candidates.iter_mut().zip(models) {
            let node = &self.snapshot.nodes[candidate.node];
            let facts = self.facts(candidate, (node, model), load_elsewhere, fastest_ms);
            candidate.score = Score::of(&facts, &self.policy.weights);
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
        (node, model): (&'a Node, &'a Model),
        load_elsewhere: Option<Prediction>,
        fastest_ms: Option<f64>,
    ) -> Facts<'a> {
        Facts {
            profile: self.profile,
            node,
            model,
            plan: candidate.plan,
            prediction: candidate.prediction,
            load_elsewhere,
            fastest_ms,
            now_ms: self.now_ms,
        }
    }
}

/// One load of a model at a time: while a node loads it, the others wait for that; and while a node has it, another
/// load must pay.
///
/// It pays when the wait for those that have it is longer than the load, or when all of them are so slow or crowded
/// that more would be lost by that, as far as their speed has been measured: a guess is no reason to push other models
/// out of memory. Without a measurement, or in spite of it, it pays once the request has waited as long as the load
/// takes, which is at most twice the best choice in hindsight (the ski-rental rule: Karlin, Manasse, Rudolph and
/// Sleator, 1988). A reload never pays while a slot is free on a runner that serves the request as it is.
fn hold_loads(candidates: &mut [Candidate], models: &[&Model], waited_ms: u64) {
    let counts = counts(candidates);
    let counted = || candidates.iter().zip(models).filter(|(candidate, _)| counts(candidate));
    let under_way = counted().any(|(candidate, _)| candidate.readiness == Readiness::Loading);
    let serving = || counted().filter(|(candidate, _)| !starts_load(candidate));
    let soonest_ms = serving().map(|one| measured(one).until_start_ms()).reduce(f64::min);
    let soonest_ms = soonest_ms.map(|soonest_ms| soonest_ms.max(waited_ms as f64));
    let best = serving().map(measured).reduce(sooner);
    let any_serves = serving().any(|(candidate, _)| candidate.readiness == Readiness::Free);
    let pays = |candidate: &Candidate| {
        let waits = soonest_ms.is_none_or(|soonest_ms| soonest_ms > pays_after_ms(candidate));
        let outruns = best.is_some_and(|best| lost_ms(&best, &candidate.prediction) > outruns_after_ms(candidate));
        (waits || outruns) && !(is_reload(candidate) && any_serves)
    };
    for candidate in candidates.iter_mut().filter(|c| starts_load(c) && c.readiness == Readiness::Free) {
        if under_way {
            candidate.readiness = Readiness::LoadsElsewhere;
        } else if !pays(candidate) {
            candidate.readiness = Readiness::LoadDoesNotPay;
        }
    }
}

/// The prediction for a node whose speed is known and not guessed; else that nothing takes any time.
fn measured((candidate, model): (&Candidate, &&Model)) -> Prediction {
    if is_measured(model) { candidate.prediction } else { Prediction::default() }
}

/// Whether what requests take there is known and not guessed.
fn is_measured(model: &Model) -> bool {
    model.load.p75_ms().is_some() || model.load.decode_ms_per_token().is_some()
}

/// Puts the best [`RANKED`] first, in order. Of those as good as the best, the one chosen longest ago leads, so
/// that equals take turns; the node's place, which is the order of ids, settles the rest.
fn order(candidates: &mut [Candidate]) {
    let by_rank = |a: &Candidate, b: &Candidate| {
        let last_resort = a.last_resort.is_some().cmp(&b.last_resort.is_some());
        let turn = a.last_chosen.cmp(&b.last_chosen).then(a.node.cmp(&b.node));
        last_resort.then(b.total.total_cmp(&a.total)).then(turn)
    };
    let ranked = bring_to_front(candidates, by_rank);
    let ranked = &mut candidates[..ranked];
    take_turns(ranked);
    keep_one_ready(candidates);
}

/// Puts the first [`RANKED`] by `order` in front, in that order; returns how many there are. Candidates are large, so that
/// no more of them are moved than that.
fn bring_to_front(candidates: &mut [Candidate], order: impl Fn(&Candidate, &Candidate) -> Ordering) -> usize {
    let mut best: Vec<usize> = Vec::with_capacity(RANKED + 1);
    for (place, candidate) in candidates.iter().enumerate() {
        let comes_before = |other: &usize| order(candidate, &candidates[*other]) == Ordering::Less;
        if best.len() == RANKED && !best.last().is_some_and(comes_before) {
            continue;
        }
        let at = best.partition_point(|other| !comes_before(other));
        best.insert(at, place);
        best.truncate(RANKED);
    }
    for front in 0..best.len() {
        let from = best[front];
        candidates.swap(front, from);
        // Whoever stood in front stands there now.
        if let Some(moved) = best[front + 1..].iter_mut().find(|place| **place == front) {
            *moved = from;
        }
    }
    best.len()
}

/// Where none of the ranked can go now, the last of their places goes to the fastest of the others that could: the
/// best nodes may all be busy while a lesser one would answer sooner.
fn keep_one_ready(candidates: &mut [Candidate]) {
    if candidates.len() <= RANKED || ready(candidates).next().is_some() {
        return;
    }
    let counts = counts(candidates);
    let (ranked, others) = candidates.split_at_mut(RANKED);
    let free = others.iter_mut().filter(|other| counts(other) && other.readiness == Readiness::Free);
    let fastest =
        free.min_by(|a, b| a.prediction.total_ms().total_cmp(&b.prediction.total_ms()).then(a.node.cmp(&b.node)));
    if let Some(fastest) = fastest {
        std::mem::swap(&mut ranked[RANKED - 1], fastest);
    }
}

fn take_turns(ranked: &mut [Candidate]) {
    let Some(best) = ranked.first() else { return };
    let (best_total, best_resort) = (best.total, best.last_resort.is_some());
    let equals = ranked
        .iter()
        .take_while(|c| best_total - c.total <= TIE_BAND && c.last_resort.is_some() == best_resort)
        .count();
    ranked[..equals].sort_by_key(|candidate| candidate.last_chosen);
}

/// The wait elsewhere beyond which a load here pays. A reload takes a runner from those it serves, who are likely to
/// take it back: it must be worth two.
fn pays_after_ms(candidate: &Candidate) -> f64 {
    let Prediction { wait_ms, load_ms, .. } = candidate.prediction;
    let loads = if is_reload(candidate) { 2.0 } else { 1.0 };
    wait_ms + loads * load_ms
}

/// Whether it takes a runner from those it serves.
fn is_reload(candidate: &Candidate) -> bool {
    candidate.plan.action == ContextAction::Reload
}

/// What must be lost by being served elsewhere, see [`lost_ms`], beyond which a load here pays though nobody waits there:
/// twice the load, because it pushes out what others will load again.
fn outruns_after_ms(candidate: &Candidate) -> f64 {
    pays_after_ms(candidate) + candidate.prediction.load_ms
}

/// Which candidates others need heed: a last resort counts only where there is nothing else.
fn counts(candidates: &[Candidate]) -> impl Fn(&Candidate) -> bool + Copy + use<> {
    let nothing_else = candidates.iter().all(|candidate| candidate.last_resort.is_some());
    move |candidate| nothing_else || candidate.last_resort.is_none()
}

/// Whichever would be done first.
fn sooner(a: Prediction, b: Prediction) -> Prediction {
    if b.total_ms() < a.total_ms() { b } else { a }
}

/// The candidates that go now, of those that are ranked; see [`Decision::ready`].
///
/// A free node that ranks before a busy one still waits for that, if it is predicted to take [`SLOWER_BY`] times as long:
/// points for an empty queue must not send a request to a machine that is many times slower.
pub(super) fn ready(candidates: &[Candidate]) -> impl Iterator<Item = &Candidate> {
    let ranked = &candidates[..candidates.len().min(RANKED)];
    let suspect = ranked.first().is_some_and(|best| best.last_resort.is_some());
    let waited_for = ranked.iter().filter(|c| c.readiness.is_waited_for() && (suspect || c.last_resort.is_none()));
    let soonest_ms = waited_for.map(|candidate| candidate.prediction.total_ms()).fold(f64::INFINITY, f64::min);
    let mut waited_ms = f64::INFINITY;
    ranked.iter().filter(move |candidate| {
        if candidate.readiness.is_waited_for() {
            waited_ms = waited_ms.min(candidate.prediction.total_ms());
        }
        let total_ms = candidate.prediction.total_ms();
        let worth = total_ms <= waited_ms && total_ms <= soonest_ms * SLOWER_BY;
        candidate.readiness == Readiness::Free && worth && (suspect || candidate.last_resort.is_none())
    })
}

/// Whether a request sent there would start a load: one that is under way is joined.
fn starts_load(candidate: &Candidate) -> bool {
    needs_load(&candidate.plan) && candidate.readiness != Readiness::Loading
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
fn millis(ms: f64) -> u64 {
    ms as u64
}
