//! From what happened to the numbers of the report.

use super::bound::Bound;
use super::engine::{Outcome, Record};
use super::workload::Scenario;

/// What one run comes to. Times are of requests that were served, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Summary {
    /// Requests, without those of other clients.
    pub(crate) requests: usize,
    /// Requests that were not served.
    pub(crate) failures: usize,
    /// Time from arrival to last byte.
    pub(crate) completion: Times,
    /// Time from arrival to first byte.
    pub(crate) first_byte: Times,
    /// Completion at every hundredth, for the plot.
    pub(crate) hundredths: Vec<f64>,
    /// Models brought into memory.
    pub(crate) loads: f64,
    /// Models brought into memory again with another context.
    pub(crate) reloads: f64,
    /// Reloads that need not have been.
    pub(crate) avoidable: f64,
    /// Share of the time in which a device works, mean over nodes.
    pub(crate) utilisation: f64,
    /// Jain's index of the clients' mean slowdowns, 1 = all are slowed down alike.
    pub(crate) fairness: f64,
    /// Requests sent again.
    pub(crate) retries: f64,
    /// Mean completion over its lower bound.
    pub(crate) ratio: f64,
    /// The lower bound of the mean.
    pub(crate) bound_ms: f64,
}

/// A mean and percentiles.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Times {
    /// Mean.
    pub(crate) mean: f64,
    /// Median.
    pub(crate) p50: f64,
    /// 95th percentile.
    pub(crate) p95: f64,
    /// 99th percentile.
    pub(crate) p99: f64,
}

impl Times {
    fn of(sorted: &[f64]) -> Self {
        let mean = sorted.iter().sum::<f64>() / sorted.len().max(1) as f64;
        Self { mean, p50: percentile(sorted, 50), p95: percentile(sorted, 95), p99: percentile(sorted, 99) }
    }
}

/// The nearest rank.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

impl Summary {
    pub(crate) fn of(scenario: &Scenario, bound: &Bound, outcome: &Outcome) -> Self {
        let ours = |number: &usize| scenario.requests[*number].foreign.is_none();
        let numbers: Vec<usize> = (0..scenario.requests.len()).filter(ours).collect();
        let served = || {
            let record = |number: &usize| Some((*number, outcome.records[*number]?));
            numbers.iter().filter_map(record).filter(|(_, record)| record.served)
        };
        let mut completion: Vec<f64> = served().map(|(_, record)| record.completion_ms()).collect();
        let mut first: Vec<f64> = served().filter_map(|(_, r)| Some(r.first_byte_ms? - r.arrived_ms)).collect();
        completion.sort_by(f64::total_cmp);
        first.sort_by(f64::total_cmp);
        let records = || numbers.iter().filter_map(|number| outcome.records[*number]);
        let busy: f64 = outcome.busy_ms.iter().sum();
        let times = Times::of(&completion);
        Self {
            requests: numbers.len(),
            failures: numbers.len() - completion.len(),
            completion: times,
            first_byte: Times::of(&first),
            hundredths: (1..=100).map(|percent| percentile(&completion, percent)).collect(),
            loads: outcome.loads as f64,
            reloads: outcome.reloads as f64,
            avoidable: outcome.avoidable as f64,
            utilisation: busy / (outcome.busy_ms.len() as f64 * outcome.end_ms).max(1.0),
            fairness: fairness(scenario, bound, served()),
            retries: records().map(|record| f64::from(record.attempts.saturating_sub(1))).sum(),
            ratio: times.mean / bound.mean_ms.max(1e-9),
            bound_ms: bound.mean_ms,
        }
    }
}

impl Record {
    /// From arrival to the end.
    pub(crate) fn completion_ms(&self) -> f64 {
        self.ended_ms - self.arrived_ms
    }
}

fn fairness(scenario: &Scenario, bound: &Bound, served: impl Iterator<Item = (usize, Record)>) -> f64 {
    let mut apps = std::collections::BTreeMap::<u64, (f64, f64)>::new();
    for (number, record) in served {
        let (sum, count) = apps.entry(scenario.requests[number].app).or_default();
        *sum += record.completion_ms() / bound.alone_ms[number].max(1e-9);
        *count += 1.0;
    }
    let slowdowns: Vec<f64> = apps.values().map(|(sum, count)| sum / count).collect();
    let (sum, squares) = slowdowns.iter().fold((0.0, 0.0), |(sum, squares), one| (sum + one, squares + one * one));
    if squares > 0.0 { sum * sum / (slowdowns.len() as f64 * squares) } else { 1.0 }
}
