//! Exchanges driven through every kind of failure, in virtual time and without a process.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::silence::Signs;
use super::*;
use crate::answer::{Counts, Ending};
use crate::budget::{BudgetLimits, Retries};
use crate::choice::{self, FleetView, Freed, Outcome as Choices, Place};
use crate::decide::Policy;
use crate::fleet::{Condition, FleetSnapshot, Node};
use crate::inspect::{InspectLimits, inspect};
use crate::name::ModelName;
use crate::patience::Evidence;
use crate::record::RequestRecord;
use crate::request::Surface;
use crate::testing::{NodeSpec, fleet};
use crate::vocabulary::Status;

mod laws;
mod rows;
mod rules;

/// What a node, the client, the operator or time does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    Refuses,
    ConnectTimesOut,
    Resets,
    ClosesKept,
    Answers(u16),
    Bytes,
    EndsWhole,
    EndsTorn,
    /// The backend tells an error of its own at the end.
    EndsWithError,
    /// Silence until the exchange has had enough of it, or this happened a thousand times.
    StaysSilent,
    /// No more can be held back.
    Overflows,
    /// A slot that the queue waits for becomes free.
    SlotFrees,
    Leaves,
    Violates,
    Cancelled,
    Stopping,
    Dropped,
}

/// A fleet, a clock and an operator.
struct Universe {
    snapshot: RefCell<Arc<FleetSnapshot>>,
    now_ms: Cell<u64>,
    tickets: Cell<u64>,
    policy: ExchangePolicy,
    retries: Retries,
    condition: Condition,
    /// Each action that was carried out.
    actions: RefCell<Vec<String>>,
    /// Nodes that were asked after the client had a byte of an answer.
    asked_late: Cell<u32>,
}

impl FleetView for Universe {
    fn snapshot(&self) -> Arc<FleetSnapshot> {
        self.snapshot.borrow().clone()
    }

    fn policy(&self) -> Arc<Policy> {
        Arc::default()
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    fn ticket(&self) -> u64 {
        self.tickets.set(self.tickets.get() + 1);
        self.tickets.get()
    }

    fn freed(&self) -> Option<Arc<dyn Freed>> {
        None
    }
}

impl Signs for Universe {
    fn evidence(&self) -> Option<Evidence> {
        Some(Evidence { resident: true, ..Evidence::default() })
    }

    fn condition(&self) -> Condition {
        self.condition
    }

    fn heartbeat_at_ms(&self) -> Option<u64> {
        Some(self.now_ms.get())
    }

    fn heartbeat_interval_ms(&self) -> u64 {
        5_000
    }

    fn has_alternative(&self, tried: &[u32]) -> bool {
        let is_free = |node: &Node| node.load.in_flight() == 0 && !tried.contains(&node.number);
        self.snapshot.borrow().nodes.iter().any(|node| is_free(node))
    }

    fn stopping(&self) -> bool {
        false
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl Universe {
    /// A fleet of so many equal nodes that have the model `m` in memory.
    fn new(nodes: usize) -> Self {
        let spec = NodeSpec::default().hot("m", 8_192);
        let nodes: Vec<_> = NAMES[..nodes].iter().map(|name| (*name, spec.clone())).collect();
        Self {
            // Heartbeats never grow old.
            snapshot: RefCell::new(Arc::new(fleet(&nodes, u64::MAX / 2))),
            now_ms: Cell::new(20_000),
            tickets: Cell::new(0),
            policy: ExchangePolicy { hold: Hold { max_ms: 0, start_ms: 0 }, ..ExchangePolicy::default() },
            retries: Retries::new(BudgetLimits::default()),
            condition: Condition::Well,
            actions: RefCell::default(),
            asked_late: Cell::new(0),
        }
    }

    fn env(&self) -> Env<'_> {
        Env { now_ms: self.now_ms.get(), policy: &self.policy, retries: &self.retries }
    }

    fn exchange(&self, body: &str) -> Exchange {
        let profile = inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap();
        let request = Request {
            profile: Arc::new(profile),
            class: Class::Interactive,
            fairness_key: crate::queue::Owner::default(),
            only_node: None,
            benchmark: false,
        };
        Exchange::new(request, Vec::new(), RequestRecord::default(), self.now_ms.get(), self.now_ms.get())
    }

    /// Drives `exchange` through `happenings`, then to its end.
    fn drive(&self, exchange: &mut Exchange, happenings: &[Happening]) {
        let mut happenings = happenings.iter().copied();
        let mut action = exchange.handle(Event::Ready, &self.env());
        for _ in 0..5_000 {
            if !matches!(action, Action::None | Action::Wait) {
                let word = format!("{action:?}");
                let word = word.split(['(', ' ', '{']).next().unwrap_or_default().to_owned();
                self.actions.borrow_mut().push(word);
            }
            while let Some(note) = exchange.poll_note() {
                if matches!(note, Note::Loaded { .. }) {
                    exchange.load_known();
                }
            }
            action = match action {
                Action::Refuse(_) | Action::End => return exchange.told("why"),
                Action::Seek(seek) => {
                    let offer = self.offer(&seek);
                    exchange.handle(Event::Offered(offer), &self.env())
                }
                Action::Pull => {
                    let failed = Pulled::Failed { status: Status::Rejected, http_status: 404, message: "no".into() };
                    exchange.handle(Event::Pulled(failed), &self.env())
                }
                Action::Ask => {
                    if exchange.client() == Client::Answer {
                        self.asked_late.set(self.asked_late.get() + 1);
                    }
                    let name = exchange.chosen().map(|choice| choice.model.clone()).unwrap();
                    exchange.handle(Event::Sent { name }, &self.env())
                }
                Action::Retry => exchange.handle(Event::Ready, &self.env()),
                Action::Abandon(_) => exchange.handle(Event::Broke { reused: false }, &self.env()),
                Action::Release | Action::Done | Action::TellTorn => exchange.handle(Event::Delivered, &self.env()),
                Action::None | Action::Wait | Action::Accept(_) if exchange.has_ended() => return,
                Action::None | Action::Wait | Action::Accept(_) => {
                    let happening = happenings.next().unwrap_or(Happening::Dropped);
                    self.happen(exchange, happening)
                }
            };
        }
        panic!("it does not end: {exchange:?}");
    }

    fn offer(&self, seek: &Seek) -> Offer {
        let place = Place { allow_any_substitute: seek.mode == Mode::AnySubstitute, ..Place::default() };
        match choice::choose(self, &seek.profile, &seek.tried, place, |_, _| None) {
            Choices::Chosen(choice) => Offer::Chosen(choice, Obtained::AtOnce),
            Choices::Full(_) if seek.mode == Mode::Queue => Offer::Queued { predicted_ms: 5.0 },
            Choices::Full(_) => Offer::Full,
            Choices::Nobody(nobody) => Offer::Nobody(nobody),
        }
    }

    fn happen(&self, exchange: &mut Exchange, happening: Happening) -> Action {
        let seen = |ending| Seen { ending, ..Seen::WHOLE };
        self.now_ms.set(self.now_ms.get() + 10);
        let event = match happening {
            Happening::Refuses => Event::Unconnected(ConnectError::Refused),
            Happening::ConnectTimesOut => Event::Unconnected(ConnectError::TimedOut),
            Happening::Resets => Event::Broke { reused: false },
            Happening::ClosesKept => Event::Broke { reused: true },
            Happening::Answers(status) => Event::Head { status },
            Happening::Bytes => Event::Bytes(10),
            Happening::EndsWhole => Event::Finished(seen(Ending::Complete), self.snapshot()),
            Happening::EndsTorn => {
                let counts = Counts { completion_tokens: Some(3), ..Counts::default() };
                Event::Finished(Seen { counts, ..seen(Ending::Truncated) }, self.snapshot())
            }
            Happening::EndsWithError => {
                Event::Finished(Seen { error_told: true, ..seen(Ending::BackendError) }, self.snapshot())
            }
            Happening::StaysSilent => return self.wait(exchange),
            Happening::Overflows => Event::HeldTooMuch,
            Happening::SlotFrees => match exchange.state() {
                State::Waiting(Waiting { step: Step::Queued { .. }, .. }) => {
                    // Long enough for a busy node's rest to end.
                    self.now_ms.set(self.now_ms.get() + 5_000);
                    let again = exchange.seek(Mode::Queue, &self.env());
                    Event::Offered(self.offer(&again))
                }
                _ => return Action::None,
            },
            Happening::Leaves => Event::ClientLeft,
            Happening::Violates => Event::ClientViolated,
            Happening::Cancelled => return exchange.abandon(GiveUp::Cancelled),
            Happening::Stopping => return exchange.abandon(GiveUp::Stopping),
            Happening::Dropped => Event::Dropped,
        };
        exchange.handle(event, &self.env())
    }

    /// Lets time pass until the exchange does something by itself.
    fn wait(&self, exchange: &mut Exchange) -> Action {
        for _ in 0..2_000 {
            let Some(due_ms) = exchange.poll_timeout(&self.env()) else { return Action::None };
            self.now_ms.set(self.now_ms.get().max(due_ms));
            match exchange.handle_timeout(&self.env(), self) {
                Action::None => {}
                action => return action,
            }
        }
        Action::None
    }

    fn in_flight(&self) -> u32 {
        self.snapshot.borrow().in_flight()
    }
}

const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const WHOLE: &str = r#"{"model":"m","stream":false,"messages":[{"role":"user","content":"hi"}]}"#;

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}
