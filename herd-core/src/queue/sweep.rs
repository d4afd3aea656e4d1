//! The order of all that wait, worked out once for a pass.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use super::{Queue, QueueLimits, Rank, Turn, Waiter};

/// One walk through the queue in the order in which requests are served.
///
/// Who begins to wait meanwhile is not in it, and who leaves still is: whoever carries the pass out finds that out.
#[derive(Debug)]
pub struct Sweep {
    limits: QueueLimits,
    now_ms: u64,
    waiters: Vec<Waiter>,
    /// Places in `waiters` by the rank that they had when they were last looked at. A rank only grows.
    order: BinaryHeap<Reverse<(Rank, usize)>>,
    /// Places in `waiters` by group, sorted; empty until [`Self::sort_groups`].
    by_group: Vec<(u64, usize)>,
    /// Those that have had their turn.
    turned: HashSet<u64>,
    /// Groups that wait.
    blocked: HashSet<u64>,
    /// Groups that earlier passes have found to wait, since one has looked at all.
    waited: HashSet<u64>,
    /// `waited` is passed over.
    passes_over: bool,
    /// Some have not had their turn, neither in this walk nor in those before.
    is_partial: bool,
}

impl Sweep {
    /// Leaves out all of `group` from here on: one of them waits, and so would the others.
    pub fn block(&mut self, group: u64) {
        self.blocked.insert(group);
    }

    /// How many groups wait.
    pub(super) fn blocked(&self) -> usize {
        self.blocked.len()
    }

    /// Passes over what earlier passes have found to wait.
    pub(super) fn pass_over(&mut self) {
        self.passes_over = true;
    }

    /// Ends before all have had their turn.
    pub(super) fn cut(&mut self) {
        self.is_partial = true;
    }

    /// Makes [`Self::members`] known.
    fn sort_groups(&mut self) {
        if self.by_group.is_empty() {
            self.by_group = self.waiters.iter().map(|waiter| waiter.group).zip(0..).collect();
            self.by_group.sort_unstable();
        }
    }

    /// All of `group`.
    fn members(&self, group: u64) -> impl Iterator<Item = &Waiter> {
        let from = self.by_group.partition_point(|(other, _)| *other < group);
        let members = self.by_group[from..].iter().take_while(move |(other, _)| *other == group);
        members.map(|(_, place)| &self.waiters[*place])
    }

    fn leaves_out(&self, waiter: &Waiter) -> bool {
        let passed_over = self.passes_over && self.waited.contains(&waiter.group);
        passed_over || self.blocked.contains(&waiter.group) || self.turned.contains(&waiter.id)
    }

    fn turn(&mut self, waiter: &Waiter, ahead: usize) -> Turn {
        self.turned.insert(waiter.id);
        let waited_ms = self.now_ms.saturating_sub(waiter.since_ms);
        Turn { id: waiter.id, group: waiter.group, ahead: u32::try_from(ahead).unwrap_or(u32::MAX), waited_ms }
    }
}

impl Queue {
    /// Begins a walk through all that wait now.
    #[must_use]
    pub fn begin(&mut self, limits: &QueueLimits, now_ms: u64) -> Sweep {
        let waiters = self.waiters.clone();
        let ranks = waiters.iter().map(|waiter| self.rank(waiter, limits, now_ms));
        let order = ranks.zip(0..).map(Reverse).collect();
        Sweep {
            limits: *limits,
            now_ms,
            waiters,
            order,
            by_group: Vec::new(),
            turned: HashSet::new(),
            blocked: HashSet::new(),
            waited: std::mem::take(&mut self.waited),
            passes_over: false,
            is_partial: false,
        }
    }

    /// The turn of who is next in `sweep`; `None` = all that are not blocked have had theirs.
    #[must_use]
    pub fn first(&self, sweep: &mut Sweep) -> Option<Turn> {
        while let Some(Reverse((rank, place))) = sweep.order.pop() {
            let waiter = sweep.waiters[place];
            if sweep.leaves_out(&waiter) {
                continue;
            }
            // Others of its application have been served since.
            let now = self.rank(&waiter, &sweep.limits, sweep.now_ms);
            if now > rank {
                sweep.order.push(Reverse((now, place)));
                continue;
            }
            return Some(sweep.turn(&waiter, 0));
        }
        None
    }

    /// The turn of who of `group` would be served last.
    #[must_use]
    pub fn last(&self, sweep: &mut Sweep, group: u64) -> Option<Turn> {
        sweep.sort_groups();
        let left = sweep.members(group).filter(|waiter| !sweep.turned.contains(&waiter.id));
        let last = *left.max_by_key(|waiter| self.rank(waiter, &sweep.limits, sweep.now_ms))?;
        let others = self.waiting_for(last.model).saturating_sub(1);
        Some(sweep.turn(&last, others))
    }

    /// Ends a walk; true = all have had their turn, in this one or those before it.
    pub fn end(&mut self, sweep: Sweep) -> bool {
        if sweep.is_partial {
            self.waited = sweep.waited;
            self.waited.extend(sweep.blocked);
        }
        !sweep.is_partial
    }
}
