//! Which node is best.

use super::*;

#[track_caller]
fn wins(nodes: &[(&str, NodeSpec)], expected: &str) {
    let snapshot = fleet(nodes, NOW);
    let decision = choose(&snapshot, &chat());
    let winner = decision.candidates.first().map(|candidate| snapshot.nodes[candidate.node].id.as_str());
    assert_eq!(winner, Some(expected), "{decision:#?}");
}

#[test]
fn warmth_memory_size_and_load_decide() {
    let hot = || NodeSpec::default().hot("m", 8192);
    let cold = || NodeSpec::default().cold("m");
    wins(&[("a", cold()), ("b", hot())], "b");
    wins(&[("a", NodeSpec { free_bytes: 5 * GIB, ..cold() }), ("b", cold())], "b");
    wins(&[("a", NodeSpec { busy_by_others: 1, ..hot() }), ("b", hot())], "b");
    wins(
        &[
            ("a", NodeSpec { busy_by_others: 2, slots: Some(2), ..hot() }),
            ("b", NodeSpec { busy_by_others: 2, slots: Some(4), ..hot() }),
        ],
        "b",
    );
    wins(&[("a", NodeSpec { bandwidth_gbps: 60.0, ..hot() }), ("b", NodeSpec { bandwidth_gbps: 800.0, ..hot() })], "b");
}

#[test]
fn small_models_go_to_small_machines_and_large_ones_to_large() {
    let machine = |memory: u64, model_bytes: u64| NodeSpec {
        memory_bytes: memory * GIB,
        free_bytes: memory * GIB,
        model_bytes,
        ..NodeSpec::default().cold("m")
    };
    wins(&[("big", machine(512, GIB)), ("small", machine(16, GIB))], "small");
    wins(&[("big", machine(512, 60 * GIB)), ("small", machine(80, 60 * GIB))], "big");
}

#[test]
fn a_window_that_holds_the_prompt_is_preferred() {
    let long = format!(r#"{{"model":"m","prompt":"{}","options":{{"num_ctx":16384}}}}"#, "word ".repeat(8_000));
    let spec = NodeSpec::default();
    let snapshot = fleet(&[("a", spec.clone().hot("m", 4096)), ("b", spec.hot("m", 16_384))], NOW);
    let decision = choose(&snapshot, &profile(&long));
    assert_eq!(decision.candidates[0].node, 1);
    assert!(decision.candidates[0].score.parts[6] > 0.0 && decision.candidates[1].score.parts[6] > 0.0);
    assert_eq!(decision.candidates[1].plan.action.to_string(), "reload");
}

#[test]
fn a_hot_node_yields_when_its_queue_is_longer_than_a_load() {
    let snapshot = fleet(&[("hot", NodeSpec::default().hot("m", 8192)), ("idle", NodeSpec::default().cold("m"))], NOW);
    assert_eq!(choose(&snapshot, &chat()).candidates[0].node, 0);
    occupy(&snapshot.nodes[0], 40);
    assert_eq!(choose(&snapshot, &chat()).candidates[0].node, 1);
}

#[test]
fn work_for_another_model_counts_on_the_same_device() {
    let both = || NodeSpec::default().hot("m", 8192).hot("other", 8192);
    let snapshot = fleet(&[("a", both()), ("b", both())], NOW);
    let other = std::sync::Arc::clone(
        &snapshot.nodes[0].models.iter().find(|m| m.name.as_str() == "other:latest").unwrap().load,
    );
    std::mem::forget(Claim::take(&snapshot.nodes[0].load, &other, 0));
    assert_eq!(choose(&snapshot, &chat()).candidates[0].node, 1);
}

/// Whoever is beside it waits while it is read, which is more than the other machine takes longer.
#[test]
fn a_long_prompt_is_read_where_it_holds_nobody_up() {
    let spec = |bandwidth_gbps| NodeSpec { bandwidth_gbps, slots: Some(4), ..NodeSpec::default() }.hot("m", 65_536);
    let snapshot = fleet(&[("fast", spec(400.0)), ("slower", spec(220.0))], NOW);
    let goes_to = |prompt_tokens, limit| {
        let request = RequestProfile { prompt_tokens, max_output_tokens: Some(limit), ..chat() };
        choose(&snapshot, &request).candidates[0].node
    };
    assert_eq!(goes_to(20_000, 1), 0);
    let _running = run(&snapshot, "fast", "m");
    assert_eq!((goes_to(20_000, 1), goes_to(1, 1_000)), (1, 0));
}

#[test]
fn equals_take_turns() {
    let nodes: Vec<_> = ["a", "b", "c"].map(|id| (id, NodeSpec::default().hot("m", 8192))).to_vec();
    let snapshot = fleet(&nodes, NOW);
    let turns: Vec<usize> = (1..=6)
        .map(|ticket| {
            let chosen = choose(&snapshot, &chat()).candidates[0].node;
            let node = &snapshot.nodes[chosen];
            drop(Claim::take(&node.load, &node.models[0].load, ticket));
            chosen
        })
        .collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
}

/// More equals than are ranked: all of them have their turn.
#[test]
fn equals_beyond_the_ranked_ones_take_turns_too() {
    let ids: Vec<String> = (0..3 * RANKED).map(|index| format!("n{index:02}")).collect();
    let nodes: Vec<_> = ids.iter().map(|id| (id.as_str(), NodeSpec::default().hot("m", 8192))).collect();
    let snapshot = fleet(&nodes, NOW);
    let mut served = std::collections::BTreeSet::new();
    for ticket in 1..=3 * RANKED as u64 {
        let chosen = choose(&snapshot, &chat()).candidates[0].node;
        let node = &snapshot.nodes[chosen];
        drop(Claim::take(&node.load, &node.models[0].load, ticket));
        served.insert(chosen);
    }
    assert_eq!(served.len(), 3 * RANKED);
}

/// A load that only a suspected node could make in no time is no alternative to a healthy one that has the model.
#[test]
fn warmth_does_not_fade_for_a_load_on_a_last_resort() {
    let cold = |gbps| NodeSpec { bandwidth_gbps: gbps, ..NodeSpec::default().cold("m") };
    let nodes = [("dead", cold(400.0)), ("hot", NodeSpec::default().hot("m", 8192)), ("slow", cold(400.0))];
    let snapshot = fleet(&nodes, NOW);
    let work = |load_ms| crate::load::Work { load_ms: Some(load_ms), ..Default::default() };
    model(&snapshot, "dead", "m").1.load.observe_work(&work(10.0));
    model(&snapshot, "slow", "m").1.load.observe_work(&work(60_000.0));
    snapshot.node("dead").unwrap().load.set_probe_failed(true);
    std::mem::forget(run(&snapshot, "hot", "m"));
    assert_eq!(choose(&snapshot, &chat()).candidates[0].node, 1);
}
