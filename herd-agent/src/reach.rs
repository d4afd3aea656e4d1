//! How this machine is seen from an edge.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::Url;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::collect::is_local;

/// How long a look-up or a connection to ourselves may take.
const LIMIT: Duration = Duration::from_millis(200);

/// The address that this machine has towards `url`. Connecting a datagram socket sends nothing.
pub(crate) async fn own_address(url: &Url) -> Option<IpAddr> {
    let port = url.port_or_known_default()?;
    let host = url.host_str()?.trim_matches(['[', ']']);
    let own = async {
        let edge = tokio::net::lookup_host((host, port)).await.ok()?.next()?;
        let any: IpAddr = if edge.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0)).await.ok()?;
        socket.connect(edge).await.ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    timeout(LIMIT, own).await.ok().flatten()
}

/// Where the Ollama of `url` is, as edges are to be told: `host:port`, on loopback when it is beside the agent.
///
/// `own` is the address that this machine has towards its edge. Names are resolved here: what a name means to the agent is
/// what counts. `None` = it cannot be resolved now.
pub(crate) async fn offered_address(url: &Url, own: Option<IpAddr>) -> Option<String> {
    let port = url.port_or_known_default()?;
    let host = url.host_str()?.trim_matches(['[', ']']);
    let beside = || Some(format!("127.0.0.1:{port}"));
    let ip = match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical(),
        Err(_) if host == "localhost" => return beside(),
        Err(_) => {
            let resolved = timeout(LIMIT, tokio::net::lookup_host((host, port))).await.ok()?.ok()?;
            let mut ips: Vec<IpAddr> = resolved.map(|address| address.ip().to_canonical()).collect();
            ips.sort_by_key(|ip| (!is_local(*ip), ip.is_ipv6()));
            *ips.first()?
        }
    };
    let usual = [IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()];
    if usual.contains(&ip) || ip.is_unspecified() || Some(ip) == own.map(|own| own.to_canonical()) {
        return beside();
    }
    // Another address of this machine: where it also listens on the one that the edge sees, that one will do.
    if !ip.is_loopback()
        && is_local(ip)
        && let Some(own) = own.filter(|own| !own.is_loopback())
        && listens(own, port).await
    {
        return beside();
    }
    Some(SocketAddr::new(ip, port).to_string())
}

async fn listens(ip: IpAddr, port: u16) -> bool {
    matches!(timeout(LIMIT, TcpStream::connect((ip, port))).await, Ok(Ok(_)))
}

/// Looks whether edges on other machines can reach an Ollama that the agent itself asks by loopback.
///
/// Out of the box Ollama listens on loopback only, which is the first thing that goes wrong with a new node.
#[derive(Default)]
pub(crate) struct Reach {
    checked: Option<IpAddr>,
}

impl Reach {
    /// Warns once per address when nothing listens there.
    pub(crate) async fn check(&mut self, ollama: &Url, own: IpAddr) {
        let by_loopback = ollama.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127."));
        if own.is_loopback() || !by_loopback || self.checked == Some(own) {
            return;
        }
        self.checked = Some(own);
        let port = ollama.port_or_known_default().unwrap_or_default();
        if !listens(own, port).await {
            tracing::warn!(address = %own, port, "Ollama does not listen on this address, so edges on other machines \
                cannot use it; start it with OLLAMA_HOST=0.0.0.0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_own_address_towards_a_local_edge_is_loopback() {
        let own = own_address(&"http://127.0.0.1:11435/".parse().unwrap()).await;
        assert_eq!(own, Some([127, 0, 0, 1].into()));
    }

    #[tokio::test]
    async fn edges_are_told_where_an_ollama_is_and_not_what_it_is_called() {
        let offered = async |url: &str, own: &str| offered_address(&url.parse().unwrap(), own.parse().ok()).await;
        let beside = |port: u16| Some(format!("127.0.0.1:{port}"));
        for (url, port) in [
            ("http://127.0.0.1:9/", 9),
            ("http://localhost:9/", 9),
            ("http://[::1]:9/", 9),
            ("http://0.0.0.0:9/", 9),
            ("http://127.0.0.1/", 80),
            ("http://192.168.1.5:9/", 9),
        ] {
            assert_eq!(offered(url, "192.168.1.5").await, beside(port), "{url}");
        }
        assert_eq!(offered("http://127.0.0.2:9/", "127.0.0.1").await.as_deref(), Some("127.0.0.2:9"));
        assert_eq!(offered("http://192.0.2.7:9/", "192.168.1.5").await.as_deref(), Some("192.0.2.7:9"));
        assert_eq!(offered("http://[2001:db8::7]:9/", "192.168.1.5").await.as_deref(), Some("[2001:db8::7]:9"));
        assert_eq!(offered("http://no-such-host.invalid:9/", "192.168.1.5").await, None);
    }
}
