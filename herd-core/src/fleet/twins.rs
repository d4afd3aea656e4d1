//! Several agents that report one Ollama: one of them stands for it, so that its slots are counted once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::FleetSnapshot;
use super::node::Node;

/// Where a node's Ollama is, the same for all addresses by which the edge's own machine has it; `None` = its agent does not
/// say.
pub(super) fn place(node: &Node) -> Option<SocketAddr> {
    let told = node.heartbeat.herd.as_ref().map_or("", |report| report.ollama.address.as_str());
    if told.is_empty() && node.heartbeat.ollama_host.is_empty() {
        return None;
    }
    let beside_its_agent = node.address.ip() == node.sender;
    if node.here && beside_its_agent {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), node.address.port()));
    }
    Some(node.address)
}

impl FleetSnapshot {
    /// Notes which node stands for the Ollama at each of `changed` places, and at all that several nodes had in common
    /// before: of those whose agents are heard and whose Ollama the edge reaches, the one that joined first.
    pub(super) fn mark_twins(&mut self, changed: &[SocketAddr]) {
        let mut shared: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
        let had_twins: Vec<SocketAddr> =
            self.nodes.iter().filter(|node| node.same_ollama_as.is_some()).filter_map(|node| place(node)).collect();
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(place) = place(node) else { continue };
            if changed.contains(&place) || had_twins.contains(&place) {
                shared.entry(place).or_default().push(index);
            }
        }
        for those in shared.into_values() {
            mark(&mut self.nodes, &those, self.life.degraded_after_ms);
        }
    }
}

fn mark(nodes: &mut [Arc<Node>], those: &[usize], silent_after_ms: u64) {
    let now_ms = those.iter().map(|index| nodes[*index].heartbeat_at_ms).max().unwrap_or_default();
    let rank = |node: &Node| {
        let silent = now_ms.saturating_sub(node.heartbeat_at_ms) > silent_after_ms;
        (silent || node.draining, node.load.probe_failed(), node.number)
    };
    let Some(first) = those.iter().copied().min_by_key(|index| rank(&nodes[*index])) else { return };
    let id = nodes[first].id.clone();
    for index in those.iter().copied() {
        let same_ollama_as = (index != first).then(|| id.clone());
        if nodes[index].same_ollama_as != same_ollama_as {
            nodes[index] = Arc::new(Node { same_ollama_as, ..nodes[index].as_ref().clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Applied, HeartbeatLimits, LifeLimits, Sender};
    use super::*;
    use crate::testing::{NodeSpec, sender};

    fn join(snapshot: &FleetSnapshot, id: &str, from: Sender, port: u16, now_ms: u64) -> FleetSnapshot {
        join_in(snapshot, id, from, port, now_ms, &LifeLimits::default())
    }

    fn join_in(
        snapshot: &FleetSnapshot,
        id: &str,
        from: Sender,
        port: u16,
        now_ms: u64,
        life: &LifeLimits,
    ) -> FleetSnapshot {
        let mut heartbeat = NodeSpec::default().hot("m", 4_096).heartbeat(id, snapshot.version + 1);
        heartbeat.herd.as_mut().unwrap().ollama.address = format!("127.0.0.1:{port}");
        match snapshot.apply(heartbeat, from, now_ms, life, &HeartbeatLimits::default()) {
            Ok(Applied::Changed(next)) => next,
            other => panic!("{other:?}"),
        }
    }

    fn from(ip: &str, here: bool) -> Sender {
        Sender { ip: ip.parse().unwrap(), here, ..sender() }
    }

    fn twins(snapshot: &FleetSnapshot) -> Vec<&str> {
        snapshot.nodes.iter().filter(|node| node.same_ollama_as.is_some()).map(|node| node.id.as_str()).collect()
    }

    #[test]
    fn who_joined_first_stands_for_an_ollama() {
        let lan = from("192.168.1.5", false);
        let first = join(&FleetSnapshot::default(), "z", lan, 11_434, 0);
        let both = join(&first, "a", lan, 11_434, 0);
        assert_eq!(twins(&both), ["a"]);
        assert_eq!(twins(&join(&both, "z", lan, 11_434, 1)), ["a"]);
        assert_eq!(twins(&join(&both, "b", lan, 11_435, 1)), ["a"], "another port is another Ollama");
        assert_eq!(twins(&join(&both, "b", from("192.168.1.6", false), 11_434, 1)), ["a"]);
    }

    #[test]
    fn all_addresses_of_the_edges_own_machine_are_one_place() {
        let first = join(&FleetSnapshot::default(), "a", from("127.0.0.1", true), 11_434, 0);
        assert_eq!(twins(&join(&first, "b", from("192.168.1.10", true), 11_434, 0)), ["b"]);
        assert_eq!(twins(&join(&first, "b", from("::1", true), 11_434, 0)), ["b"]);
        assert_eq!(twins(&join(&first, "b", from("192.168.1.10", false), 11_434, 0)), [""; 0]);
    }

    #[test]
    fn the_other_stands_for_it_when_the_first_is_silent_moves_or_goes() {
        let lan = from("192.168.1.5", false);
        let both = join(&join(&FleetSnapshot::default(), "a", lan, 11_434, 0), "b", lan, 11_434, 0);
        assert_eq!(twins(&both), ["b"]);
        let silent = LifeLimits::default().degraded_after_ms + 1;
        let later = join(&both, "b", lan, 11_434, silent);
        assert_eq!(twins(&later), ["a"]);
        assert_eq!(twins(&join(&later, "a", lan, 11_434, silent + 1)), ["b"], "and back");
        assert_eq!(twins(&join(&both, "a", lan, 11_500, 1)), [""; 0]);
        assert_eq!(twins(&both.without(&both.nodes[0].id).unwrap()), [""; 0]);
        both.nodes[0].load.set_probe_failed(true);
        assert_eq!(
            twins(&join(&both, "b", lan, 11_434, 1)),
            ["a"],
            "one that the edge does not reach stands for nothing"
        );
    }

    #[test]
    fn agents_that_are_slow_by_configuration_do_not_take_turns() {
        let (lan, life) =
            (from("192.168.1.5", false), LifeLimits { degraded_after_ms: 90_000, ..LifeLimits::default() });
        let beat = |snapshot: &FleetSnapshot, id, now_ms| join_in(snapshot, id, lan, 11_434, now_ms, &life);
        let both = beat(&beat(&FleetSnapshot::default(), "a", 0), "b", 0);
        assert_eq!(twins(&beat(&both, "b", 30_000)), ["b"]);
        assert_eq!(twins(&beat(&both, "b", 90_001)), ["a"]);
    }
}
