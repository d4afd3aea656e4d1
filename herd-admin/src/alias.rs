//! Aliases of models on nodes: making them before they are used, and taking them away.
//!
//! An alias is a second manifest of the same weights with a context size of its own, for APIs whose requests cannot
//! carry one. What it is called and made of is decided elsewhere; here it is made once per node and remembered.

mod book;
mod client;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use herd_core::name::ModelName;
use tokio::time::timeout;

use crate::node_client::node_client;
use book::Book;

/// Nodes that are cleaned up at a time.
const CLEANUPS_AT_A_TIME: usize = 16;

/// Bounds on making and taking away aliases.
#[derive(Debug, Clone)]
pub struct AliasSettings {
    /// Longest time to connect to a node.
    pub connect_timeout: Duration,
    /// Longest time for making one: a node writes some hundred bytes. A request that goes on where another one went away
    /// waits twice as long at the most.
    pub create_timeout: Duration,
    /// Longest time for taking away all that is to go from one node.
    pub cleanup_timeout: Duration,
}

impl Default for AliasSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            create_timeout: Duration::from_secs(5),
            cleanup_timeout: Duration::from_secs(5),
        }
    }
}

/// Why there is no alias. A request is then served by the model itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// The node did not make it in time.
    #[error("the node did not make the alias in time")]
    Timeout,
    /// The node did not make it, or did not some seconds ago.
    #[error("the node did not make the alias: {0}")]
    Refused(String),
    /// More aliases than are remembered.
    #[error("there are too many aliases")]
    TooMany,
}

/// The aliases that this edge has made. Cloning is cheap; every clone is the same. Any runtime may use it.
#[derive(Clone)]
pub struct Aliases(Arc<Shared>);

struct Shared {
    client: reqwest::Client,
    settings: AliasSettings,
    book: Mutex<Book>,
}

impl Aliases {
    /// Without any yet.
    ///
    /// # Errors
    /// When the system refuses an HTTP client.
    pub fn new(settings: AliasSettings) -> reqwest::Result<Self> {
        let client = node_client(settings.connect_timeout)
            // A connection that is kept would belong to the runtime of whoever asked first.
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self(Arc::new(Shared { client, settings, book: Mutex::default() })))
    }

    /// Sees to it that the Ollama at `node` has `alias`: at once when it was made before, else by `POST /api/create` with
    /// `body`, once for all who ask meanwhile. A failure is remembered for some seconds, so that not every request
    /// waits for the next one.
    ///
    /// # Errors
    /// When it could not be made in time.
    pub async fn ensure(&self, node: SocketAddr, alias: &ModelName, body: Bytes) -> Result<(), AliasError> {
        let made = self.book().entry(node, alias).ok_or(AliasError::TooMany)?;
        // Whoever comes first makes it; when that one goes away, the next one goes on. Such a row ends too.
        let outcome = made.outcome.get_or_init(|| client::create(&self.0, node, alias, body));
        match timeout(self.0.settings.create_timeout * 2, outcome).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => Err(AliasError::Refused(message.clone())),
            Err(_) => Err(AliasError::Timeout),
        }
    }

    /// Takes notice of what the node lists in a heartbeat: an alias that was there and is gone is made again when it is
    /// asked for, and so is one that never showed up within a minute.
    pub fn listed(&self, node: SocketAddr, has: impl Fn(&ModelName) -> bool) {
        self.book().listed(node, has);
    }

    /// Forgets what was made at `node`: it is gone, or somebody else is there now.
    pub fn forget(&self, node: SocketAddr) {
        self.book().forget(node);
    }

    /// Which of `found`, aliases in a node's list, nobody here has asked for: left over from an earlier run, or another
    /// edge's.
    #[must_use]
    pub fn stale<'a>(&self, node: SocketAddr, found: impl IntoIterator<Item = &'a ModelName>) -> Vec<ModelName> {
        let book = self.book();
        found.into_iter().filter(|name| !book.knows(node, name)).cloned().collect()
    }

    /// Takes `names` away from the node by `DELETE /api/delete`, in their order, within the limit of
    /// [`AliasSettings::cleanup_timeout`]. Returns how many are not there any more. What is not reached in that time
    /// stays for the next start; the caller vouches that all are aliases.
    pub async fn cleanup(&self, node: SocketAddr, names: &[ModelName]) -> usize {
        let mut gone = 0;
        let all = async {
            for name in names {
                if client::delete(&self.0, node, name).await {
                    self.book().remove(node, name);
                    gone += 1;
                }
            }
        };
        let in_time = timeout(self.0.settings.cleanup_timeout, all).await.is_ok();
        if gone < names.len() {
            tracing::warn!(%node, in_time, left = names.len() - gone, "aliases were left on a node");
        }
        gone
    }

    /// Takes away all that were made, for the end of the process. Nodes are asked side by side, so that it takes no longer
    /// than [`AliasSettings::cleanup_timeout`] for each sixteen of them.
    pub async fn cleanup_all(&self) {
        let nodes = self.book().take_all();
        stream::iter(nodes)
            .for_each_concurrent(CLEANUPS_AT_A_TIME, async |(node, names)| {
                self.cleanup(node, &names).await;
            })
            .await;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Aliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Aliases").field(&*self.book()).finish()
    }
}
