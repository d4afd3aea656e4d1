//! One connection: hyper on a socket, with whoever answers there.

use std::{io, sync::Arc};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    answer,
    body::Body,
    fault::FaultKind,
    node::Node,
    socket::{Connection, Socket},
};

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
    let socket = Socket::new(stream, Arc::clone(&connection));
    let mut faults = node.faults.watch();
    let answering = Arc::clone(&node);
    let service = service_fn(move |request| by_role(Arc::clone(&answering), Arc::clone(&connection), request, role));
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

async fn by_role(
    node: Arc<Node>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
    role: Role,
) -> io::Result<Response<Body>> {
    match role {
        Role::Node => answer::serve(node, connection, request).await,
        Role::Control => {
            let (head, incoming) = request.into_parts();
            Ok(super::control::serve(&node, &head, incoming).await)
        }
    }
}
