//! Agents: loops in which every turn repeats all that was said before, and adds to it.

use super::{NodeSpec, Request, Scenario, tokens};
use crate::sim::catalogue::{H100_LONG, RTX, STUDIO, model_index};
use crate::sim::rng::Rng;

/// Turns of one task.
const TURNS: usize = 15;
/// Agents that work at a time.
const AGENTS: usize = 20;

pub(super) fn agents(rng: &mut Rng, count: usize) -> Scenario {
    let [small, coder] = ["llama3.1:8b", "qwen2.5-coder:32b"].map(model_index);
    let nodes = vec![
        NodeSpec {
            hot: vec![(coder, Some(32_768)), (small, Some(32_768))],
            ..NodeSpec::new(&H100_LONG, &[small, coder], &[])
        },
        NodeSpec { hot: vec![(coder, Some(32_768))], ..NodeSpec::new(&STUDIO, &[small, coder], &[]) },
        NodeSpec { hot: vec![(coder, Some(16_384))], ..NodeSpec::new(&STUDIO, &[small, coder], &[]) },
        NodeSpec::new(&RTX, &[small], &[small]),
        NodeSpec { hot: vec![(small, Some(16_384))], ..NodeSpec::new(&RTX, &[small], &[]) },
    ];
    let mut requests = Vec::with_capacity(count);
    let mut task = 0;
    // The agents' last requests, after which their next tasks begin.
    let mut last: Vec<Option<usize>> = vec![None; AGENTS];
    while requests.len() < count {
        let agent = task % AGENTS;
        let model = if agent.is_multiple_of(3) { small } else { coder };
        last[agent] = Some(add_task(rng, &mut requests, Task { agent, number: task, model, after: last[agent] }));
        task += 1;
    }
    Scenario { nodes, requests, outages: Vec::new() }
}

#[derive(Debug, Clone, Copy)]
struct Task {
    agent: usize,
    number: usize,
    model: usize,
    after: Option<usize>,
}

/// Adds the turns of a task; returns the last one.
fn add_task(rng: &mut Rng, requests: &mut Vec<Request>, Task { agent, number, model, after }: Task) -> usize {
    // Every program has its own idea of a context, and keeps to it for a task.
    let num_ctx = [None, Some(8_192), Some(16_384), Some(32_768)][rng.weighted(&[0.35, 0.2, 0.25, 0.2])];
    let most = num_ctx.unwrap_or(8_192) * 3 / 4;
    let mut said = 0;
    let mut prompt = tokens(rng.log_normal(2_000.0, 0.3), 800, most);
    let mut after = after;
    // A program writes the same kind of text throughout, so that its tokens are counted wrongly by the same share.
    let bias = rng.between(0.85, 1.25);
    for turn in 0..TURNS {
        let output = tokens(rng.log_normal(140.0, 0.6), 16, 1_500);
        let gap_ms = if turn == 0 { rng.exponential(8_000.0) } else { 300.0 + rng.exponential(1_500.0) };
        requests.push(Request {
            at_ms: gap_ms,
            after,
            model,
            prompt,
            estimate: tokens(prompt as f64 * bias, 1, u64::MAX),
            prefix: Some((number as u64, said)),
            output,
            limit: None,
            num_ctx,
            app: agent as u64,
            foreign: None,
        });
        after = Some(requests.len() - 1);
        said = prompt + output;
        // What a tool has found is the new part; an agent whose window is full keeps the newest half.
        prompt = said + tokens(rng.log_normal(450.0, 0.8), 32, 6_000);
        if prompt > most {
            (said, prompt) = (0, most / 2);
        }
    }
    requests.len() - 1
}
