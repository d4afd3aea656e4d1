//! The exchanges under way, each driven from one event to the next.

use std::collections::{BTreeSet, HashMap};

use herd_core::exchange::{Action as Do, Event, Exchange, Pulled, State, Step, Waiting};
use herd_core::vocabulary::Status;

use super::desk::Desk;
use crate::sim::router::{Action, Sent};
use crate::sim::workload::KEEP_ALIVE_MS;

/// A request.
struct Life {
    exchange: Exchange,
    /// Its place in the room.
    ticket: Option<u64>,
    /// When it wants to go on by itself.
    due_ms: Option<u64>,
}

/// All requests, by their numbers.
#[derive(Default)]
pub(super) struct Lives {
    all: HashMap<usize, Life>,
    due: BTreeSet<(u64, usize)>,
}

impl Lives {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// When one of them wants to go on by itself.
    pub(super) fn wakes_ms(&self) -> Option<u64> {
        self.due.first().map(|(at_ms, _)| *at_ms)
    }

    pub(super) fn begin(&mut self, request: usize, exchange: Exchange) {
        self.all.insert(request, Life { exchange, ticket: None, due_ms: None });
    }

    /// Tells one of them what happened, and adds what is to be done to `out`.
    pub(super) fn tell(&mut self, desk: &mut Desk, request: usize, event: Event, out: &mut Vec<Action>) {
        let Some(life) = self.all.get_mut(&request) else { return };
        let action = life.exchange.handle(event, &desk.env());
        self.carry_out(desk, request, action, out);
    }

    /// Has those go on whose time has come.
    pub(super) fn wake(&mut self, desk: &mut Desk, now_ms: u64, out: &mut Vec<Action>) {
        let late = (now_ms + 1, 0);
        let rest = self.due.split_off(&late);
        for (_, request) in std::mem::replace(&mut self.due, rest) {
            let Some(life) = self.all.get_mut(&request) else { continue };
            life.due_ms = None;
            let action = desk.time_has_come(&mut life.exchange);
            self.carry_out(desk, request, action, out);
        }
    }

    fn carry_out(&mut self, desk: &mut Desk, request: usize, mut action: Do, out: &mut Vec<Action>) {
        while let Some(life) = self.all.get_mut(&request) {
            desk.hear(&mut life.exchange);
            let event = match action {
                Do::Seek(seek) => {
                    desk.leave(life.ticket.take());
                    Event::Offered(desk.offer(request, *seek, &mut life.ticket))
                }
                // Models are where the workload has them.
                Do::Pull => {
                    let (status, http_status, message) = (Status::Rejected, 404, String::new());
                    Event::Pulled(Pulled::Failed { status, http_status, message })
                }
                Do::Ask => {
                    let Some(choice) = life.exchange.chosen() else { break };
                    let context = choice.candidate.plan.num_ctx.or(life.exchange.request().profile.num_ctx);
                    let (node, name) = (choice.candidate.node, choice.model.clone());
                    out.push(Action::Send(Sent { request, node, context, keep_ms: KEEP_ALIVE_MS }));
                    Event::Sent { name }
                }
                Do::Retry => Event::Ready,
                Do::Abandon(_) => {
                    out.push(Action::Abandon { request });
                    Event::Broke { reused: false }
                }
                Do::Release | Do::Done | Do::TellTorn => Event::Delivered,
                Do::Refuse(_) | Do::End => {
                    out.push(Action::Refuse { request });
                    break;
                }
                Do::None | Do::Wait | Do::Accept(_) => break,
            };
            action = life.exchange.handle(event, &desk.env());
        }
        self.keep_time(desk, request);
    }

    /// Notes when the exchange wants to go on by itself, and forgets one that is over.
    fn keep_time(&mut self, desk: &Desk, request: usize) {
        let Some(life) = self.all.get_mut(&request) else { return };
        let queued = matches!(life.exchange.state(), State::Waiting(Waiting { step: Step::Queued { .. }, .. }));
        desk.leave(life.ticket.take_if(|_| !queued));
        let due_ms = life.exchange.poll_timeout(&desk.env());
        let before_ms = std::mem::replace(&mut life.due_ms, due_ms);
        if life.exchange.has_ended() {
            self.all.remove(&request);
        }
        if before_ms != due_ms {
            before_ms.map(|at_ms| self.due.remove(&(at_ms, request)));
            self.due.extend(due_ms.map(|at_ms| (at_ms, request)));
        }
    }
}
