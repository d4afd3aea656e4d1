//! What runs beside the data plane, each part on its own runtime.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use herd_admin::AdminState;
use herd_agent::{Config as AgentConfig, HostSource};
use herd_core::awake::BEAT_MS;
use herd_store::StoreHandle;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora_load_balancing::LoadBalancer;
use tokio::time::MissedTickBehavior;

use crate::aliases::{self, AliasKeeper};
use crate::config::{Config, EmbeddedAgent};
use crate::dispatch::Dispatcher;
use crate::fleet::Fleet;
use crate::history;
use crate::selector::RankedSelection;

/// How often silent nodes are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often this machine's interfaces are read: networks come and go with cables, tunnels and leases.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(15);
/// How often a local Ollama that did not run at the start is looked for.
const LOCAL_OLLAMA_INTERVAL: Duration = Duration::from_secs(2);
/// How long a local Ollama may take to say that it is there.
const LOCAL_OLLAMA_TIMEOUT: Duration = Duration::from_millis(500);

/// The admin service on its own listener.
pub(crate) struct AdminService {
    /// Its listener; taken at the start.
    pub(crate) listener: Mutex<Option<std::net::TcpListener>>,
    /// Its state.
    pub(crate) state: AdminState,
}

#[async_trait]
impl BackgroundService for AdminService {
    async fn start(&self, shutdown: ShutdownWatch) {
        let listener = self.listener.lock().ok().and_then(|mut listener| listener.take());
        if let Some(Ok(listener)) = listener.map(tokio::net::TcpListener::from_std) {
            herd_admin::serve(listener, self.state.clone(), shutdown).await;
        } else {
            tracing::error!("the admin listener cannot be used");
        }
    }
}

/// Keeps the balancer's backends in step with the fleet, and forgets silent nodes.
pub(crate) struct Membership {
    /// The fleet.
    fleet: Arc<Fleet>,
    /// The balancer.
    balancer: Arc<LoadBalancer<RankedSelection>>,
    /// The local networks, as listed.
    networks: Vec<String>,
}

impl Membership {
    /// Of `fleet`, in the networks of `config`.
    pub(crate) fn new(fleet: &Arc<Fleet>, balancer: Arc<LoadBalancer<RankedSelection>>, config: &Config) -> Self {
        Self { fleet: Arc::clone(fleet), balancer, networks: config.networks.clone() }
    }
}

#[async_trait]
impl BackgroundService for Membership {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut tick = tokio::time::interval(EXPIRY_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut interfaces = tokio::time::interval(INTERFACES_INTERVAL);
        interfaces.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.fleet.membership_changed() => {
                    if let Err(error) = self.balancer.update().await {
                        tracing::warn!(%error, "cannot update the balancer's backends");
                    }
                }
                _ = tick.tick() => self.fleet.expire(),
                _ = interfaces.tick() => self.fleet.look_at_interfaces(&self.networks),
                _ = shutdown.changed() => return,
            }
        }
    }
}

/// Keeps the edge's clock, so that it is noticed when the process does not run. It has a thread to itself: work that takes
/// long elsewhere is not sleep.
pub(crate) struct Clock(pub(crate) Arc<Fleet>);

#[async_trait]
impl BackgroundService for Clock {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut tick = tokio::time::interval(Duration::from_millis(BEAT_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.0.beat(),
                _ = shutdown.changed() => return,
            }
        }
    }
}

/// Hands out slots to requests that wait.
pub(crate) struct Dispatch(pub(crate) Arc<Dispatcher>);

#[async_trait]
impl BackgroundService for Dispatch {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let stop = async {
            // An error means that the server is gone.
            drop(shutdown.changed().await);
        };
        self.0.run(stop).await;
    }
}

/// Gives nodes back what was learned of them before this start.
pub(crate) struct Remember {
    /// The fleet.
    pub(crate) fleet: Arc<Fleet>,
    /// Where it was kept.
    pub(crate) store: StoreHandle,
}

#[async_trait]
impl BackgroundService for Remember {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = history::remember(Arc::clone(&self.fleet), self.store.clone()) => {}
            _ = shutdown.changed() => {}
        }
    }
}

/// Looks after the aliases on the nodes, where they are made at all.
pub(crate) struct LookAfterAliases {
    /// The fleet.
    pub(crate) fleet: Arc<Fleet>,
    /// Its aliases.
    pub(crate) keeper: AliasKeeper,
}

#[async_trait]
impl BackgroundService for LookAfterAliases {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut tick = tokio::time::interval(aliases::LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = shutdown.changed() => return,
            }
            if aliases::any_listed(&self.fleet.snapshot()) {
                self.keeper.look().await;
            }
        }
    }
}

/// The agent inside the edge, for the Ollama on this machine.
pub(crate) struct LocalAgent {
    /// Whether it runs.
    pub(crate) mode: EmbeddedAgent,
    /// How.
    pub(crate) config: AgentConfig,
}

#[async_trait]
impl BackgroundService for LocalAgent {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        if self.mode == EmbeddedAgent::Off {
            return;
        }
        let url = &self.config.ollama.url;
        if self.mode == EmbeddedAgent::Auto && !local_ollama_answers(&self.config).await {
            tracing::warn!(
                ollama_url = %url,
                "no Ollama on this machine yet; it is reported as soon as it answers there (agent.ollama_url, OLLAMA_HOST)"
            );
            tokio::select! {
                () = local_ollama_starts(&self.config) => {}
                _ = shutdown.changed() => return,
            }
        }
        tracing::info!(ollama_url = %url, "reporting the local Ollama");
        if let Err(error) = herd_agent::run(self.config.clone(), HostSource::Machine, shutdown).await {
            tracing::error!(%error, "the embedded agent ended");
        }
    }
}

/// Waits until something listens where the local Ollama should be.
async fn local_ollama_starts(config: &AgentConfig) {
    let mut tick = tokio::time::interval(LOCAL_OLLAMA_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if local_ollama_answers(config).await {
            return;
        }
    }
}

async fn local_ollama_answers(config: &AgentConfig) -> bool {
    let (Some(host), Some(port)) = (config.ollama.url.host_str(), config.ollama.url.port_or_known_default()) else {
        return false;
    };
    let connecting = tokio::net::TcpStream::connect((host.trim_matches(['[', ']']), port));
    matches!(tokio::time::timeout(LOCAL_OLLAMA_TIMEOUT, connecting).await, Ok(Ok(_)))
}
