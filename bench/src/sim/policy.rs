//! The policies that are compared.

mod herd;
mod peer;
mod simple;

use herd_core::decide::Order;

use super::router::Router;
use herd::Herd;
use peer::Peer;
use simple::{Rule, Simple};

/// The name of the peer's policy.
pub(crate) const PEER: &str = "ollama-herd";

/// A policy by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PolicySpec {
    /// Its name on the command line and in tables.
    pub(crate) name: &'static str,
    /// It is herd, not something that herd is compared with.
    pub(crate) herd: bool,
    /// Makes one from a seed.
    pub(crate) make: fn(u64) -> Box<dyn Router>,
}

/// All policies, in the order of the report.
pub(crate) const POLICIES: [PolicySpec; 13] = [
    PolicySpec { name: "herd", herd: true, make: |_| Box::new(Herd::new(Order::Score)) },
    PolicySpec { name: "herd-eta", herd: true, make: |_| Box::new(Herd::new(Order::Eta)) },
    baseline(PEER, |_| Box::new(Peer::default())),
    baseline("random", |seed| Box::new(Simple::new(Rule::Random, false, seed))),
    baseline("round-robin", |seed| Box::new(Simple::new(Rule::RoundRobin, false, seed))),
    baseline("least-connections", |seed| Box::new(Simple::new(Rule::LeastConnections, false, seed))),
    baseline("least-connections-hot", |seed| Box::new(Simple::new(Rule::LeastConnections, true, seed))),
    baseline("join-shortest-queue", |seed| Box::new(Simple::new(Rule::ShortestQueue, true, seed))),
    baseline("power-of-two", |seed| Box::new(Simple::new(Rule::PowerOfTwo, false, seed))),
    baseline("power-of-two-hot", |seed| Box::new(Simple::new(Rule::PowerOfTwo, true, seed))),
    baseline("peak-ewma", |seed| Box::new(Simple::new(Rule::PeakEwma, false, seed))),
    baseline("peak-ewma-hot", |seed| Box::new(Simple::new(Rule::PeakEwma, true, seed))),
    baseline("prefill-x-batch", |seed| Box::new(Simple::new(Rule::PrefillTimesBatch, true, seed))),
];

const fn baseline(name: &'static str, make: fn(u64) -> Box<dyn Router>) -> PolicySpec {
    PolicySpec { name, herd: false, make }
}
