//! The configuration in force, which may change while the edge runs.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Config;

/// Read by every request, replaced as a whole.
#[derive(Debug, Clone)]
pub struct LiveConfig(Arc<ArcSwap<Config>>);

impl LiveConfig {
    /// `config` until it is replaced.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// What is in force now. Not to be kept over a wait.
    #[must_use]
    pub fn now(&self) -> Guard<Arc<Config>> {
        self.0.load()
    }

    /// Puts `config` in force.
    pub fn replace(&self, config: Config) {
        self.0.store(Arc::new(config));
    }
}
