//! From the file's words to checked values.

use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use herd_admin::{Hosts, LocalUsers};
use herd_agent::log::{LogFiles, StderrLines};
use herd_core::access::Require;
use herd_core::access::origins::Origins;
use herd_core::budget::BudgetLimits;
use herd_core::decide::{FallbackPolicy, Order, Policy, RANKED};
use herd_core::exchange::{ExchangePolicy, Hold};
use herd_core::fleet::{HeartbeatLimits, LifeLimits};
use herd_core::inspect::InspectLimits;
use herd_core::inspect::json::DEPTH_CEILING;
use herd_core::launch::SpeedOptions;
use herd_core::name::ModelName;
use herd_core::network::Networks;
use herd_core::patience::Patience;
use herd_core::protect::{AliasUse, Protection};
use herd_core::pull::{Pattern, PullPolicy};
use herd_core::queue::QueueLimits;
use herd_core::rules::ModelRules;
use herd_core::score::Weights;
use herd_store::StoreSettings;

use super::file::{
    AutoPull, ConfigFile, FleetFile, LimitsFile, Log, MdnsFile, Models, QueueFile, Reaper, RetryFile, StoreFile,
    UpstreamFile, WeightsFile,
};
use super::{AdminExpose, Config, ConfigError, EmbeddedAgent, Limits, Mdns, Probe, Upstream};

/// A day, the longest that anything here may take.
const DAY_MS: u64 = 86_400_000;

impl ConfigFile {
    /// Checks every value.
    ///
    /// # Errors
    /// With the first key that is out of its range.
    pub(super) fn check(self) -> Result<Config, ConfigError> {
        let listen = address("listen", &self.listen)?;
        let admin_listen = address("admin.listen", &self.admin.listen)?;
        if listen == admin_listen && listen.port() != 0 {
            return Err(not_allowed("admin.listen", &self.admin.listen, "another address than listen"));
        }
        let limits = &self.limits;
        Ok(Config {
            listen,
            admin_listen,
            admin_requests_max: in_range("admin.requests_max", self.admin.requests_max, 16..=2_048)?,
            admin_expose: one_of("admin.expose", &self.admin.expose, &EXPOSE)?,
            admin_hosts: hosts(&self.admin.hosts)?,
            require_keys: one_of("access.require", &self.access.require, &Require::NAMES)?,
            local_users: one_of("access.local_users", &self.access.local_users, &LocalUsers::NAMES)?,
            origins: origins(&self.access.origins)?,
            data_dir: home(&self.data_dir)?,
            log_level: one_of("log.level", &self.log.level, &LEVELS)?.to_owned(),
            log_files: log_files(&self.log)?,
            log_stderr: one_of("log.stderr", &self.log.stderr, &StderrLines::NAMES)?,
            threads: threads(self.threads)?,
            embedded_agent: one_of("agent.embedded", &self.agent.embedded, &EMBEDDED)?,
            ollama_url: local_ollama(&self.agent.ollama_url)?,
            mdns: mdns(&self.mdns)?,
            networks: networks(&self.fleet.networks)?,
            allow_public_nodes: self.fleet.allow_public_nodes,
            heartbeat_limits: HeartbeatLimits {
                models: in_range("fleet.models_max", self.fleet.models_max, 1..=65_536)?,
                nodes: in_range("fleet.nodes_max", self.fleet.nodes_max, 1..=100_000)?,
                nodes_per_address: in_range(
                    "fleet.nodes_per_address_max",
                    self.fleet.nodes_per_address_max,
                    1..=100_000,
                )?,
                models_total: in_range("fleet.models_total_max", self.fleet.models_total_max, 1..=10_000_000)?,
                ..HeartbeatLimits::default()
            },
            heartbeat_body_bytes: in_range(
                "fleet.heartbeat_body_bytes",
                self.fleet.heartbeat_body_bytes,
                4_096..=64 << 20,
            )?,
            probe: Probe {
                interval: millis("probe.interval_ms", self.probe.interval_ms, 50..=DAY_MS)?,
                timeout: millis("probe.timeout_ms", self.probe.timeout_ms, 10..=60_000)?,
                failures: in_range("probe.failures", self.probe.failures, 1..=100)?,
            },
            queue: queue(&self.queue)?,
            exchange: self.exchange()?,
            pull: pull(&self.auto_pull)?,
            pull_wait: millis("auto_pull.max_wait_ms", self.auto_pull.max_wait_ms, 0..=DAY_MS)?,
            retry_budget: retry_budget(&self.retry)?,
            store: store(&self.store)?,
            health_interval: millis("health.interval_ms", self.health.interval_ms, 100..=600_000)?,
            policy: self.policy()?,
            inspect: InspectLimits {
                json_depth: in_range("limits.json_depth", limits.json_depth, 8..=DEPTH_CEILING)?,
                fallback_models: in_range("limits.fallback_models", limits.fallback_models, 0..=64)?,
                tags: in_range("limits.tags", limits.tags, 0..=256)?,
                stabilise: one_of("prompt.stabilise", &self.prompt.stabilise, &SWITCH)?,
            },
            limits: client_limits(limits)?,
            upstream: upstream(&self.upstream)?,
            drain: millis("shutdown.drain_ms", self.shutdown.drain_ms, 0..=DAY_MS)?,
            join_token: Some(self.fleet.join_token.clone()).filter(|token| !token.is_empty()),
        })
    }

    fn exchange(&self) -> Result<ExchangePolicy, ConfigError> {
        Ok(ExchangePolicy {
            max_attempts: in_range("retry.max_attempts", self.retry.max_attempts, 1..=16)?,
            retry_deadline_ms: in_range("retry.deadline_ms", self.retry.deadline_ms, 0..=DAY_MS)?,
            hold: Hold {
                max_ms: in_range("hold.max_ms", self.hold.max_ms, 0..=DAY_MS)?,
                start_ms: in_range("hold.start_ms", self.hold.start_ms, 0..=600_000)?,
            },
            max_wait_ms: in_range("queue.max_wait_ms", self.queue.max_wait_ms, 1..=DAY_MS)?,
            refuse_overflow: one_of("context.overflow", &self.context.overflow, &OVERFLOW)?,
            patience: patience(&self.reaper)?,
        })
    }

    fn policy(&self) -> Result<Policy, ConfigError> {
        let context = &self.context;
        Ok(Policy {
            weights: weights(&self.routing.weights)?,
            order: one_of("routing.policy", &self.routing.policy, &Order::NAMES)?,
            candidates_max: in_range("routing.candidates_max", self.routing.candidates_max, RANKED..=100_000)?,
            life: life(&self.fleet)?,
            protection: one_of("context.protection", &context.protection, &Protection::NAMES)?,
            openai_alias: one_of("context.openai", &context.openai, &AliasUse::NAMES)?,
            speed_options: one_of("context.speed_options", &context.speed_options, &SpeedOptions::NAMES)?,
            auto_upgrade: context.auto_upgrade,
            fallback: FallbackPolicy {
                vram: self.fallback.vram,
                after_ms: in_range("fallback.vram_after_ms", self.fallback.vram_after_ms, 0..=DAY_MS)?,
                prefer_hot: self.fallback.prefer_hot,
            },
            models: models(&self.models)?,
        })
    }
}

fn hosts(names: &[String]) -> Result<Vec<String>, ConfigError> {
    match names.iter().find(|name| !Hosts::is_name(name)) {
        Some(name) => Err(not_allowed("admin.hosts", name, "names like herd.example or herd.example:8443")),
        None => Ok(names.to_vec()),
    }
}

fn networks(listed: &[String]) -> Result<Vec<String>, ConfigError> {
    match Networks::new(listed, &[]) {
        Ok(_) => Ok(listed.to_vec()),
        Err(wrong) => Err(not_allowed("fleet.networks", wrong, "lan, or networks like 192.168.0.0/16 and fd00::/8")),
    }
}

fn local_ollama(url: &str) -> Result<Option<String>, ConfigError> {
    match herd_agent::ollama_url(url) {
        _ if url.is_empty() => Ok(None),
        Ok(_) => Ok(Some(url.to_owned())),
        Err(why) => Err(not_allowed("agent.ollama_url", url, &format!("like http://127.0.0.1:11434; this {why}"))),
    }
}

fn origins(entries: &[String]) -> Result<Origins, ConfigError> {
    let allowed = "origins like https://chat.example, https://*.example, http://ui.example:*, app://* or *";
    Origins::new(entries).map_err(|entry| not_allowed("access.origins", &entry, allowed))
}

const SWITCH: [(&str, bool); 2] = [("on", true), ("off", false)];
const OVERFLOW: [(&str, bool); 2] = [("pass", false), ("refuse", true)];
const EXPOSE: [(&str, AdminExpose); 3] =
    [("local", AdminExpose::Local), ("lan", AdminExpose::Lan), ("off", AdminExpose::Off)];
const EMBEDDED: [(&str, EmbeddedAgent); 3] =
    [("auto", EmbeddedAgent::Auto), ("on", EmbeddedAgent::On), ("off", EmbeddedAgent::Off)];
const LEVELS: [(&str, &str); 5] =
    [("error", "error"), ("warn", "warn"), ("info", "info"), ("debug", "debug"), ("trace", "trace")];
const INTERFACES: [(&str, bool); 2] = [("all", false), ("loopback", true)];

fn log_files(file: &Log) -> Result<Option<LogFiles>, ConfigError> {
    let max_bytes = in_range("log.max_bytes", file.max_bytes, LogFiles::MAX_BYTES)?;
    let keep_files = in_range("log.keep_files", file.keep_files, LogFiles::KEEP_FILES)?;
    Ok(file.file.then_some(LogFiles { max_bytes, keep_files }))
}

fn client_limits(file: &LimitsFile) -> Result<Limits, ConfigError> {
    let request_body_bytes = in_range("limits.request_body_bytes", file.request_body_bytes, 1_024..=1 << 30)?;
    Ok(Limits {
        request_body_bytes,
        held_answer_bytes: in_range("limits.held_answer_bytes", file.held_answer_bytes, 0..=1 << 30)?,
        // One body must fit into it whatever else is held.
        buffered_bytes: in_range("limits.buffered_bytes", file.buffered_bytes, request_body_bytes..=1 << 40)?,
        decoded_ratio: in_range("limits.decoded_ratio", file.decoded_ratio, 1..=100_000)?,
        header_bytes: in_range("limits.header_bytes", file.header_bytes, 1_024..=1 << 20)?,
        // Pingora takes at most 256 header fields.
        header_count: in_range("limits.header_count", file.header_count, 8..=256)?,
        header_time: millis("limits.header_ms", file.header_ms, 100..=600_000)?,
        body_time: millis("limits.body_ms", file.body_ms, 100..=DAY_MS)?,
        body_bytes_per_s: in_range("limits.body_bytes_per_s", file.body_bytes_per_s, 1..=1 << 30)?,
        write_time: millis("limits.write_ms", file.write_ms, 100..=DAY_MS)?,
        keepalive_idle: millis("limits.keepalive_idle_ms", file.keepalive_idle_ms, 1_000..=DAY_MS)?,
        connections: in_range("limits.connections", file.connections, 1..=1_000_000)?,
    })
}

fn models(file: &Models) -> Result<ModelRules, ConfigError> {
    let name = |key, text: &str| {
        ModelName::new(text).map_err(|why| not_allowed(key, text, &format!("a model name; this {why}")))
    };
    let alias = |(from, to): (&String, &String)| Ok((name("models.aliases", from)?, name("models.aliases", to)?));
    let fallback = |(from, to): (&String, &Vec<String>)| {
        const KEY: &str = "models.fallbacks";
        Ok((name(KEY, from)?, to.iter().map(|text| name(KEY, text)).collect::<Result<_, _>>()?))
    };
    let aliases = file.aliases.iter().map(alias).collect::<Result<_, ConfigError>>()?;
    Ok(ModelRules::new(aliases, file.fallbacks.iter().map(fallback).collect::<Result<_, ConfigError>>()?))
}

fn queue(file: &QueueFile) -> Result<QueueLimits, ConfigError> {
    let max_waiting = in_range("queue.max_waiting", file.max_waiting, 0..=100_000)?;
    Ok(QueueLimits {
        max_waiting,
        max_waiting_per_model: in_range("queue.max_waiting_per_model", file.max_waiting_per_model, 0..=100_000)?,
        max_wait_ms: in_range("queue.max_wait_ms", file.max_wait_ms, 1..=DAY_MS)?,
        batch_ages_after_ms: in_range("queue.batch_ages_after_ms", file.batch_ages_after_ms, 0..=DAY_MS)?,
        reserve_after_ms: in_range("queue.reserve_after_ms", file.reserve_after_ms, 0..=DAY_MS)?,
    })
}

fn patience(file: &Reaper) -> Result<Patience, ConfigError> {
    let floor = in_range("reaper.first_byte_floor_ms", file.first_byte_floor_ms, 100..=DAY_MS)?;
    Ok(Patience {
        first_byte_floor_ms: floor,
        first_byte_ceiling_ms: in_range("reaper.first_byte_ceiling_ms", file.first_byte_ceiling_ms, floor..=DAY_MS)?,
        first_byte_factor: in_range("reaper.first_byte_factor", file.first_byte_factor, 1.0..=1_000.0)?,
        no_progress_ms: in_range("reaper.no_progress_ms", file.no_progress_ms, 100..=DAY_MS)?,
        dead_node_ms: in_range("reaper.dead_node_ms", file.dead_node_ms, 100..=DAY_MS)?,
    })
}

fn retry_budget(file: &RetryFile) -> Result<BudgetLimits, ConfigError> {
    Ok(BudgetLimits {
        ratio: in_range("retry.budget_ratio", file.budget_ratio, 0.0..=1.0)?,
        per_s: in_range("retry.budget_per_s", file.budget_per_s, 0.0..=1e6)?,
        burst: in_range("retry.budget_burst", file.budget_burst, 1.0..=1e6)?,
    })
}

fn pull(file: &AutoPull) -> Result<PullPolicy, ConfigError> {
    let pattern = |text: &String| {
        Pattern::new(text).map_err(|why| not_allowed("auto_pull.allow", text, &format!("a name pattern; this {why}")))
    };
    Ok(PullPolicy {
        enabled: file.enabled,
        allow: file.allow.iter().map(pattern).collect::<Result<_, _>>()?,
        max_bytes: file.max_bytes,
        bytes_per_day: file.bytes_per_day,
        disk_reserve_bytes: file.disk_reserve_bytes,
        ..PullPolicy::default()
    })
}

fn store(file: &StoreFile) -> Result<StoreSettings, ConfigError> {
    let mut settings = StoreSettings::default();
    settings.raw_days = in_range("store.raw_days", file.raw_days, 1..=3_650)?;
    settings.rollup_days = in_range("store.rollup_days", file.rollup_days, 1..=3_650)?;
    settings.max_bytes = in_range("store.max_bytes", file.max_bytes, 16 << 20..=1 << 44)?;
    Ok(settings)
}

fn upstream(file: &UpstreamFile) -> Result<Upstream, ConfigError> {
    Ok(Upstream {
        connect_timeout: millis("upstream.connect_timeout_ms", file.connect_timeout_ms, 10..=600_000)?,
        keepalive_connections: in_range("upstream.keepalive_connections", file.keepalive_connections, 1..=100_000)?,
        keepalive_idle: millis("upstream.keepalive_idle_ms", file.keepalive_idle_ms, 100..=DAY_MS)?,
        forward_authorization: file.forward_authorization,
    })
}

fn life(file: &FleetFile) -> Result<LifeLimits, ConfigError> {
    let degraded = in_range("fleet.degraded_after_ms", file.degraded_after_ms, 250..=DAY_MS)?;
    let stale = in_range("fleet.stale_after_ms", file.stale_after_ms, degraded..=DAY_MS)?;
    let offline = in_range("fleet.offline_after_ms", file.offline_after_ms, stale..=DAY_MS)?;
    let gone = in_range("fleet.gone_after_ms", file.gone_after_ms, offline..=30 * DAY_MS)?;
    Ok(LifeLimits {
        degraded_after_ms: degraded,
        stale_after_ms: stale,
        offline_after_ms: offline,
        gone_after_ms: gone,
    })
}

fn weights(file: &WeightsFile) -> Result<Weights, ConfigError> {
    let points = |key, value: f64| in_range(key, value, 0.0..=1_000.0);
    Ok(Weights {
        thermal: points("routing.weights.thermal", file.thermal)?,
        memory_fit: points("routing.weights.memory_fit", file.memory_fit)?,
        queue_depth: points("routing.weights.queue_depth", file.queue_depth)?,
        latency_history: points("routing.weights.latency_history", file.latency_history)?,
        role_affinity: points("routing.weights.role_affinity", file.role_affinity)?,
        availability_trend: points("routing.weights.availability_trend", file.availability_trend)?,
        context_fit: points("routing.weights.context_fit", file.context_fit)?,
    })
}

fn mdns(file: &MdnsFile) -> Result<Option<Mdns>, ConfigError> {
    let loopback_only = one_of("mdns.interfaces", &file.interfaces, &INTERFACES)?;
    if !file.service_type.ends_with("._tcp.local.") || !file.service_type.starts_with('_') {
        return Err(not_allowed("mdns.service_type", &file.service_type, "like _name._tcp.local."));
    }
    let service_type = file.service_type.clone();
    Ok(file.enabled.then_some(Mdns { service_type, loopback_only }))
}

fn threads(asked: usize) -> Result<usize, ConfigError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let asked = in_range("threads", asked, 0..=1_024)?;
    Ok(if asked == 0 { cores } else { asked })
}

pub(super) fn home(text: &str) -> Result<PathBuf, ConfigError> {
    let Some(rest) = text.strip_prefix('~') else { return Ok(PathBuf::from(text)) };
    let emptied = std::env::var_os("HOME").is_some_and(|home| home.is_empty());
    match std::env::home_dir().filter(|home| home.is_absolute() && !emptied) {
        Some(home) if rest.is_empty() || rest.starts_with('/') => Ok(home.join(rest.trim_start_matches('/'))),
        _ => Err(not_allowed(
            "data_dir",
            text,
            "a path; there is no home directory for ~ (HOME is empty): set data_dir, FLEET_DATA_DIR or --data-dir",
        )),
    }
}

fn address(key: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    let all = text.strip_prefix(':').map(|port| format!("0.0.0.0:{port}"));
    let text = all.as_deref().unwrap_or(text);
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    // A name: its IPv4 address, as that is what clients try who know the name only.
    let named = text.to_socket_addrs().ok().and_then(|addresses| addresses.min_by_key(SocketAddr::is_ipv6));
    named.ok_or_else(|| {
        not_allowed(key, text, "an address and a port, like 127.0.0.1:11435, localhost:11435 or :11435 for all")
    })
}

fn millis(key: &'static str, value: u64, range: RangeInclusive<u64>) -> Result<Duration, ConfigError> {
    in_range(key, value, range).map(Duration::from_millis)
}

fn in_range<T: PartialOrd + Display + Copy>(
    key: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<T, ConfigError> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(not_allowed(key, &value.to_string(), &format!("from {} to {}", range.start(), range.end())))
}

fn one_of<T: Copy>(key: &'static str, text: &str, values: &[(&str, T)]) -> Result<T, ConfigError> {
    let found = values.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    let names = || values.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| not_allowed(key, text, &format!("one of {}", names())))
}

fn not_allowed(key: &'static str, value: &str, allowed: &str) -> ConfigError {
    ConfigError::Value { key, value: format!("{value:?}"), allowed: allowed.to_owned() }
}
