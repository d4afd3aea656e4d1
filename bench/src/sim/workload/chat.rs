//! Workloads of single questions: chats, completions, batches.

use super::{NodeSpec, Outage, OutageKind, Request, Scenario, poisson, request};
use crate::sim::catalogue::{H100, LAPTOP, RTX, STUDIO, model_index};
use crate::sim::rng::Rng;

/// Median tokens of a question and of its answer.
const CHAT: (f64, f64) = (350.0, 220.0);

pub(super) fn steady(rng: &mut Rng, count: usize) -> Scenario {
    let model = model_index("llama3.1:8b");
    let nodes = vec![NodeSpec::new(&RTX, &[model], &[model]); 6];
    let arrivals = poisson(rng, 5.0, count);
    let requests = arrivals.into_iter().map(|at_ms| request(rng, at_ms, model, CHAT)).collect();
    Scenario { nodes, requests, outages: Vec::new() }
}

pub(super) fn mixed(rng: &mut Rng, count: usize) -> Scenario {
    let [small, medium, large] = ["llama3.1:8b", "qwen3:14b", "qwen2.5-coder:32b"].map(model_index);
    let all = [small, medium, large];
    let nodes = vec![
        NodeSpec::new(&H100, &all, &[medium, large]),
        NodeSpec::new(&RTX, &[small, medium], &[small]),
        NodeSpec::new(&RTX, &[small, medium], &[medium]),
        NodeSpec::new(&STUDIO, &all, &[small, large]),
        NodeSpec::new(&STUDIO, &all, &[small, large]),
        NodeSpec::new(&LAPTOP, &[small, medium], &[small]),
        NodeSpec::new(&LAPTOP, &[small, medium], &[small]),
        NodeSpec::new(&LAPTOP, &[small, medium], &[medium]),
    ];
    let mut at_ms = 0.0;
    let requests = (0..count).map(|_| {
        // A day in ten minutes: from a fifth below the mean to a fifth above.
        let busy = 1.0 + 0.2 * (at_ms / 600_000.0 * std::f64::consts::TAU).sin();
        at_ms += rng.exponential(1e3 / (2.2 * busy));
        let model = all[rng.weighted(&[0.5, 0.3, 0.2])];
        request(rng, at_ms, model, CHAT)
    });
    let requests = requests.collect();
    Scenario { nodes, requests, outages: Vec::new() }
}

pub(super) fn models(rng: &mut Rng, count: usize) -> Scenario {
    const NAMES: [&str; 10] = [
        "llama3.1:8b",
        "qwen3:14b",
        "gemma3:12b",
        "mistral:7b",
        "llama3.2:3b",
        "phi4:14b",
        "qwen3:4b",
        "deepseek-r1:14b",
        "devstral:24b",
        "gemma3:27b",
    ];
    let all = NAMES.map(model_index);
    // The largest leaves no room for a context of 8192 in four slots on 24 GB.
    let fits = &all[..9];
    let nodes = vec![NodeSpec::new(&RTX, fits, &[]), NodeSpec::new(&RTX, fits, &[]), NodeSpec::new(&STUDIO, &all, &[])];
    let weights: Vec<f64> = (1..=all.len()).map(|rank| 1.0 / rank as f64).collect();
    let arrivals = poisson(rng, 0.45, count);
    let requests = arrivals.into_iter().map(|at_ms| {
        let model = all[rng.weighted(&weights)];
        request(rng, at_ms, model, CHAT)
    });
    let requests = requests.collect();
    Scenario { nodes, requests, outages: Vec::new() }
}

pub(super) fn bursts(rng: &mut Rng, count: usize) -> Scenario {
    let [small, medium] = ["llama3.1:8b", "qwen3:14b"].map(model_index);
    let all = [small, medium];
    let mut nodes = vec![NodeSpec::new(&RTX, &all, &[small]); 2];
    nodes.extend(vec![NodeSpec::new(&RTX, &all, &[medium]); 2]);
    nodes.extend(vec![NodeSpec::new(&STUDIO, &all, &all); 2]);
    let mut requests = Vec::with_capacity(count);
    let mut minute = 0.0;
    while requests.len() < count {
        let hit = all[rng.index(2)];
        for _ in 0..60 {
            let at_ms = minute * 60_000.0 + 20_000.0 + rng.between(0.0, 2_000.0);
            requests.push(request(rng, at_ms, hit, CHAT));
        }
        for _ in 0..60 {
            let at_ms = (minute + rng.unit()) * 60_000.0;
            let model = all[rng.weighted(&[0.6, 0.4])];
            requests.push(request(rng, at_ms, model, CHAT));
        }
        minute += 1.0;
    }
    in_order(&mut requests, count);
    Scenario { nodes, requests, outages: Vec::new() }
}

pub(super) fn death(rng: &mut Rng, count: usize) -> Scenario {
    let model = model_index("llama3.1:8b");
    let nodes = vec![NodeSpec::new(&RTX, &[model], &[model]); 5];
    let arrivals = poisson(rng, 3.5, count);
    let end_ms = arrivals.last().copied().unwrap_or_default();
    let (from_ms, until_ms) = (end_ms / 3.0, end_ms * 2.0 / 3.0);
    let requests = arrivals.into_iter().map(|at_ms| request(rng, at_ms, model, CHAT)).collect();
    Scenario { nodes, requests, outages: vec![Outage { node: 2, from_ms, until_ms, kind: OutageKind::Crash }] }
}

pub(super) fn stale(rng: &mut Rng, count: usize) -> Scenario {
    let [small, medium] = ["llama3.1:8b", "qwen3:14b"].map(model_index);
    let all = [small, medium];
    let mut nodes = vec![NodeSpec::new(&RTX, &all, &[small]); 3];
    nodes.push(NodeSpec::new(&RTX, &all, &[medium]));
    nodes.extend(vec![NodeSpec::new(&STUDIO, &all, &all); 2]);
    for (node, seconds) in nodes.iter_mut().zip([1.0, 5.0, 10.0, 15.0, 22.0, 30.0]) {
        node.interval_ms = seconds * 1e3;
    }
    let arrivals = poisson(rng, 2.4, count);
    let end_ms = arrivals.last().copied().unwrap_or_default();
    let ours = arrivals.into_iter().map(|at_ms| {
        let model = all[rng.weighted(&[0.7, 0.3])];
        request(rng, at_ms, model, CHAT)
    });
    let mut requests: Vec<Request> = ours.collect();
    let foreign = poisson(rng, 0.8, count / 3);
    for at_ms in foreign.into_iter().take_while(|at_ms| *at_ms < end_ms) {
        // Somebody works with one machine for half a minute, then with another.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
        let favourite = (at_ms / 30_000.0) as usize * 5 % nodes.len();
        let node = if rng.unit() < 0.7 { favourite } else { rng.index(nodes.len()) };
        let model = nodes[node].hot[0].0;
        requests.push(Request { foreign: Some(node), ..request(rng, at_ms, model, CHAT) });
    }
    let count = requests.len();
    in_order(&mut requests, count);
    Scenario { nodes, requests, outages: Vec::new() }
}

pub(super) fn laptops(rng: &mut Rng, count: usize) -> Scenario {
    let model = model_index("llama3.1:8b");
    let mut nodes = vec![NodeSpec::new(&STUDIO, &[model], &[model]); 2];
    nodes.extend(vec![NodeSpec::new(&LAPTOP, &[model], &[model]); 4]);
    let arrivals = poisson(rng, 1.0, count);
    let end_ms = arrivals.last().copied().unwrap_or_default();
    let requests = arrivals.into_iter().map(|at_ms| request(rng, at_ms, model, CHAT)).collect();
    let mut outages = Vec::new();
    for node in 2..nodes.len() {
        let mut at_ms = rng.exponential(120_000.0);
        while at_ms < end_ms {
            let until_ms = at_ms + 20_000.0 + rng.exponential(100_000.0);
            outages.push(Outage { node, from_ms: at_ms, until_ms, kind: OutageKind::Sleep });
            at_ms = until_ms + 30_000.0 + rng.exponential(150_000.0);
        }
    }
    Scenario { nodes, requests, outages }
}

/// The first `count` in the order of their arrival.
fn in_order(requests: &mut Vec<Request>, count: usize) {
    requests.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
    requests.truncate(count);
}
