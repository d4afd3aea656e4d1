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
    assert_eq!(choose(&huge, &chat()).candidates[0].last_resort, Some("does_not_fit"), "Ollama counts swap and mmap");
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
    let spec = NodeSpec { capabilities: blind, ..NodeSpec::default().cold("m") };
    let mut short = fleet(&[("n", spec)], NOW).nodes[0].as_ref().clone();
    short.pressure = crate::wire::Pressure::Critical;
    let with_image = profile(r#"{"model":"m","messages":[{"content":"x","images":["aGk="]}]}"#);
    let snapshot = FleetSnapshot::default().with(short);
    assert_eq!(choose(&snapshot, &with_image).refused[0].1.name(), "memory_pressure");
}

#[test]
fn a_model_larger_than_a_node_goes_where_it_fits_and_else_is_tried() {
    let huge = |memory_bytes| NodeSpec { model_bytes: 80 * GIB, memory_bytes, ..NodeSpec::default().cold("m") };
    let both = fleet(&[("a", huge(64 * GIB)), ("b", huge(128 * GIB))], NOW);
    let decision = choose(&both, &chat());
    let order: Vec<_> = decision.candidates.iter().map(|c| (both.nodes[c.node].id.as_str(), c.last_resort)).collect();
    assert_eq!(order, [("b", None), ("a", Some("does_not_fit"))]);
    let small = fleet(&[("a", huge(64 * GIB)), ("b", huge(32 * GIB))], NOW);
    assert!(choose(&small, &chat()).ready().next().is_some(), "its Ollama says no, if it does");
}

#[test]
fn a_model_that_runs_elsewhere_needs_nothing_of_its_node() {
    let cloud = |model: &str, remote: &str| {
        let spec = NodeSpec { memory_bytes: GIB, free_bytes: 0, model_bytes: 384, ..NodeSpec::default().cold(model) };
        let mut heartbeat = spec.heartbeat("n", 1);
        let report = heartbeat.herd.as_mut().unwrap();
        report.ollama.available[0].remote_model = remote.into();
        report.memory.as_mut().unwrap().pressure = crate::wire::Pressure::Critical;
        let (life, limits) = (LifeLimits::default(), crate::fleet::HeartbeatLimits::default());
        match FleetSnapshot::default().apply(heartbeat, crate::testing::sender(), NOW, &life, &limits) {
            Ok(crate::fleet::Applied::Changed(next)) => next,
            other => panic!("{other:?}"),
        }
    };
    for (model, remote) in [("big:120b-cloud", "big:120b"), ("m:cloud", ""), ("mine", "big:120b")] {
        let snapshot = cloud(model, remote);
        let profile = profile(&format!(r#"{{"model":"{model}","messages":[],"options":{{"num_ctx":9000}}}}"#));
        let node = &snapshot.nodes[0];
        let held: Vec<_> = (0..40).map(|_| Claim::take(&node.load, &node.models[0].load, 0)).collect();
        let decision = choose(&snapshot, &profile);
        let best = decision.ready().next().expect("no slot is needed");
        assert_eq!(
            (best.last_resort, best.plan.action, best.plan.num_ctx),
            (None, ContextAction::Kept, None),
            "{model}"
        );
        assert_eq!((best.prediction.load_ms, best.prediction.wait_ms, best.seen.load), (0.0, 0.0, None), "{model}");
        assert_eq!((node.load.in_flight(), node.handed_on()), (40, 40));
        drop(held);
    }
}

#[test]
fn one_ollama_with_two_names_has_its_slots_once() {
    let join = |snapshot: FleetSnapshot, id: &str| {
        let mut heartbeat = NodeSpec { slots: Some(1), ..NodeSpec::default().hot("m", 8_192) }.heartbeat(id, 1);
        heartbeat.herd.as_mut().unwrap().ollama.address = "127.0.0.1:11434".into();
        let (life, limits) = (LifeLimits::default(), crate::fleet::HeartbeatLimits::default());
        match snapshot.apply(heartbeat, crate::testing::sender(), NOW, &life, &limits) {
            Ok(crate::fleet::Applied::Changed(next)) => next,
            other => panic!("{other:?}"),
        }
    };
    let snapshot = join(join(FleetSnapshot::default(), "a"), "b");
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), ["a"]);
    assert_eq!(choose(&snapshot, &chat()).refused, [(1, Ineligible::SameOllama)]);
    let _running = run(&snapshot, "a", "m");
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), [""; 0], "the second request waits");
}

#[test]
fn a_node_that_the_edge_never_reached_is_not_asked_and_not_waited_for() {
    let snapshot = fleet(&[("n", NodeSpec::default().hot("m", 8_192))], NOW);
    let node = &snapshot.nodes[0];
    let (state, life) = (|| node.state(NOW, &LifeLimits::default()), LifeLimits::default());
    assert_eq!((state().name(), choose(&snapshot, &chat()).candidates.len()), ("online", 1));
    node.load.set_probe_failed(true);
    assert_eq!(state().name(), "degraded", "it may just have died");
    node.load.agent_is_content();
    assert_eq!(state().name(), "degraded", "it may just have come back");
    node.load.probe_missed();
    assert_eq!((state().name(), node.condition(NOW, &life).name()), ("offline", "probe_fails"));
    assert_eq!(choose(&snapshot, &chat()).refused, [(0, Ineligible::Unreached)]);
    assert!(!Ineligible::Unreached.passes());
    // One that was reached may only be slow, and is still better than none.
    node.load.succeeded();
    assert_eq!(state().name(), "degraded");
    node.load.probe_succeeded(NOW);
    assert_eq!(state().name(), "online");
    node.load.set_probe_failed(true);
    assert_eq!(
        (state().name(), choose(&snapshot, &chat()).candidates[0].last_resort),
        ("degraded", Some("probe_failed"))
    );
}
