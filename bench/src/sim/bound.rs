//! What no policy can beat: lower bounds for somebody who knows everything beforehand.
//!
//! Two relaxations, of which the larger counts for the mean:
//!
//! 1. **Alone.** Each request runs by itself on the node that serves it fastest, with its model in memory and all of its
//!    conversation that was there before in the cache. Rates on a node only fall when something else runs there, so no
//!    request can take less; hence also a bound for every percentile, and for the first byte.
//! 2. **Pooled.** All nodes together are one machine. With `p(i,j)` for request `j` alone on node `i`, a node works off at
//!    most `g(i)` such milliseconds per millisecond, `g` being what its batches gain at best. With any weights `s(i)`, a
//!    request needs at least `q(j) = min over i of s(i) p(i,j)` of a pool that does `V = sum of s(i) g(i)` per millisecond,
//!    whatever is split, moved or interrupted. On one machine the mean is least when what has least left always goes
//!    first (SRPT: Schrage, 1968), so that its mean is a bound. It holds for requests whose arrival does not depend on
//!    answers; where clients wait for answers only the first bound is used.
//!
//! Loads, outages and other clients are left out: all of them only add time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::catalogue::{Hardware, MODELS};
use super::workload::{Request, Scenario};

/// Lower bounds of one scenario.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_field_names, reason = "units stand in names")]
pub(crate) struct Bound {
    /// Of the time of each request, milliseconds; those of other clients are zero.
    pub(crate) alone_ms: Vec<f64>,
    /// Of the time to the first byte of each.
    pub(crate) first_byte_ms: Vec<f64>,
    /// Of the mean.
    pub(crate) mean_ms: f64,
    /// Of the mean, by the pool alone; zero where that does not hold.
    pub(crate) pooled_ms: f64,
}

impl Bound {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let kinds = kinds(scenario);
        let alone = |request: &Request| best(&kinds, request, |hardware| times(hardware, request));
        let pairs: Vec<(f64, f64)> = scenario.requests.iter().map(alone).collect();
        let (first_byte_ms, alone_ms): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let ours = scenario.requests.iter().filter(|request| request.foreign.is_none()).count().max(1);
        let mean_ms = alone_ms.iter().sum::<f64>() / ours as f64;
        let pooled_ms = pooled_ms(scenario, &kinds);
        Self { alone_ms, first_byte_ms, mean_ms: mean_ms.max(pooled_ms), pooled_ms }
    }
}

/// The kinds of machines that have each model.
type Kinds = Vec<Vec<&'static Hardware>>;

fn kinds(scenario: &Scenario) -> Kinds {
    let mut kinds: Kinds = vec![Vec::new(); MODELS.len()];
    for node in &scenario.nodes {
        for model in &node.models {
            if !kinds[*model].contains(&node.hardware) {
                kinds[*model].push(node.hardware);
            }
        }
    }
    kinds
}

/// The least of each component over the machines that have the request's model; zero for other clients' requests.
fn best(kinds: &Kinds, request: &Request, times: impl Fn(&Hardware) -> (f64, f64)) -> (f64, f64) {
    if request.foreign.is_some() {
        return (0.0, 0.0);
    }
    let all = kinds[request.model].iter().map(|hardware| times(hardware));
    all.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1))).unwrap_or_default()
}

/// To the first and to the last byte of `request` alone on such a machine.
fn times(hardware: &Hardware, request: &Request) -> (f64, f64) {
    let model = &MODELS[request.model];
    let known = request.prefix.map_or(0, |(_, shared)| shared);
    let read_ms = request.prompt.saturating_sub(known).max(1) as f64 / hardware.prefill_per_ms(model);
    (read_ms, read_ms + request.output.saturating_sub(1) as f64 * hardware.token_ms(model))
}

fn pooled_ms(scenario: &Scenario, kinds: &Kinds) -> f64 {
    if scenario.requests.iter().any(|request| request.after.is_some()) {
        return 0.0;
    }
    // Any weights are right; the speed of writing makes the bound tight.
    let speed = |hardware: &Hardware| 1.0 / hardware.token_ms(&MODELS[0]);
    let pool: f64 = scenario.nodes.iter().map(|node| speed(node.hardware) * node.hardware.batch_gain()).sum();
    let ours = || scenario.requests.iter().filter(|request| request.foreign.is_none());
    let work =
        |request: &Request| best(kinds, request, |hardware| (0.0, times(hardware, request).1 * speed(hardware))).1;
    let jobs: Vec<(f64, f64)> = ours().map(|request| (request.at_ms, work(request) / pool)).collect();
    srpt_ms(&jobs)
}

/// The mean time of jobs, each an arrival and a length, on one machine that always works on what has least left.
fn srpt_ms(jobs: &[(f64, f64)]) -> f64 {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by(|a, b| jobs[*a].0.total_cmp(&jobs[*b].0));
    let mut left: BinaryHeap<Reverse<(Length, usize)>> = BinaryHeap::new();
    let (mut now_ms, mut total_ms) = (0.0_f64, 0.0);
    let mut arrivals = order.into_iter().peekable();
    loop {
        let next_ms = arrivals.peek().map_or(f64::INFINITY, |job| jobs[*job].0);
        match left.pop() {
            None if next_ms.is_infinite() => break,
            None => now_ms = next_ms,
            Some(Reverse((Length(length), job))) if now_ms + length <= next_ms => {
                now_ms += length;
                total_ms += now_ms - jobs[job].0;
                continue;
            }
            Some(Reverse((Length(length), job))) => {
                left.push(Reverse((Length(length - (next_ms - now_ms)), job)));
                now_ms = next_ms;
            }
        }
        while let Some(job) = arrivals.next_if(|job| jobs[*job].0 <= now_ms) {
            left.push(Reverse((Length(jobs[job].1), job)));
        }
    }
    total_ms / jobs.len().max(1) as f64
}

/// A number with an order.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Length(f64);

impl Eq for Length {}

impl PartialOrd for Length {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Length {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_least_left_goes_first() {
        // The short one interrupts the long one: 1 ms and 11 ms.
        assert!((srpt_ms(&[(0.0, 10.0), (5.0, 1.0)]) - 6.0).abs() < 1e-9);
        assert!((srpt_ms(&[(0.0, 2.0), (100.0, 4.0)]) - 3.0).abs() < 1e-9);
    }
}
