//! One pass over all that wait: everybody in turn, as long as there is room.

use std::collections::HashSet;

use super::{Queue, QueueLimits};
use crate::decide::Candidate;
use crate::name::fnv1a;
use crate::ready::Readiness;
use crate::request::RequestProfile;

/// A reservation is renewed with every pass; it ends soon after whom it was for has left.
pub const RESERVED_MS: u64 = 1_000;

/// Who is tried in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The number of the one who waits.
    pub id: u64,
    /// Its group: those that are decided alike.
    pub group: u64,
    /// Others for the same model that wait before it.
    pub ahead: u32,
    /// How long it has waited.
    pub waited_ms: u64,
}

impl Turn {
    /// Whether the node of `best`, on which it still waits, is kept from others: it must become idle for this one, which
    /// has waited long for that.
    #[must_use]
    pub fn reserves(&self, best: &Candidate, limits: &QueueLimits) -> bool {
        best.readiness == Readiness::Occupied && self.waited_ms >= limits.reserve_after_ms
    }
}

/// What came of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// It waits no longer.
    Served,
    /// It still waits, and so do all that are decided alike.
    Waits,
}

/// Who carries a pass out.
pub trait Pass {
    /// Who is next of those whose group is not `blocked`; see [`Queue::first`].
    fn first(&mut self, blocked: &HashSet<u64>) -> Option<Turn>;
    /// Who of `group` would be served last; see [`Queue::last`].
    fn last(&mut self, group: u64) -> Option<Turn>;
    /// Decides about one of them, and hands it what it gets.
    fn take(&mut self, turn: &Turn) -> Turned;
}

/// Hands out what is free.
pub fn pass(who: &mut impl Pass) {
    let mut blocked = HashSet::new();
    while let Some(turn) = who.first(&blocked) {
        if who.take(&turn) == Turned::Waits {
            blocked.insert(turn.group);
            spread(who, &turn);
        }
    }
}

/// There is no room for the first of a group. The last may still be better off where a load is worth its wait.
fn spread(who: &mut impl Pass, first: &Turn) {
    while let Some(last) = who.last(first.group).filter(|last| last.id != first.id) {
        if who.take(&last) == Turned::Waits {
            return;
        }
    }
}

impl Queue {
    /// The turn of who is next among those whose group is not `blocked`.
    #[must_use]
    pub fn first(&self, blocked: &HashSet<u64>, limits: &QueueLimits, now_ms: u64) -> Option<Turn> {
        let waiter = self.next(blocked, limits, now_ms)?;
        let waited_ms = now_ms.saturating_sub(waiter.since_ms);
        Some(Turn { id: waiter.id, group: waiter.group, ahead: 0, waited_ms })
    }

    /// The turn of who of `group` would be served last.
    #[must_use]
    pub fn last(&self, group: u64, limits: &QueueLimits, now_ms: u64) -> Option<Turn> {
        let waiter = self.last_of(group, limits, now_ms)?;
        let others = self.waiting_for(waiter.model).saturating_sub(1);
        let waited_ms = now_ms.saturating_sub(waiter.since_ms);
        Some(Turn { id: waiter.id, group, ahead: u32::try_from(others).unwrap_or(u32::MAX), waited_ms })
    }
}

/// Requests that are decided alike: the same model and needs, and the same nodes left.
#[must_use]
pub fn group(profile: &RequestProfile, tried: &[u32]) -> u64 {
    let [strict, gpu] = profile.launch.to_bits();
    let needs = [u64::from(profile.images > 0), u64::from(profile.tools), u64::from(profile.think)];
    let mut bytes = Vec::with_capacity(128);
    let mut add = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
    [profile.model.key(), profile.num_ctx.unwrap_or(0), strict, gpu].into_iter().for_each(&mut add);
    needs.into_iter().for_each(&mut add);
    add(u64::from(profile.surface.carries_num_ctx()));
    // Within a factor of two prompts fit the same windows.
    add(u64::from(profile.context_needed().max(1).ilog2()));
    add(profile.fallback.map_or(2, u64::from));
    profile.fallback_models.iter().for_each(|name| add(name.key()));
    let mut tried = tried.to_vec();
    tried.sort_unstable();
    for number in tried {
        add(u64::from(number));
    }
    fnv1a(&bytes)
}
