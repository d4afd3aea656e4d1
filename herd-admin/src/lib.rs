//! The admin service of herd: catalogue, fleet API, heartbeats, health and metrics.
//!
//! A library with one narrow window to the edge, [`FleetSource`]. It never runs on a proxy thread: the edge serves it
//! on its own runtime and its own listener.

use std::sync::Arc;

use herd_core::decide::Policy;
use herd_core::fleet::{FleetSnapshot, HeartbeatError, Sender};
use herd_core::wire::Heartbeat;

/// What the admin service sees of the edge.
pub trait FleetSource: Send + Sync + 'static {
    /// The fleet now. Never waits.
    fn snapshot(&self) -> Arc<FleetSnapshot>;

    /// The edge's monotonic clock, milliseconds from its start.
    fn now_ms(&self) -> u64;

    /// How requests are decided now.
    fn policy(&self) -> Policy;

    /// Takes a heartbeat; returns the node's state as the edge sees it then.
    ///
    /// # Errors
    /// When it is refused.
    fn heartbeat(&self, heartbeat: Heartbeat, sender: Sender) -> Result<&'static str, HeartbeatError>;

    /// Whether the edge is stopping: no new requests, running ones finish.
    fn draining(&self) -> bool;
}
