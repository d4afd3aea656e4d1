use super::*;
use crate::sim::catalogue::{LAPTOP, RTX, model_index};

const KEEP_MS: f64 = 300_000.0;

fn job(attempt: usize, model: &str, output: u64) -> Job {
    let model = model_index(model);
    Job { attempt, model, context: None, prompt: 100, prefix: None, output, keep_ms: KEEP_MS }
}

/// Lets `node` work until nothing is due within `until_ms`; what ended when.
fn work(node: &mut Node, until_ms: f64) -> Vec<(f64, Output)> {
    let mut happened = Vec::new();
    while let Some(next_ms) = node.next_ms().filter(|next_ms| *next_ms <= until_ms) {
        let mut out = Vec::new();
        node.advance(next_ms, &mut out);
        happened.extend(out.into_iter().map(|output| (next_ms, output)));
    }
    happened
}

fn ends(happened: &[(f64, Output)]) -> Vec<(usize, f64)> {
    let end = |(at_ms, output): &(f64, Output)| match output {
        Output::Done(attempt, _) => Some((*attempt, *at_ms)),
        _ => None,
    };
    happened.iter().filter_map(end).collect()
}

#[track_caller]
fn near(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 1e-3 * expected.abs().max(1.0), "{actual} is not {expected}");
}

fn hot(hardware: &'static Hardware, model: &str) -> Node {
    let mut node = Node::new(hardware);
    node.preload(model_index(model), None);
    node
}

#[test]
fn one_alone_takes_its_prompt_and_its_tokens() {
    let mut node = hot(&RTX, "llama3.1:8b");
    node.submit(job(0, "llama3.1:8b", 101), &mut Vec::new());
    let happened = work(&mut node, 60_000.0);
    let model = &MODELS[model_index("llama3.1:8b")];
    near(ends(&happened)[0].1, 100.0 / RTX.prefill_per_ms(model) + 100.0 * RTX.token_ms(model));
}

#[test]
fn a_batch_is_slower_for_each_and_faster_for_all() {
    let alone_ms = {
        let mut node = hot(&RTX, "llama3.1:8b");
        node.submit(job(0, "llama3.1:8b", 500), &mut Vec::new());
        ends(&work(&mut node, 60_000.0))[0].1
    };
    let mut node = hot(&RTX, "llama3.1:8b");
    (0..6).for_each(|attempt| assert!(node.submit(job(attempt, "llama3.1:8b", 500), &mut Vec::new())));
    let ends = ends(&work(&mut node, 60_000.0));
    assert_eq!(ends.len(), 6);
    assert!(ends[3].1 > alone_ms * 1.2 && ends[3].1 < alone_ms * 2.0, "four slots: {ends:?}");
    assert!(ends[4].1 > ends[3].1 + alone_ms, "two wait for a slot: {ends:?}");
}

#[test]
fn another_context_reloads_when_its_runner_is_idle_and_holds_other_loads_up() {
    let mut node = hot(&RTX, "llama3.1:8b");
    let mut out = Vec::new();
    node.submit(job(0, "llama3.1:8b", 1_000), &mut out);
    node.submit(Job { context: Some(4_096), ..job(1, "llama3.1:8b", 10) }, &mut out);
    node.submit(job(2, "llama3.2:3b", 10), &mut out);
    node.submit(job(3, "llama3.1:8b", 10), &mut out);
    let happened = work(&mut node, 120_000.0);
    let order: Vec<usize> = ends(&happened).into_iter().map(|(attempt, _)| attempt).collect();
    assert_eq!(order, [3, 0, 1, 2], "what is in memory passes, what waits keeps its order");
    let loads: Vec<Output> =
        happened.iter().map(|(_, output)| *output).filter(|output| matches!(output, Output::Loads { .. })).collect();
    assert_eq!(loads, [Output::Loads { attempt: 1, had: Some(8_192) }, Output::Loads { attempt: 2, had: None }]);
}

#[test]
fn a_conversation_reads_only_what_is_new() {
    let mut node = hot(&LAPTOP, "llama3.1:8b");
    let turn = |attempt, prompt, shared| Job { prompt, prefix: Some((7, shared)), ..job(attempt, "llama3.1:8b", 2) };
    let read_ms = |node: &mut Node, job: Job| {
        node.submit(job, &mut Vec::new());
        let happened = work(node, f64::MAX);
        happened.iter().find_map(|(_, output)| match output {
            Output::Done(_, timing) => Some(timing.prefill_ms),
            _ => None,
        })
    };
    let per_ms = LAPTOP.prefill_per_ms(&MODELS[model_index("llama3.1:8b")]);
    near(read_ms(&mut node, turn(0, 1_000, 0)).unwrap(), 1_000.0 / per_ms);
    // Work up to the end unloads the model: keep it this time.
    let mut node = hot(&LAPTOP, "llama3.1:8b");
    let keep = |job: Job| Job { keep_ms: f64::INFINITY, ..job };
    near(read_ms(&mut node, keep(turn(0, 1_000, 0))).unwrap(), 1_000.0 / per_ms);
    near(read_ms(&mut node, keep(turn(1, 1_500, 1_002))).unwrap(), 498.0 / per_ms);
    near(read_ms(&mut node, keep(turn(2, 1_500, 0))).unwrap(), 1_500.0 / per_ms);
}

#[test]
fn idle_models_make_room_and_go_after_their_time() {
    let mut node = hot(&RTX, "qwen3:14b");
    node.preload(model_index("llama3.1:8b"), None);
    let mut out = Vec::new();
    node.submit(job(0, "phi4:14b", 10), &mut out);
    assert_eq!(out, [Output::Loads { attempt: 0, had: None }]);
    let happened = work(&mut node, 20_000.0);
    assert_eq!(ends(&happened).len(), 1);
    let models = |node: &Node| node.report().runners.iter().map(|runner| runner.model).collect::<Vec<_>>();
    assert_eq!(models(&node), [model_index("phi4:14b")], "a 14B model has no room beside another");
    work(&mut node, 20_000.0 + KEEP_MS);
    assert_eq!((models(&node), node.report().free_bytes), (Vec::new(), RTX.memory_bytes));
}

#[test]
fn what_cannot_fit_is_refused_and_what_leaves_is_forgotten() {
    let mut node = Node::new(&RTX);
    let mut out = Vec::new();
    node.submit(job(0, "llama3.3:70b", 10), &mut out);
    assert_eq!(out, [Output::Refused(0)]);
    out.clear();
    node.submit(job(1, "llama3.1:8b", 10), &mut out);
    node.cancel(1, &mut out);
    assert_eq!(node.report().loading, None, "a load ends with who caused it");
    assert_eq!(ends(&work(&mut node, 60_000.0)), []);
}
