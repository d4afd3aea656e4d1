//! How this machine is seen from an edge.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Url;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

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
        if !matches!(timeout(LIMIT, TcpStream::connect((own, port))).await, Ok(Ok(_))) {
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
}
