//! The edge: its fleet, its queue and its requests, driven as herd-lb drives them.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use herd_core::awake::{AwakeClock, BEAT_MS};
use herd_core::choice::{self, Choice, FleetView, Freed, Outcome, Place};
use herd_core::decide::Policy;
use herd_core::exchange::silence::{Signs, Silence, Stage, Verdict};
use herd_core::fleet::{Applied, Condition, FleetSnapshot, HeartbeatLimits, Node};
use herd_core::patience::{Evidence, Patience, evidence};
use herd_core::queue::{self, Class, Pass, Queue, QueueLimits, Sweep, Turn, Turned, Waiter};
use herd_core::request::RequestProfile;
use herd_core::vocabulary::Status;

use super::machine::Machine;

/// Longest that a request waits for nodes that are away, milliseconds.
const HOLD_MS: u64 = 30_000;

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) profile: Arc<RequestProfile>,
    pub(super) user: u64,
    pub(super) tags: Vec<String>,
    /// What a node needs for it.
    pub(super) work_ms: u64,
}

/// How one ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) request: Request,
    pub(super) node_id: String,
    pub(super) status: Status,
    pub(super) http_status: u16,
}

/// A request on a node.
#[derive(Debug)]
struct Running {
    request: Request,
    choice: Box<Choice>,
    silence: Silence,
    left_ms: u64,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    held_since_ms: Option<u64>,
}

/// What choices are made from.
#[derive(Debug)]
struct View {
    snapshot: Arc<FleetSnapshot>,
    policy: Arc<Policy>,
    now_ms: u64,
    tickets: Cell<u64>,
}

impl FleetView for View {
    fn snapshot(&self) -> Arc<FleetSnapshot> {
        Arc::clone(&self.snapshot)
    }

    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn ticket(&self) -> u64 {
        self.tickets.set(self.tickets.get() + 1);
        self.tickets.get()
    }

    fn freed(&self) -> Option<Arc<dyn Freed>> {
        None
    }
}

/// The edge.
#[derive(Debug)]
pub(super) struct Edge {
    view: View,
    pub(super) clock: AwakeClock,
    queue: Queue,
    limits: QueueLimits,
    patience: Patience,
    waiting: HashMap<u64, Waiting>,
    running: Vec<Running>,
    numbers: u64,
    ended: Vec<Ended>,
}

impl Edge {
    pub(super) fn new() -> Self {
        let (snapshot, policy) = (Arc::default(), Arc::new(Policy::default()));
        Self {
            view: View { snapshot, policy, now_ms: 0, tickets: Cell::new(0) },
            clock: AwakeClock::default(),
            queue: Queue::default(),
            limits: QueueLimits::default(),
            patience: Patience::default(),
            waiting: HashMap::new(),
            running: Vec::new(),
            numbers: 0,
            ended: Vec::new(),
        }
    }

    pub(super) fn snapshot(&self) -> &FleetSnapshot {
        &self.view.snapshot
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.view.policy
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.view.now_ms
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.queue.is_empty()
    }

    /// What has ended since this was asked last.
    pub(super) fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Lives through `step_ms` up to `raw_ms` on the system's clock.
    pub(super) fn live(&mut self, raw_ms: u64, step_ms: u64) {
        let began_ms = raw_ms.saturating_sub(step_ms);
        (1..=step_ms / BEAT_MS).for_each(|beat| _ = self.clock.beat(began_ms + beat * BEAT_MS));
        self.view.now_ms = self.clock.read(|| raw_ms);
    }

    fn replace(&mut self, next: Option<FleetSnapshot>) -> bool {
        let changed = next.is_some();
        if let Some(next) = next {
            self.view.snapshot = Arc::new(next);
        }
        changed
    }

    pub(super) fn heartbeat(&mut self, machine: &mut Machine) {
        let (life, limits) = (self.view.policy.life, HeartbeatLimits::default());
        let applied = self.view.snapshot.apply(machine.heartbeat(), machine.sender(), self.view.now_ms, &life, &limits);
        if let Ok(Applied::Changed(next)) = applied {
            self.replace(Some(next));
        }
    }

    /// Probes the addresses that it knows; `answers` says whether a machine is awake at one.
    pub(super) fn probe(&self, answers: impl Fn(std::net::IpAddr) -> bool) {
        for node in &self.view.snapshot.nodes {
            if answers(node.address.ip()) {
                node.load.probe_succeeded(self.view.now_ms);
            } else {
                node.load.set_probe_failed(true);
            }
        }
    }

    pub(super) fn forget(&mut self, id: &str) -> bool {
        let next = self.view.snapshot.node(id).map(|node| node.id.clone());
        let next = next.and_then(|id| self.view.snapshot.without(&id));
        self.replace(next)
    }

    pub(super) fn expire(&mut self) {
        let next = self.view.snapshot.expired(self.view.now_ms, &self.view.policy.life);
        self.replace(next);
    }

    pub(super) fn ask(&mut self, request: Request) {
        let model = request.profile.model.key();
        if self.queue.waiting_for(model) > 0 {
            return self.park(request, None);
        }
        match choice::choose(&self.view, &request.profile, &[], Place::default(), |_, _| None) {
            Outcome::Chosen(choice) => self.begin(request, choice),
            Outcome::Full(_) => self.park(request, None),
            Outcome::Nobody(nobody) if nobody.0.refused.iter().any(|(_, why)| why.passes()) => {
                self.park(request, Some(self.view.now_ms));
            }
            Outcome::Nobody(_) => self.end(request, String::new(), Status::Rejected, 404),
        }
    }

    fn park(&mut self, request: Request, held_since_ms: Option<u64>) {
        self.numbers += 1;
        let profile = &request.profile;
        let waiter = Waiter {
            id: self.numbers,
            class: Class::Interactive,
            client: request.user,
            app: request.user,
            model: profile.model.key(),
            group: queue::group(profile, &[], &self.view.snapshot.windows(&profile.model)),
            expected_ms: request.work_ms as f64,
            since_ms: self.view.now_ms,
        };
        let Ok(displaced) = self.queue.admit(waiter, &self.limits) else {
            return self.end(request, String::new(), Status::Rejected, 503);
        };
        if let Some(displaced) = displaced.and_then(|(displaced, _)| self.waiting.remove(&displaced.id)) {
            self.end(displaced.request, String::new(), Status::Rejected, 503);
        }
        self.waiting.insert(waiter.id, Waiting { request, held_since_ms });
    }

    fn begin(&mut self, request: Request, choice: Box<Choice>) {
        choice.node().load.unreserve();
        let now_ms = self.view.now_ms;
        let known = evidence(&choice.snapshot, choice.node().number, &choice.model).unwrap_or_default();
        let candidate = &choice.candidate;
        let silence = Silence::begin(&request.profile, &candidate.plan, &candidate.prediction, known, now_ms);
        let left_ms = request.work_ms;
        self.running.push(Running { request, choice, silence, left_ms });
    }

    fn end(&mut self, request: Request, node_id: String, status: Status, http_status: u16) {
        self.ended.push(Ended { request, node_id, status, http_status });
    }

    /// Lets requests run for `step_ms`, where their machines do. Returns a request that was given up although its machine
    /// was awake all the time.
    pub(super) fn advance(&mut self, machines: &[Machine], raw_ms: u64, step_ms: u64) -> Option<String> {
        let now_ms = self.view.now_ms;
        let mut cut = None;
        let mut still = Vec::with_capacity(self.running.len());
        for mut one in std::mem::take(&mut self.running) {
            let node = one.choice.node();
            let machine = machines.iter().find(|machine| machine.id == node.id.as_str());
            let is_there = machine.is_some_and(|machine| node.address.ip() == std::net::IpAddr::V4(machine.ip));
            let awake_ms = machine.map_or(0, |machine| machine.awake_ms(raw_ms));
            if is_there && awake_ms > 0 {
                one.silence.byte(Stage::Passing, now_ms);
                one.left_ms = one.left_ms.saturating_sub(step_ms);
                if one.left_ms == 0 {
                    node.load.succeeded();
                    let id = node.id.to_string();
                    drop(one.choice);
                    self.end(one.request, id, Status::Completed, 200);
                    continue;
                }
            } else if awake_ms > 0 {
                // It woke elsewhere: the connection is reset.
                node.load.failed(now_ms);
                let id = node.id.to_string();
                drop(one.choice);
                self.end(one.request, id, Status::Failed, 502);
                continue;
            }
            let known = Known { view: &self.view, choice: &one.choice };
            if let Verdict::GiveUp(reason) = one.silence.judge(&known, None, &self.patience, now_ms) {
                if is_there && awake_ms > 600_000 {
                    cut = Some(format!("a request on {} was given up as {}", node.id, reason.name()));
                }
                node.load.failed(now_ms);
                let id = node.id.to_string();
                drop(one.choice);
                self.end(one.request, id, Status::Reaped, 504);
                continue;
            }
            still.push(one);
        }
        self.running = still;
        cut
    }

    /// Hands out what is free, and gives up whoever has waited for too long.
    pub(super) fn pass(&mut self) {
        let (now_ms, limits) = (self.view.now_ms, self.limits);
        let over = |waiter: &&Waiter| now_ms.saturating_sub(waiter.since_ms) >= limits.max_wait_ms;
        let late: Vec<u64> = self.queue.iter().filter(over).map(|waiter| waiter.id).collect();
        for id in late {
            self.queue.remove(id);
            if let Some(waiting) = self.waiting.remove(&id) {
                self.end(waiting.request, String::new(), Status::Rejected, 503);
            }
        }
        let groups_max = queue::groups_max(self.view.snapshot.nodes.len());
        while !queue::pass(&mut Hands(self), groups_max) {}
    }

    /// What does not agree: counts with the requests that run, or a map with what it is of.
    pub(super) fn disagreement(&self) -> Option<String> {
        let mut held: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for one in &self.running {
            *held.entry((one.choice.node().id.as_str(), one.choice.model.as_str())).or_default() += 1;
        }
        for node in &self.view.snapshot.nodes {
            let all: u32 = held.iter().filter(|((id, _), _)| *id == node.id.as_str()).map(|(_, count)| count).sum();
            if node.load.in_flight() != all {
                return Some(format!("{} counts {} in flight and {all} run there", node.id, node.load.in_flight()));
            }
            for model in &node.models {
                let own = held.get(&(node.id.as_str(), model.name.as_str())).copied().unwrap_or(0);
                if model.load.in_flight() != own {
                    return Some(format!("{} on {} counts {}, not {own}", model.name, node.id, model.load.in_flight()));
                }
            }
        }
        let all = self.running.len();
        if self.view.snapshot.in_flight() as usize != all {
            return Some(format!("the fleet counts {} in flight and {all} run", self.view.snapshot.in_flight()));
        }
        let (queued, waiting) = (self.queue.len(), self.waiting.len());
        (queued != waiting).then(|| format!("{queued} are in the queue and {waiting} wait"))
    }
}

/// What is known of the node of a request that runs.
struct Known<'a> {
    view: &'a View,
    choice: &'a Choice,
}

impl Known<'_> {
    fn node(&self) -> Option<&Node> {
        self.view.snapshot.by_number(self.choice.node().number).map(AsRef::as_ref)
    }
}

impl Signs for Known<'_> {
    fn evidence(&self) -> Option<Evidence> {
        evidence(&self.view.snapshot, self.choice.node().number, &self.choice.model)
    }

    fn condition(&self) -> Condition {
        self.node().map_or(Condition::Unreachable, |node| node.condition(self.view.now_ms, &self.view.policy.life))
    }

    fn heartbeat_at_ms(&self) -> Option<u64> {
        self.node().map(|node| node.heartbeat_at_ms)
    }

    fn has_alternative(&self, _: &[u32]) -> bool {
        false
    }

    fn stopping(&self) -> bool {
        false
    }
}

struct Hands<'a>(&'a mut Edge);

impl Pass for Hands<'_> {
    fn begin(&mut self) -> Sweep {
        self.0.queue.begin(&self.0.limits, self.0.view.now_ms)
    }

    fn first(&mut self, sweep: &mut Sweep) -> Option<Turn> {
        self.0.queue.first(sweep)
    }

    fn last(&mut self, sweep: &mut Sweep, group: u64) -> Option<Turn> {
        self.0.queue.last(sweep, group)
    }

    fn take(&mut self, turn: &Turn) -> Turned {
        let edge = &mut *self.0;
        let Some(waiting) = edge.waiting.get_mut(&turn.id) else { return Turned::Served };
        let profile = Arc::clone(&waiting.request.profile);
        let place = Place { ahead: turn.ahead, waited_ms: turn.waited_ms, ..Place::default() };
        let outcome = choice::choose(&edge.view, &profile, &[], place, |_, _| None);
        let now_ms = edge.view.now_ms;
        match outcome {
            Outcome::Full(full) => {
                waiting.held_since_ms = None;
                turn.reserve(&full.0, &full.1, &profile, &edge.limits, now_ms);
                return Turned::Waits;
            }
            Outcome::Nobody(nobody) => {
                let since_ms = *waiting.held_since_ms.get_or_insert(now_ms);
                let passes = nobody.0.refused.iter().any(|(_, why)| why.passes());
                if passes && now_ms.saturating_sub(since_ms) < HOLD_MS {
                    return Turned::Waits;
                }
                edge.queue.serve(turn.id);
                if let Some(waiting) = edge.waiting.remove(&turn.id) {
                    edge.end(waiting.request, String::new(), Status::Rejected, 503);
                }
            }
            Outcome::Chosen(choice) => {
                edge.queue.serve(turn.id);
                if let Some(waiting) = edge.waiting.remove(&turn.id) {
                    edge.begin(waiting.request, choice);
                }
            }
        }
        Turned::Served
    }

    fn end(&mut self, sweep: Sweep) -> bool {
        self.0.queue.end(sweep)
    }
}
