//! What a request for a slot finds: at once, in its turn in the queue, and for a retry.
//!
//! Whoever keeps the queue calls these and carries them out: the edge behind a lock, the simulator in virtual time.

use std::sync::Arc;

use super::seek::WhenNobody;
use super::{Hold, Mode, Nobody, Obtained, Offer, Seek};
use crate::choice::{Outcome, Place};
use crate::decide::Decision;
use crate::fleet::FleetSnapshot;
use crate::queue::{Waiter, group};
use crate::request::RequestProfile;

/// Chooses nodes of one fleet.
pub trait Chooser {
    /// Chooses and claims; see [`crate::choice::choose`].
    fn choose(&self, profile: &RequestProfile, tried: &[u32], place: Place) -> Outcome;
    /// Decides without claiming; see [`crate::choice::look`].
    fn look(&self, profile: &RequestProfile, tried: &[u32], place: Place) -> Decision;
    /// The receiver's monotonic clock.
    fn now_ms(&self) -> u64;
}

/// What a request finds that has just come.
#[derive(Debug)]
pub enum Found {
    /// An offer.
    Offer(Offer),
    /// It must wait; with the decision that says for what, if there was one.
    Wait(Option<Decision>),
}

/// What a request finds in its turn.
#[derive(Debug)]
pub enum InTurn {
    /// An offer: it waits no longer.
    Offer(Offer),
    /// It still waits for a slot.
    Waits(Box<(Decision, Arc<FleetSnapshot>)>),
    /// It waits for nodes that are away, or for one that could stand in for them.
    Holds,
}

impl Seek {
    /// What it finds when it comes, and `waiting` others wait for the same model already.
    #[must_use]
    pub fn first(&self, chooser: &impl Chooser, waiting: usize, hold: &Hold) -> Found {
        if waiting > 0 {
            let place = Place { ahead: u32::try_from(waiting).unwrap_or(u32::MAX), ..Place::default() };
            return Found::Wait(Some(chooser.look(&self.profile, &self.tried, place)));
        }
        match chooser.choose(&self.profile, &self.tried, Place::default()) {
            Outcome::Chosen(choice) => Found::Offer(Offer::Chosen(choice, Obtained::AtOnce)),
            Outcome::Full(full) => Found::Wait(Some(full.0)),
            Outcome::Nobody(nobody) => self.nobody(chooser, nobody, self.hold_since_ms, hold, Obtained::AtOnce),
        }
    }

    /// What it finds in its turn, in the `place` where it waits; `hold_since_ms` is the start of its hold period if that
    /// has begun.
    #[must_use]
    pub fn in_turn(&self, chooser: &impl Chooser, place: Place, hold_since_ms: Option<u64>, hold: &Hold) -> InTurn {
        match chooser.choose(&self.profile, &self.tried, place) {
            Outcome::Chosen(choice) => {
                choice.node().load.unreserve();
                InTurn::Offer(Offer::Chosen(choice, Obtained::Waited))
            }
            Outcome::Full(full) => InTurn::Waits(full),
            Outcome::Nobody(nobody) => match self.nobody(chooser, nobody, hold_since_ms, hold, Obtained::Waited) {
                Found::Offer(offer) => InTurn::Offer(offer),
                Found::Wait(_) => InTurn::Holds,
            },
        }
    }

    /// What it finds now, without waiting: for a retry, for which the answer so far is given up.
    #[must_use]
    pub fn at_once(&self, chooser: &impl Chooser) -> Offer {
        let outcome = match self.mode {
            Mode::AnySubstitute => self.any_substitute(chooser),
            Mode::AtOnce | Mode::Queue => chooser.choose(&self.profile, &self.tried, Place::default()),
        };
        match outcome {
            Outcome::Chosen(choice) => Offer::Chosen(choice, Obtained::Retry),
            Outcome::Full(_) => Offer::Full,
            Outcome::Nobody(nobody) => Offer::Nobody(nobody),
        }
    }

    fn nobody(
        &self,
        chooser: &impl Chooser,
        nobody: Nobody,
        hold_since_ms: Option<u64>,
        hold: &Hold,
        how: Obtained,
    ) -> Found {
        match self.when_nobody(&nobody.0, &nobody.1, hold, hold_since_ms, chooser.now_ms()) {
            WhenNobody::Hold => Found::Wait(None),
            WhenNobody::Tell => Found::Offer(Offer::Nobody(nobody)),
            WhenNobody::TrySubstitutes => match self.any_substitute(chooser) {
                Outcome::Chosen(choice) => Found::Offer(Offer::Chosen(choice, how)),
                Outcome::Full(full) => Found::Wait(Some(full.0)),
                Outcome::Nobody(_) => Found::Offer(Offer::Nobody(nobody)),
            },
        }
    }

    /// Any loaded model that can do the same, for a request whose nodes have been waited for in vain.
    fn any_substitute(&self, chooser: &impl Chooser) -> Outcome {
        chooser.choose(&self.profile, &self.tried, Place { allow_any_substitute: true, ..Place::default() })
    }

    /// Its place in the queue under the number `id`, after `decision` on `snapshot`.
    #[must_use]
    pub fn waiter(&self, id: u64, decision: Option<&Decision>, snapshot: &FleetSnapshot, now_ms: u64) -> Waiter {
        let windows = self.profile.num_ctx.map(|_| snapshot.windows(&self.profile.model));
        let best = decision.and_then(|decision| decision.candidates.first());
        Waiter {
            id,
            class: self.class,
            client: self.fairness_key.client,
            app: self.fairness_key.app,
            model: self.profile.model.key(),
            group: group(&self.profile, &self.tried, &windows.unwrap_or_default()),
            expected_ms: best.map_or(f64::NAN, |best| best.prediction.run_ms()),
            since_ms: now_ms,
        }
    }
}
