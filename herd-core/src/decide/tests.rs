use proptest::prelude::*;

use super::*;
use crate::fleet::Node;
use crate::inspect::{InspectLimits, inspect};
use crate::load::Claim;
use crate::request::Surface;
use crate::testing::{GIB, NodeSpec, fleet};

const NOW: u64 = 10_000;

fn profile(body: &str) -> RequestProfile {
    inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap()
}

fn chat() -> RequestProfile {
    profile(r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#)
}

fn choose(snapshot: &FleetSnapshot, profile: &RequestProfile) -> Decision {
    decide(snapshot, profile, &[], NOW)
}

fn decide(snapshot: &FleetSnapshot, profile: &RequestProfile, tried: &[u32], now_ms: u64) -> Decision {
    Question { snapshot, profile, policy: &policy(), tried, ahead: 0, waited_ms: 0, desperate: false, now_ms }.decide()
}

fn policy() -> Policy {
    Policy { auto_upgrade: true, ..Policy::default() }
}

#[track_caller]
fn wins(nodes: &[(&str, NodeSpec)], expected: &str) {
    let snapshot = fleet(nodes, NOW);
    let decision = choose(&snapshot, &chat());
    let winner = decision.candidates.first().map(|candidate| snapshot.nodes[candidate.node].id.as_str());
    assert_eq!(winner, Some(expected), "{decision:#?}");
}

/// Claims that are never given back: a test's node stays busy.
fn occupy(node: &Node, count: u32) {
    let model = node.models.first().map(|model| std::sync::Arc::clone(&model.load)).unwrap_or_default();
    for _ in 0..count {
        std::mem::forget(Claim::take(&node.load, &model, 0));
    }
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
fn fallbacks_serve_in_the_clients_order_when_the_requested_model_cannot() {
    let snapshot = fleet(&[("n", NodeSpec::default().cold("b").hot("c", 4096))], NOW);
    let serves = |body: &str| choose(&snapshot, &profile(body)).model.to_string();
    assert_eq!(serves(r#"{"model":"a","fallback_models":["b","c"]}"#), "b:latest");
    assert_eq!(serves(r#"{"model":"c","fallback_models":["b"]}"#), "c:latest");
    assert_eq!(serves(r#"{"model":"a","fallback_models":["x"]}"#), "a:latest");
}

fn any_spec() -> impl Strategy<Value = NodeSpec> {
    let memory = (0_u64..1 << 41, 0_u64..1 << 41, 0_u64..1 << 40);
    let speed = prop_oneof![Just(0.0), 1.0..5_000.0_f64];
    let hotness = prop_oneof![Just(None), (0_u64..1 << 20).prop_map(Some)];
    let slots = (prop::option::of(0_u32..64), 0_u32..100, prop::option::of(0_u64..1 << 20), 0_u64..1 << 20);
    (memory, speed, hotness, slots, prop::option::of((0_u64..1 << 38, 0_u64..1 << 38))).prop_map(
        |(
            (total, free, size),
            bandwidth_gbps,
            hot,
            (slots, busy_by_others, default_context, train_context),
            vram_bytes,
        )| {
            let spec = NodeSpec {
                memory_bytes: total,
                free_bytes: free,
                model_bytes: size,
                bandwidth_gbps,
                slots,
                busy_by_others,
                default_context,
                train_context,
                vram_bytes,
                ..NodeSpec::default()
            };
            if let Some(context) = hot { spec.hot("m", context) } else { spec.cold("m") }
        },
    )
}

fn any_profile() -> impl Strategy<Value = RequestProfile> {
    (prop::option::of(0_u64..1 << 40), 0_usize..100_000, prop::option::of(0_u64..1 << 40)).prop_map(
        |(num_ctx, length, output)| {
            let mut profile = chat();
            profile.num_ctx = num_ctx;
            profile.prompt_tokens = length as u64;
            profile.max_output_tokens = output;
            profile
        },
    )
}

proptest! {
    #[test]
    fn scores_are_finite_for_any_input(specs in prop::collection::vec(any_spec(), 1..6), profile in any_profile(), busy in 0_u32..5_000, p75 in any::<f64>()) {
        let nodes: Vec<_> = specs.iter().zip(["a", "b", "c", "d", "e"]).map(|(spec, id)| (id, spec.clone())).collect();
        let snapshot = fleet(&nodes, NOW);
        occupy(&snapshot.nodes[0], busy);
        snapshot.nodes[0].models[0].load.observe(p75, NOW);
        for candidate in choose(&snapshot, &profile).candidates {
            prop_assert!(candidate.score.parts.iter().all(|part| part.is_finite()), "{candidate:?}");
        }
    }

    #[test]
    fn signals_stay_within_their_caps(spec in any_spec(), other in any_spec(), profile in any_profile(), busy in 0_u32..100) {
        let snapshot = fleet(&[("a", spec), ("b", other)], NOW);
        occupy(&snapshot.nodes[0], busy);
        for candidate in choose(&snapshot, &profile).candidates {
            let [thermal, memory, queue, latency, role, trend, context] = candidate.score.parts;
            prop_assert!(thermal <= 50.0);
            prop_assert!((0.0..=20.0).contains(&memory) && (-30.0..=0.0).contains(&queue) && (-25.0..=0.0).contains(&latency));
            prop_assert!((0.0..=15.0).contains(&role) && (0.0..=10.0).contains(&trend) && (-15.0..=15.0).contains(&context));
        }
    }

    #[test]
    fn more_load_never_scores_higher(specs in (any_spec(), any_spec()), profile in any_profile(), busy in 0_u32..200, more in 1_u32..200) {
        let snapshot = fleet(&[("a", specs.0), ("b", specs.1)], NOW);
        let total = || choose(&snapshot, &profile).candidates.iter().find(|c| c.node == 0).map(|c| c.total);
        occupy(&snapshot.nodes[0], busy);
        let before = total();
        occupy(&snapshot.nodes[0], more);
        if let (Some(before), Some(after)) = (before, total()) {
            prop_assert!(after <= before, "{before} -> {after}");
        }
    }

    #[test]
    fn a_drained_node_is_never_chosen(specs in prop::collection::vec(any_spec(), 2..6), profile in any_profile(), drained in any::<prop::sample::Index>()) {
        let nodes: Vec<_> = specs.iter().zip(["a", "b", "c", "d", "e"]).map(|(spec, id)| (id, spec.clone())).collect();
        let snapshot = fleet(&nodes, NOW);
        let index = drained.index(specs.len());
        let snapshot = snapshot.with_cordon(nodes[index].0, true).unwrap();
        prop_assert!(choose(&snapshot, &profile).candidates.iter().all(|candidate| candidate.node != index));
    }

    #[test]
    fn the_order_of_nodes_does_not_matter(specs in prop::collection::vec(any_spec(), 2..5), profile in any_profile()) {
        let ids = ["a", "b", "c", "d"];
        let forward: Vec<_> = ids.into_iter().zip(specs.clone()).collect();
        let mut backward = forward.clone();
        backward.reverse();
        let (forward, backward) = (fleet(&forward, NOW), fleet(&backward, NOW));
        let named = |snapshot: &FleetSnapshot| choose(snapshot, &profile).candidates.iter()
            .map(|c| (snapshot.nodes[c.node].id.to_string(), c.score)).collect::<Vec<_>>();
        prop_assert_eq!(named(&forward), named(&backward));
    }

    #[test]
    fn an_idle_cold_node_beats_a_hot_one_whose_wait_exceeds_the_load(
        cold_memory in 8_u64..512, hot_memory in 8_u64..512, model in 1_u64..8, cold_speed in 1.0..5_000.0_f64,
        hot_speed in 1.0..5_000.0_f64, busy in 0_u32..500, slots in 1_u32..8, prompt in 0_u64..60_000,
    ) {
        let spec = |memory: u64, bandwidth_gbps| NodeSpec {
            memory_bytes: memory * GIB, free_bytes: memory * GIB, model_bytes: model * GIB, bandwidth_gbps,
            slots: Some(slots), ..NodeSpec::default()
        };
        let snapshot = fleet(&[("cold", spec(cold_memory, cold_speed).cold("m")), ("hot", spec(hot_memory, hot_speed).hot("m", 131_072))], NOW);
        occupy(&snapshot.nodes[1], busy);
        let mut request = chat();
        request.prompt_tokens = prompt;
        let decision = choose(&snapshot, &request);
        let at = |node| decision.candidates.iter().find(|c| c.node == node).unwrap();
        let (cold, hot) = (at(0), at(1));
        // The same work is waited for on both sides, so that only the queue and the load differ.
        if hot.prediction.wait_ms > cold.prediction.load_ms && cold_speed >= hot_speed {
            prop_assert_eq!(decision.candidates[0].node, 0, "{:#?}", decision);
        }
    }
}
