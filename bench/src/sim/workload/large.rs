//! Fleets that no list shows at once.

use super::{NodeSpec, Request, Scenario, poisson, request};
use crate::sim::catalogue::{H100, Hardware, LAPTOP, MODELS, RTX, STUDIO};
use crate::sim::rng::Rng;

pub(super) fn thousand(rng: &mut Rng, count: usize) -> Scenario {
    fleet(rng, 1_000, 500.0, count)
}

pub(super) fn ten_thousand(rng: &mut Rng, count: usize) -> Scenario {
    fleet(rng, 10_000, 3_000.0, count)
}

/// Shares of the kinds of machines.
const KINDS: [(&Hardware, f64); 4] = [(&H100, 0.1), (&RTX, 0.35), (&STUDIO, 0.25), (&LAPTOP, 0.3)];

fn fleet(rng: &mut Rng, size: usize, per_s: f64, count: usize) -> Scenario {
    let nodes = (0..size).map(|_| node(rng)).collect();
    let weights: Vec<f64> = (1..=MODELS.len()).map(|rank| 1.0 / (rank as f64).sqrt()).collect();
    let arrivals = poisson(rng, per_s, count);
    let requests = arrivals.into_iter().map(|at_ms| {
        let model = rng.weighted(&weights);
        let asked = request(rng, at_ms, model, (350.0, 120.0));
        Request { output: asked.output.min(600), ..asked }
    });
    let requests = requests.collect();
    Scenario { nodes, requests, outages: Vec::new() }
}

/// A machine with three models that fit it, the first of them in memory.
fn node(rng: &mut Rng) -> NodeSpec {
    let hardware = KINDS[rng.weighted(&KINDS.map(|(_, share)| share))].0;
    let fits = |model: &usize| hardware.runner_bytes(&MODELS[*model], hardware.context) <= hardware.memory_bytes;
    let mut fitting: Vec<usize> = (0..MODELS.len()).filter(fits).collect();
    let mut models = Vec::new();
    while models.len() < 3 && !fitting.is_empty() {
        models.push(fitting.swap_remove(rng.index(fitting.len())));
    }
    let first = models[0];
    NodeSpec { interval_ms: 10_000.0, ..NodeSpec::new(hardware, &models, &[first]) }
}
