//! The configuration file as it is written: every key with its default.

use std::collections::BTreeMap;

use herd_agent::log::LogFiles;
use herd_core::access::origins::DEFAULT_ORIGINS;
use herd_core::budget::BudgetLimits;
use herd_core::decide::{CANDIDATES_MAX, FallbackPolicy};
use herd_core::exchange::ExchangePolicy;
use herd_core::fleet::{HeartbeatLimits, LifeLimits};
use herd_core::inspect::InspectLimits;
use herd_core::network::LAN_WORD;
use herd_core::patience::{CONNECT_TIMEOUT_MS, Patience};
use herd_core::pull::PullPolicy;
use herd_core::queue::QueueLimits;
use herd_core::score::Weights;
use herd_store::StoreSettings;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// `conf/herd.yaml`.
    ConfigFile {
        /// Address and port for clients.
        listen: String = "0.0.0.0:11435".into(),
        /// Where state is kept; `~` is the home directory.
        data_dir: String = "~/.fleet-manager".into(),
        /// Worker threads of the data plane; 0 = one per core.
        threads: usize = 0,
        /// The admin service.
        admin: Admin = Admin::default(),
        /// API keys, and web pages.
        access: Access = Access::default(),
        /// Logging.
        log: Log = Log::default(),
        /// The agent inside the edge.
        agent: Agent = Agent::default(),
        /// Discovery.
        mdns: MdnsFile = MdnsFile::default(),
        /// Nodes.
        fleet: FleetFile = FleetFile::default(),
        /// Health probes.
        probe: ProbeFile = ProbeFile::default(),
        /// How nodes are chosen.
        routing: Routing = Routing::default(),
        /// Context protection.
        context: Context = Context::default(),
        /// What is done to prompts.
        prompt: Prompt = Prompt::default(),
        /// Single models.
        models: Models = Models::default(),
        /// When another model than the requested one serves.
        fallback: Fallback = Fallback::default(),
        /// Waiting for a slot.
        queue: QueueFile = QueueFile::default(),
        /// Waiting for nodes.
        hold: Hold = Hold::default(),
        /// Waiting for answers.
        reaper: Reaper = Reaper::default(),
        /// Pulling missing models.
        auto_pull: AutoPull = AutoPull::default(),
        /// The trace store.
        store: StoreFile = StoreFile::default(),
        /// Health checks.
        health: HealthFile = HealthFile::default(),
        /// Bounds on clients.
        limits: LimitsFile = LimitsFile::default(),
        /// Connections to nodes.
        upstream: UpstreamFile = UpstreamFile::default(),
        /// Retries.
        retry: RetryFile = RetryFile::default(),
        /// The end.
        shutdown: Shutdown = Shutdown::default(),
    }
}

section! {
    /// The admin service.
    Admin {
        /// Its own address and port.
        listen: String = "127.0.0.1:11436".into(),
        /// Who reaches it through the edge's port: `local`, `lan`, `off`.
        expose: String = "lan".into(),
        /// Most requests that it serves at one time through the edge's port, signs of life and heartbeats aside.
        requests_max: usize = 512,
        /// Further names by which changes may be asked for, with a port where only that one is meant.
        hosts: Vec<String> = Vec::new(),
    }
}

section! {
    /// API keys, and web pages.
    Access {
        /// When they are asked for: `auto`, `always`, `never`.
        require: String = "auto".into(),
        /// Whose loopback connections have this machine's rights: `own`, `any`.
        local_users: String = "own".into(),
        /// Web pages that may use the models, by their origins.
        origins: Vec<String> = DEFAULT_ORIGINS.map(str::to_owned).to_vec(),
    }
}

section! {
    /// Logging.
    Log {
        /// `error`, `warn`, `info`, `debug`, `trace`.
        level: String = "info".into(),
        /// What goes to standard error: `auto`, `all`, `warn`.
        stderr: String = "auto".into(),
        /// JSON lines in `logs/` below `data_dir`.
        file: bool = true,
        /// Size at which the file is rotated.
        max_bytes: u64 = LogFiles::default().max_bytes,
        /// Rotated files that are kept.
        keep_files: usize = LogFiles::default().keep_files,
    }
}

section! {
    /// The agent inside the edge.
    Agent {
        /// `auto`, `on`, `off`.
        embedded: String = "auto".into(),
        /// URL of the local Ollama; empty = `OLLAMA_HOST`, else <http://127.0.0.1:11434>.
        ollama_url: String = String::new(),
    }
}

section! {
    /// Discovery.
    MdnsFile {
        /// Announce this edge on the local network.
        enabled: bool = true,
        /// Service type.
        service_type: String = "_fleet-manager._tcp.local.".into(),
        /// `all` or `loopback`.
        interfaces: String = "all".into(),
    }
}

section! {
    /// Nodes.
    FleetFile {
        /// Secret that heartbeats must carry; empty = none is asked for.
        join_token: String = String::new(),
        /// The local networks: `lan` and blocks of addresses.
        networks: Vec<String> = vec![LAN_WORD.into()],
        /// Take nodes from public addresses.
        allow_public_nodes: bool = false,
        /// Most nodes.
        nodes_max: usize = HeartbeatLimits::default().nodes,
        /// Most models of one node.
        models_max: usize = HeartbeatLimits::default().models,
        /// Most nodes that report from one address without a token.
        nodes_per_address_max: usize = HeartbeatLimits::default().nodes_per_address,
        /// Most models of all nodes together.
        models_total_max: usize = HeartbeatLimits::default().models_total,
        /// Largest heartbeat.
        heartbeat_body_bytes: usize = 1 << 20,
        /// Silence until a node is degraded.
        degraded_after_ms: u64 = LifeLimits::default().degraded_after_ms,
        /// Silence until it is used only if no other candidate is eligible.
        stale_after_ms: u64 = LifeLimits::default().stale_after_ms,
        /// Silence until it is not chosen.
        offline_after_ms: u64 = LifeLimits::default().offline_after_ms,
        /// Silence until it is forgotten.
        gone_after_ms: u64 = LifeLimits::default().gone_after_ms,
    }
}

section! {
    /// Health probes.
    ProbeFile {
        /// Pause between two.
        interval_ms: u64 = 400,
        /// How long one may take.
        timeout_ms: u64 = 400,
        /// Failures in a row until a node is suspected.
        failures: usize = 2,
    }
}

section! {
    /// How nodes are chosen.
    Routing {
        /// By what nodes are ranked: `score`, `eta`.
        policy: String = "score".into(),
        /// Nodes with the model that are compared for one request, of a fleet that has more.
        candidates_max: usize = CANDIDATES_MAX,
        /// The most that each signal can add or take away, in points.
        weights: WeightsFile = WeightsFile::default(),
    }
}

section! {
    /// The seven weights.
    WeightsFile {
        /// Model warmth.
        thermal: f64 = Weights::default().thermal,
        /// Headroom after placing the model.
        memory_fit: f64 = Weights::default().memory_fit,
        /// Work on the node; a penalty.
        queue_depth: f64 = Weights::default().queue_depth,
        /// What requests take there; a penalty.
        latency_history: f64 = Weights::default().latency_history,
        /// Large models to large machines.
        role_affinity: f64 = Weights::default().role_affinity,
        /// Availability stable or rising.
        availability_trend: f64 = Weights::default().availability_trend,
        /// Whether the window holds the prompt.
        context_fit: f64 = Weights::default().context_fit,
    }
}

section! {
    /// What is done to prompts.
    Prompt {
        /// Whether lines of a system prompt that change with every request are pinned: `on`, `off`.
        stabilise: String = "on".into(),
    }
}

section! {
    /// Context protection.
    Context {
        /// `strip`, `warn`, `passthrough`.
        protection: String = "strip".into(),
        /// A larger loaded model may serve a request for more context.
        auto_upgrade: bool = true,
        /// What keeps requests that cannot say `num_ctx` from reloading: `auto`, `alias`, `default` (nothing).
        openai: String = "auto".into(),
        /// Options that change only how fast a model runs: `keep` the runner, `honour` them.
        speed_options: String = "keep".into(),
        /// What becomes of a prompt that exceeds the window: `pass`, `refuse`.
        overflow: String = "pass".into(),
    }
}

section! {
    /// Single models.
    Models {
        /// From requested names to the models that serve them.
        aliases: BTreeMap<String, String> = BTreeMap::new(),
        /// From requested models to those that may serve in their place.
        fallbacks: BTreeMap<String, Vec<String>> = BTreeMap::new(),
    }
}

section! {
    /// When another model than the requested one serves.
    Fallback {
        /// A loaded model that can do the same may stand in.
        vram: bool = FallbackPolicy::default().vram,
        /// Predicted wait and load beyond which it does.
        vram_after_ms: u64 = FallbackPolicy::default().after_ms,
        /// A listed fallback in memory goes before an earlier model that is not.
        prefer_hot: bool = FallbackPolicy::default().prefer_hot,
    }
}

section! {
    /// Waiting for a slot.
    QueueFile {
        /// Most requests that wait.
        max_waiting: usize = QueueLimits::default().max_waiting,
        /// Most that wait for one model.
        max_waiting_per_model: usize = QueueLimits::default().max_waiting_per_model,
        /// Longest that one waits.
        max_wait_ms: u64 = QueueLimits::default().max_wait_ms,
        /// Wait after which a batch request counts as interactive.
        batch_ages_after_ms: u64 = QueueLimits::default().batch_ages_after_ms,
        /// Wait after which a node that must become idle is kept from others.
        reserve_after_ms: u64 = QueueLimits::default().reserve_after_ms,
    }
}

section! {
    /// Waiting for nodes.
    Hold {
        /// Longest wait for a node that has the model and is briefly away.
        max_ms: u64 = ExchangePolicy::default().hold.max_ms,
        /// After its start the edge waits so long for nodes that it knew before, before it calls a model unknown.
        start_ms: u64 = ExchangePolicy::default().hold.start_ms,
    }
}

section! {
    /// Waiting for answers.
    Reaper {
        /// Shortest wait for the first byte.
        first_byte_floor_ms: u64 = Patience::default().first_byte_floor_ms,
        /// Longest wait for it without a sign of progress.
        first_byte_ceiling_ms: u64 = Patience::default().first_byte_ceiling_ms,
        /// How many times the predicted time.
        first_byte_factor: f64 = Patience::default().first_byte_factor,
        /// Longest time without progress once an answer has begun.
        no_progress_ms: u64 = Patience::default().no_progress_ms,
        /// The same for a node that is known to be dead or hung.
        dead_node_ms: u64 = Patience::default().dead_node_ms,
    }
}

section! {
    /// Pulling missing models.
    AutoPull {
        /// Whether a model that no node has is pulled.
        enabled: bool = true,
        /// Names that may be pulled; `*` stands for any text.
        allow: Vec<String> = vec!["*".into()],
        /// Largest model.
        max_bytes: u64 = PullPolicy::default().max_bytes,
        /// Most that is pulled within a day, over all nodes.
        bytes_per_day: u64 = PullPolicy::default().bytes_per_day,
        /// Disk space of a node that is never used up.
        disk_reserve_bytes: u64 = PullPolicy::default().disk_reserve_bytes,
        /// Longest that a request waits for a pull.
        max_wait_ms: u64 = 600_000,
    }
}

section! {
    /// The trace store.
    StoreFile {
        /// Days for which single requests are kept.
        raw_days: u32 = StoreSettings::default().raw_days,
        /// Days for which sums of hours and days are kept.
        rollup_days: u32 = StoreSettings::default().rollup_days,
        /// Largest size.
        max_bytes: u64 = StoreSettings::default().max_bytes,
    }
}

section! {
    /// Health checks.
    HealthFile {
        /// Pause between two looks at the fleet.
        interval_ms: u64 = 20_000,
    }
}

section! {
    /// Bounds on clients.
    LimitsFile {
        /// Largest request body.
        request_body_bytes: usize = 64 << 20,
        /// All request bodies held at one time.
        buffered_bytes: usize = 512 << 20,
        /// Largest answer that is held back until it is complete, so that a node that fails in the middle of it costs the
        /// client nothing; a larger one is passed on as it comes. Answers that are streamed are never held back.
        held_answer_bytes: usize = 8 << 20,
        /// Most times its size that an encoded body may decode to, beyond the first 256 KiB.
        decoded_ratio: usize = 100,
        /// Largest request header.
        header_bytes: usize = 64 << 10,
        /// Most header fields.
        header_count: usize = 100,
        /// For a header to arrive.
        header_ms: u64 = 10_000,
        /// For a body to arrive, besides what its size allows.
        body_ms: u64 = 20_000,
        /// Slowest average arrival of a body.
        body_bytes_per_s: usize = 32 << 10,
        /// Longest time in which a client takes nothing of what is sent to it.
        write_ms: u64 = 60_000,
        /// Idle time of a connection between requests.
        keepalive_idle_ms: u64 = 75_000,
        /// Most connections of clients.
        connections: usize = 8_192,
        /// Deepest nesting of a JSON body.
        json_depth: u32 = InspectLimits::default().json_depth,
        /// Most entries of `fallback_models`.
        fallback_models: usize = InspectLimits::default().fallback_models,
        /// Most entries of `metadata.tags`.
        tags: usize = InspectLimits::default().tags,
    }
}

section! {
    /// Connections to nodes.
    UpstreamFile {
        /// For a connection to be made.
        connect_timeout_ms: u64 = CONNECT_TIMEOUT_MS,
        /// Idle connections kept, at least one by each thread.
        keepalive_connections: usize = 1_024,
        /// How long they are kept.
        keepalive_idle_ms: u64 = 60_000,
        /// Nodes see the `Authorization` of clients.
        forward_authorization: bool = false,
    }
}

section! {
    /// Retries.
    RetryFile {
        /// Most nodes that one request is sent to.
        max_attempts: u32 = ExchangePolicy::default().max_attempts,
        /// Age of a request after which it is not sent again.
        deadline_ms: u64 = ExchangePolicy::default().retry_deadline_ms,
        /// Retries that each request earns for the fleet.
        budget_ratio: f64 = BudgetLimits::default().ratio,
        /// Retries per second that are earned besides.
        budget_per_s: f64 = BudgetLimits::default().per_s,
        /// Most retries that are saved up.
        budget_burst: f64 = BudgetLimits::default().burst,
    }
}

section! {
    /// The end.
    Shutdown {
        /// How long requests that have been taken may take to finish.
        drain_ms: u64 = 30_000,
    }
}

/// Numbers that set a pace, a share or a weight, and bound nothing: every other number of the configuration is a bound.
const NO_BOUNDS: [&str; 19] = [
    "threads",
    "fleet.degraded_after_ms",
    "fleet.stale_after_ms",
    "fleet.offline_after_ms",
    "fleet.gone_after_ms",
    "probe.interval_ms",
    "probe.failures",
    "routing.weights.thermal",
    "routing.weights.memory_fit",
    "routing.weights.queue_depth",
    "routing.weights.latency_history",
    "routing.weights.role_affinity",
    "routing.weights.availability_trend",
    "routing.weights.context_fit",
    "fallback.vram_after_ms",
    "reaper.first_byte_factor",
    "retry.budget_ratio",
    "retry.budget_per_s",
    "health.interval_ms",
];

impl ConfigFile {
    /// The keys of all bounds.
    pub fn bounds() -> impl Iterator<Item = String> {
        let is_bound = |(key, value): &(String, Value)| value.is_number() && !NO_BOUNDS.contains(&key.as_str());
        Self::keys().into_iter().filter(is_bound).map(|(key, _)| key)
    }

    /// Every dotted key with its default.
    #[must_use]
    pub fn keys() -> Vec<(String, Value)> {
        let mut keys = Vec::new();
        if let Ok(value) = serde_yaml::to_value(Self::default()) {
            collect(&value, "", &mut keys);
        }
        keys
    }
}

fn collect(value: &Value, path: &str, keys: &mut Vec<(String, Value)>) {
    // An empty mapping is filled as a whole.
    let Some(mapping) = value.as_mapping().filter(|mapping| !mapping.is_empty()) else {
        return keys.push((path.to_owned(), value.clone()));
    };
    for (key, value) in mapping {
        let key = key.as_str().unwrap_or_default();
        collect(value, &if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }, keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_a_bound_or_known_to_be_none() {
        let keys = ConfigFile::keys();
        let is_number = |key: &str| keys.iter().any(|(known, value)| known == key && value.is_number());
        for key in NO_BOUNDS {
            assert!(is_number(key), "{key} is no number of the configuration");
        }
        let bounds: Vec<String> = ConfigFile::bounds().collect();
        assert_eq!(bounds.len() + NO_BOUNDS.len(), keys.iter().filter(|(_, value)| value.is_number()).count());
        for key in
            ["limits.connections", "queue.max_waiting", "retry.budget_burst", "fleet.nodes_max", "store.max_bytes"]
        {
            assert!(bounds.iter().any(|bound| bound == key), "{key}");
        }
    }
}
