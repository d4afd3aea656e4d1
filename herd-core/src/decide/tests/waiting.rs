//! Where a request may go now, and when it rather waits.

use super::*;

fn hot() -> NodeSpec {
    NodeSpec::default().hot("m", 8192)
}

/// `fast` answers in a hundredth of the time that `slow` takes, and is the better one even while it is busy.
fn fast_and_slow() -> FleetSnapshot {
    let speed = |bandwidth_gbps| NodeSpec { bandwidth_gbps, ..hot() };
    fleet(&[("fast", speed(1_000.0)), ("slow", speed(10.0))], NOW)
}

#[test]
fn a_free_slot_on_a_much_slower_machine_is_left_free() {
    let spec = |bandwidth_gbps| NodeSpec { bandwidth_gbps, ..NodeSpec::default() }.hot("m", 8192);
    let snapshot = fleet(&[("fast", spec(800.0)), ("slow", spec(40.0))], NOW);
    let _running = run(&snapshot, "fast", "m");
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), Vec::<&str>::new());
    let snapshot = fleet(&[("fast", spec(800.0)), ("near", spec(700.0))], NOW);
    let _running = run(&snapshot, "fast", "m");
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), ["near"]);
}

#[test]
fn the_best_free_node_goes_first_and_the_others_are_for_when_it_refuses() {
    let snapshot = fast_and_slow();
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), ["fast", "slow"]);
}

#[test]
fn a_free_slot_is_not_worth_a_slower_answer() {
    let snapshot = fast_and_slow();
    let running = run(&snapshot, "fast", "m");
    let decision = choose(&snapshot, &chat());
    assert_eq!(decision.candidates[0].readiness, Readiness::Busy);
    assert_eq!(goes(&decision, &snapshot), Vec::<&str>::new());
    drop(running);
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), ["fast", "slow"]);
}

#[test]
fn nobody_waits_beside_a_free_slot_for_longer_than_it_would_have_taken() {
    let (snapshot, chat, policy) = (fast_and_slow(), chat(), policy());
    let _endless = run(&snapshot, "fast", "m");
    let after = |waited_ms| Question { waited_ms, ..question(&snapshot, &chat, &policy) }.decide();
    let slow_ms = at(&after(0), &snapshot, "slow").prediction.total_ms();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a prediction")]
    let slow_ms = slow_ms as u64;
    assert_eq!(goes(&after(slow_ms / 4), &snapshot), Vec::<&str>::new());
    assert_eq!(goes(&after(slow_ms + 1), &snapshot), ["slow"]);
}

#[test]
fn a_free_slot_is_taken_where_it_answers_sooner_than_the_best_node_would() {
    let policy = Policy { order: Order::Eta, ..policy() };
    let (snapshot, chat) = (fast_and_slow(), chat());
    let _running = run(&snapshot, "fast", "m");
    let with = |ahead| Question { ahead, ..question(&snapshot, &chat, &policy) }.decide();
    let waits = with(9);
    assert_eq!(goes(&waits, &snapshot), Vec::<&str>::new());
    let fast = at(&waits, &snapshot, "fast").prediction;
    assert_eq!(waits.until_start_ms(), Some(fast.until_start_ms()), "not until the slot that is left free");
    assert!(fast.wait_ms > 9.0 * fast.decode_ms);
    let spreads = with(200);
    assert_eq!(goes(&spreads, &snapshot), ["slow"], "the queue makes it the better place");
    assert_eq!(spreads.until_start_ms(), Some(0.0));
}

/// Half of what runs on `busy` is left; on `crowded` three would stand still while the prompt is read.
#[test]
fn a_free_slot_is_left_free_where_the_request_would_hold_others_up_for_longer_than_it_waits() {
    let spec = |slots| NodeSpec { slots: Some(slots), ..NodeSpec::default() }.hot("m", 65_536);
    let snapshot = fleet(&[("busy", spec(1)), ("crowded", spec(4))], NOW);
    let _running = run(&snapshot, "busy", "m");
    let _beside: Vec<_> = (0..3).map(|_| run(&snapshot, "crowded", "m")).collect();
    let asks = |prompt_tokens, limit| {
        let request = RequestProfile { prompt_tokens, max_output_tokens: Some(limit), ..chat() };
        let decision = choose(&snapshot, &request);
        let crowded = at(&decision, &snapshot, "crowded");
        assert!(crowded.prediction.total_ms() < at(&decision, &snapshot, "busy").prediction.total_ms());
        goes(&decision, &snapshot).len()
    };
    assert_eq!((asks(20_000, 1), asks(10, 200)), (0, 1));
}

#[test]
fn two_of_a_kind_share_the_work() {
    let snapshot = fleet(&[("a", hot()), ("b", hot())], NOW);
    let _running = run(&snapshot, "a", "m");
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), ["b"]);
    let _other = run(&snapshot, "b", "m");
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), Vec::<&str>::new());
}

#[test]
fn a_last_resort_is_left_alone_while_a_healthy_node_is_merely_busy() {
    let snapshot = fleet(&[("a", hot()), ("b", hot())], NOW);
    snapshot.node("b").unwrap().load.set_probe_failed(true);
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), ["a"]);
    let _running: Vec<_> = (0..9).map(|_| run(&snapshot, "a", "m")).collect();
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot), Vec::<&str>::new());
}

#[test]
fn where_all_are_last_resorts_they_serve() {
    let snapshot = fleet(&[("a", hot()), ("b", hot())], NOW);
    let later = NOW + LifeLimits::default().stale_after_ms + 1;
    let decision = decide(&snapshot, &chat(), &[], later);
    assert!(decision.candidates.iter().all(|candidate| candidate.last_resort == Some("stale")));
    assert_eq!(goes(&decision, &snapshot), ["a", "b"]);
}

#[test]
fn a_node_that_rests_after_saying_busy_is_waited_for_as_briefly_as_it_rests() {
    let snapshot = fast_and_slow();
    model(&snapshot, "fast", "m").1.load.refused_as_busy(NOW);
    let decision = choose(&snapshot, &chat());
    assert_eq!(at(&decision, &snapshot, "fast").readiness, Readiness::BackingOff);
    assert_eq!(goes(&decision, &snapshot), Vec::<&str>::new());
    assert_eq!(goes(&decide(&snapshot, &chat(), &[], NOW + 250), &snapshot), ["fast", "slow"]);
}

/// What a node is reserved for loads and runs first, which is longer than the other node takes.
#[test]
fn a_node_that_is_kept_for_another_request_does_not_hold_up_this_one() {
    let speed = |bandwidth_gbps| NodeSpec { bandwidth_gbps, ..hot() };
    let snapshot = fleet(&[("fast", speed(1_000.0)), ("slower", speed(500.0))], NOW);
    snapshot.node("fast").unwrap().load.reserve(1, Signature::DEFAULT, NOW + 1_000);
    let decision = choose(&snapshot, &chat());
    assert_eq!(at(&decision, &snapshot, "fast").readiness, Readiness::Reserved);
    assert_eq!(goes(&decision, &snapshot), ["slower"]);
}

/// Of a large fleet only the best nodes are ranked; a free one among the others must not be overlooked.
#[test]
fn a_free_node_beyond_the_ranked_ones_is_found() {
    let ids: Vec<String> = (0..RANKED + 8).map(|index| format!("n{index:02}")).collect();
    let spec = |index: usize| if index < RANKED + 7 { hot() } else { NodeSpec { bandwidth_gbps: 390.0, ..hot() } };
    let nodes: Vec<_> = ids.iter().enumerate().map(|(index, id)| (id.as_str(), spec(index))).collect();
    let mut snapshot = fleet(&nodes, NOW);
    for id in &ids[..RANKED + 7] {
        std::mem::forget(run(&snapshot, id, "m"));
    }
    // Its owner is coming back, and it is short of memory: by its score it is the last, by its speed it is not.
    let last = ids.last().unwrap();
    for idle in [1.0, 0.5, 0.0, 0.0] {
        snapshot = edited(&snapshot, last, |node| node.trend = node.trend.with(idle));
    }
    snapshot = edited(&snapshot, last, |node| {
        node.device.discrete = true;
        let resident = node.models[0].resident.as_mut().unwrap();
        resident.size_vram_bytes = Some(0);
        resident.context_length = Some(200);
    });
    let decision = choose(&snapshot, &chat());
    assert!(decision.candidates[..RANKED - 1].iter().all(|candidate| candidate.readiness == Readiness::Busy));
    assert_eq!(goes(&decision, &snapshot), [last.as_str()]);
}

#[test]
fn nobody_is_waited_for_where_nobody_can_serve() {
    let snapshot = fleet(&[("a", NodeSpec::default().hot("other", 4096))], NOW);
    let decision = choose(&snapshot, &chat());
    assert_eq!(
        (decision.ready().count(), decision.until_start_ms(), decision.serves_within(u64::MAX)),
        (0, None, false)
    );
}
