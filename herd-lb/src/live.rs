//! Requests under way, for those who look and those who cancel.
//!
//! A concurrent map whose readers take no lock: whoever lists thousands of requests keeps none of them waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use herd_admin::{LivePhase, LiveView};
use herd_core::patience::GiveUp;
use herd_core::request::RequestProfile;
use papaya::HashMap;

use crate::connection::Connection;

/// All requests under way. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Live(Arc<Registry>);

#[derive(Default)]
struct Registry {
    requests: HashMap<u64, Arc<Entry>>,
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
    connection: Arc<Connection>,
}

/// One request's place among them, given up when this is dropped.
pub struct LiveGuard {
    live: Live,
    number: u64,
    request: Arc<Entry>,
}

impl Live {
    /// Adds a request that began at `now_ms` on `connection`.
    #[must_use]
    pub fn begin(
        &self,
        request_id: Arc<str>,
        profile: &Arc<RequestProfile>,
        class: &'static str,
        connection: &Arc<Connection>,
        now_ms: u64,
    ) -> LiveGuard {
        let number = self.0.numbers.fetch_add(1, Relaxed);
        let request = Arc::new(Entry {
            request_id,
            profile: Arc::clone(profile),
            class,
            began_ms: now_ms,
            phase: AtomicU8::new(LivePhase::Queued as u8),
            node_id: ArcSwapOption::empty(),
            response_bytes: AtomicU64::new(0),
            connection: Arc::clone(connection),
        });
        self.0.requests.pin().insert(number, Arc::clone(&request));
        LiveGuard { live: self.clone(), number, request }
    }

    /// Everything under way, oldest first, `most` at the most; and how many there are in all.
    #[must_use]
    pub fn list(&self, most: usize) -> (usize, Vec<LiveView>) {
        let requests = self.0.requests.pin();
        let mut all: Vec<Arc<Entry>> = requests.values().cloned().collect();
        all.sort_by_key(|request| request.began_ms);
        (all.len(), all.iter().take(most).map(|request| request.view()).collect())
    }

    /// Ends every request of that id, wherever it is; returns how many there were.
    #[must_use]
    pub fn cancel(&self, request_id: &str) -> usize {
        let requests = self.0.requests.pin();
        let meant = requests.values().filter(|request| *request.request_id == *request_id);
        meant.map(|request| request.connection.awaited().cancel(GiveUp::Cancelled)).count()
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
    /// It waits for a slot, again or for the first time.
    pub fn queued(&self) {
        self.request.phase.store(LivePhase::Queued as u8, Relaxed);
    }

    /// The node `node_id` is asked.
    pub fn sent(&self, node_id: &str) {
        self.request.node_id.store(Some(Arc::new(node_id.to_owned())));
        self.request.phase.store(LivePhase::Prefill as u8, Relaxed);
    }

    /// Its answer comes: so many bytes so far.
    pub fn answers(&self, response_bytes: u64) {
        self.request.phase.store(LivePhase::Decode as u8, Relaxed);
        self.request.response_bytes.store(response_bytes, Relaxed);
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.live.0.requests.pin().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use herd_core::inspect::{InspectLimits, inspect};
    use herd_core::request::Surface;

    use super::*;

    #[test]
    fn requests_are_listed_until_they_end() {
        let live = Live::default();
        let body = br#"{"model":"m","metadata":{"tags":["x"]}}"#;
        let profile = Arc::new(inspect(Surface::OllamaChat, body, &InspectLimits::default()).unwrap());
        let connection = Arc::new(Connection::default());
        let later = live.begin("b".into(), &profile, "batch", &connection, 9);
        let first = live.begin("a".into(), &profile, "interactive", &connection, 5);
        first.sent("n");
        first.answers(42);
        let (total, listed) = live.list(1);
        assert_eq!((total, listed.len(), &*listed[0].request_id), (2, 1, "a"));
        assert_eq!((listed[0].phase, listed[0].response_bytes), (LivePhase::Decode, 42));
        assert_eq!((live.cancel("a"), live.cancel("nobody")), (1, 0));
        drop((first, later));
        assert_eq!(live.list(9).0, 0);
    }
}
