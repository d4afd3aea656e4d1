//! How long one pass over those who wait takes, when no two of them are alike and nothing is free.

use herd_core::decide::{Policy, Question};
use herd_core::fleet::FleetSnapshot;
use herd_core::load::Claim;
use herd_core::queue::{self, Class, Pass, Queue, QueueLimits, Sweep, Turn, Turned, Waiter};
use herd_core::request::RequestProfile;

use super::choose::{fleet, read};
use super::clock::thread_cpu_ns;

/// Requests that wait.
pub const WAITING: u64 = 4_000;
/// Nodes that all have the model in memory and all are busy.
pub const NODES: usize = 1_024;

/// A queue in front of a fleet without a free slot.
#[derive(Debug)]
pub struct Crowd {
    fleet: FleetSnapshot,
    queue: Queue,
    limits: QueueLimits,
    policy: Policy,
    profiles: Vec<RequestProfile>,
    /// Every slot of the fleet.
    _claims: Vec<Claim>,
    /// Decisions that were made.
    pub decisions: usize,
}

impl Crowd {
    /// `waiting` requests, each of its own context and launch options, in front of `nodes` busy nodes.
    ///
    /// # Panics
    /// When a body of ours cannot be read, or the queue is too small, which would be mistakes here.
    #[must_use]
    pub fn new(waiting: u64, nodes: usize) -> Self {
        let mut fleet = fleet(2 * nodes);
        let profiles: Vec<_> = (0..waiting).map(|number| read(body(number).as_bytes())).collect();
        let model = profiles[0].model.clone();
        fleet.nodes.retain(|node| node.model(&model).is_some_and(|model| model.resident.is_some()));
        let mut claims = Vec::new();
        for node in &fleet.nodes {
            let model = node.model(&model).expect("it has the model");
            claims.extend((0..model.slots(&node.env)).map(|slot| Claim::take(&node.load, &model.load, slot.into())));
        }
        let limits = QueueLimits { max_waiting_per_model: 1 << 16, max_waiting: 1 << 16, ..QueueLimits::default() };
        let mut queue = Queue::default();
        let windows = fleet.windows(&model);
        for (id, profile) in (0..).zip(&profiles) {
            let (class, expected_ms, since_ms) = (Class::Interactive, 1_000.0 + id as f64, id / 8);
            let group = queue::group(profile, &[], &windows);
            let waiter =
                Waiter { id, class, client: id % 100, app: id % 100, model: model.key(), group, expected_ms, since_ms };
            queue.admit(waiter, &limits).expect("there is room");
        }
        let policy = Policy::default();
        Self { fleet, queue, limits, policy, profiles, _claims: claims, decisions: 0 }
    }

    /// One pass; returns whether all have had their turn.
    pub fn pass(&mut self) -> bool {
        let groups_max = queue::groups_max(self.fleet.nodes.len());
        queue::pass(self, groups_max)
    }
}

fn body(number: u64) -> String {
    let model = super::backend::MODEL;
    let (context, batch) = (4_097 + number * 7, 1 + number);
    format!(
        r#"{{"model":"{model}","options":{{"num_ctx":{context},"num_batch":{batch}}},"messages":[{{"role":"user","content":"x"}}]}}"#
    )
}

impl Pass for Crowd {
    fn begin(&mut self) -> Sweep {
        self.queue.begin(&self.limits, 1_000)
    }

    fn first(&mut self, sweep: &mut Sweep) -> Option<Turn> {
        self.queue.first(sweep)
    }

    fn last(&mut self, sweep: &mut Sweep, group: u64) -> Option<Turn> {
        self.queue.last(sweep, group)
    }

    fn take(&mut self, turn: &Turn) -> Turned {
        self.decisions += 1;
        let Some(profile) = usize::try_from(turn.id).ok().and_then(|id| self.profiles.get(id)) else {
            return Turned::Waits;
        };
        let (snapshot, policy, ahead, waited_ms) = (&self.fleet, &self.policy, turn.ahead, turn.waited_ms);
        let draw = Some(turn.id);
        let question = Question {
            snapshot,
            profile,
            policy,
            tried: &[],
            ahead,
            waited_ms,
            draw,
            allow_any_substitute: false,
            now_ms: 1_000,
        };
        let decision = question.decide();
        if decision.ready().next().is_some() {
            self.queue.serve(turn.id);
            return Turned::Served;
        }
        Turned::Waits
    }

    fn end(&mut self, sweep: Sweep) -> bool {
        self.queue.end(sweep)
    }
}

/// Milliseconds of processor time of a pass over [`WAITING`] different requests and so many `nodes`, the median of `passes`.
#[must_use]
pub fn pass_ms(nodes: usize, passes: usize) -> f64 {
    let mut crowd = Crowd::new(WAITING, nodes);
    let mut taken: Vec<f64> = (0..passes.max(1))
        .map(|_| {
            let began_ns = thread_cpu_ns();
            std::hint::black_box(crowd.pass());
            (thread_cpu_ns() - began_ns) as f64 / 1e6
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    taken[taken.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_served_and_few_are_decided() {
        let mut crowd = Crowd::new(600, 64);
        let at_once = queue::groups_max(64);
        assert!(!crowd.pass());
        assert_eq!(crowd.queue.len(), 600);
        assert!(crowd.decisions <= 2 * at_once, "{} decisions", crowd.decisions);
    }
}
