//! Which model serves.

use std::collections::BTreeMap;

use super::*;
use crate::protect::ReloadCause;

fn spec(gib: u64) -> NodeSpec {
    NodeSpec { model_bytes: gib * GIB, capabilities: vec!["completion".into()], ..NodeSpec::default() }
}

fn rules(aliases: &[(&str, &str)], fallbacks: &[(&str, &[&str])]) -> ModelRules {
    let aliases: BTreeMap<_, _> = aliases.iter().map(|(from, to)| (name(from), name(to))).collect();
    let list = |names: &[&str]| names.iter().copied().map(name).collect();
    ModelRules::new(aliases, fallbacks.iter().map(|(of, names)| (name(of), list(names))).collect())
}

/// The model that serves, and how it came to.
#[track_caller]
fn check(decision: &Decision, model: &str, stand_in: Option<StandIn>) {
    assert_eq!((&decision.model, decision.stand_in), (&name(model), stand_in), "{decision:#?}");
}

fn serves(snapshot: &FleetSnapshot, policy: &Policy, body: &str) -> Decision {
    question(snapshot, &profile(body), policy).decide()
}

#[test]
fn fallbacks_serve_in_the_clients_order_when_the_requested_model_cannot() {
    let snapshot = fleet(&[("n", NodeSpec::default().cold("b").hot("c", 4096))], NOW);
    let serves = |body: &str| choose(&snapshot, &profile(body)).model.to_string();
    assert_eq!(serves(r#"{"model":"a","fallback_models":["b","c"]}"#), "b:latest");
    assert_eq!(serves(r#"{"model":"c","fallback_models":["b"]}"#), "c:latest");
    assert_eq!(serves(r#"{"model":"a","fallback_models":["x"]}"#), "a:latest");
}

#[test]
fn an_alias_is_resolved_wherever_a_model_is_named() {
    let snapshot = fleet(&[("n", spec(4).cold("real").cold("spare"))], NOW);
    let aliases = [("gpt-4", "real"), ("gpt-mini", "spare"), ("gone", "missing")];
    let fallbacks: [(&str, &[&str]); 2] = [("gone", &["gpt-mini"]), ("missing", &["real"])];
    let policy = Policy { models: rules(&aliases, &fallbacks), ..policy() };
    check(&serves(&snapshot, &policy, r#"{"model":"GPT-4"}"#), "real", Some(StandIn::Alias));
    check(&serves(&snapshot, &policy, r#"{"model":"gpt-4","fallback":false}"#), "real", Some(StandIn::Alias));
    check(&serves(&snapshot, &policy, r#"{"model":"real"}"#), "real", None);
    let body = r#"{"model":"x","fallback_models":["gpt-mini"]}"#;
    check(&serves(&snapshot, &policy, body), "spare", Some(StandIn::Fallback));
    check(&serves(&snapshot, &policy, r#"{"model":"gone"}"#), "spare", Some(StandIn::Fallback));
    let policy = Policy { models: rules(&aliases, &fallbacks[1..]), ..policy };
    check(&serves(&snapshot, &policy, r#"{"model":"gone"}"#), "real", Some(StandIn::Fallback));
    check(&serves(&snapshot, &policy, r#"{"model":"gone","fallback":false}"#), "missing", Some(StandIn::Alias));
}

#[test]
fn the_clients_list_goes_before_the_operators_and_is_the_only_one_without_its_consent() {
    let snapshot = fleet(&[("n", spec(4).cold("theirs").cold("ours"))], NOW);
    let policy = Policy { models: rules(&[], &[("m", &["ours"])]), ..policy() };
    let body = |more: &str| format!(r#"{{"model":"m"{more}}}"#);
    check(&serves(&snapshot, &policy, &body("")), "ours", Some(StandIn::Fallback));
    check(&serves(&snapshot, &policy, &body(r#","fallback":true"#)), "ours", Some(StandIn::Fallback));
    check(&serves(&snapshot, &policy, &body(r#","fallback":false"#)), "m", None);
    let listed = r#","fallback_models":["theirs"]"#;
    check(&serves(&snapshot, &policy, &body(listed)), "theirs", Some(StandIn::Fallback));
    let alone = format!(r#"{listed},"fallback":false"#);
    check(&serves(&snapshot, &policy, &body(&alone)), "theirs", Some(StandIn::Fallback));
}

#[test]
fn a_hot_fallback_goes_first_only_where_the_operator_says_so() {
    let snapshot = fleet(&[("n", spec(4).cold("m").hot("spare", 4096))], NOW);
    let body = r#"{"model":"m","fallback_models":["spare"]}"#;
    check(&serves(&snapshot, &policy(), body), "m", None);
    let fallback = FallbackPolicy { prefer_hot: true, ..FallbackPolicy::default() };
    let policy = Policy { fallback, ..policy() };
    check(&serves(&snapshot, &policy, body), "spare", Some(StandIn::Fallback));
    check(&serves(&snapshot, &policy, r#"{"model":"m","fallback_models":["x"]}"#), "m", None);
    check(&serves(&snapshot, &policy, r#"{"model":"spare","fallback_models":["m"]}"#), "spare", None);
}

/// `m` at 4096 on one node, a larger model at 32768 on another.
fn upgradable() -> FleetSnapshot {
    fleet(&[("small", spec(4).hot("m", 4096)), ("large", spec(20).hot("big", 32_768))], NOW)
}

#[test]
fn a_larger_model_serves_a_context_that_would_cost_a_reload_everywhere() {
    let snapshot = upgradable();
    let decision = choose(&snapshot, &asking(16_384));
    check(&decision, "big", Some(StandIn::Upgrade));
    let plan = at(&decision, &snapshot, "large").plan;
    assert_eq!((plan.action, plan.num_ctx, plan.window), (ContextAction::Upgraded, Some(32_768), Some(32_768)));
    assert_eq!((decision.candidates.len(), goes(&decision, &snapshot)), (1, vec!["large"]));
    let exact = choose(&snapshot, &asking(32_768));
    assert_eq!((exact.candidates[0].plan.action, exact.candidates[0].plan.num_ctx), (ContextAction::Upgraded, None));
}

#[test]
fn what_forbids_an_upgrade() {
    let snapshot = upgradable();
    let stays = |policy: Policy, profile: RequestProfile| {
        let decision = question(&snapshot, &profile, &policy).decide();
        check(&decision, "m", None);
        decision.candidates[0].plan
    };
    assert_eq!(stays(policy(), asking(4096)).cause, None);
    assert_eq!(stays(policy(), asking(2048)).action, ContextAction::Raised);
    assert_eq!(stays(policy(), asking(65_536)).cause, Some(ReloadCause::ContextLarger), "nobody holds as much");
    stays(Policy { auto_upgrade: false, ..policy() }, asking(16_384));
    for protection in [Protection::Warn, Protection::Passthrough] {
        stays(Policy { protection, ..policy() }, asking(16_384));
    }
    stays(policy(), RequestProfile { fallback: Some(false), ..asking(16_384) });
    stays(policy(), profile(r#"{"model":"m","options":{"num_ctx":2048,"draft_num_predict":64}}"#));
}

#[test]
fn an_upgrade_never_goes_to_an_embedding_model_nor_to_a_smaller_one() {
    let stays = |large: NodeSpec| {
        let snapshot = fleet(&[("small", spec(4).hot("m", 4096)), ("large", large)], NOW);
        check(&choose(&snapshot, &asking(16_384)), "m", None);
    };
    stays(NodeSpec { capabilities: vec!["embedding".into()], ..spec(20).hot("big", 32_768) });
    stays(spec(20).hot("nomic-embed-text", 8192));
    stays(spec(2).hot("big", 32_768));
    stays(spec(20).cold("big"));
    stays(spec(20).hot("big", 8192));
}

#[test]
fn the_same_model_with_enough_context_goes_before_an_upgrade_however_busy() {
    let nodes =
        [("small", spec(4).hot("m", 4096)), ("wide", spec(4).hot("m", 16_384)), ("large", spec(20).hot("big", 32_768))];
    let snapshot = fleet(&nodes, NOW);
    let _running = run(&snapshot, "wide", "m");
    let decision = choose(&snapshot, &asking(16_384));
    check(&decision, "m", None);
    assert_eq!(at(&decision, &snapshot, "wide").readiness, Readiness::Busy);
    snapshot.node("wide").unwrap().load.set_probe_failed(true);
    check(&choose(&snapshot, &asking(16_384)), "big", Some(StandIn::Upgrade));
}

/// The longer the reload, the more an upgrade is worth.
#[test]
fn an_upgrade_also_spares_a_reload_that_is_too_long() {
    let snapshot = upgradable();
    let (_, m) = model(&snapshot, "small", "m");
    m.load.observe_work(&crate::load::Work { load_ms: Some(90_000.0), ..Default::default() });
    let fallback = FallbackPolicy { vram: false, ..FallbackPolicy::default() };
    let decision = question(&snapshot, &asking(16_384), &Policy { fallback, ..policy() }).decide();
    check(&decision, "big", Some(StandIn::Upgrade));
}

/// A model that takes two minutes to load, and another that is loaded.
fn slow_and_hot() -> FleetSnapshot {
    let slow = NodeSpec { memory_bytes: 512 * GIB, free_bytes: 512 * GIB, ..spec(170).cold("m") };
    fleet(&[("slow", slow), ("quick", spec(4).hot("other", 8192))], NOW)
}

#[test]
fn a_loaded_model_stands_in_for_one_that_is_too_slow_everywhere() {
    let snapshot = slow_and_hot();
    let decision = choose(&snapshot, &chat());
    check(&decision, "other", Some(StandIn::Vram));
    assert_eq!(goes(&decision, &snapshot), ["quick"]);
    check(&choose(&snapshot, &RequestProfile { fallback: Some(false), ..chat() }), "m", None);
    let off = FallbackPolicy { vram: false, ..FallbackPolicy::default() };
    check(&question(&snapshot, &chat(), &Policy { fallback: off, ..policy() }).decide(), "m", None);
    let patient = FallbackPolicy { after_ms: 600_000, ..FallbackPolicy::default() };
    check(&question(&snapshot, &chat(), &Policy { fallback: patient, ..policy() }).decide(), "m", None);
}

#[test]
fn a_model_that_is_merely_cold_is_loaded() {
    let snapshot = fleet(&[("a", spec(4).cold("m")), ("b", spec(4).hot("other", 8192))], NOW);
    check(&choose(&snapshot, &chat()), "m", None);
}

#[test]
fn a_stand_in_serves_an_alias_as_it_serves_the_model_itself() {
    let policy = Policy { models: rules(&[("gpt-4", "m")], &[]), ..policy() };
    check(&serves(&slow_and_hot(), &policy, r#"{"model":"gpt-4"}"#), "other", Some(StandIn::Vram));
}

#[test]
fn a_model_that_nobody_has_is_never_substituted() {
    let snapshot = fleet(&[("n", spec(4).hot("other", 8192))], NOW);
    let any = Question { allow_any_substitute: true, ..question(&snapshot, &chat(), &policy()) }.decide();
    check(&any, "m", None);
    assert!(any.candidates.is_empty());
}

#[test]
fn nodes_that_are_away_are_waited_for_until_that_is_in_vain() {
    let snapshot = fleet(&[("away", spec(4).hot("m", 8192)), ("here", spec(4).hot("other", 8192))], NOW);
    let snapshot = edited(&snapshot, "away", |node| node.ollama = crate::wire::OllamaState::Down);
    let decide = |allow_any_substitute, fallback| {
        let profile = RequestProfile { fallback, ..chat() };
        Question { allow_any_substitute, ..question(&snapshot, &profile, &policy()) }.decide()
    };
    check(&decide(false, None), "m", None);
    check(&decide(true, None), "other", Some(StandIn::Vram));
    check(&decide(true, Some(false)), "m", None);
}

#[test]
fn a_fallback_in_time_goes_before_a_stand_in_and_a_slow_one_after_it() {
    let snapshot = slow_and_hot();
    let listed = |names: &str| format!(r#"{{"model":"m","fallback_models":[{names}]}}"#);
    check(&serves(&snapshot, &policy(), &listed(r#""other""#)), "other", Some(StandIn::Fallback));
    check(&serves(&snapshot, &policy(), &listed(r#""x""#)), "other", Some(StandIn::Vram));
    let body = r#"{"model":"m","fallback_models":["x"],"fallback":false}"#;
    check(&serves(&snapshot, &policy(), body), "m", None);
}
