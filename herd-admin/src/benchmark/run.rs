//! One run: its pairs, how far they are, and its end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ERRORS_IN_A_ROW_MAX;
use super::ask::{Pair, Plan};
use super::drive::{Shot, drive};
use super::measure::{BenchmarkResult, Measured, Sample, Tally, ms, quantiles, rates};
use super::record::{BenchmarkRecord, BenchmarkRun, BenchmarkState, BenchmarkSummary};
use super::request::{Line, Target};
use super::runs::BenchmarkProgress;

/// How a run ended, and why early.
pub(super) type End = (BenchmarkState, Option<String>);

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) plan: Plan,
    pub(super) started_unix_ms: u64,
    began: Instant,
    tallies: Mutex<Vec<Tally>>,
    /// How it ended; set from outside it is the sign to stop.
    pub(super) end: watch::Sender<Option<End>>,
}

impl Run {
    pub(super) fn new(id: String, plan: Plan, started_unix_ms: u64) -> Self {
        let tally = |pair: &Pair| {
            let (node_id, model) = (pair.node_id.clone(), pair.model.clone());
            Tally { result: BenchmarkResult { node_id, model, ..BenchmarkResult::default() }, ..Tally::default() }
        };
        let tallies = Mutex::new(plan.pairs.iter().map(tally).collect());
        Self { id, plan, started_unix_ms, began: Instant::now(), tallies, end: watch::Sender::new(None) }
    }

    fn tallies(&self) -> MutexGuard<'_, Vec<Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, if it has not ended. Returns whether it had not.
    pub(super) fn finish(&self, state: BenchmarkState, error: Option<String>) -> bool {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some((state, error));
            }
            first
        })
    }

    /// Makes all requests: nodes at a time, the models of each one after another.
    pub(super) async fn carry_out(&self, target: &Target) -> End {
        let limit = Duration::from_secs(self.plan.config.max_duration_s);
        let mut first = 0;
        let lanes = self.plan.pairs.chunk_by(|a, b| a.node_id == b.node_id).map(|lane| {
            let place = first;
            first += lane.len();
            async move {
                for (offset, pair) in lane.iter().enumerate() {
                    self.measure(target, pair, place + offset).await;
                }
            }
        });
        if tokio::time::timeout(limit, join_all(lanes)).await.is_err() {
            return (BenchmarkState::Failed, Some(format!("the limit of {} s was over first", limit.as_secs())));
        }
        let summary = summary(&self.tallies());
        if summary.requests > summary.errors {
            (BenchmarkState::Completed, None)
        } else {
            (BenchmarkState::Failed, Some("no request succeeded".to_owned()))
        }
    }

    async fn measure(&self, target: &Target, pair: &Pair, place: usize) {
        let config = &self.plan.config;
        let line = Line { target, run_id: &self.id, pair, place, config };
        // It loads the model where it must, and is told apart by a number that no other has.
        let warm_up = Shot { number: config.requests, intended: Instant::now(), late: false };
        let warm = line.measure(warm_up).await;
        if !self.warmed_up(place, &warm) {
            return;
        }
        let start = Instant::now();
        drive(config, self.plan.room(), |shot| line.measure(shot), |sample| self.take(place, &sample, start)).await;
    }

    /// Notes the request that only warms up. Returns whether the pair can be measured.
    fn warmed_up(&self, place: usize, sample: &Sample) -> bool {
        let mut tallies = self.tallies();
        let result = &mut tallies[place].result;
        match &sample.error {
            None => result.warm_up_ms = Some(ms(sample.latency)),
            Some((status, said)) => {
                // All that was to come counts as failed, so that nobody takes a pair without numbers for a good one.
                result.requests = self.plan.config.requests;
                result.errors = result.requests;
                result.errors_by_status.insert(status.clone(), result.errors);
                result.last_error = Some(said.clone());
                result.given_up = Some(format!("the first request failed ({status}): {said}"));
            }
        }
        sample.error.is_none()
    }

    /// Counts a request. Returns whether the pair goes on.
    fn take(&self, place: usize, sample: &Sample, start: Instant) -> bool {
        let mut tallies = self.tallies();
        let tally = &mut tallies[place];
        tally.count(sample, start.elapsed());
        let goes_on = tally.errors_in_a_row < ERRORS_IN_A_ROW_MAX;
        if !goes_on {
            tally.result.given_up = Some(format!("{ERRORS_IN_A_ROW_MAX} requests in a row failed"));
        }
        goes_on
    }

    pub(super) fn progress(&self) -> BenchmarkProgress {
        let tallies = self.tallies();
        let sum = |of: fn(&BenchmarkResult) -> u64| tallies.iter().map(|tally| of(&tally.result)).sum();
        BenchmarkProgress {
            run_id: self.id.clone(),
            state: self.state(),
            done: sum(|result| result.requests),
            total: self.plan.config.requests.saturating_mul(self.plan.pairs.len() as u64),
            errors: sum(|result| result.errors),
            elapsed_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn state(&self) -> BenchmarkState {
        self.end.borrow().as_ref().map_or(BenchmarkState::Running, |(state, _)| *state)
    }

    /// The run without what was measured.
    pub(super) fn shown(&self, ended_unix_ms: Option<u64>) -> BenchmarkRun {
        let mut models: Vec<String> = self.plan.pairs.iter().map(|pair| pair.model.clone()).collect();
        models.sort();
        models.dedup();
        let lanes = self.plan.pairs.chunk_by(|a, b| a.node_id == b.node_id);
        BenchmarkRun {
            run_id: self.id.clone(),
            state: self.state(),
            error: self.end.borrow().as_ref().and_then(|(_, error)| error.clone()),
            started_unix_ms: self.started_unix_ms,
            ended_unix_ms,
            models,
            nodes: lanes.map(|lane| lane[0].node_id.clone()).collect(),
            config: self.plan.config.clone(),
            left_out: self.plan.left_out.clone(),
            summary: summary(&self.tallies()),
        }
    }

    /// The run with what was measured.
    pub(super) fn record(&self, ended_unix_ms: Option<u64>) -> BenchmarkRecord {
        let results = self.tallies().iter().map(Tally::result).collect();
        BenchmarkRecord { run: self.shown(ended_unix_ms), results }
    }
}

fn summary(tallies: &[Tally]) -> BenchmarkSummary {
    let mut all = Measured::default();
    let (mut requests, mut errors) = (0, 0);
    for tally in tallies {
        all.add(&tally.measured);
        requests += tally.result.requests;
        errors += tally.result.errors;
    }
    BenchmarkSummary {
        requests,
        errors,
        ttft_ms: quantiles(&all.ttft_ms),
        latency_ms: quantiles(&all.latency_ms),
        tokens_per_s: rates(&all.tokens_per_s),
    }
}
