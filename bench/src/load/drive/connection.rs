//! One connection of the generator.

use std::io;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Shared;
use crate::load::clock::now_ns;
use crate::load::http::Reader;
use crate::load::stamp::Stamps;

/// How much is read at once: more than a chunk, so that a read is a chunk as long as the proxy keeps them apart.
const READ_BYTES: usize = 4 << 10;

/// A connection that is opened when it is needed and kept.
pub(super) struct Connection {
    shared: Rc<Shared>,
    stream: Option<TcpStream>,
}

/// The times of one answer.
#[derive(Debug, Default)]
struct Told {
    first_ns: Option<u64>,
    chunks: u64,
}

impl Connection {
    pub(super) fn new(shared: Rc<Shared>) -> Self {
        Self { shared, stream: None }
    }

    /// Sends one request that was due at `due_ns` and reads its answer.
    pub(super) async fn ask(&mut self, due_ns: u64) {
        let shared = Rc::clone(&self.shared);
        shared.under_way.set(shared.under_way.get() + 1);
        let asked = self.exchange().await;
        shared.under_way.set(shared.under_way.get() - 1);
        let told = match asked {
            Ok(told) => told,
            Err(error) => {
                self.stream = None;
                shared.failed(&error);
                // A server that refuses must not have the generator turn in circles.
                return tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        if shared.measuring.get() {
            let mut measured = shared.measured.borrow_mut();
            measured.requests += 1;
            measured.latency.add(now_ns().saturating_sub(due_ns));
            if let Some(first_ns) = told.first_ns {
                measured.ttft.add(first_ns.saturating_sub(due_ns));
            }
        }
    }

    async fn exchange(&mut self) -> io::Result<Told> {
        let kept = self.stream.is_some();
        match self.attempt().await {
            // The server closed an idle connection just then: any client would open another.
            Err(error) if kept && error.kind() == io::ErrorKind::NotConnected => self.attempt().await,
            done => done,
        }
    }

    async fn attempt(&mut self) -> io::Result<Told> {
        let shared = Rc::clone(&self.shared);
        let mut stream = if let Some(stream) = self.stream.take() {
            stream
        } else {
            let stream = TcpStream::connect(shared.server).await?;
            stream.set_nodelay(true)?;
            stream
        };
        let mut reader = Reader::default();
        if let Err(error) = stream.write_all(&shared.request).await {
            // Refused before all of it was sent: there may still be an answer that says why.
            if error.kind() != io::ErrorKind::BrokenPipe && error.kind() != io::ErrorKind::ConnectionReset {
                return Err(error);
            }
        }
        let told = read(&mut stream, &mut reader, &shared).await?;
        if reader.status != 200 {
            return Err(io::Error::other(format!("status {}", reader.status)));
        }
        if !reader.closes {
            self.stream = Some(stream);
        }
        Ok(told)
    }
}

async fn read(stream: &mut TcpStream, reader: &mut Reader, shared: &Shared) -> io::Result<Told> {
    let (mut told, mut stamps) = (Told::default(), Stamps::default());
    let mut buffer = [0; READ_BYTES];
    while !reader.is_done() {
        let read = match stream.read(&mut buffer).await {
            Ok(0) if reader.ends_here() => break,
            Ok(0) if reader.is_fresh() => return Err(io::ErrorKind::NotConnected.into()),
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer broke off")),
            Err(error) if reader.is_fresh() && error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(io::ErrorKind::NotConnected.into());
            }
            read => read?,
        };
        let now_ns = now_ns();
        let mut spare = crate::load::samples::Samples::default();
        let mut measured = shared.measured.borrow_mut();
        let ages = if shared.measuring.get() { &mut measured.transit } else { &mut spare };
        let mut take = |piece: &[u8]| {
            told.first_ns.get_or_insert(now_ns);
            told.chunks += stamps.read(piece, now_ns, ages);
        };
        reader.feed(&buffer[..read], &mut take).map_err(io::Error::other)?;
        if shared.measuring.get() {
            measured.chunks = measured.transit.count() as u64;
        }
    }
    Ok(told)
}
