//! Which model serves: the requested one, or another in its place.

use super::{Decision, Question, StandIn};
use crate::estimate::needs_load;
use crate::name::ModelName;
use crate::protect::{Protection, ReloadCause};
use crate::substitute::{substitutes, upgrades};

impl Question<'_> {
    /// Chooses the model and ranks its nodes.
    ///
    /// In the client's order, the first model that a node can serve in time; then a loaded one that can do the same,
    /// if the request allows it; then the first that any node can serve at all. When none can, the decision about the
    /// requested model is returned, with no candidates.
    #[must_use]
    pub fn decide(&self) -> Decision {
        let mut listed = Vec::new();
        for (name, stand_in) in self.names() {
            let decision = self.rank(name, stand_in);
            let in_time = decision.serves_within(self.policy.fallback.after_ms);
            if in_time && (!self.policy.fallback.prefer_hot || is_hot(&decision)) {
                return self.upgraded(decision);
            }
            listed.push((in_time, decision));
        }
        if let Some(index) = listed.iter().position(|(in_time, _)| *in_time) {
            return self.upgraded(listed.swap_remove(index).1);
        }
        if let Some(decision) = listed.iter().find_map(|(_, decision)| self.upgrade(decision)) {
            return decision;
        }
        if let Some(decision) = self.stand_in_from_memory(&listed) {
            return decision;
        }
        let best = listed.iter().position(|(_, decision)| has_healthy(decision));
        let best = best.or_else(|| listed.iter().position(|(_, decision)| !decision.candidates.is_empty()));
        listed.swap_remove(best.unwrap_or(0)).1
    }

    /// The models that may serve, in order, never empty: the requested one, the client's fallbacks, the operator's;
    /// each under its operator's name for it.
    fn names(&self) -> Vec<(&ModelName, Option<StandIn>)> {
        let requested = &self.profile.model;
        let rules = &self.policy.models;
        let target = rules.alias(requested);
        let mut names = vec![(target.unwrap_or(requested), target.map(|_| StandIn::Alias))];
        let configured = rules.fallbacks(requested).iter().chain(target.map_or(&[][..], |name| rules.fallbacks(name)));
        let own = self.profile.fallback_models.iter();
        for name in own.chain(configured.filter(|_| self.may_substitute())) {
            let name = rules.alias(name).unwrap_or(name);
            if names.iter().all(|(known, _)| *known != name) {
                names.push((name, Some(StandIn::Fallback)));
            }
        }
        names
    }

    fn may_substitute(&self) -> bool {
        self.profile.fallback != Some(false)
    }

    fn upgraded(&self, decision: Decision) -> Decision {
        self.upgrade(&decision).unwrap_or(decision)
    }

    /// A larger model that is loaded with the context asked for, where the chosen one would have to be reloaded for it
    /// on every node; `None` = it need not be, or there is none.
    fn upgrade(&self, decision: &Decision) -> Option<Decision> {
        let allowed = self.policy.auto_upgrade && self.policy.protection == Protection::Strip && self.may_substitute();
        let healthy = || decision.candidates.iter().filter(|candidate| candidate.last_resort.is_none());
        let too_small = healthy().any(|candidate| candidate.plan.cause == Some(ReloadCause::ContextLarger));
        if !allowed || !too_small || healthy().any(|candidate| !needs_load(&candidate.plan)) {
            return None;
        }
        let larger = upgrades(self.snapshot, self.profile, &decision.model);
        larger.iter().find_map(|name| self.rank_in_memory(name, StandIn::Upgrade))
    }

    /// A loaded model that can do the same, for a model that the fleet has and that would take too long everywhere. One
    /// that no node has may be a slip of the pen, and nodes that are away a moment are waited for.
    fn stand_in_from_memory(&self, listed: &[(bool, Decision)]) -> Option<Decision> {
        let (_, requested) = listed.first()?;
        let requested = &requested.model;
        let known = self.snapshot.nodes.iter().any(|node| node.model(requested).is_some());
        let slow = listed.iter().any(|(_, decision)| has_healthy(decision));
        if !self.policy.fallback.vram || !self.may_substitute() || !known || !(slow || self.allow_any_substitute) {
            return None;
        }
        let names = substitutes(self.snapshot, self.profile, requested);
        names.iter().find_map(|name| self.rank_in_memory(name, StandIn::Vram))
    }

    /// The nodes that have `name` in memory and can start in time; `None` = there are none.
    fn rank_in_memory(&self, name: &ModelName, stand_in: StandIn) -> Option<Decision> {
        let mut decision = self.rank(name, Some(stand_in));
        decision.candidates.retain(|candidate| candidate.last_resort.is_none() && !needs_load(&candidate.plan));
        decision.serves_within(self.policy.fallback.after_ms).then_some(decision)
    }
}

fn has_healthy(decision: &Decision) -> bool {
    decision.candidates.iter().any(|candidate| candidate.last_resort.is_none())
}

fn is_hot(decision: &Decision) -> bool {
    decision.candidates.first().is_some_and(|best| !needs_load(&best.plan))
}
