//! The agent's configuration: YAML, environment and flags become one checked [`Config`].
//!
//! Order of strength: defaults < file < environment < flag. Everything here is pure: the file's text and the
//! environment come in as arguments, and every problem is reported at once.

mod check;
mod layer;
pub(crate) mod ollama_host;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use herd_core::name::NodeId;
use herd_core::wire;
use reqwest::Url;

use crate::flags::Flags;
use crate::log::LogFiles;
pub(crate) use layer::ollama_env;

/// Service type under which edges announce themselves; the Python project's own, so that both find each other.
pub const SERVICE_TYPE: &str = "_fleet-manager._tcp.local.";

/// Everything the agent needs to know, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of this node; `None` = the one kept in `data_dir`, made from the host name at the first start.
    pub node_id: Option<NodeId>,
    /// Folder of the agent's own files. A leading `~` is the home folder.
    pub data_dir: PathBuf,
    /// Edges to report to. When there are any, mDNS is not asked.
    pub router_urls: Vec<Url>,
    /// Sent as `Authorization: Bearer` with every heartbeat.
    pub join_token: Option<JoinToken>,
    /// Pace of the heartbeats.
    pub heartbeat: HeartbeatConfig,
    /// The local Ollama.
    pub ollama: OllamaConfig,
    /// Discovery of edges.
    pub mdns: MdnsConfig,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter of `tracing` like `info,herd_agent=debug`.
    pub log_level: String,
    /// Bounds on the log files; `None` = none is written.
    pub log_files: Option<LogFiles>,
}

/// Pace of the heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Time between two heartbeats when nothing happens.
    pub interval: Duration,
    /// How long one router may take to answer.
    pub timeout: Duration,
}

/// The local Ollama.
#[derive(Debug, Clone, PartialEq)]
pub struct OllamaConfig {
    /// Its base URL.
    pub url: Url,
    /// How long one call to it may take.
    pub timeout: Duration,
    /// How often the cheap `/api/ps` is asked, to notice loads and unloads between two heartbeats.
    pub watch_interval: Duration,
    /// Ollama's settings as the *agent's* environment has them; used only where Ollama's own process cannot be read.
    pub env: wire::OllamaEnv,
}

/// Discovery of edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MdnsConfig {
    /// Look for edges when no router URL is given.
    pub enabled: bool,
    /// DNS-SD service type.
    pub service_type: String,
    /// Where to look.
    pub interfaces: Interfaces,
}

/// Network interfaces that mDNS uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interfaces {
    /// Every interface of the machine.
    All,
    /// IPv4 loopback only: edges on this machine.
    Loopback,
}

/// A shared secret; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken(String);

impl JoinToken {
    /// Wraps `text`; `None` when it is empty.
    ///
    /// # Errors
    /// When it has characters that no HTTP header may have.
    pub fn new(text: &str) -> Result<Option<Self>, TokenError> {
        match text {
            "" => Ok(None),
            text if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(Some(Self(text.to_owned()))),
            _ => Err(TokenError),
        }
    }

    /// The secret itself, for the `Authorization` header.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(***)")
    }
}

/// A join token with blanks, control characters or letters outside ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("has characters other than printable ASCII")]
pub struct TokenError;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not YAML of the right shape; the message names key and line.
    #[error("configuration file: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// Values that are not allowed, all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}

/// One value that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {value:?} is not allowed: {allowed}")]
pub struct Problem {
    /// Dotted key, environment variable or flag.
    pub key: String,
    /// What was given.
    pub value: String,
    /// What may be given.
    pub allowed: String,
}

impl Default for Config {
    /// The defaults of `conf/herd-agent.yaml`, with `~` not yet expanded.
    fn default() -> Self {
        Self {
            node_id: None,
            data_dir: PathBuf::from("~/.fleet-manager"),
            router_urls: Vec::new(),
            join_token: None,
            heartbeat: HeartbeatConfig { interval: Duration::from_secs(5), timeout: Duration::from_secs(3) },
            ollama: OllamaConfig {
                url: ollama_host::default_url(),
                timeout: Duration::from_millis(1500),
                watch_interval: Duration::from_secs(1),
                env: wire::OllamaEnv::default(),
            },
            mdns: MdnsConfig { enabled: true, service_type: SERVICE_TYPE.to_owned(), interfaces: Interfaces::All },
            log_level: "info".to_owned(),
            log_files: Some(LogFiles::default()),
        }
    }
}

impl Config {
    /// Builds the configuration from the text of a file, the environment and flags.
    ///
    /// # Errors
    /// When the file has an unknown key or a wrong type, or any value is out of range.
    pub fn from_layers(yaml: Option<&str>, env: &BTreeMap<String, String>, flags: &Flags) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut layer = yaml.map_or_else(|| Ok(layer::Layer::default()), layer::Layer::from_yaml)?;
        layer.apply_env(env, &mut problems);
        layer.apply_flags(flags);
        let config = layer.check(env, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// `data_dir` with a leading `~` replaced by `home`.
    ///
    /// # Errors
    /// When there is no home folder: a folder named `~` would come and go with the one the agent is started in.
    pub(crate) fn expand_home(&mut self, home: Option<&str>) -> Result<(), Problem> {
        let Ok(rest) = self.data_dir.strip_prefix("~") else { return Ok(()) };
        let Some(home) = home.filter(|home| !home.is_empty()) else {
            return Err(Problem {
                key: "data_dir".into(),
                value: self.data_dir.display().to_string(),
                allowed: "there is no home folder (HOME is empty); set --data-dir or FLEET_NODE_DATA_DIR".into(),
            });
        };
        self.data_dir = PathBuf::from(home).join(rest);
        Ok(())
    }
}

/// Variables named `FLEET_NODE_*` that nobody reads: a typing error, or a setting that only the Python agent has.
#[must_use]
pub fn unread_variables(env: &BTreeMap<String, String>) -> Vec<&str> {
    env.keys()
        .map(String::as_str)
        .filter(|name| name.starts_with("FLEET_NODE_") && !layer::VARIABLES.contains(name))
        .collect()
}

#[cfg(test)]
mod tests;
