//! From a request's end to what is counted and kept of it.

mod desk;

use std::fmt;
use std::sync::{Arc, OnceLock};

use herd_admin::AdminState;
use herd_core::record::RequestRecord;
use herd_store::StoreHandle;
use prometheus::Registry;

use crate::telemetry::Telemetry;
use crate::trace;

pub use desk::{Clerk, Desk};

/// Where traces go: they are counted, kept where there is a store, and told to who watches. None makes a request wait.
pub struct Recorder {
    /// The edge's counters.
    pub telemetry: Arc<Telemetry>,
    /// Counters that have the requests which `telemetry` counts as those of benchmarks; `None` = they are none.
    benchmarks: Option<Arc<Telemetry>>,
    store: Option<StoreHandle>,
    /// Set once it is there: the admin service is made after the first counters are.
    watched: OnceLock<AdminState>,
    /// Who writes; `None` = whoever has served the request.
    desk: Option<Desk>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Counts with `telemetry`, and keeps traces in `store`, `None` = nowhere; they are written at `desk`, `None` = by
    /// whoever has served the request.
    #[must_use]
    pub fn new(telemetry: Arc<Telemetry>, store: Option<StoreHandle>, desk: Option<Desk>) -> Self {
        Self { telemetry, benchmarks: None, store, watched: OnceLock::new(), desk }
    }

    /// From now on the admin service tells its clients of requests that end, and its metrics of traces that were not
    /// kept. Only the first call counts.
    pub fn watched_by(&self, admin: AdminState) {
        let store = self.store.clone();
        admin.feed_store_drops(move || store.as_ref().map_or(0, |store| store.health().dropped));
        self.watched.get_or_init(|| admin);
    }

    /// Where traces of benchmarks go: what their requests count is seen by nobody but for how they ended.
    ///
    /// # Errors
    /// When the counters cannot be made.
    pub fn for_benchmarks(&self) -> prometheus::Result<Arc<Self>> {
        let telemetry = Telemetry::new(&Registry::new())?;
        let benchmarks = Some(Arc::clone(&self.telemetry));
        Ok(Arc::new(Self { benchmarks, ..Self::new(telemetry, self.store.clone(), self.desk.clone()) }))
    }

    /// A request has ended: it is counted, and left on the desk.
    pub fn ended(recorder: &Arc<Self>, record: RequestRecord) {
        recorder.telemetry.ended(&record);
        if let Some(telemetry) = &recorder.benchmarks {
            telemetry.benchmark_ended(&record);
        }
        let ended = Ended { record, recorder: Arc::clone(recorder) };
        match &recorder.desk {
            Some(desk) => desk.leave(ended),
            None => ended.write(),
        }
    }
}

/// A request that has ended and is not written yet.
struct Ended {
    record: RequestRecord,
    recorder: Arc<Recorder>,
}

impl Ended {
    /// Puts it into the log and the store.
    fn write(self) {
        trace::log(&self.record);
        let Recorder { store, watched, .. } = &*self.recorder;
        if let Some(admin) = watched.get() {
            admin.request_ended(&self.record);
        }
        if let Some(store) = store {
            store.record(self.record);
        }
    }
}
