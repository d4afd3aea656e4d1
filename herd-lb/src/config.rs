//! `conf/herd.yaml` and everything that overrides it, to one checked [`Config`].
//!
//! Order: defaults < file < environment < flags. Every key has an environment variable: `FLEET_` and the dotted key in
//! upper case with underscores (`context.protection` is `FLEET_CONTEXT_PROTECTION`); keys of the section `fleet` do not
//! say it twice (`fleet.join_token` is `FLEET_JOIN_TOKEN`).

mod check;
mod file;
mod help;
mod layers;
mod legacy;
pub mod live;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use herd_admin::LocalUsers;
use herd_agent::log::{LogFiles, StderrLines};
use herd_core::access::Require;
use herd_core::access::origins::Origins;
use herd_core::budget::BudgetLimits;
use herd_core::decide::Policy;
use herd_core::exchange::ExchangePolicy;
use herd_core::fleet::HeartbeatLimits;
use herd_core::inspect::InspectLimits;
use herd_core::pull::PullPolicy;
use herd_core::queue::QueueLimits;
use herd_store::StoreSettings;
use serde_yaml::{Mapping, Value};

pub use file::ConfigFile;
pub use help::help;
pub use layers::{Layers, Source};
pub use legacy::Legacy;
pub use live::LiveConfig;

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is not YAML.
    #[error("not valid YAML: {0}")]
    Yaml(String),
    /// A key is unknown or has a value of the wrong type.
    #[error("{key}: {message}")]
    Type {
        /// The dotted key.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// A value is out of its range.
    #[error("{key}: {value} is not allowed: must be {allowed}")]
    Value {
        /// The dotted key.
        key: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        allowed: String,
    },
}

/// Who may reach the fleet API and the dashboard through the edge's own port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminExpose {
    /// This machine only.
    Local,
    /// Private addresses too. What they may do there is asked by the admin service.
    Lan,
    /// Nobody: only the admin listener serves them.
    Off,
}

/// Whether the edge reports a local Ollama itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddedAgent {
    /// When one answers at start.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where the admin service listens.
    pub admin_listen: SocketAddr,
    /// Who reaches it through the edge.
    pub admin_expose: AdminExpose,
    /// Most requests that it serves at one time through the edge.
    pub admin_requests_max: usize,
    /// Further names by which changes may be asked for.
    pub admin_hosts: Vec<String>,
    /// When API keys are asked for.
    pub require_keys: Require,
    /// Whose loopback connections have the operator's rights.
    pub local_users: LocalUsers,
    /// Web pages that may use the models.
    pub origins: Origins,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// Log filter: `error`, `warn`, `info`, `debug`, `trace`.
    pub log_level: String,
    /// Bounds on the log files; `None` = none is written.
    pub log_files: Option<LogFiles>,
    /// What goes to standard error.
    pub log_stderr: StderrLines,
    /// Worker threads of the data plane.
    pub threads: usize,
    /// Whether a local Ollama is reported.
    pub embedded_agent: EmbeddedAgent,
    /// The local Ollama's URL; `None` = from `OLLAMA_HOST`, else its default.
    pub ollama_url: Option<String>,
    /// mDNS, when it is on.
    pub mdns: Option<Mdns>,
    /// Secret that heartbeats must carry.
    pub join_token: Option<String>,
    /// The local networks, as listed.
    pub networks: Vec<String>,
    /// Take nodes from public addresses.
    pub allow_public_nodes: bool,
    /// Bounds on heartbeats.
    pub heartbeat_limits: HeartbeatLimits,
    /// Largest heartbeat.
    pub heartbeat_body_bytes: usize,
    /// The edge's own health probe.
    pub probe: Probe,
    /// How nodes are chosen.
    pub policy: Policy,
    /// Bounds on clients.
    pub limits: Limits,
    /// Bounds on request bodies' structure.
    pub inspect: InspectLimits,
    /// Connections to nodes.
    pub upstream: Upstream,
    /// Retries that may be made over all requests.
    pub retry_budget: BudgetLimits,
    /// The trace store.
    pub store: StoreSettings,
    /// Pause between two looks of health checks.
    pub health_interval: Duration,
    /// Bounds on what waits.
    pub queue: QueueLimits,
    /// Limits on one request.
    pub exchange: ExchangePolicy,
    /// What may be pulled.
    pub pull: PullPolicy,
    /// Longest that a request waits for a pull.
    pub pull_wait: Duration,
    /// How long running requests may take to finish at the end.
    pub drain: Duration,
}

/// mDNS settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mdns {
    /// Service type, `_name._tcp.local.`.
    pub service_type: String,
    /// Only on the loopback interface.
    pub loopback_only: bool,
}

/// The edge's own health probe of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Pause between two.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Failures in a row until a node is suspected.
    pub failures: usize,
}

/// What one client, or all of them, may make the edge hold or wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body, before and after decoding.
    pub request_body_bytes: usize,
    /// All request bodies held at one time.
    pub buffered_bytes: usize,
    /// Largest answer that is held back until it is complete.
    pub held_answer_bytes: usize,
    /// Most times its size that a body may decode to.
    pub decoded_ratio: usize,
    /// Largest request header.
    pub header_bytes: usize,
    /// Most header fields.
    pub header_count: usize,
    /// From the first byte of a request to the end of its header.
    pub header_time: Duration,
    /// For a body to arrive, besides what its size allows.
    pub body_time: Duration,
    /// Slowest average arrival of a body.
    pub body_bytes_per_s: usize,
    /// Longest time in which a client takes nothing of what is sent to it.
    pub write_time: Duration,
    /// Idle time of a connection between requests.
    pub keepalive_idle: Duration,
    /// Most connections of clients.
    pub connections: usize,
}

/// Connections to nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upstream {
    /// For a connection to be made.
    pub connect_timeout: Duration,
    /// Idle connections kept, in all, but for one at least by each thread.
    pub keepalive_connections: usize,
    /// How long they are kept.
    pub keepalive_idle: Duration,
    /// Nodes see the `Authorization` of clients, but for keys of herd's own.
    pub forward_authorization: bool,
}

impl Config {
    /// Builds a configuration from the text of a file, the environment and flags. Pure: all three come as arguments.
    ///
    /// `env` finds a variable; `flags` are dotted keys with values as they would stand in the file.
    ///
    /// # Errors
    /// With the key, its value and what is allowed.
    pub fn build(
        text: &str,
        env: impl Fn(&str) -> Option<String>,
        flags: &[(&'static str, String)],
    ) -> Result<Self, ConfigError> {
        let keys = ConfigFile::keys();
        let variables = keys.iter().map(|(key, _)| variable(key));
        let env = variables.filter_map(|name| env(&name).map(|value| (name, value))).collect();
        Layers { file: text.to_owned(), saved: BTreeMap::new(), env, flags: flags.to_vec() }.build()
    }
}

/// The environment variable of a dotted key.
pub(crate) fn variable(key: &str) -> String {
    let key = key.strip_prefix("fleet.").unwrap_or(key);
    format!("FLEET_{}", key.replace('.', "_").to_uppercase())
}

/// A value from a variable or flag: text where the key is text, so that a token of digits stays one; else as YAML.
fn scalar(text: &str, default: &Value) -> Value {
    let parsed = serde_yaml::from_str(text).ok().filter(|_| !default.is_string());
    parsed.unwrap_or_else(|| text.into())
}

/// Puts `value` at a dotted key.
fn set(root: &mut Value, key: &str, value: Value) {
    let mut place = root;
    for part in key.split('.') {
        if !place.is_mapping() {
            *place = Value::Mapping(Mapping::new());
        }
        let Value::Mapping(mapping) = place else { return };
        place = mapping.entry(part.into()).or_insert(Value::Null);
    }
    *place = value;
}

#[cfg(test)]
mod tests;
