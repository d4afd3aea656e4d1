use super::*;
use crate::eligible::{Ineligible, node_eligible};
use crate::load::Claim;
use crate::name::ModelName;
use crate::testing::{NodeSpec, fleet, sender};
use crate::wire::{Heartbeat, OllamaState};

fn apply(snapshot: &FleetSnapshot, heartbeat: Heartbeat, from: Sender, now_ms: u64) -> Result<Applied, HeartbeatError> {
    snapshot.apply(heartbeat, from, now_ms, &LifeLimits::default(), &HeartbeatLimits::default())
}

#[track_caller]
fn changed(snapshot: &FleetSnapshot, heartbeat: Heartbeat, now_ms: u64) -> FleetSnapshot {
    match apply(snapshot, heartbeat, sender(), now_ms) {
        Ok(Applied::Changed(next)) => next,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(edit: impl FnOnce(&mut Heartbeat), message: &str) {
    let mut heartbeat = NodeSpec::default().hot("m", 4096).heartbeat("n", 1);
    edit(&mut heartbeat);
    let error = apply(&FleetSnapshot::default(), heartbeat, sender(), 0).unwrap_err();
    assert_eq!(error.to_string(), message);
}

fn from(ip: &str, trusted: bool) -> Sender {
    Sender { trusted, ..Sender::at(ip.parse().unwrap()) }
}

#[test]
fn hostile_heartbeats_are_refused() {
    refused(|h| h.node_id = "<b>".into(), "node_id has a character that is not allowed: '<'");
    refused(|h| h.memory_bandwidth_gbps = f64::NAN, "memory_bandwidth_gbps must be a finite number of at least 0");
    refused(
        |h| h.memory = Some(crate::wire::Memory { total_gb: -1.0, ..Default::default() }),
        "memory.total_gb must be a finite number of at least 0",
    );
    refused(|h| h.herd = None, "ollama is required");
    refused(|h| h.chip = "x".repeat(513), "chip exceeds its limit of 512");
    refused(
        |h| {
            let report = h.herd.as_mut().unwrap();
            report.ollama.loaded = vec![crate::wire::LoadedModel::default(); 513];
        },
        "herd.ollama.loaded exceeds its limit of 512",
    );
}

#[test]
fn without_the_token_a_node_offers_only_its_own_address() {
    let offered = |from: Sender, host: &str| {
        let mut heartbeat = NodeSpec::default().heartbeat("n", 1);
        heartbeat.ollama_host = host.into();
        match apply(&FleetSnapshot::default(), heartbeat, from, 0) {
            Ok(Applied::Changed(next)) => next.nodes[0].address.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(offered(from("192.168.1.5", false), "http://10.9.9.9:1234"), "192.168.1.5:1234");
    assert_eq!(offered(from("192.168.1.5", true), "http://10.9.9.9:1234"), "10.9.9.9:1234");
    assert_eq!(offered(from("192.168.1.5", true), "http://127.0.0.1:1234"), "192.168.1.5:1234");
    assert_eq!(offered(from("127.0.0.1", false), "http://localhost"), "127.0.0.1:11434");
    assert_eq!(offered(from("::ffff:10.0.0.2", false), ""), "10.0.0.2:11434");
    assert_eq!(offered(from("fe80::1", false), "http://[::1]:77/"), "[fe80::1]:77");
    let stranger = Sender { welcome: false, ..from("8.8.8.8", true) };
    let public = apply(&FleetSnapshot::default(), NodeSpec::default().heartbeat("n", 1), stranger, 0);
    assert_eq!(public.unwrap_err(), HeartbeatError::Source(stranger.ip));
}

/// What becomes of an agent that reports an Ollama at `address`.
fn reported(from: Sender, address: &str) -> Result<String, String> {
    let mut heartbeat = NodeSpec::default().heartbeat("n", 1);
    heartbeat.herd.as_mut().unwrap().ollama.address = address.into();
    match apply(&FleetSnapshot::default(), heartbeat, from, 0) {
        Ok(Applied::Changed(next)) => Ok(next.nodes[0].address.to_string()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn an_ollama_on_another_machine_than_its_agent_needs_the_token() {
    for (sender, address) in [
        ("192.168.1.5", "10.9.9.9:1234"),
        ("192.168.1.5", "192.168.1.6:1234"),
        ("127.0.0.1", "127.0.0.2:1234"),
        ("127.0.0.1", "172.18.0.3:1234"),
        ("fd00::5", "[fd00::6]:1234"),
    ] {
        let refused = reported(from(sender, false), address).unwrap_err();
        assert!(refused.contains(address) && refused.contains("join_token"), "{refused}");
        assert_eq!(reported(from(sender, true), address), Ok(address.into()), "with the token");
    }
    for (sender, address, expected) in [
        ("192.168.1.5", "127.0.0.1:1234", "192.168.1.5:1234"),
        ("192.168.1.5", "127.0.0.2:1234", "192.168.1.5:1234"),
        ("192.168.1.5", "192.168.1.5:1234", "192.168.1.5:1234"),
        ("192.168.1.5", "[::1]:1234", "192.168.1.5:1234"),
        ("192.168.1.5", "0.0.0.0:1234", "192.168.1.5:1234"),
        ("127.0.0.1", "[::1]:1234", "127.0.0.1:1234"),
    ] {
        for trusted in [false, true] {
            assert_eq!(reported(from(sender, trusted), address), Ok(expected.into()), "{sender} {address}");
        }
    }
}

#[test]
fn an_edge_is_no_node_of_itself() {
    let here = |ip: &str| Sender { here: true, edge_port: Some(11_435), ..from(ip, false) };
    for (sender, address) in
        [("127.0.0.1", "127.0.0.1:11435"), ("192.168.1.5", "127.0.0.1:11435"), ("::1", "[::1]:11435")]
    {
        let refused = reported(here(sender), address).unwrap_err();
        assert!(refused.contains("this edge itself") && refused.contains("--ollama-url"), "{refused}");
    }
    assert_eq!(reported(here("127.0.0.1"), "127.0.0.1:11434"), Ok("127.0.0.1:11434".into()));
    let elsewhere = Sender { here: false, ..here("192.168.1.5") };
    assert_eq!(reported(elsewhere, "127.0.0.1:11435"), Ok("192.168.1.5:11435".into()), "an Ollama may have that port");
}

#[test]
fn nobody_else_takes_a_node_out() {
    let mut first = NodeSpec::default().heartbeat("n", 1);
    first.herd.as_mut().unwrap().boot = "first".into();
    let (lan, other) = (from("192.168.1.5", true), from("192.168.1.6", true));
    let Ok(Applied::Changed(snapshot)) = apply(&FleetSnapshot::default(), first, lan, 0) else { panic!("refused") };
    let leaving = |boot: &str| {
        let report = crate::wire::HerdReport { boot: boot.into(), ..Default::default() };
        let herd = (!boot.is_empty()).then_some(report);
        Heartbeat { node_id: "n".into(), draining: true, herd, ..Heartbeat::default() }
    };
    let drains = |boot: &str, from: Sender| match apply(&snapshot, leaving(boot), from, 0) {
        Ok(Applied::Changed(next)) => next.nodes[0].draining,
        Err(HeartbeatError::NotYours) => false,
        other => panic!("{other:?}"),
    };
    // A twin that was refused knows the token, the name and its own run; an older agent tells no run.
    assert!(!drains("second", other) && !drains("", other));
    assert!(!drains("second", lan), "not a second agent on the machine either");
    assert!(!drains("first", Sender { trusted: false, ..other }));
    assert!(drains("first", lan) && drains("", lan));
    assert!(drains("first", other), "a laptop that changed its network");
}

#[test]
fn a_node_id_belongs_to_its_machine_until_that_is_silent() {
    let snapshot = fleet(&[("n", NodeSpec::default())], 0);
    let mut other = NodeSpec::default().heartbeat("n", 1);
    other.herd.as_mut().unwrap().boot = "another".into();
    let from_elsewhere = from("192.168.1.9", false);
    assert!(matches!(apply(&snapshot, other.clone(), from_elsewhere, 5_000), Err(HeartbeatError::Taken { .. })));
    let later = LifeLimits::default().degraded_after_ms + 1;
    assert!(matches!(apply(&snapshot, other, from_elsewhere, later), Ok(Applied::Changed(_))));
    let drain = Heartbeat { node_id: "n".into(), draining: true, ..Heartbeat::default() };
    assert!(matches!(apply(&snapshot, drain.clone(), from_elsewhere, 0), Err(HeartbeatError::NotYours)));
    assert!(changed(&snapshot, drain, 0).nodes[0].draining);
}

/// A heartbeat of the run `boot` of the node `n`.
fn beat(boot: &str, seq: u64) -> Heartbeat {
    let mut heartbeat = NodeSpec::default().heartbeat("n", seq);
    heartbeat.herd.as_mut().unwrap().boot = boot.into();
    heartbeat
}

#[test]
fn the_name_of_a_run_moves_no_node_without_the_token() {
    let life = LifeLimits::default();
    let (home, thief) = (from("192.168.1.5", false), from("192.168.1.66", false));
    let Ok(Applied::Changed(snapshot)) = apply(&FleetSnapshot::default(), beat("run", 1), home, 0) else { panic!() };
    let at = |from: Sender, seq: u64, now_ms: u64| apply(&snapshot, beat("run", seq), from, now_ms);
    assert!(matches!(at(thief, 2, 1_000), Err(HeartbeatError::Taken { .. })), "copied from a clear heartbeat");
    assert!(matches!(at(Sender { trusted: true, ..thief }, 2, 1_000), Ok(Applied::Changed(_))));
    assert!(matches!(at(thief, 2, life.degraded_after_ms + 1), Ok(Applied::Changed(_))), "a laptop in another network");
    assert!(matches!(at(home, 2, 1_000), Ok(Applied::Changed(_))));
}

#[test]
fn a_run_counts_on_and_does_not_jump() {
    let silent_ms = LifeLimits::default().degraded_after_ms + 1;
    let home = from("192.168.1.5", false);
    let Ok(Applied::Changed(snapshot)) = apply(&FleetSnapshot::default(), beat("run", 100), home, 0) else { panic!() };
    let at = |seq: u64, now_ms: u64| apply(&snapshot, beat("run", seq), home, now_ms);
    assert!(matches!(at(100, 9), Ok(Applied::Outdated)), "an answer was lost, and it was sent again");
    assert_eq!(at(99, 9).unwrap_err(), HeartbeatError::Stale { seq: 99, known: 100 });
    assert!(at(99, 9).unwrap_err().to_string().contains("another agent"));
    assert!(matches!(at(164, 0), Ok(Applied::Changed(_))));
    assert_eq!(at(165, 0).unwrap_err(), HeartbeatError::Ahead { seq: 165, known: 100 });
    assert!(matches!(at(165, 100), Ok(Applied::Changed(_))), "it may count on meanwhile");
    assert_eq!(at(u64::MAX, silent_ms - 1).unwrap_err().code(), "ahead");
    assert!(matches!(at(u64::MAX, silent_ms), Ok(Applied::Changed(_))), "who was silent begins anew");
    assert!(matches!(at(1, silent_ms), Ok(Applied::Changed(_))));
}

#[test]
fn one_address_fills_no_fleet() {
    let limits = HeartbeatLimits { nodes_per_address: 3, nodes: 6, ..HeartbeatLimits::default() };
    let life = LifeLimits::default();
    let mut snapshot = FleetSnapshot::default();
    let mut join =
        |id: &str, from: Sender| match snapshot.apply(NodeSpec::default().heartbeat(id, 1), from, 0, &life, &limits) {
            Ok(Applied::Changed(next)) => {
                snapshot = next;
                "joined"
            }
            Ok(Applied::Outdated) => "outdated",
            Err(error) => error.code(),
        };
    let one = from("192.168.1.66", false);
    assert_eq!(["a", "b", "c", "d"].map(|id| join(id, one)), ["joined", "joined", "joined", "address_full"]);
    assert_eq!(join("d", from("192.168.1.67", false)), "joined");
    assert_eq!(join("e", Sender { trusted: true, ..one }), "joined", "the token tells who may have more");
    assert_eq!(join("f", from("127.0.0.1", false)), "joined");
    assert_eq!(join("g", from("127.0.0.1", false)), "fleet_full");
    // An IPv6 host has more addresses than anybody can count.
    let mut snapshot = FleetSnapshot::default();
    for host in 0..3_u128 {
        let sender = Sender::at(std::net::Ipv6Addr::from_bits(0xfd00 << 112 | host).into());
        let Ok(Applied::Changed(next)) =
            snapshot.apply(NodeSpec::default().heartbeat(&format!("n{host}"), 1), sender, 0, &life, &limits)
        else {
            panic!()
        };
        snapshot = next;
    }
    let next_host = snapshot.apply(NodeSpec::default().heartbeat("m", 1), from("fd00::9", false), 0, &life, &limits);
    assert_eq!(next_host.unwrap_err().code(), "address_full");
}

#[test]
fn a_full_fleet_gives_up_the_silent_ones_that_were_never_seen() {
    let limits = HeartbeatLimits { nodes: 3, ..HeartbeatLimits::default() };
    let life = LifeLimits::default();
    let unseen = Sender { to_be_verified: true, ..sender() };
    let join = |snapshot: &FleetSnapshot, id: &str, now_ms: u64| {
        snapshot.apply(NodeSpec::default().heartbeat(id, 1), unseen, now_ms, &life, &limits)
    };
    let mut snapshot = FleetSnapshot::default();
    for (id, now_ms) in [("honest", 0), ("old", 1), ("older", 0)] {
        let Ok(Applied::Changed(next)) = join(&snapshot, id, now_ms) else { panic!() };
        snapshot = next;
    }
    snapshot.node("honest").unwrap().load.verified(1);
    assert_eq!(join(&snapshot, "new", 100).unwrap_err(), HeartbeatError::Full(3), "all have just been heard");
    let Ok(Applied::Changed(next)) = join(&snapshot, "new", life.degraded_after_ms + 2) else { panic!() };
    let ids: Vec<_> = next.nodes.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids, ["honest", "new", "old"]);
}

#[test]
fn the_models_of_all_nodes_are_bounded() {
    let limits = HeartbeatLimits { models_total: 2, ..HeartbeatLimits::default() };
    let life = LifeLimits::default();
    let snapshot = fleet(&[("a", NodeSpec::default().hot("x", 4_096))], 0);
    let apply = |snapshot: &FleetSnapshot, id: &str, models: &[&str], seq: u64| {
        let spec = models.iter().fold(NodeSpec::default(), |spec, model| spec.hot(model, 4_096));
        snapshot.apply(spec.heartbeat(id, seq), sender(), 0, &life, &limits)
    };
    let Ok(Applied::Changed(full)) = apply(&snapshot, "b", &["x"], 1) else { panic!() };
    assert_eq!(apply(&full, "c", &["x"], 1).unwrap_err(), HeartbeatError::Models(2));
    assert_eq!(apply(&full, "b", &["x", "y"], 2).unwrap_err(), HeartbeatError::Models(2));
    assert!(matches!(apply(&full, "b", &["x"], 2), Ok(Applied::Changed(_))), "what is there goes on");
    assert!(matches!(apply(&full, "c", &[], 1), Ok(Applied::Changed(_))));
}

#[test]
fn a_node_takes_nothing_before_its_ollama_was_seen() {
    let life = LifeLimits::default();
    let unseen = Sender { to_be_verified: true, ..from("192.168.1.5", true) };
    let join = |snapshot: &FleetSnapshot, from: Sender, seq: u64| match snapshot.apply(
        NodeSpec::default().heartbeat("n", seq),
        from,
        0,
        &life,
        &HeartbeatLimits::default(),
    ) {
        Ok(Applied::Changed(next)) => next,
        other => panic!("{other:?}"),
    };
    let snapshot = join(&FleetSnapshot::default(), unseen, 1);
    let told = |snapshot: &FleetSnapshot| {
        let node = &snapshot.nodes[0];
        let eligible = node_eligible(node, 0, &life).map_or_else(Ineligible::name, |()| "eligible");
        (node.state(0, &life).name(), node.condition(0, &life).name(), eligible)
    };
    assert_eq!(told(&snapshot), ("offline", "unverified", "unverified"));
    snapshot.nodes[0].load.found_foreign();
    assert_eq!(told(&snapshot), ("offline", "not_ollama", "not_ollama"));
    snapshot.nodes[0].load.verified(1);
    assert_eq!(told(&snapshot), ("online", "well", "eligible"));
    let again = join(&snapshot, unseen, 2);
    assert_eq!(told(&again), ("online", "well", "eligible"), "once is enough");
    let moved = join(&again, Sender { ip: "192.168.1.6".parse().unwrap(), ..unseen }, 3);
    assert_eq!(told(&moved), ("offline", "unverified", "unverified"), "at another address it is to be seen again");
    moved.nodes[0].load.looked_in_vain();
    moved.nodes[0].load.looked_in_vain();
    assert_eq!(told(&moved), ("offline", "probe_fails", "unreached"));
}

#[test]
fn old_heartbeats_change_nothing() {
    let snapshot = fleet(&[("n", NodeSpec::default())], 0);
    assert!(matches!(apply(&snapshot, NodeSpec::default().heartbeat("n", 1), sender(), 9), Ok(Applied::Outdated)));
    let next = changed(&snapshot, NodeSpec::default().heartbeat("n", 2), 9);
    assert_eq!((next.nodes[0].heartbeat_at_ms, next.nodes[0].joined_at_ms), (9, 0));
    let mut restarted = NodeSpec::default().heartbeat("n", 1);
    restarted.herd.as_mut().unwrap().boot = "again".into();
    assert_eq!(changed(&next, restarted, 11).nodes[0].heartbeat_at_ms, 11);
}

#[test]
fn our_counts_survive_heartbeats_and_are_never_written_by_them() {
    let spec = NodeSpec { busy_by_others: 3, slots: Some(4), ..NodeSpec::default().hot("m", 4096) };
    let snapshot = fleet(&[("n", spec.clone())], 0);
    let node = &snapshot.nodes[0];
    assert_eq!(node.busy_by_others(), 3);
    let claim = Claim::take(&node.load, &node.models[0].load, 1);
    let next = changed(&snapshot, spec.heartbeat("n", 2), 5);
    assert_eq!((next.in_flight(), next.nodes[0].models[0].load.in_flight()), (1, 1));
    assert_eq!(next.nodes[0].busy_by_others(), 2, "one of the three is ours");
    drop(claim);
    assert_eq!(next.in_flight(), 0);
}

#[test]
fn a_node_that_moves_starts_with_a_clean_record_and_keeps_its_counts() {
    let spec = NodeSpec::default().hot("m", 4096);
    let before = fleet(&[("n", spec.clone())], 0);
    let old = &before.nodes[0];
    old.load.set_probe_failed(true);
    (0..3).for_each(|_| old.load.failed(0));
    let claim = Claim::take(&old.load, &old.models[0].load, 1);
    let mut moved = spec.heartbeat("n", 2);
    moved.ollama_host = "http://localhost:4711".into();
    let after = changed(&before, moved, 5);
    let new = &after.nodes[0];
    assert_eq!(new.address.port(), 4711);
    assert!(!new.load.probe_failed() && new.load.ejected_for_ms(0) == 0);
    assert_eq!(new.condition(5, &LifeLimits::default()), Condition::Well);
    // Requests and probes that still know the old address judge that one.
    old.load.set_probe_failed(true);
    (0..3).for_each(|_| old.load.failed(5));
    assert!(!new.load.probe_failed() && new.load.ejected_for_ms(5) == 0);
    assert_eq!((new.load.in_flight(), new.models[0].load.in_flight()), (1, 1));
    drop(claim);
    assert_eq!((new.load.in_flight(), new.models[0].load.in_flight()), (0, 0));
    old.load.set_probe_failed(false);
    let stays = changed(
        &after,
        {
            let mut beat = spec.heartbeat("n", 3);
            beat.ollama_host = "http://localhost:4711".into();
            beat
        },
        9,
    );
    stays.nodes[0].load.set_probe_failed(true);
    assert!(new.load.probe_failed(), "the record is that of the address");
}

#[test]
fn a_node_that_is_forgotten_while_it_is_busy_returns_with_its_counts() {
    let spec = NodeSpec { slots: Some(2), ..NodeSpec::default().hot("m", 4096) };
    let gone_ms = LifeLimits::default().gone_after_ms + 1;
    let forgotten = |before: &FleetSnapshot| before.without(&before.nodes[0].id.clone());
    let expired = |before: &FleetSnapshot| before.expired(gone_ms, &LifeLimits::default());
    for remove in [&forgotten as &dyn Fn(&FleetSnapshot) -> Option<FleetSnapshot>, &expired] {
        let before = fleet(&[("n", spec.clone())], 0);
        let node = &before.nodes[0];
        node.load.set_probe_failed(true);
        let claims: Vec<_> = (0..2).map(|ticket| Claim::take(&node.load, &node.models[0].load, ticket)).collect();
        let removed = remove(&before).unwrap();
        assert_eq!((removed.nodes.len(), removed.in_flight()), (0, 2));
        let returned = changed(&removed, spec.heartbeat("n", 9), gone_ms);
        let node = &returned.nodes[0];
        assert_eq!((node.load.in_flight(), node.models[0].load.in_flight(), returned.in_flight()), (2, 2, 2));
        assert!(!node.load.probe_failed(), "it has not been probed yet");
        drop(claims);
        assert_eq!((returned.in_flight(), node.models[0].load.in_flight()), (0, 0));
    }
}

#[test]
fn a_forgotten_node_is_remembered_only_while_requests_run_there() {
    let before = fleet(&[("n", NodeSpec::default().hot("m", 4096))], 0);
    let node = &before.nodes[0];
    let claim = Claim::take(&node.load, &node.models[0].load, 1);
    let removed = before.without(&node.id).unwrap();
    assert!(removed.expired(0, &LifeLimits::default()).is_none(), "nothing has changed");
    drop(claim);
    let later = removed.expired(0, &LifeLimits::default()).unwrap();
    assert!(later.expired(0, &LifeLimits::default()).is_none(), "and now it is forgotten");
}

#[test]
fn a_model_that_returns_while_its_requests_run_goes_on_with_their_count() {
    let (with, without) = (NodeSpec::default().hot("m", 4096).cold("o"), NodeSpec::default().cold("o"));
    let first = fleet(&[("n", with.clone())], 0);
    let load =
        |snapshot: &FleetSnapshot| Arc::clone(&snapshot.nodes[0].model(&ModelName::new("m").unwrap()).unwrap().load);
    let claim = Claim::take(&first.nodes[0].load, &load(&first), 1);
    let second = changed(&first, without.heartbeat("n", 2), 5);
    let third = changed(&second, without.heartbeat("n", 3), 6);
    let fourth = changed(&third, with.heartbeat("n", 4), 7);
    assert_eq!(load(&fourth).in_flight(), 1);
    drop(claim);
    assert_eq!(load(&fourth).in_flight(), 0);
    let fifth = changed(&fourth, without.heartbeat("n", 5), 8);
    assert!(fifth.nodes[0].left_models.is_empty());
}

#[test]
fn a_model_that_left_memory_stays_warm_for_a_while() {
    let snapshot = fleet(&[("n", NodeSpec::default().hot("m", 4096))], 0);
    let next = changed(&snapshot, NodeSpec::default().cold("m").heartbeat("n", 2), 700);
    assert_eq!(next.nodes[0].models[0].unloaded_at_ms, Some(700));
    let next = changed(&next, NodeSpec::default().cold("m").heartbeat("n", 3), 900);
    assert_eq!(next.nodes[0].models[0].unloaded_at_ms, Some(700));
}

#[test]
fn a_hung_ollama_keeps_its_models() {
    let snapshot = fleet(&[("n", NodeSpec::default().hot("m", 4096))], 0);
    let mut hung = NodeSpec::default().heartbeat("n", 2);
    hung.herd.as_mut().unwrap().ollama.state = OllamaState::Hung;
    let next = changed(&snapshot, hung, 700);
    assert!(next.nodes[0].models[0].resident.is_some());
    assert_eq!(next.nodes[0].state(700, &LifeLimits::default()), NodeState::Degraded);
}

#[test]
fn the_recorded_heartbeat_of_the_python_agent_is_understood() {
    let text = include_str!("../../../tests/golden/heartbeat-ollama-herd-0.11.4.json");
    let heartbeat: Heartbeat = serde_json::from_str(text).unwrap();
    let snapshot = changed(&FleetSnapshot::default(), heartbeat, 0);
    let node = snapshot.node("node-a").unwrap();
    assert_eq!(node.address.to_string(), "127.0.0.1:21434");
    let hot = node.model(&ModelName::new("llama3.2:3b").unwrap()).unwrap();
    assert_eq!(hot.resident.as_ref().unwrap().context_length, Some(8192));
    assert_eq!(hot.size_bytes, Some(2_019_393_189));
    let embed = node.model(&ModelName::new("nomic-embed-text").unwrap()).unwrap();
    assert_eq!((embed.capabilities.has("embedding"), embed.capabilities.has("completion")), (Some(true), Some(false)));
    assert_eq!(node.models.len(), 4);
}

#[test]
fn metadata_left_out_is_kept() {
    let text = include_str!("../../../tests/golden/heartbeat-ollama-herd-0.11.4.json");
    let mut heartbeat: Heartbeat = serde_json::from_str(text).unwrap();
    let snapshot = changed(&FleetSnapshot::default(), heartbeat.clone(), 0);
    heartbeat.ollama.as_mut().unwrap().models_available_meta = None;
    let next = changed(&snapshot, heartbeat, 1);
    assert_eq!(next.nodes[0].model(&ModelName::new("gemma3:27b").unwrap()).unwrap().details.family, "gemma3");
}

#[test]
fn silent_nodes_age_and_go() {
    let life = LifeLimits::default();
    let snapshot = fleet(&[("n", NodeSpec::default())], 0);
    let state = |now_ms| snapshot.nodes[0].state(now_ms, &life);
    assert_eq!(state(life.degraded_after_ms), NodeState::Online);
    assert_eq!(state(life.degraded_after_ms + 1), NodeState::Degraded);
    assert_eq!(state(life.stale_after_ms + 1), NodeState::Stale);
    assert_eq!(state(life.offline_after_ms + 1), NodeState::Offline);
    assert!(snapshot.expired(life.gone_after_ms, &life).is_none());
    assert!(snapshot.expired(life.gone_after_ms + 1, &life).unwrap().nodes.is_empty());
}

#[test]
fn numbers_are_kept_and_never_reused() {
    let snapshot = fleet(&[("b", NodeSpec::default()), ("a", NodeSpec::default())], 0);
    assert_eq!(snapshot.nodes.iter().map(|node| node.number).collect::<Vec<_>>(), [1, 0]);
    let id = snapshot.nodes[0].id.clone();
    let next = changed(&snapshot.without(&id).unwrap(), NodeSpec::default().heartbeat("a", 1), 0);
    assert_eq!(next.node("a").unwrap().number, 2);
}

#[test]
fn the_fleet_has_a_limit() {
    let limits = HeartbeatLimits { nodes: 1, ..HeartbeatLimits::default() };
    let snapshot = fleet(&[("a", NodeSpec::default())], 0);
    let more = snapshot.apply(NodeSpec::default().heartbeat("b", 1), sender(), 0, &LifeLimits::default(), &limits);
    assert_eq!(more.unwrap_err(), HeartbeatError::Full(1));
}

#[test]
fn availability_falls_when_the_owner_comes_back() {
    let trend = [0.95, 0.94, 0.95, 0.3, 0.2].into_iter().fold(Trend::default(), Trend::with);
    assert!(trend.direction().unwrap() < -0.3, "{trend:?}");
    assert_eq!(Trend::default().with(0.5).direction(), None);
    let stable = [0.5; 9].into_iter().fold(Trend::default(), Trend::with);
    assert!(stable.direction().unwrap().abs() < 1e-9);
}

/// A heartbeat of a node whose models all have one digest, `blob`, or none.
fn one_blob(spec: &NodeSpec, seq: u64, blob: &str) -> Heartbeat {
    let mut heartbeat = spec.heartbeat("n", seq);
    let models = &mut heartbeat.herd.as_mut().unwrap().ollama.available;
    for model in models {
        model.digest = blob.into();
    }
    heartbeat
}

fn named<'a>(snapshot: &'a FleetSnapshot, name: &str) -> &'a Model {
    snapshot.nodes[0].model(&ModelName::new(name).unwrap()).unwrap()
}

#[test]
fn names_of_one_blob_have_one_runner() {
    let spec = NodeSpec { slots: Some(4), busy_by_others: 3, ..NodeSpec::default().cold("a").hot("b", 8192) };
    let snapshot = changed(&FleetSnapshot::default(), one_blob(&spec, 1, "d"), 0);
    let (a, b) = (named(&snapshot, "a"), named(&snapshot, "b"));
    assert_eq!(a.resident, b.resident);
    assert_eq!(a.resident.as_ref().unwrap().context_length, Some(8192));
    assert!(Arc::ptr_eq(&a.load, &b.load));
    assert!(a.shares_runner && !b.shares_runner, "the name that loaded it stands for it");
    let node = &snapshot.nodes[0];
    assert_eq!((node.busy_by_others(), node.runners().count()), (3, 1));

    let claim = Claim::take(&node.load, &a.load, 1);
    let next = changed(&snapshot, one_blob(&spec, 2, "d"), 5);
    assert_eq!((named(&next, "b").load.in_flight(), next.nodes[0].busy_by_others()), (1, 2));
    drop(claim);
    assert_eq!(named(&next, "b").load.in_flight(), 0);
    let idle = NodeSpec::default().cold("a").hot("b", 8192);
    let next = changed(&next, one_blob(&idle, 3, "d"), 6);
    assert_eq!(next.nodes[0].evictable_bytes(), crate::testing::GIB * 4, "counted once");

    let gone = NodeSpec::default().cold("a").cold("b");
    let next = changed(&next, one_blob(&gone, 4, "d"), 7);
    assert_eq!(["a", "b"].map(|name| named(&next, name).unloaded_at_ms), [Some(7); 2]);
}

#[test]
fn unknown_and_different_digests_share_nothing() {
    let spec = NodeSpec::default().cold("a").hot("b", 8192);
    for heartbeat in [one_blob(&spec, 1, ""), spec.heartbeat("n", 1)] {
        let snapshot = changed(&FleetSnapshot::default(), heartbeat, 0);
        assert_eq!(named(&snapshot, "a").resident, None);
        assert!(!Arc::ptr_eq(&named(&snapshot, "a").load, &named(&snapshot, "b").load));
    }
}

#[test]
fn a_count_outlives_the_coming_and_going_of_names() {
    let spec = |names: &[&str]| names.iter().fold(NodeSpec::default(), |spec, name| spec.hot(name, 4096));
    let snapshot = changed(&FleetSnapshot::default(), one_blob(&spec(&["m"]), 1, "d"), 0);
    let load = Arc::clone(&named(&snapshot, "m").load);
    // A name that sorts first comes later, the old name goes, and comes back.
    let mut next = snapshot;
    for (seq, names) in [(2, &["a", "m"][..]), (3, &["a"]), (4, &["a", "m", "z"])] {
        next = changed(&next, one_blob(&spec(names), seq, "d"), seq);
        assert!(names.iter().all(|name| Arc::ptr_eq(&named(&next, name).load, &load)), "{names:?}");
    }
}

#[test]
fn names_that_come_to_share_a_blob_go_on_with_the_busy_count() {
    let spec = NodeSpec::default().hot("a", 4096).hot("b", 4096);
    let apart = changed(&FleetSnapshot::default(), spec.heartbeat("n", 1), 0);
    let claim = Claim::take(&apart.nodes[0].load, &named(&apart, "b").load, 1);
    let shared = changed(&apart, one_blob(&spec, 2, "d"), 1);
    assert_eq!(["a", "b"].map(|name| named(&shared, name).load.in_flight()), [1, 1]);
    let parted = changed(&shared, spec.heartbeat("n", 3), 2);
    assert_eq!(["a", "b"].map(|name| named(&parted, name).load.in_flight()), [1, 0]);
    drop(claim);
    assert_eq!(parted.in_flight(), 0);
    assert_eq!(["a", "b"].map(|name| named(&parted, name).load.in_flight()), [0, 0]);
}

#[test]
fn an_alias_of_herd_s_own_shares_the_runner_of_its_model() {
    let model = ModelName::new("m").unwrap();
    let alias = crate::alias::alias_name(&model, 8192, crate::alias::EdgeMark(1)).unwrap();
    let spec = NodeSpec::default().cold("m").hot(alias.as_str(), 8192);
    let snapshot = changed(&FleetSnapshot::default(), spec.heartbeat("n", 1), 0);
    assert_eq!(named(&snapshot, "m").resident.as_ref().unwrap().context_length, Some(8192));
    assert!(Arc::ptr_eq(&named(&snapshot, "m").load, &named(&snapshot, alias.as_str()).load));
}

#[test]
fn of_two_runners_of_one_name_the_one_that_serves_it_is_kept() {
    let both = |first, second| NodeSpec::default().hot("m", first).hot("m", second).heartbeat("n", 1);
    let context = |heartbeat| {
        let snapshot = changed(&FleetSnapshot::default(), heartbeat, 0);
        named(&snapshot, "m").resident.as_ref().unwrap().context_length
    };
    assert_eq!(context(both(4096, 8192)), Some(8192));
    assert_eq!(context(both(8192, 4096)), Some(8192));
    let mut pulled_anew = both(4096, 8192);
    pulled_anew.herd.as_mut().unwrap().ollama.loaded[0].digest = "digest of m".into();
    assert_eq!(context(pulled_anew), Some(4096), "the larger one is of the old blob");
}

#[test]
fn huge_numbers_do_not_overflow() {
    let mut heartbeat =
        NodeSpec { busy_by_others: u32::MAX, ..NodeSpec::default().hot("m", 1).hot("n", 1) }.heartbeat("n", 1);
    let gpu =
        crate::wire::Gpu { vram_total_bytes: Some(u64::MAX), vram_free_bytes: Some(u64::MAX), ..Default::default() };
    let report = heartbeat.herd.as_mut().unwrap();
    report.gpus = vec![gpu.clone(), gpu];
    report.ollama.loaded.iter_mut().for_each(|model| model.size_bytes = u64::MAX);
    report.ollama.loaded.iter_mut().for_each(|model| model.size_vram_bytes = u64::MAX);
    let node = &changed(&FleetSnapshot::default(), heartbeat, 0).nodes[0];
    assert_eq!((node.device.total_bytes, node.busy_by_others()), (Some(u64::MAX), u32::MAX));
    assert_eq!(crate::spot::Spot::read(node, &node.models[0], 0).occupancy, u32::MAX);
    assert_eq!(node.evictable_bytes(), 0);
}

#[test]
fn no_text_of_a_heartbeat_is_without_a_bound() {
    let long = "x".repeat(513);
    refused(
        |h| h.herd.as_mut().unwrap().ollama.loaded[0].expires_at = long.clone(),
        "herd.ollama.loaded exceeds its limit of 512",
    );
    refused(
        |h| h.herd.as_mut().unwrap().ollama.available[0].modified_at = long.clone(),
        "herd.ollama.available exceeds its limit of 512",
    );
    let summary = crate::wire::LoadedSummary { runner: long.clone(), ..Default::default() };
    let ollama = crate::wire::Ollama { models_loaded: vec![summary], ..Default::default() };
    refused(|h| h.ollama = Some(ollama), "ollama.models_loaded exceeds its limit of 512");
}

#[test]
fn a_capability_is_the_one_that_was_named() {
    for name in Capabilities::NAMES {
        let told = Capabilities::from_names(&[name.to_owned()]);
        let has: Vec<_> = Capabilities::NAMES.iter().filter(|other| told.has(other) == Some(true)).collect();
        assert_eq!(has, [&name]);
        assert_eq!((told.has("flight"), Capabilities::default().has(name)), (None, None));
    }
}
