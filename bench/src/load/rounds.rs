//! The rounds of a scenario: every target in every round, each time in another order, so that what disturbs the machine
//! disturbs all alike. What counts is the median of the ratios within rounds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::drive::{Measured, drive};
use super::process::{Usage, peak_bytes};
use super::samples::median;
use super::scenario::{Measure, Scenario};
use super::target::{Programs, Running, Target};

/// What one target showed in one round.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The numbers. What could not be measured is not there.
    pub numbers: BTreeMap<Measure, f64>,
    /// CPU time of its threads.
    pub threads: BTreeMap<String, Duration>,
    /// Requests that ended well.
    pub requests: u64,
    /// Requests that did not, or had not when the time was over.
    pub errors: u64,
    /// The first error.
    pub first_error: Option<String>,
}

/// What a scenario has shown: for every round, what each target showed.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The rounds.
    pub rounds: Vec<BTreeMap<Target, Seen>>,
}

impl Shown {
    /// The median of `measure` at `target`.
    #[must_use]
    pub fn median(&self, target: Target, measure: Measure) -> Option<f64> {
        median(self.rounds.iter().filter_map(|round| round.get(&target)?.numbers.get(&measure).copied()))
    }

    /// The ratio of `target` to `base` in each round, but for those in which `base` is not above zero: what is added can
    /// drown in noise, and then no ratio means anything.
    #[must_use]
    pub fn ratios(&self, target: Target, base: Target, measure: Measure) -> Vec<f64> {
        let number = |round: &BTreeMap<Target, Seen>, target| round.get(&target)?.numbers.get(&measure).copied();
        let above_zero = |number: &f64| *number > 0.0;
        let ratio = |round| Some(number(round, target)? / number(round, base).filter(above_zero)?);
        self.rounds.iter().filter_map(ratio).filter(|ratio: &f64| ratio.is_finite()).collect()
    }

    /// Errors at `target` in all rounds, with the first of them.
    #[must_use]
    pub fn errors(&self, target: Target) -> (u64, Option<&str>) {
        let seen = || self.rounds.iter().filter_map(|round| round.get(&target));
        (seen().map(|seen| seen.errors).sum(), seen().find_map(|seen| seen.first_error.as_deref()))
    }

    /// CPU time of `target`'s kinds of threads per request, microseconds, the largest first.
    #[must_use]
    pub fn threads_us(&self, target: Target) -> Vec<(String, f64)> {
        let (mut all, mut requests) = (BTreeMap::<&str, Duration>::new(), 0);
        for seen in self.rounds.iter().filter_map(|round| round.get(&target)) {
            requests += seen.requests;
            seen.threads.iter().for_each(|(name, cpu)| *all.entry(name).or_default() += *cpu);
        }
        let us = |cpu: Duration| cpu.as_secs_f64() * 1e6 / requests.max(1) as f64;
        let mut threads: Vec<_> = all.into_iter().map(|(name, cpu)| (name.to_owned(), us(cpu))).collect();
        threads.sort_by(|a, b| b.1.total_cmp(&a.1));
        threads
    }
}

/// Measures `scenario` at `targets`, with the backend's `nodes` and a `folder` for files.
///
/// # Errors
/// When a target does not start, or the generator cannot work.
pub fn measure(
    scenario: &Scenario,
    targets: &[Target],
    programs: &Programs,
    nodes: &[SocketAddr],
    folder: &Path,
) -> anyhow::Result<Shown> {
    let start = |target: &Target| Running::start(*target, programs, nodes, folder);
    let running: Vec<Running> = targets.iter().map(start).collect::<Result<_, _>>()?;
    let mut shown = Shown::default();
    for round in 0..scenario.rounds as usize {
        let mut seen = BTreeMap::new();
        for turn in 0..running.len() {
            let target = &running[(turn + round) % running.len()];
            seen.insert(target.target, one(scenario, target)?);
        }
        compare_with_direct(&mut seen);
        shown.rounds.push(seen);
    }
    Ok(shown)
}

/// One target in one round.
fn one(scenario: &Scenario, running: &Running) -> anyhow::Result<Seen> {
    let mut edges = Vec::new();
    let take = || edges.push(running.pid().map(Usage::of).unwrap_or_default());
    let measured = std::thread::scope(|scope| {
        let beside = scenario.beside.map(|load| scope.spawn(move || drive(running.address, &load, || {})));
        let measured = drive(running.address, &scenario.load, take);
        if let Some(Ok(Err(error))) = beside.map(std::thread::ScopedJoinHandle::join) {
            return Err(error);
        }
        measured
    })?;
    let usage = match edges.as_slice() {
        [before, after] if running.pid().is_some() => Some(after.since(before)),
        _ => None,
    };
    Ok(seen(scenario, measured, usage, running.pid().map(peak_bytes)))
}

fn seen(scenario: &Scenario, mut measured: Measured, usage: Option<Usage>, peak_bytes: Option<u64>) -> Seen {
    let requests = measured.requests as f64;
    let per_s = requests / measured.seconds.max(1e-9);
    let cpu_s = usage.as_ref().map(|usage| usage.cpu.as_secs_f64());
    let share = |of: f64, factor: f64| cpu_s.filter(|_| of > 0.0).map(|cpu_s| cpu_s * factor / of);
    let numbers = [
        (Measure::RequestsPerS, Some(per_s)),
        (Measure::MibPerS, Some(per_s * scenario.load.workload.body_bytes as f64 / f64::from(1 << 20))),
        (Measure::AddedP50Us, measured.latency.quantile_us(0.5)),
        (Measure::AddedP99Us, measured.latency.quantile_us(0.99)),
        (Measure::AddedTtftP50Us, measured.ttft.quantile_us(0.5)),
        (Measure::AddedTtftP99Us, measured.ttft.quantile_us(0.99)),
        (Measure::TransitP50Us, measured.transit.quantile_us(0.5)),
        (Measure::TransitP99Us, measured.transit.quantile_us(0.99)),
        (Measure::CpuPerRequestUs, share(requests, 1e6)),
        (Measure::CpuPerMillionChunksS, share(measured.chunks as f64, 1e6)),
        (Measure::PeakMib, peak_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))),
    ];
    Seen {
        numbers: numbers.into_iter().filter_map(|(measure, number)| Some((measure, number?))).collect(),
        threads: usage.map(|usage| usage.threads).unwrap_or_default(),
        requests: measured.requests,
        errors: measured.errors,
        first_error: measured.first_error,
    }
}

/// Takes what the backend alone took from what was added to it; what is added to the backend itself is nothing to show.
/// Without the backend in the round nothing was compared.
fn compare_with_direct(seen: &mut BTreeMap<Target, Seen>) {
    let added = [Measure::AddedP50Us, Measure::AddedP99Us, Measure::AddedTtftP50Us, Measure::AddedTtftP99Us];
    for measure in added {
        let alone = seen.get(&Target::Direct).and_then(|seen| seen.numbers.get(&measure).copied());
        for (target, seen) in &mut *seen {
            match (alone, *target) {
                (Some(alone), target) if target != Target::Direct => {
                    seen.numbers.entry(measure).and_modify(|number| *number -= alone);
                }
                (None, _) => drop(seen.numbers.remove(&measure)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::scenario;

    fn told(latency_us: u64, cpu_ms: u64) -> Seen {
        let mut measured = Measured { seconds: 2.0, requests: 100, chunks: 50, ..Measured::default() };
        measured.latency.add(latency_us * 1_000);
        let usage = Usage { cpu: Duration::from_millis(cpu_ms), ..Usage::default() };
        seen(&scenario::ALL[0], measured, Some(usage), Some(3 << 20))
    }

    #[test]
    fn numbers_follow_from_counts() {
        let seen = told(40, 5);
        let number = |measure| seen.numbers.get(&measure).copied();
        assert_eq!(number(Measure::RequestsPerS), Some(50.0));
        assert_eq!(number(Measure::CpuPerRequestUs), Some(50.0));
        assert_eq!(number(Measure::CpuPerMillionChunksS), Some(100.0));
        assert_eq!((number(Measure::PeakMib), number(Measure::TransitP50Us)), (Some(3.0), None));
    }

    #[test]
    fn what_the_backend_takes_is_not_added() {
        let mut round = BTreeMap::from([(Target::Direct, told(40, 0)), (Target::Pingora, told(100, 5))]);
        compare_with_direct(&mut round);
        let shown = Shown { rounds: vec![round] };
        assert_eq!(shown.median(Target::Pingora, Measure::AddedP50Us), Some(60.0));
        assert_eq!(shown.median(Target::Direct, Measure::AddedP50Us), Some(40.0));
        let mut alone = BTreeMap::from([(Target::Pingora, told(100, 5))]);
        compare_with_direct(&mut alone);
        assert_eq!(Shown { rounds: vec![alone] }.median(Target::Pingora, Measure::AddedP50Us), None);
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let round =
            |pingora, herd| BTreeMap::from([(Target::Pingora, told(1, pingora)), (Target::Herd, told(1, herd))]);
        let shown = Shown { rounds: vec![round(10, 11), round(100, 120), round(20, 20)] };
        let ratios = shown.ratios(Target::Herd, Target::Pingora, Measure::CpuPerRequestUs);
        assert_eq!(median(ratios), Some(1.1));
    }
}
