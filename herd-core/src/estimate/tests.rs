use super::*;
use crate::inspect::{InspectLimits, inspect};
use crate::load::{Claim, Seen};
use crate::protect::{Protection, plan};
use crate::request::Surface;
use crate::testing::{GIB, NodeSpec, node};

const NOW: u64 = 50_000;

fn profile(prompt_tokens: u64) -> RequestProfile {
    let profile = inspect(Surface::OllamaChat, br#"{"model":"m"}"#, &InspectLimits::default()).unwrap();
    RequestProfile { prompt_tokens, ..profile }
}

fn predicted(node: &Node, profile: &RequestProfile, now_ms: u64) -> Prediction {
    let model = node.model(&profile.model).unwrap();
    let plan = plan(profile, node, model, None, Protection::Strip);
    predict(profile, &Spot::read(node, model, now_ms), &plan, Usual::of([(node, model)].into_iter()))
}

fn hot() -> NodeSpec {
    NodeSpec { model_bytes: 6_000_000_000, bandwidth_gbps: 100.0, ..NodeSpec::default().hot("m", 4096) }
}

#[track_caller]
fn near(actual: f64, expected: f64) {
    assert!((actual - expected).abs() <= expected.abs() * 1e-6, "{actual} is not {expected}");
}

/// 6 GB at 60 % of 100 GB/s: 100 ms a token, 5 ms a token of the prompt.
#[test]
fn hardware_tells_what_was_never_measured() {
    let prediction = predicted(&node("n", &hot()), &profile(1_000), NOW);
    near(prediction.prefill_ms, 5_000.0);
    near(prediction.decode_ms, 20_000.0);
    assert_eq!((prediction.wait_ms, prediction.load_ms), (0.0, 0.0));
}

#[test]
fn learned_rates_take_the_place_of_assumptions_one_by_one() {
    let node = node("n", &hot());
    let load = &node.models[0].load;
    load.observe_work(&Work { prefill: Some((1_000, 1_000.0)), ..Work::default() });
    near(predicted(&node, &profile(1_000), NOW).prefill_ms, 1_000.0);
    near(predicted(&node, &profile(1_000), NOW).decode_ms, 20_000.0);
    load.observe_work(&Work { decode: Some((50, 500.0)), ..Work::default() });
    let prediction = predicted(&node, &profile(1_000), NOW);
    near(prediction.decode_ms, 500.0);
    near(prediction.total_ms(), 1_500.0);
}

#[test]
fn answers_are_as_long_as_they_were_here_and_at_most_as_the_request_allows() {
    let node = node("n", &hot());
    let decode = |limit| predicted(&node, &RequestProfile { max_output_tokens: limit, ..profile(0) }, NOW).decode_ms;
    near(decode(Some(10)), 1_000.0);
    near(decode(Some(100_000)), 80_000.0);
    node.models[0].load.observe_work(&Work { decode: Some((50, 5_000.0)), ..Work::default() });
    near(decode(None), 5_000.0);
    near(decode(Some(10)), 1_000.0);
    near(decode(Some(100_000)), 5_000.0);
    near(predicted(&node, &RequestProfile { surface: Surface::OllamaEmbed, ..profile(0) }, NOW).decode_ms, 0.0);
}

#[test]
fn whole_requests_tell_where_their_parts_were_never_measured() {
    let node = node("n", &hot());
    let load = &node.models[0].load;
    (0..20).for_each(|_| load.observe(4_096.0, NOW));
    let prediction = predicted(&node, &profile(100), NOW);
    near(prediction.prefill_ms, 500.0);
    near(prediction.total_ms(), 4_096.0);
    load.observe_work(&Work { decode: Some((10, 100.0)), ..Work::default() });
    near(predicted(&node, &profile(100), NOW).decode_ms, 100.0);
}

#[test]
fn a_load_takes_what_it_took_else_what_its_size_says() {
    let spec = NodeSpec { model_bytes: 6_000_000_000, ..NodeSpec::default().cold("m") };
    let mut node = node("n", &spec);
    near(predicted(&node, &profile(0), NOW).load_ms, 4_500.0);
    node.models[0].unloaded_at_ms = Some(NOW);
    near(predicted(&node, &profile(0), NOW).load_ms, 1_500.0);
    near(predicted(&node, &profile(0), NOW + WARM_MS).load_ms, 4_500.0);
    node.models[0].size_bytes = None;
    assert!(predicted(&node, &profile(0), NOW).load_ms < predicted(&node, &profile(0), NOW + WARM_MS).load_ms);
    node.models[0].load.observe_work(&Work { load_ms: Some(7_000.0), ..Work::default() });
    near(predicted(&node, &profile(0), NOW + WARM_MS).load_ms, 7_000.0);
}

fn begin(node: &Node, name: &str, for_ms: u64) -> Claim {
    let model = node.models.iter().find(|model| model.name.as_str().starts_with(name)).unwrap();
    let load = Loading { model: model.key, since_ms: NOW, until_ms: NOW + for_ms };
    let seen = Seen { in_flight: 0, on_model: 0, load: Some(load) };
    Claim::try_take(&node.load, &model.load, &seen, 0).unwrap()
}

#[test]
fn a_load_under_way_is_waited_for_and_not_done_again_unless_it_does_not_end() {
    let node = node("n", &NodeSpec { slots: Some(4), ..hot() });
    let mut cold = node.clone();
    cold.models[0].resident = None;
    let _loading = begin(&cold, "m", 2_000);
    let at = |later| predicted(&cold, &profile(0), NOW + later);
    near(at(500).load_ms, 0.0);
    near(at(500).wait_ms, 1_500.0);
    near(at(9_000).load_ms, 0.0);
    assert!(at(11_001).load_ms > 1_000.0, "nothing is known of an overdue one");
}

#[test]
fn a_model_in_memory_does_not_wait_for_the_load_of_another() {
    let spec = NodeSpec { slots: Some(4), free_bytes: 60 * GIB, ..hot().cold("other").cold("third") };
    let node = node("n", &spec);
    let _loading = begin(&node, "other", 9_000);
    near(predicted(&node, &profile(0), NOW).wait_ms, 0.0);
    let third = RequestProfile { model: crate::name::ModelName::new("third").unwrap(), ..profile(0) };
    assert!(predicted(&node, &third, NOW).wait_ms >= 9_000.0);
}

/// Other models on the device do not run on its runner: they slow it, and are not what it waits for.
#[test]
fn a_reload_waits_for_all_that_runs_on_its_own_runner() {
    let node = node("n", &NodeSpec { slots: Some(4), ..hot().hot("other", 4096) });
    let wide = RequestProfile { num_ctx: Some(8192), ..profile(0) };
    let run = |name: &str| {
        let model = node.models.iter().find(|model| model.name.as_str().starts_with(name)).unwrap();
        Claim::take(&node.load, &model.load, 0)
    };
    let _other = run("other");
    near(predicted(&node, &wide, NOW).wait_ms, 0.0);
    let _own = run("m");
    assert!(predicted(&node, &wide, NOW).wait_ms > 0.0);
    // A slot is free for what it serves as it is.
    near(predicted(&node, &profile(0), NOW).wait_ms, 0.0);
}

/// What is slowed down by a crowd is neither learned as the node's speed nor forgotten while the crowd is there.
#[test]
fn a_crowd_slows_what_is_beside_it_and_not_what_comes_later() {
    let node = node("n", &NodeSpec { slots: Some(4), ..hot().hot("other", 4096) });
    let load = |name: &str| {
        let model = node.models.iter().find(|model| model.name.as_str().starts_with(name)).unwrap();
        (Claim::take(&node.load, &model.load, 0), model)
    };
    let idle = predicted(&node, &profile(1_000), NOW);
    let (own, m) = load("m");
    near(predicted(&node, &profile(1_000), NOW).decode_ms, idle.decode_ms * 1.1);
    let (beside, _) = load("m");
    let (other, _) = load("other");
    near(predicted(&node, &profile(1_000), NOW).decode_ms, idle.decode_ms * 1.2 * 2.0);
    near(predicted(&node, &profile(1_000), NOW).prefill_ms, idle.prefill_ms * 2.0);
    let taken = Work { load_ms: None, prefill: Some((1_000, 2_000.0)), decode: Some((100, 2_200.0)) };
    let kept = plan(&profile(1_000), &node, m, None, Protection::Strip);
    let learned = alone(&profile(1_000), &node, m, &kept, &taken);
    near(learned.prefill.unwrap().1, 1_000.0);
    near(learned.decode.unwrap().1, 1_000.0);
    drop((own, beside, other));
    near(predicted(&node, &profile(1_000), NOW).decode_ms, idle.decode_ms);
}

#[test]
fn what_others_lose_is_told_beside_what_the_request_takes() {
    let node = node("n", &NodeSpec { slots: Some(2), ..hot().hot("other", 4096) });
    let run = |name: &str| {
        let model = node.models.iter().find(|model| model.name.as_str().starts_with(name)).unwrap();
        Claim::take(&node.load, &model.load, 0)
    };
    let others_ms = || predicted(&node, &profile(1_000), NOW).others_ms;
    near(others_ms(), 0.0);
    let _others = (run("other"), run("other"));
    near(others_ms(), 2.0 * 25_000.0);
    let _own = run("m");
    near(others_ms(), 5_000.0 + 0.1 * 20_000.0);
    let _full = run("m");
    near(others_ms(), 5_000.0 + 0.1 * 20_000.0);
    let prediction = predicted(&node, &profile(1_000), NOW);
    near(prediction.cost_ms() + prediction.load_ms, prediction.total_ms() + prediction.others_ms);
}

#[test]
fn what_a_conversation_has_said_before_is_not_read_again() {
    let node = node("n", &NodeSpec { slots: Some(2), ..hot() });
    let model = &node.models[0];
    let turn = RequestProfile { conversation: Some(7), ..profile(1_000) };
    let read_ms = |profile: &RequestProfile| predicted(&node, profile, NOW).prefill_ms;
    near(read_ms(&turn), 5_000.0);
    model.load.remember(Some(7), 900);
    near(read_ms(&turn), 500.0);
    near(read_ms(&RequestProfile { conversation: Some(8), ..turn.clone() }), 5_000.0);
    near(read_ms(&profile(1_000)), 5_000.0);
    model.load.remember(None, 10);
    near(read_ms(&turn), 500.0);
    model.load.remember(None, 10);
    near(read_ms(&turn), 5_000.0);
    model.load.remember(Some(7), 900);
    let kept = plan(&turn, &node, model, None, Protection::Strip);
    let work = |ms| Work { prefill: Some((1_000, ms)), ..Work::default() };
    assert_eq!(alone(&turn, &node, model, &kept, &work(500.0)).prefill, None, "a tenth tells nothing of the speed");
    model.load.forget_conversations();
    assert_eq!(alone(&turn, &node, model, &kept, &work(5_000.0)).prefill, Some((1_000, 5_000.0)));
}

/// A node that was never measured must not be shunned because its hardware is taken to be slower than its kind shows.
#[test]
fn what_was_never_measured_is_judged_by_the_nodes_that_were() {
    let (known, new) = (node("known", &hot()), node("new", &NodeSpec { bandwidth_gbps: 200.0, ..hot() }));
    known.models[0].load.observe_work(&Work { decode: Some((50, 500.0)), ..Work::default() });
    let usual = Usual::of([&known, &new].into_iter().map(|node| (node, &node.models[0])));
    let plan = plan(&profile(0), &new, &new.models[0], None, Protection::Strip);
    // 10 ms a token where 100 were to be expected, and twice the bandwidth.
    near(predict(&profile(0), &Spot::read(&new, &new.models[0], NOW), &plan, usual).decode_ms, 50.0 * 5.0);
    assert_eq!(Usual::of(std::iter::empty()), Usual::default());
}
