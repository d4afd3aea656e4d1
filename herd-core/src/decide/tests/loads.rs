//! A model is loaded once, where it is best, and again only when that pays.

use super::*;

fn cold_fleet() -> FleetSnapshot {
    let cold = || NodeSpec::default().cold("m");
    fleet(&[("a", cold()), ("b", cold()), ("c", cold()), ("d", cold())], NOW)
}

fn nowhere() -> Vec<&'static str> {
    Vec::new()
}

#[test]
fn a_cold_model_is_loaded_by_one_request_and_the_others_wait_for_it() {
    let snapshot = cold_fleet();
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot)[0], "a");
    let mut loading = load(&snapshot, "a", "m", 3_000);
    let decision = choose(&snapshot, &chat());
    assert_eq!(at(&decision, &snapshot, "a").readiness, Readiness::Loading);
    for id in ["b", "c", "d"] {
        assert_eq!(at(&decision, &snapshot, id).readiness, Readiness::LoadsElsewhere);
    }
    assert_eq!(goes(&decision, &snapshot), nowhere());

    let name = name("m");
    let loaded = Loaded { node: 0, model: &name, context_length: Some(4096), signature: Signature::DEFAULT };
    let snapshot = snapshot.with_loaded(&loaded, NOW).unwrap();
    assert_eq!(loading.load_ended(), Some(NOW));
    let decision = choose(&snapshot, &chat());
    assert_eq!(at(&decision, &snapshot, "a").plan.action, ContextAction::Pinned);
    assert_eq!(at(&decision, &snapshot, "a").readiness, Readiness::Busy, "the request that loaded it still runs");
    drop(loading);
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), ["a"]);
}

#[test]
fn a_load_that_does_not_end_is_no_reason_to_wait() {
    let snapshot = cold_fleet();
    let _loading = load(&snapshot, "a", "m", 1_000);
    let at_ms = |later| decide(&snapshot, &chat(), &[], NOW + later);
    assert_eq!(goes(&at_ms(8_000), &snapshot), nowhere());
    let overdue = at_ms(8_001);
    assert_eq!(at(&overdue, &snapshot, "a").readiness, Readiness::Overdue);
    assert_eq!(goes(&overdue, &snapshot), ["b", "c", "d"]);
    let _second = load(&snapshot, "b", "m", 60_000);
    assert_eq!(goes(&at_ms(8_001), &snapshot), nowhere(), "one more, not all");
}

#[test]
fn a_load_on_a_last_resort_holds_nobody_back() {
    let snapshot = cold_fleet();
    let _loading = load(&snapshot, "a", "m", 3_000);
    snapshot.node("a").unwrap().load.set_probe_failed(true);
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), ["b", "c", "d"]);
}

/// Agents that have fallen silent make all nodes last resorts, and their fleet still loads a model once.
#[test]
fn one_load_at_a_time_holds_among_last_resorts_too() {
    let snapshot = cold_fleet();
    let _loading = load(&snapshot, "a", "m", 60_000);
    let later = NOW + LifeLimits::default().stale_after_ms + 1;
    let decision = decide(&snapshot, &chat(), &[], later);
    assert!(decision.candidates.iter().all(|candidate| candidate.last_resort.is_some()));
    assert_eq!(goes(&decision, &snapshot), nowhere());
}

#[test]
fn a_load_that_failed_this_request_does_not_hold_it_back() {
    let snapshot = cold_fleet();
    let _loading = load(&snapshot, "a", "m", 3_000);
    let decision = decide(&snapshot, &chat(), &[snapshot.node("a").unwrap().number], NOW);
    assert_eq!(goes(&decision, &snapshot), ["b", "c", "d"]);
}

#[test]
fn a_load_is_known_to_others_while_its_node_rests() {
    let snapshot = cold_fleet();
    let _loading = load(&snapshot, "a", "m", 3_000);
    model(&snapshot, "a", "m").1.load.refused_as_busy(NOW);
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), nowhere());
}

fn hot_and_cold() -> FleetSnapshot {
    fleet(&[("hot", NodeSpec::default().hot("m", 8192)), ("cold", NodeSpec::default().cold("m"))], NOW)
}

/// An answer of 200 tokens has taken so long on `id`.
fn work(snapshot: &FleetSnapshot, id: &str, ms: f64) {
    let work = crate::load::Work { decode: Some((200, ms)), ..Default::default() };
    model(snapshot, id, "m").1.load.observe_work(&work);
}

#[test]
fn a_replica_is_loaded_exactly_when_the_wait_is_longer_than_the_load() {
    let (snapshot, chat, policy) = (hot_and_cold(), chat(), policy());
    let _running = run(&snapshot, "hot", "m");
    // The other is judged by it, so that only the queue and the load differ.
    work(&snapshot, "hot", 1_000.0);
    let mut paid = Vec::new();
    for ahead in 0..20 {
        let decision = Question { ahead, ..question(&snapshot, &chat, &policy) }.decide();
        let (hot, cold) = (at(&decision, &snapshot, "hot"), at(&decision, &snapshot, "cold"));
        let pays = hot.prediction.until_start_ms() > cold.prediction.until_start_ms();
        let expected = if pays { Readiness::Free } else { Readiness::LoadDoesNotPay };
        assert_eq!(cold.readiness, expected, "{ahead}: {hot:#?} {cold:#?}");
        assert_eq!(goes(&decision, &snapshot), if pays { vec!["cold"] } else { vec![] }, "{ahead}");
        paid.push(pays);
    }
    assert!(!paid[0] && paid[19] && paid.is_sorted(), "{paid:?}");
}

#[test]
fn without_a_measurement_a_replica_pays_once_as_long_has_been_waited_as_a_load_takes() {
    let (snapshot, chat, policy) = (hot_and_cold(), chat(), policy());
    let _running = run(&snapshot, "hot", "m");
    let after = |waited_ms| {
        let decision = Question { ahead: 500, waited_ms, ..question(&snapshot, &chat, &policy) }.decide();
        let cold = at(&decision, &snapshot, "cold");
        (cold.readiness, cold.prediction.load_ms)
    };
    let (readiness, load_ms) = after(0);
    assert_eq!(readiness, Readiness::LoadDoesNotPay, "a guess moves no model");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand")]
    let load_ms = load_ms as u64;
    assert_eq!(after(load_ms).0, Readiness::LoadDoesNotPay);
    assert_eq!(after(load_ms + 1).0, Readiness::Free);
}

/// Two answers of another model would each be held up as long as the request takes: together that is more than a load.
#[test]
fn a_load_pays_where_nobody_waits_but_others_lose_more_than_it_takes() {
    let spec = || NodeSpec { slots: Some(4), free_bytes: 60 * GIB, ..NodeSpec::default() };
    let nodes = [("shared", spec().hot("m", 8192).hot("other", 8192)), ("idle", spec().cold("m"))];
    let snapshot = fleet(&nodes, NOW);
    let _one = run(&snapshot, "shared", "other");
    work(&snapshot, "shared", 2_000.0);
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), ["shared"], "one loses less");
    let _another = run(&snapshot, "shared", "other");
    let decision = choose(&snapshot, &chat());
    let load_ms = at(&decision, &snapshot, "idle").prediction.load_ms;
    assert!((2_000.0..4_000.0).contains(&load_ms), "{load_ms}");
    assert_eq!(goes(&decision, &snapshot), ["idle", "shared"]);
    let slow = edited(&snapshot, "idle", |node| node.bandwidth_gbps = Some(40.0));
    assert_eq!(goes(&choose(&slow, &chat()), &slow), ["shared"], "it would be longer there than all of them lose");
}

#[test]
fn a_short_request_is_waited_for() {
    let snapshot = hot_and_cold();
    let _running = run(&snapshot, "hot", "m");
    let decision = choose(&snapshot, &chat());
    assert_eq!(at(&decision, &snapshot, "cold").readiness, Readiness::LoadDoesNotPay);
    assert_eq!(goes(&decision, &snapshot), nowhere());
}

/// Ollama serves what is in memory while it loads something else.
#[test]
fn a_load_of_another_model_is_no_reason_for_a_replica() {
    let spec = NodeSpec { free_bytes: 60 * GIB, ..NodeSpec::default() };
    let nodes = [("hot", spec.clone().hot("m", 8192).cold("other")), ("cold", spec.cold("m"))];
    let snapshot = fleet(&nodes, NOW);
    let _loading = load(&snapshot, "hot", "other", 60_000);
    let decision = choose(&snapshot, &chat());
    assert_eq!(at(&decision, &snapshot, "cold").readiness, Readiness::LoadDoesNotPay);
    assert_eq!(goes(&decision, &snapshot), ["hot"]);
}

/// The slots of a node that may be dead do not shorten a queue.
#[test]
fn last_resorts_do_not_serve_the_queue() {
    let hot = |slots| NodeSpec { slots: Some(slots), ..NodeSpec::default().hot("m", 8192) };
    let wait = |dead: bool| {
        let mut nodes = vec![("a", hot(1))];
        nodes.extend(dead.then(|| ("dead", hot(16))));
        let (snapshot, chat, policy) = (fleet(&nodes, NOW), chat(), policy());
        if let Some(dead) = snapshot.node("dead") {
            dead.load.set_probe_failed(true);
        }
        let _running = run(&snapshot, "a", "m");
        let _others: Vec<_> =
            snapshot.node("dead").into_iter().flat_map(|_| (0..16).map(|_| run(&snapshot, "dead", "m"))).collect();
        let decision = Question { ahead: 8, ..question(&snapshot, &chat, &policy) }.decide();
        at(&decision, &snapshot, "a").prediction.wait_ms
    };
    assert!((wait(false) - wait(true)).abs() < 1e-6, "{} {}", wait(false), wait(true));
}

#[test]
fn a_load_takes_the_memory_that_the_last_heartbeat_called_free() {
    let spec = NodeSpec { free_bytes: 6 * GIB, ..NodeSpec::default().cold("m").cold("other") };
    let snapshot = fleet(&[("a", spec)], NOW);
    let name = name("m");
    let loaded = Loaded { node: 0, model: &name, context_length: Some(1 << 40), signature: Signature::DEFAULT };
    let snapshot = snapshot.with_loaded(&loaded, NOW).unwrap();
    assert_eq!(snapshot.nodes[0].device.free_bytes, Some(2 * GIB));
    let (_, m) = model(&snapshot, "a", "m");
    assert_eq!(m.resident.as_ref().unwrap().context_length, Some(131_072), "never more than it was trained with");
    let other = profile(r#"{"model":"other"}"#);
    assert_eq!(goes(&choose(&snapshot, &other), &snapshot), ["a"], "idle, it makes room");
    let _running = run(&snapshot, "a", "m");
    assert_eq!(choose(&snapshot, &other).candidates[0].readiness, Readiness::Occupied);
    let again = snapshot.with_loaded(&loaded, NOW).unwrap();
    assert_eq!(again.nodes[0].device.free_bytes, Some(2 * GIB), "a reload takes the place of what was there");
}
