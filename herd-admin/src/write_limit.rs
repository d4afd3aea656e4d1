//! A connection whose peer has to take what is sent to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// For how long a peer may read nothing of what is sent to it.
#[derive(Debug)]
pub struct WriteTimer {
    limit: Duration,
    /// Set while it reads nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl WriteTimer {
    /// A peer that may read nothing for `limit`.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { limit, stalled: None }
    }

    /// Notes that it read something.
    pub fn progress(&mut self) {
        self.stalled = None;
    }

    /// Passes on what `written` says, and ends the waiting once it has lasted too long.
    ///
    /// # Errors
    /// `written`'s own, and [`io::ErrorKind::TimedOut`].
    pub fn within<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            let limit = self.limit;
            let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            ready!(stalled.as_mut().poll(cx));
        }
        self.progress();
        match written {
            Poll::Ready(written) => Poll::Ready(written),
            Poll::Pending => {
                let message = "the client stopped reading (limits.write_ms)";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
            }
        }
    }
}

/// Fails a write of which the peer has taken nothing for a limited time. A peer that never reads would else hold its
/// place for ever, and with an endless answer there is no other end.
#[derive(Debug)]
pub(crate) struct WriteLimit<S> {
    stream: S,
    timer: WriteTimer,
}

impl<S> WriteLimit<S> {
    pub(crate) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, timer: WriteTimer::new(limit) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteLimit<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteLimit<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.timer.within(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.timer.within(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.timer.within(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        let (ours, mut theirs) = duplex(16);
        let mut stream = WriteLimit::new(ours, LIMIT);
        let slow = async {
            for _ in 0..8 {
                tokio::time::sleep(LIMIT * 4 / 5).await;
                theirs.read_exact(&mut [0; 16]).await.unwrap();
            }
            theirs
        };
        let (sent, theirs) = tokio::join!(stream.write_all(&[1; 8 * 16]), slow);
        sent.unwrap();
        let began = tokio::time::Instant::now();
        let error = stream.write_all(&[1; 64]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 5));
        drop(theirs);
    }
}
