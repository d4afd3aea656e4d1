//! From a request to a claimed slot: decide on one snapshot, claim, and decide anew where another request was faster.

use std::fmt;
use std::sync::Arc;

use crate::decide::{Candidate, Decision, Policy, Question, RANKED, StandIn};
use crate::fleet::{FleetSnapshot, Model, Node};
use crate::load::Claim;
use crate::name::ModelName;
use crate::protect::set_options;
use crate::ready::Readiness;
use crate::request::RequestProfile;
use crate::splice::{Edit, json_string};

/// Rounds in which another request may take the slot that a choice was made on; after them the request waits its turn.
const CLAIM_ROUNDS: usize = 32;

/// `keep_alive` of a model that is never unloaded.
const FOR_EVER: &str = "-1";

/// A node that serves a request, with one of its slots.
#[derive(Debug)]
pub struct Choice {
    /// The snapshot that the choice was made on.
    pub snapshot: Arc<FleetSnapshot>,
    /// The node's part in the decision.
    pub candidate: Candidate,
    /// The model that runs there.
    pub model: ModelName,
    /// Why it is not the requested one.
    pub stand_in: Option<StandIn>,
    /// Every node that was ranked, until the request's record takes them.
    pub ranked: Vec<Candidate>,
    /// The slot.
    pub slot: Slot,
}

impl Choice {
    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.snapshot.nodes[self.candidate.node]
    }

    /// The model there.
    #[must_use]
    pub fn model(&self) -> Option<&Model> {
        self.node().model(&self.model)
    }

    /// What the body must be changed by for this node, with `name` for the model where that is another than the requested
    /// one.
    #[must_use]
    pub fn edits(&self, profile: &RequestProfile, name: &ModelName) -> Vec<Edit> {
        let mut edits: Vec<Edit> = profile.places.private.iter().cloned().map(Edit::cut).collect();
        if *name != profile.model {
            let places = std::iter::once(&profile.places.model).chain(&profile.places.model_again);
            let plain = profile.places.form;
            let text = || if plain { name.as_str().to_owned() } else { json_string(name.as_str()) };
            edits.extend(places.map(|place| Edit { range: place.clone(), text: text() }));
        }
        let volatile = &profile.places.volatile;
        edits.extend(volatile.iter().map(|(place, pinned)| Edit { range: place.clone(), text: (*pinned).to_owned() }));
        // A request of its own keep_alive would have a pinned model unloaded.
        if let Some(place) = &profile.places.keep_alive
            && self.model().is_some_and(|model| model.load.is_pinned())
        {
            edits.push(Edit { range: place.clone(), text: FOR_EVER.into() });
        }
        edits.extend(set_options(&profile.places, &self.options(profile)));
        edits
    }

    /// What is sent in place of the client's options.
    fn options(&self, profile: &RequestProfile) -> Vec<(&'static str, String)> {
        let plan = &self.candidate.plan;
        let mut options: Vec<_> = plan.num_ctx.map(|num_ctx| ("num_ctx", num_ctx.to_string())).into_iter().collect();
        options.extend(self.kept_speed(profile));
        options
    }

    /// Options of speed that the runner keeps against the client's, with its own values as JSON.
    #[must_use]
    pub fn kept_speed(&self, profile: &RequestProfile) -> Vec<(&'static str, String)> {
        let model = self.model().filter(|_| self.candidate.plan.keeps_speed);
        let runner = model.map(|model| model.load.launched().unwrap_or_default());
        runner.map(|runner| profile.launch.speed_unlike(profile.launch.at_speed_of(runner))).unwrap_or_default()
    }
}

/// Is told of every slot that becomes free.
pub trait Freed: fmt::Debug + Send + Sync {
    /// A slot is free.
    fn slot_freed(&self);
}

/// A claimed slot. It is free again when this is dropped, and whoever hands out slots is told.
#[derive(Debug)]
pub struct Slot {
    claim: Option<Claim>,
    freed: Option<Arc<dyn Freed>>,
}

impl Slot {
    /// The slot of `claim`; `freed` is told when it is free again, `None` = nobody is.
    #[must_use]
    pub fn new(claim: Claim, freed: Option<Arc<dyn Freed>>) -> Self {
        Self { claim: Some(claim), freed }
    }

    /// The claim.
    pub fn claim(&mut self) -> Option<&mut Claim> {
        self.claim.as_mut()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // In this order: whoever is told must find it free.
        self.claim = None;
        if let Some(freed) = &self.freed {
            freed.slot_freed();
        }
    }
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// Requests for the same model that wait before it.
    pub ahead: u32,
    /// How long it has waited, milliseconds.
    pub waited_ms: u64,
    /// It has waited in vain for nodes that are away: any loaded model that can do the same will do.
    pub allow_any_substitute: bool,
}

/// What came of a choice.
#[derive(Debug)]
pub enum Outcome {
    /// A slot was claimed.
    Chosen(Box<Choice>),
    /// Nodes can serve the request, but none has room now.
    Full(Box<(Decision, Arc<FleetSnapshot>)>),
    /// No node can serve it.
    Nobody(Box<(Decision, Arc<FleetSnapshot>)>),
}

/// What choices are made from.
pub trait FleetView {
    /// The fleet now.
    fn snapshot(&self) -> Arc<FleetSnapshot>;
    /// How requests are decided now.
    fn policy(&self) -> Arc<Policy>;
    /// The receiver's monotonic clock.
    fn now_ms(&self) -> u64;
    /// A number that no earlier choice has had: equals take turns by it.
    fn ticket(&self) -> u64;
    /// Who is told of slots that become free.
    fn freed(&self) -> Option<Arc<dyn Freed>>;
}

/// Chooses and claims a node of `fleet` for `profile` that is not in `tried`, in the `place` where it waits.
///
/// Of the candidates that are ready `pick` says which one is claimed; `None` = the first.
#[must_use]
pub fn choose(
    fleet: &impl FleetView,
    profile: &RequestProfile,
    tried: &[u32],
    place: Place,
    pick: impl Fn(&[&Candidate], &FleetSnapshot) -> Option<usize>,
) -> Outcome {
    let draw = fleet.ticket();
    let mut rounds = 0;
    loop {
        let snapshot = fleet.snapshot();
        let decision = decide(fleet, &snapshot, profile, tried, place, draw);
        if decision.candidates.is_empty() {
            return Outcome::Nobody(Box::new((decision, snapshot)));
        }
        let ready: Vec<&Candidate> = decision.ready().collect();
        rounds += 1;
        if ready.is_empty() || rounds > CLAIM_ROUNDS {
            let tried = try_slot(fleet, &decision, &snapshot, place);
            return match tried.map(|(candidate, claim)| (candidate.clone(), claim)) {
                Some((candidate, claim)) => chosen(fleet, candidate, claim, decision, snapshot),
                None => Outcome::Full(Box::new((decision, snapshot))),
            };
        }
        let candidate = ready[pick(&ready, &snapshot).unwrap_or(0).min(ready.len() - 1)];
        // It may have changed since it was read, and then the ranking no longer holds.
        if let Some(claim) = claim(fleet, candidate, &decision, &snapshot) {
            return chosen(fleet, candidate.clone(), claim, decision, snapshot);
        }
    }
}

fn chosen(
    fleet: &impl FleetView,
    candidate: Candidate,
    claim: Claim,
    decision: Decision,
    snapshot: Arc<FleetSnapshot>,
) -> Outcome {
    let slot = Slot::new(claim, fleet.freed());
    let Decision { model, stand_in, candidates: mut ranked, .. } = decision;
    ranked.truncate(RANKED);
    Outcome::Chosen(Box::new(Choice { snapshot, candidate, model, stand_in, ranked, slot }))
}

/// Wait after which a request may try a slot that is not known to be there: it then loses little if there is none.
const TRY_SLOT_AFTER_MS: u64 = 3_000;

/// A slot more than is known on a node that does not tell how many it has, and works for nobody else.
fn try_slot<'a>(
    fleet: &impl FleetView,
    decision: &'a Decision,
    snapshot: &FleetSnapshot,
    place: Place,
) -> Option<(&'a Candidate, Claim)> {
    if place.waited_ms < TRY_SLOT_AFTER_MS {
        return None;
    }
    let now_ms = fleet.now_ms();
    let mut busy = decision
        .candidates
        .iter()
        .filter(|candidate| candidate.readiness == Readiness::Busy && candidate.last_resort.is_none());
    busy.find_map(|candidate| {
        let node = &snapshot.nodes[candidate.node];
        let model = node.model(&decision.model)?;
        let may_try = model.busy_by_others() == 0 && model.load.may_try_slot(model.slot_range(&node.env), now_ms);
        let claim = if may_try { claim(fleet, candidate, decision, snapshot)? } else { return None };
        model.load.slot_tried(now_ms);
        Some((candidate, claim))
    })
}

/// Decides without claiming: what a request would find in the `place` where it waits.
#[must_use]
pub fn look(fleet: &impl FleetView, profile: &RequestProfile, tried: &[u32], place: Place) -> Decision {
    decide(fleet, &fleet.snapshot(), profile, tried, place, fleet.ticket())
}

fn decide(
    fleet: &impl FleetView,
    snapshot: &FleetSnapshot,
    profile: &RequestProfile,
    tried: &[u32],
    place: Place,
    draw: u64,
) -> Decision {
    let (policy, now_ms) = (&fleet.policy(), fleet.now_ms());
    let (Place { ahead, waited_ms, allow_any_substitute }, draw) = (place, Some(draw));
    Question { snapshot, profile, policy, tried, ahead, waited_ms, draw, allow_any_substitute, now_ms }.decide()
}

fn claim(
    fleet: &impl FleetView,
    candidate: &Candidate,
    decision: &Decision,
    snapshot: &FleetSnapshot,
) -> Option<Claim> {
    let node = &snapshot.nodes[candidate.node];
    let model = node.model(&decision.model)?;
    Claim::try_take(&node.load, &model.load, &candidate.seen, fleet.ticket())
}
