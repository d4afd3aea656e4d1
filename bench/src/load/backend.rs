//! An Ollama that costs next to nothing: it reads requests, throws them away, and answers from bytes made before.
//!
//! One thread serves any number of nodes, each on an address of its own. What an answer looks like is said by the
//! request's path, and how it comes by [`PLAN_HEADER`]. Each chunk has the time in it, taken just before it is written.

mod connection;
mod reply;

use std::io::Write as _;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::LocalSet;

use connection::serve;
use reply::Replies;

/// The model that every node has.
pub const MODEL: &str = "bench:8b";
/// The header that says how an answer is to be streamed: the number of chunks, and the microseconds between them.
pub const PLAN_HEADER: &str = "X-Bench-Plan";
/// Connections that may wait to be accepted: a burst of ten thousand is part of the runs.
const BACKLOG: u32 = 16_384;

/// Serves one node on each of `addresses` until the process ends; prints the addresses, one a line, once it listens.
///
/// # Errors
/// When an address cannot be listened on.
pub fn run(addresses: &[SocketAddr]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let mut nodes = tokio::task::JoinSet::new();
        let mut told = String::new();
        for address in addresses {
            let listener = listen(*address)?;
            told.push_str(&listener.local_addr()?.to_string());
            told.push('\n');
            nodes.spawn_local(accept(listener));
        }
        let mut out = std::io::stdout();
        out.write_all(told.as_bytes())?;
        out.flush()?;
        nodes.join_all().await;
        Ok(())
    }))
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener) {
    let replies = std::rc::Rc::new(Replies::new());
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of descriptors: some will be given back.
                let Ok((stream, _)) = accepted else { tokio::task::yield_now().await; continue };
                let replies = std::rc::Rc::clone(&replies);
                connections.spawn_local(async move { drop(serve(stream, &replies).await) });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
