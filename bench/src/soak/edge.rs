//! The edge: its fleet, its queue and the exchanges of its requests, driven as herd-lb drives them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use herd_core::awake::{AwakeClock, BEAT_MS};
use herd_core::budget::{BudgetLimits, Retries};
use herd_core::choice::FleetView as _;
use herd_core::decide::Policy;
use herd_core::exchange::silence::Known;
use herd_core::exchange::{
    self, Action, Chooser, ConnectError, Dispatch, Env, Event, Exchange, ExchangePolicy, Found, Hold, Mode, Note,
    Offer, Parked, Pulled, Seek, Seen, State, WaitingRoom,
};
use herd_core::fleet::{Applied, FleetSnapshot, HeartbeatLimits, Loaded, Node};
use herd_core::queue::{Class, Owner, QueueLimits};
use herd_core::record::RequestRecord;
use herd_core::request::{RequestProfile, Surface};
use herd_core::vocabulary::Status;

use super::machine::Machine;
use crate::view::View;

/// A machine that has been awake for so long sends what it has to send: a request that is given up there is given up wrongly.
const CERTAINLY_AWAKE_MS: u64 = 600_000;

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) profile: Arc<RequestProfile>,
    pub(super) user: u64,
    pub(super) tags: Vec<String>,
    /// What a node needs for it.
    pub(super) work_ms: u64,
}

/// One that is over.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) request: Request,
    pub(super) record: RequestRecord,
    pub(super) latency_ms: u64,
}

/// The machines as they are at one moment.
pub(super) struct Net<'a> {
    pub(super) machines: &'a mut [Machine],
    /// On the system's clock, and since the last moment.
    pub(super) raw_ms: u64,
    pub(super) step_ms: u64,
}

/// What is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    /// The machine, since so long.
    Awake(u64),
    /// The machine, and it sleeps.
    Asleep,
    /// Nobody: it has woken elsewhere.
    Nobody,
}

impl Net<'_> {
    fn machine(&mut self, node: &Node) -> Option<&mut Machine> {
        self.machines.iter_mut().find(|machine| machine.id == node.id.as_str())
    }

    /// What is at the address of `node`.
    fn at(&mut self, node: &Node) -> There {
        let raw_ms = self.raw_ms;
        match self.machine(node) {
            Some(machine) if machine.sleeps(raw_ms) => There::Asleep,
            Some(machine) if node.address.ip() == IpAddr::V4(machine.ip) => There::Awake(machine.awake_ms(raw_ms)),
            _ => There::Nobody,
        }
    }
}

/// A request that has not ended.
#[derive(Debug)]
struct Life {
    exchange: Exchange,
    request: Request,
    /// What its node still has to do for it.
    left_ms: u64,
    /// Its number in the waiting room; `None` = it is not there.
    ticket: Option<u64>,
}

/// Hands out slots.
#[derive(Debug)]
struct Desk {
    view: View,
    /// Those that wait, each reached by the number of its life.
    room: RefCell<WaitingRoom<u64>>,
    /// What was handed out and not yet told.
    handed: RefCell<Vec<(u64, Offer)>>,
    hold: Hold,
}

impl Dispatch for Desk {
    type Caller = u64;

    fn room<R>(&self, act: impl FnOnce(&mut WaitingRoom<u64>) -> R) -> R {
        act(&mut self.room.borrow_mut())
    }

    fn chooser(&self) -> &impl Chooser {
        &self.view
    }

    fn queue_limits(&self) -> QueueLimits {
        QueueLimits::default()
    }

    fn hold(&self) -> Hold {
        self.hold
    }

    fn hand(&self, life: u64, offer: Offer) {
        self.handed.borrow_mut().push((life, offer));
    }
}

/// The edge.
#[derive(Debug)]
pub(super) struct Edge {
    desk: Desk,
    pub(super) clock: AwakeClock,
    policy: ExchangePolicy,
    retries: Retries,
    lives: BTreeMap<u64, Life>,
    asked: u64,
    ended: Vec<Ended>,
    ended_before: u64,
}

impl Edge {
    pub(super) fn new() -> Self {
        let policy = ExchangePolicy::default();
        let view = View::new(Policy::default(), None);
        let desk = Desk { view, room: RefCell::default(), handed: RefCell::default(), hold: policy.hold };
        Self {
            desk,
            clock: AwakeClock::default(),
            policy,
            retries: Retries::new(BudgetLimits::default()),
            lives: BTreeMap::new(),
            asked: 0,
            ended: Vec::new(),
            ended_before: 0,
        }
    }

    pub(super) fn snapshot(&self) -> &FleetSnapshot {
        &self.desk.view.snapshot
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.desk.view.policy
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.desk.view.now_ms
    }

    pub(super) fn queued(&self) -> usize {
        self.desk.room.borrow().len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lives.is_empty() && self.queued() == 0
    }

    /// What has ended since this was asked last.
    pub(super) fn take_ended(&mut self) -> Vec<Ended> {
        self.ended_before += self.ended.len() as u64;
        std::mem::take(&mut self.ended)
    }

    /// Lives through `step_ms` up to `raw_ms` on the system's clock.
    pub(super) fn live(&mut self, raw_ms: u64, step_ms: u64) {
        let began_ms = raw_ms.saturating_sub(step_ms);
        (1..=step_ms / BEAT_MS).for_each(|beat| _ = self.clock.beat(began_ms + beat * BEAT_MS));
        self.desk.view.now_ms = self.clock.read(|| raw_ms);
    }

    fn replace(&mut self, next: Option<FleetSnapshot>) -> bool {
        let changed = next.is_some();
        if let Some(next) = next {
            self.desk.view.snapshot = Arc::new(next);
        }
        changed
    }

    pub(super) fn heartbeat(&mut self, machine: &mut Machine) {
        let (life, limits) = (self.desk.view.policy.life, HeartbeatLimits::default());
        let applied =
            self.desk.view.snapshot.apply(machine.heartbeat(), machine.sender(), self.desk.view.now_ms, &life, &limits);
        if let Ok(Applied::Changed(next)) = applied {
            self.replace(Some(next));
        }
    }

    /// Probes the addresses that it knows; `answers` says whether a machine is awake at one.
    pub(super) fn probe(&self, answers: impl Fn(std::net::IpAddr) -> bool) {
        for node in &self.desk.view.snapshot.nodes {
            if answers(node.address.ip()) {
                node.load.probe_succeeded(self.desk.view.now_ms);
            } else {
                node.load.set_probe_failed(true);
            }
        }
    }

    pub(super) fn forget(&mut self, id: &str) -> bool {
        let next = self.desk.view.snapshot.node(id).map(|node| node.id.clone());
        let next = next.and_then(|id| self.desk.view.snapshot.without(&id));
        self.replace(next)
    }

    pub(super) fn expire(&mut self) {
        let next = self.desk.view.snapshot.expired(self.desk.view.now_ms, &self.desk.view.policy.life);
        self.replace(next);
    }

    /// A client asks.
    pub(super) fn ask(&mut self, request: Request, net: &mut Net<'_>) {
        self.asked += 1;
        self.retries.earn();
        let model = request.profile.model.to_string();
        let record = RequestRecord {
            original_model: model.clone(),
            model,
            ..RequestRecord::begin(format!("request-{}", self.asked), Surface::OllamaChat)
        };
        let about = exchange::Request {
            profile: Arc::clone(&request.profile),
            class: Class::Interactive,
            fairness_key: Owner { client: request.user, app: request.user },
            only_node: None,
            benchmark: false,
        };
        let (id, now_ms) = (self.asked, self.now_ms());
        let exchange = Exchange::new(about, Vec::new(), record, now_ms, now_ms);
        let left_ms = request.work_ms;
        self.lives.insert(id, Life { exchange, request, left_ms, ticket: None });
        self.handle(id, Event::Ready, net);
        self.deliver(net);
    }

    /// The client of the request at `place` of those that have not ended leaves.
    pub(super) fn leave(&mut self, place: usize, net: &mut Net<'_>) -> bool {
        let id = self.lives.keys().nth(place).copied();
        id.is_some_and(|id| {
            self.handle(id, Event::ClientLeft, net);
            true
        })
    }

    /// How many requests have not ended.
    pub(super) fn alive(&self) -> usize {
        self.lives.len()
    }

    /// Hands out what is free.
    pub(super) fn pass(&mut self, net: &mut Net<'_>) {
        while !exchange::pass(&self.desk, self.snapshot().nodes.len()) {}
        self.deliver(net);
    }

    /// Tells requests what they were handed.
    fn deliver(&mut self, net: &mut Net<'_>) {
        loop {
            let handed = self.desk.handed.take();
            if handed.is_empty() {
                return;
            }
            for (id, offer) in handed {
                self.lives.entry(id).and_modify(|life| life.ticket = None);
                self.handle(id, Event::Offered(offer), net);
            }
        }
    }

    fn handle(&mut self, id: u64, event: Event, net: &mut Net<'_>) {
        let action = self.tell(id, event);
        self.carry_out(id, action, net);
    }

    fn tell(&mut self, id: u64, event: Event) -> Action {
        let env = Env { now_ms: self.desk.view.now_ms, policy: &self.policy, retries: &self.retries };
        self.lives.get_mut(&id).map_or(Action::None, |life| life.exchange.handle(event, &env))
    }

    /// Does what the exchange wants until it waits for something.
    fn carry_out(&mut self, id: u64, mut action: Action, net: &mut Net<'_>) {
        loop {
            self.carry_notes(id);
            let event = match action {
                Action::None | Action::Wait | Action::Accept(_) | Action::Refuse(_) | Action::End => break,
                Action::Seek(seek) => Event::Offered(self.offer(id, *seek)),
                Action::Pull => {
                    let message = "no registry".into();
                    Event::Pulled(Pulled::Failed { status: Status::Rejected, http_status: 404, message })
                }
                Action::Ask => match self.send(id, net) {
                    Some(failed) => failed,
                    None => break,
                },
                Action::Retry => Event::Ready,
                Action::Abandon(_) => Event::Broke { reused: false },
                Action::Release | Action::Done | Action::TellTorn => Event::Delivered,
            };
            action = self.tell(id, event);
        }
        self.conclude(id);
    }

    /// Sends the request to the node that was chosen; returns what becomes of that at once.
    fn send(&mut self, id: u64, net: &mut Net<'_>) -> Option<Event> {
        let choice = self.lives.get(&id)?.exchange.chosen()?;
        let (name, snapshot, place) = (choice.model.clone(), Arc::clone(&choice.snapshot), choice.candidate.node);
        drop(self.tell(id, Event::Sent { name: name.clone() }));
        let life = self.lives.get_mut(&id)?;
        life.left_ms = life.request.work_ms;
        let node = &snapshot.nodes[place];
        if !matches!(net.at(node), There::Awake(_)) {
            return Some(Event::Unconnected(ConnectError::TimedOut));
        }
        net.machine(node)?.load(name.as_str());
        None
    }

    fn carry_notes(&mut self, id: u64) {
        while let Some(note) = self.lives.get_mut(&id).and_then(|life| life.exchange.poll_note()) {
            if let Note::Loaded { node, model, context_length, signature } = note {
                let loaded = Loaded { node, model: &model, context_length, signature };
                let next = self.desk.view.snapshot.with_loaded(&loaded, self.desk.view.now_ms);
                self.replace(next);
                self.lives.entry(id).and_modify(|life| life.exchange.load_known());
            }
        }
    }

    /// Takes a request out that has ended.
    fn conclude(&mut self, id: u64) {
        if !self.lives.get(&id).is_some_and(|life| life.exchange.has_ended()) {
            return;
        }
        let Some(mut life) = self.lives.remove(&id) else { return };
        life.ticket.map(|ticket| self.desk.room.borrow_mut().leave(ticket));
        let latency_ms = life.exchange.age_ms(self.now_ms());
        self.ended.push(Ended { request: life.request, record: life.exchange.abort(), latency_ms });
    }

    fn offer(&mut self, id: u64, seek: Seek) -> Offer {
        let Desk { view, room, hold, .. } = &self.desk;
        if seek.mode != Mode::Queue {
            return seek.at_once(view);
        }
        let waiting = room.borrow().waiting_for(seek.profile.model.key());
        let decision = match seek.first(view, waiting, hold) {
            Found::Offer(offer) => return offer,
            Found::Wait(decision) => decision,
        };
        let ticket = view.ticket();
        let waiter = seek.waiter(ticket, decision.as_ref(), &view.snapshot, view.now_ms);
        let parked = Parked::new(seek, decision.as_ref(), id);
        let predicted_ms = parked.predicted_ms;
        let entered = room.borrow_mut().enter(waiter, parked, &self.desk.queue_limits());
        match entered {
            Ok(displaced) => self.desk.handed.borrow_mut().extend(displaced),
            Err(refused) => return refused,
        }
        self.lives.entry(id).and_modify(|life| life.ticket = Some(ticket));
        Offer::Queued { predicted_ms }
    }

    /// Lets nodes work for a step, where their machines are awake, and looks at those that are silent. Returns a request that
    /// was given up although its machine was awake all the time.
    pub(super) fn advance(&mut self, net: &mut Net<'_>) -> Option<String> {
        let mut cut = None;
        let ids: Vec<u64> = self.lives.keys().copied().collect();
        for id in ids {
            if let Some(event) = self.heard(id, net) {
                let begins = matches!(event, Event::Head { .. });
                self.handle(id, event, net);
                if begins {
                    self.handle(id, Event::Bytes(100), net);
                }
            }
            cut = cut.or(self.look(id, net));
        }
        self.deliver(net);
        cut
    }

    /// What comes from the node of a request in this step.
    fn heard(&mut self, id: u64, net: &mut Net<'_>) -> Option<Event> {
        let life = self.lives.get_mut(&id)?;
        let answers = matches!(life.exchange.state(), State::Answering(..));
        if !answers && !matches!(life.exchange.state(), State::Asking(_)) {
            return None;
        }
        match net.at(life.exchange.chosen()?.node()) {
            There::Asleep => None,
            There::Nobody => Some(Event::Broke { reused: false }),
            There::Awake(_) if !answers => Some(Event::Head { status: 200 }),
            There::Awake(_) => {
                life.left_ms = life.left_ms.saturating_sub(net.step_ms);
                let is_over = life.left_ms == 0;
                let snapshot = Arc::clone(&self.desk.view.snapshot);
                Some(if is_over { Event::Finished(Seen::WHOLE, snapshot) } else { Event::Bytes(100) })
            }
        }
    }

    /// Has an exchange judge what is due.
    fn look(&mut self, id: u64, net: &mut Net<'_>) -> Option<String> {
        let mut cut = None;
        loop {
            let Self { lives, desk: Desk { view, .. }, policy, retries, .. } = self;
            let env = Env { now_ms: view.now_ms, policy, retries };
            let Some(Life { exchange, .. }) = lives.get_mut(&id) else { return cut };
            if exchange.poll_timeout(&env).is_none_or(|due_ms| due_ms > view.now_ms) {
                return cut;
            }
            let asked = exchange.attempt().map(|attempt| &attempt.choice);
            let asked = asked.map(|choice| (Arc::clone(&choice.snapshot), choice.candidate.node));
            let known = Known::of(exchange, view, view, false);
            let action = exchange.handle_timeout(&env, &known);
            if let (Action::Abandon(why), Some((snapshot, place))) = (&action, asked)
                && matches!(net.at(&snapshot.nodes[place]), There::Awake(ms) if ms > CERTAINLY_AWAKE_MS)
            {
                cut = Some(format!("a request on {} was given up as {}", snapshot.nodes[place].id, why.name()));
            }
            self.carry_out(id, action, net);
        }
    }

    /// What does not agree: counts with the requests that run, or a map with what it is of.
    pub(super) fn disagreement(&self) -> Option<String> {
        let mut held: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        let chosen = || self.lives.values().filter_map(|life| life.exchange.chosen());
        for choice in chosen() {
            *held.entry((choice.node().id.as_str(), choice.model.as_str())).or_default() += 1;
        }
        for node in &self.desk.view.snapshot.nodes {
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
        let all = chosen().count();
        if self.desk.view.snapshot.in_flight() as usize != all {
            return Some(format!("the fleet counts {} in flight and {all} run", self.desk.view.snapshot.in_flight()));
        }
        let waiting = self.lives.values().filter(|life| life.ticket.is_some()).count();
        let (queued, known) = (self.queued(), self.desk.room.borrow().iter().count());
        if queued != waiting || queued != known {
            return Some(format!("{queued} are in the queue, {known} are known there and {waiting} wait"));
        }
        let ended = self.ended_before + self.ended.len() as u64;
        let known = ended + self.lives.len() as u64;
        (self.asked != known).then(|| format!("{} requests were asked, and {known} have ended or live", self.asked))
    }
}
