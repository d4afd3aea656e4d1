//! Requests that would reload each other's runners are kept apart.

use super::*;
use crate::launch::LaunchOptions;
use crate::protect::ReloadCause;

fn batch(tokens: i64) -> RequestProfile {
    let launch = Signature::new(&LaunchOptions { draft_num_predict: Some(tokens), ..LaunchOptions::default() });
    RequestProfile { launch, ..chat() }
}

/// Two nodes, each launched for one of two clients.
fn two_clients() -> (FleetSnapshot, [RequestProfile; 2]) {
    let clients = [batch(128), batch(1024)];
    let hot = || NodeSpec::default().hot("m", 8192);
    let snapshot = fleet(&[("first", hot()), ("second", hot())], NOW);
    for (id, client) in ["first", "second"].into_iter().zip(&clients) {
        model(&snapshot, id, "m").1.load.set_launched(Some(client.launch));
    }
    (snapshot, clients)
}

#[test]
fn clients_with_different_options_keep_to_their_own_nodes() {
    let (snapshot, clients) = two_clients();
    for _ in 0..3 {
        for (own, client) in ["first", "second"].into_iter().zip(&clients) {
            let decision = choose(&snapshot, client);
            assert_eq!(goes(&decision, &snapshot), [own]);
            let _running = run(&snapshot, own, "m");
            assert_eq!(goes(&choose(&snapshot, client), &snapshot), Vec::<&str>::new(), "not even while it is busy");
        }
    }
}

#[test]
fn the_first_of_two_clients_leaves_the_other_its_own_node() {
    let cold = || NodeSpec::default().cold("m");
    let mut snapshot = fleet(&[("a", cold()), ("b", cold())], NOW);
    let mut homes = Vec::new();
    for client in [batch(128), batch(1024)] {
        let decision = choose(&snapshot, &client);
        let node = decision.ready().next().unwrap().node;
        let name = name("m");
        let number = snapshot.nodes[node].number;
        let loaded = Loaded { node: number, model: &name, context_length: Some(4096), signature: client.launch };
        snapshot = snapshot.with_loaded(&loaded, NOW).unwrap();
        homes.push((client, node));
        // It is asked again and again while the other is not there yet.
        let (node, model) = (&snapshot.nodes[node], &snapshot.nodes[node].models[0]);
        std::mem::forget(Claim::take(&node.load, &model.load, 0));
    }
    assert_ne!(homes[0].1, homes[1].1);
}

#[test]
fn on_one_node_the_second_client_waits_for_the_first_and_then_reloads() {
    let snapshot = fleet(&[("n", NodeSpec { slots: Some(4), ..NodeSpec::default().hot("m", 8192) })], NOW);
    let (first, second) = (batch(128), batch(1024));
    model(&snapshot, "n", "m").1.load.set_launched(Some(first.launch));
    let found = |profile: &RequestProfile| {
        let candidate = choose(&snapshot, profile).candidates[0].clone();
        (candidate.readiness, candidate.plan.cause)
    };
    let running = run(&snapshot, "n", "m");
    assert_eq!(found(&first), (Readiness::Free, None));
    assert_eq!(found(&second), (Readiness::Occupied, Some(ReloadCause::LaunchOptions)));
    drop(running);
    assert_eq!(found(&second), (Readiness::Free, Some(ReloadCause::LaunchOptions)));
}

#[test]
fn what_cannot_say_a_context_goes_where_the_runner_has_the_default_one() {
    let hot = |context| NodeSpec { default_context: Some(4096), ..NodeSpec::default().hot("m", context) };
    let snapshot = fleet(&[("a", hot(16_384)), ("b", hot(4096))], NOW);
    for surface in Surface::ALL.into_iter().filter(|surface| !surface.carries_num_ctx()) {
        let profile = RequestProfile { surface, ..chat() };
        let decision = choose(&snapshot, &profile);
        assert_eq!(goes(&decision, &snapshot), ["b"], "{surface:?}");
        let other = at(&decision, &snapshot, "a");
        assert_eq!((other.plan.cause, other.readiness), (Some(ReloadCause::NodeDefault), Readiness::LoadDoesNotPay));
        let _running = run(&snapshot, "b", "m");
        assert_eq!(goes(&choose(&snapshot, &profile), &snapshot), Vec::<&str>::new(), "{surface:?} waits for it");
    }
    assert_eq!(goes(&choose(&snapshot, &chat()), &snapshot).len(), 2, "a native request is pinned on both");
}
