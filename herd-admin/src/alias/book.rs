//! Which aliases were made where. Plain data behind one lock.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use herd_core::name::ModelName;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Aliases that are remembered over all nodes.
const ALIASES_MAX: usize = 4096;
/// How long a node that refused is not asked again.
const FAILED_FOR: Duration = Duration::from_secs(30);
/// How long a node may take to list what it made. Heartbeats come every few seconds, and agents read lists less often.
const UNLISTED_FOR: Duration = Duration::from_mins(1);

/// One alias on one node.
#[derive(Debug)]
pub(super) struct Made {
    /// How making it ended; empty = it is being made.
    pub(super) outcome: OnceCell<Result<(), String>>,
    asked_at: Instant,
}

#[derive(Debug)]
struct Entry {
    made: Arc<Made>,
    was_listed: bool,
}

impl Entry {
    fn new() -> Self {
        let made = Made { outcome: OnceCell::new(), asked_at: Instant::now() };
        Self { made: Arc::new(made), was_listed: false }
    }

    /// It failed, and that was long enough ago.
    fn is_forgiven(&self) -> bool {
        matches!(self.made.outcome.get(), Some(Err(_))) && self.made.asked_at.elapsed() >= FAILED_FOR
    }
}

/// All aliases.
#[derive(Debug, Default)]
pub(super) struct Book(HashMap<(SocketAddr, ModelName), Entry>);

impl Book {
    /// The alias, to be made if it is new; `None` = there are too many.
    pub(super) fn entry(&mut self, node: SocketAddr, alias: &ModelName) -> Option<Arc<Made>> {
        let key = (node, alias.clone());
        let known = self.0.get(&key).filter(|entry| !entry.is_forgiven());
        if let Some(entry) = known {
            return Some(Arc::clone(&entry.made));
        }
        if self.0.len() >= ALIASES_MAX && !self.0.contains_key(&key) {
            return None;
        }
        let entry = Entry::new();
        let made = Arc::clone(&entry.made);
        self.0.insert(key, entry);
        Some(made)
    }

    /// Takes notice of a node's list.
    pub(super) fn listed(&mut self, node: SocketAddr, has: impl Fn(&ModelName) -> bool) {
        self.0.retain(|(at, alias), entry| {
            if *at != node {
                return true;
            }
            let is_listed = has(alias);
            let stays = is_listed || !(entry.was_listed || entry.made.asked_at.elapsed() >= UNLISTED_FOR);
            entry.was_listed |= is_listed;
            stays
        });
    }

    /// Forgets what was made at `node`.
    pub(super) fn forget(&mut self, node: SocketAddr) {
        self.0.retain(|(at, _), _| *at != node);
    }

    /// Forgets one alias.
    pub(super) fn remove(&mut self, node: SocketAddr, alias: &ModelName) {
        self.0.remove(&(node, alias.clone()));
    }

    /// Whether somebody asked for it.
    pub(super) fn knows(&self, node: SocketAddr, alias: &ModelName) -> bool {
        self.0.contains_key(&(node, alias.clone()))
    }

    /// Takes out all that may be on nodes, one being made too.
    pub(super) fn take_all(&mut self) -> BTreeMap<SocketAddr, Vec<ModelName>> {
        let mut nodes = BTreeMap::<_, Vec<_>>::new();
        for ((node, alias), entry) in self.0.drain() {
            if !matches!(entry.made.outcome.get(), Some(Err(_))) {
                nodes.entry(node).or_default().push(alias);
            }
        }
        nodes
    }
}
