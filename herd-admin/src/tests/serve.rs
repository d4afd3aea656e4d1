//! The service on a real listener.

use std::sync::Arc;

use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::scripted::Node;
use crate::testing::{App, FakeSource};
use crate::{AdminConfig, AdminState, serve};

async fn exchange(stream: &mut TcpStream, request: &str, until: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.contains(until) {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).await.unwrap();
        if read == 0 {
            break;
        }
        answer.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
    answer
}

#[tokio::test]
async fn serves_until_told_to_stop_and_then_closes_what_is_idle() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = AdminState::new(Arc::new(FakeSource::default()), AdminConfig::default(), Registry::new()).unwrap();
    let (stop, stopped) = watch::channel(false);
    let client = async {
        let mut kept = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            let answer = exchange(&mut kept, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "running").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
        let mut large = TcpStream::connect(address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(40_000));
        let answer = exchange(&mut large, &head, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        stop.send_replace(true);
        assert_eq!(kept.read(&mut [0; 1]).await.unwrap(), 0, "an idle connection is closed at once");
    };
    tokio::join!(serve(listener, state, stopped), client);
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_connection_goes_on_after_a_refusal_that_nobody_read_the_body_of() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = AdminState::new(Arc::new(FakeSource::default()), AdminConfig::default(), Registry::new()).unwrap();
    let (stop, stopped) = watch::channel(false);
    let client = async {
        let mut kept = TcpStream::connect(address).await.unwrap();
        for path in ["/fleet/pulls/1", "/no/such/path", "/fleet/nodes/a/drain"] {
            let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n");
            kept.write_all(head.as_bytes()).await.unwrap();
            // The body comes when a hasty answer would have been written.
            tokio::task::yield_now().await;
            let answer = exchange(&mut kept, "{}", "\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 40"), "{path} {answer}");
        }
        let mut large = TcpStream::connect(address).await.unwrap();
        let head = "POST /no/such/path HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n";
        let answer = exchange(&mut large, head, "\r\n\r\n").await.to_ascii_lowercase();
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        stop.send_replace(true);
    };
    tokio::join!(serve(listener, state, stopped), client);
}

#[tokio::test]
async fn a_pull_runs_while_its_client_is_there() {
    let mut node = Node::new().await;
    let app = App::of([node.heartbeat("n", &[], 500)]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let client = async {
        let ask = |stream: bool| {
            let body = format!(r#"{{"model":"tiny","stream":{stream}}}"#);
            format!("POST /api/pull HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        };
        let mut reads = TcpStream::connect(address).await.unwrap();
        reads.write_all(ask(true).as_bytes()).await.unwrap();
        let call = node.called().await;
        call.say(r#"{"status":"pulling manifest"}"#).await;
        let answer = exchange(&mut reads, "", "manifest").await;
        assert!(answer.contains("\r\ncontent-type: application/x-ndjson\r\n"), "{answer}");
        drop(reads);
        call.dropped().await;
        let mut waits = TcpStream::connect(address).await.unwrap();
        waits.write_all(ask(false).as_bytes()).await.unwrap();
        let call = node.called().await;
        drop(waits);
        call.dropped().await;
        stop.send_replace(true);
    };
    tokio::join!(serve(listener, app.state.clone(), stopped), client);
}
