use super::*;
use crate::fleet::{Model, Node};
use crate::inspect::{InspectLimits, inspect};
use crate::launch::{LaunchOptions, Signature};
use crate::load::{Claim, Loading, SLOT_REGAIN_MS, Seen};
use crate::name::ModelName;
use crate::protect::{Protection, plan};
use crate::request::Surface;
use crate::testing::{GIB, NodeSpec, node};

const NOW: u64 = 50_000;

fn profile(body: &str) -> RequestProfile {
    inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap()
}

fn model<'a>(node: &'a Node, model: &str) -> &'a Model {
    node.model(&ModelName::new(model).unwrap()).unwrap()
}

fn found_at(node: &Node, body: &str, now_ms: u64) -> Readiness {
    let profile = profile(body);
    let model = node.model(&profile.model).unwrap();
    let plan = plan(&profile, node, model, model.load.launched(), Protection::Strip);
    readiness(&profile, &Spot::read(node, model, now_ms), &plan)
}

/// What a request of this body finds.
fn found(node: &Node, body: &str) -> Readiness {
    found_at(node, body, NOW)
}

const PLAIN: &str = r#"{"model":"m"}"#;

fn run(node: &Node, name: &str) -> Claim {
    Claim::take(&node.load, &model(node, name).load, 0)
}

/// A load of `name` that began at [`NOW`] and was to take a second: overdue after 8 s.
fn load(node: &Node, name: &str) -> Claim {
    let model = model(node, name);
    let load = Loading { model: model.key, since_ms: NOW, until_ms: NOW + 1_000 };
    let seen = Seen { in_flight: node.load.in_flight(), on_model: model.load.in_flight(), load: Some(load) };
    Claim::try_take(&node.load, &model.load, &seen, 0).unwrap()
}

/// Slots as the runner reports them, as the environment says, requests of ours and of others.
#[track_caller]
fn check_slots(runner: Option<u32>, env: Option<u32>, ours: u32, others: u32, expected: Readiness) {
    let mut node = node("n", &NodeSpec::default().hot("m", 4096));
    node.env.num_parallel = env;
    let resident = node.models[0].resident.as_mut().unwrap();
    (resident.slots, resident.busy_by_others) = (runner, others);
    let _running: Vec<_> = (0..ours).map(|_| run(&node, "m")).collect();
    assert_eq!(found(&node, PLAIN), expected, "{runner:?} {env:?} {ours} {others}");
}

#[test]
fn a_slot_is_free_while_ours_and_others_leave_one() {
    use Readiness::{Busy, Free};
    check_slots(Some(2), None, 0, 0, Free);
    check_slots(Some(2), None, 1, 0, Free);
    check_slots(Some(2), None, 0, 1, Free);
    check_slots(Some(2), None, 1, 1, Busy);
    check_slots(Some(2), None, 2, 0, Busy);
    check_slots(Some(2), None, 0, 2, Busy);
    check_slots(Some(1), Some(4), 1, 0, Busy);
    check_slots(None, Some(4), 3, 0, Free);
    check_slots(None, Some(4), 4, 0, Busy);
    check_slots(None, None, 0, 0, Free);
    check_slots(None, None, 1, 0, Busy);
    check_slots(None, Some(0), 0, 0, Free);
    check_slots(Some(u32::MAX), None, 3, u32::MAX, Busy);
}

#[test]
fn slots_are_learned_down_after_busy_and_come_back() {
    let node = node("n", &NodeSpec { slots: Some(4), ..NodeSpec::default().hot("m", 4096) });
    let mut running: Vec<_> = (0..3).map(|_| run(&node, "m")).collect();
    model(&node, "m").load.refused_as_busy(NOW);
    running.pop();
    assert_eq!(found(&node, PLAIN), Readiness::BackingOff);
    assert_eq!(found_at(&node, PLAIN, NOW + 250), Readiness::Busy, "two of four are left");
    running.pop();
    assert_eq!(found_at(&node, PLAIN, NOW + 250), Readiness::Free);
    running.push(run(&node, "m"));
    assert_eq!(found_at(&node, PLAIN, NOW + SLOT_REGAIN_MS), Readiness::Free);
}

#[test]
fn a_load_is_joined_and_what_needs_another_waits_for_it() {
    let node = node("n", &NodeSpec::default().cold("m").cold("other").hot("hot", 4096));
    let _loading = load(&node, "m");
    assert_eq!(found(&node, PLAIN), Readiness::Loading);
    assert_eq!(found(&node, r#"{"model":"other"}"#), Readiness::Occupied);
    assert_eq!(found(&node, r#"{"model":"hot"}"#), Readiness::Free, "it is served beside a load");
    assert_eq!(found(&node, r#"{"model":"hot","options":{"num_ctx":8192}}"#), Readiness::Occupied);
}

#[test]
fn a_reload_ends_what_its_runner_has_served() {
    let node = node("n", &NodeSpec { slots: Some(4), ..NodeSpec::default().hot("m", 4096) });
    let _reloading = load(&node, "m");
    assert_eq!(found(&node, PLAIN), Readiness::Loading);
    assert_eq!(found(&node, r#"{"model":"m","options":{"num_ctx":4096}}"#), Readiness::Loading);
}

#[test]
fn an_overdue_load_keeps_its_place_and_holds_nothing_else_up() {
    let node = node("n", &NodeSpec { slots: Some(4), ..NodeSpec::default().cold("m").cold("other").hot("hot", 4096) });
    let _loading = load(&node, "m");
    let at = |body, later| found_at(&node, body, NOW + later);
    assert_eq!((at(PLAIN, 8_000), at(PLAIN, 8_001)), (Readiness::Loading, Readiness::Overdue));
    assert_eq!(at(r#"{"model":"other"}"#, 8_001), Readiness::Overdue, "Ollama loads one at a time");
    assert_eq!(at(r#"{"model":"hot"}"#, 8_001), Readiness::Free);
    assert!(!Readiness::Overdue.is_waited_for() && Readiness::Loading.is_waited_for());
}

#[test]
fn an_overdue_reload_lets_the_old_runner_be_tried() {
    let node = node("n", &NodeSpec { slots: Some(4), ..NodeSpec::default().hot("m", 4096) });
    let _reloading = load(&node, "m");
    assert_eq!(found_at(&node, PLAIN, NOW + 8_001), Readiness::Free);
}

/// Free memory in GiB beside a running model of 4 GiB, when another of 4 GiB is to be loaded.
#[track_caller]
fn check_room(free: u64, max_loaded: Option<u32>, running: bool, expected: Readiness) {
    let spec = NodeSpec { free_bytes: free * GIB, ..NodeSpec::default().cold("m").hot("other", 4096) };
    let mut node = node("n", &spec);
    node.env.max_loaded_models = max_loaded;
    let _running = running.then(|| run(&node, "other"));
    assert_eq!(found(&node, PLAIN), expected, "{free} {max_loaded:?} {running}");
}

#[test]
fn a_load_waits_for_room_that_only_running_models_could_give() {
    use Readiness::{Free, Occupied};
    check_room(0, None, false, Free);
    check_room(0, Some(1), false, Free);
    check_room(3, None, true, Occupied);
    check_room(4, None, true, Free);
    check_room(40, Some(2), true, Free);
    check_room(40, Some(1), true, Occupied);
    check_room(40, Some(0), true, Free);
}

#[test]
fn idle_models_make_room_and_what_is_unknown_does_not_wait() {
    let spec = NodeSpec { free_bytes: 0, ..NodeSpec::default().cold("m").hot("busy", 4096).hot("idle", 4096) };
    let mut node = node("n", &spec);
    let _running = run(&node, "busy");
    assert_eq!(found(&node, PLAIN), Readiness::Free, "the idle one is evicted");
    node.env.max_loaded_models = Some(2);
    assert_eq!(found(&node, PLAIN), Readiness::Free);
    let _other = run(&node, "idle");
    assert_eq!(found(&node, PLAIN), Readiness::Occupied);
    node.env.max_loaded_models = None;
    node.device.free_bytes = None;
    assert_eq!(found(&node, PLAIN), Readiness::Free);
}

#[test]
fn the_names_of_one_runner_count_once_against_the_limit() {
    let mut node = node(
        "n",
        &NodeSpec { free_bytes: 40 * GIB, ..NodeSpec::default().cold("m").hot("other", 4096).hot("again", 4096) },
    );
    let shared = std::sync::Arc::clone(&model(&node, "other").load);
    let again = node.models.iter_mut().find(|model| model.name.as_str() == "again:latest").unwrap();
    (again.load, again.shares_runner) = (shared, true);
    node.env.max_loaded_models = Some(2);
    let _running = run(&node, "other");
    assert_eq!(found(&node, PLAIN), Readiness::Free);
}

#[test]
fn a_reload_waits_until_its_own_runner_is_idle() {
    let mut node = node("n", &NodeSpec { slots: Some(4), ..NodeSpec::default().hot("m", 4096).hot("other", 4096) });
    let wide = r#"{"model":"m","options":{"num_ctx":8192}}"#;
    let _other = run(&node, "other");
    assert_eq!(found(&node, wide), Readiness::Free);
    let running = run(&node, "m");
    assert_eq!((found(&node, wide), found(&node, PLAIN)), (Readiness::Occupied, Readiness::Free));
    drop(running);
    let place = node.models.iter().position(|model| model.name.as_str() == "m:latest").unwrap();
    node.models[place].resident.as_mut().unwrap().busy_by_others = 1;
    assert_eq!(found(&node, wide), Readiness::Occupied);
}

#[test]
fn a_reserved_node_is_for_whom_it_was_reserved() {
    let node = node("n", &NodeSpec::default().hot("m", 4096).cold("other"));
    let key = |name: &str| ModelName::new(name).unwrap().key();
    let other = Signature::new(&LaunchOptions { draft_num_predict: Some(64), ..LaunchOptions::default() });
    let reserve = |name: &str, signature| node.load.reserve(key(name), signature, NOW + 1_000);
    let wide = r#"{"model":"m","options":{"num_ctx":8192}}"#;
    reserve("other", Signature::DEFAULT);
    assert_eq!(found(&node, PLAIN), Readiness::Reserved);
    assert_eq!(found(&node, r#"{"model":"other"}"#), Readiness::Free);
    assert_eq!(found_at(&node, PLAIN, NOW + 1_000), Readiness::Free, "it ends by itself");
    reserve("m", other);
    assert_eq!((found(&node, PLAIN), found(&node, wide)), (Readiness::Reserved, Readiness::Reserved));
    assert_eq!(found(&node, r#"{"model":"m","options":{"draft_num_predict":64}}"#), Readiness::Free);
    reserve("m", Signature::DEFAULT);
    assert_eq!(found(&node, wide), Readiness::Free, "a larger context, for which the runner must be idle");
    assert_eq!(found(&node, PLAIN), Readiness::Reserved, "or those that it serves would go on for ever");
    node.load.unreserve();
    assert_eq!(found(&node, PLAIN), Readiness::Free);
}

#[test]
fn a_context_that_is_not_yet_known_is_waited_for_but_not_for_long() {
    let mut node = node("n", &NodeSpec::default().hot("m", 4096));
    let resident = node.models[0].resident.as_mut().unwrap();
    (resident.context_length, resident.unconfirmed, resident.seen_at_ms) = (None, true, Some(NOW));
    let names = r#"{"model":"m","options":{"num_ctx":4096}}"#;
    assert_eq!((found(&node, names), found(&node, PLAIN)), (Readiness::Settling, Readiness::Free));
    assert_eq!(found_at(&node, names, NOW + SETTLING_MS), Readiness::Free, "its agent is silent");
    node.models[0].resident.as_mut().unwrap().unconfirmed = false;
    assert_eq!(found(&node, names), Readiness::Free);
}

/// Its load has ended, but the picture that says so is not the one that was read.
#[test]
fn a_model_that_runs_for_us_is_not_loaded_again() {
    let node = node("n", &NodeSpec::default().cold("m"));
    let mut claim = load(&node, "m");
    claim.load_ended();
    assert_eq!(found(&node, PLAIN), Readiness::Settling);
    drop(claim);
    assert_eq!(found(&node, PLAIN), Readiness::Free);
}
