//! From a request's end to what is counted and kept of it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use herd_admin::AdminState;
use herd_core::record::RequestRecord;
use herd_core::vocabulary::{ContextAction, ReloadCause, StandIn};
use herd_store::StoreHandle;
use prometheus::Registry;

use crate::telemetry::Telemetry;

/// Where records go: they are counted at once, and written and shown to observers by the store's thread, which takes
/// what has come together. None makes a request wait.
pub struct Recorder {
    /// The edge's counters.
    pub telemetry: Arc<Telemetry>,
    /// Counters that have the requests which `telemetry` counts as those of benchmarks; `None` = they are none.
    benchmarks: Option<Arc<Telemetry>>,
    store: Option<StoreHandle>,
    observers: Observers,
}

/// Who is shown each record: the log, and the admin service once it is there. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Observers(Arc<OnceLock<AdminState>>);

impl Observers {
    /// Shows them `record`.
    pub fn show(&self, record: &RequestRecord) {
        log(record);
        if let Some(admin) = self.0.get().filter(|_| !record.benchmark) {
            admin.request_ended(record);
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers").finish_non_exhaustive()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Counts with `telemetry`, and keeps records in `store`, whose thread shows them to `observers`; `None` = nowhere.
    #[must_use]
    pub fn new(telemetry: Arc<Telemetry>, store: Option<StoreHandle>, observers: Observers) -> Self {
        Self { telemetry, benchmarks: None, store, observers }
    }

    /// From now on the admin service tells its clients of requests that end, and its metrics of records that were not
    /// kept. Only the first call counts.
    pub fn watched_by(&self, admin: AdminState) {
        let store = self.store.clone();
        admin.feed_store_drops(move || store.as_ref().map_or(0, |store| store.health().dropped));
        self.observers.0.get_or_init(|| admin);
    }

    /// Where records of benchmarks go: what their requests count is seen by nobody but for how they ended.
    ///
    /// # Errors
    /// When the counters cannot be made.
    pub fn for_benchmarks(&self) -> prometheus::Result<Arc<Self>> {
        let telemetry = Telemetry::new(&Registry::new())?;
        let benchmarks = Some(Arc::clone(&self.telemetry));
        Ok(Arc::new(Self { benchmarks, ..Self::new(telemetry, self.store.clone(), self.observers.clone()) }))
    }

    /// A request has ended: it is counted, and left for the store's thread. Where that takes no more, whoever served the
    /// request writes its line, so that the log has every request.
    pub fn ended(&self, record: RequestRecord) {
        self.telemetry.ended(&record);
        if let Some(telemetry) = &self.benchmarks {
            telemetry.benchmark_ended(&record);
        }
        let refused = match &self.store {
            Some(store) => store.record(record).err(),
            None => Some(Box::new(record)),
        };
        if let Some(record) = refused {
            self.observers.show(&record);
        }
    }
}

/// The nodes that were asked and how it went, `a:error_500,b:completed`.
fn story(record: &RequestRecord) -> String {
    let told = record.attempts.iter().map(|attempt| format!("{}:{}", attempt.node_id, attempt.outcome.name()));
    told.collect::<Vec<_>>().join(",")
}

/// One line of the log.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds; casts from floats saturate")]
fn log(record: &RequestRecord) {
    let whole = |ms: f64| ms as u64;
    tracing::info!(
        target: "herd::request",
        request_id = record.request_id,
        benchmark = record.benchmark,
        surface = record.surface_name(),
        key_id = record.key_id,
        model = record.original_model,
        served_model = if record.node_id.is_empty() { "" } else { &record.model },
        stand_in = record.stand_in.map_or("", StandIn::name),
        node_id = record.node_id,
        score = record.score,
        attempts = story(record),
        http_status = record.http_status,
        status = record.status_name(),
        latency_ms = whole(record.latency_ms),
        queue_ms = record.queue_ms.map(whole),
        predicted_ms = record.predicted_ms,
        ttft_ms = record.first_byte_ms().map(whole),
        num_ctx = record.num_ctx,
        context_length = record.context_length,
        context_action = record.context_action.map_or("", ContextAction::name),
        reload_cause = record.reload_cause.map_or("", ReloadCause::name),
        prompt_tokens = record.counts.prompt_tokens,
        completion_tokens = record.counts.completion_tokens,
        tokens_estimated = record.counts.estimated,
        load_ms = record.counts.load_ms,
        response_bytes = record.response_bytes,
        error = record.error_message.as_deref().unwrap_or_default(),
        "request ended"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::time::Duration;

    use herd_core::request::Surface;
    use herd_store::testing::TestDir;
    use herd_store::{Store, StoreSettings};

    use super::*;
    use crate::trace::Trace;

    /// Some requests end when the store is closed already.
    #[test]
    fn every_request_is_shown_once_and_kept_before_the_store_closes() {
        let dir = TestDir::new();
        let shown = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&shown);
        let observer = move |_: &RequestRecord| {
            counted.fetch_add(1, Relaxed);
        };
        let (store, thread) = Store::open_observed(dir.path(), StoreSettings::default(), observer).unwrap();
        let telemetry = Telemetry::new(&Registry::new()).unwrap();
        let recorder = Arc::new(Recorder::new(telemetry, Some(store.clone()), Observers::default()));
        let end = || drop(Trace::begin("r".into(), Surface::OllamaChat, Arc::clone(&recorder)));
        (0..100).for_each(|_| end());
        assert!(thread.close(Duration::from_secs(20)));
        end();
        assert_eq!((store.health().written, store.health().dropped, shown.load(Relaxed)), (100, 1, 100));
    }
}
