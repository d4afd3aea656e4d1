//! Serving the router: hyper with limits, every connection owned, and a bounded stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::state::AdminState;
use crate::write_limit::WriteLimit;
use crate::{checks, events, pins, residency, router};

/// Connections at a time. Beyond them newcomers wait in the listener's backlog.
const CONNECTIONS: usize = 512;
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
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &places) => match accepted {
                Ok((stream, peer, place)) => {
                    let stream = WriteLimit::new(stream, write_limit);
                    connections.spawn(connection(stream, peer, router.clone(), shutdown.clone(), place));
                }
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

/// Waits until it is time to stop. A lost sender is one: nobody could stop the service any more.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    drop(shutdown.wait_for(|stop| *stop).await);
}

/// Does `look` at once and then `every` so often, until it is time to stop; one that is under way then is dropped.
pub(crate) async fn repeated<F: Future<Output = ()>>(
    every: Duration,
    mut shutdown: watch::Receiver<bool>,
    mut look: impl FnMut() -> F,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looks = async {
        loop {
            ticks.tick().await;
            look().await;
        }
    };
    tokio::select! {
        biased;
        () = stopped(&mut shutdown) => {}
        () = looks => {}
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// Serves one connection, and lets it finish its current answer when `shutdown` comes.
async fn connection(
    stream: WriteLimit<TcpStream>,
    peer: SocketAddr,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
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
