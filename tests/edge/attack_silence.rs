//! What somebody tries who wants others to wait: connections that say nothing, bodies that never come, answers that
//! nobody reads.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use herd_harness::{Edge, Sim, connect, connect_from, eventually, get, post_with, read_answer, send};

use crate::scripted::{Scripted, recorded};

const JSON: &str = "Content-Type: application/json\r\n";
/// What anybody else may be kept waiting for.
const SOON: Duration = Duration::from_secs(5);

/// Checks that the fleet goes on: signs of life, heartbeats and an operator's page answer soon.
#[track_caller]
fn goes_on(edge: &Edge, what: &str) {
    for path in ["/healthz", "/api/version", "/fleet/status", "/dashboard", "/api/tags"] {
        let began = Instant::now();
        let answer = get(edge.address, path);
        assert_eq!((answer.status, began.elapsed() < SOON), (200, true), "{path} among {what}");
    }
    let began = Instant::now();
    let heartbeat = recorded("honest", "http://127.0.0.1:1").to_string();
    let answer = send(edge.address, &post_with("/heartbeat", JSON, heartbeat.as_bytes()));
    assert_eq!((answer.status, began.elapsed() < SOON), (200, true), "{answer:?} among {what}");
    assert_eq!(get(edge.admin, "/readyz").header("Content-Type"), Some("application/json"), "{what}");
}

#[test]
fn a_thousand_that_send_no_body_keep_nobody_waiting() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let heads = [
        (
            "heartbeats",
            "POST /heartbeat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n",
        ),
        ("large heartbeats", "POST /heartbeat HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n{"),
        ("model cards", "POST /api/show HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"),
        ("explanations", "POST /fleet/explain HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n{"),
        ("reads with a body", "GET /api/tags HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n1234"),
        ("expectations", "POST /heartbeat HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"),
    ];
    for (what, head) in heads {
        let mut silent: Vec<TcpStream> = (0..1_000).map(|_| connect(edge.address)).collect();
        for client in &mut silent {
            drop(client.write_all(head.as_bytes()));
        }
        // From the same address.
        goes_on(&edge, what);
    }
    // On its own listener too.
    let mut silent: Vec<TcpStream> = (0..1_000).map(|_| connect(edge.admin)).collect();
    for client in &mut silent {
        drop(client.write_all(heads[0].1.as_bytes()));
    }
    goes_on(&edge, "those on the admin listener");
    assert_eq!(edge.node("a")["status"], "online");
}

#[test]
fn a_client_that_may_not_enter_is_told_so_before_it_sends_a_body() {
    let edge = Edge::start(&[]);
    let _key = edge.add_key(&["operator", "--scope", "admin"]);
    eventually("the key counts", || {
        let mut client = connect_from("127.0.0.2", edge.address);
        let line = "POST /dashboard/api/settings HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 8.8.8.8\r\n";
        client.write_all(format!("{line}{JSON}Content-Length: 10\r\n\r\n").as_bytes()).unwrap();
        let began = Instant::now();
        let answer = read_answer(&mut client);
        assert!(began.elapsed() < SOON, "{answer:?}");
        answer.status == 401 && answer.json()["error"]["code"] == "key_required"
    });
    // Nor does the admin service itself wait for it.
    let mut client = connect(edge.admin);
    let head = "POST /dashboard/api/settings HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 8.8.8.8\r\n";
    client.write_all(format!("{head}{JSON}Content-Length: 10\r\n\r\n").as_bytes()).unwrap();
    let began = Instant::now();
    let answer = read_answer(&mut client);
    assert_eq!((answer.status, began.elapsed() < SOON), (401, true), "{answer:?}");
}

#[test]
fn answers_that_nobody_reads_leave_room_for_others() {
    let edge = Edge::start(&[("FLEET_ADMIN_REQUESTS_MAX", "32")]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    // Each of them has a place until it is told of the end.
    let listen = |source: &str| {
        let mut client = connect_from(source, edge.address);
        client.write_all(b"GET /dashboard/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let status = read_head(&mut client);
        (client, status)
    };
    let mut held: Vec<_> = (0..40).map(|_| listen("127.0.0.1")).collect();
    let served = held.iter().filter(|(_, status)| *status == 200).count();
    assert!((1..=16).contains(&served), "{served}");
    assert!(held.iter().all(|(_, status)| [200, 503].contains(status)));
    let health = get(edge.address, "/healthz").status;
    assert_eq!(health, 200, "signs of life have places of their own");
    held.clear();
    eventually("the places are free again", || listen("127.0.0.1").1 == 200);
}

fn read_head(client: &mut TcpStream) -> u16 {
    use std::io::{BufRead as _, BufReader};
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn a_node_that_drips_its_answer_holds_up_only_whoever_asks_it() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    // It announces more than it sends.
    let hostile = Scripted::start(|head| {
        if head.starts_with("GET /api/version ") {
            crate::scripted::answer("200 OK", "Content-Type: application/json\r\n", r#"{"version":"0.33.0"}"#)
        } else {
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{".into()
        }
    });
    hostile.join(&edge, "hostile");
    edge.wait_for(&["a", "hostile"]);
    let ask = post_with("/api/show", JSON, br#"{"model":"llama3.2:3b"}"#);
    let mut waiting: Vec<TcpStream> = (0..600).map(|_| connect(edge.address)).collect();
    for client in &mut waiting {
        drop(client.write_all(&ask));
    }
    eventually("it is asked", || !hostile.take_heads().is_empty());
    goes_on(&edge, "model cards of a node that drips");
}
