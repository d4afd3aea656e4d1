//! What the parts of one node share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::{
    catalog::Catalog,
    clock::Clock,
    config::SimConfig,
    engine::Engine,
    fault::{Fault, FaultKind, FaultSwitch},
    scheduler::Scheduler,
    stats::{Recorder, SimStats},
};

/// One node: its disk, its runners, its faults and its counters.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: Arc<SimConfig>,
    pub(crate) clock: Clock,
    pub(crate) engine: Arc<Engine>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) faults: FaultSwitch,
    /// Whether the Ollama surfaces are listened on.
    pub(crate) listening: watch::Sender<bool>,
    /// Whether its agent is to be silent.
    pub(crate) agent_paused: watch::Sender<bool>,
    catalog: RwLock<Catalog>,
    blobs: Mutex<BTreeSet<String>>,
}

impl Node {
    /// A node as `config` describes it, its preloaded models in memory.
    pub(crate) fn new(config: SimConfig) -> Self {
        let (config, clock) = (Arc::new(config), Clock::start());
        let catalog = Catalog::new(&config.models, clock.wall_now());
        let mut scheduler = Scheduler::new(Arc::clone(&config));
        for hot in &config.preload {
            if let Some(model) = catalog.find(&hot.model) {
                scheduler.preload(clock.now(), &model, hot.num_ctx);
            }
        }
        Self {
            clock,
            engine: Arc::new(Engine::new(clock, scheduler)),
            recorder: Arc::new(Recorder::default()),
            faults: FaultSwitch::new(),
            listening: watch::Sender::new(true),
            agent_paused: watch::Sender::new(false),
            catalog: RwLock::new(catalog),
            blobs: Mutex::default(),
            config,
        }
    }

    /// The models on disk.
    pub(crate) fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The models on disk, to change them.
    pub(crate) fn catalog_mut(&self) -> RwLockWriteGuard<'_, Catalog> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Digests of the files that it was sent.
    pub(crate) fn blobs(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `fault` in force, and waits until the listener has followed.
    pub(crate) async fn set_fault(&self, fault: Fault) {
        let listening = fault.fault != FaultKind::Refuse;
        self.faults.set(fault);
        // The sender lives as long as `self`: an error cannot come.
        drop(self.listening.subscribe().wait_for(|now| *now == listening).await);
    }

    /// All counters.
    pub(crate) fn stats(&self) -> SimStats {
        let running = self.engine.with_runners(|runners| {
            runners.iter().map(|runner| (runner.model.shown.clone(), runner.running.len() as u64)).collect()
        });
        let (scheduler, fault) = (self.engine.counters(), self.faults.get());
        SimStats { running, scheduler, fault, ..self.recorder.snapshot() }
    }

    /// Forgets all counters.
    pub(crate) fn reset_stats(&self) {
        self.recorder.reset();
        self.engine.reset_counters();
    }
}
