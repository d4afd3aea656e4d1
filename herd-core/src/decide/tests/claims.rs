//! Slots are hard limits, however many requests are decided at once.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::*;

#[test]
fn many_threads_never_take_more_slots_than_there_are() {
    const SLOTS: u32 = 2;
    let spec = || NodeSpec { slots: Some(SLOTS), ..NodeSpec::default().hot("m", 8192) };
    let snapshot = fleet(&[("a", spec()), ("b", spec())], NOW);
    let held = [AtomicU32::new(0), AtomicU32::new(0)];
    let most = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let chat = chat();
                for ticket in 0..2_000 {
                    let decision = choose(&snapshot, &chat);
                    let Some(best) = decision.ready().next() else { continue };
                    let node = &snapshot.nodes[best.node];
                    let model = &node.models[0].load;
                    if let Some(claim) = Claim::try_take(&node.load, model, &best.seen, ticket) {
                        most.fetch_max(held[best.node].fetch_add(1, SeqCst) + 1, SeqCst);
                        std::thread::yield_now();
                        held[best.node].fetch_sub(1, SeqCst);
                        drop(claim);
                    }
                }
            });
        }
    });
    assert!((1..=SLOTS).contains(&most.load(SeqCst)), "{most:?}");
    assert_eq!(snapshot.in_flight(), 0);
}

#[test]
fn of_many_that_would_load_a_model_on_one_node_one_does() {
    let snapshot = fleet(&[("a", NodeSpec::default().cold("m"))], NOW);
    let decision = choose(&snapshot, &chat());
    let candidate = &decision.candidates[0];
    let (node, model) = model(&snapshot, "a", "m");
    let claims: Vec<_> =
        (0..5).filter_map(|ticket| Claim::try_take(&node.load, &model.load, &candidate.seen, ticket)).collect();
    assert_eq!((claims.len(), node.load.in_flight(), model.load.in_flight()), (1, 1, 1));
}

/// One request of another model ends and one of this model begins: the node's count is what it was.
#[test]
fn a_claim_does_not_take_a_slot_that_went_while_the_nodes_count_stayed() {
    let snapshot = fleet(&[("a", NodeSpec::default().hot("m", 8192).hot("other", 8192))], NOW);
    let other = run(&snapshot, "a", "other");
    let decision = choose(&snapshot, &chat());
    let candidate = decision.ready().next().unwrap().clone();
    drop(other);
    let _rival = run(&snapshot, "a", "m");
    let (node, model) = model(&snapshot, "a", "m");
    assert!(Claim::try_take(&node.load, &model.load, &candidate.seen, 1).is_none());
    assert_eq!((node.load.in_flight(), model.load.in_flight()), (1, 1));
}
