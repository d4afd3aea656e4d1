//! What nodes took before this edge was started: from the trace store, once the nodes are there again.

use std::sync::Arc;
use std::time::Duration;

use herd_core::name::ModelName;
use herd_store::{RecentLatency, StoreHandle, unix_ms};

use crate::fleet::Fleet;

/// How long the store may take to be opened.
const OPENS_WITHIN: Duration = Duration::from_mins(1);
/// How often the fleet is looked at for nodes that have come.
const LOOK: Duration = Duration::from_secs(1);
/// Nodes that have not come by then are measured anew.
const WAITS: Duration = Duration::from_hours(1);

/// Gives nodes back what was learned of them, as they come.
pub async fn remember(fleet: Arc<Fleet>, store: StoreHandle) {
    if !store.ready(OPENS_WITHIN).await {
        return;
    }
    let now_ms = unix_ms();
    let mut known = match store.latency_p75(now_ms).await {
        Ok(known) => known,
        Err(error) => return tracing::warn!(%error, "latencies of before are not known"),
    };
    fleet.expect(known.iter().map(|latency| latency.node_id.clone()).collect());
    let looks = WAITS.as_secs() / LOOK.as_secs();
    for _ in 0..looks {
        known.retain(|latency| !give_back(&fleet, latency, now_ms));
        if known.is_empty() {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Gives one model on one node its history; true = that is done, or no longer of use.
fn give_back(fleet: &Fleet, latency: &RecentLatency, read_at_ms: u64) -> bool {
    let Ok(name) = ModelName::new(&latency.model) else { return true };
    let snapshot = fleet.snapshot();
    let Some(node) = snapshot.node(&latency.node_id) else { return false };
    let Some(model) = node.model(&name) else { return false };
    if model.load.p75_ms().is_some() {
        return true;
    }
    let now_ms = fleet.now_ms();
    for (ended_ms, service_ms) in &latency.requests {
        // What lies before the start of our own clock is as old as that clock can say.
        let age_ms = read_at_ms.saturating_sub(*ended_ms);
        model.load.observe(*service_ms, now_ms.saturating_sub(age_ms));
    }
    true
}
