//! What holds for every fleet and every request.

use proptest::prelude::*;

use super::*;
use crate::fleet::Device;
use crate::load::Work;
use crate::wire::OllamaState;

const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Numbers at which arithmetic goes wrong.
fn hostile() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::from(u32::MAX)), 0_u64..100_000, any::<u64>()]
}

fn hostile_float() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
        Just(0.0),
        Just(-1.0),
        0.0..1e4_f64,
    ]
}

fn truncated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
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
        let nodes: Vec<_> = specs.iter().zip(IDS).map(|(spec, id)| (id, spec.clone())).collect();
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
        let nodes: Vec<_> = specs.iter().zip(IDS).map(|(spec, id)| (id, spec.clone())).collect();
        let snapshot = fleet(&nodes, NOW);
        let index = drained.index(specs.len());
        let snapshot = snapshot.with_cordon(nodes[index].0, true).unwrap();
        prop_assert!(choose(&snapshot, &profile).candidates.iter().all(|candidate| candidate.node != index));
    }

    #[test]
    fn names_of_nodes_decide_nothing_but_ties(
        specs in prop::collection::vec((any_spec(), 0_u32..4), 2..6), profile in any_profile(), turned in any::<prop::sample::Index>(),
    ) {
        // A snapshot keeps its nodes in the order of their ids, so that these are what is permuted.
        let ids = ["a", "b", "c", "d", "e"];
        let decided = |turn: usize| {
            let id = |index: usize| ids[(index + turn) % specs.len()];
            let nodes: Vec<_> = specs.iter().enumerate().map(|(index, (spec, _))| (id(index), spec.clone())).collect();
            let snapshot = fleet(&nodes, NOW);
            for (index, (_, busy)) in specs.iter().enumerate() {
                occupy(snapshot.node(id(index)).unwrap(), *busy);
            }
            let decision = choose(&snapshot, &profile);
            let mut found: Vec<_> = decision.candidates.iter().map(|candidate| {
                let spec = (0..specs.len()).find(|index| id(*index) == snapshot.nodes[candidate.node].id.as_str());
                (spec, candidate.total, candidate.readiness, candidate.plan)
            }).collect();
            found.sort_by_key(|(spec, ..)| *spec);
            let order: Vec<f64> = decision.candidates.iter().map(|candidate| candidate.total).collect();
            let ready: Vec<f64> = decision.ready().map(|candidate| candidate.total).collect();
            (decision.model, decision.stand_in, found, order, ready)
        };
        prop_assert_eq!(decided(0), decided(turned.index(specs.len())));
    }

    #[test]
    fn what_goes_now_is_free_and_of_the_best(
        specs in prop::collection::vec((any_spec(), 0_u32..4), 1..6), profile in any_profile(), ahead in 0_u32..50, suspected in any::<u8>(),
    ) {
        let nodes: Vec<_> = specs.iter().zip(IDS).map(|((spec, _), id)| (id, spec.clone())).collect();
        let snapshot = fleet(&nodes, NOW);
        for (index, (_, busy)) in specs.iter().enumerate() {
            occupy(&snapshot.nodes[index], *busy);
            snapshot.nodes[index].load.set_probe_failed(suspected & (1 << index) != 0);
        }
        let decision = Question { ahead, ..question(&snapshot, &profile, &policy()) }.decide();
        let healthy = decision.candidates.iter().any(|candidate| candidate.last_resort.is_none());
        let mut loads = 0;
        for candidate in decision.ready() {
            prop_assert_eq!(candidate.readiness, Readiness::Free);
            prop_assert!(decision.candidates.contains(candidate));
            prop_assert!(candidate.last_resort.is_none() || !healthy);
            loads += u32::from(candidate.seen.load.is_some());
        }
        let is_serving = |c: &Candidate| c.seen.load.is_none() && c.readiness == Readiness::Free && c.last_resort.is_none();
        prop_assert!(loads == 0 || !decision.candidates.iter().any(|c| is_serving(c) && c.prediction.wait_ms == 0.0), "{decision:#?}");
    }

    #[test]
    fn a_full_runner_is_never_free(spec in any_spec(), profile in any_profile(), ours in 0_u32..40) {
        let snapshot = fleet(&[("a", spec)], NOW);
        occupy(&snapshot.nodes[0], ours);
        let (node, model) = (&snapshot.nodes[0], &snapshot.nodes[0].models[0]);
        let others = model.resident.as_ref().map_or(0, |resident| resident.busy_by_others);
        let full = ours.saturating_add(others) >= model.slots(&node.env);
        for candidate in choose(&snapshot, &profile).candidates {
            let free = candidate.readiness == Readiness::Free;
            match candidate.plan.action {
                ContextAction::Load => prop_assert!(!free || ours == 0),
                ContextAction::Reload => prop_assert_eq!(free, ours == 0 && others == 0),
                _ => prop_assert_eq!(free, !full),
            }
        }
    }

    #[test]
    fn a_node_that_is_gone_never_serves(specs in prop::collection::vec(any_spec(), 2..6), profile in any_profile(), gone in any::<prop::sample::Index>(), how in 0_u8..4) {
        let nodes: Vec<_> = specs.iter().zip(IDS).map(|(spec, id)| (id, spec.clone())).collect();
        let index = gone.index(specs.len());
        let snapshot = edited(&fleet(&nodes, NOW), IDS[index], |node| match how {
            0 => node.ollama = OllamaState::Down,
            1 => node.ollama = OllamaState::Hung,
            2 => node.paused = Some(String::new()),
            _ => node.draining = true,
        });
        for allow_any_substitute in [false, true] {
            let decision = Question { allow_any_substitute, ..question(&snapshot, &profile, &policy()) }.decide();
            prop_assert!(decision.candidates.iter().all(|candidate| candidate.node != index));
        }
    }

    #[test]
    fn hostile_numbers_are_decided_like_any_others(
        numbers in prop::collection::vec(hostile(), 24), floats in prop::collection::vec(hostile_float(), 12), ahead in any::<u32>(), now_ms in hostile(),
        hot in any::<[bool; 3]>(), loading in any::<bool>(),
    ) {
        let mut number = numbers.iter().copied().cycle();
        let mut float = floats.iter().copied().cycle();
        let mut next = || number.next().unwrap();
        let spec = |hot| if hot { NodeSpec::default().hot("m", 4096) } else { NodeSpec::default().cold("m") };
        let mut snapshot = fleet(&[("a", spec(hot[0])), ("b", spec(hot[1])), ("c", spec(hot[2]))], NOW);
        for id in ["a", "b", "c"] {
            snapshot = edited(&snapshot, id, |node| {
                node.bandwidth_gbps = float.next();
                node.device = Device { total_bytes: Some(next()), free_bytes: Some(next()), discrete: next() > 9, system_bytes: Some(next()) };
                node.env.num_parallel = Some(truncated(next()));
                node.env.max_loaded_models = Some(truncated(next()));
                node.env.context_length = Some(next());
                node.trend = node.trend.with(float.next().unwrap());
                let model = &mut node.models[0];
                (model.size_bytes, model.context_length_max, model.unloaded_at_ms) = (Some(next()), Some(next()), Some(next()));
                if let Some(resident) = &mut model.resident {
                    (resident.size_bytes, resident.size_vram_bytes, resident.context_length) = (Some(next()), Some(next()), Some(next()));
                    (resident.slots, resident.busy_by_others) = (Some(truncated(next())), truncated(next()));
                }
            });
            let load = &snapshot.node(id).unwrap().models[0].load;
            load.observe(float.next().unwrap(), next());
            let mut part = || (next(), float.next().unwrap());
            let (prefill, decode, (_, load_ms)) = (part(), part(), part());
            load.observe_work(&Work { load_ms: Some(load_ms), prefill: Some(prefill), decode: Some(decode) });
        }
        let _loading = loading.then(|| load(&snapshot, "a", "m", 5_000));
        let mut profile = asking(next());
        (profile.prompt_tokens, profile.tokens_at_once, profile.max_output_tokens) = (next(), next(), Some(next()));
        let life = LifeLimits { stale_after_ms: u64::MAX, offline_after_ms: u64::MAX, ..LifeLimits::default() };
        for order in [Order::Score, Order::Eta] {
            let policy = Policy { order, life, ..policy() };
            let decision = Question { ahead, now_ms, ..question(&snapshot, &profile, &policy) }.decide();
            for candidate in &decision.candidates {
                prop_assert!(candidate.total.is_finite() && candidate.score.parts.iter().all(|part| part.is_finite()), "{candidate:#?}");
                prop_assert!(candidate.prediction.total_ms() >= 0.0, "{candidate:#?}");
            }
            prop_assert!(decision.until_start_ms().is_none_or(|ms| ms >= 0.0));
            prop_assert!(decision.ready().count() <= decision.candidates.len());
        }
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
