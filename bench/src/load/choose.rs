//! How long the choice of a node takes, from the bytes of a request to a claimed slot, for fleets of any size.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use herd_core::decide::{Policy, Question};
use herd_core::fleet::{Applied, FleetSnapshot, HeartbeatLimits, LifeLimits, Sender};
use herd_core::inspect::{InspectLimits, inspect};
use herd_core::load::Claim;
use herd_core::request::{RequestProfile, Surface};
use herd_core::wire::{AvailableModel, Heartbeat, LoadedModel};

use super::beat::heartbeat;
use super::clock::now_ns;
use super::samples::{Samples, median};

/// Sizes of fleets.
pub const FLEETS: [usize; 4] = [4, 64, 1_024, 10_000];
/// Models of a node, the one that is asked for among them.
const MODELS: usize = 8;

/// A fleet of `nodes` that all have the model on disk, among others; every second has it in memory.
///
/// # Panics
/// When the fleet refuses a node, which would be a mistake here.
#[must_use]
pub fn fleet(nodes: usize) -> FleetSnapshot {
    let limits = HeartbeatLimits { nodes, ..HeartbeatLimits::default() };
    let sender = Sender::at(Ipv4Addr::LOCALHOST.into());
    let mut fleet = FleetSnapshot::default();
    for index in 0..nodes {
        // Each on its own: a fleet that grows node by node is copied as often.
        match FleetSnapshot::default().apply(node(index), sender, 0, &LifeLimits::default(), &limits) {
            Ok(Applied::Changed(alone)) => {
                let mut node = alone.nodes[0].as_ref().clone();
                node.number = u32::try_from(index).unwrap_or(u32::MAX);
                fleet.nodes.push(Arc::new(node));
            }
            other => panic!("node {index}: {other:?}"),
        }
    }
    fleet.nodes.sort_by(|a, b| a.id.cmp(&b.id));
    fleet
}

fn node(index: usize) -> Heartbeat {
    let port = u16::try_from(1_024 + index).unwrap_or(u16::MAX);
    let mut beat = heartbeat(index, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), 1);
    let Some(herd) = &mut beat.herd else { return beat };
    let other = |number: usize| format!("other-{number}:8b");
    for number in 1..MODELS {
        let digest = format!("{number:064}");
        let model = AvailableModel { name: other(number), digest, size_bytes: 4 << 30, ..AvailableModel::default() };
        herd.ollama.available.push(model);
    }
    if index % 2 == 1 {
        herd.ollama.loaded = vec![LoadedModel { name: other(1), size_bytes: 4 << 30, ..LoadedModel::default() }];
        herd.ollama.runners = None;
    }
    beat
}

/// A chat of 1 KiB.
///
/// # Panics
/// When it cannot be read, which would be a mistake here.
#[must_use]
pub fn body(bytes: usize) -> Vec<u8> {
    let request = super::workload::Workload::chat(bytes).request("h");
    let end = request.windows(4).position(|four| four == b"\r\n\r\n").expect("a request has a head");
    request[end + 4..].to_vec()
}

/// Reads `body` as the edge does.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn read(body: &[u8]) -> RequestProfile {
    inspect(Surface::OllamaChat, body, &InspectLimits::default()).expect("a body of ours")
}

/// Decides, claims a slot and gives it back, as every request does; returns how many nodes could serve.
#[must_use]
pub fn choose(fleet: &FleetSnapshot, profile: &RequestProfile, policy: &Policy, ticket: u64) -> usize {
    let (ahead, waited_ms, draw) = (0, 0, Some(ticket));
    let decision = Question {
        snapshot: fleet,
        profile,
        policy,
        tried: &[],
        ahead,
        waited_ms,
        draw,
        allow_any_substitute: false,
        now_ms: 1,
    }
    .decide();
    let best = decision.ready().next();
    let claim = best.and_then(|best| {
        let node = &fleet.nodes[best.node];
        Claim::try_take(&node.load, &node.model(&decision.model)?.load, &best.seen, ticket)
    });
    drop(claim);
    decision.candidates.len()
}

/// Median and 99th percentile of a choice, microseconds, for each fleet of [`FLEETS`], as a table.
///
/// Others use the machine, too: of `batches` of `calls` each, the median batch counts.
#[must_use]
pub fn table(batches: usize, calls: u64) -> String {
    let (body, policy) = (body(1 << 10), Policy::default());
    let mut text = String::from("| nodes | p50, µs | p99, µs |\n| --- | --- | --- |\n");
    for nodes in FLEETS {
        let fleet = Arc::new(fleet(nodes));
        let calls = calls.min(4_000_000 / nodes as u64);
        let mut seen = [Vec::new(), Vec::new()];
        for _ in 0..batches {
            let mut samples = Samples::default();
            for ticket in 0..calls {
                let began_ns = now_ns();
                let profile = read(&body);
                std::hint::black_box(choose(&fleet, &profile, &policy, ticket));
                samples.add(now_ns() - began_ns);
            }
            for (seen, q) in seen.iter_mut().zip([0.5, 0.99]) {
                seen.extend(samples.quantile_us(q));
            }
        }
        let [p50, p99] = seen.map(|values| median(values).unwrap_or_default());
        // Writing to a string does not fail.
        writeln!(text, "| {nodes} | {p50:.1} | {p99:.1} |").ok();
    }
    text
}

/// How fast bodies are read, as a table. The fastest of `calls` counts: whatever slows one down is not the reading.
#[must_use]
pub fn reading(calls: u32) -> String {
    let mut text = String::from("| body, bytes | µs | GB/s |\n| --- | --- | --- |\n");
    for bytes in [1 << 10, 64 << 10, 1 << 20] {
        let body = body(bytes);
        let fastest_ns = (0..calls.max(1)).map(|_| {
            let began_ns = now_ns();
            std::hint::black_box(read(&body));
            now_ns() - began_ns
        });
        let fastest_ns = fastest_ns.min().unwrap_or_default().max(1) as f64;
        let (us, gb_per_s) = (fastest_ns / 1e3, bytes as f64 / fastest_ns);
        // Writing to a string does not fail.
        writeln!(text, "| {bytes} | {us:.1} | {gb_per_s:.1} |").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::backend::MODEL;

    #[test]
    fn tables_have_a_line_for_each_size() {
        assert_eq!(reading(1).lines().count(), 5);
    }

    #[test]
    fn every_node_of_a_fleet_can_serve() {
        let (fleet, profile) = (fleet(5), read(&body(1 << 10)));
        assert_eq!(profile.model.as_str(), MODEL);
        assert_eq!(choose(&fleet, &profile, &Policy::default(), 1), 5);
        assert_eq!(fleet.in_flight(), 0);
    }
}
