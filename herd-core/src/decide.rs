//! Which node serves a request: from one snapshot to a ranking that explains itself.
//!
//! The ranking says where a request is served best; [`Decision::ready`] says where it may go now. When that is
//! nowhere, it waits at the edge and is decided anew as soon as something changes.

mod look;
mod rank;
mod resolve;

use crate::eligible::Ineligible;
use crate::estimate::Prediction;
use crate::fleet::{FleetSnapshot, LifeLimits};
use crate::launch::SpeedOptions;
use crate::load::Seen;
use crate::name::ModelName;
use crate::protect::{AliasUse, ContextPlan, Protection};
use crate::ready::Readiness;
use crate::request::RequestProfile;
use crate::rules::ModelRules;
use crate::score::{Score, Weights};

pub use look::CANDIDATES_MAX;
pub use rank::RANKED;

/// How decisions are made.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What each signal may add.
    pub weights: Weights,
    /// By what nodes are ranked.
    pub order: Order,
    /// Nodes with the model that are compared, of a fleet that has more; at least one.
    ///
    /// What a choice costs grows with the nodes that are compared, and so does the number of choices with the fleet.
    /// Among so many, spread evenly over it, one is nearly as good as the best of all.
    pub candidates_max: usize,
    /// When a silent node changes its state.
    pub life: LifeLimits,
    /// What is done about a client's `num_ctx`.
    pub protection: Protection,
    /// When requests that cannot say a context are given an alias that does.
    pub openai_alias: AliasUse,
    /// What becomes of options that change only how fast a model runs.
    pub speed_options: SpeedOptions,
    /// A request for more context than its model has loaded anywhere may be served by a larger loaded model.
    pub auto_upgrade: bool,
    /// When another model than the requested one serves.
    pub fallback: FallbackPolicy,
    /// What the operator says about single models.
    pub models: ModelRules,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            weights: Weights::default(),
            order: Order::default(),
            candidates_max: CANDIDATES_MAX,
            life: LifeLimits::default(),
            protection: Protection::default(),
            openai_alias: AliasUse::default(),
            speed_options: SpeedOptions::default(),
            auto_upgrade: false,
            fallback: FallbackPolicy::default(),
            models: ModelRules::default(),
        }
    }
}

/// By what nodes are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The seven signals.
    #[default]
    Score,
    /// The shortest predicted time to the last byte.
    Eta,
}

impl Order {
    /// Every order with its name in the configuration.
    pub const NAMES: [(&'static str, Self); 2] = [("score", Self::Score), ("eta", Self::Eta)];
}

/// When another model than the requested one serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FallbackPolicy {
    /// A loaded model of the same category and capabilities may stand in for one that can be served nowhere in time.
    pub vram: bool,
    /// In time: predicted wait and load of at most this.
    pub after_ms: u64,
    /// A listed fallback that is in memory goes before an earlier model that would have to be loaded.
    pub prefer_hot: bool,
}

impl Default for FallbackPolicy {
    fn default() -> Self {
        Self { vram: true, after_ms: 60_000, prefer_hot: false }
    }
}

words! {
    /// How a model came to serve in the place of the requested one.
    pub enum StandIn {
        /// The operator gave the requested name to it.
        Alias = "alias",
        /// The client or the operator listed it as a fallback.
        Fallback = "fallback",
        /// It is larger, and loaded with the context that was asked for.
        Upgrade = "upgrade",
        /// It is loaded and can do the same; the requested one could be served nowhere in time.
        Vram = "vram",
    }
}

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
    /// What the score was made on; a claim holds it against what is so by then.
    pub seen: Seen,
    /// Whether the request may go there now.
    pub readiness: Readiness,
    /// It is taken only when no other can serve: silent for long, or lacking something that its backend should say.
    pub last_resort: Option<&'static str>,
    /// The node's turn among equals, read once: it moves while candidates are put in order.
    pub turn: u64,
}

/// The outcome for one model: who could serve it, best first, and who could not.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The model that serves: the requested one or another in its place.
    pub model: ModelName,
    /// Why that one, when it is not the requested one.
    pub stand_in: Option<StandIn>,
    /// The best [`RANKED`] of them in order, then the others. Where none of those could go now, the last of them is
    /// the one that can where it costs the least.
    pub candidates: Vec<Candidate>,
    /// Nodes that cannot serve it, with the reason, in their order.
    pub refused: Vec<(usize, Ineligible)>,
    /// Nodes that were not looked at, because enough others can serve it; see [`Policy::candidates_max`].
    pub passed_over: usize,
}

impl Decision {
    /// The candidates that may be sent the request now, in the order in which to try them; none = it waits.
    ///
    /// The best one goes first. When that is busy, another goes only if it is predicted to answer no later than the
    /// busy one would: a free slot is not worth a slower answer. Nor is one that ranks first worth an answer that takes
    /// more than twice as long as waiting for a busy node would. What others lose by it counts like its own time.
    pub fn ready(&self) -> impl Iterator<Item = &Candidate> {
        rank::ready(&self.candidates)
    }

    /// Whether a candidate that does not merely stand in for others is predicted to start within `within_ms`.
    #[must_use]
    pub fn serves_within(&self, within_ms: u64) -> bool {
        let in_time = |candidate: &Candidate| candidate.prediction.until_start_ms() <= within_ms as f64;
        self.candidates.iter().any(|candidate| candidate.last_resort.is_none() && in_time(candidate))
    }

    /// Shortest predicted time until the request starts, milliseconds; `None` = nobody can serve it.
    ///
    /// Where it waits, that is until the first of those that it waits for: a slot that it leaves free does not count.
    #[must_use]
    pub fn until_start_ms(&self) -> Option<f64> {
        let until = |candidate: &Candidate| candidate.prediction.until_start_ms();
        let waited_for = self.candidates.iter().filter(|candidate| candidate.readiness.is_waited_for());
        let now = self.ready().map(until).reduce(f64::min);
        let later = || waited_for.map(until).reduce(f64::min);
        now.or_else(later).or_else(|| self.candidates.iter().map(until).reduce(f64::min))
    }
}

/// One request and all that its decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The picture; the one that is read for this decision.
    pub snapshot: &'a FleetSnapshot,
    /// The request.
    pub profile: &'a RequestProfile,
    /// How to decide.
    pub policy: &'a Policy,
    /// Numbers of the nodes that were asked already.
    pub tried: &'a [u32],
    /// Requests for the same model that wait at the edge before this one.
    pub ahead: u32,
    /// How long it has waited for a slot, milliseconds.
    pub waited_ms: u64,
    /// Where a look at a part of a large fleet begins: another number for another request. `None` = all of it is looked at.
    pub draw: Option<u64>,
    /// Waiting for nodes that are away has been in vain: any loaded model that can do the same will do.
    pub allow_any_substitute: bool,
    /// Receiver's monotonic clock.
    pub now_ms: u64,
}

#[cfg(test)]
mod tests;
