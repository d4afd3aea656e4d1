//! The edge of herd: a Pingora load balancer for fleets of Ollama nodes. [`run`] is the wiring diagram.

pub mod active;
pub mod aliases;
pub mod bench;
pub mod budget;
pub mod cli;
pub mod config;
pub mod connection;
pub mod demo;
pub mod dispatch;
pub mod fleet;
pub mod history;
pub mod keys;
pub mod live;
mod open_files;
pub mod proxy;
pub mod record;
pub mod route;
pub mod selector;
mod services;
pub mod settings;
pub mod shutdown;
pub mod source;
pub mod telemetry;
pub mod trace;
mod verify;
pub mod wake;
pub mod watch;
pub mod workers;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use herd_admin::access::{Keys, random_hex};
use herd_admin::{AdminConfig, AdminState, Hosts, NodeCalls, PullSettings};
use herd_agent::{Advertisement, Advertiser, Config as AgentConfig, Interfaces, JoinToken, Url, ollama_url};
use herd_core::record::RequestRecord;
use herd_store::{Store, StoreHandle, StoreThread};
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::background::background_service;
use pingora_load_balancing::LoadBalancer;
use pingora_proxy::HttpProxy;
use prometheus::Registry;
use tokio::net::TcpSocket;

use active::Active;
use aliases::AliasKeeper;
use budget::Budget;
use config::{Config, Layers, LiveConfig};
use connection::Acceptor;
use dispatch::Dispatcher;
use fleet::Fleet;
use live::Live;
use proxy::Edge;
use proxy::admin::AdminPlaces;
use proxy::life::Driver;
use record::{Observers, Recorder};
use selector::{RankedSelection, Selector, balancer};
use services::{AdminService, Clock, Dispatch, LocalAgent, LookAfterAliases, Membership, Remember};
use settings::Settings;
use shutdown::Drain;
use source::EdgeSource;
use telemetry::Telemetry;
use verify::Verify;
use workers::Worker;

/// Threads that accept clients and give them to those that serve.
const ACCEPT_THREADS: usize = 1;

/// Threads of the admin service: it must never need many.
const ADMIN_THREADS: usize = 1;

/// How long the last traces may take to be written.
const STORE_CLOSES_WITHIN: Duration = Duration::from_secs(5);

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
    open_files::raise(config.limits.connections);
    let (clients, client_address) = listen("listen", config.listen)?;
    let (admin, admin_address) = listen("admin.listen", config.admin_listen)?;
    let keys = Keys::open(&config.data_dir, config.require_keys)?;
    keys::warn_of_none(&keys);
    let secrets = Secrets { edge: random_hex::<32>()?, own_agent: random_hex::<32>()? };
    let fleet = empty_fleet(config);
    let active = Active::default();
    let mut server = Server::new_with_opt_and_conf(None, ServerConf::default());
    server.bootstrap();

    let probes = background_service("health probes", balancer(&fleet, &config.probe));
    let balancer = probes.task();
    let selector = Selector::new(Arc::clone(&fleet), Arc::clone(&balancer));
    let live_config = LiveConfig::new(config.clone());
    let settings = Arc::new(Settings::new(layers, live_config.clone(), Arc::clone(&fleet)));
    let dispatcher = Arc::new(Dispatcher::new(Arc::clone(&fleet), selector, live_config.clone()));
    let (live, registry, observers) = (Live::default(), Registry::new(), Observers::default());
    let telemetry = Telemetry::new(&registry)?;
    let (store, writer) = records(config, observers.clone());
    let recorder = Arc::new(Recorder::new(Arc::clone(&telemetry), store.clone(), observers));
    let driver = Arc::new(Driver::new(&live_config, &fleet, &dispatcher, config.retry_budget));
    let source = Arc::new(EdgeSource {
        fleet: Arc::clone(&fleet),
        dispatcher: Arc::clone(&dispatcher),
        budget: Budget::new(config.limits.buffered_bytes),
        admin_places: AdminPlaces::new(config.admin_requests_max),
        retries: Arc::clone(&driver.retries),
        config: live_config.clone(),
        settings: Arc::clone(&settings),
        live: live.clone(),
        telemetry: Arc::clone(&telemetry),
    });
    let (aliases, node_calls) = (AliasKeeper::new(Arc::clone(&fleet), &config.data_dir)?, NodeCalls::new()?);
    let hosts = hosts(config, &[client_address, admin_address]);
    let admin_config = admin_config(config, &keys, &hosts, &secrets, store.clone(), reachable(client_address));
    let state = AdminState::new(Arc::clone(&source) as _, admin_config, registry)?;
    recorder.watched_by(state.clone());
    let edge = Edge {
        fleet: Arc::clone(&fleet),
        active: active.clone(),
        live,
        budget: source.budget.clone(),
        admin_places: source.admin_places.clone(),
        driver,
        pulls: state.pulls().clone(),
        keys,
        hosts,
        aliases: aliases.clone(),
        node_calls,
        telemetry,
        benchmarks: recorder.for_benchmarks()?,
        recorder,
        admin: admin_address,
        edge_secret: secrets.edge.clone(),
        config: live_config,
    };
    let pulls = edge.pulls.clone();
    settings.follow(move |config| pulls.set_policy(config.pull.clone()));
    let admin_service = AdminService { listener: Mutex::new(Some(admin)), state };
    add_listeners(&mut server, Acceptor::new(clients, seats(config, &edge)?, config.limits), admin_service);
    server.add_service(probes);
    add_services(&mut server, &fleet, dispatcher, &aliases, store);
    add_membership(&mut server, &fleet, balancer, config)?;
    add_agents(&mut server, config, (client_address, admin_address), &secrets, demo)?;
    let advertiser = advertise(config, client_address);
    ready(client_address, admin_address);
    let drain = Drain { fleet, active, aliases, limit: config.drain, advertiser: advertiser.into() };
    server.run(RunArgs { shutdown_signal: Box::new(drain) });
    close(writer);
    Ok(())
}

/// A fleet without nodes that knows its networks: the first heartbeat is judged by them.
fn empty_fleet(config: &Config) -> Arc<Fleet> {
    let fleet = Fleet::new(config.policy.clone(), config.heartbeat_limits).verifying();
    fleet.look_at_interfaces(&config.networks);
    Arc::new(fleet)
}

/// Where records go, and the thread that writes them. An edge without a place to keep them serves all the same.
fn records(config: &Config, observers: Observers) -> (Option<StoreHandle>, Option<StoreThread>) {
    let show = move |record: &RequestRecord| observers.show(record);
    let opened = Store::open_observed(&config.data_dir, config.store.clone(), show);
    opened.inspect_err(|error| tracing::error!(%error, "traces are not kept")).ok().unzip()
}

/// Has the last records written.
fn close(writer: Option<StoreThread>) {
    if !writer.is_none_or(|thread| thread.close(STORE_CLOSES_WITHIN)) {
        tracing::warn!("the last traces could not be kept");
    }
}

/// The threads that serve clients, each with a proxy.
fn seats(config: &Config, edge: &Edge) -> anyhow::Result<Vec<(Worker, HttpProxy<Edge>)>> {
    let conf = Arc::new(proxy_conf(config));
    let seat = |number| Ok((Worker::start(number)?, pingora_proxy::http_proxy(&conf, edge.clone())));
    let seats: std::io::Result<_> = (0..config.threads).map(seat).collect();
    seats.context("threads to serve clients with")
}

/// The data plane and the admin service, each with its own threads.
fn add_listeners(server: &mut Server, clients: Acceptor<Edge>, admin: AdminService) {
    let mut data_plane = background_service("accept", clients);
    data_plane.threads = Some(ACCEPT_THREADS);
    let mut admin_service = background_service("admin", admin);
    admin_service.threads = Some(ADMIN_THREADS);
    server.add_service(data_plane);
    server.add_service(admin_service);
}

/// What runs beside both.
fn add_services(
    server: &mut Server,
    fleet: &Arc<Fleet>,
    dispatcher: Arc<Dispatcher>,
    aliases: &AliasKeeper,
    store: Option<StoreHandle>,
) {
    server.add_service(background_service("clock", Clock(Arc::clone(fleet))));
    server.add_service(background_service("dispatch", Dispatch(dispatcher)));
    if let Some(store) = store {
        server.add_service(background_service("history", Remember { fleet: Arc::clone(fleet), store }));
    }
    let look_after = LookAfterAliases { fleet: Arc::clone(fleet), keeper: aliases.clone() };
    server.add_service(background_service("aliases", look_after));
}

/// What follows the nodes as they come and go.
fn add_membership(
    server: &mut Server,
    fleet: &Arc<Fleet>,
    balancer: Arc<LoadBalancer<RankedSelection>>,
    config: &Config,
) -> anyhow::Result<()> {
    server.add_service(background_service("verify", Verify::new(fleet, config.probe.timeout)?));
    server.add_service(background_service("membership", Membership::new(fleet, balancer, config)));
    Ok(())
}

/// The agent of this machine, and in the demo the simulated nodes.
fn add_agents(
    server: &mut Server,
    config: &Config,
    listeners: (SocketAddr, SocketAddr),
    secrets: &Secrets,
    demo: bool,
) -> anyhow::Result<()> {
    server.add_service(background_service("agent", local_agent(config, listeners, secrets)?));
    if demo {
        let join_token = join_token(config, secrets)?;
        server.add_service(background_service("demo", demo::Demo { admin: listeners.1, join_token }));
    }
    Ok(())
}

/// Connections that may wait to be accepted; the system has its own limit besides. With the 128 of the standard library
/// the rest of a burst of clients tries again only after a second.
const BACKLOG: u32 = 4_096;

/// Listens before anything else starts, so that a port in use is an error with a name.
fn listen(key: &str, address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let bind = || {
        // Only tokio's socket can be told how many may wait, and only within a runtime.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let _entered = runtime.enter();
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of an edge that ran here before may still be open.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?.into_std()?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind().map_err(|error: std::io::Error| anyhow::anyhow!("{key}: cannot listen on {address}: {error}"))
}

/// What each proxy is told. One thread drives each, and it keeps its share of the idle connections: Pingora has as many
/// times `upstream_keepalive_pool_size` as it is told threads.
fn proxy_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: 1,
        // Attempts, not retries, stale kept connections and nodes that were not reached among them: those are bounded
        // by time. Ours are counted by the edge.
        max_retries: PINGORA_ATTEMPTS,
        upstream_keepalive_pool_size: config.upstream.keepalive_connections.div_ceil(config.threads.max(1)),
        ..ServerConf::default()
    }
}

/// What the parts of this process show each other; new at every start.
struct Secrets {
    /// That a request comes through the edge.
    edge: String,
    /// That a heartbeat comes from the edge's own agents.
    own_agent: String,
}

/// Names and addresses that are this edge's own.
fn hosts(config: &Config, listeners: &[SocketAddr]) -> Hosts {
    let own = herd_agent::host_name().into_iter().flat_map(|name| [format!("{name}.local"), name]);
    Hosts::new(listeners, own).with_names(&config.admin_hosts).with_origins(config.origins.clone())
}

fn admin_config(
    config: &Config,
    keys: &Keys,
    hosts: &Hosts,
    secrets: &Secrets,
    store: Option<StoreHandle>,
    edge: SocketAddr,
) -> AdminConfig {
    AdminConfig {
        edge: Some(edge),
        edge_secret: Some(secrets.edge.as_str().into()),
        keys: keys.clone(),
        local_users: config.local_users,
        hosts: hosts.clone(),
        join_token: config.join_token.clone().map(Into::into),
        own_agent: Some(secrets.own_agent.as_str().into()),
        allow_public_nodes: config.allow_public_nodes,
        heartbeat_body_bytes: config.heartbeat_body_bytes,
        explain_body_bytes: config.limits.request_body_bytes,
        inspect: config.inspect,
        write_timeout: config.limits.write_time,
        pull: PullSettings { policy: config.pull.clone(), ..PullSettings::default() },
        hides: herd_core::alias::is_alias,
        store,
        health_interval: config.health_interval,
        version: env!("CARGO_PKG_VERSION").into(),
        rustc: env!("HERD_RUSTC").into(),
        revision: env!("HERD_REVISION").into(),
        ..AdminConfig::default()
    }
}

/// What agents inside this process show.
fn join_token(config: &Config, secrets: &Secrets) -> anyhow::Result<Option<JoinToken>> {
    JoinToken::new(config.join_token.as_ref().unwrap_or(&secrets.own_agent)).context("fleet.join_token")
}

fn local_agent(
    config: &Config,
    (edge, admin): (SocketAddr, SocketAddr),
    secrets: &Secrets,
) -> anyhow::Result<LocalAgent> {
    let mut agent = AgentConfig {
        data_dir: config.data_dir.clone(),
        router_urls: vec![Url::parse(&format!("http://{}", reachable(admin)))?],
        join_token: join_token(config, secrets)?,
        ..AgentConfig::default()
    };
    agent.mdns.enabled = false;
    let (source, url) = match &config.ollama_url {
        Some(url) => ("agent.ollama_url", url.clone()),
        None => ("OLLAMA_HOST", std::env::var("OLLAMA_HOST").unwrap_or_default()),
    };
    agent.ollama.url = ollama_url(&url).map_err(|why| anyhow::anyhow!("{source}: {url:?} {why}"))?;
    if config.ollama_url.is_none() && is_edge(&agent.ollama.url, edge) {
        // Set for clients of herd in the shell that starts it.
        tracing::info!(OLLAMA_HOST = url, "OLLAMA_HOST is this edge; the local Ollama is looked for at its usual port");
        agent.ollama.url = AgentConfig::default().ollama.url;
    }
    Ok(LocalAgent { mode: config.embedded_agent, config: agent })
}

/// Whether `url` leads to `edge` on this machine.
fn is_edge(url: &Url, edge: SocketAddr) -> bool {
    let here = url.host_str().is_some_and(|host| {
        let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified() || ip == edge.ip())
    });
    here && url.port_or_known_default() == Some(edge.port())
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_of_clients_connects_before_any_is_accepted() {
        let (_listener, address) = listen("listen", (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(900));
        let clients: Result<Vec<_>, _> = (0..300).map(connect).collect();
        assert_eq!(clients.map(|clients| clients.len()).map_err(|error| error.kind()), Ok(300));
    }
}
