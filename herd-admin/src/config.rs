//! What the admin service is told at its start.

use std::net::SocketAddr;
use std::time::Duration;

use herd_core::inspect::InspectLimits;
use herd_core::name::ModelName;
use herd_store::StoreHandle;

use crate::access::Keys;
use crate::hosts::Hosts;
use crate::peer_user::LocalUsers;
use crate::pull::PullSettings;
use crate::secret::Secret;

/// Settings of the admin service. The edge builds it from its own configuration.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Version of herd, for people and `herd_build_info`.
    pub version: String,
    /// The commit it was built from, for `herd_build_info`.
    pub revision: String,
    /// The compiler it was built with, for `herd_build_info`.
    pub rustc: String,
    /// What the edge sends along as [`crate::EDGE_SECRET_HEADER`] on requests that it forwards; `None` = nobody
    /// forwards, and `X-Forwarded-For` is never believed.
    pub edge_secret: Option<Secret>,
    /// Where the edge takes clients, for benchmarks; `None` = there are none.
    pub edge: Option<SocketAddr>,
    /// API keys, and when they are asked for.
    pub keys: Keys,
    /// Whose loopback connections have the operator's rights.
    pub local_users: LocalUsers,
    /// The names and addresses by which changes may be asked for.
    pub hosts: Hosts,
    /// What agents must show as `Authorization: Bearer`, unless they show a key; `None` = any agent from a local address
    /// may join, as long as there are no keys for nodes.
    pub join_token: Option<Secret>,
    /// What the edge's own agent shows, which has no key of its own.
    pub own_agent: Option<Secret>,
    /// Agents at public addresses may join.
    pub allow_public_nodes: bool,
    /// Largest heartbeat.
    pub heartbeat_body_bytes: usize,
    /// Largest body of `POST /fleet/explain`: as large as inference bodies may be.
    pub explain_body_bytes: usize,
    /// Largest body of `POST /api/show`.
    pub show_body_bytes: usize,
    /// Longest time in which a client may send its body.
    pub body_timeout: Duration,
    /// Longest time for which a client may take nothing of its answer.
    pub write_timeout: Duration,
    /// Longest time to connect to a node.
    pub node_connect_timeout: Duration,
    /// Longest time for a node's whole answer.
    pub node_timeout: Duration,
    /// Models that catalogues leave out: those that herd itself made on nodes. `/fleet/status` has them.
    pub hides: fn(&ModelName) -> bool,
    /// How models are pulled.
    pub pull: PullSettings,
    /// The trace store; `None` = nothing is kept.
    pub store: Option<StoreHandle>,
    /// Pause between two looks of health checks.
    pub health_interval: Duration,
    /// Bounds on the bodies that `POST /fleet/explain` reads.
    pub inspect: InspectLimits,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            revision: "unknown".into(),
            rustc: "unknown".into(),
            edge_secret: None,
            edge: None,
            keys: Keys::default(),
            local_users: LocalUsers::default(),
            hosts: Hosts::default(),
            join_token: None,
            own_agent: None,
            allow_public_nodes: false,
            heartbeat_body_bytes: 1 << 20,
            explain_body_bytes: 64 << 20,
            show_body_bytes: 1 << 20,
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_mins(1),
            node_connect_timeout: Duration::from_secs(2),
            node_timeout: Duration::from_secs(30),
            hides: |_| false,
            pull: PullSettings::default(),
            store: None,
            health_interval: Duration::from_secs(20),
            inspect: InspectLimits::default(),
        }
    }
}
