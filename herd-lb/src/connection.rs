//! Accepts clients: a bounded number of connections, each with a bounded time for its request header.
//!
//! Pingora's own listener has neither limit: its read timeout starts anew with every byte, so that a client that
//! drips one byte a minute holds a connection for ever.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf as _, BytesMut};
use herd_admin::{PeerUser, WriteTimer};
use pingora::apps::HttpServerApp as _;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora_proxy::{HttpProxy, ProxyHttp};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::watch::Awaited;
use crate::workers::{Worker, least_busy};

tokio::task_local! {
    /// The connection that the running task serves.
    static CONNECTION: Arc<Connection>;
}

/// What a request shares with the connection that it came in on.
#[derive(Debug, Default)]
pub struct Connection {
    in_request: AtomicBool,
    awaited: Awaited,
    /// What is written to the client is held back.
    holds: AtomicBool,
    /// What has been held back so far is to be forgotten.
    discards: AtomicBool,
    peer_user: PeerUser,
}

impl Connection {
    /// The connection of the running task; a fresh one outside of any, as in unit tests.
    #[must_use]
    pub fn current() -> Arc<Self> {
        CONNECTION.try_with(Arc::clone).unwrap_or_default()
    }

    /// Says that a request's header has been read: its deadline no longer counts, until [`Self::request_ended`].
    pub fn request_began(&self) {
        self.in_request.store(true, Relaxed);
    }

    /// Holds back what is written from now on, until it is released or discarded. Pingora writes the head of an answer
    /// before its body has come, and an answer that must not be torn is complete before the client sees any of it. Who
    /// writes bounds how much that is.
    pub fn hold_output(&self) {
        self.holds.store(true, Relaxed);
    }

    /// What was held back goes out with what follows.
    pub fn release_output(&self) {
        self.holds.store(false, Relaxed);
    }

    /// Forgets what was held back, if anything was.
    pub fn discard_output(&self) {
        if self.holds.swap(false, Relaxed) {
            self.discards.store(true, Relaxed);
        }
    }

    /// Whether what is written is held back.
    #[must_use]
    pub fn holds_output(&self) -> bool {
        self.holds.load(Relaxed)
    }

    /// Says that the connection waits for another request.
    pub fn request_ended(&self) {
        self.discard_output();
        self.awaited.reset();
        self.in_request.store(false, Relaxed);
    }

    /// What is known of the user at its other end.
    #[must_use]
    pub fn peer_user(&self) -> &PeerUser {
        &self.peer_user
    }

    /// The answer that its request waits for.
    #[must_use]
    pub fn awaited(&self) -> &Awaited {
        &self.awaited
    }
}

/// Serves the connections of one listener.
pub struct Acceptor<P> {
    /// Taken when the service starts.
    listener: std::sync::Mutex<Option<std::net::TcpListener>>,
    /// The threads that serve, each with a proxy and so with connections to nodes of its own.
    seats: Vec<(Worker, Arc<HttpProxy<P>>)>,
    slots: Arc<Semaphore>,
    limits: Limits,
    refused: AtomicU64,
    accepted: AtomicUsize,
}

impl<P> Acceptor<P> {
    /// Serves `listener`, which must be non-blocking, with each of the workers and its proxy.
    #[must_use]
    pub fn new(listener: std::net::TcpListener, seats: Vec<(Worker, HttpProxy<P>)>, limits: Limits) -> Self {
        Self {
            listener: std::sync::Mutex::new(Some(listener)),
            seats: seats.into_iter().map(|(worker, proxy)| (worker, Arc::new(proxy))).collect(),
            slots: Arc::new(Semaphore::new(limits.connections)),
            limits,
            refused: AtomicU64::new(0),
            accepted: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl<P> BackgroundService for Acceptor<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let listener = self.listener.lock().ok().and_then(|mut listener| listener.take());
        let Some(listener) = listener.and_then(|listener| TcpListener::from_std(listener).ok()) else {
            return tracing::error!("the client listener cannot be used");
        };
        let refusals = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = shutdown.changed() => break,
            };
            match accepted {
                Ok((stream, _)) => self.serve(stream, &refusals, &shutdown),
                Err(error) => pause_after(&error).await,
            }
        }
        for (_, proxy) in &self.seats {
            proxy.http_cleanup().await;
        }
        for (worker, _) in &self.seats {
            worker.done().await;
        }
        refusals.close();
        refusals.wait().await;
    }
}

/// Out of file descriptors, `accept` fails at once and again: wait until some are given back.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

impl<P> Acceptor<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    fn serve(&self, stream: tokio::net::TcpStream, refusals: &TaskTracker, shutdown: &ShutdownWatch) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return self.refuse(stream, refusals);
        };
        // Tokens are small writes: Nagle's algorithm would hold each back for a delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let turn = self.accepted.fetch_add(1, Relaxed);
        let place = least_busy(self.seats.iter().map(|(worker, _)| worker.connections()), turn);
        let Some((worker, proxy)) = self.seats.get(place) else { return };
        // It is registered with the event loop that accepted it, and is to be with the worker's.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "cannot hand a connection over"),
        };
        let proxy = Arc::clone(proxy);
        let shutdown = shutdown.clone();
        let limits = self.limits;
        let keepalive_s = limits.keepalive_idle.as_secs();
        let connection = Arc::new(Connection::default());
        worker.serve(CONNECTION.scope(Arc::clone(&connection), async move {
            let stream = match tokio::net::TcpStream::from_std(stream) {
                Ok(stream) => stream,
                Err(error) => return tracing::warn!(%error, "cannot serve a connection"),
            };
            let guarded = Guarded::new(stream, connection, &limits, slot);
            let mut session = ServerSession::new_http1(Box::new(guarded));
            session.set_keepalive(Some(keepalive_s));
            let mut reused = proxy.process_new_http(session, &shutdown).await;
            while let Some((stream, settings)) = reused.map(pingora::apps::ReusedHttpStream::consume) {
                let mut session = ServerSession::new_http1(stream);
                if let Some(settings) = settings {
                    settings.apply_to_session(&mut session);
                }
                reused = proxy.process_new_http(session, &shutdown).await;
            }
        }));
    }

    fn refuse(&self, mut stream: tokio::net::TcpStream, refusals: &TaskTracker) {
        const FULL: &[u8] =
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let refused = self.refused.fetch_add(1, Relaxed) + 1;
        // One line for the first of every thousand: a flood of connections must not become a flood of log lines.
        if refused % 1_000 == 1 {
            tracing::warn!(refused, limit = self.limits.connections, "limits.connections reached");
        }
        refusals.spawn(async move {
            let farewell = async {
                stream.write_all(FULL).await?;
                stream.shutdown().await
            };
            drop(tokio::time::timeout(Duration::from_secs(1), farewell).await);
        });
    }
}

/// Most that is held of what is written, until it is flushed or more comes: a packet.
const HELD_MAX: usize = 1_460;

/// Memory for more than this is not kept for the next answer of a connection.
const LARGE: usize = 64 << 10;

/// A client's stream whose reads fail once a request header takes too long or is too large.
struct Guarded {
    stream: TcpStream,
    connection: Arc<Connection>,
    header_time: Duration,
    header_bytes_max: usize,
    header_bytes: usize,
    /// Set by the first byte of a header.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Written and not yet sent.
    held: BytesMut,
    /// What is held was reported as written, so that Pingora's own limit may not see that the client reads nothing.
    write_timer: WriteTimer,
    _slot: OwnedSemaphorePermit,
}

impl Guarded {
    fn new(
        stream: tokio::net::TcpStream,
        connection: Arc<Connection>,
        limits: &Limits,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        let mut stream = TcpStream::from(stream);
        stream.set_socket_digest(digest);
        Self {
            stream,
            connection,
            header_time: limits.header_time,
            // The first read may bring a body along, so that only what is far beyond is cut off here; the exact
            // limit is checked on the parsed header.
            header_bytes_max: limits.header_bytes + (64 << 10),
            header_bytes: 0,
            deadline: None,
            held: BytesMut::new(),
            write_timer: WriteTimer::new(limits.write_time),
            _slot: slot,
        }
    }

    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_held(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while !self.held.is_empty() {
            // Together with what would not fit beside it.
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &buf[..]);
            let both = [io::IoSlice::new(&self.held), io::IoSlice::new(first)];
            let sent = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &both))?;
            if let Some(of_first) = self.sent(sent)?.filter(|of_first| *of_first > 0) {
                return Poll::Ready(Ok(of_first));
            }
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    /// Forgets what was held back of an answer that is not sent.
    fn discard(&mut self) {
        if self.connection.discards.swap(false, Relaxed) {
            self.held.clear();
        }
    }

    fn poll_send_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            self.write_timer.progress();
            self.sent(sent)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what is held, as far as the client takes it without waiting: the connection is about to end, and an answer
    /// that breaks off is to be seen as far as it came.
    fn send_held_now(&mut self) {
        self.discard();
        if self.connection.holds_output() {
            return self.held.clear();
        }
        let mut cx = Context::from_waker(Waker::noop());
        // Who takes nothing, or is gone, is told nothing.
        drop(self.poll_send_held(&mut cx));
        self.held.clear();
    }

    /// Takes what was sent out of what is held; returns how much was sent beyond that, once nothing is held.
    fn sent(&mut self, bytes: usize) -> io::Result<Option<usize>> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let held = self.held.len();
        self.held.advance(bytes.min(held));
        if self.held.is_empty() && self.held.capacity() > LARGE {
            self.held = BytesMut::new();
        }
        Ok(bytes.checked_sub(held))
    }

    fn count_header(&mut self, read: usize) -> io::Result<()> {
        if self.deadline.is_none() {
            self.deadline = Some(Box::pin(tokio::time::sleep_until(Instant::now() + self.header_time)));
        }
        self.header_bytes += read;
        if self.header_bytes > self.header_bytes_max {
            return Err(io::Error::other("request header too large"));
        }
        Ok(())
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.in_request.load(Relaxed) {
            this.deadline = None;
            this.header_bytes = 0;
            if let Poll::Ready(reason) = this.connection.awaited.poll_abandoned(cx) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason.name())));
            }
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        // What has come is read before the time is looked at: in a process that was stopped, both are due at once.
        if Pin::new(&mut this.stream).poll_read(cx, buf)?.is_pending() {
            if let Some(deadline) = &mut this.deadline {
                ready!(deadline.as_mut().poll(cx));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "request header took too long")));
            }
            return Poll::Pending;
        }
        let read = buf.filled().len() - before;
        Poll::Ready(if read > 0 { this.count_header(read) } else { Ok(()) })
    }
}

/// An answer that breaks off is dropped without a flush: what had come of it still goes out, as far as the system takes
/// it at once, so that the client sees a broken answer and not none.
impl Drop for Guarded {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            self.send_held_now();
        }
    }
}

/// Pingora writes the head of an answer and its body one after the other, and flushes where a client must not wait. What
/// it does not flush goes out with what follows: a packet less for each answer, and for its client a waking less.
impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.discard();
        if this.connection.holds_output() {
            return Poll::Ready(Ok(()));
        }
        let flushed = this.poll_send_all(cx);
        this.write_timer.within(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.discard();
        if this.connection.holds_output() {
            this.held.clear();
        }
        let sent = this.poll_send_held(cx);
        ready!(this.write_timer.within(cx, sent))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.discard();
        let more: usize = bufs.iter().map(|buf| buf.len()).sum();
        if this.connection.holds_output() || this.held.len() + more <= HELD_MAX {
            for buf in bufs {
                this.held.extend_from_slice(buf);
            }
            return Poll::Ready(Ok(more));
        }
        let sent = this.poll_send(cx, bufs);
        this.write_timer.within(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("stream", &self.stream).finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Guarded {
    async fn shutdown(&mut self) {
        self.send_held_now();
        Shutdown::shutdown(&mut self.stream).await;
    }
}

impl UniqueID for Guarded {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Guarded {}
impl Peek for Guarded {}

impl GetTimingDigest for Guarded {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }
}

impl GetProxyDigest for Guarded {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Guarded {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn pair() -> (Guarded, tokio::net::TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let config = crate::config::Config::build("", |_| None, &[]).unwrap();
        let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (Guarded::new(stream, Arc::default(), &config.limits, slot), client)
    }

    #[tokio::test]
    async fn a_head_goes_out_with_what_follows_or_when_it_is_flushed() {
        let (mut server, mut client) = pair().await;
        server.write_all(b"head ").await.unwrap();
        assert_eq!(&server.held[..], b"head ");
        server.write_all(b"body").await.unwrap();
        server.flush().await.unwrap();
        let mut got = [0; 9];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!((&got, server.held.len()), (b"head body", 0));
    }

    #[tokio::test]
    async fn the_end_of_a_connection_loses_nothing() {
        for end in 0..3 {
            let (mut server, mut client) = pair().await;
            server.write_all(b"last words").await.unwrap();
            match end {
                0 => tokio::io::AsyncWriteExt::shutdown(&mut server).await.unwrap(),
                1 => Shutdown::shutdown(&mut server).await,
                _ => {}
            }
            drop(server);
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"last words", "{end}");
        }
    }

    #[tokio::test]
    async fn what_is_held_of_a_broken_answer_goes_out() {
        let (mut server, mut client) = pair().await;
        server.write_all(b"head and half").await.unwrap();
        drop(server);
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"head and half");
    }

    #[tokio::test]
    async fn a_large_body_keeps_its_order_behind_a_held_head() {
        let (mut server, mut client) = pair().await;
        let sent: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let expected = sent.clone();
        let write = async move {
            for piece in [&sent[..700], &sent[700..1_900], &sent[1_900..2_000_000], &sent[2_000_000..2_000_001]] {
                server.write_all(piece).await.unwrap();
            }
            let mut rest = bytes::Buf::chain(&sent[2_000_001..2_000_010], &sent[2_000_010..]);
            server.write_all_buf(&mut rest).await.unwrap();
            server.flush().await.unwrap();
        };
        let mut got = vec![0; expected.len()];
        let ((), read) = tokio::join!(write, client.read_exact(&mut got));
        assert_eq!((read.unwrap(), got == expected), (expected.len(), true));
    }

    #[tokio::test]
    async fn what_is_held_back_is_sent_whole_or_not_at_all() {
        let (mut server, mut client) = pair().await;
        let connection = Arc::clone(&server.connection);
        connection.hold_output();
        server.write_all(b"a torn answer").await.unwrap();
        server.flush().await.unwrap();
        connection.discard_output();
        // The next answer is held back before anything of it is written.
        connection.hold_output();
        server.write_all(&[b'x'; 5_000]).await.unwrap();
        server.flush().await.unwrap();
        assert_eq!(server.held.len(), 5_000);
        connection.release_output();
        server.flush().await.unwrap();
        let mut received = vec![0; 5_000];
        client.read_exact(&mut received).await.unwrap();
        assert!(received.iter().all(|byte| *byte == b'x'));
        connection.hold_output();
        server.write_all(b"another").await.unwrap();
        drop(server);
        assert_eq!(client.read(&mut received).await.unwrap(), 0, "no part of it");
    }

    #[tokio::test]
    async fn what_is_held_back_is_not_sent_by_the_end_of_the_connection() {
        for discards in [false, true] {
            let (mut server, mut client) = pair().await;
            server.connection.hold_output();
            server.write_all(b"a torn answer").await.unwrap();
            if discards {
                server.connection.discard_output();
            }
            tokio::io::AsyncWriteExt::shutdown(&mut server).await.unwrap();
            assert_eq!(client.read(&mut [0; 100]).await.unwrap(), 0, "no part of it");
        }
    }
}
