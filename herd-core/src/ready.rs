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
            Self::Settling => "settling",
            Self::Occupied => "occupied",
            Self::LoadsElsewhere => "loads_elsewhere",
            Self::LoadDoesNotPay => "load_does_not_pay",
        }
    }

    /// Whether waiting for this very node makes sense; else another node is what the request waits for.
    #[must_use]
    pub fn is_waited_for(self) -> bool {
        !matches!(self, Self::Free | Self::LoadsElsewhere | Self::LoadDoesNotPay)
    }
}

/// What `profile` under `plan` finds at `model` on `node`, as far as that node alone tells.
#[must_use]
pub fn readiness(profile: &RequestProfile, node: &Node, model: &Model, plan: &ContextPlan, now_ms: u64) -> Readiness {
    let signature = Signature::new(&profile.launch);
    let asks_context = profile.num_ctx.is_some() && profile.surface.carries_num_ctx();
    if model.load.backs_off_for_ms(now_ms) > 0 {
        return Readiness::BackingOff;
    }
    if let Some(loading) = node.load.loading() {
        // With a load that does not end, what is behind it may as well be tried.
        let blocks = !loading.is_overdue(now_ms) || needs_load(plan);
        match (loading.model == model.key, needs_load(plan)) {
            (true, _) if blocks => return Readiness::Loading,
            (false, true) => return Readiness::Occupied,
            _ => {}
        }
    }
    if node.load.is_reserved_for_others(model.key, signature, now_ms) {
        return Readiness::Reserved;
    }
    match plan.action {
        ContextAction::Load if has_room(node, model) => Readiness::Free,
        ContextAction::Reload if runner_occupancy(model) == 0 => Readiness::Free,
        ContextAction::Load | ContextAction::Reload => Readiness::Occupied,
        _ if is_settling(model, asks_context) => Readiness::Settling,
        _ if runner_occupancy(model) < usable_slots(node, model, now_ms) => Readiness::Free,
        _ => Readiness::Busy,
    }
}

/// A model that this edge saw loaded before its node told with which context: until it does, a request that names its
/// own could reload it.
fn is_settling(model: &Model, asks_context: bool) -> bool {
    let unknown = |resident: &Resident| resident.unconfirmed && resident.context_length.is_none();
    asks_context && model.resident.as_ref().is_some_and(unknown)
}

/// Whether `model` can be loaded without waiting for what runs here: Ollama evicts idle runners, never busy ones. What
/// is not known does not make a request wait.
fn has_room(node: &Node, model: &Model) -> bool {
    if occupancy(node) == 0 {
        return true;
    }
    let busy = node.models.iter().filter(|other| other.resident.is_some() && runner_occupancy(other) > 0);
    if node.env.max_loaded_models.is_some_and(|most| most > 0 && busy.count() >= most as usize) {
        return false;
    }
    match (model.size_bytes, node.device.free_bytes) {
        (Some(size), Some(free)) => free.saturating_add(node.evictable_bytes()) >= size,
        _ => true,
    }
}
