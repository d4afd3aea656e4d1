//! From a request to a claimed peer.
//!
//! The decision is herd-core's: one snapshot, one ranking. It is carried out through `pingora-load-balancing`, whose
//! backends follow the fleet ([`FleetDiscovery`]) and whose health checks are a second opinion on silent nodes. Its
//! selection interface knows only a key, not the request, so **the key is the ranking**: the numbers of the ranked nodes,
//! best first. [`RankedSelection`] yields their backends in that order, and the first that the balancer has is claimed.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use herd_core::choice;
use herd_core::decide::{Candidate, Decision, RANKED};
use herd_core::exchange::Chooser;
use herd_core::fleet::{FleetSnapshot, Node};
use herd_core::request::RequestProfile;
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::health_check::{HealthCheck, HealthObserve, HttpHealthCheck};
use pingora_load_balancing::selection::{BackendIter, BackendSelection};
use pingora_load_balancing::{Backend, Backends, Extensions, LoadBalancer};

use crate::config::Probe;
use crate::fleet::Fleet;

pub use herd_core::choice::{Choice, Outcome, Place};

/// Chooses peers.
pub struct Selector {
    fleet: Arc<Fleet>,
    balancer: Arc<LoadBalancer<RankedSelection>>,
}

impl Selector {
    /// Chooses from `fleet`, through `balancer`.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>, balancer: Arc<LoadBalancer<RankedSelection>>) -> Self {
        Self { fleet, balancer }
    }

    /// Walks the candidates through the balancer: the place of the first that it knows; `None` = it has not heard of any
    /// of them yet, as they joined a moment ago.
    fn pick(&self, ready: &[&Candidate], snapshot: &FleetSnapshot) -> Option<usize> {
        let key: Vec<u8> = ready.iter().flat_map(|c| snapshot.nodes[c.node].number.to_le_bytes()).collect();
        // The balancer's own view of health is in the snapshot's counts already, where explain shows it.
        let known = number(&self.balancer.select_with(&key, RANKED, |_, _healthy| true)?);
        ready.iter().position(|c| snapshot.nodes[c.node].number == known)
    }
}

impl Chooser for Selector {
    fn choose(&self, profile: &RequestProfile, tried: &[u32], place: Place) -> Outcome {
        choice::choose(&*self.fleet, profile, tried, place, |ready, snapshot| self.pick(ready, snapshot))
    }

    fn look(&self, profile: &RequestProfile, tried: &[u32], place: Place) -> Decision {
        choice::look(&*self.fleet, profile, tried, place)
    }

    fn now_ms(&self) -> u64 {
        self.fleet.now_ms()
    }
}

/// A node's number rides in the backend's weight, which no selection of ours uses: address and weight are what tells
/// backends apart, and a node that returns at an old address is another one.
fn backend(number: u32, address: SocketAddr) -> Backend {
    let addr = pingora::protocols::l4::socket::SocketAddr::Inet(address);
    Backend { addr, weight: number as usize, ext: Extensions::new() }
}

fn number(backend: &Backend) -> u32 {
    u32::try_from(backend.weight).unwrap_or(u32::MAX)
}

/// Yields backends in the order of a ranking.
pub struct RankedSelection {
    by_number: HashMap<u32, Backend>,
}

impl BackendSelection for RankedSelection {
    type Iter = Ranking;
    type Config = ();

    fn build(backends: &BTreeSet<Backend>) -> Self {
        Self { by_number: backends.iter().map(|backend| (number(backend), backend.clone())).collect() }
    }

    fn iter(self: &Arc<Self>, key: &[u8]) -> Ranking {
        let numbers: Vec<u32> = key.as_chunks::<4>().0.iter().rev().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        Ranking { selection: Arc::clone(self), rest: numbers }
    }
}

/// One walk through a ranking.
pub struct Ranking {
    selection: Arc<RankedSelection>,
    /// Best last.
    rest: Vec<u32>,
}

impl BackendIter for Ranking {
    fn next(&mut self) -> Option<&Backend> {
        while let Some(number) = self.rest.pop() {
            if let Some(backend) = self.selection.by_number.get(&number) {
                return Some(backend);
            }
        }
        None
    }
}

/// The fleet's nodes as backends.
pub struct FleetDiscovery(pub Arc<Fleet>);

#[async_trait]
impl ServiceDiscovery for FleetDiscovery {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let snapshot = self.0.snapshot();
        let backends = snapshot.nodes.iter().map(|node| backend(node.number, node.address)).collect();
        Ok((backends, HashMap::new()))
    }
}

/// The node that `target` still stands for: a probe of an address that the node has left says nothing of it.
fn probed<'a>(snapshot: &'a FleetSnapshot, target: &Backend) -> Option<&'a Node> {
    let address = target.addr.as_inet()?;
    let is_probed = |node: &&Arc<Node>| node.number == number(target) && node.address == *address;
    snapshot.nodes.iter().find(is_probed).map(Arc::as_ref)
}

/// Notes what the health checks find where decisions read it.
struct Observer(Arc<Fleet>);

#[async_trait]
impl HealthObserve for Observer {
    async fn observe(&self, target: &Backend, healthy: bool) {
        let snapshot = self.0.snapshot();
        let Some(node) = probed(&snapshot, target) else { return };
        node.load.set_probe_failed(!healthy);
        tracing::info!(node_id = %node.id, healthy, "health probe");
    }
}

/// A health check whose every outcome is noted: that a node answers is worth knowing even when nothing changes by it.
struct Noted {
    check: HttpHealthCheck,
    fleet: Arc<Fleet>,
}

#[async_trait]
impl HealthCheck for Noted {
    async fn check(&self, target: &Backend) -> pingora::Result<()> {
        let checked = self.check.check(target).await;
        if let Some(node) = probed(&self.fleet.snapshot(), target) {
            match &checked {
                Ok(()) => node.load.probe_succeeded(self.fleet.now_ms()),
                Err(_) => node.load.probe_missed(),
            }
        }
        checked
    }

    async fn health_status_change(&self, target: &Backend, healthy: bool) {
        self.check.health_status_change(target, healthy).await;
    }

    fn backend_summary(&self, target: &Backend) -> String {
        self.check.backend_summary(target)
    }

    fn health_threshold(&self, success: bool) -> usize {
        self.check.health_threshold(success)
    }
}

/// A balancer whose backends follow `fleet` and are probed as `probe` says.
#[must_use]
pub fn balancer(fleet: &Arc<Fleet>, probe: &Probe) -> LoadBalancer<RankedSelection> {
    let backends = Backends::new(Box::new(FleetDiscovery(Arc::clone(fleet))));
    let mut balancer = LoadBalancer::from_backends(backends);
    // Ollama answers this without its scheduler, and only to host names that it takes for its own.
    let mut check = HttpHealthCheck::new("localhost", false);
    if let Ok(uri) = "/api/version".parse() {
        check.req.set_uri(uri);
    }
    check.consecutive_failure = probe.failures;
    check.reuse_connection = true;
    check.peer_template.options.connection_timeout = Some(probe.timeout);
    check.peer_template.options.total_connection_timeout = Some(probe.timeout);
    check.peer_template.options.read_timeout = Some(probe.timeout);
    check.peer_template.options.idle_timeout = Some(Duration::from_secs(10));
    check.health_changed_callback = Some(Box::new(Observer(Arc::clone(fleet))));
    balancer.set_health_check(Box::new(Noted { check, fleet: Arc::clone(fleet) }));
    balancer.health_check_frequency = Some(probe.interval);
    balancer.parallel_health_check = true;
    balancer
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use herd_core::fleet::{HeartbeatLimits, Sender};
    use herd_core::inspect::{InspectLimits, inspect};
    use herd_core::request::Surface;
    use herd_core::wire::{AvailableModel, Heartbeat, HerdReport, LoadedModel, OllamaReport};

    use super::*;
    use crate::config::Config;

    fn selector() -> Selector {
        let config = Config::build("", |_| None, &[]).unwrap();
        let fleet = Arc::new(Fleet::new(config.policy, HeartbeatLimits::default()));
        let balancer = Arc::new(balancer(&fleet, &config.probe));
        Selector::new(fleet, balancer)
    }

    fn join(selector: &Selector, id: &str, port: u16, context: u64) {
        beat(selector, id, port, context, 1);
    }

    fn move_to(selector: &Selector, id: &str, port: u16) {
        beat(selector, id, port, 4096, 2);
    }

    fn beat(selector: &Selector, id: &str, port: u16, context: u64, seq: u64) {
        let name = "m".to_owned();
        let available = vec![AvailableModel { name: name.clone(), size_bytes: 1 << 30, ..Default::default() }];
        let loaded = vec![LoadedModel { name, context_length: context, ..Default::default() }];
        let address = format!("127.0.0.1:{port}");
        let ollama = OllamaReport { address, available, loaded, ..Default::default() };
        let report = HerdReport { seq, boot: id.into(), ollama, ..Default::default() };
        let heartbeat = Heartbeat { node_id: id.into(), herd: Some(report), ..Default::default() };
        let sender = Sender::at(IpAddr::V4(Ipv4Addr::LOCALHOST));
        selector.fleet.heartbeat(heartbeat, sender).unwrap();
    }

    fn profile(body: &str) -> RequestProfile {
        inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap()
    }

    #[track_caller]
    fn chosen(selector: &Selector, profile: &RequestProfile, tried: &[u32]) -> Box<Choice> {
        match selector.choose(profile, tried, Place::default()) {
            Outcome::Chosen(choice) => choice,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_ranking_is_carried_out_through_the_balancer() {
        let selector = selector();
        join(&selector, "a", 1001, 4096);
        join(&selector, "b", 1002, 8192);
        selector.balancer.update().await.unwrap();
        let profile = profile(r#"{"model":"m","options":{"num_ctx":8192}}"#);
        let choice = chosen(&selector, &profile, &[]);
        assert_eq!(choice.node().id.as_str(), "b");
        let next = chosen(&selector, &profile, &[choice.node().number]);
        assert_eq!(next.node().id.as_str(), "a");
        assert_eq!(selector.fleet.snapshot().in_flight(), 2);
        drop((choice, next));
        assert_eq!(selector.fleet.snapshot().in_flight(), 0);
    }

    #[tokio::test]
    async fn a_node_that_the_balancer_has_not_heard_of_yet_serves_all_the_same() {
        let selector = selector();
        join(&selector, "a", 1001, 4096);
        let choice = chosen(&selector, &profile(r#"{"model":"m"}"#), &[]);
        assert_eq!((choice.node().id.as_str(), choice.node().load.in_flight()), ("a", 1));
    }

    #[tokio::test]
    async fn a_probe_of_an_address_that_a_node_has_left_says_nothing_of_the_node() {
        let selector = selector();
        let observer = Observer(Arc::clone(&selector.fleet));
        join(&selector, "a", 1001, 4096);
        let old = backend(0, (Ipv4Addr::LOCALHOST, 1001).into());
        observer.observe(&old, false).await;
        let failed = || selector.fleet.snapshot().nodes[0].load.probe_failed();
        assert!(failed());
        move_to(&selector, "a", 1002);
        assert!(!failed(), "a move starts afresh");
        observer.observe(&old, false).await;
        assert!(!failed());
        observer.observe(&backend(0, (Ipv4Addr::LOCALHOST, 1002).into()), false).await;
        assert!(failed());
    }

    #[tokio::test]
    async fn slots_are_a_limit() {
        let selector = selector();
        join(&selector, "a", 1001, 4096);
        let profile = profile(r#"{"model":"m"}"#);
        let first = chosen(&selector, &profile, &[]);
        assert!(matches!(selector.choose(&profile, &[], Place::default()), Outcome::Full(_)));
        drop(first);
        assert!(matches!(selector.choose(&profile, &[], Place::default()), Outcome::Chosen(_)));
    }

    #[tokio::test]
    async fn each_node_gets_the_body_that_keeps_its_runner() {
        let selector = selector();
        join(&selector, "a", 1001, 4096);
        let text = r#"{"model":"m","fallback_models":["x"],"options":{"num_ctx":2048}}"#;
        let profile = profile(text);
        let choice = chosen(&selector, &profile, &[]);
        let body = herd_core::splice::splice(text.as_bytes(), &choice.edits(&profile, &choice.model));
        assert_eq!(body, br#"{"model":"m","options":{"num_ctx":4096}}"#);
    }

    #[tokio::test]
    async fn nobody_is_an_answer_with_reasons() {
        let selector = selector();
        join(&selector, "a", 1001, 4096);
        match selector.choose(&profile(r#"{"model":"other"}"#), &[], Place::default()) {
            Outcome::Nobody(nobody) => assert_eq!(nobody.0.refused[0].1.name(), "model_absent"),
            other => panic!("{other:?}"),
        }
    }
}
