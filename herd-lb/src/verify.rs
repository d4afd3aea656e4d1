//! Looks for the Ollama of every new node before anything is sent there: a heartbeat only says that there is one.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use herd_admin::{Found, Verifier};
use herd_core::fleet::Node;
use herd_core::wire::OllamaState;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::task::JoinSet;

use crate::fleet::Fleet;

/// Looks at a time. Those that are not begun wait for one to end.
const LOOKS_AT_A_TIME: usize = 64;
/// Looks that one heartbeat causes, and the pause between them: an Ollama that has just started may not listen yet.
const TRIES: u32 = 2;
const PAUSE: Duration = Duration::from_millis(500);

/// Looks for the Ollamas of new nodes.
pub(crate) struct Verify {
    fleet: Arc<Fleet>,
    verifier: Verifier,
}

/// A node at the address where it is looked for.
type Place = (u32, SocketAddr);

impl Verify {
    /// In `fleet`, each within `timeout`.
    pub(crate) fn new(fleet: &Arc<Fleet>, timeout: Duration) -> anyhow::Result<Self> {
        Ok(Self { fleet: Arc::clone(fleet), verifier: Verifier::new(timeout)? })
    }

    fn begin(&self, looks: &mut JoinSet<Place>, running: &mut HashSet<Place>) {
        let snapshot = self.fleet.snapshot();
        for node in snapshot.nodes.iter().filter(|node| !node.load.is_verified() && !node.draining) {
            if running.len() >= LOOKS_AT_A_TIME {
                return;
            }
            let place = (node.number, node.address);
            if running.insert(place) {
                let (fleet, verifier, node) = (Arc::clone(&self.fleet), self.verifier.clone(), Arc::clone(node));
                looks.spawn(async move {
                    look(&fleet, &verifier, &node).await;
                    place
                });
            }
        }
    }
}

#[async_trait]
impl BackgroundService for Verify {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let (mut looks, mut running) = (JoinSet::new(), HashSet::new());
        loop {
            tokio::select! {
                () = self.fleet.has_unverified() => self.begin(&mut looks, &mut running),
                Some(ended) = looks.join_next() => {
                    let was_full = running.len() >= LOOKS_AT_A_TIME;
                    if let Ok(place) = ended {
                        running.remove(&place);
                    }
                    if was_full {
                        self.begin(&mut looks, &mut running);
                    }
                }
                _ = shutdown.changed() => return,
            }
        }
    }
}

async fn look(fleet: &Fleet, verifier: &Verifier, node: &Node) {
    for attempt in 1..=TRIES {
        match verifier.look(node.address).await {
            Found::Ollama => {
                node.load.verified(fleet.now_ms());
                tracing::info!(node_id = %node.id, address = %node.address, "there is an Ollama, the node takes requests");
                fleet.changed().nudge();
                return;
            }
            Found::SomethingElse => {
                node.load.found_foreign();
                tracing::warn!(node_id = %node.id, address = %node.address, "what answers there is not an Ollama");
                return;
            }
            Found::Nothing => {
                if node.ollama == OllamaState::Ok {
                    node.load.looked_in_vain();
                }
                if attempt < TRIES {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
