//! herd itself: the exchanges of herd-core and the room in which they wait, told what happens in virtual time.

mod desk;
mod drive;
mod report;

use std::sync::Arc;

use herd_core::answer::Counts;
use herd_core::decide::Order;
use herd_core::exchange::{self, ConnectError, Event, Exchange, Seen};
use herd_core::patience::CONNECT_TIMEOUT_MS;
use herd_core::queue::{Class, Owner};
use herd_core::record::RequestRecord;

use crate::sim::node::Report;
use crate::sim::router::{Action, Ended, Failed, Failure, Patience, Router, World};
use desk::Desk;
use drive::Lives;

/// An edge.
pub(crate) struct Herd {
    desk: Desk,
    lives: Lives,
    reports: report::Reports,
}

impl Herd {
    pub(crate) fn new(order: Order) -> Self {
        Self { desk: Desk::new(order), lives: Lives::default(), reports: report::Reports::default() }
    }

    fn tell(&mut self, request: usize, event: Event, out: &mut Vec<Action>) {
        self.lives.tell(&mut self.desk, request, event, out);
    }
}

impl Router for Herd {
    fn patience(&self) -> Patience {
        // How long silence lasts is the exchange's to judge.
        Patience { connect_ms: CONNECT_TIMEOUT_MS as f64, silence_ms: f64::INFINITY }
    }

    fn heartbeat(&mut self, world: World<'_>, now_ms: f64, node: usize, report: &Report) {
        self.desk.set_time(now_ms);
        self.desk.heartbeat(self.reports.heartbeat(&world.nodes[node], node, report));
    }

    fn probed(&mut self, now_ms: f64, node: usize, answers: bool) {
        self.desk.set_time(now_ms);
        self.desk.probed(node, answers);
    }

    fn arrives(&mut self, world: World<'_>, now_ms: f64, request: usize, out: &mut Vec<Action>) {
        let now_ms = self.desk.set_time(now_ms);
        let asked = &world.requests[request];
        let asked = exchange::Request {
            profile: Arc::new(self.desk.profile(asked)),
            class: Class::Interactive,
            fairness_key: Owner { client: asked.app, app: asked.app },
            only_node: None,
            benchmark: false,
        };
        self.desk.earn_retry();
        self.lives.begin(request, Exchange::new(asked, Vec::new(), RequestRecord::default(), now_ms, now_ms));
        self.tell(request, Event::Ready, out);
    }

    fn first_byte(&mut self, _world: World<'_>, now_ms: f64, request: usize, _node: usize, out: &mut Vec<Action>) {
        self.desk.set_time(now_ms);
        self.tell(request, Event::Head { status: 200 }, out);
        self.tell(request, Event::Bytes(1), out);
    }

    fn done(&mut self, world: World<'_>, now_ms: f64, ended: Ended, out: &mut Vec<Action>) {
        self.desk.set_time(now_ms);
        let (asked, timing) = (&world.requests[ended.request], ended.timing);
        let counts = Counts {
            prompt_tokens: Some(asked.prompt),
            completion_tokens: Some(asked.output),
            load_ms: Some(timing.load_ms),
            prefill_ms: Some(timing.prefill_ms),
            decode_ms: Some(timing.decode_ms),
            ..Counts::default()
        };
        let fleet = self.desk.fleet();
        self.tell(ended.request, Event::Finished(Seen { counts, ..Seen::WHOLE }, fleet), out);
    }

    fn failed(&mut self, _world: World<'_>, now_ms: f64, failed: Failed, out: &mut Vec<Action>) {
        self.desk.set_time(now_ms);
        let event = match failed.failure {
            Failure::Unreached => Event::Unconnected(ConnectError::TimedOut),
            Failure::Reset | Failure::Silent => Event::Broke { reused: false },
            Failure::Busy => Event::Head { status: 503 },
            Failure::Error => Event::Head { status: 500 },
        };
        let mut actions = Vec::new();
        self.tell(failed.request, event, &mut actions);
        // The client of an answer that breaks off knows that already.
        out.extend(actions.into_iter().filter(|action| !failed.answered || !matches!(action, Action::Refuse { .. })));
    }

    fn settle(&mut self, _world: World<'_>, now_ms: f64, out: &mut Vec<Action>) {
        let whole_ms = self.desk.set_time(now_ms);
        self.lives.wake(&mut self.desk, whole_ms, out);
        for (request, offer) in self.desk.pass(now_ms) {
            self.tell(request, Event::Offered(offer), out);
        }
    }

    fn waits(&self) -> bool {
        !self.lives.is_empty()
    }

    fn wakes_ms(&self) -> Option<f64> {
        let wakes_ms = self.lives.wakes_ms().map(|at_ms| at_ms as f64);
        [self.desk.passes_ms(), wakes_ms].into_iter().flatten().reduce(f64::min)
    }
}
