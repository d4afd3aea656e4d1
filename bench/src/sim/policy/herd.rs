//! herd itself: the decisions, claims, queue and learning of herd-core, driven in the order in which herd-lb drives
//! them (`selector`, `dispatch`, `proxy::attempt`, `proxy::retry`, `proxy::end`).

mod report;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use herd_core::budget::{BudgetLimits, RetryBudget};
use herd_core::decide::{Candidate, Decision, Order, Policy, Question};
use herd_core::estimate::{Prediction, alone, needs_load};
use herd_core::fleet::{Applied, FleetSnapshot, HeartbeatLimits, Loaded};
use herd_core::inspect::{InspectLimits, inspect};
use herd_core::load::{Claim, ModelLoad, NodeLoad, Work};
use herd_core::protect::ContextPlan;
use herd_core::queue::{self, Class, Pass, Queue, QueueLimits, Sweep, Turn, Turned, Waiter};
use herd_core::request::{RequestProfile, Surface};

use crate::sim::catalogue::MODELS;
use crate::sim::node::Report;
use crate::sim::router::{Action, Ended, Failed, Failure, Patience, Router, Sent, World};
use crate::sim::workload::{KEEP_ALIVE_MS, Request};

/// How often those who wait are decided anew though nothing was heard, as in herd-lb.
const TICK_MS: f64 = 200.0;
/// What a pass over those who wait takes for each node of the fleet: nudges meanwhile are one.
const PASS_MS_PER_NODE: f64 = 0.01;
/// How long a request waits for nodes that are away (`hold.max_ms`).
const HOLD_MS: u64 = 30_000;
/// Pause before nodes that were not reached are asked again, as in herd-lb.
const UNREACHED_PAUSE_MS: f64 = 250.0;
/// Most nodes that one request is sent to (`retry.max_attempts`).
const MAX_ATTEMPTS: u32 = 3;
/// A node that failed counts as this slow, as in herd-lb.
const FAILURE_PENALTY_MS: f64 = 60_000.0;

/// What the edge knows of one request.
struct Known {
    profile: Arc<RequestProfile>,
    app: u64,
    tried: Vec<u32>,
    unreached: Vec<u32>,
    sent: u32,
    held_since_ms: Option<u64>,
    attempt: Option<Attempt>,
}

/// One node being asked.
struct Attempt {
    claim: Claim,
    number: u32,
    node: Arc<NodeLoad>,
    model: Arc<ModelLoad>,
    plan: ContextPlan,
    prediction: Prediction,
}

/// What came of a choice.
enum Outcome {
    Chosen(Box<(Attempt, usize)>),
    Full(Box<Decision>),
    Nobody(Box<Decision>),
}

/// Where a request stands.
#[derive(Clone, Copy, Default)]
struct Place {
    ahead: u32,
    waited_ms: u64,
}

/// An edge.
pub(crate) struct Herd {
    snapshot: FleetSnapshot,
    policy: Policy,
    limits: QueueLimits,
    queue: Queue,
    budget: RetryBudget,
    requests: HashMap<usize, Known>,
    /// Those that wait a moment before they ask again.
    paused: VecDeque<(f64, usize)>,
    profiles: Vec<RequestProfile>,
    reports: report::Reports,
    tickets: u64,
    nudged: bool,
    ticked_ms: f64,
}

impl Herd {
    pub(crate) fn new(order: Order) -> Self {
        Self {
            snapshot: FleetSnapshot::default(),
            policy: Policy { order, ..Policy::default() },
            limits: QueueLimits::default(),
            queue: Queue::default(),
            budget: RetryBudget::new(BudgetLimits::default()),
            requests: HashMap::new(),
            paused: VecDeque::new(),
            profiles: MODELS.iter().map(|model| profile_of(model.name)).collect(),
            reports: report::Reports::default(),
            tickets: 0,
            nudged: false,
            ticked_ms: 0.0,
        }
    }

    fn profile(&self, request: &Request) -> RequestProfile {
        RequestProfile {
            prompt_tokens: request.estimate,
            tokens_at_once: request.estimate,
            num_ctx: request.num_ctx,
            max_output_tokens: request.limit,
            conversation: request.prefix.map(|(session, _)| session),
            ..self.profiles[request.model].clone()
        }
    }

    /// `Selector::choose`.
    fn choose(&mut self, profile: &RequestProfile, tried: &[u32], place: Place, now_ms: u64) -> Outcome {
        let decision = self.look(profile, tried, place, now_ms);
        if decision.candidates.is_empty() {
            return Outcome::Nobody(Box::new(decision));
        }
        let Some(candidate) = decision.ready().next() else { return Outcome::Full(Box::new(decision)) };
        match self.claim(candidate, &decision) {
            Some(attempt) => Outcome::Chosen(Box::new((attempt, candidate.node))),
            // Nobody else claims here, so that this is not to be expected.
            None => Outcome::Full(Box::new(decision)),
        }
    }

    /// `Selector::look`.
    fn look(&self, profile: &RequestProfile, tried: &[u32], place: Place, now_ms: u64) -> Decision {
        let Place { ahead, waited_ms } = place;
        let (snapshot, policy) = (&self.snapshot, &self.policy);
        let draw = Some(self.tickets);
        Question { snapshot, profile, policy, tried, ahead, waited_ms, draw, desperate: false, now_ms }.decide()
    }

    fn claim(&mut self, candidate: &Candidate, decision: &Decision) -> Option<Attempt> {
        let node = &self.snapshot.nodes[candidate.node];
        let model = node.model(&decision.model)?;
        self.tickets += 1;
        let claim = Claim::try_take(&node.load, &model.load, &candidate.seen, self.tickets)?;
        Some(Attempt {
            claim,
            number: node.number,
            node: Arc::clone(&node.load),
            model: Arc::clone(&model.load),
            plan: candidate.plan,
            prediction: candidate.prediction,
        })
    }

    /// `Dispatcher::ask`.
    fn ask(&mut self, request: usize, now_ms: u64, out: &mut Vec<Action>) {
        let Some(known) = self.requests.get(&request) else { return };
        let (profile, tried) = (Arc::clone(&known.profile), known.tried.clone());
        let waiting = self.queue.waiting_for(profile.model.key());
        if waiting > 0 {
            let place = Place { ahead: u32::try_from(waiting).unwrap_or(u32::MAX), ..Place::default() };
            let decision = self.look(&profile, &tried, place, now_ms);
            return self.park(request, Some(&decision), now_ms, out);
        }
        match self.choose(&profile, &tried, Place::default(), now_ms) {
            Outcome::Chosen(chosen) => self.send(request, *chosen, out),
            Outcome::Full(decision) => self.park(request, Some(&decision), now_ms, out),
            Outcome::Nobody(decision) if self.may_hold(request, &decision, now_ms) => {
                self.park(request, None, now_ms, out);
            }
            Outcome::Nobody(_) => self.give_up(request, now_ms, out),
        }
    }

    /// `Dispatcher::park`.
    fn park(&mut self, request: usize, decision: Option<&Decision>, now_ms: u64, out: &mut Vec<Action>) {
        let Some(known) = self.requests.get(&request) else { return };
        let best = decision.and_then(|decision| decision.candidates.first());
        let work_ms = best.map(|best| best.prediction.prefill_ms + best.prediction.decode_ms);
        let waiter = Waiter {
            id: request as u64,
            class: Class::Interactive,
            client: known.app,
            app: known.app,
            model: known.profile.model.key(),
            group: queue::group(&known.profile, &known.tried, &self.windows(&known.profile)),
            expected_ms: work_ms.unwrap_or(f64::NAN),
            since_ms: now_ms,
        };
        match self.queue.admit(waiter, &self.limits) {
            Ok(None) => {}
            Ok(Some(displaced)) => self.refuse(usize::try_from(displaced.id).unwrap_or(request), out),
            Err(_) => self.refuse(request, out),
        }
        self.nudged = true;
    }

    fn windows(&self, profile: &RequestProfile) -> Vec<u64> {
        profile.num_ctx.map(|_| self.snapshot.windows(&profile.model)).unwrap_or_default()
    }

    /// `Seek::when_nobody`.
    fn may_hold(&self, request: usize, decision: &Decision, now_ms: u64) -> bool {
        let Some(known) = self.requests.get(&request) else { return false };
        let held_ms = known.held_since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        let returns = |(index, reason): &(usize, herd_core::eligible::Ineligible)| {
            reason.passes() && !known.tried.contains(&self.snapshot.nodes[*index].number)
        };
        held_ms < HOLD_MS && decision.refused.iter().any(returns)
    }

    /// Nodes that were not reached are asked again in a moment; without any, the request fails.
    fn give_up(&mut self, request: usize, now_ms: u64, out: &mut Vec<Action>) {
        let Some(known) = self.requests.get_mut(&request) else { return };
        let since_ms = *known.held_since_ms.get_or_insert(now_ms);
        if known.unreached.is_empty() || now_ms.saturating_sub(since_ms) >= HOLD_MS {
            return self.refuse(request, out);
        }
        let unreached = std::mem::take(&mut known.unreached);
        known.tried.retain(|number| !unreached.contains(number));
        self.paused.push_back((now_ms as f64 + UNREACHED_PAUSE_MS, request));
    }

    fn send(&mut self, request: usize, (attempt, node): (Attempt, usize), out: &mut Vec<Action>) {
        let Some(known) = self.requests.get_mut(&request) else { return };
        let context = attempt.plan.num_ctx.or(known.profile.num_ctx);
        known.tried.push(attempt.number);
        known.attempt = Some(attempt);
        out.push(Action::Send(Sent { request, node, context, keep_ms: KEEP_ALIVE_MS }));
    }

    fn refuse(&mut self, request: usize, out: &mut Vec<Action>) {
        self.requests.remove(&request);
        out.push(Action::Refuse { request });
    }

    /// `Edge::retry`: another node at once, or its turn in the queue.
    fn retry(&mut self, request: usize, failure: Failure, now_ms: u64, out: &mut Vec<Action>) {
        let Some(known) = self.requests.get_mut(&request) else { return };
        let was_sent = failure != Failure::Unreached;
        known.sent += u32::from(was_sent);
        if matches!(failure, Failure::Unreached | Failure::Reset) {
            known.unreached.extend(known.tried.last());
        }
        if known.sent >= MAX_ATTEMPTS || (was_sent && !self.budget.spend(now_ms)) {
            return self.refuse(request, out);
        }
        if failure == Failure::Busy {
            known.tried.pop();
        }
        self.ask(request, now_ms, out);
    }

    /// When slots are handed out next, if anybody waits.
    fn due_ms(&self) -> f64 {
        let pass_ms = self.snapshot.nodes.len() as f64 * PASS_MS_PER_NODE;
        self.ticked_ms + if self.nudged { pass_ms } else { TICK_MS.max(pass_ms) }
    }

    fn pass(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        if !self.queue.is_empty() {
            let groups_max = queue::groups_max(self.snapshot.nodes.len());
            let finished = queue::pass(&mut Hands { herd: self, now_ms, out }, groups_max);
            self.nudged |= !finished;
        }
    }
}

/// One who hands out slots; `dispatch::pass` of herd-lb.
struct Hands<'a> {
    herd: &'a mut Herd,
    now_ms: u64,
    out: &'a mut Vec<Action>,
}

impl Pass for Hands<'_> {
    fn begin(&mut self) -> Sweep {
        self.herd.queue.begin(&self.herd.limits, self.now_ms)
    }

    fn first(&mut self, sweep: &mut Sweep) -> Option<Turn> {
        self.herd.queue.first(sweep)
    }

    fn last(&mut self, sweep: &mut Sweep, group: u64) -> Option<Turn> {
        self.herd.queue.last(sweep, group)
    }

    fn end(&mut self, sweep: Sweep) -> bool {
        self.herd.queue.end(sweep)
    }

    fn take(&mut self, turn: &Turn) -> Turned {
        let Ok(request) = usize::try_from(turn.id) else { return Turned::Waits };
        if turn.waited_ms >= self.herd.limits.max_wait_ms {
            self.herd.queue.remove(turn.id);
            self.herd.refuse(request, self.out);
            return Turned::Served;
        }
        let Some(known) = self.herd.requests.get(&request) else { return Turned::Waits };
        let (profile, tried) = (Arc::clone(&known.profile), known.tried.clone());
        let place = Place { ahead: turn.ahead, waited_ms: turn.waited_ms };
        match self.herd.choose(&profile, &tried, place, self.now_ms) {
            Outcome::Chosen(chosen) => {
                chosen.0.node.unreserve();
                self.herd.queue.serve(turn.id);
                self.herd.send(request, *chosen, self.out);
                Turned::Served
            }
            Outcome::Full(decision) => {
                self.still_waits(turn, &profile, &decision);
                Turned::Waits
            }
            Outcome::Nobody(decision) => self.nobody(turn, request, &decision),
        }
    }
}

impl Hands<'_> {
    fn still_waits(&mut self, turn: &Turn, profile: &RequestProfile, decision: &Decision) {
        if let Ok(request) = usize::try_from(turn.id)
            && let Some(known) = self.herd.requests.get_mut(&request)
        {
            known.held_since_ms = None;
        }
        turn.reserve(decision, &self.herd.snapshot, profile, &self.herd.limits, self.now_ms);
    }

    fn nobody(&mut self, turn: &Turn, request: usize, decision: &Decision) -> Turned {
        if let Some(known) = self.herd.requests.get_mut(&request) {
            known.held_since_ms.get_or_insert(self.now_ms);
        }
        if self.herd.may_hold(request, decision, self.now_ms) {
            return Turned::Waits;
        }
        self.herd.queue.serve(turn.id);
        self.herd.give_up(request, self.now_ms, self.out);
        Turned::Served
    }
}

impl Router for Herd {
    fn patience(&self) -> Patience {
        // upstream.connect_timeout_ms and patience.dead_node_ms.
        Patience { connect_ms: 2_000.0, silence_ms: 15_000.0 }
    }

    fn heartbeat(&mut self, world: World<'_>, now_ms: f64, node: usize, report: &Report) {
        let heartbeat = self.reports.heartbeat(&world.nodes[node], node, report);
        let limits = HeartbeatLimits { nodes: 1 << 16, ..HeartbeatLimits::default() };
        let sender = report::sender();
        let applied = self.snapshot.apply(heartbeat, sender, millis(now_ms), &self.policy.life, &limits);
        if let Ok(Applied::Changed(next)) = applied {
            self.snapshot = next;
            self.nudged = true;
        }
    }

    fn probed(&mut self, now_ms: f64, node: usize, answers: bool) {
        let load = &self.snapshot.nodes[node].load;
        load.set_probe_failed(!answers);
        if answers {
            load.probe_succeeded(millis(now_ms));
        }
        self.nudged = true;
    }

    fn arrives(&mut self, world: World<'_>, now_ms: f64, request: usize, out: &mut Vec<Action>) {
        self.budget.earn();
        let asked = &world.requests[request];
        let known = Known {
            profile: Arc::new(self.profile(asked)),
            app: asked.app,
            tried: Vec::new(),
            unreached: Vec::new(),
            sent: 0,
            held_since_ms: None,
            attempt: None,
        };
        self.requests.insert(request, known);
        self.ask(request, millis(now_ms), out);
    }

    /// `Edge::accept` and `Edge::note_load`.
    fn first_byte(&mut self, _world: World<'_>, now_ms: f64, request: usize, _node: usize) {
        let now_ms = millis(now_ms);
        let Some(known) = self.requests.get_mut(&request) else { return };
        let Some(attempt) = &mut known.attempt else { return };
        attempt.node.succeeded();
        attempt.model.accepted();
        let Some(since_ms) = attempt.claim.loading_since_ms() else { return };
        let taken_ms = now_ms.saturating_sub(since_ms) as f64;
        let load_ms = (taken_ms - attempt.prediction.prefill_ms).max(1.0);
        attempt.model.observe_work(&Work { load_ms: Some(load_ms), ..Work::default() });
        let loaded = Loaded {
            node: attempt.number,
            model: &known.profile.model,
            context_length: attempt.plan.window,
            signature: known.profile.launch,
        };
        if let Some(next) = self.snapshot.with_loaded(&loaded, now_ms) {
            self.snapshot = next;
        }
        attempt.claim.load_ended();
        self.nudged = true;
    }

    /// `Edge::learn`.
    fn done(&mut self, world: World<'_>, now_ms: f64, ended: Ended, _out: &mut Vec<Action>) {
        let Some(known) = self.requests.remove(&ended.request) else { return };
        let Some(attempt) = known.attempt else { return };
        let (asked, timing) = (&world.requests[ended.request], ended.timing);
        attempt.model.observe(now_ms - ended.sent_ms, millis(now_ms));
        let work = Work {
            load_ms: needs_load(&attempt.plan).then_some(timing.load_ms),
            prefill: Some((asked.prompt, timing.prefill_ms)),
            decode: Some((asked.output, timing.decode_ms)),
        };
        let node = &self.snapshot.nodes[ended.node];
        if let Some(model) = node.model(&known.profile.model) {
            attempt.model.observe_work(&alone(&known.profile, node, model, &attempt.plan, &work));
        }
        attempt.model.remember(known.profile.conversation, known.profile.prompt_tokens + asked.output);
        drop(attempt.claim);
        self.nudged = true;
    }

    fn failed(&mut self, _world: World<'_>, now_ms: f64, failed: Failed, out: &mut Vec<Action>) {
        let now_ms = millis(now_ms);
        let Some(known) = self.requests.get_mut(&failed.request) else { return };
        let Some(attempt) = known.attempt.take() else { return };
        match failed.failure {
            Failure::Busy => attempt.model.refused_as_busy(now_ms),
            // It may be the request's own fault: only another node that serves it tells.
            Failure::Error => {}
            Failure::Unreached | Failure::Reset | Failure::Silent => {
                attempt.node.failed(now_ms);
                attempt.model.observe(FAILURE_PENALTY_MS, now_ms);
            }
        }
        drop(attempt);
        self.nudged = true;
        if failed.answered {
            self.requests.remove(&failed.request);
        } else {
            self.retry(failed.request, failed.failure, now_ms, out);
        }
    }

    fn settle(&mut self, _world: World<'_>, now_ms: f64, out: &mut Vec<Action>) {
        while let Some((at_ms, request)) = self.paused.front().copied()
            && at_ms <= now_ms
        {
            self.paused.pop_front();
            self.ask(request, millis(now_ms), out);
        }
        if now_ms >= self.due_ms() {
            (self.nudged, self.ticked_ms) = (false, now_ms);
            self.pass(millis(now_ms), out);
        }
    }

    fn waits(&self) -> bool {
        !self.queue.is_empty() || !self.paused.is_empty()
    }

    fn wakes_ms(&self) -> Option<f64> {
        let tick_ms = (!self.queue.is_empty()).then(|| self.due_ms());
        let paused_ms = self.paused.front().map(|(at_ms, _)| *at_ms);
        [tick_ms, paused_ms].into_iter().flatten().reduce(f64::min)
    }
}

/// What a client asks of `model`, made by the same code that reads bodies. No other model may answer.
fn profile_of(model: &str) -> RequestProfile {
    let body = format!(r#"{{"model":"{model}","fallback":false,"messages":[{{"role":"user","content":"x"}}]}}"#);
    inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).expect("the body is right")
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn millis(ms: f64) -> u64 {
    ms as u64
}
