//! What somebody tries who wants the edge's memory: bodies that decode to a thousand times their size, bodies without
//! an end, and many of them at once.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use herd_harness::{Answer, Edge, connect, eventually, get, post, post_with, read_answer, send};

/// What the edge may have beside bodies: buffers of connections, and what the allocator keeps for a while.
const BESIDE: u64 = 48 << 20;
/// The default of `limits.request_body_bytes`.
const LIMIT: usize = 64 << 20;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// A zstd frame of blocks of 128 KiB that each repeat one byte, with a window of 8 MiB: some 2 KB for 64 MiB.
fn zstd(decoded_bytes: usize) -> Vec<u8> {
    const BLOCK_BYTES: usize = 128 << 10;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3];
    let blocks = decoded_bytes / BLOCK_BYTES;
    for block in 1..=blocks {
        let header = BLOCK_BYTES << 3 | 1 << 1 | usize::from(block == blocks);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(b' ');
    }
    frame
}

fn encoded(coding: &str, raw: &[u8]) -> Vec<u8> {
    post_with("/api/chat", &format!("Content-Encoding: {coding}\r\n"), raw)
}

/// Sends `request` `times` times, 40 at a time, without reading an answer before all 40 are sent.
fn flood(edge: &Edge, request: &[u8], times: usize) -> Vec<Answer> {
    let mut answers = Vec::new();
    while answers.len() < times {
        let mut clients: Vec<TcpStream> = (0..40).map(|_| connect(edge.address)).collect();
        for client in &mut clients {
            drop(client.write_all(request));
        }
        answers.extend(clients.iter_mut().map(read_answer));
    }
    answers
}

/// Checks that the edge has never had more than `allowed` bytes beyond what it had at its `start`, and holds nothing now.
fn cost(edge: &Edge, start: Option<u64>, allowed: u64, what: &str) {
    if let (Some(start), Some(peak)) = (start, edge.process.peak_memory_bytes()) {
        let grown = peak.saturating_sub(start);
        assert!(grown <= allowed, "{what}: grown by {} MiB", grown >> 20);
    }
    eventually("nothing is held", || {
        let limits = get(edge.address, "/fleet/limits").json();
        let held = limits["limits"].as_array().unwrap().iter().find(|limit| limit["name"] == "limits.buffered_bytes");
        held.unwrap()["used"].as_f64() == Some(0.0)
    });
}

#[test]
fn a_thousand_bombs_cost_next_to_nothing() {
    let zeros = vec![b' '; LIMIT];
    let bombs = [("zstd", zstd(LIMIT)), ("gzip", gzip(&zeros)), ("deflate", deflate(&zeros))];
    let members = gzip(&zeros[..1 << 20]).repeat(64);
    let bombs = bombs.into_iter().chain([("gzip", members), ("zstd", zstd(1 << 20).repeat(64))]);
    drop(zeros);
    let edge = Edge::start(&[]);
    let start = edge.process.peak_memory_bytes();
    for (coding, bomb) in bombs {
        let bytes = bomb.len();
        let times = if bytes < 10_000 { 1_000 } else { 80 };
        for answer in flood(&edge, &encoded(coding, &bomb), times) {
            assert_eq!(answer.status, 413, "{coding} {answer:?}");
        }
        cost(&edge, start, BESIDE, &format!("{times} requests of {bytes} bytes in {coding}"));
    }
}

#[test]
fn what_is_dense_within_reason_is_held_to_the_budget() {
    let mut text = br#"{"model":"tiny","prompt":""#.to_vec();
    text.resize(60 << 20, b'x');
    text.extend_from_slice(br#""}"#);
    let budget = 128 << 20;
    // Of windows, which are smaller than whole bodies, the allocator keeps some for a while.
    let kept = budget / 2;
    for (coding, raw, kept) in [("gzip", gzip(&text), 0), ("zstd", zstd::encode_all(&text[..], 3).unwrap(), kept)] {
        let edge = Edge::start(&[
            ("FLEET_LIMITS_DECODED_RATIO", "100000"),
            ("FLEET_LIMITS_BUFFERED_BYTES", &budget.to_string()),
            ("FLEET_AUTO_PULL_ENABLED", "false"),
        ]);
        let start = edge.process.peak_memory_bytes();
        let answers = flood(&edge, &encoded(coding, &raw), 80);
        // Nobody has the model, or there was no room.
        let counts = [404, 503].map(|status| answers.iter().filter(|answer| answer.status == status).count());
        assert!(counts[0] > 0 && counts[1] > 0 && counts[0] + counts[1] == 80, "{coding} {counts:?}");
        cost(&edge, start, budget + kept + BESIDE, &format!("80 requests of 60 MiB in {coding}"));
    }
}

#[test]
fn a_body_over_the_limit_costs_little_more_than_the_limit() {
    let beyond = LIMIT + LIMIT / 2;
    // Noise, which no encoding makes denser.
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(beyond)
    .collect();
    let compressed = zstd::encode_all(&noise[..], 1).unwrap();
    for (what, head, body) in [("chunked", "", &noise), ("zstd", "Content-Encoding: zstd\r\n", &compressed)] {
        let edge = Edge::start(&[]);
        let start = edge.process.peak_memory_bytes();
        let mut client = connect(edge.address);
        let head = format!(
            "POST /api/chat HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{head}Transfer-Encoding: chunked\r\n\r\n"
        );
        client.write_all(head.as_bytes()).unwrap();
        let mut go_on = [0; 25];
        client.read_exact(&mut go_on).unwrap();
        assert!(go_on.starts_with(b"HTTP/1.1 100 "));
        for chunk in body.chunks(1 << 20) {
            let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
            if client.write_all(&framed).is_err() {
                break;
            }
        }
        // The answer may be lost with a connection that is closed on what nobody reads.
        assert!([413, 0].contains(&read_answer(&mut client).status));
        cost(&edge, start, (LIMIT + LIMIT / 4) as u64, what);
    }
}

#[test]
fn claims_of_large_bodies_take_nothing_from_others() {
    let edge = Edge::start(&[("FLEET_AUTO_PULL_ENABLED", "false")]);
    let claim = format!("POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT}\r\n\r\n");
    let mut silent: Vec<TcpStream> = (0..64).map(|_| connect(edge.address)).collect();
    for client in &mut silent {
        client.write_all(claim.as_bytes()).unwrap();
    }
    // In one piece after them, so that they have been read.
    let honest = br#"{"model":"none","messages":[]}"#;
    assert_eq!(send(edge.address, &post("/api/chat", honest)).status, 404);
    cost(&edge, None, 0, "claims");
}

#[test]
fn a_broken_or_unknown_encoding_is_refused() {
    let edge = Edge::start(&[("FLEET_AUTO_PULL_ENABLED", "false")]);
    let text = br#"{"model":"none","messages":[]}"#;
    let whole = gzip(text);
    assert_eq!(send(edge.address, &encoded("gzip", &whole)).status, 404);
    let wide = [&[0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3][..], &zstd(1 << 20)[6..]].concat();
    let cases = [
        ("gzip", whole[..whole.len() - 1].to_vec(), 400),
        ("gzip, gzip", gzip(&whole), 415),
        ("gzip\r\nContent-Encoding: gzip", gzip(&whole), 415),
        ("zstd", wide, 400),
        ("gzip", gzip(b"").repeat(2_000), 400),
        ("br", whole.clone(), 415),
    ];
    for (coding, raw, status) in cases {
        let answer = send(edge.address, &encoded(coding, &raw));
        assert_eq!(answer.status, status, "{coding} {answer:?}");
        // What cannot be decoded was read whole, and its connection is kept; of what breaks off, the rest is not read.
        let kept = if status == 415 { "keep-alive" } else { "close" };
        assert_eq!(answer.header("Connection"), Some(kept), "{coding} {answer:?}");
    }
}
