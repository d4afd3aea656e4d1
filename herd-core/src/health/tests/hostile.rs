//! Numbers of any size and kind: nothing panics, nothing infinite is told, and what is said can be pasted.

use proptest::prelude::*;

use super::*;
use crate::recommend::{Commitments, RECOMMENDATIONS_MAX, recommend};
use crate::wire::MemoryBytes;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), 0_u64..200, any::<u64>()]
}

fn time() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), 0.0..1e6, any::<f64>()]
}

prop_compose! {
    fn percentiles()(samples in number(), p50_ms in time(), p95_ms in time(), p99_ms in time()) -> Percentiles {
        Percentiles { samples, p50_ms, p95_ms, p99_ms }
    }
}

prop_compose! {
    fn model_window()(
        counts in proptest::collection::vec(number(), 20),
        times in proptest::collection::vec(time(), 4),
        waits in percentiles(),
        ttft in percentiles(),
    ) -> ModelWindow {
        ModelWindow {
            requests: counts[0],
            completed: counts[1],
            failed: counts[2],
            incomplete: counts[3],
            reaped: counts[4],
            client_disconnected: counts[5],
            retries: counts[6],
            busy: counts[7],
            cold_loads: counts[8],
            load_ms_total: times[0],
            reloads: Reloads {
                context_larger: counts[9],
                context_differs: counts[10],
                node_default: counts[11],
                launch_options: counts[12],
            },
            ttft,
            latency: waits,
            queue_wait: waits,
            prediction: PredictionError { samples: counts[13], predicted_ms: times[1], actual_ms: times[2] },
            tokens_per_s: Some(times[3]),
            overflows: counts[14],
            prompt_tokens: counts[15],
            output_tokens: counts[15],
            context: ContextUse {
                samples: counts[16],
                used_p95: counts[17],
                used_max: counts[18],
                allocated: Some(counts[19]),
            },
        }
    }
}

prop_compose! {
    fn edge_window()(counts in proptest::collection::vec(number(), 9), queue_wait in percentiles()) -> EdgeWindow {
        EdgeWindow {
            requests: counts[0],
            queue_refused: counts[1],
            queue_timeouts: counts[2],
            queue_wait,
            retry_budget_exhausted: counts[3],
            loads: counts[4],
            unforeseen_loads: counts[5],
            auto_pulls: counts[6],
            auto_pulls_failed: counts[7],
            bodies_refused: counts[8],
            sleeps: counts[8],
            unmarked_proxies: counts[7],
        }
    }
}

prop_compose! {
    fn scene()(
        windows in proptest::collection::vec(model_window(), 4),
        edge in proptest::collection::vec(edge_window(), 2),
        bytes in proptest::collection::vec(number(), 12),
        clocks in (number(), number(), time()),
        demand in (number(), number(), number()),
    ) -> Scene {
        let mut scene = Scene::healthy();
        for (row, pair) in scene.stats.models.values_mut().flatten().zip(windows.chunks(2)) {
            (row.hour, row.day) = (pair[0].clone(), pair[1].clone());
        }
        (scene.stats.edge.hour, scene.stats.edge.day) = (edge[0].clone(), edge[1].clone());
        scene.stats.edge.store.file_bytes = bytes[0];
        scene.stats.edge.store.disk_free_bytes = Some(bytes[1]);
        scene.stats.edge.store.dropped_hour = bytes[2];
        scene.stats.observed_ms = bytes[3];
        scene.stats.demand[0].day =
            DemandWindow { requests: demand.0, refused_unknown: demand.1, stand_ins: demand.2 };
        scene.stats.demand.push(Demand { model: "qwen3:8b".into(), ..scene.stats.demand[0].clone() });
        (scene.now_ms, scene.unix_ms) = (clocks.0, clocks.1);
        scene.heartbeat("a", |heartbeat| {
            heartbeat.timestamp = clocks.2;
            let report = heartbeat.herd.as_mut().unwrap();
            report.disk.as_mut().unwrap().available_bytes = bytes[4];
            report.memory = Some(MemoryBytes {
                total_bytes: bytes[5],
                swap_used_bytes: bytes[6],
                ..MemoryBytes::default()
            });
        });
        scene.node("a", |node| {
            node.device.total_bytes = Some(bytes[7]);
            node.device.free_bytes = Some(bytes[8]);
            node.bandwidth_gbps = Some(clocks.2);
            node.models[0].size_bytes = Some(bytes[9]);
            let resident = node.models[0].resident.as_mut().unwrap();
            (resident.size_bytes, resident.size_vram_bytes) = (Some(bytes[10]), Some(bytes[11]));
            resident.context_length = Some(bytes[0]);
        });
        scene
    }
}

fn is_finite(evidence: &std::collections::BTreeMap<String, Value>) -> bool {
    evidence.values().all(|value| !matches!(value, Value::Number(number) if !number.is_finite()))
}

proptest! {
    #[test]
    fn hostile_numbers_yield_plain_findings(scene in scene()) {
        let observed = scene.observe();
        for one in &observed {
            prop_assert!(is_finite(&one.evidence), "{one:?}");
            prop_assert!(!one.detail.contains("NaN") && !one.detail.contains("inf "), "{one:?}");
        }
        let folded = (0..4).fold(Findings::default(), |findings, turn| findings.fold(observed.clone(), turn).findings);
        let report = folded.report(9);
        prop_assert!(report.score <= 100);
        prop_assert_eq!(report.status == Overall::Healthy, report.score == 100);
        let text = serde_json::to_string(&folded).unwrap();
        // JSON may round the last digit of a number.
        let kept = serde_json::from_str::<Findings>(&text).unwrap().report(9);
        prop_assert_eq!((kept.score, kept.findings.len()), (report.score, report.findings.len()));
    }

    #[test]
    fn hostile_numbers_yield_plain_recommendations(scene in scene()) {
        let all = recommend(&scene.inputs(), &Commitments::default());
        prop_assert!(all.len() <= RECOMMENDATIONS_MAX);
        for one in &all {
            prop_assert!(is_finite(&one.evidence), "{one:?}");
            prop_assert!(one.expected_gain.seconds_saved_per_day.is_none_or(f64::is_finite), "{one:?}");
        }
        prop_assert_eq!(all, recommend(&scene.inputs(), &Commitments::default()));
    }
}

#[test]
fn more_than_can_be_kept_is_bounded_by_the_worst() {
    let mut scene = Scene::healthy();
    let row = scene.stats.demand[0].clone();
    let day = DemandWindow { refused_unknown: 9, ..DemandWindow::default() };
    scene.stats.demand.extend((0..2_000).map(|number| Demand {
        model: format!("m{number}:latest"),
        day,
        ..row.clone()
    }));
    scene.snapshot.nodes[0].load.set_probe_failed(true);
    let observed = scene.observe();
    assert_eq!((observed.len(), observed[0].check), (OBSERVED_MAX, "ollama_local_only"));
    let findings = Findings::default().fold(observed.clone(), 1).findings.fold(observed, 2).findings;
    assert_eq!(findings.report(2).findings.len(), FINDINGS_MAX);
}

proptest! {
    #[test]
    fn what_is_pulled_fits_in_memory_and_on_disk(
        memory in proptest::collection::vec(number(), 2),
        disk in proptest::collection::vec(number(), 2),
        count in 5_u64..50,
    ) {
        let mut scene = Scene::healthy();
        for (index, id) in ["a", "b"].into_iter().enumerate() {
            scene.node(id, |node| node.device.total_bytes = Some(memory[index] / 4));
            let bytes = disk[index] / 4;
            scene.heartbeat(id, |h| h.herd.as_mut().unwrap().disk.as_mut().unwrap().available_bytes = bytes);
        }
        for known in scene.catalogue.models().to_vec() {
            let day = DemandWindow { refused_unknown: count, ..DemandWindow::default() };
            scene.stats.demand.push(Demand { model: known.name.to_string(), day, ..Demand::default() });
        }
        for one in recommend(&scene.inputs(), &Commitments::default()) {
            let node = scene.snapshot.node(&one.node_id).unwrap();
            let (size, needed) = (one.size_bytes.unwrap(), one.memory_bytes.unwrap());
            prop_assert!(size <= needed && needed <= node.device.total_bytes.unwrap(), "{one:?}");
            let free = crate::pull::disk_available(node).unwrap();
            prop_assert!(free >= size + scene.policy.pull.disk_reserve_bytes, "{one:?}");
        }
    }
}
