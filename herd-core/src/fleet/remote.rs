//! Models that run in Ollama's cloud: a node hands requests on to them whether it lists them or not.

use std::sync::Arc;

use super::apply::remember;
use super::{FleetSnapshot, Node};
use crate::name::ModelName;
use crate::version::Version;
use crate::wire::OllamaState;

/// First version of Ollama that hands a request on for a cloud model of which it has no stub.
const WITHOUT_STUB: Version = Version(0, 17, 0);

/// Models per node that are offered although the node does not list them. Names come from clients.
const UNLISTED_MAX: usize = 64;

impl FleetSnapshot {
    /// The picture in which each node that can serves the cloud model `name`, where no node lists it; `None` = it is none,
    /// or nothing changes.
    #[must_use]
    pub fn with_remote(&self, name: &ModelName) -> Option<Self> {
        let lacks = |node: &Arc<Node>| hands_on(node) && node.model(name).is_none();
        let is_listed = || self.nodes.iter().any(|node| node.model(name).is_some_and(|model| !model.unlisted));
        // Asked for every request for a cloud model: mostly all is as it should be.
        if !name.is_cloud() || !self.nodes.iter().any(lacks) || is_listed() {
            return None;
        }
        let mut next = self.next();
        for node in next.nodes.iter_mut().filter(|node| lacks(node)) {
            let mut with = node.as_ref().clone();
            make_room(&mut with);
            let model = remember(name.clone(), None, None, None, Arc::default());
            let place = with.models.partition_point(|known| known.key < model.key);
            with.models.insert(place, model);
            with.sum_up();
            *node = Arc::new(with);
        }
        Some(next)
    }
}

/// Whether its Ollama needs no stub of a cloud model. A version that is not known may be one that does not.
fn hands_on(node: &Node) -> bool {
    let version = node.heartbeat.herd.as_ref().map(|report| report.ollama.version.as_str());
    let version = version.or(node.heartbeat.ollama.as_ref().map(|ollama| ollama.version.as_str()));
    let old = version.and_then(Version::parse).is_some_and(|version| version < WITHOUT_STUB);
    !old && node.ollama == OllamaState::Ok
}

/// Keeps the number of unlisted models bounded: one that nobody uses goes.
fn make_room(node: &mut Node) {
    let unlisted = node.models.iter().filter(|model| model.unlisted).count();
    if unlisted < UNLISTED_MAX {
        return;
    }
    if let Some(idle) = node.models.iter().position(|model| model.unlisted && model.load.in_flight() == 0) {
        node.models.remove(idle);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Applied, HeartbeatLimits, LifeLimits};
    use super::*;
    use crate::testing::{NodeSpec, fleet, sender};

    fn name(text: &str) -> ModelName {
        ModelName::new(text).unwrap()
    }

    #[test]
    fn cloud_models_are_told_by_their_tag() {
        for cloud in ["m:cloud", "gpt-oss:120b-cloud", "GPT-OSS:120B-Cloud", "gpt-oss:20b:cloud", "me/m:cloud"] {
            assert!(name(cloud).is_cloud(), "{cloud}");
        }
        for local in ["m", "cloud", "my-cloud", "m:cloudy", "m:latest", "cloud:latest", "host:1/me/m-cloud"] {
            assert!(!name(local).is_cloud(), "{local}");
        }
    }

    fn old(id: &str, version: &str, snapshot: &FleetSnapshot) -> FleetSnapshot {
        let mut heartbeat = NodeSpec::default().cold("m").heartbeat(id, 1);
        heartbeat.herd.as_mut().unwrap().ollama.version = version.into();
        let (life, limits) = (LifeLimits::default(), HeartbeatLimits::default());
        match snapshot.apply(heartbeat, sender(), 0, &life, &limits) {
            Ok(Applied::Changed(next)) => next,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_node_that_can_serves_a_cloud_model_that_none_lists() {
        let snapshot = FleetSnapshot::default();
        let snapshot = ["0.16.3", "0.17.0", "0.33.0-rc2", "?"].iter().fold(snapshot, |fleet, version| {
            // One Ollama each, or they are one node.
            let id = format!("n{}", fleet.nodes.len());
            let fleet = old(&id, version, &fleet);
            let mut node = fleet.node(&id).unwrap().as_ref().clone();
            node.address.set_port(1000 + u16::try_from(fleet.nodes.len()).unwrap());
            fleet.with(node)
        });
        let cloud = name("m:cloud");
        let offered = snapshot.with_remote(&cloud).unwrap();
        let has = |fleet: &FleetSnapshot| -> Vec<bool> {
            fleet.nodes.iter().map(|node| node.model(&cloud).is_some()).collect()
        };
        assert_eq!(has(&offered), [false, true, true, true]);
        assert!(offered.with_remote(&cloud).is_none(), "nothing is left to change");
        assert!(offered.with_remote(&name("m:latest")).is_none());
        // A heartbeat does not know of it.
        let beat = NodeSpec::default().cold("m").heartbeat("n1", 2);
        let Ok(Applied::Changed(next)) =
            offered.apply(beat, sender(), 9, &LifeLimits::default(), &HeartbeatLimits::default())
        else {
            panic!("refused")
        };
        let model = next.node("n1").unwrap().model(&cloud).unwrap();
        assert!(model.remote && model.unlisted && model.resident.is_none());
    }

    #[test]
    fn names_of_clients_are_bounded() {
        let mut snapshot = fleet(&[("n", NodeSpec::default())], 0);
        for number in 0..3 * UNLISTED_MAX {
            snapshot = snapshot.with_remote(&name(&format!("m{number}:cloud"))).unwrap();
        }
        assert_eq!(snapshot.nodes[0].models.len(), UNLISTED_MAX);
        assert!(snapshot.nodes[0].models.is_sorted_by_key(|model| model.key));
    }
}
