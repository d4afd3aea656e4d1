//! One connection: hyper on a socket that can also be reset.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{body::Body, exchange, fault::FaultKind, node::Node};

/// What requests know of their connection.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    reset: AtomicBool,
}

impl Connection {
    /// Makes the end of the connection a reset instead of an orderly close.
    pub(crate) fn reset_on_close(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }
}

/// The socket; closing it resets it when the connection says so.
struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.connection.reset.load(Ordering::Relaxed) {
            // A socket that is gone already needs no reset.
            drop(self.stream.set_zero_linger());
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Who answers on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The Ollama surfaces, and `/_sim/*`.
    Node,
    /// `/_sim/*` alone; faults do not touch it.
    Control,
}

/// Serves one connection to its end.
pub(crate) async fn serve(node: Arc<Node>, stream: TcpStream, role: Role) {
    // Tokens are small and must not wait for each other; a socket that is gone needs no setting.
    drop(stream.set_nodelay(true));
    let connection = Arc::new(Connection::default());
    let socket = Socket { stream, connection: Arc::clone(&connection) };
    let mut faults = node.faults.watch();
    let answering = Arc::clone(&node);
    let service = service_fn(move |request| answer(Arc::clone(&answering), Arc::clone(&connection), request, role));
    let http = http1::Builder::new().title_case_headers(true).serve_connection(TokioIo::new(socket), service);
    let mut http = std::pin::pin!(http);
    loop {
        tokio::select! {
            result = http.as_mut() => {
                if let Err(error) = result {
                    tracing::trace!(%error, "a connection ended early");
                }
                return;
            }
            Ok(()) = faults.changed() => {
                // Whoever stops listening also ends what is idle; answers in progress still finish.
                if role == Role::Node && node.faults.get().fault == FaultKind::Refuse {
                    http.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

async fn answer(
    node: Arc<Node>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
    role: Role,
) -> io::Result<Response<Body>> {
    match role {
        Role::Node => exchange::serve(node, connection, request).await,
        Role::Control => {
            let (head, incoming) = request.into_parts();
            Ok(super::control::serve(&node, &head, incoming).await)
        }
    }
}
