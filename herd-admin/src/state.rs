//! What handlers share.

use std::sync::Arc;

use herd_core::join::Challenges;
use herd_core::places::Places;
use herd_core::record::RequestRecord;
use herd_store::unix_ms;
use prometheus::Registry;
use tokio::sync::Semaphore;

use crate::FleetSource;
use crate::access::{Actor, Audit, Keys};
use crate::answer::SharedAnswer;
use crate::benchmark::Benchmarks;
use crate::checks::Checks;
use crate::config::AdminConfig;
use crate::events::Events;
use crate::joins::Joins;
use crate::kept::{KeptAudit, KeptBenchmarks};
use crate::manage::Sequences;
use crate::metrics::{FleetCollector, Later, fed_counter};
pub use crate::node_client::SetupError;
use crate::node_client::node_client;
use crate::pins::Pins;
use crate::pull::Pulls;
use crate::view::View;

/// Explanations computed at a time: each may hold a body of tens of megabytes.
const EXPLANATIONS_AT_A_TIME: usize = 4;

/// Requests for model cards that nodes are asked at a time, all together.
const ASKS_AT_A_TIME: usize = 256;

/// Answers that all who ask share.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// `GET /api/tags`.
    pub(crate) tags: SharedAnswer,
    /// `GET /v1/models`.
    pub(crate) models: SharedAnswer,
}

/// What handlers share. Cloning is cheap.
#[derive(Clone)]
pub struct AdminState(Arc<Shared>);

struct Shared {
    source: Arc<dyn FleetSource>,
    config: AdminConfig,
    registry: Registry,
    nodes: reqwest::Client,
    pulls: Pulls,
    benchmarks: Benchmarks,
    explanations: Semaphore,
    asks: Places<String>,
    sequences: Sequences,
    store_drops: Later,
    audit: Audit,
    checks: Checks,
    pins: Pins,
    events: Events,
    joins: Joins,
    challenges: Challenges,
    answers: Answers,
    /// Wall clock, Unix milliseconds, at the start of the edge's monotonic clock.
    epoch_unix_ms: u64,
}

impl AdminState {
    /// Sets up the admin service over `source`; the fleet's metrics join those in `registry`.
    ///
    /// # Errors
    /// When `registry` has metrics of the same names, or the system refuses an HTTP client.
    pub fn new(source: Arc<dyn FleetSource>, config: AdminConfig, registry: Registry) -> Result<Self, SetupError> {
        registry.register(Box::new(FleetCollector::new(Arc::clone(&source), &config)?))?;
        let store_drops = Later::default();
        let (told, help) =
            (store_drops.clone(), "Records that were dropped, as the trace store took them not in time.");
        registry.register(Box::new(fed_counter("herd_store_drops_total", help, move || told.read())?))?;
        let nodes = node_client(config.node_connect_timeout).timeout(config.node_timeout).build()?;
        let pulls = Pulls::new(Arc::clone(&source), &config, &registry)?;
        let benchmarks = Benchmarks::new(Arc::clone(&source), &config)?;
        let epoch_unix_ms = unix_ms().saturating_sub(source.now_ms());
        let explanations = Semaphore::new(EXPLANATIONS_AT_A_TIME);
        let audit = Audit::default();
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| SetupError::Random(error.to_string()))?;
        if let Some(store) = &config.store {
            audit.keep_in(KeptAudit(store.clone()));
            benchmarks.keep_in(Arc::new(KeptBenchmarks::new(store.clone())));
        }
        let shared = Shared {
            source,
            config,
            registry,
            nodes,
            pulls,
            benchmarks,
            explanations,
            asks: Places::new(ASKS_AT_A_TIME),
            sequences: Sequences::default(),
            store_drops,
            audit,
            checks: Checks::default(),
            pins: Pins::default(),
            events: Events::default(),
            joins: Joins::default(),
            challenges: Challenges::new(random),
            answers: Answers::default(),
            epoch_unix_ms,
        };
        Ok(Self(Arc::new(shared)))
    }

    /// Says where `herd_store_drops_total` comes from: how many records the trace store has dropped since the start.
    /// `read` is called by every scrape and must not wait; the first caller is believed.
    pub fn feed_store_drops(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.0.store_drops.feed(read);
    }

    /// The pulls of models. They run as long as [`crate::serve`] does.
    #[must_use]
    pub fn pulls(&self) -> &Pulls {
        &self.0.pulls
    }

    /// The benchmarks. They run as long as [`crate::serve`] does.
    #[must_use]
    pub fn benchmarks(&self) -> &Benchmarks {
        &self.0.benchmarks
    }

    /// A request has ended: who watches the dashboard is told. Never waits.
    pub fn request_ended(&self, record: &RequestRecord) {
        self.0.events.request_ended(record);
    }

    /// The audit log, to have it kept elsewhere too.
    #[must_use]
    pub fn audit_log(&self) -> &Audit {
        &self.0.audit
    }

    /// Notes in the audit log that `actor` did `action` to `target`.
    pub(crate) fn audit(&self, actor: &Actor, action: &'static str, target: &str, detail: &str) {
        self.0.audit.audit(actor, action, target, detail);
    }

    /// What the last looks at the fleet found.
    pub(crate) fn checks(&self) -> &Checks {
        &self.0.checks
    }

    /// What is told as it changes.
    pub(crate) fn events(&self) -> &Events {
        &self.0.events
    }

    /// Agents that were turned away.
    pub(crate) fn joins(&self) -> &Joins {
        &self.0.joins
    }

    /// What agents prove over that they know the join token.
    pub(crate) fn challenges(&self) -> &Challenges {
        &self.0.challenges
    }

    /// Answers that all who ask share.
    pub(crate) fn answers(&self) -> &Answers {
        &self.0.answers
    }

    /// Models that stay in memory.
    pub(crate) fn pins(&self) -> &Pins {
        &self.0.pins
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.0.config.keys
    }

    pub(crate) fn source(&self) -> &dyn FleetSource {
        self.0.source.as_ref()
    }

    pub(crate) fn config(&self) -> &AdminConfig {
        &self.0.config
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// The client for requests to nodes.
    pub(crate) fn nodes(&self) -> &reqwest::Client {
        &self.0.nodes
    }

    /// Permits to compute an explanation.
    pub(crate) fn explanations(&self) -> &Semaphore {
        &self.0.explanations
    }

    /// Places for requests that clients have asked of nodes, by the nodes' ids.
    pub(crate) fn asks(&self) -> &Places<String> {
        &self.0.asks
    }

    /// Which node each client's sequence of changes goes to.
    pub(crate) fn sequences(&self) -> &Sequences {
        &self.0.sequences
    }

    /// The fleet and the moment, read once for one answer.
    pub(crate) fn view(&self) -> View {
        let source = self.source();
        View {
            snapshot: source.snapshot(),
            policy: source.policy(),
            draining: source.draining(),
            now_ms: source.now_ms(),
            unix_ms: unix_ms(),
            epoch_unix_ms: self.0.epoch_unix_ms,
            hides: self.0.config.hides,
        }
    }
}
