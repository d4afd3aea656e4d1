//! Nodes that cannot serve, and those that do so only where no other can.

use super::*;

#[test]
fn every_refusal_has_its_reason() {
    let hot = || NodeSpec::default().hot("m", 8192);
    let named = |edit: fn(&mut Node)| {
        let snapshot = fleet(&[("n", hot())], NOW);
        let mut node = snapshot.nodes[0].as_ref().clone();
        edit(&mut node);
        let decision = choose(&snapshot.with(node), &chat());
        assert!(decision.candidates.is_empty());
        decision.refused[0].1.name()
    };
    assert_eq!(named(|node| node.draining = true), "draining");
    assert_eq!(named(|node| node.cordoned = true), "draining");
    assert_eq!(named(|node| node.paused = Some("meeting".into())), "paused");
    assert_eq!(named(|node| node.ollama = crate::wire::OllamaState::Hung), "ollama_hung");
    assert_eq!(named(|node| node.ollama = crate::wire::OllamaState::Down), "offline");
    assert_eq!(named(|node| node.models.clear()), "model_absent");
    let snapshot = fleet(&[("n", hot())], NOW);
    let later = NOW + LifeLimits::default().offline_after_ms + 1;
    assert_eq!(decide(&snapshot, &chat(), &[], later).refused, [(0, Ineligible::Offline)]);
    assert_eq!(decide(&snapshot, &chat(), &[0], NOW).refused, [(0, Ineligible::AlreadyTried)]);
    let huge = fleet(&[("n", NodeSpec { model_bytes: 80 * GIB, ..NodeSpec::default().cold("m") })], NOW);
    assert_eq!(choose(&huge, &chat()).refused[0].1.name(), "does_not_fit");
    let mut short = fleet(&[("n", NodeSpec::default().cold("m"))], NOW).nodes[0].as_ref().clone();
    short.pressure = crate::wire::Pressure::Critical;
    assert_eq!(choose(&FleetSnapshot::default().with(short), &chat()).refused[0].1.name(), "memory_pressure");
}

#[test]
fn what_the_model_lacks_is_left_to_its_backend_to_say() {
    let blind = NodeSpec { capabilities: vec!["completion".into()], ..NodeSpec::default().hot("m", 8192) };
    let snapshot = fleet(&[("n", blind)], NOW);
    let with_image = profile(r#"{"model":"m","messages":[{"content":"x","images":["aGk="]}]}"#);
    assert_eq!(choose(&snapshot, &with_image).candidates[0].last_resort, Some("missing_capability"));
    assert_eq!(choose(&snapshot, &chat()).candidates[0].last_resort, None);
}

#[test]
fn a_suspected_node_serves_only_when_no_other_can() {
    let hot = || NodeSpec::default().hot("m", 8192);
    let suspected = |suspect: fn(&Node)| {
        let snapshot = fleet(&[("a", hot()), ("b", NodeSpec::default().cold("m"))], NOW);
        suspect(&snapshot.nodes[0]);
        let candidates = choose(&snapshot, &chat()).candidates;
        assert_eq!((candidates[0].node, candidates[1].node), (1, 0));
        candidates[1].last_resort
    };
    assert_eq!(suspected(|node| node.load.set_probe_failed(true)), Some("probe_failed"));
    assert_eq!(suspected(|node| (0..3).for_each(|_| node.load.failed(NOW))), Some("ejected"));
}

#[test]
fn a_stale_node_is_a_last_resort() {
    let snapshot = fleet(&[("old", NodeSpec::default().hot("m", 8192))], NOW);
    let later = NOW + LifeLimits::default().stale_after_ms + 1;
    let decision = decide(&snapshot, &chat(), &[], later);
    assert_eq!(decision.candidates[0].last_resort, Some("stale"));
    let fresh = fleet(&[("new", NodeSpec { bandwidth_gbps: 50.0, ..NodeSpec::default().cold("m") })], later).nodes[0]
        .as_ref()
        .clone();
    let decision = decide(&snapshot.with(fresh), &chat(), &[], later);
    assert_eq!(decision.candidates[0].last_resort, None);
}

#[test]
fn what_rules_a_node_out_is_not_hidden_by_what_makes_it_a_last_resort() {
    let blind = vec!["completion".to_owned()];
    let spec = NodeSpec { model_bytes: 80 * GIB, capabilities: blind, ..NodeSpec::default().cold("m") };
    let snapshot = fleet(&[("n", spec)], NOW);
    let with_image = profile(r#"{"model":"m","messages":[{"content":"x","images":["aGk="]}]}"#);
    assert_eq!(choose(&snapshot, &with_image).refused[0].1.name(), "does_not_fit");
}
