//! All pulls of the fleet: asked for from anywhere, carried out in one place.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use herd_core::fleet::ModelChange;
use herd_core::name::ModelName;
use herd_core::pull::{Holders, Placing, PullPolicy, PullRefusal, disk_available, known_size, place, place_on};
use prometheus::Registry;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::book::Book;
use super::handle::PullHandle;
use super::job::{Job, PullInfo};
use super::metrics::PullMetrics;
use super::state::{FailureKind, PullFailure, PullPhase, PullState};
use super::{PullAsk, PullSettings, stream};
use crate::FleetSource;
use crate::config::AdminConfig;
use crate::node_client::{SetupError, node_client};
use crate::stop::stopped;
use herd_store::unix_ms;

/// Pulls at a time, whatever the policy says.
const RUNNING_LIMIT: usize = 64;
/// Told of a pull that nobody carries out any more.
pub(super) const LOST: &str = "the pull was lost";

/// All pulls of the fleet. Cloning is cheap; every clone is the same.
///
/// Any thread of any runtime may ask for a pull. Jobs are carried out by [`Pulls::run`], which [`crate::serve`] does;
/// what is asked for before waits for it, and nothing is taken after it.
#[derive(Clone)]
pub struct Pulls(Arc<Shared>);

/// What all clones and jobs share.
pub(super) struct Shared {
    pub(super) source: Arc<dyn FleetSource>,
    pub(super) policy: ArcSwap<PullPolicy>,
    pub(super) settings: PullSettings,
    pub(super) client: reqwest::Client,
    pub(super) metrics: PullMetrics,
    book: Mutex<Book>,
    queue: mpsc::Sender<Arc<Job>>,
    /// The other end of the queue, until somebody runs it.
    asked: Mutex<Option<mpsc::Receiver<Arc<Job>>>>,
}

impl Pulls {
    /// Over the nodes of `source`; the counters join those in `registry`.
    ///
    /// # Errors
    /// When `registry` has metrics of the same names, or the system refuses an HTTP client.
    pub(crate) fn new(
        source: Arc<dyn FleetSource>,
        config: &AdminConfig,
        registry: &Registry,
    ) -> Result<Self, SetupError> {
        let (queue, asked) = mpsc::channel(RUNNING_LIMIT);
        Ok(Self(Arc::new(Shared {
            source,
            policy: ArcSwap::from_pointee(config.pull.policy.clone()),
            settings: config.pull.clone(),
            client: node_client(config.node_connect_timeout).build()?,
            metrics: PullMetrics::new(registry)?,
            book: Mutex::default(),
            queue,
            asked: Mutex::new(Some(asked)),
        })))
    }

    /// What may be pulled now.
    #[must_use]
    pub fn policy(&self) -> Arc<PullPolicy> {
        self.0.policy.load_full()
    }

    /// Changes what may be pulled. Pulls that run keep to what they began with, but for the disk's reserve.
    pub fn set_policy(&self, policy: PullPolicy) {
        self.0.policy.store(Arc::new(policy));
    }

    /// Starts a pull, or joins the one that runs already for that model (and node, when one is named). Never waits.
    ///
    /// One node pulls one model at a time. A request never has a second pull of a model started.
    ///
    /// # Errors
    /// With the reason why there is none to wait for.
    pub fn start(&self, ask: PullAsk) -> Result<PullHandle, PullRefusal> {
        let shared = &self.0;
        let mut book = shared.book();
        if let Some(job) = book.join(&ask) {
            return Ok(PullHandle::new(shared, &job));
        }
        let job = Arc::new(shared.plan(&mut book, ask)?);
        shared.queue.try_send(Arc::clone(&job)).map_err(|error| match error {
            TrySendError::Full(_) => PullRefusal::TooMany { max: RUNNING_LIMIT },
            TrySendError::Closed(_) => PullRefusal::Stopping,
        })?;
        book.begin(Arc::clone(&job));
        shared.metrics.running.inc();
        job.log_start();
        Ok(PullHandle::new(shared, &job))
    }

    /// Cancels the pull `id`, for a reason that is told to all who wait for it. Returns whether it ran.
    #[must_use]
    pub fn cancel(&self, id: u64, reason: &str) -> bool {
        let mut book = self.0.book();
        let Some(job) = book.running(id) else { return false };
        self.0.finish(&mut book, &job, PullPhase::Cancelled(reason.to_owned()));
        true
    }

    /// The pulls that run, the oldest first, and up to 64 that are over, the latest first.
    #[must_use]
    pub fn list(&self) -> (Vec<PullInfo>, Vec<PullInfo>) {
        self.0.book().info()
    }

    /// Whether `model` is being pulled onto some node.
    #[must_use]
    pub fn is_pulling(&self, model: &ModelName) -> bool {
        self.0.book().is_pulling(model)
    }

    /// Carries out pulls until `shutdown` becomes true or its sender is gone, or this future is dropped. Then all pulls
    /// are cancelled: Ollama keeps what it has of a model, and goes on from there at the next pull.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let taken = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut asked) = taken else {
            tracing::error!("pulls are run already");
            return;
        };
        let mut jobs = JoinSet::new();
        // Dropped before the jobs, so that they are cancelled before they are cut.
        let _stops = StopGuard(Arc::clone(&self.0));
        loop {
            tokio::select! {
                () = stopped(&mut shutdown) => return,
                Some(_) = jobs.join_next() => {}
                Some(job) = asked.recv() => drop(jobs.spawn(carry_out(Arc::clone(&self.0), job))),
            }
        }
    }
}

impl fmt::Debug for Pulls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pulls").field(&*self.0.book()).finish()
    }
}

impl Shared {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job that `ask` makes now.
    fn plan(&self, book: &mut Book, ask: PullAsk) -> Result<Job, PullRefusal> {
        if book.stopping || self.source.draining() {
            return Err(PullRefusal::Stopping);
        }
        let policy = self.policy.load();
        let (snapshot, life, now_ms) = (self.source.snapshot(), self.source.policy().life, self.source.now_ms());
        let size_bytes = known_size(&snapshot, &ask.model);
        let is_auto = ask.reason.is_auto();
        let used_bytes = book.automatic_bytes(now_ms);
        if is_auto {
            policy.allows(&ask.model)?;
            if let Some(needed_bytes) = size_bytes.filter(|size| *size > policy.max_bytes) {
                return Err(PullRefusal::TooLarge { needed_bytes, max_bytes: policy.max_bytes });
            }
            book.backoff.check(&ask.model, now_ms)?;
            let max_bytes = policy.bytes_per_day;
            if used_bytes.saturating_add(size_bytes.unwrap_or(1)) > max_bytes {
                return Err(PullRefusal::DayIsFull { used_bytes, max_bytes });
            }
        }
        let pulling = book.pulling();
        let holders = if is_auto { Holders::Skip } else { Holders::Prefer };
        let (model, policy, life, pulls) = (&ask.model, policy.as_ref(), &life, pulling.as_slice());
        let placing = Placing { model, size_bytes, policy, life, now_ms, pulling: pulls, holders };
        let index = match &ask.node_id {
            Some(id) => place_on(&snapshot, id, &placing)?,
            None => place(&snapshot, &placing)?,
        };
        let max = policy.running_max.min(RUNNING_LIMIT);
        if pulling.len() >= max {
            return Err(PullRefusal::TooMany { max });
        }
        let node = &snapshot.nodes[index];
        Ok(Job {
            id: book.new_id(),
            spelling: ask.spelling,
            insecure: ask.insecure,
            node_id: node.id.clone(),
            address: node.address,
            max_bytes: is_auto.then(|| policy.max_bytes.min(policy.bytes_per_day.saturating_sub(used_bytes))),
            room_bytes: disk_available(node).map(|available| available.saturating_sub(policy.disk_reserve_bytes)),
            started_unix_ms: unix_ms(),
            state: watch::Sender::new(PullState::new()),
            reason: ask.reason,
            model: ask.model,
        })
    }

    /// Ends `job`, if it has not ended. Whoever carries it out sees that and stops.
    pub(super) fn finish(&self, book: &mut Book, job: &Job, end: PullPhase) {
        if !book.end(job.id, unix_ms()) {
            return;
        }
        match &end {
            PullPhase::Succeeded => {
                book.backoff.succeeded(&job.model);
                let added = ModelChange::Added { from: None };
                self.source.model_changed(job.node_id.as_str(), &job.model, added);
            }
            PullPhase::Failed(failure) => {
                let now_ms = self.source.now_ms();
                book.backoff.failed(&job.model, failure.for_backoff(), &failure.message, now_ms);
            }
            _ => {}
        }
        if job.reason.is_auto() {
            book.daily.add(fetched_bytes(job, &end), self.source.now_ms());
        }
        self.metrics.ended(&end);
        job.update(|state| state.end(end));
        job.log_end(&job.state.borrow());
    }
}

/// What `job` has fetched at its `end`; a layer that is complete at once is never told so.
fn fetched_bytes(job: &Job, end: &PullPhase) -> u64 {
    let state = job.state.borrow();
    let whole = state.total_bytes.filter(|_| *end == PullPhase::Succeeded);
    state.completed_bytes.max(whole.unwrap_or(0))
}

/// Runs `job` to its end, or until it is ended from outside.
async fn carry_out(shared: Arc<Shared>, job: Arc<Job>) {
    let _lost = LostGuard(&shared, &job);
    let end = tokio::select! {
        biased;
        () = job.over() => return,
        done = stream::pull(&shared, &job) => match done {
            Ok(()) => PullPhase::Succeeded,
            Err(failure) => PullPhase::Failed(failure),
        },
    };
    shared.finish(&mut shared.book(), &job, end);
}

/// Ends a job whose task was cut, so that its node is not held for ever. Does nothing after any other end.
struct LostGuard<'a>(&'a Shared, &'a Job);

impl Drop for LostGuard<'_> {
    fn drop(&mut self) {
        let failure = PullFailure::new(FailureKind::Node, LOST);
        self.0.finish(&mut self.0.book(), self.1, PullPhase::Failed(failure));
    }
}

/// Closes the book, however running it ended.
struct StopGuard(Arc<Shared>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        let mut book = self.0.book();
        book.stopping = true;
        let jobs: Vec<_> = book.jobs().cloned().collect();
        for job in jobs {
            self.0.finish(&mut book, &job, PullPhase::Cancelled("herd is stopping".to_owned()));
        }
    }
}
