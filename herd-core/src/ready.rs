//! Whether a node that could serve a request should be sent it now, or what the request would wait for there.
//!
//! Requests wait at the edge, not inside a node's hidden queue: the first slot to free anywhere then takes the best
//! of them, and one that waits can still be cancelled, counted and told about.

use crate::estimate::{needs_load, occupancy, runner_occupancy, usable_slots};
use crate::fleet::{Model, Node, Resident};
use crate::launch::Signature;
use crate::protect::{ContextAction, ContextPlan};
use crate::request::RequestProfile;

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

/// What `profile` under `plan` finds at `model` on `node`, as far as that node alone tells.
#[must_use]
pub fn readiness(profile: &RequestProfile, node: &Node, model: &Model, plan: &ContextPlan, now_ms: u64) -> Readiness {
    // First of all, so that a load is known as such to the other nodes whatever else is so here.
    if let Some(loading) = node.load.loading() {
        match (loading.model == model.key, needs_load(plan), loading.is_overdue(now_ms)) {
            (true, _, false) => return Readiness::Loading,
            (false, true, false) => return Readiness::Occupied,
            (_, true, true) => return Readiness::Overdue,
            // Ollama serves what is in memory beside a load.
            (false, false, _) | (true, false, true) => {}
        }
    }
    if model.load.backs_off_for_ms(now_ms) > 0 {
        return Readiness::BackingOff;
    }
    if is_reserved(profile, node, model, plan, now_ms) {
        return Readiness::Reserved;
    }
    match plan.action {
        // Ours runs there, so that it is in memory: the picture is behind.
        ContextAction::Load if model.load.in_flight() > 0 => Readiness::Settling,
        ContextAction::Load if has_room(node, model) => Readiness::Free,
        ContextAction::Reload if runner_occupancy(model) == 0 => Readiness::Free,
        ContextAction::Load | ContextAction::Reload => Readiness::Occupied,
        _ if is_settling(profile, model, now_ms) => Readiness::Settling,
        _ if runner_occupancy(model) < usable_slots(node, model, now_ms) => Readiness::Free,
        _ => Readiness::Busy,
    }
}

/// Kept for another request: for other options or another model, or for a reload to another context, which whatever
/// the runner serves as it is would put off for ever.
fn is_reserved(profile: &RequestProfile, node: &Node, model: &Model, plan: &ContextPlan, now_ms: u64) -> bool {
    let signature = Signature::new(&profile.launch);
    node.load.is_reserved_for_others(model.key, signature, now_ms)
        || (node.load.is_reserved(now_ms) && !needs_load(plan))
}

/// Longest that [`Readiness::Settling`] lasts: two heartbeats. An agent that stays silent must not hold requests up.
const SETTLING_MS: u64 = 10_000;

/// A model that this edge saw loaded before its node told with which context: until it does, a request that names its
/// own could reload it.
fn is_settling(profile: &RequestProfile, model: &Model, now_ms: u64) -> bool {
    let asks_context = profile.num_ctx.is_some() && profile.surface.carries_num_ctx();
    let just_seen = |at_ms: u64| now_ms.saturating_sub(at_ms) < SETTLING_MS;
    let unknown = |resident: &Resident| {
        resident.unconfirmed && resident.context_length.is_none() && resident.seen_at_ms.is_some_and(just_seen)
    };
    asks_context && model.resident.as_ref().is_some_and(unknown)
}

/// Whether `model` can be loaded without waiting for what runs here: Ollama evicts idle runners, never busy ones. What
/// is not known does not make a request wait.
fn has_room(node: &Node, model: &Model) -> bool {
    if occupancy(node) == 0 {
        return true;
    }
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
