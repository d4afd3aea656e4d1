//! Serving the router: hyper with limits, every connection owned, and a bounded stop.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use herd_core::places::{Full, Place, Places};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::caller::Ends;
use crate::state::AdminState;
use crate::stop::stopped;
use crate::write_limit::WriteLimit;
use crate::{checks, events, pins, residency, router};

/// Connections from this machine at a time: the edge's own, which bounds what it lets through, with those that its
/// threads keep idle; agents, and whoever reads metrics.
const LOCAL_CONNECTIONS: usize = 4_096;
/// Connections from other machines at a time, where `admin.listen` lets them in, and what one of them has at most. They
/// take nothing from the edge's.
const REMOTE_CONNECTIONS: usize = 512;
const CONNECTIONS_OF_ONE: usize = 64;
/// Longest wait for a request's head, and longest idle time of a kept connection: the edge's pool of connections to
/// us must give them up earlier, or a request may meet a connection that is just being closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of a request.
const HEAD_BYTES: usize = 32 << 10;
/// Most header fields of a request.
const HEADERS: usize = 100;
/// Pause after a failed accept: the usual cause, no more file descriptors, does not pass by asking again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What connections get to finish their answers when the service stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Serves the admin service on `listener` and does its work in the background, pulls, benchmarks, checks, pins,
/// counting how long models are in memory and following the file of keys, until `shutdown` becomes true or its sender is gone; then pulls and benchmarks are
/// cancelled, and running requests get a few seconds to finish.
pub async fn serve(listener: TcpListener, state: AdminState, shutdown: watch::Receiver<bool>) {
    let (pulls, benchmarks) = (state.pulls().clone(), state.benchmarks().clone());
    let keys = state.keys().watch(state.audit_log(), shutdown.clone());
    let checks = checks::run(state.clone(), shutdown.clone());
    let events = events::run(state.clone(), shutdown.clone());
    let pins = pins::run(state.clone(), shutdown.clone());
    let residency = residency::run(state.clone(), shutdown.clone());
    let jobs = async {
        tokio::join!(
            pulls.run(shutdown.clone()),
            benchmarks.run(shutdown.clone()),
            keys,
            checks,
            pins,
            events,
            residency
        )
    };
    let limit = state.config().write_timeout;
    tokio::join!(jobs, connections(listener, router(state.clone()), limit, shutdown.clone()));
}

async fn connections(
    listener: TcpListener,
    router: Router,
    write_limit: Duration,
    mut shutdown: watch::Receiver<bool>,
) {
    let (local, remote) = (Places::new(LOCAL_CONNECTIONS), Places::new(REMOTE_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match place(peer.ip(), &local, &remote) {
                    Ok(place) => {
                        let ends = stream.local_addr().ok().map(|local| Ends { local, user: Arc::default() });
                        let stream = WriteLimit::new(stream, write_limit);
                        let connection = connection(stream, (peer, ends), router.clone(), shutdown.clone(), place);
                        connections.spawn(connection);
                    }
                    // Dropping the stream closes it.
                    Err(full) => tracing::debug!(%peer, %full, "an admin connection was refused"),
                },
                Err(error) => {
                    tracing::warn!(%error, "the admin listener cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_LIMIT, finish).await.is_err() {
        tracing::warn!(open = connections.len(), "admin connections were cut at the stop limit");
    }
}

/// The place of a connection from `ip`.
fn place(ip: IpAddr, local: &Places, remote: &Places) -> Result<Place, Full> {
    if ip.to_canonical().is_loopback() {
        local.take(ip, LOCAL_CONNECTIONS)
    } else {
        remote.take(ip, CONNECTIONS_OF_ONE)
    }
}

/// Serves one connection, and lets it finish its current answer when `shutdown` comes.
async fn connection(
    stream: WriteLimit<TcpStream>,
    (peer, ends): (SocketAddr, Option<Ends>),
    router: Router,
    mut shutdown: watch::Receiver<bool>,
    _place: Place,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        if let Some(ends) = &ends {
            request.extensions_mut().insert(ends.clone());
        }
        answer(router.call(request.map(Body::new)))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS)
        .max_header_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = stopped(&mut shutdown) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "an admin connection ended early");
    }
}

/// Names the type of the router's answer, which never fails.
async fn answer<F>(call: F) -> Result<http::Response<Body>, Infallible>
where
    F: Future<Output = Result<http::Response<Body>, Infallible>>,
{
    call.await
}
