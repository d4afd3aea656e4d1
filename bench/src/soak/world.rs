//! What happens, and what must hold in spite of it.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use herd_core::fleet::{Condition, NodeState};
use herd_core::inspect::{InspectLimits, inspect};
use herd_core::request::{RequestProfile, Surface};

use super::Broken;
use super::edge::{Edge, Net, Request};
use super::keeper::Keeper;
use super::machine::Machine;
use crate::sim::rng::Rng;

/// From one look to the next: a heartbeat's time.
const STEP_MS: u64 = 5_000;
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The wall clock at the start: 2026-11-22, noon.
const NOON_MS: u64 = 1_795_348_800_000;
/// Machines.
const MACHINES: u8 = 8;
/// Users, each with an application and a key.
const USERS: usize = 60;
/// From one look of the store to the next.
const STORE_MS: u64 = 5 * MINUTE_MS;
/// A machine that has been awake for so long is known to be.
const KNOWN_AFTER_MS: u64 = 60_000;

/// What was done, and what came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Virtual days.
    pub days: u32,
    /// Requests that ended.
    pub requests: u64,
    /// Times that a machine slept.
    pub sleeps: u64,
    /// Times that it woke elsewhere.
    pub moves: u64,
    /// Times that the edge's process was stopped.
    pub freezes: u64,
    /// Steps of the edge's wall clock.
    pub jumps: u64,
    /// Nodes that an operator forgot.
    pub forgotten: u64,
    /// Clients that left.
    pub left: u64,
    /// Largest size of the store, bytes.
    pub store_bytes: u64,
}

impl Report {
    /// Whether every kind of event has happened.
    #[must_use]
    pub fn is_eventful(&self) -> bool {
        [self.sleeps, self.moves, self.freezes, self.jumps, self.forgotten, self.left].iter().all(|count| *count > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { days, requests, sleeps, moves, freezes, jumps, forgotten, left, store_bytes } = self;
        write!(
            f,
            "{days} days: {requests} requests; {sleeps} sleeps, {moves} moves, {freezes} freezes, {jumps} clock steps, \
             {forgotten} nodes forgotten, {left} clients that left; the store held {store_bytes} bytes at most; all held"
        )
    }
}

/// All of it.
pub(super) struct World {
    rng: Rng,
    raw_ms: u64,
    /// How far the wall clock is ahead, and when it is set right.
    ahead_ms: u64,
    right_at_ms: u64,
    /// When it was last set, and when the store's process last began.
    stepped_at_ms: Option<u64>,
    restarted_at_ms: Option<u64>,
    machines: Vec<Machine>,
    edge: Edge,
    keeper: Keeper,
    profiles: HashMap<(String, bool), Arc<RequestProfile>>,
    invented: u64,
    /// When the last request ended, by the steady clock.
    last_ended_ms: u64,
    report: Report,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            raw_ms: STEP_MS,
            ahead_ms: 0,
            right_at_ms: 0,
            stepped_at_ms: None,
            restarted_at_ms: None,
            machines: (0..MACHINES).map(Machine::new).collect(),
            edge: Edge::new(),
            keeper: Keeper::new(),
            profiles: HashMap::new(),
            invented: 0,
            last_ended_ms: 0,
            report: Report::default(),
        }
    }

    pub(super) fn run(mut self, days: u32) -> Result<Report, Broken> {
        let end_ms = u64::from(days) * DAY_MS;
        let mut hour = 0;
        while self.raw_ms < end_ms {
            self.disturb();
            self.arrive();
            self.step()?;
            if self.raw_ms / HOUR_MS > hour {
                hour = self.raw_ms / HOUR_MS;
                self.check()?;
            }
        }
        self.settle()?;
        self.report.days = days;
        self.report.requests = self.keeper.records;
        self.report.store_bytes = self.keeper.largest_bytes;
        Ok(self.report)
    }

    fn broken(&self, what: impl Into<String>) -> Broken {
        Broken { at_ms: self.raw_ms, what: what.into() }
    }

    fn unix_ms(&self) -> u64 {
        NOON_MS + self.raw_ms + self.ahead_ms
    }

    fn chance(&mut self, per_day: f64) -> bool {
        self.rng.unit() < per_day * STEP_MS as f64 / DAY_MS as f64
    }

    /// Does to the fleet what happens to fleets.
    fn disturb(&mut self) {
        if self.raw_ms >= self.right_at_ms && self.ahead_ms > 0 {
            (self.ahead_ms, self.stepped_at_ms) = (0, Some(self.raw_ms));
            self.report.jumps += 1;
        }
        for place in 0..self.machines.len() {
            if self.chance(4.0) && !self.machines[place].sleeps(self.raw_ms) {
                let (sleep_ms, moves) = (self.rng.between(30_000.0, 7_200_000.0), self.rng.unit() < 0.5);
                self.machines[place].sleep(self.raw_ms + whole(sleep_ms), moves);
                self.report.sleeps += 1;
                self.report.moves += u64::from(moves);
            }
            if self.chance(3.0) {
                self.change_models(place);
            }
        }
        if self.chance(40.0) && self.edge.alive() > 0 {
            let place = self.rng.index(self.edge.alive());
            let mut net = Net { machines: &mut self.machines, raw_ms: self.raw_ms, step_ms: STEP_MS };
            self.report.left += u64::from(self.edge.leave(place, &mut net));
        }
        if self.chance(6.0) {
            let place = self.rng.index(self.machines.len());
            let id = self.machines[place].id.clone();
            self.report.forgotten += u64::from(self.edge.forget(&id));
        }
        // In a short run, too.
        let is_due = self.report.jumps == 0 && self.raw_ms > 6 * HOUR_MS;
        if (is_due || self.chance(0.3)) && self.ahead_ms == 0 {
            self.ahead_ms = whole(self.rng.between(600_000.0, 60.0 * DAY_MS as f64));
            self.right_at_ms = self.raw_ms + whole(self.rng.between(0.5, 3.0) * HOUR_MS as f64);
            self.stepped_at_ms = Some(self.raw_ms);
            self.report.jumps += 1;
        }
        if self.chance(1.0) {
            self.keeper.restart();
            self.restarted_at_ms = Some(self.raw_ms);
        }
        if self.chance(4.0) {
            // The process is stopped: all else goes on.
            self.raw_ms += whole(self.rng.between(30_000.0, 600_000.0));
            self.report.freezes += 1;
        }
    }

    fn change_models(&mut self, place: usize) {
        let (extra, drops) = (format!("extra-{}:latest", self.rng.index(40)), self.rng.unit() < 0.5);
        let models = &mut self.machines[place].models;
        if drops && models.len() > 1 {
            models.pop();
        } else if !models.contains(&extra) {
            models.push(extra);
        }
    }

    fn arrive(&mut self) {
        if self.rng.unit() > 0.4 {
            return;
        }
        let kind = self.rng.unit();
        let model = if kind < 0.03 {
            self.invented += 1;
            format!("invented-{}:latest", self.invented)
        } else if kind < 0.5 {
            "shared:latest".to_owned()
        } else if kind < 0.9 {
            format!("common-{}:latest", self.rng.index(3))
        } else {
            format!("extra-{}:latest", self.rng.index(40))
        };
        let tags = if self.rng.unit() < 0.3 {
            (0..8).map(|_| format!("tag-{}", self.rng.index(1 << 40))).collect()
        } else {
            Vec::new()
        };
        // Half of them want their answers whole, which another node may give when one is lost.
        let stream = self.rng.unit() < 0.5;
        let work_ms = whole(self.rng.log_normal(15_000.0, 1.0)).clamp(STEP_MS, 600_000);
        let user = self.rng.index(USERS) as u64;
        let profile = self.profile(&model, stream);
        let request = Request { profile, user, tags, work_ms };
        self.edge.ask(request, &mut Net { machines: &mut self.machines, raw_ms: self.raw_ms, step_ms: STEP_MS });
    }

    fn profile(&mut self, model: &str, stream: bool) -> Arc<RequestProfile> {
        let read = || {
            let body = format!(
                r#"{{"model":"{model}","stream":{stream},"fallback":false,"messages":[{{"role":"user","content":"x"}}]}}"#
            );
            Arc::new(inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).expect("a body of ours"))
        };
        if model.starts_with("invented") {
            return read();
        }
        Arc::clone(self.profiles.entry((model.to_owned(), stream)).or_insert_with(read))
    }

    fn step(&mut self) -> Result<(), Broken> {
        let look = self.raw_ms / STORE_MS;
        self.raw_ms += STEP_MS;
        self.edge.live(self.raw_ms, STEP_MS);
        let raw_ms = self.raw_ms;
        // What lay in the sockets is read first.
        for machine in self.machines.iter_mut().filter(|machine| !machine.sleeps(raw_ms)) {
            self.edge.heartbeat(machine);
        }
        let machines = &self.machines;
        self.edge.probe(|ip| machines.iter().any(|one| IpAddr::V4(one.ip) == ip && !one.sleeps(raw_ms)));
        let mut net = Net { machines: &mut self.machines, raw_ms, step_ms: STEP_MS };
        if let Some(cut) = self.edge.advance(&mut net) {
            return Err(self.broken(cut));
        }
        self.edge.expire();
        self.edge.pass(&mut net);
        let unix_ms = self.unix_ms();
        for ended in self.edge.take_ended() {
            self.last_ended_ms = raw_ms;
            self.keeper.note(ended, unix_ms);
        }
        if raw_ms / STORE_MS > look {
            self.keeper.look(raw_ms, unix_ms);
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), Broken> {
        if let Some(what) = self.edge.disagreement().or_else(|| self.keeper.disagreement()) {
            return Err(self.broken(what));
        }
        if self.edge.clock.sleeps() != self.report.freezes {
            return Err(self.broken(format!(
                "{} of {} freezes were seen",
                self.edge.clock.sleeps(),
                self.report.freezes
            )));
        }
        self.check_clock()?;
        self.check_nodes()
    }

    fn check_clock(&mut self) -> Result<(), Broken> {
        let since = |at_ms: Option<u64>| at_ms.map_or(u64::MAX, |at_ms| self.raw_ms.saturating_sub(at_ms));
        let (stepped_ms, restarted_ms) = (since(self.stepped_at_ms), since(self.restarted_at_ms));
        // A process that begins cannot tell a small step from the time that nobody ran. The store looks every few minutes, and
        // a freeze may put that off.
        let is_known = (30 * MINUTE_MS..DAY_MS - HOUR_MS).contains(&stepped_ms) && restarted_ms > stepped_ms;
        if is_known && self.keeper.trusts_clock() {
            return Err(self.broken("a clock that was set is believed"));
        }
        if stepped_ms.min(restarted_ms) > DAY_MS + HOUR_MS && !self.keeper.trusts_clock() {
            return Err(self.broken("a clock that has held for a day is not believed"));
        }
        let lately = self.raw_ms.saturating_sub(self.last_ended_ms) < 5 * MINUTE_MS;
        let unix_ms = self.unix_ms();
        if lately && stepped_ms.min(restarted_ms) > 30 * MINUTE_MS && self.keeper.last_hour(unix_ms) == 0 {
            return Err(self.broken("the last hour is not seen"));
        }
        Ok(())
    }

    /// What is so of a machine is told of its node.
    fn check_nodes(&self) -> Result<(), Broken> {
        let (life, now_ms) = (self.edge.policy().life, self.edge.now_ms());
        for machine in &self.machines {
            let node = self.edge.snapshot().node(&machine.id);
            if machine.awake_ms(self.raw_ms) >= KNOWN_AFTER_MS {
                let Some(node) = node else { return Err(self.broken(format!("{} is not known", machine.id))) };
                let (state, condition) = (node.state(now_ms, &life), node.condition(now_ms, &life));
                if state != NodeState::Online || condition != Condition::Well {
                    let what = format!("{} is awake and counts as {} and {}", node.id, state.name(), condition.name());
                    return Err(self.broken(what));
                }
            }
        }
        Ok(())
    }

    /// With all awake and nobody asking, everything comes back to zero.
    fn settle(&mut self) -> Result<(), Broken> {
        for machine in &mut self.machines {
            machine.wakes_at_ms = machine.wakes_at_ms.min(self.raw_ms);
            machine.awake_since_ms = machine.awake_since_ms.min(self.raw_ms);
        }
        for _ in 0..2 * HOUR_MS / STEP_MS {
            self.step()?;
        }
        if !self.edge.is_idle() || self.edge.snapshot().in_flight() != 0 || self.edge.queued() != 0 {
            let (running, queued) = (self.edge.snapshot().in_flight(), self.edge.queued());
            return Err(self.broken(format!("{running} run and {queued} wait after everybody has left")));
        }
        self.check()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "drawn between bounds")]
fn whole(number: f64) -> u64 {
    number as u64
}
