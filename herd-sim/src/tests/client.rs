//! A client that sees the bytes: chunks as they were sent, and how the connection ended.

use std::{io, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// How a body was delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length,
    Chunked,
    Nothing,
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As its framing says.
    Whole,
    /// The connection ended before.
    Cut,
    /// The connection was reset.
    Reset,
}

/// An answer, byte by byte.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) framing: Framing,
    /// One for each HTTP chunk; one in all when there is a length.
    pub(super) chunks: Vec<Vec<u8>>,
    pub(super) end: End,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(super) fn body(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body()).expect("text")
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body()).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The objects of an NDJSON stream.
    #[track_caller]
    pub(super) fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Reads the answer from the bytes that came until the connection ended.
    pub(super) fn parse(bytes: &[u8], reset: bool, head_only: bool) -> Self {
        let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&bytes[..head_end]).expect("text");
        let (status, headers) = parse_head(head);
        let mut reply = Self { status, headers, framing: Framing::Nothing, chunks: Vec::new(), end: End::Whole };
        let after = &bytes[head_end + 4..];
        let chunked = reply.header("transfer-encoding") == Some("chunked");
        let length = reply.header("content-length").map(|length| length.parse::<usize>().expect("a length"));
        let whole = if chunked {
            reply.framing = Framing::Chunked;
            head_only || reply.take_chunks(after)
        } else if let Some(length) = length {
            reply.framing = Framing::Length;
            reply.chunks.push(after.to_vec());
            head_only || after.len() == length
        } else {
            true
        };
        reply.end = match (whole, reset) {
            (true, false) => End::Whole,
            (_, true) => End::Reset,
            (false, false) => End::Cut,
        };
        reply
    }

    /// Takes the chunks apart; says whether the last one was there.
    fn take_chunks(&mut self, mut rest: &[u8]) -> bool {
        loop {
            let Some(line_end) = rest.windows(2).position(|window| window == b"\r\n") else { return false };
            let size = std::str::from_utf8(&rest[..line_end]).expect("a size");
            let size = usize::from_str_radix(size, 16).expect("a size");
            rest = &rest[line_end + 2..];
            if size == 0 {
                return true;
            }
            if rest.len() < size + 2 {
                return false;
            }
            self.chunks.push(rest[..size].to_vec());
            rest = &rest[size + 2..];
        }
    }
}

/// Status and headers, in their order.
pub(super) fn parse_head(head: &str) -> (u16, Vec<(String, String)>) {
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    (status.parse().expect("a number"), lines.filter_map(header).collect())
}

/// A request on a connection of its own, headers beyond the usual ones in `extra`.
pub(super) async fn request_with(addr: SocketAddr, method: &str, path: &str, extra: &[&str], body: &[u8]) -> Reply {
    let mut stream = send(addr, method, path, extra, body).await;
    let mut bytes = Vec::new();
    let reset = match stream.read_to_end(&mut bytes).await {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
        Err(error) => panic!("{error}"),
    };
    if bytes.is_empty() {
        let end = if reset { End::Reset } else { End::Cut };
        return Reply { status: 0, headers: Vec::new(), framing: Framing::Nothing, chunks: Vec::new(), end };
    }
    Reply::parse(&bytes, reset, method == "HEAD")
}

/// A request on a connection of its own.
pub(super) async fn request(addr: SocketAddr, method: &str, path: &str, body: &[u8]) -> Reply {
    request_with(addr, method, path, &[], body).await
}

/// Sends a request and gives the connection back, to read from or to leave.
pub(super) async fn send(addr: SocketAddr, method: &str, path: &str, extra: &[&str], body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.expect("it listens");
    let own_host = format!("Host: {addr}");
    let length = format!("Content-Length: {}", body.len());
    let mut lines = vec!["Connection: close"];
    if !extra.iter().any(|line| line.starts_with("Host:")) {
        lines.push(&own_host);
    }
    if !body.is_empty() {
        lines.push(&length);
    }
    lines.extend(extra);
    let head = format!("{method} {path} HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
    stream.write_all(head.as_bytes()).await.expect("it reads");
    stream.write_all(body).await.expect("it reads");
    stream
}

/// Reads until `marker` has come.
pub(super) async fn read_until(stream: &mut TcpStream, marker: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(marker) {
        let count = stream.read(&mut buffer).await.expect("it writes");
        assert!(count > 0, "it ended before {marker:?}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

/// Whether nothing has come so far; the rest of the node has had its turn before.
pub(super) fn is_silent(stream: &TcpStream) -> bool {
    let mut buffer = [0; 1];
    matches!(stream.try_read(&mut buffer), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
