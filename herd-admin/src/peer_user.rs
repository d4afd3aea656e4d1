//! Which user of this machine has the other end of a loopback connection.
//!
//! A reverse proxy on this machine connects from loopback as its operator does, and may forward for anybody. Mostly it
//! runs as a user of its own, which Linux tells; other systems do not, and there every loopback connection is the
//! operator's.

use std::net::SocketAddr;

use tokio::sync::{OnceCell, Semaphore};

/// `access.local_users`: whose loopback connections have the rights of this machine's operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LocalUsers {
    /// The user that runs herd, and root.
    #[default]
    Own,
    /// Every user of this machine.
    Any,
}

impl LocalUsers {
    /// All of them, by their names in the configuration.
    pub const NAMES: [(&str, Self); 2] = [("own", Self::Own), ("any", Self::Any)];
}

/// Lookups at a time: each reads a table of all connections.
static LOOKUPS: Semaphore = Semaphore::const_new(4);

/// What is known of the user at the other end of one connection. It is looked up once, when it first matters: the table
/// that it is read from has a line for every connection of the machine.
#[derive(Debug, Default)]
pub struct PeerUser(OnceCell<bool>);

impl PeerUser {
    /// Whether the other end of the connection from `peer` to `local` is the operator's, as `users` says. Both are on
    /// loopback.
    pub async fn is_operator(&self, users: LocalUsers, peer: SocketAddr, local: SocketAddr) -> bool {
        if users == LocalUsers::Any {
            return true;
        }
        *self.0.get_or_init(|| lookup(peer, local)).await
    }
}

async fn lookup(peer: SocketAddr, local: SocketAddr) -> bool {
    let Ok(_place) = LOOKUPS.acquire().await else { return false };
    let looked = tokio::task::spawn_blocking(move || is_own(peer, local)).await;
    match looked {
        Ok(Some(own)) => own,
        // This system does not tell.
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Whether the socket at `peer` that is connected to `local` is this process's user's, or root's; `None` = the system
/// does not tell.
#[cfg(target_os = "linux")]
fn is_own(peer: SocketAddr, local: SocketAddr) -> Option<bool> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (peer, local) = (canonical(peer), canonical(local));
    let own = rustix::process::geteuid().as_raw();
    let mut is_told = false;
    for table in [procfs::net::tcp(), procfs::net::tcp6()] {
        let Ok(table) = table else { continue };
        is_told = true;
        let ends = |entry: &&procfs::net::TcpNetEntry| {
            canonical(entry.local_address) == peer && canonical(entry.remote_address) == local
        };
        if let Some(entry) = table.iter().find(ends) {
            // A socket that its process has closed is nobody's, and shows as root's.
            return Some(entry.inode != 0 && (entry.uid == own || entry.uid == 0));
        }
    }
    is_told.then_some(false)
}

#[cfg(not(target_os = "linux"))]
fn is_own(_: SocketAddr, _: SocketAddr) -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[track_caller]
    fn own_socket(listen: &str) {
        let listener = std::net::TcpListener::bind(listen).unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = listen.replace("[::]", "127.0.0.1").parse::<SocketAddr>().unwrap().ip();
        let client = std::net::TcpStream::connect((target, port)).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let local = server.local_addr().unwrap();
        assert_eq!(is_own(peer, local), Some(true), "{listen}");
        let nobody = SocketAddr::new(peer.ip(), 1);
        assert_eq!(is_own(nobody, local), Some(false), "{listen}: no socket is there");
        drop(client);
        assert_eq!(is_own(peer, local), Some(false), "{listen}: who has left may have been anybody");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_own_users_sockets_are_told_from_others() {
        own_socket("127.0.0.1:0");
        own_socket("[::]:0");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn any_user_may_be_let_in() {
        let (peer, local) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        assert!(PeerUser::default().is_operator(LocalUsers::Any, peer, local).await);
        assert!(!PeerUser::default().is_operator(LocalUsers::Own, peer, local).await);
    }
}
