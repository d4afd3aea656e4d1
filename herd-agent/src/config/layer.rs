//! One layer over another: the file's shape, and how environment and flags overwrite it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use herd_core::wire;
use serde::{Deserialize, Serialize};

use super::check::{AUTO, Check};
use super::{Config, HeartbeatConfig, MdnsConfig, OllamaConfig, Problem, SERVICE_TYPE};
use crate::flags::Flags;
use crate::log::LogFiles;

/// Every environment variable that the agent reads, besides Ollama's own.
pub(super) const VARIABLES: &[&str] = &[
    "FLEET_NODE_CONFIG",
    "FLEET_NODE_NODE_ID",
    "FLEET_NODE_DATA_DIR",
    "FLEET_NODE_ROUTER_URL",
    "FLEET_JOIN_TOKEN",
    "FLEET_NODE_HEARTBEAT_INTERVAL",
    "FLEET_NODE_HEARTBEAT_TIMEOUT_MS",
    "FLEET_NODE_OLLAMA_HOST",
    "FLEET_NODE_OLLAMA_TIMEOUT_MS",
    "FLEET_NODE_OLLAMA_WATCH_INTERVAL_MS",
    "FLEET_NODE_MDNS_ENABLED",
    "FLEET_NODE_MDNS_SERVICE_TYPE",
    "FLEET_NODE_MDNS_INTERFACES",
    "FLEET_NODE_LOG_LEVEL",
    "FLEET_NODE_LOG_FILE",
    "FLEET_NODE_LOG_MAX_BYTES",
    "FLEET_NODE_LOG_KEEP_FILES",
];

/// The shape of `conf/herd-agent.yaml`, not yet checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Layer {
    node_id: String,
    data_dir: String,
    router_urls: Vec<String>,
    join_token: String,
    heartbeat: HeartbeatLayer,
    ollama: OllamaLayer,
    mdns: MdnsLayer,
    log_level: String,
    log: LogLayer,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HeartbeatLayer {
    interval_ms: u64,
    timeout_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OllamaLayer {
    url: String,
    timeout_ms: u64,
    watch_interval_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MdnsLayer {
    enabled: bool,
    service_type: String,
    interfaces: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogLayer {
    file: bool,
    max_bytes: u64,
    keep_files: usize,
}

impl Default for Layer {
    fn default() -> Self {
        Self {
            node_id: AUTO.to_owned(),
            data_dir: "~/.fleet-manager".to_owned(),
            router_urls: Vec::new(),
            join_token: String::new(),
            heartbeat: HeartbeatLayer::default(),
            ollama: OllamaLayer::default(),
            mdns: MdnsLayer::default(),
            log_level: "info".to_owned(),
            log: LogLayer::default(),
        }
    }
}

impl Default for HeartbeatLayer {
    fn default() -> Self {
        Self { interval_ms: 5000, timeout_ms: 3000 }
    }
}

impl Default for OllamaLayer {
    fn default() -> Self {
        Self { url: AUTO.to_owned(), timeout_ms: 1500, watch_interval_ms: 1000 }
    }
}

impl Default for MdnsLayer {
    fn default() -> Self {
        Self { enabled: true, service_type: SERVICE_TYPE.to_owned(), interfaces: "all".to_owned() }
    }
}

impl Default for LogLayer {
    fn default() -> Self {
        let LogFiles { max_bytes, keep_files } = LogFiles::default();
        Self { file: true, max_bytes, keep_files }
    }
}

impl Layer {
    /// Parses a file; an empty one is all defaults.
    pub(super) fn from_yaml(text: &str) -> Result<Self, serde_yaml::Error> {
        Ok(serde_yaml::from_str::<Option<Self>>(text)?.unwrap_or_default())
    }

    /// Overwrites what the environment has.
    pub(super) fn apply_env(&mut self, env: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
        let mut env = Environment { env, problems };
        env.text("FLEET_NODE_NODE_ID", &mut self.node_id);
        env.text("FLEET_NODE_DATA_DIR", &mut self.data_dir);
        env.text("FLEET_JOIN_TOKEN", &mut self.join_token);
        env.text("FLEET_NODE_OLLAMA_HOST", &mut self.ollama.url);
        env.text("FLEET_NODE_MDNS_SERVICE_TYPE", &mut self.mdns.service_type);
        env.text("FLEET_NODE_MDNS_INTERFACES", &mut self.mdns.interfaces);
        env.text("FLEET_NODE_LOG_LEVEL", &mut self.log_level);
        env.parsed("FLEET_NODE_HEARTBEAT_TIMEOUT_MS", &mut self.heartbeat.timeout_ms, "a whole number");
        env.parsed("FLEET_NODE_OLLAMA_TIMEOUT_MS", &mut self.ollama.timeout_ms, "a whole number");
        env.parsed("FLEET_NODE_OLLAMA_WATCH_INTERVAL_MS", &mut self.ollama.watch_interval_ms, "a whole number");
        env.parsed("FLEET_NODE_MDNS_ENABLED", &mut self.mdns.enabled, "true or false");
        env.parsed("FLEET_NODE_LOG_FILE", &mut self.log.file, "true or false");
        env.parsed("FLEET_NODE_LOG_MAX_BYTES", &mut self.log.max_bytes, "a whole number");
        env.parsed("FLEET_NODE_LOG_KEEP_FILES", &mut self.log.keep_files, "a whole number");
        if let Some(list) = env.get("FLEET_NODE_ROUTER_URL") {
            self.router_urls = list.split(',').map(|url| url.trim().to_owned()).filter(|u| !u.is_empty()).collect();
        }
        // Seconds, unlike every other duration here: the name and its unit are the Python project's.
        let mut seconds = None;
        env.parsed_option("FLEET_NODE_HEARTBEAT_INTERVAL", &mut seconds, "a number of seconds, 0.25 to 60");
        if let Some(interval) = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
            self.heartbeat.interval_ms = millis(interval);
        }
    }

    /// Overwrites what the command line has.
    pub(super) fn apply_flags(&mut self, flags: &Flags) {
        let flags = flags.clone();
        if !flags.router_url.is_empty() {
            self.router_urls = flags.router_url;
        }
        if flags.no_mdns {
            self.mdns.enabled = false;
        }
        replace(&mut self.ollama.url, flags.ollama_url);
        replace(&mut self.node_id, flags.node_id);
        replace(&mut self.data_dir, flags.data_dir);
        replace(&mut self.heartbeat.interval_ms, flags.interval_ms);
        replace(&mut self.join_token, flags.join_token);
        replace(&mut self.log_level, flags.log_level);
    }

    /// Checks every value. What is not allowed goes to `problems`, and its default into the answer.
    pub(super) fn check(self, env: &BTreeMap<String, String>, problems: &mut Vec<Problem>) -> Config {
        let default = Config::default();
        let mut check = Check::new(problems);
        let nobody = self.router_urls.is_empty() && !self.mdns.enabled;
        check.holds("router_urls", "[]", !nobody, "at least one URL when mdns.enabled is false");
        Config {
            node_id: check.node_id(&self.node_id),
            data_dir: PathBuf::from(self.data_dir),
            router_urls: self.router_urls.iter().filter_map(|url| check.router_url(url)).collect(),
            join_token: check.join_token(&self.join_token),
            heartbeat: HeartbeatConfig {
                interval: check.millis("heartbeat.interval_ms", self.heartbeat.interval_ms, 250, 60_000),
                timeout: check.millis("heartbeat.timeout_ms", self.heartbeat.timeout_ms, 100, 60_000),
            },
            ollama: OllamaConfig {
                url: check.ollama_url(&self.ollama.url, env.get("OLLAMA_HOST")).unwrap_or(default.ollama.url),
                timeout: check.millis("ollama.timeout_ms", self.ollama.timeout_ms, 100, 30_000),
                watch_interval: check.millis("ollama.watch_interval_ms", self.ollama.watch_interval_ms, 250, 60_000),
                env: ollama_env(|name| env.get(name).map(String::as_str)),
            },
            mdns: MdnsConfig {
                enabled: self.mdns.enabled,
                service_type: check.service_type(self.mdns.service_type),
                interfaces: check.interfaces(&self.mdns.interfaces),
            },
            log_level: check.log_level(self.log_level),
            log_files: Some(check.log_files(self.log.max_bytes, self.log.keep_files)).filter(|_| self.log.file),
        }
    }
}

/// Ollama's settings in an environment. Not set, 0 and not a number all mean "Ollama's own default": `None`.
pub(crate) fn ollama_env<'a>(variable: impl Fn(&str) -> Option<&'a str>) -> wire::OllamaEnv {
    let number = |name| variable(name)?.trim().trim_matches(['"', '\'']).parse::<u64>().ok().filter(|n| *n > 0);
    wire::OllamaEnv {
        num_parallel: number("OLLAMA_NUM_PARALLEL").and_then(|n| n.try_into().ok()),
        max_loaded_models: number("OLLAMA_MAX_LOADED_MODELS").and_then(|n| n.try_into().ok()),
        context_length: number("OLLAMA_CONTEXT_LENGTH"),
    }
}

fn replace<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads variables; an empty one counts as not set, as shells make it hard to unset one for a service.
struct Environment<'a> {
    env: &'a BTreeMap<String, String>,
    problems: &'a mut Vec<Problem>,
}

impl Environment<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(VARIABLES.contains(&name), "{name} is not in VARIABLES");
        self.env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn text(&mut self, name: &str, target: &mut String) {
        if let Some(value) = self.get(name) {
            value.clone_into(target);
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &str, target: &mut T, allowed: &str) {
        let mut value = None;
        self.parsed_option(name, &mut value, allowed);
        replace(target, value);
    }

    fn parsed_option<T: std::str::FromStr>(&mut self, name: &str, target: &mut Option<T>, allowed: &str) {
        let Some(text) = self.get(name) else { return };
        if let Ok(value) = text.parse() {
            *target = Some(value);
        } else {
            let problem = Problem { key: name.into(), value: text.into(), allowed: allowed.into() };
            self.problems.push(problem);
        }
    }
}
