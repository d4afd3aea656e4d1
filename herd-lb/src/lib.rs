//! The edge of herd: a Pingora load balancer for fleets of Ollama nodes. [`run`] is the wiring diagram.

pub mod active;
pub mod aliases;
pub mod bench;
pub mod cli;
pub mod config;
pub mod connection;
pub mod demo;
pub mod dispatch;
pub mod fleet;
pub mod live;
pub mod proxy;
pub mod route;
pub mod selector;
mod services;
pub mod settings;
pub mod shutdown;
pub mod source;
pub mod telemetry;
pub mod trace;
pub mod wake;
pub mod watch;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use herd_admin::{AdminConfig, AdminState, PullSettings};
use herd_agent::{Advertisement, Advertiser, Config as AgentConfig, Interfaces, JoinToken, Url};
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::background::background_service;

use active::Active;
use aliases::AliasKeeper;
use config::{Config, Layers, LiveConfig};
use connection::Acceptor;
use dispatch::Dispatcher;
use fleet::Fleet;
use live::Live;
use proxy::Edge;
use proxy::body::Budget;
use proxy::retry::Retries;
use selector::{Selector, balancer};
use services::{AdminService, Dispatch, LocalAgent, LookAfterAliases, Membership};
use settings::Settings;
use shutdown::Drain;
use source::EdgeSource;
use telemetry::Telemetry;

/// Threads of the admin service: it must never need many.
const ADMIN_THREADS: usize = 1;

/// Rounds in which Pingora asks for a peer: more than the edge's own limits ever allow.
const PINGORA_ATTEMPTS: usize = 10_000;

/// Runs the edge until it is told to stop. `config` is what `layers` make; settings that change later go over them. `ready`
/// is called with the addresses of both listeners once clients can
/// connect.
///
/// # Errors
/// When an address cannot be listened on, or a part cannot be set up.
pub fn run(
    layers: Layers,
    config: &Config,
    demo: bool,
    ready: impl FnOnce(SocketAddr, SocketAddr),
) -> anyhow::Result<()> {
    let (clients, client_address) = listen("listen", config.listen)?;
    let (admin, admin_address) = listen("admin.listen", config.admin_listen)?;
    let edge_secret = format!("{:032x}", fastrand::u128(..));
    let fleet = Arc::new(Fleet::new(config.policy.clone(), config.heartbeat_limits));
    let active = Active::default();
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();

    let probes = background_service("health probes", balancer(&fleet, &config.probe));
    let balancer = probes.task();
    let selector = Selector::new(Arc::clone(&fleet), Arc::clone(&balancer));
    let live_config = LiveConfig::new(config.clone());
    let settings = Arc::new(Settings::new(layers, live_config.clone(), Arc::clone(&fleet)));
    let dispatcher = Arc::new(Dispatcher::new(Arc::clone(&fleet), selector, live_config.clone()));
    let live = Live::default();
    let source = EdgeSource {
        fleet: Arc::clone(&fleet),
        dispatcher: Arc::clone(&dispatcher),
        budget: Budget::new(config.limits.buffered_bytes),
        retries: Arc::new(Retries::new(config.retry.budget)),
        config: live_config.clone(),
        settings: Arc::clone(&settings),
        live: live.clone(),
    };
    let aliases = AliasKeeper::new(Arc::clone(&fleet))?;
    let registry = prometheus::Registry::new();
    let telemetry = Telemetry::new(&registry)?;
    let (budget, retries) = (source.budget.clone(), Arc::clone(&source.retries));
    let state = AdminState::new(Arc::new(source), admin_config(config, client_address, edge_secret.clone()), registry)?;
    let edge = Edge {
        fleet: Arc::clone(&fleet),
        dispatcher: Arc::clone(&dispatcher),
        active: active.clone(),
        live,
        budget,
        retries,
        pulls: state.pulls().clone(),
        aliases: aliases.clone(),
        telemetry,
        admin: admin_address,
        edge_secret,
        config: live_config,
    };
    settings.follow(state.pulls().clone());
    let proxy = pingora_proxy::http_proxy(&server.configuration, edge);
    let mut data_plane = background_service("edge", Acceptor::new(clients, proxy, config.limits));
    data_plane.threads = Some(config.threads);
    let mut admin_service = background_service("admin", AdminService { listener: Mutex::new(Some(admin)), state });
    admin_service.threads = Some(ADMIN_THREADS);

    server.add_service(data_plane);
    server.add_service(admin_service);
    server.add_service(background_service("dispatch", Dispatch(dispatcher)));
    let look_after = LookAfterAliases { fleet: Arc::clone(&fleet), keeper: aliases.clone() };
    server.add_service(background_service("aliases", look_after));
    server.add_service(probes);
    server.add_service(background_service("membership", Membership { fleet: Arc::clone(&fleet), balancer }));
    server.add_service(background_service("agent", local_agent(config, admin_address)?));
    if demo {
        let join_token = join_token(config)?;
        server.add_service(background_service("demo", demo::Demo { admin: admin_address, join_token }));
    }
    let advertiser = advertise(config, client_address);
    ready(client_address, admin_address);
    let drain = Drain { fleet, active, aliases, limit: config.drain, advertiser: advertiser.into() };
    server.run(RunArgs { shutdown_signal: Box::new(drain) });
    Ok(())
}

/// Listens before anything else starts, so that a port in use is an error with a name.
fn listen(key: &str, address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind().map_err(|error: std::io::Error| anyhow::anyhow!("{key}: cannot listen on {address}: {error}"))
}

fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: config.threads,
        // Attempts, not retries, stale kept connections and nodes that were not reached among them: those are bounded
        // by time. Ours are counted by the edge.
        max_retries: PINGORA_ATTEMPTS,
        upstream_keepalive_pool_size: config.upstream.keepalive_connections,
        ..ServerConf::default()
    }
}

fn admin_config(config: &Config, clients: SocketAddr, edge_secret: String) -> AdminConfig {
    AdminConfig {
        edge: Some(reachable(clients)),
        edge_secret: Some(edge_secret.into()),
        join_token: config.join_token.clone().map(Into::into),
        allow_public_nodes: config.allow_public_nodes,
        heartbeat_body_bytes: config.heartbeat_body_bytes,
        explain_body_bytes: config.limits.request_body_bytes,
        inspect: config.inspect,
        pull: PullSettings { policy: config.pull.clone(), ..PullSettings::default() },
        hides: herd_core::alias::is_alias,
        version: env!("CARGO_PKG_VERSION").into(),
        ..AdminConfig::default()
    }
}

fn join_token(config: &Config) -> anyhow::Result<Option<JoinToken>> {
    JoinToken::new(config.join_token.as_deref().unwrap_or_default()).context("fleet.join_token")
}

fn local_agent(config: &Config, admin: SocketAddr) -> anyhow::Result<LocalAgent> {
    let mut agent = AgentConfig {
        data_dir: config.data_dir.clone(),
        router_urls: vec![Url::parse(&format!("http://{}", reachable(admin)))?],
        join_token: join_token(config)?,
        ..AgentConfig::default()
    };
    agent.mdns.enabled = false;
    if let Some(url) = &config.ollama_url {
        agent.ollama.url = Url::parse(url).context("agent.ollama_url")?;
    }
    Ok(LocalAgent { mode: config.embedded_agent, config: agent })
}

/// An address that listens on all interfaces is reached at loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// Announces the edge; that it cannot is not fatal, as agents can be told its address.
fn advertise(config: &Config, address: SocketAddr) -> Option<Advertiser> {
    let mdns = config.mdns.as_ref()?;
    let what = Advertisement {
        service_type: mdns.service_type.clone(),
        instance: "Fleet Manager Router".into(),
        port: address.port(),
        interfaces: if mdns.loopback_only { Interfaces::Loopback } else { Interfaces::All },
        version: env!("CARGO_PKG_VERSION").into(),
        id: format!("{:016x}", fastrand::u64(..)),
    };
    Advertiser::start(&what).inspect_err(|error| tracing::warn!(%error, "cannot announce this edge by mDNS")).ok()
}
