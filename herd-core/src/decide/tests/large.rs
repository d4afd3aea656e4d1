//! Fleets of more nodes than are compared for one request.

use std::collections::BTreeSet;

use super::*;

const NODES: usize = 600;

/// Many nodes, each with the model as `spec` says.
fn many(spec: impl Fn(usize) -> NodeSpec) -> FleetSnapshot {
    let ids: Vec<String> = (0..NODES).map(|index| format!("n{index:04}")).collect();
    let nodes: Vec<_> = ids.iter().enumerate().map(|(index, id)| (id.as_str(), spec(index))).collect();
    fleet(&nodes, NOW)
}

fn hot(_: usize) -> NodeSpec {
    NodeSpec::default().hot("m", 8192)
}

/// A request that belongs to no conversation.
fn single() -> RequestProfile {
    RequestProfile { conversation: None, ..chat() }
}

fn drawn(snapshot: &FleetSnapshot, profile: &RequestProfile, draw: u64) -> Decision {
    Question { draw: Some(draw), ..question(snapshot, profile, &policy()) }.decide()
}

fn compared(decision: &Decision) -> BTreeSet<usize> {
    decision.candidates.iter().map(|candidate| candidate.node).collect()
}

#[test]
fn some_are_compared_where_they_can_serve_and_others_for_another_request() {
    let snapshot = many(hot);
    let [one, other] = [1, 2].map(|draw| drawn(&snapshot, &single(), draw));
    assert_eq!((one.candidates.len(), one.passed_over), (CANDIDATES_MAX, NODES - CANDIDATES_MAX));
    assert_ne!(compared(&one), compared(&other));
    let all: BTreeSet<usize> =
        (0..NODES as u64).flat_map(|draw| compared(&drawn(&snapshot, &single(), draw))).collect();
    assert_eq!(all.len(), NODES, "every node has its turn");
    let everything = Question { draw: None, ..question(&snapshot, &single(), &policy()) }.decide();
    assert_eq!((everything.candidates.len(), everything.passed_over), (NODES, 0));
}

#[test]
fn a_conversation_finds_the_node_that_has_read_it() {
    let snapshot = many(hot);
    let turn = RequestProfile { conversation: Some(77), ..chat() };
    assert_eq!(compared(&drawn(&snapshot, &turn, 1)), compared(&drawn(&snapshot, &turn, 2)));
}

#[test]
fn all_are_looked_at_where_none_of_some_has_the_model_in_memory_and_room() {
    let only = 311;
    let snapshot = many(|index| if index == only { hot(index) } else { NodeSpec::default().cold("m") });
    let decision = drawn(&snapshot, &chat(), 5);
    assert_eq!((decision.candidates.len(), decision.candidates[0].node), (NODES, only));
    let busy = many(hot);
    let running: Vec<_> = busy.nodes.iter().enumerate().filter(|(index, _)| *index != only).collect();
    let _running: Vec<_> = running.iter().map(|(_, node)| Claim::take(&node.load, &node.models[0].load, 1)).collect();
    let goes: Vec<usize> = drawn(&busy, &chat(), 5).ready().map(|candidate| candidate.node).collect();
    assert_eq!(goes, [only], "a slot that is free somewhere is found");
}

#[test]
fn a_model_that_few_have_is_compared_on_all_of_them_and_the_others_are_refused_in_order() {
    let snapshot = many(|index| if index % 10 == 0 { hot(index) } else { NodeSpec::default().hot("other", 8192) });
    let decision = drawn(&snapshot, &chat(), 5);
    assert_eq!((decision.candidates.len(), decision.passed_over), (NODES / 10, 0));
    assert!(decision.refused.len() == NODES - NODES / 10 && decision.refused.is_sorted_by_key(|(node, _)| *node));
}
