//! mDNS: agents find edges, edges announce themselves.
//!
//! The browser runs as long as the agent does, so an edge may come late, move, or come back elsewhere. An announcement
//! is a hint, not trust: whoever can answer on this network can receive heartbeats.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mdns_sd::{IfKind, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use reqwest::Url;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::collect::is_local;
use crate::config::{Interfaces, MdnsConfig};
use crate::send::Router;

/// How long an edge whose announcement expired or was taken back is still reported to.
///
/// Multicast is the first thing that a wireless network loses, and a restarting edge says goodbye too.
pub(crate) const LINGER: Duration = Duration::from_mins(5);
/// Edges that are reported to at once; more than this on one network is an error or an attack.
const ROUTERS_MAX: usize = 16;
/// After this long without an edge, the log says so.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a stopping edge waits for its goodbye to be sent.
const GOODBYE: Duration = Duration::from_millis(500);

/// mDNS cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("mDNS: {0}")]
pub struct DiscoverError(#[from] mdns_sd::Error);

/// Keeps `routers` at the edges that announce themselves, until its receivers are gone.
pub(crate) async fn browse(
    config: &MdnsConfig,
    linger: Duration,
    routers: &watch::Sender<BTreeSet<Router>>,
) -> Result<(), DiscoverError> {
    let daemon = daemon(config.interfaces)?;
    let events = daemon.browse(&config.service_type)?;
    let mut edges = Edges::default();
    let silence = Instant::now() + SILENCE;
    let mut silent = true;
    loop {
        tokio::select! {
            event = events.recv_async() => match event {
                Ok(event) => edges.apply(event, Instant::now() + linger),
                Err(_) => return Err(mdns_sd::Error::DaemonShutdown.into()),
            },
            () = sleep_until(edges.next_expiry().unwrap_or(silence)), if edges.next_expiry().is_some() => {
                edges.expire(Instant::now());
            }
            () = sleep_until(silence), if silent => {
                silent = false;
                if edges.known.is_empty() {
                    tracing::warn!(service_type = %config.service_type, "no edge announces itself; looking on. \
                        Where multicast does not get through, use --router-url");
                }
            }
            () = routers.closed() => break,
        }
        let now = edges.routers();
        routers.send_if_modified(|current| {
            *current != now && {
                *current = now;
                true
            }
        });
    }
    daemon.shutdown()?;
    Ok(())
}

/// Edges by mDNS name, each with the time at which it is forgotten, if its announcement is gone.
#[derive(Default)]
struct Edges {
    known: BTreeMap<String, (Vec<Url>, Option<Instant>)>,
}

impl Edges {
    fn apply(&mut self, event: ServiceEvent, forget_at: Instant) {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let urls = urls(&service);
                let room = self.known.len() < ROUTERS_MAX || self.known.contains_key(&service.fullname);
                if !urls.is_empty() && room {
                    self.known.insert(service.fullname.clone(), (urls, None));
                }
            }
            ServiceEvent::ServiceRemoved(_, name) => {
                if let Some((_, forget)) = self.known.get_mut(&name) {
                    *forget = Some(forget_at);
                }
            }
            _ => {}
        }
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.known.values().filter_map(|(_, forget)| *forget).min()
    }

    fn expire(&mut self, now: Instant) {
        self.known.retain(|_, (_, forget)| forget.is_none_or(|at| at > now));
    }

    fn routers(&self) -> BTreeSet<Router> {
        self.known
            .iter()
            .map(|(name, (urls, _))| Router { name: name.clone(), urls: urls.clone(), discovered: true })
            .collect()
    }
}

fn urls(service: &ResolvedService) -> Vec<Url> {
    let addresses = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr).collect();
    let text = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => format!("http://{ip}:{}/", service.port),
        IpAddr::V6(ip) => format!("http://[{ip}]:{}/", service.port),
    };
    order(addresses, is_local).into_iter().filter_map(|ip| text(ip).parse().ok()).collect()
}

/// The order in which an edge's addresses are tried: IPv4 before IPv6, loopback last.
///
/// An edge on this very machine is asked by loopback first: it then sees that the heartbeat, and so Ollama, is local,
/// and an Ollama that listens on loopback only can be used. IPv6 addresses of one link need a scope, which a URL cannot
/// carry, so they are left out.
fn order(addresses: Vec<IpAddr>, is_local: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let here = addresses.iter().any(|ip| is_local(*ip));
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local(),
    };
    let mut addresses: Vec<IpAddr> = addresses.into_iter().filter(usable).collect();
    if here && addresses.iter().any(IpAddr::is_ipv4) {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    addresses.sort_by_key(|ip| (ip.is_loopback() != here, ip.is_ipv6(), *ip));
    addresses.dedup();
    addresses
}

/// What an edge says of itself.
#[derive(Debug, Clone)]
pub struct Advertisement {
    /// DNS-SD service type, [`crate::SERVICE_TYPE`] unless there are two herds on one network.
    pub service_type: String,
    /// Instance name; `Fleet Manager Router` is the Python project's. A second one on the network gets a number.
    pub instance: String,
    /// Port of the edge.
    pub port: u16,
    /// Where to announce.
    pub interfaces: Interfaces,
    /// Version of the edge.
    pub version: String,
    /// Random name of the edge, so that one edge with several addresses is known as one.
    pub id: String,
}

/// Announces an edge until it is stopped or dropped. Addresses follow the machine's.
pub struct Advertiser {
    daemon: ServiceDaemon,
    name: String,
}

impl Advertiser {
    /// Starts announcing.
    ///
    /// # Errors
    /// When the service type is malformed, or the mDNS thread cannot be started.
    pub fn start(what: &Advertisement) -> Result<Self, DiscoverError> {
        let daemon = daemon(what.interfaces)?;
        // A host name of our own: the machine's belongs to its own mDNS responder.
        let id: String = what.id.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
        let host = format!("herd-{id}.local.");
        let txt = [("version", what.version.as_str()), ("id", what.id.as_str())];
        let service = ServiceInfo::new(&what.service_type, &what.instance, &host, "", what.port, &txt[..])?;
        let name = service.get_fullname().to_owned();
        daemon.register(service.enable_addr_auto())?;
        Ok(Self { daemon, name })
    }

    /// Takes the announcement back, so that browsers forget it at once.
    pub async fn stop(self) {
        if let Ok(done) = self.daemon.unregister(&self.name) {
            // Half a second is plenty for one packet; a thread that is gone needs no goodbye.
            tokio::time::timeout(GOODBYE, done.recv_async()).await.ok();
        }
    }
}

impl Drop for Advertiser {
    fn drop(&mut self) {
        // Fails only when the thread is gone already.
        self.daemon.shutdown().ok();
    }
}

impl std::fmt::Debug for Advertiser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Advertiser").field("name", &self.name).finish_non_exhaustive()
    }
}

fn daemon(interfaces: Interfaces) -> Result<ServiceDaemon, mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    if interfaces == Interfaces::Loopback {
        daemon.disable_interface(IfKind::All)?;
        daemon.enable_interface(IfKind::LoopbackV4)?;
    }
    Ok(daemon)
}

#[cfg(test)]
mod tests;
