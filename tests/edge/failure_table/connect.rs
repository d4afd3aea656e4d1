//! No connection to the node: nothing was sent, so that nothing is lost by asking another.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use herd_harness::{Answer, eventually, post_with, send};

use super::scene::{BOTH, SOLO, Scene};
use super::way::{few, ways};
use super::{Row, row};

pub(super) const ROWS: &[Row] = &[
    Row { name: "the node refuses the connection, another serves", status: &[200], attempts: &[2], trace: "completed" },
    Row { name: "the node refuses the connection, no other", status: &[502], attempts: &[1], trace: "failed" },
    Row {
        name: "the node does not take the connection, another serves",
        status: &[200],
        attempts: &[2],
        trace: "completed",
    },
    Row { name: "the node does not take the connection, no other", status: &[504], attempts: &[1], trace: "failed" },
];

/// A connection that was kept may still be there when the node stops listening.
const KEPT: &str = "a:stale_connection,b:completed";

#[test]
fn a_refused_connection_is_retried_and_then_told() {
    let patient = "fleet: {degraded_after_ms: 60000, stale_after_ms: 70000, offline_after_ms: 80000}";
    let scene = Scene::start(&format!("hold: {{max_ms: 0}}\n{patient}\n"), "0");
    // Its agent would tell that its Ollama is down.
    scene.a.pause_agent(true);
    for way in ways() {
        for (model, name, stories) in [
            (BOTH, "the node refuses the connection, another serves", ["a:connect_refused,b:completed", KEPT]),
            (SOLO, "the node refuses the connection, no other", ["a:failed"; 2]),
        ] {
            scene.heal();
            scene.a.fault("refuse");
            let (id, answer) = scene.ask(&way, model);
            if model == BOTH {
                way.fine(&answer);
            } else {
                way.error(&answer);
            }
            scene.check(row(name), &id, &answer, &stories);
        }
    }
    scene.each_ended_once();
}

/// An Ollama that takes no more connections once the edge has seen it: its queue is full, so that the kernel leaves the
/// next one without answer.
struct Deaf {
    address: SocketAddr,
    listener: std::net::TcpListener,
    queued: Vec<TcpStream>,
}

impl Deaf {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let listener = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            socket.listen(1).unwrap().into_std().unwrap()
        });
        listener.set_nonblocking(true).unwrap();
        Self { address: listener.local_addr().unwrap(), listener, queued: Vec::new() }
    }

    /// Says its version to whoever has connected.
    fn answer(&self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            stream.set_nonblocking(false).unwrap();
            drop(stream.read(&mut [0; 4096]));
            let version = r#"{"version":"0.33.0"}"#;
            drop(write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{version}", version.len()));
        }
    }

    fn fall_silent(&mut self) {
        let connect = || TcpStream::connect_timeout(&self.address, Duration::from_millis(200)).ok();
        self.queued = std::iter::from_fn(connect).take(16).collect();
        assert!(self.queued.len() < 16, "its queue is full");
    }

    /// Reports it as a node that has a model of the recorded agent's.
    fn join(&mut self, scene: &Scene, json: &str) {
        let heartbeat = json.replace("127.0.0.1:21434", &self.address.to_string());
        let request = post_with("/heartbeat", "Content-Type: application/json\r\n", heartbeat.as_bytes());
        assert_eq!(send(scene.edge.address, &request).status, 200);
        eventually("the edge has seen it", || {
            self.answer();
            scene.edge.node("node-a")["status"] == "online"
        });
        self.fall_silent();
    }
}

#[test]
fn a_connection_that_is_not_taken_is_given_up() {
    let recorded = include_str!("../../golden/heartbeat-ollama-herd-0.11.4.json");
    for way in few().iter().filter(|way| way.streamed) {
        let scene = Scene::start("hold: {max_ms: 0}\nupstream: {connect_timeout_ms: 200}\n", "0");
        // The other one is larger, so that it is asked second.
        drop(scene.edge.admin("POST", "/fleet/nodes/a/drain", ""));
        // Both have this one, and it is hot where nobody answers.
        let mut deaf = Deaf::start();
        deaf.join(&scene, &recorded.replace("llama3.2:3b", BOTH));
        let mut asked = Default::default();
        // Pingora's balancer hears of a node a moment after it has joined; until then the others are asked.
        eventually("it is asked", || {
            asked = scene.ask(way, BOTH);
            asked.1.header("X-Fleet-Attempts") == Some("2")
        });
        let (id, answer): (String, Answer) = asked;
        way.fine(&answer);
        let story = ["node-a:connect_timeout,b:completed"];
        scene.check(row("the node does not take the connection, another serves"), &id, &answer, &story);
        let (id, answer) = scene.ask(way, "qwen3:8b");
        way.error(&answer);
        scene.check(row("the node does not take the connection, no other"), &id, &answer, &["node-a:failed"]);
        scene.each_ended_once();
    }
}
