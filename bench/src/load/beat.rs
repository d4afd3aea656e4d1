//! The heartbeats of the backend's nodes: what an agent on each of them would send.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use herd_core::wire::{
    AvailableModel, Heartbeat, HerdReport, LoadedModel, MemoryBytes, OllamaEnv, OllamaReport, Runner, SCHEMA,
};

use super::backend::MODEL;

/// Time between two heartbeats of a node, as agents have it.
const EVERY: Duration = Duration::from_secs(5);
/// Longest wait for the edge to take one.
const PATIENCE: Duration = Duration::from_secs(5);
/// Slots of a node: more than any run has streams, so that what is measured is the way of a request and no queue.
const SLOTS: u32 = 16_384;
/// Context of the model, tokens: enough for bodies of 32 MiB, which must not be refused for their length.
const CONTEXT: u64 = 32 << 20;

/// What the node number `index` at `address` says in its heartbeat number `seq`.
#[must_use]
pub fn heartbeat(index: usize, address: SocketAddr, seq: u64) -> Heartbeat {
    let size_bytes = 4_920_753_328;
    let model = AvailableModel {
        name: MODEL.into(),
        digest: "5".repeat(64),
        size_bytes,
        context_length: CONTEXT,
        capabilities: ["completion", "embedding", "tools"].map(String::from).into(),
        ..AvailableModel::default()
    };
    let loaded = LoadedModel {
        name: MODEL.into(),
        digest: model.digest.clone(),
        size_bytes,
        size_vram_bytes: size_bytes,
        context_length: CONTEXT,
        ..LoadedModel::default()
    };
    let runner = Runner { model: MODEL.into(), slots: SLOTS, context_length: CONTEXT, ..Runner::default() };
    let memory = MemoryBytes { total_bytes: 64 << 30, available_bytes: 48 << 30, ..MemoryBytes::default() };
    let ollama = OllamaReport {
        address: address.to_string(),
        version: "0.33.0".into(),
        env: OllamaEnv { num_parallel: Some(SLOTS), context_length: Some(CONTEXT), ..OllamaEnv::default() },
        loaded: vec![loaded],
        available: vec![model],
        runners: Some(vec![runner]),
        ..OllamaReport::default()
    };
    let herd = HerdReport {
        schema: SCHEMA,
        boot: "bench".into(),
        seq,
        interval_ms: 5_000,
        memory: Some(memory),
        ollama,
        ..HerdReport::default()
    };
    Heartbeat {
        node_id: format!("bench-{index}"),
        memory_bandwidth_gbps: 400.0,
        herd: Some(herd),
        ..Heartbeat::default()
    }
}

/// Keeps nodes alive at an edge until it is dropped.
#[derive(Debug)]
pub struct Beats {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Beats {
    /// Joins `nodes` to the edge whose admin service is at `admin`.
    ///
    /// # Errors
    /// When it does not take them.
    pub fn start(admin: SocketAddr, nodes: Vec<SocketAddr>) -> anyhow::Result<Self> {
        beat(admin, &nodes, 1)?;
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("heartbeats".into()).spawn(move || {
            for seq in 2.. {
                if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                // One that is lost under load is no reason to stop: an agent would go on, too.
                drop(beat(admin, &nodes, seq));
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn beat(admin: SocketAddr, nodes: &[SocketAddr], seq: u64) -> anyhow::Result<()> {
    for (index, address) in nodes.iter().enumerate() {
        let body = serde_json::to_string(&heartbeat(index, *address, seq))?;
        let answer = post(admin, "/heartbeat", &body).context("a heartbeat")?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "a heartbeat was refused: {answer}");
    }
    Ok(())
}

/// Sends one request on a connection of its own and returns the whole answer.
fn post(server: SocketAddr, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use herd_core::fleet::{Applied, FleetSnapshot, HeartbeatLimits, LifeLimits, Sender};

    use super::*;

    #[test]
    fn the_edge_takes_the_nodes_with_all_their_slots() {
        let address: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let sender = Sender::at(address.ip());
        let (life, limits) = (LifeLimits::default(), HeartbeatLimits::default());
        let applied = FleetSnapshot::default().apply(heartbeat(0, address, 1), sender, 0, &life, &limits);
        let Ok(Applied::Changed(snapshot)) = applied else { panic!("refused") };
        let node = &snapshot.nodes[0];
        assert_eq!((node.address, node.models[0].slots(&node.env)), (address, SLOTS));
    }
}
