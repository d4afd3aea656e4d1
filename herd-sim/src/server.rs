//! The listeners of a node, and the one that can go away and come back on the same port.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{self, Role},
    fault::FaultKind,
    node::Node,
};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A socket bound to `address`, not yet listening: connecting to it is refused, and nobody else gets the port.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of the listener before may still be open on this port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Starts to listen on `address`.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    reserve(address)?.listen(BACKLOG)
}

/// A port that is listened on, or only held.
enum Port {
    Listening(TcpListener),
    Held(TcpSocket),
    /// It could be neither; tried again at the next change of fault.
    Lost,
}

impl Port {
    /// Goes over to listening or not.
    fn switch(self, listening: bool, address: SocketAddr) -> Self {
        let result = match (self, listening) {
            (port @ Self::Listening(_), true) | (port @ Self::Held(_), false) => return port,
            (Self::Held(socket), true) => socket.listen(BACKLOG).map(Self::Listening),
            (Self::Lost, true) => listen(address).map(Self::Listening),
            (Self::Listening(listener), false) => {
                drop(listener);
                reserve(address).map(Self::Held)
            }
            (Self::Lost, false) => reserve(address).map(Self::Held),
        };
        result.unwrap_or_else(|error| {
            tracing::warn!(%address, %error, "the port of the simulated node is lost");
            Self::Lost
        })
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Self::Listening(listener) => listener.accept().await.map(|(stream, _)| stream),
            Self::Held(_) | Self::Lost => std::future::pending().await,
        }
    }
}

/// Accepts and serves connections until `stop`, then ends them all.
pub(crate) async fn run(node: Arc<Node>, listener: TcpListener, role: Role, stop: CancellationToken) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut port = Port::Listening(listener);
    let mut connections = JoinSet::new();
    let mut faults = node.faults.watch();
    loop {
        if role == Role::Node {
            port = port.switch(node.faults.get().fault != FaultKind::Refuse, address);
            node.listening.send_replace(matches!(port, Port::Listening(_)));
        }
        tokio::select! {
            () = stop.cancelled() => break,
            Ok(()) = faults.changed() => {}
            accepted = port.accept() => match accepted {
                Ok(stream) => {
                    connections.spawn(connection::serve(Arc::clone(&node), stream, role));
                }
                // Out of descriptors, most likely: others need a turn before it can get better.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(port);
    connections.shutdown().await;
    Ok(())
}
