//! One model's nodes: who could serve it, how well, and who may be sent it now.

use std::cmp::Ordering;

use super::look::Found;
use super::{Candidate, Decision, Order, Question, StandIn};
use crate::eligible::{Ineligible, model_eligible, node_eligible};
use crate::estimate::{Prediction, SLOWER_BY, Usual, load_ms, lost_ms, needs_load, predict};
use crate::fleet::{Model, Node, NodeState};
use crate::load::{Loading, Seen};
use crate::name::ModelName;
use crate::protect::{ContextAction, Mode, plan};
use crate::ready::{Readiness, readiness};
use crate::score::{Facts, Score};
use crate::spot::Spot;

/// Candidates that are ranked; the rest is in no order. A request has far fewer attempts.
pub const RANKED: usize = 16;

/// Scores closer than this are equal, in points: the signals are not more exact.
const TIE_BAND: f64 = 1.0;

impl Question<'_> {
    /// Ranks the nodes for the model `name`, which serves as `stand_in`: some of a large fleet, if one of those has it in
    /// memory and room for the request now, else all.
    pub(super) fn rank(&self, name: &ModelName, stand_in: Option<StandIn>) -> Decision {
        if let Some(around) = self.look_around(name) {
            let decision = self.rank_found(&around, name, stand_in);
            let serves = |best: &Candidate| !needs_load(&best.plan) && best.last_resort.is_none();
            if decision.passed_over == 0 || decision.ready().next().is_some_and(serves) {
                return decision;
            }
        }
        self.rank_found(&self.look_at_all(name), name, stand_in)
    }

    fn rank_found(&self, found: &Found<'_>, name: &ModelName, stand_in: Option<StandIn>) -> Decision {
        let usual = Usual::of(found.holders.iter().map(|(_, node, model)| (*node, *model)));
        // A candidate is large, and room for all costs less than moving them as they become more.
        let count = found.holders.len();
        let (mut candidates, mut spots) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut refused: Vec<_> = found.absent.iter().map(|place| (*place, Ineligible::ModelAbsent)).collect();
        for (place, node, model) in &found.holders {
            match self.eligible(node, model) {
                Ok(last_resort) => {
                    let spot = Spot::read(node, model, self.now_ms);
                    candidates.push(self.candidate(*place, &spot, last_resort, usual, stand_in));
                    spots.push(spot);
                }
                Err(reason) => refused.push((*place, reason)),
            }
        }
        refused.sort_by_key(|(place, _)| *place);
        self.add_queue(&mut candidates, &spots);
        self.count_the_wait_so_far(&mut candidates);
        let overview = Overview::of(&candidates, &spots, self.waited_ms);
        for (candidate, spot) in candidates.iter_mut().zip(&spots) {
            overview.hold_load(candidate);
            self.score(candidate, spot, &overview);
        }
        order(&mut candidates);
        Decision { model: name.clone(), stand_in, candidates, refused, passed_over: found.passed_over }
    }

    /// Whether the node can serve the request with `model`: like any other, or, with the reason, only if no other candidate is
    /// eligible.
    fn eligible(&self, node: &Node, model: &Model) -> Result<Option<&'static str>, Ineligible> {
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
        Ok(last_resort)
    }

    /// The node as a candidate, not yet scored.
    fn candidate(
        &self,
        place: usize,
        spot: &Spot<'_>,
        last_resort: Option<&'static str>,
        usual: Usual,
        stand_in: Option<StandIn>,
    ) -> Candidate {
        let Spot { node, model, .. } = spot;
        let turn = node.load.turn();
        let mode = Mode { protection: self.policy.protection, speed: self.policy.speed_options };
        let plan = plan(self.profile, node, model, model.load.launched(), mode);
        let mut plan = plan.by_alias(self.profile, node, model, self.policy.openai_alias);
        let mut prediction = predict(self.profile, spot, &plan, usual);
        let readiness = readiness(self.profile, spot, &plan);
        if readiness == Readiness::Reserved {
            // Whom it is kept for loads and runs first.
            prediction.wait_ms += load_ms(model, self.now_ms) + prediction.prefill_ms + prediction.decode_ms;
        }
        let load = needs_load(&plan).then(|| Loading {
            model: model.key,
            since_ms: self.now_ms,
            until_ms: self.now_ms.saturating_add(millis(prediction.load_ms)),
        });
        if stand_in == Some(StandIn::Upgrade) && !needs_load(&plan) {
            plan.action = ContextAction::Upgraded;
        }
        let score = Score::default();
        let seen = Seen { in_flight: spot.in_flight, on_model: spot.on_model, load };
        Candidate { node: place, score, total: 0.0, prediction, plan, seen, readiness, last_resort, turn }
    }

    /// Adds the requests that wait at the edge to the wait at the busy nodes that have the model, which work them off
    /// together, each at its own pace. A free slot is taken at once: those ahead have left it.
    fn add_queue(&self, candidates: &mut [Candidate], spots: &[Spot<'_>]) {
        if self.ahead == 0 {
            return;
        }
        let counts = counts(candidates);
        let busy = |candidate: &Candidate| !starts_load(candidate) && candidate.readiness != Readiness::Free;
        let per_ms = |(candidate, spot): (&Candidate, &Spot<'_>)| {
            f64::from(spot.slots) / (candidate.prediction.prefill_ms + candidate.prediction.decode_ms)
        };
        let those = candidates.iter().zip(spots).filter(|(candidate, _)| counts(candidate) && busy(candidate));
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
    /// waits beside a free slot for more than about the time that it would have cost there.
    fn count_the_wait_so_far(&self, candidates: &mut [Candidate]) {
        // When a load pays is another question.
        let is_free = |candidate: &Candidate| candidate.readiness == Readiness::Free && !starts_load(candidate);
        if self.waited_ms == 0 || !candidates.iter().any(is_free) {
            return;
        }
        for candidate in candidates.iter_mut().filter(|candidate| candidate.readiness.is_waited_for()) {
            candidate.prediction.wait_ms = candidate.prediction.wait_ms.max(self.waited_ms as f64);
        }
    }

    fn score(&self, candidate: &mut Candidate, spot: &Spot<'_>, overview: &Overview) {
        let facts = Facts {
            profile: self.profile,
            spot,
            plan: &candidate.plan,
            prediction: &candidate.prediction,
            load_elsewhere: overview.load.as_ref(),
            fastest_ms: overview.fastest_ms,
        };
        candidate.score = Score::of(&facts, &self.policy.weights);
        candidate.total = match self.policy.order {
            Order::Score => candidate.score.total(),
            // In tenths of a second, so that the band of ties stays narrow.
            Order::Eta => -candidate.prediction.total_ms().min(1e12) / 100.0,
        };
    }
}

/// What each candidate's place depends on, over all that count, see [`counts`]; found in one walk, because a large fleet
/// has many.
#[derive(Debug, Default)]
struct Overview {
    /// One is loading the model already.
    under_way: bool,
    /// One has the model in memory and a slot free.
    serves: bool,
    /// Time until the first of those that have the model starts, as far as measured, and at least what the request has
    /// waited, milliseconds; `None` = none has it.
    soonest_ms: Option<f64>,
    /// Of those that have the model, the one that would be done first, as far as measured.
    best: Option<Prediction>,
    /// Of those that must load it, the one that would be done first.
    load: Option<Prediction>,
    /// Shortest time that the wait and the request itself take, milliseconds.
    fastest_ms: Option<f64>,
}

impl Overview {
    fn of(candidates: &[Candidate], spots: &[Spot<'_>], waited_ms: u64) -> Self {
        let counts = counts(candidates);
        let mut overview = Self::default();
        for (candidate, spot) in candidates.iter().zip(spots).filter(|(candidate, _)| counts(candidate)) {
            overview.add(candidate, spot.model);
        }
        overview.soonest_ms = overview.soonest_ms.map(|soonest_ms| soonest_ms.max(waited_ms as f64));
        overview
    }

    fn add(&mut self, candidate: &Candidate, model: &Model) {
        let Candidate { prediction, readiness, .. } = candidate;
        self.under_way |= *readiness == Readiness::Loading;
        lower(&mut self.fastest_ms, prediction.cost_ms());
        if starts_load(candidate) {
            self.load = Some(sooner(self.load, *prediction));
        } else {
            let measured = if is_measured(model) { *prediction } else { Prediction::default() };
            self.serves |= *readiness == Readiness::Free;
            lower(&mut self.soonest_ms, measured.until_start_ms());
            self.best = Some(sooner(self.best, measured));
        }
    }

    /// One load of a model at a time: while a node loads it, the others wait for that; and while a node has it, another
    /// load must pay.
    ///
    /// It pays when the wait for those that have it is longer than the load, or when all of them are so slow or crowded
    /// that more would be lost by that, by the request and by those whom it holds up, as far as their speed has been
    /// measured: a guess is no reason to push other models out of memory. Without a measurement, or in spite of it, it
    /// pays once the request has waited as long as the load takes, which is at most twice the best choice in hindsight
    /// (the ski-rental rule: Karlin, Manasse, Rudolph and Sleator, 1988). A reload never pays while a slot is free on a
    /// runner that serves the request as it is.
    fn hold_load(&self, candidate: &mut Candidate) {
        if !starts_load(candidate) || candidate.readiness != Readiness::Free {
            return;
        }
        if self.under_way {
            candidate.readiness = Readiness::LoadsElsewhere;
        } else if !self.load_pays(candidate) {
            candidate.readiness = Readiness::LoadDoesNotPay;
        }
    }

    fn load_pays(&self, candidate: &Candidate) -> bool {
        let after_ms = pays_after_ms(candidate);
        let waits = self.soonest_ms.is_none_or(|soonest_ms| soonest_ms > after_ms);
        let outruns = |best: &Prediction| lost_ms(best, &candidate.prediction) > after_ms;
        (waits || self.best.as_ref().is_some_and(outruns)) && !(is_reload(candidate) && self.serves)
    }
}

/// Whether what requests take there is known and not guessed.
fn is_measured(model: &Model) -> bool {
    model.load.p75_ms().is_some() || model.load.decode_ms_per_token().is_some()
}

/// Puts the best [`RANKED`] first, in order. Those as good as the best take turns, see [`crate::load::NodeLoad::turn`];
/// the node's place, which is the order of ids, settles the rest.
fn order(candidates: &mut [Candidate]) {
    let by_rank = |a: &Candidate, b: &Candidate| {
        let last_resort = a.last_resort.is_some().cmp(&b.last_resort.is_some());
        let turn = a.turn.cmp(&b.turn).then(a.node.cmp(&b.node));
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

/// Where none of the ranked can go now, the last of their places goes to that of the others that could where it costs the
/// least: the best nodes may all be busy while a lesser one would answer sooner.
fn keep_one_ready(candidates: &mut [Candidate]) {
    if candidates.len() <= RANKED || ready(candidates).next().is_some() {
        return;
    }
    let counts = counts(candidates);
    let (ranked, others) = candidates.split_at_mut(RANKED);
    let free = others.iter_mut().filter(|other| counts(other) && other.readiness == Readiness::Free);
    let least = free.min_by(|a, b| cost_ms(a).total_cmp(&cost_ms(b)).then(a.node.cmp(&b.node)));
    if let Some(least) = least {
        std::mem::swap(&mut ranked[RANKED - 1], least);
    }
}

fn take_turns(ranked: &mut [Candidate]) {
    let Some(best) = ranked.first() else { return };
    let (best_total, best_resort) = (best.total, best.last_resort.is_some());
    let equals = ranked
        .iter()
        .take_while(|c| best_total - c.total <= TIE_BAND && c.last_resort.is_some() == best_resort)
        .count();
    ranked[..equals].sort_by_key(|candidate| candidate.turn);
}

/// The wait elsewhere, or what is lost there, beyond which a load here pays. A reload takes a runner from those it serves,
/// who are likely to take it back: it must be worth two.
fn pays_after_ms(candidate: &Candidate) -> f64 {
    let Prediction { wait_ms, load_ms, .. } = candidate.prediction;
    let loads = if is_reload(candidate) { 2.0 } else { 1.0 };
    wait_ms + loads * load_ms
}

/// Whether it takes a runner from those it serves.
fn is_reload(candidate: &Candidate) -> bool {
    candidate.plan.action == ContextAction::Reload
}

/// Which candidates others need heed: those that are used only if no other is eligible count only where none is.
fn counts(candidates: &[Candidate]) -> impl Fn(&Candidate) -> bool + Copy + use<> {
    let nothing_else = candidates.iter().all(|candidate| candidate.last_resort.is_some());
    move |candidate| nothing_else || candidate.last_resort.is_none()
}

/// Whichever would be done first.
fn sooner(known: Option<Prediction>, new: Prediction) -> Prediction {
    known.filter(|known| known.total_ms() <= new.total_ms()).unwrap_or(new)
}

fn lower(known: &mut Option<f64>, new: f64) {
    *known = Some(known.map_or(new, |known| known.min(new)));
}

/// What sending the request there costs all, so that nobody goes where it holds others up for longer than it would wait
/// elsewhere.
fn cost_ms(candidate: &Candidate) -> f64 {
    candidate.prediction.load_ms + candidate.prediction.cost_ms()
}

/// The candidates that go now, of those that are ranked; see [`Decision::ready`].
///
/// A free node that ranks before a busy one still waits for that, if it is predicted to cost [`SLOWER_BY`] times as much:
/// points for an empty queue must not send a request to a machine that is many times slower.
pub(super) fn ready(candidates: &[Candidate]) -> impl Iterator<Item = &Candidate> {
    let ranked = &candidates[..candidates.len().min(RANKED)];
    let suspect = ranked.first().is_some_and(|best| best.last_resort.is_some());
    let waited_for = ranked.iter().filter(|c| c.readiness.is_waited_for() && (suspect || c.last_resort.is_none()));
    let soonest_ms = waited_for.map(cost_ms).fold(f64::INFINITY, f64::min);
    let mut waited_ms = f64::INFINITY;
    ranked.iter().filter(move |candidate| {
        let cost_ms = cost_ms(candidate);
        if candidate.readiness.is_waited_for() {
            waited_ms = waited_ms.min(cost_ms);
        }
        let worth = cost_ms <= waited_ms && cost_ms <= soonest_ms * SLOWER_BY;
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
