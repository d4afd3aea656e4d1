//! From a request to a claimed peer.
//!
//! The decision is herd-core's: one snapshot, one ranking. It is carried out through `pingora-load-balancing`, whose
//! backends follow the fleet ([`FleetDiscovery`]) and whose health checks are a second opinion on silent nodes. Its
//! selection interface knows only a key, not the request, so **the key is the ranking**: the numbers of the ranked nodes,
//! best first. [`RankedSelection`] yields their backends in that order, and the first whose slot can be claimed serves.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use herd_admin::FleetSource as _;
use herd_core::decide::{Candidate, Decision, RANKED, decide};
use herd_core::fleet::{FleetSnapshot, Model, Node};
use herd_core::load::Claim;
use herd_core::protect::set_num_ctx;
use herd_core::request::RequestProfile;
use herd_core::splice::{Edit, json_string, splice};
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::health_check::{HealthObserve, HttpHealthCheck};
use pingora_load_balancing::selection::{BackendIter, BackendSelection};
use pingora_load_balancing::{Backend, Backends, Extensions, LoadBalancer};

use crate::config::Probe;
use crate::fleet::Fleet;

/// Rounds in which another request may take the slot that a choice was made on; then the best is taken regardless.
const CLAIM_ROUNDS: usize = 3;

/// A node that serves a request, with one of its slots.
#[derive(Debug)]
pub struct Choice {
    /// The picture that the choice was made on.
    pub snapshot: Arc<FleetSnapshot>,
    /// The node's part in the decision.
    pub candidate: Candidate,
    /// The model that runs there.
    pub model: herd_core::name::ModelName,
    /// The slot.
    pub claim: Claim,
}

impl Choice {
    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.snapshot.nodes[self.candidate.node]
    }

    /// The model there.
    #[must_use]
    pub fn model(&self) -> Option<&Model> {
        self.node().model(&self.model)
    }

    /// The body as this node is to get it.
    #[must_use]
    pub fn body(&self, profile: &RequestProfile, original: &bytes::Bytes) -> bytes::Bytes {
        let mut edits: Vec<Edit> = profile.places.private.iter().cloned().map(Edit::cut).collect();
        if self.model != profile.model {
            edits.push(Edit { range: profile.places.model.clone(), text: json_string(self.model.as_str()) });
        }
        edits.extend(self.candidate.plan.num_ctx.map(|num_ctx| set_num_ctx(&profile.places, num_ctx)));
        if edits.is_empty() { original.clone() } else { splice(original, &edits).into() }
    }
}

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

    /// Chooses and claims a peer for `profile` that is not in `tried`.
    ///
    /// # Errors
    /// With the decision and its picture when no node can serve.
    pub fn choose(
        &self,
        profile: &RequestProfile,
        tried: &[u32],
    ) -> Result<Choice, Box<(Decision, Arc<FleetSnapshot>)>> {
        let policy = self.fleet.policy();
        let mut round = 0;
        loop {
            let snapshot = self.fleet.snapshot();
            let decision = decide(&snapshot, profile, &policy, tried, self.fleet.now_ms());
            let Some(best) = decision.candidates.first().cloned() else { return Err(Box::new((decision, snapshot))) };
            round += 1;
            let claimed = self.claim(&decision, &snapshot, round > CLAIM_ROUNDS);
            if let Some((candidate, claim)) = claimed {
                return Ok(Choice { snapshot, candidate, model: decision.model, claim });
            }
            if round > CLAIM_ROUNDS {
                // The balancer has not heard of any of them yet: nodes that joined a moment ago.
                let claim = take(&snapshot.nodes[best.node], &decision, self.fleet.ticket());
                return Ok(Choice { snapshot, candidate: best, model: decision.model, claim });
            }
        }
    }

    /// Walks the ranking through the balancer until a slot is claimed.
    fn claim(&self, decision: &Decision, snapshot: &FleetSnapshot, by_force: bool) -> Option<(Candidate, Claim)> {
        let ranked = &decision.candidates[..decision.candidates.len().min(RANKED)];
        let key: Vec<u8> = ranked.iter().flat_map(|c| snapshot.nodes[c.node].number.to_le_bytes()).collect();
        let claimed = std::cell::RefCell::new(None);
        // The balancer's own view of health is in the snapshot's counts already, where explain shows it.
        self.balancer.select_with(&key, RANKED, |backend, _healthy| {
            let found = ranked.iter().find(|c| number(backend) == snapshot.nodes[c.node].number);
            let Some(candidate) = found else { return false };
            let node = &snapshot.nodes[candidate.node];
            let Some(model) = node.model(&decision.model) else { return false };
            let ticket = self.fleet.ticket();
            let claim = if by_force {
                Some(Claim::take(&node.load, &model.load, ticket))
            } else {
                Claim::try_take(&node.load, &model.load, candidate.seen_in_flight, ticket)
            };
            let taken = claim.is_some();
            if let Some(claim) = claim {
                claimed.replace(Some((candidate.clone(), claim)));
            }
            // A lost claim ends the walk: the ranking was made on a load that is no longer so.
            taken || !by_force
        });
        claimed.into_inner()
    }
}

fn take(node: &Node, decision: &Decision, ticket: u64) -> Claim {
    let model = node.model(&decision.model).map(|model| Arc::clone(&model.load)).unwrap_or_default();
    Claim::take(&node.load, &model, ticket)
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

/// Notes what the health checks find where decisions read it.
struct Observer(Arc<Fleet>);

#[async_trait]
impl HealthObserve for Observer {
    async fn observe(&self, target: &Backend, healthy: bool) {
        let snapshot = self.0.snapshot();
        let Some(node) = snapshot.nodes.iter().find(|node| node.number == number(target)) else { return };
        node.load.set_probe_failed(!healthy);
        tracing::info!(node_id = %node.id, healthy, "health probe");
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
    balancer.set_health_check(Box::new(check));
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
        let name = "m".to_owned();
        let available = vec![AvailableModel { name: name.clone(), size_bytes: 1 << 30, ..Default::default() }];
        let loaded = vec![LoadedModel { name, context_length: context, ..Default::default() }];
        let address = format!("127.0.0.1:{port}");
        let ollama = OllamaReport { address, available, loaded, ..Default::default() };
        let report = HerdReport { seq: 1, boot: id.into(), ollama, ..Default::default() };
        let heartbeat = Heartbeat { node_id: id.into(), herd: Some(report), ..Default::default() };
        let sender = Sender { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), trusted: false, allow_public: false };
        selector.fleet.heartbeat(heartbeat, sender).unwrap();
    }

    fn profile(body: &str) -> RequestProfile {
        inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap()
    }

    #[tokio::test]
    async fn the_ranking_is_carried_out_through_the_balancer() {
        let selector = selector();
        join(&selector, "a", 1001, 4096);
        join(&selector, "b", 1002, 8192);
        selector.balancer.update().await.unwrap();
        let profile = profile(r#"{"model":"m","options":{"num_ctx":8192}}"#);
        let choice = selector.choose(&profile, &[]).unwrap();
        assert_eq!(choice.node().id.as_str(), "b");
        let next = selector.choose(&profile, &[choice.node().number]).unwrap();
        assert_eq!(next.node().id.as_str(), "a");
        assert_eq!(selector.fleet.snapshot().in_flight(), 2);
        drop((choice, next));
        assert_eq!(selector.fleet.snapshot().in_flight(), 0);
    }

    #[tokio::test]
    async fn a_node_that_the_balancer_has_not_heard_of_yet_serves_all_the_same() {
        let selector = selector();
        join(&selector, "a", 1001, 4096);
        let choice = selector.choose(&profile(r#"{"model":"m"}"#), &[]).unwrap();
        assert_eq!((choice.node().id.as_str(), choice.node().load.in_flight()), ("a", 1));
    }

    #[tokio::test]
    async fn each_node_gets_the_body_that_keeps_its_runner() {
        let selector = selector();
        join(&selector, "a", 1001, 4096);
        let text = r#"{"model":"m","fallback_models":["x"],"options":{"num_ctx":2048}}"#;
        let profile = profile(text);
        let choice = selector.choose(&profile, &[]).unwrap();
        let body = choice.body(&profile, &bytes::Bytes::from_static(text.as_bytes()));
        assert_eq!(body, r#"{"model":"m","options":{"num_ctx":4096}}"#);
    }

    #[tokio::test]
    async fn nobody_is_an_answer_with_reasons() {
        let selector = selector();
        join(&selector, "a", 1001, 4096);
        let nobody = selector.choose(&profile(r#"{"model":"other"}"#), &[]).unwrap_err();
        assert_eq!(nobody.0.refused[0].1.name(), "model_absent");
    }
}
