//! Virtual time: what happens when, between clients, one policy and the nodes.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::catalogue::MODELS;
use super::node::{Job, Node, Output, Report, Timing};
use super::router::{Action, Ended, Failed, Failure, Router, Sent, World};
use super::workload::{KEEP_ALIVE_MS, Outage, OutageKind, Scenario};

/// From a refusal, or from the death of a node, to its notice.
const NETWORK_MS: f64 = 1.0;
/// From the death of a node to the notice of an edge that probes every 400 ms and suspects after two failures.
const PROBE_NOTICES_MS: f64 = 800.0;
/// What handing out slots takes the edge's computer for each node of the fleet; what happens meanwhile is looked at after it.
pub(crate) const PASS_MS_PER_NODE: f64 = 0.01;
/// Nothing may take longer, in virtual time after the last arrival; what does has failed.
const LONGEST_MS: f64 = 4.0 * 3_600_000.0;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Record {
    /// When it was sent by its client.
    pub(crate) arrived_ms: f64,
    /// When the first byte of its answer came.
    pub(crate) first_byte_ms: Option<f64>,
    /// When it ended.
    pub(crate) ended_ms: f64,
    /// Whether its answer was complete.
    pub(crate) served: bool,
    /// How often it was sent to a node.
    pub(crate) attempts: u32,
}

/// What happened in one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// One for each request, those of other clients included.
    pub(crate) records: Vec<Option<Record>>,
    /// Times for which each node's device has worked.
    pub(crate) busy_ms: Vec<f64>,
    /// The most memory that each node has used.
    pub(crate) peak_bytes: Vec<u64>,
    /// When the last request ended.
    pub(crate) end_ms: f64,
    /// Models brought into memory where they were not.
    pub(crate) loads: u64,
    /// Models brought into memory again, with another context.
    pub(crate) reloads: u64,
    /// Reloads of a runner that had room for the request, or while another node had a free slot with enough context.
    pub(crate) avoidable: u64,
    /// Requests that ended more than once: never, and a test holds it.
    pub(crate) doubles: u64,
}

#[derive(Debug)]
enum Event {
    Arrives(usize),
    Works { node: usize, turn: u64 },
    Looks(usize),
    Reports(usize, Box<Report>),
    Away(Outage),
    Back(Outage),
    Probed { node: usize, answers: bool },
    Fails { attempt: usize, failure: Failure },
    Wakes,
}

#[derive(Debug)]
struct Due {
    at_ms: f64,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at_ms.total_cmp(&other.at_ms).then(self.number.cmp(&other.number))
    }
}

/// One sending of a request to a node; `request` is `None` for what nobody waits for.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    request: Option<usize>,
    node: usize,
    sent_ms: f64,
    answered: bool,
    over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Up,
    Crashed,
    Asleep,
}

struct Engine<'a> {
    scenario: &'a Scenario,
    router: &'a mut dyn Router,
    nodes: Vec<Node>,
    lives: Vec<Life>,
    turns: Vec<u64>,
    attempts: Vec<Attempt>,
    next_of: Vec<Option<usize>>,
    /// The last attempt of each request.
    last_of: Vec<Option<usize>>,
    due: BinaryHeap<Reverse<Due>>,
    numbers: u64,
    now_ms: f64,
    unfinished: usize,
    /// Requests and outages that are still to come.
    expected: usize,
    actions: Vec<Action>,
    outputs: Vec<Output>,
    wake_ms: f64,
    outcome: Outcome,
}

/// Runs `scenario` under `router`.
pub(crate) fn run(scenario: &Scenario, router: &mut dyn Router) -> Outcome {
    let mut engine = Engine::new(scenario, router);
    engine.begin();
    engine.go();
    engine.finish()
}

impl<'a> Engine<'a> {
    fn new(scenario: &'a Scenario, router: &'a mut dyn Router) -> Self {
        let size = scenario.nodes.len();
        let mut next_of = vec![None; scenario.requests.len()];
        for (number, request) in scenario.requests.iter().enumerate() {
            if let Some(after) = request.after {
                next_of[after] = Some(number);
            }
        }
        Self {
            scenario,
            router,
            nodes: scenario.nodes.iter().map(|spec| Node::new(spec.hardware)).collect(),
            lives: vec![Life::Up; size],
            turns: vec![0; size],
            attempts: Vec::new(),
            next_of,
            last_of: vec![None; scenario.requests.len()],
            due: BinaryHeap::new(),
            numbers: 0,
            now_ms: 0.0,
            unfinished: scenario.requests.len(),
            expected: scenario.requests.len() + scenario.outages.len(),
            actions: Vec::new(),
            outputs: Vec::new(),
            wake_ms: f64::INFINITY,
            outcome: Outcome { records: vec![None; scenario.requests.len()], ..Outcome::default() },
        }
    }

    fn world(&self) -> World<'a> {
        World { nodes: &self.scenario.nodes, requests: &self.scenario.requests }
    }

    fn at(&mut self, at_ms: f64, event: Event) {
        self.numbers += 1;
        self.due.push(Reverse(Due { at_ms, number: self.numbers, event }));
    }

    /// All nodes report once before the first request; then their reports are spread over the interval.
    fn begin(&mut self) {
        let size = self.nodes.len();
        for (number, spec) in self.scenario.nodes.iter().enumerate() {
            for (model, context) in &spec.hot {
                self.nodes[number].preload(*model, *context);
            }
            let report = self.nodes[number].report();
            self.router.heartbeat(self.world(), 0.0, number, &report);
            self.router.probed(0.0, number, true);
            // A hundred phases: large fleets report in groups.
            let phase = (number * 100 / size + 1) as f64 / 101.0;
            self.at(spec.interval_ms * phase, Event::Looks(number));
        }
        for outage in &self.scenario.outages {
            self.at(outage.from_ms, Event::Away(*outage));
            self.at(outage.until_ms, Event::Back(*outage));
        }
        for (number, request) in self.scenario.requests.iter().enumerate() {
            if request.after.is_none() {
                self.at(request.at_ms, Event::Arrives(number));
            }
        }
    }

    fn go(&mut self) {
        let last_ms = self.scenario.requests.iter().map(|request| request.at_ms).fold(0.0, f64::max);
        while self.unfinished > 0
            && let Some(Reverse(Due { at_ms, event, .. })) = self.due.pop()
        {
            if at_ms > last_ms + LONGEST_MS {
                break;
            }
            self.now_ms = at_ms;
            self.happen(event);
            self.carry_out();
            if self.due.peek().is_none_or(|next| next.0.at_ms > at_ms) {
                self.router.settle(self.world(), at_ms, &mut self.actions);
                self.carry_out();
                self.ask_for_wake();
            }
        }
    }

    fn finish(mut self) -> Outcome {
        self.outcome.busy_ms = self.nodes.iter().map(Node::busy_ms).collect();
        self.outcome.peak_bytes = self.nodes.iter().map(Node::peak_bytes).collect();
        self.outcome.end_ms = self.now_ms;
        self.outcome
    }

    fn ask_for_wake(&mut self) {
        if let Some(wakes_ms) = self.router.wakes_ms()
            && (wakes_ms < self.wake_ms || self.wake_ms <= self.now_ms)
        {
            self.wake_ms = wakes_ms.max(self.now_ms);
            self.at(self.wake_ms, Event::Wakes);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(request) => self.arrive(request),
            Event::Works { node, turn } if self.turns[node] == turn => self.work(node),
            Event::Works { .. } | Event::Wakes => {}
            Event::Looks(node) => self.look(node),
            Event::Reports(node, report) => self.router.heartbeat(self.world(), self.now_ms, node, &report),
            Event::Away(outage) => self.go_away(outage),
            Event::Back(outage) => self.come_back(outage),
            Event::Probed { node, answers } => self.router.probed(self.now_ms, node, answers),
            Event::Fails { attempt, failure } => self.fail(attempt, failure),
        }
    }

    fn arrive(&mut self, number: usize) {
        self.expected -= 1;
        let request = &self.scenario.requests[number];
        self.outcome.records[number] =
            Some(Record { arrived_ms: self.now_ms, first_byte_ms: None, ended_ms: 0.0, served: false, attempts: 0 });
        match request.foreign {
            Some(node) => {
                let context = request.num_ctx;
                self.actions.push(Action::Send(Sent { request: number, node, context, keep_ms: KEEP_ALIVE_MS }));
            }
            None => self.router.arrives(self.world(), self.now_ms, number, &mut self.actions),
        }
    }

    fn look(&mut self, node: usize) {
        if self.expected == 0 && !self.router.waits() {
            // Nothing will be decided any more: what reports say makes no difference.
            return;
        }
        let spec = &self.scenario.nodes[node];
        if self.lives[node] == Life::Up {
            let report = Box::new(self.nodes[node].report());
            self.at(self.now_ms + spec.delay_ms, Event::Reports(node, report));
        }
        self.at(self.now_ms + spec.interval_ms, Event::Looks(node));
    }

    fn carry_out(&mut self) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Send(sent) => self.send(sent),
                    Action::Refuse { request } => self.end(request, false),
                    Action::Abandon { request } => self.abandon(request),
                    Action::Preload { node, model } => self.preload(node, model),
                }
            }
        }
    }

    fn send(&mut self, sent: Sent) {
        let request = &self.scenario.requests[sent.request];
        let job = Job {
            attempt: self.attempts.len(),
            model: request.model,
            context: sent.context,
            prompt: request.prompt,
            prefix: request.prefix,
            output: request.output,
            keep_ms: sent.keep_ms,
        };
        if let Some(record) = &mut self.outcome.records[sent.request] {
            record.attempts += 1;
        }
        self.submit(Some(sent.request), sent.node, job);
    }

    fn preload(&mut self, node: usize, model: usize) {
        let attempt = self.attempts.len();
        let job = Job { attempt, model, context: None, prompt: 0, prefix: None, output: 0, keep_ms: f64::INFINITY };
        self.submit(None, node, job);
    }

    fn submit(&mut self, request: Option<usize>, node: usize, job: Job) {
        let attempt = job.attempt;
        if let Some(request) = request {
            self.last_of[request] = Some(attempt);
        }
        self.attempts.push(Attempt { request, node, sent_ms: self.now_ms, answered: false, over: false });
        let patience = self.router.patience();
        match self.lives[node] {
            Life::Crashed => {
                self.at(self.now_ms + NETWORK_MS, Event::Fails { attempt, failure: Failure::Unreached });
            }
            Life::Asleep => {
                self.at(self.now_ms + patience.connect_ms, Event::Fails { attempt, failure: Failure::Unreached });
            }
            Life::Up => {
                self.catch_up(node);
                if self.nodes[node].submit(job, &mut self.outputs) {
                    self.take_outputs(node);
                } else {
                    self.at(self.now_ms + NETWORK_MS, Event::Fails { attempt, failure: Failure::Busy });
                }
                self.plan(node);
            }
        }
    }

    /// Brings a node to the present; nothing is due there before it.
    fn catch_up(&mut self, node: usize) {
        self.nodes[node].advance(self.now_ms, &mut self.outputs);
        self.take_outputs(node);
    }

    fn work(&mut self, node: usize) {
        if self.lives[node] == Life::Up {
            self.catch_up(node);
            self.plan(node);
        }
    }

    /// Notes when the node has something to do next.
    fn plan(&mut self, node: usize) {
        self.turns[node] += 1;
        if let Some(next_ms) = self.nodes[node].next_ms() {
            self.at(next_ms.max(self.now_ms), Event::Works { node, turn: self.turns[node] });
        }
    }

    fn take_outputs(&mut self, node: usize) {
        for output in std::mem::take(&mut self.outputs) {
            match output {
                Output::FirstByte(attempt) => self.first_byte(attempt, node),
                Output::Done(attempt, timing) => self.done(attempt, timing),
                Output::Loads { attempt, had } => self.count_load(attempt, node, had),
                Output::Refused(attempt) => {
                    self.at(self.now_ms + NETWORK_MS, Event::Fails { attempt, failure: Failure::Error });
                }
            }
        }
    }

    /// Whose attempt it is, if it is not over and a policy has sent it.
    fn ours(&self, attempt: usize) -> Option<usize> {
        let Attempt { request, over, .. } = self.attempts[attempt];
        request.filter(|request| !over && self.scenario.requests[*request].foreign.is_none())
    }

    fn first_byte(&mut self, attempt: usize, node: usize) {
        let Some(request) = self.ours(attempt) else { return };
        self.attempts[attempt].answered = true;
        if let Some(record) = &mut self.outcome.records[request] {
            record.first_byte_ms.get_or_insert(self.now_ms);
        }
        self.router.first_byte(self.world(), self.now_ms, request, node, &mut self.actions);
    }

    fn done(&mut self, attempt: usize, timing: Timing) {
        let Attempt { request, node, sent_ms, .. } = self.attempts[attempt];
        let ours = self.ours(attempt);
        self.attempts[attempt].over = true;
        if let Some(request) = ours {
            let ended = Ended { request, node, sent_ms, timing };
            self.router.done(self.world(), self.now_ms, ended, &mut self.actions);
        }
        if let Some(request) = request {
            self.end(request, true);
        }
    }

    fn fail(&mut self, attempt: usize, failure: Failure) {
        let Attempt { request, node, answered, over, .. } = self.attempts[attempt];
        if over {
            return;
        }
        let ours = self.ours(attempt);
        self.cancel(attempt);
        if let Some(request) = ours {
            let failed = Failed { request, node, failure, answered };
            self.router.failed(self.world(), self.now_ms, failed, &mut self.actions);
        }
        if let Some(request) = request.filter(|_| answered || ours.is_none()) {
            self.end(request, false);
        }
    }

    /// Nobody waits for the attempt any more; a node that runs is told so.
    fn cancel(&mut self, attempt: usize) {
        let Attempt { node, .. } = self.attempts[attempt];
        self.attempts[attempt].over = true;
        if self.lives[node] == Life::Up {
            self.catch_up(node);
            self.nodes[node].cancel(attempt, &mut self.outputs);
            self.take_outputs(node);
            self.plan(node);
        }
    }

    fn abandon(&mut self, request: usize) {
        if let Some(attempt) = self.last_of[request].filter(|attempt| !self.attempts[*attempt].over) {
            self.cancel(attempt);
        }
    }

    fn end(&mut self, request: usize, served: bool) {
        let Some(record) = &mut self.outcome.records[request] else { return };
        if record.ended_ms > 0.0 {
            self.outcome.doubles += 1;
            return;
        }
        (record.ended_ms, record.served) = (self.now_ms, served);
        self.unfinished -= 1;
        if let Some(next) = self.next_of[request] {
            self.at(self.now_ms + self.scenario.requests[next].at_ms, Event::Arrives(next));
        }
    }

    fn count_load(&mut self, attempt: usize, node: usize, had: Option<u64>) {
        let Some(had) = had else {
            self.outcome.loads += 1;
            return;
        };
        let Some(request) = self.attempts[attempt].request.map(|request| &self.scenario.requests[request]) else {
            self.outcome.reloads += 1;
            return;
        };
        if request.foreign.is_some() {
            return;
        }
        self.outcome.reloads += 1;
        let hardware = self.scenario.nodes[node].hardware;
        // Who names no context is content with any that holds the prompt and the answer.
        let wanted = request.num_ctx.unwrap_or(request.prompt + request.output);
        let wanted = hardware.effective_context(&MODELS[request.model], Some(wanted));
        let up = |node: &usize| self.lives[*node] == Life::Up;
        let elsewhere = (0..self.nodes.len()).filter(up).any(|one| self.nodes[one].could_serve(request.model, wanted));
        if had >= wanted || elsewhere {
            self.outcome.avoidable += 1;
        }
    }

    fn go_away(&mut self, Outage { node, kind, .. }: Outage) {
        self.catch_up(node);
        self.turns[node] += 1;
        let silence_ms = self.router.patience().silence_ms;
        let (life, failure, after_ms) = match kind {
            OutageKind::Crash => (Life::Crashed, Failure::Reset, NETWORK_MS),
            OutageKind::Sleep => (Life::Asleep, Failure::Silent, silence_ms),
        };
        self.lives[node] = life;
        if after_ms.is_finite() {
            self.end_all(node, failure, after_ms);
        }
        self.at(self.now_ms + PROBE_NOTICES_MS, Event::Probed { node, answers: false });
    }

    fn come_back(&mut self, Outage { node, .. }: Outage) {
        self.expected -= 1;
        // Connections from before are reset by a host that does not know them any more.
        self.end_all(node, Failure::Reset, NETWORK_MS);
        self.nodes[node].sleep_until(self.now_ms);
        self.nodes[node].restart();
        self.lives[node] = Life::Up;
        self.turns[node] += 1;
        self.at(self.now_ms + PROBE_NOTICES_MS, Event::Probed { node, answers: true });
        let report = Box::new(self.nodes[node].report());
        self.at(self.now_ms + self.scenario.nodes[node].delay_ms, Event::Reports(node, report));
    }

    fn end_all(&mut self, node: usize, failure: Failure, after_ms: f64) {
        let here = |attempt: &usize| self.attempts[*attempt].node == node && !self.attempts[*attempt].over;
        for attempt in (0..self.attempts.len()).filter(here).collect::<Vec<_>>() {
            self.at(self.now_ms + after_ms, Event::Fails { attempt, failure });
        }
    }
}
