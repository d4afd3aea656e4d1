//! Request bodies of every size and framing reach the node byte for byte, to the first peer and to the second.

use std::io::Write as _;

use herd_core::name::fnv1a;
use herd_harness::{Answer, Edge, Sim, eventually, post, post_chunked, post_with, send};

/// A request of exactly `length` bytes that herd has no reason to change: it asks for the context that is loaded.
fn body(length: usize) -> Vec<u8> {
    let head = r#"{"model":"tiny","stream":false,"options":{"num_predict":1,"num_ctx":4096},"prompt":""#;
    let filler = "x".repeat(length.saturating_sub(head.len() + 2));
    format!("{head}{filler}\"}}").into_bytes()
}

const SIZES: [usize; 5] = [100, 64 << 10, 65 << 10, 1 << 20, 32 << 20];

/// Checks that the node has seen `body` as the last request for generation.
fn arrived(sim: &Sim, body: &[u8]) {
    let stats = sim.stats();
    let seen = stats["recent"].as_array().unwrap().iter().filter(|seen| seen["path"] == "/api/generate");
    let expected = format!("{:016x}", fnv1a(body));
    let hashes: Vec<&str> = seen.filter_map(|seen| seen["body_fnv64"].as_str()).collect();
    assert!(hashes.contains(&expected.as_str()), "{} bytes: {expected} not in {hashes:?}", body.len());
}

fn served(answer: &Answer, attempts: &str) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("X-Fleet-Attempts"), Some(attempts));
}

#[test]
fn bodies_of_every_size_and_framing_arrive_whole() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    for size in SIZES {
        let body = body(size);
        for request in [post("/api/generate", &body), post_chunked("/api/generate", &body)] {
            served(&send(edge.address, &request), "1");
            arrived(&sim, &body);
        }
    }
}

#[test]
fn a_second_node_gets_the_same_bytes_when_the_first_fails() {
    for fault in ["error_500", "reset"] {
        for size in SIZES {
            for framed in [post, post_chunked] {
                let edge = Edge::start(&[]);
                // The one with the model in memory is asked first.
                let first = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
                let second = Sim::start(Some(&edge), "b", &[]);
                edge.wait_for(&["a", "b"]);
                first.fault(fault);
                let body = body(size);
                served(&send(edge.address, &framed("/api/generate", &body)), "2");
                arrived(&second, &body);
                // The client has its last byte a moment before the slot is back.
                eventually("the slots are back", || edge.in_flight() == 0);
            }
        }
    }
}

#[test]
fn an_encoded_body_is_decoded_and_an_expectant_client_is_told_to_go_on() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let body = body(200_000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&body).unwrap();
    let encoded = post_with("/api/generate", "Content-Encoding: gzip\r\n", &gzip.finish().unwrap());
    served(&send(edge.address, &encoded), "1");
    arrived(&sim, &body);
    served(&send(edge.address, &post_with("/api/generate", "Expect: 100-continue\r\n", &body)), "1");
    let unknown = send(edge.address, &post_with("/api/generate", "Content-Encoding: br\r\n", b"x"));
    assert_eq!(unknown.status, 415);
}

#[test]
fn a_body_over_the_limit_is_refused_while_it_arrives() {
    let edge = Edge::start(&[("FLEET_LIMITS_REQUEST_BODY_BYTES", "100000")]);
    let head = b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n";
    assert_eq!(send(edge.address, head).status, 413, "before a byte of it");
    assert_eq!(send(edge.address, &post_chunked("/v1/messages", &body(300_000))).status, 413);
}
