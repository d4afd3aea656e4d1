//! Counts how long models are in memory: nobody else remembers it once they are gone.

use std::time::Duration;

use herd_core::fleet::NodeState;
use herd_store::{Residency, StoreState};
use tokio::sync::watch;

use crate::state::AdminState;
use crate::stop::repeated;
use crate::view::View;
use herd_store::unix_ms;

/// From one look to the next: how much a share can be wrong for each load.
const EVERY: Duration = Duration::from_secs(5);
/// Longest time that counts as one: this machine may have slept.
const LONGEST_MS: u64 = 60_000;

/// Looks until `shutdown`.
pub(crate) async fn run(state: AdminState, shutdown: watch::Receiver<bool>) {
    let mut last_ms = None;
    repeated(EVERY, shutdown, || {
        let now_ms = state.source().now_ms();
        let passed_ms = last_ms.replace(now_ms).map_or(0, |last_ms| now_ms.saturating_sub(last_ms).min(LONGEST_MS));
        look(&state, passed_ms);
        std::future::ready(())
    })
    .await;
}

/// What is in memory now counts as having been so for `passed_ms`.
pub(crate) fn look(state: &AdminState, passed_ms: u64) {
    let Some(store) = state.config().store.as_ref().filter(|_| passed_ms > 0) else { return };
    // The store tells of its own trouble; time that it cannot take is time that nobody knows of.
    if store.health().state != StoreState::Ready {
        return;
    }
    if let Err(error) = store.post_residency(unix_ms(), rows(&state.view(), passed_ms)) {
        tracing::debug!(%error, "how long models were in memory could not be kept");
    }
}

/// The nodes that are known to live, and the models in their memories.
fn rows(view: &View, ms: u64) -> Vec<Residency> {
    let mut rows = Vec::new();
    for node in &view.snapshot.nodes {
        if node.state(view.now_ms, &view.policy.life) == NodeState::Offline {
            continue;
        }
        let mut row = |model: &str| rows.push(Residency { node_id: node.id.to_string(), model: model.to_owned(), ms });
        row("");
        view.models(node).filter(|model| model.resident.is_some()).for_each(|model| row(model.name.as_str()));
    }
    rows
}
