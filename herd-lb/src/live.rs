//! Requests under way, for observers (the admin API), and to cancel them.
//!
//! A concurrent map whose readers take no lock: whoever lists thousands of requests keeps none of them waiting.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use herd_admin::{LivePhase, LiveView};
use herd_core::exchange::{Exchange, State};
use herd_core::patience::GiveUp;
use herd_core::request::RequestProfile;
use papaya::{HashMap, HashSet};

use crate::connection::Connection;

/// An exchange that its request and the connection of its client share: the connection is where silence is noticed.
#[derive(Debug, Clone)]
pub struct Life(Arc<Mutex<Exchange>>);

impl Life {
    /// Shares `exchange`.
    #[must_use]
    pub fn new(exchange: Exchange) -> Self {
        Self(Arc::new(Mutex::new(exchange)))
    }

    /// The exchange. Not to be kept over a wait.
    pub fn lock(&self) -> MutexGuard<'_, Exchange> {
        // Each change under it is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the request on an operator's word, wherever it is; `connection` is its client's.
    pub fn cancel(&self, connection: &Connection) {
        drop(self.lock().abandon(GiveUp::Cancelled));
        // Its node's connection is closed from the client's side: see `watch`.
        connection.awaited().wake();
    }
}

/// All requests under way. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Live(Arc<Registry>);

#[derive(Default)]
struct Registry {
    requests: HashMap<u64, Arc<Entry>>,
    /// The names that clients have given them.
    ids: HashSet<Arc<str>>,
    numbers: AtomicU64,
}

struct Entry {
    request_id: Arc<str>,
    profile: Arc<RequestProfile>,
    class: &'static str,
    began_ms: u64,
    phase: AtomicU8,
    node_id: ArcSwapOption<String>,
    response_bytes: AtomicU64,
    life: Life,
    connection: Arc<Connection>,
}

/// One request's place among them, given up when this is dropped.
pub struct LiveGuard {
    live: Live,
    number: u64,
    request: Arc<Entry>,
}

impl Live {
    /// Adds the request of `life`, whose client is at `connection`.
    #[must_use]
    pub fn begin(
        &self,
        request_id: Arc<str>,
        class: &'static str,
        life: &Life,
        connection: &Arc<Connection>,
    ) -> LiveGuard {
        let number = self.0.numbers.fetch_add(1, Relaxed);
        let (profile, began_ms) = {
            let exchange = life.lock();
            (Arc::clone(&exchange.request().profile), exchange.began_ms())
        };
        let request = Arc::new(Entry {
            request_id,
            profile,
            class,
            began_ms,
            phase: AtomicU8::new(LivePhase::Queued as u8),
            node_id: ArcSwapOption::empty(),
            response_bytes: AtomicU64::new(0),
            life: life.clone(),
            connection: Arc::clone(connection),
        });
        self.0.requests.pin().insert(number, Arc::clone(&request));
        LiveGuard { live: self.clone(), number, request }
    }

    /// A client's name for a request, for as long as this lives: no two have the same at a time. One that is taken gets
    /// a `suffix`, another one at each call.
    #[must_use]
    pub fn name(&self, wanted: &str, suffix: impl Fn() -> String) -> GivenId {
        let ids = self.0.ids.pin();
        let mut id: Arc<str> = wanted.into();
        // Another client may have asked for the name with this suffix, too.
        while !ids.insert(Arc::clone(&id)) {
            id = format!("{wanted}-{}", suffix()).into();
        }
        GivenId { live: self.clone(), id }
    }

    /// Everything under way, oldest first, `most` at the most; and how many there are in all.
    #[must_use]
    pub fn list(&self, most: usize) -> (usize, Vec<LiveView>) {
        let requests = self.0.requests.pin();
        let mut all: Vec<Arc<Entry>> = requests.values().cloned().collect();
        all.sort_by_key(|request| request.began_ms);
        (all.len(), all.iter().take(most).map(|request| request.view()).collect())
    }

    /// Ends the request of that id, wherever it is; returns how many there were.
    #[must_use]
    pub fn cancel(&self, request_id: &str) -> usize {
        let requests = self.0.requests.pin();
        let meant = requests.values().filter(|request| *request.request_id == *request_id);
        meant.map(|request| request.life.cancel(&request.connection)).count()
    }
}

/// A name that a client has given a request, free again when this is dropped.
pub struct GivenId {
    live: Live,
    id: Arc<str>,
}

impl GivenId {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.id
    }
}

impl Drop for GivenId {
    fn drop(&mut self) {
        self.live.0.ids.pin().remove(&self.id);
    }
}

impl Entry {
    fn view(&self) -> LiveView {
        LiveView {
            request_id: Arc::clone(&self.request_id),
            surface: self.profile.surface.name(),
            model: self.profile.model.clone(),
            node_id: self.node_id.load().as_deref().cloned(),
            phase: LivePhase::from_number(self.phase.load(Relaxed)),
            class: self.class,
            stream: self.profile.stream,
            prompt_tokens: self.profile.prompt_tokens,
            tags: self.profile.tags.clone(),
            began_ms: self.began_ms,
            response_bytes: self.response_bytes.load(Relaxed),
        }
    }
}

impl LiveGuard {
    /// Shows how far `exchange` is.
    pub fn show(&self, exchange: &Exchange) {
        let phase = match exchange.state() {
            State::Waiting(_) | State::Chosen(_) => LivePhase::Queued,
            State::Asking(_) | State::Replacing(_) | State::Abandoning(..) => LivePhase::Prefill,
            State::Answering(..) | State::Delivering | State::Ended => LivePhase::Decode,
        };
        if self.request.phase.swap(phase as u8, Relaxed) != phase as u8
            && let Some(attempt) = exchange.attempt()
        {
            self.request.node_id.store(Some(Arc::new(attempt.choice.node().id.to_string())));
        }
        self.request.response_bytes.store(exchange.record().response_bytes, Relaxed);
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.live.0.requests.pin().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use herd_core::budget::{BudgetLimits, Retries};
    use herd_core::exchange::{Action, Env, Event, ExchangePolicy, Request};
    use herd_core::inspect::{InspectLimits, inspect};
    use herd_core::queue::Class;
    use herd_core::record::RequestRecord;
    use herd_core::request::Surface;
    use herd_core::vocabulary::Status;

    use super::*;

    fn life(began_ms: u64) -> Life {
        let body = br#"{"model":"m","metadata":{"tags":["x"]}}"#;
        let profile = Arc::new(inspect(Surface::OllamaChat, body, &InspectLimits::default()).unwrap());
        let request = Request {
            profile,
            class: Class::Interactive,
            fairness_key: herd_core::queue::Owner::default(),
            only_node: None,
            benchmark: false,
        };
        Life::new(Exchange::new(request, Vec::new(), RequestRecord::default(), began_ms, began_ms))
    }

    #[test]
    fn no_two_requests_have_one_name_at_a_time() {
        let live = Live::default();
        let first = live.name("mine", || "1".into());
        let second = live.name("mine", || "2".into());
        assert_eq!((first.as_str(), second.as_str()), ("mine", "mine-2"));
        drop(first);
        assert_eq!(live.name("mine", || "3".into()).as_str(), "mine", "it is free again");
    }

    #[test]
    fn requests_are_listed_until_they_end() {
        let live = Live::default();
        let connection = Arc::new(Connection::default());
        let later = live.begin("b".into(), "batch", &life(9), &connection);
        let (one, env) = (life(5), Retries::new(BudgetLimits::default()));
        let env = Env { now_ms: 5, policy: &ExchangePolicy::default(), retries: &env };
        let first = live.begin("a".into(), "interactive", &one, &connection);
        let (total, listed) = live.list(1);
        assert_eq!((total, listed.len(), &*listed[0].request_id), (2, 1, "a"));
        assert_eq!(listed[0].phase, LivePhase::Queued);
        assert_eq!((live.cancel("a"), live.cancel("nobody")), (1, 0));
        assert!(matches!(one.lock().state(), State::Abandoning(_, _, GiveUp::Cancelled)));
        let action = one.lock().handle(Event::ClientLeft, &env);
        assert!(matches!(action, Action::Refuse(_)), "{action:?}");
        assert_eq!(one.lock().record().known_status(), Some(Status::Cancelled));
        drop((first, later));
        assert_eq!(live.list(9).0, 0);
    }
}
