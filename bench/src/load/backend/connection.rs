//! One connection of the backend.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::PLAN_HEADER;
use super::reply::{Replies, chunk, stream_end};
use crate::load::clock::now_ns;
use crate::load::workload::Api;

/// Longest head of a request that is read, in bytes.
const HEAD_MAX: usize = 64 << 10;
/// How much of a large body is read at once.
const BODY_BYTES: usize = 256 << 10;

/// What a request's head says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    /// Where the body begins.
    end: usize,
    path: String,
    body_bytes: usize,
    /// Chunks, and the time between them.
    plan: Option<(u32, Duration)>,
}

/// Answers requests until the connection ends.
pub(super) async fn serve(mut stream: TcpStream, replies: &Replies) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4 << 10);
    loop {
        let head = loop {
            if let Some(head) = parse(&buffer)? {
                break head;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let left = head.body_bytes.saturating_sub(buffer.len() - head.end);
        if left > 0 {
            drain(&mut stream, left).await?;
        }
        // No client of ours sends the next request before the answer.
        buffer.clear();
        match head.plan {
            Some((chunks, every)) => tell(&mut stream, &head.path, chunks, every).await?,
            None => stream.write_all(replies.of(&head.path)).await?,
        }
    }
}

/// Reads the rest of a body and keeps nothing of it.
async fn drain(stream: &mut TcpStream, mut left: usize) -> io::Result<()> {
    let mut buffer = vec![0; left.min(BODY_BYTES)];
    while left > 0 {
        let most = left.min(buffer.len());
        let read = stream.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= read;
    }
    Ok(())
}

/// Writes a stream: its head with the first chunk, then each chunk at its time.
async fn tell(stream: &mut TcpStream, path: &str, chunks: u32, every: Duration) -> io::Result<()> {
    let api = if path.starts_with("/v1/") { Api::OpenAi } else { Api::Ollama };
    let began = Instant::now();
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(super::reply::stream_head(api));
    for number in 0..chunks {
        if number > 0 && !every.is_zero() {
            tokio::time::sleep_until(began + every * number).await;
        }
        chunk(&mut bytes, path, now_ns());
        stream.write_all(&bytes).await?;
        bytes.clear();
    }
    stream_end(&mut bytes, path, chunks);
    stream.write_all(&bytes).await
}

/// The head at the start of `bytes`; `None` = it has not all come.
fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else {
        return if bytes.len() > HEAD_MAX { Err(io::ErrorKind::InvalidData.into()) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut lines = text.split("\r\n");
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let (mut body_bytes, mut plan) = (0, None);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        } else if name.eq_ignore_ascii_case(PLAN_HEADER) {
            plan = plan_of(value);
        }
    }
    Ok(Some(Head { end, path, body_bytes, plan }))
}

fn plan_of(value: &str) -> Option<(u32, Duration)> {
    let (chunks, every_us) = value.trim().split_once(' ')?;
    Some((chunks.parse().ok()?, Duration::from_micros(every_us.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::workload::Workload;

    #[test]
    fn the_head_of_the_generators_requests_is_understood() {
        let request = Workload::chat(300).streaming(7, 20).request("h");
        let head = parse(&request).unwrap().unwrap();
        assert_eq!((head.path.as_str(), head.body_bytes), ("/api/chat", 300));
        assert_eq!((head.plan, head.end + 300), (Some((7, Duration::from_millis(20))), request.len()));
        assert_eq!(parse(&request[..head.end - 1]).unwrap(), None);
    }
}
