//! All runs: asked for by an operator, carried out in one place, one at a time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::ask::{BenchmarkAsk, BenchmarkRefusal};
use super::record::{BenchmarkRecord, BenchmarkRun, BenchmarkState};
use super::request::Target;
use super::run::Run;
use super::store::{BenchmarkStore, Memory};
use crate::FleetSource;
use crate::config::AdminConfig;
use crate::node_client::{SetupError, edge_client};
use crate::stop::stopped;
use crate::view::View;
use herd_store::unix_ms;

/// How often a run looks whether the edge is stopping.
const LOOK: Duration = Duration::from_millis(250);

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BenchmarkProgress {
    /// The run.
    pub run_id: String,
    /// How it stands.
    pub state: BenchmarkState,
    /// Requests that have ended.
    pub done: u64,
    /// All that it makes.
    pub total: u64,
    /// Those that failed.
    pub errors: u64,
    /// Since its start.
    pub elapsed_ms: u64,
}

/// All runs. Cloning is cheap; every clone is the same.
///
/// A run is carried out by [`Benchmarks::run`], which [`crate::serve`] does.
#[derive(Clone)]
pub struct Benchmarks(Arc<Shared>);

struct Shared {
    source: Arc<dyn FleetSource>,
    /// The edge; `None` = there is none to measure through.
    target: Option<Target>,
    current: Mutex<Current>,
    store: Mutex<Arc<dyn BenchmarkStore>>,
    queue: mpsc::Sender<Arc<Run>>,
    /// The other end of the queue, until somebody runs it.
    asked: Mutex<Option<mpsc::Receiver<Arc<Run>>>>,
}

#[derive(Default)]
struct Current {
    running: Option<Arc<Run>>,
    stopping: bool,
    last_number: u64,
}

impl Benchmarks {
    /// Over the nodes of `source`, through the edge that `config` names.
    ///
    /// # Errors
    /// When the system refuses an HTTP client.
    pub(crate) fn new(source: Arc<dyn FleetSource>, config: &AdminConfig) -> Result<Self, SetupError> {
        let client = edge_client(config.node_connect_timeout).build()?;
        let secret = config.edge_secret.as_ref().and_then(crate::secret::Secret::header);
        let target = config.edge.zip(secret).map(|(address, secret)| Target { address, secret, client });
        let (queue, asked) = mpsc::channel(8);
        let store = Arc::new(Memory::default()) as Arc<dyn BenchmarkStore>;
        Ok(Self(Arc::new(Shared {
            source,
            target,
            current: Mutex::default(),
            store: Mutex::new(store),
            queue,
            asked: Mutex::new(Some(asked)),
        })))
    }

    /// Keeps runs that end from now on in `store`, in place of the last 32 in memory.
    pub fn keep_in(&self, store: Arc<dyn BenchmarkStore>) {
        *self.0.store.lock().unwrap_or_else(PoisonError::into_inner) = store;
    }

    /// Begins the run that `ask` makes of the fleet in `view`; returns its id. Never waits.
    ///
    /// # Errors
    /// With the reason why it is not begun.
    pub(super) fn start(&self, ask: &BenchmarkAsk, view: &View) -> Result<String, BenchmarkRefusal> {
        let shared = &self.0;
        let plan = ask.plan(view)?;
        let mut current = shared.current();
        if current.stopping || view.draining || shared.target.is_none() {
            return Err(BenchmarkRefusal::Stopping);
        }
        if let Some(running) = &current.running {
            return Err(BenchmarkRefusal::Busy { run_id: running.id.clone() });
        }
        current.last_number += 1;
        let id = format!("bench-{}-{}", view.unix_ms, current.last_number);
        let run = Arc::new(Run::new(id.clone(), plan, view.unix_ms));
        shared.queue.try_send(Arc::clone(&run)).map_err(|_| BenchmarkRefusal::Stopping)?;
        current.running = Some(run);
        Ok(id)
    }

    /// Ends the run that is under way, for a reason that is kept with it; returns its id.
    #[must_use]
    pub fn cancel(&self, reason: &str) -> Option<String> {
        let run = self.0.current().running.clone()?;
        self.0.finish(&run, BenchmarkState::Cancelled, Some(reason.to_owned()));
        Some(run.id.clone())
    }

    /// How far the run is that is under way.
    #[must_use]
    pub fn progress(&self) -> Option<BenchmarkProgress> {
        self.0.current().running.as_ref().map(|run| run.progress())
    }

    /// Up to `most` runs, the latest first. May wait for the store.
    #[must_use]
    pub fn list(&self, most: usize) -> Vec<BenchmarkRun> {
        let running = self.0.running_record().map(|record| record.run);
        let mut runs: Vec<BenchmarkRun> = running.into_iter().collect();
        let kept = self.0.store().list(most);
        runs.extend(kept);
        // It may have ended between the two.
        runs.dedup_by(|later, earlier| later.run_id == earlier.run_id);
        runs.truncate(most);
        runs
    }

    /// One run with what was measured. May wait for the store.
    #[must_use]
    pub fn find(&self, run_id: &str) -> Option<BenchmarkRecord> {
        let running = self.0.running_record().filter(|record| record.run.run_id == run_id);
        running.or_else(|| self.0.store().find(run_id))
    }

    /// Carries out runs until `shutdown` becomes true or its sender is gone, or this future is dropped; then a run that
    /// is under way is cancelled and kept as far as it came.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let taken = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut asked) = taken else {
            tracing::error!("benchmarks are run already");
            return;
        };
        let _stops = StopGuard(Arc::clone(&self.0));
        loop {
            let run = tokio::select! {
                () = stopped(&mut shutdown) => return,
                run = asked.recv() => run,
            };
            let Some(run) = run else { return };
            tokio::select! {
                () = stopped(&mut shutdown) => return,
                () = self.0.carry_out(&run) => {}
            }
        }
    }
}

impl fmt::Debug for Benchmarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Benchmarks").field(&self.progress()).finish()
    }
}

impl Shared {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Arc<dyn BenchmarkStore> {
        Arc::clone(&self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn running_record(&self) -> Option<BenchmarkRecord> {
        let running = self.current().running.clone();
        running.map(|run| run.record(None))
    }

    async fn carry_out(self: &Arc<Self>, run: &Arc<Run>) {
        let Some(target) = &self.target else { return };
        let mut end = run.end.subscribe();
        let (state, error) = tokio::select! {
            biased;
            _ = end.wait_for(Option::is_some) => return,
            () = self.draining() => (BenchmarkState::Cancelled, Some("herd is stopping".to_owned())),
            end = run.carry_out(target) => end,
        };
        let (shared, run) = (Arc::clone(self), Arc::clone(run));
        // The store may wait for a disk.
        drop(tokio::task::spawn_blocking(move || shared.finish(&run, state, error)).await);
    }

    async fn draining(&self) {
        while !self.source.draining() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends `run`, if it has not ended, and keeps it.
    fn finish(&self, run: &Arc<Run>, state: BenchmarkState, error: Option<String>) {
        if !run.finish(state, error) {
            return;
        }
        let record = run.record(Some(unix_ms()));
        let (requests, errors) = (record.run.summary.requests, record.run.summary.errors);
        let error = record.run.error.as_deref();
        tracing::info!(run_id = run.id, outcome = state.name(), requests, errors, error, "benchmark ended");
        // In this order, so that it is always found in one place.
        self.store().keep(record);
        let mut current = self.current();
        if current.running.as_ref().is_some_and(|running| running.id == run.id) {
            current.running = None;
        }
    }
}

/// Takes no more runs, however running them ended.
struct StopGuard(Arc<Shared>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        let running = {
            let mut current = self.0.current();
            current.stopping = true;
            current.running.clone()
        };
        if let Some(run) = running {
            self.0.finish(&run, BenchmarkState::Cancelled, Some("herd is stopping".to_owned()));
        }
    }
}
