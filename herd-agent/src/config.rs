//! The agent's configuration: YAML, environment and flags become one checked [`Config`].
//!
//! Order of strength: defaults < file < environment < flag. Everything here is pure: the file's text and the
//! environment come in as arguments, and every problem is reported at once.

mod layer;
pub(crate) mod ollama_host;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use herd_core::name::NodeId;
use herd_core::wire;
use reqwest::Url;

use crate::cli::Flags;
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
        }
    }
}

impl Config {
    /// Builds the configuration from the text of a file, the environment and flags.
    ///
    /// # Errors
    /// When the file has an unknown key or a wrong type, or any value is out of range.
    pub fn from_layers(
        yaml: Option<&str>,
        env: &BTreeMap<String, String>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut layer = yaml.map_or_else(|| Ok(layer::Layer::default()), layer::Layer::from_yaml)?;
        layer.apply_env(env, &mut problems);
        layer.apply_flags(flags);
        let config = layer.check(env, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// `data_dir` with a leading `~` replaced by `home`.
    pub(crate) fn expand_home(&mut self, home: Option<&str>) {
        if let (Ok(rest), Some(home)) = (self.data_dir.strip_prefix("~"), home) {
            self.data_dir = PathBuf::from(home).join(rest);
        }
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
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn load(yaml: &str, pairs: &[(&str, &str)], flags: &Flags) -> Result<Config, String> {
        Config::from_layers(Some(yaml), &env(pairs), flags).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_file_is_the_default() {
        let shipped = include_str!("../../conf/herd-agent.yaml");
        assert_eq!(load(shipped, &[], &Flags::default()), Ok(Config::default()));
        assert_eq!(Config::from_layers(None, &env(&[]), &Flags::default()).unwrap(), Config::default());
    }

    #[test]
    fn the_shipped_file_shows_every_key() {
        let shipped: serde_yaml::Value = serde_yaml::from_str(include_str!("../../conf/herd-agent.yaml")).unwrap();
        let all = serde_yaml::to_value(layer::Layer::default()).unwrap();
        assert_eq!(shipped, all);
    }

    #[test]
    fn flags_beat_environment_beats_file_beats_default() {
        let yaml = "heartbeat: {interval_ms: 1000}\nnode_id: file\nlog_level: debug\n";
        let pairs = [("FLEET_NODE_HEARTBEAT_INTERVAL", "2.5"), ("FLEET_NODE_NODE_ID", "env")];
        let flags = Flags { node_id: Some("flag".to_owned()), ..Flags::default() };
        let config = load(yaml, &pairs, &flags).unwrap();
        assert_eq!(config.log_level, "debug");
        assert_eq!(config.heartbeat.interval, Duration::from_millis(2500));
        assert_eq!(config.node_id.unwrap().as_str(), "flag");
        assert_eq!(config.heartbeat.timeout, Config::default().heartbeat.timeout);
    }

    #[test]
    fn every_variable_is_read() {
        let pairs = [
            ("FLEET_NODE_NODE_ID", "studio"),
            ("FLEET_NODE_DATA_DIR", "/data"),
            ("FLEET_NODE_ROUTER_URL", "http://a:11435, http://b:11435/"),
            ("FLEET_JOIN_TOKEN", "s3cret"),
            ("FLEET_NODE_HEARTBEAT_INTERVAL", "2"),
            ("FLEET_NODE_HEARTBEAT_TIMEOUT_MS", "700"),
            ("FLEET_NODE_OLLAMA_HOST", "0.0.0.0:9"),
            ("FLEET_NODE_OLLAMA_TIMEOUT_MS", "400"),
            ("FLEET_NODE_OLLAMA_WATCH_INTERVAL_MS", "300"),
            ("FLEET_NODE_MDNS_ENABLED", "false"),
            ("FLEET_NODE_MDNS_SERVICE_TYPE", "_test._tcp.local."),
            ("FLEET_NODE_MDNS_INTERFACES", "loopback"),
            ("FLEET_NODE_LOG_LEVEL", "warn"),
        ];
        let given: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
        for name in layer::VARIABLES {
            assert!(given.contains(name) || *name == "FLEET_NODE_CONFIG", "{name} is not tested");
        }
        let config = load("{}", &pairs, &Flags::default()).unwrap();
        let expected = Config {
            node_id: Some(NodeId::new("studio").unwrap()),
            data_dir: PathBuf::from("/data"),
            router_urls: vec!["http://a:11435/".parse().unwrap(), "http://b:11435/".parse().unwrap()],
            join_token: JoinToken::new("s3cret").unwrap(),
            heartbeat: HeartbeatConfig { interval: Duration::from_secs(2), timeout: Duration::from_millis(700) },
            ollama: OllamaConfig {
                url: "http://127.0.0.1:9/".parse().unwrap(),
                timeout: Duration::from_millis(400),
                watch_interval: Duration::from_millis(300),
                env: wire::OllamaEnv::default(),
            },
            mdns: MdnsConfig {
                enabled: false,
                service_type: "_test._tcp.local.".to_owned(),
                interfaces: Interfaces::Loopback,
            },
            log_level: "warn".to_owned(),
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn ollamas_own_variables_are_the_weakest_layer() {
        let pairs = [("OLLAMA_HOST", ":7777"), ("OLLAMA_NUM_PARALLEL", "4"), ("OLLAMA_MAX_LOADED_MODELS", "0")];
        let config = load("{}", &pairs, &Flags::default()).unwrap();
        assert_eq!(config.ollama.url.as_str(), "http://127.0.0.1:7777/");
        assert_eq!(config.ollama.env.num_parallel, Some(4));
        assert_eq!(config.ollama.env.max_loaded_models, None, "0 is Ollama's word for its own default");
        let config = load("ollama: {url: 'http://gpu:1'}", &pairs, &Flags::default()).unwrap();
        assert_eq!(config.ollama.url.as_str(), "http://gpu:1/");
    }

    #[test]
    fn errors_name_key_value_and_range_all_at_once() {
        let yaml = "heartbeat: {interval_ms: 10}\nnode_id: 'a b'\nmdns: {interfaces: wifi}\n";
        let pairs = [("FLEET_NODE_OLLAMA_TIMEOUT_MS", "soon"), ("FLEET_NODE_ROUTER_URL", "https://edge")];
        let error = load(yaml, &pairs, &Flags::default()).unwrap_err();
        for part in [
            "heartbeat.interval_ms: \"10\" is not allowed: 250 to 60000",
            "node_id: \"a b\" is not allowed",
            "mdns.interfaces: \"wifi\" is not allowed: all or loopback",
            "FLEET_NODE_OLLAMA_TIMEOUT_MS: \"soon\" is not allowed: a whole number",
            "router_urls: \"https://edge\" is not allowed",
        ] {
            assert!(error.contains(part), "{part:?} is missing in:\n{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_lists_the_known_ones() {
        let error = load("heartbeat: {intervall_ms: 10}", &[], &Flags::default()).unwrap_err();
        assert!(error.contains("intervall_ms") && error.contains("interval_ms") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn reporting_to_nobody_is_an_error() {
        let error = load("mdns: {enabled: false}", &[], &Flags::default()).unwrap_err();
        assert!(error.contains("router_urls"), "{error}");
    }

    #[test]
    fn misspelt_variables_are_named() {
        let env = env(&[("FLEET_NODE_ROUTER_ULR", "x"), ("FLEET_NODE_NODE_ID", "x"), ("HOME", "/")]);
        assert_eq!(unread_variables(&env), ["FLEET_NODE_ROUTER_ULR"]);
    }

    #[test]
    fn the_token_is_never_printed() {
        let token = JoinToken::new("s3cret").unwrap();
        assert!(!format!("{token:?}").contains("s3cret"));
        assert_eq!(JoinToken::new("two words"), Err(TokenError));
    }
}
