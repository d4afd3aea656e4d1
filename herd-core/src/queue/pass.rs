//! One pass over all that wait: everybody in turn, as long as there is room.

use super::{QueueLimits, Sweep};
use crate::decide::Decision;
use crate::fleet::FleetSnapshot;
use crate::name::fnv1a;
use crate::ready::Readiness;
use crate::request::RequestProfile;

/// A reservation is renewed with every pass; it ends soon after whom it was for has left.
const RESERVED_MS: u64 = 1_000;

/// A request that is tried in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The number of the request.
    pub id: u64,
    /// Its group: those that are decided alike.
    pub group: u64,
    /// Others for the same model that wait before it.
    pub ahead: u32,
    /// How long it has waited.
    pub waited_ms: u64,
}

impl Turn {
    /// Keeps the best node of `decision` on `snapshot` from others, if it must become idle for the request of `profile`
    /// and that has waited for it for longer than `limits` say.
    pub fn reserve(
        &self,
        decision: &Decision,
        snapshot: &FleetSnapshot,
        profile: &RequestProfile,
        limits: &QueueLimits,
        now_ms: u64,
    ) {
        let Some(best) = decision.candidates.first() else { return };
        if best.readiness == Readiness::Occupied && self.waited_ms >= limits.reserve_after_ms {
            let load = &snapshot.nodes[best.node].load;
            load.reserve(decision.model.key(), profile.launch, now_ms + RESERVED_MS);
        }
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

/// Carries a pass out.
pub trait Pass {
    /// Begins a walk through the queue; see [`super::Queue::begin`].
    fn begin(&mut self) -> Sweep;
    /// Who is next; see [`super::Queue::first`].
    fn first(&mut self, sweep: &mut Sweep) -> Option<Turn>;
    /// Who of `group` would be served last; see [`super::Queue::last`].
    fn last(&mut self, sweep: &mut Sweep, group: u64) -> Option<Turn>;
    /// Decides about one of them, and hands it what it gets.
    fn take(&mut self, turn: &Turn) -> Turned;
    /// Ends the walk; see [`super::Queue::end`].
    fn end(&mut self, sweep: Sweep) -> bool;
}

/// Groups that one pass may find to wait, for a fleet of `nodes`: what a decision that finds no room costs grows with the
/// fleet, and a queue may be made of requests of which no two are alike.
#[must_use]
pub fn groups_max(nodes: usize) -> usize {
    /// Decisions, times the nodes that each looks at: 3 to 4 milliseconds at a quarter of a microsecond each
    /// (`herd-load choose`).
    const LOOKS: usize = 12_288;
    (LOOKS / nodes.max(1)).clamp(8, 1_024)
}

/// Hands out what is free, until `groups_max` groups are found to wait; true = all have had their turn, in this pass or
/// those before it.
///
/// Where there are more groups than that, half of the pass goes to the most urgent and half to those whose turn it has not
/// been yet, so that each pass serves the first and some passes serve all.
pub fn pass(who: &mut impl Pass, groups_max: usize) -> bool {
    let mut sweep = who.begin();
    while let Some(turn) = who.first(&mut sweep) {
        if who.take(&turn) == Turned::Waits {
            sweep.block(turn.group);
            spread(who, &mut sweep, turn.group);
        }
        if sweep.blocked() >= groups_max {
            sweep.cut();
            break;
        }
        if sweep.blocked() >= groups_max.div_ceil(2) {
            sweep.pass_over();
        }
    }
    who.end(sweep)
}

/// There is no room for the first of a group. The last may still be better off where a load is worth its wait.
fn spread(who: &mut impl Pass, sweep: &mut Sweep, group: u64) {
    while let Some(last) = who.last(sweep, group) {
        if who.take(&last) == Turned::Waits {
            return;
        }
    }
}

/// Requests that are decided alike: the same model and needs, and the same nodes left. `windows` are the contexts that tell
/// requests for the model apart, see [`crate::fleet::FleetSnapshot::windows`].
#[must_use]
pub fn group(profile: &RequestProfile, tried: &[u32], windows: &[u64]) -> u64 {
    let needs = [u64::from(profile.images > 0), u64::from(profile.tools), u64::from(profile.think)];
    let mut bytes = Vec::with_capacity(192);
    let mut add = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
    let context = profile.num_ctx.map_or([0, 0], |tokens| context_class(tokens, windows));
    [profile.model.key(), context[0], context[1]].into_iter().for_each(&mut add);
    profile.launch.to_bits().into_iter().for_each(&mut add);
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

/// What a context that is asked for has in common with others: it lies between the same two of `windows`, or is one of
/// them, so that the same runners can serve it. Windows that come later are mostly powers of two, or the same again.
fn context_class(tokens: u64, windows: &[u64]) -> [u64; 2] {
    let below = windows.partition_point(|window| *window < tokens);
    let is_one = windows.get(below) == Some(&tokens);
    [tokens.max(1).next_power_of_two(), 2 * below as u64 + u64::from(is_one)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{InspectLimits, inspect};
    use crate::queue::{Class, Queue, Waiter};
    use crate::request::Surface;

    /// Serves as many as there are `slots`; the others wait. Counts decisions.
    struct Hands {
        queue: Queue,
        slots: usize,
        decisions: usize,
        tried: Vec<u64>,
    }

    impl Hands {
        fn new(groups: u64, slots: usize) -> Self {
            let mut queue = Queue::default();
            let limits = QueueLimits { max_waiting_per_model: 10_000, ..QueueLimits::default() };
            for id in 0..groups {
                let (class, expected_ms) = (Class::Interactive, 1_000.0);
                queue
                    .admit(
                        Waiter { id, class, client: 0, app: 0, model: 1, group: id, expected_ms, since_ms: 0 },
                        &limits,
                    )
                    .unwrap();
            }
            Self { queue, slots, decisions: 0, tried: Vec::new() }
        }
    }

    impl Pass for Hands {
        fn begin(&mut self) -> Sweep {
            (self.decisions, self.tried) = (0, Vec::new());
            self.queue.begin(&QueueLimits::default(), 0)
        }

        fn first(&mut self, sweep: &mut Sweep) -> Option<Turn> {
            self.queue.first(sweep)
        }

        fn last(&mut self, sweep: &mut Sweep, group: u64) -> Option<Turn> {
            self.queue.last(sweep, group)
        }

        fn take(&mut self, turn: &Turn) -> Turned {
            self.decisions += 1;
            self.tried.push(turn.id);
            if self.slots == 0 {
                return Turned::Waits;
            }
            self.slots -= 1;
            self.queue.serve(turn.id);
            Turned::Served
        }

        fn end(&mut self, sweep: Sweep) -> bool {
            self.queue.end(sweep)
        }
    }

    #[test]
    fn a_pass_over_any_queue_makes_a_bounded_number_of_decisions() {
        let mut hands = Hands::new(4_000, 3);
        assert!(!pass(&mut hands, 16));
        assert_eq!((hands.decisions, hands.queue.len()), (19, 3_997));
    }

    #[test]
    fn everybody_has_a_turn_in_some_pass_and_the_first_in_each() {
        let mut hands = Hands::new(100, 0);
        let mut turned = std::collections::BTreeSet::new();
        let mut passes = 1;
        while !pass(&mut hands, 16) {
            assert_eq!(hands.tried[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
            turned.extend(hands.tried.drain(..));
            passes += 1;
        }
        turned.extend(hands.tried.drain(..));
        assert_eq!((turned.len(), passes), (100, 12));
        assert!(!pass(&mut hands, 16), "and all over again");
        assert!(pass(&mut hands, 200));
    }

    #[test]
    fn contexts_that_the_same_runners_serve_are_one_group() {
        let group = |num_ctx: u64| {
            let body = format!(r#"{{"model":"m","options":{{"num_ctx":{num_ctx}}}}}"#);
            let profile = inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap();
            group(&profile, &[], &[6_000, 8_192, 32_768])
        };
        let groups: std::collections::HashSet<u64> = (4_097..=8_192).map(group).collect();
        assert_eq!(groups.len(), 4, "up to 6,000, that itself, up to 8,192, that itself");
        assert_eq!(group(5_000), group(5_001));
        assert_ne!(group(5_999), group(6_001));
        assert_ne!(group(10_000), group(20_000));
    }
}
