//! Whether a node that could serve a request should be sent it now, or what the request would wait for there.
//!
//! Requests wait at the edge, not inside a node's hidden queue: the first slot to free anywhere then takes the best
//! of them, and one that waits can still be cancelled, counted and told about.

use crate::estimate::needs_load;
use crate::fleet::Resident;
use crate::protect::{ContextAction, ContextPlan};
use crate::request::RequestProfile;
use crate::spot::Spot;
use crate::spot::runner_occupancy;

/// What a request would find on a node now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// A slot is free.
    Free,
    /// All slots are taken.
    Busy,
    /// The node said that it is busy, and rests a moment.
    BackingOff,
    /// It is kept for requests that have waited long for it to be idle.
    Reserved,
    /// The model is being loaded here: wait for it instead of loading it again.
    Loading,
    /// A load here takes far longer than predicted. It holds the node's place for loads, but nobody else up.
    Overdue,
    /// What was loaded here a moment ago is not yet known well enough.
    Settling,
    /// A load is needed, and something that runs or loads here must end first.
    Occupied,
    /// A load is needed here, and another node is loading the model already.
    LoadsElsewhere,
    /// A load is needed here, and waiting for a node that has the model takes no longer than that.
    LoadDoesNotPay,
}

impl Readiness {
    /// Its name in JSON, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Busy => "busy",
            Self::BackingOff => "backing_off",
            Self::Reserved => "reserved",
            Self::Loading => "loading",
            Self::Overdue => "overdue",
            Self::Settling => "settling",
            Self::Occupied => "occupied",
            Self::LoadsElsewhere => "loads_elsewhere",
            Self::LoadDoesNotPay => "load_does_not_pay",
        }
    }

    /// Whether waiting for this very node makes sense; else another node is what the request waits for.
    #[must_use]
    pub fn is_waited_for(self) -> bool {
        !matches!(self, Self::Free | Self::Overdue | Self::LoadsElsewhere | Self::LoadDoesNotPay)
    }
}

/// What `profile` under `plan` finds at `spot`, as far as that node alone tells.
#[must_use]
pub fn readiness(profile: &RequestProfile, spot: &Spot<'_>, plan: &ContextPlan) -> Readiness {
    // First of all, so that a load is known as such to the other nodes whatever else is so here.
    if let Some(loading) = spot.loading {
        match (loading.model == spot.model.key, needs_load(plan), loading.is_overdue(spot.now_ms)) {
            (true, _, false) => return Readiness::Loading,
            (false, true, false) => return Readiness::Occupied,
            (_, true, true) => return Readiness::Overdue,
            // Ollama serves what is in memory beside a load.
            (false, false, _) | (true, false, true) => {}
        }
    }
    if spot.model.load.backs_off_for_ms(spot.now_ms) > 0 {
        return Readiness::BackingOff;
    }
    if is_reserved(profile, spot, plan) {
        return Readiness::Reserved;
    }
    match plan.action {
        // Ours runs there, so that it is in memory: the picture is behind.
        ContextAction::Load if spot.on_model > 0 => Readiness::Settling,
        ContextAction::Load if has_room(spot) => Readiness::Free,
        ContextAction::Reload if spot.runner_occupancy == 0 => Readiness::Free,
        ContextAction::Load | ContextAction::Reload => Readiness::Occupied,
        _ if is_settling(profile, spot) => Readiness::Settling,
        _ if spot.has_slot() => Readiness::Free,
        _ => Readiness::Busy,
    }
}

/// Kept for another request: for other options or another model, or for a reload to another context, which whatever
/// the runner serves as it is would put off for ever.
fn is_reserved(profile: &RequestProfile, spot: &Spot<'_>, plan: &ContextPlan) -> bool {
    let load = &spot.node.load;
    load.is_reserved(spot.now_ms)
        && (!needs_load(plan) || load.is_reserved_for_others(spot.model.key, profile.launch, spot.now_ms))
}

/// Longest that [`Readiness::Settling`] lasts: two heartbeats. An agent that stays silent must not hold requests up.
const SETTLING_MS: u64 = 10_000;

/// A model that this edge saw loaded before its node told with which context: until it does, a request that names its
/// own could reload it.
fn is_settling(profile: &RequestProfile, spot: &Spot<'_>) -> bool {
    let asks_context = profile.num_ctx.is_some() && profile.surface.carries_num_ctx();
    let just_seen = |at_ms: u64| spot.now_ms.saturating_sub(at_ms) < SETTLING_MS;
    let unknown = |resident: &Resident| {
        resident.unconfirmed && resident.context_length.is_none() && resident.seen_at_ms.is_some_and(just_seen)
    };
    asks_context && spot.model.resident.as_ref().is_some_and(unknown)
}

/// Whether the model can be loaded without waiting for what runs here: Ollama evicts idle runners, never busy ones. What
/// is not known does not make a request wait.
fn has_room(spot: &Spot<'_>) -> bool {
    if spot.occupancy == 0 {
        return true;
    }
    let Spot { node, model, .. } = spot;
    let busy = node.runners().filter(|(other, _)| runner_occupancy(other) > 0);
    if node.env.max_loaded_models.is_some_and(|most| most > 0 && busy.count() >= most as usize) {
        return false;
    }
    match (model.size_bytes, node.device.free_bytes) {
        (Some(size), Some(free)) => free.saturating_add(node.evictable_bytes()) >= size,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
