//! Every workload under every policy with every seed, on as many threads as there are.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::bound::Bound;
use super::engine::run;
use super::metrics::Summary;
use super::policy::PolicySpec;
use super::rng::Rng;
use super::workload::{Scenario, Workload};

/// What is to be run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Workloads.
    pub(crate) workloads: Vec<&'static Workload>,
    /// Policies.
    pub(crate) policies: Vec<&'static PolicySpec>,
    /// Seeds.
    pub(crate) seeds: Vec<u64>,
    /// Requests in place of each workload's own number.
    pub(crate) requests: Option<usize>,
}

/// The summaries of one workload under one policy, one per seed.
pub(crate) type Cell = Vec<Summary>;

impl Plan {
    pub(crate) fn scenario(&self, workload: &Workload, seed: u64) -> Scenario {
        (workload.build)(&mut Rng::new(seed), self.requests.unwrap_or(workload.requests))
    }

    /// Runs everything; the cells in the order of workloads, and within each of policies.
    pub(crate) fn run(&self) -> Vec<Vec<Cell>> {
        let per_workload = self.policies.len() * self.seeds.len();
        let total = self.workloads.len() * per_workload;
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results: Vec<Mutex<Summary>> = (0..total).map(|_| Mutex::default()).collect();
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let job = next.fetch_add(1, Relaxed);
                        if job >= total {
                            return;
                        }
                        let summary = self.one(job);
                        if let Ok(mut result) = results[job].lock() {
                            *result = summary;
                        }
                        self.tell(job, done.fetch_add(1, Relaxed) + 1, total);
                    }
                });
            }
        });
        let mut summaries = results.into_iter().map(|result| result.into_inner().unwrap_or_default());
        let mut cell = || summaries.by_ref().take(self.seeds.len()).collect::<Cell>();
        let mut row = || self.policies.iter().map(|_| cell()).collect::<Vec<Cell>>();
        self.workloads.iter().map(|_| row()).collect()
    }

    fn parts(&self, job: usize) -> (&'static Workload, &'static PolicySpec, u64) {
        let (cell, seed) = (job / self.seeds.len(), job % self.seeds.len());
        let (workload, policy) = (cell / self.policies.len(), cell % self.policies.len());
        (self.workloads[workload], self.policies[policy], self.seeds[seed])
    }

    fn one(&self, job: usize) -> Summary {
        let (workload, policy, seed) = self.parts(job);
        let scenario = self.scenario(workload, seed);
        let bound = Bound::of(&scenario);
        let mut router = (policy.make)(seed);
        let outcome = run(&scenario, router.as_mut());
        Summary::of(&scenario, &bound, &outcome)
    }

    fn tell(&self, job: usize, done: usize, total: usize) {
        let (workload, policy, seed) = self.parts(job);
        super::cli::tell(&format!("{done}/{total} {} under {}, seed {seed}", workload.name, policy.name));
    }
}
