//! What is measured of one request, and what many of them make.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Percentiles of what was measured; `None` = nothing was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half are at most this.
    pub p50: Option<f64>,
    /// 95 of 100 are.
    pub p95: Option<f64>,
    /// 99 of 100 are.
    pub p99: Option<f64>,
}

/// Percentiles of speeds, for which more is better; `None` = nothing was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// The slow end: 5 of 100 are at most this.
    pub p5: Option<f64>,
    /// The middle.
    pub p50: Option<f64>,
    /// The fast end.
    pub p95: Option<f64>,
}

/// What one pair of a node and a model has shown. Times and speeds are those of requests that succeeded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkResult {
    /// The node.
    pub node_id: String,
    /// The model.
    pub model: String,
    /// Requests that have ended, the first one, which only warms up, left out.
    pub requests: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// The same by HTTP status, or by what went wrong after it.
    pub errors_by_status: BTreeMap<String, u64>,
    /// What the last failure said; `None` = there was none.
    pub last_error: Option<String>,
    /// Why not all requests were made; `None` = they were, or it goes on.
    pub given_up: Option<String>,
    /// From the intended arrival to the first token.
    pub ttft_ms: Quantiles,
    /// From the intended arrival to the end of the answer.
    pub latency_ms: Quantiles,
    /// Time that requests waited at the edge for a slot.
    pub queue_ms: Quantiles,
    /// Tokens per second while an answer is written, as the node tells it.
    pub tokens_per_s: Rates,
    /// Tokens per second while a prompt is read, as the node tells it; the median.
    pub prefill_tokens_per_s: Option<f64>,
    /// Tokens of all answers together per second of the whole measurement.
    pub throughput_tokens_per_s: Option<f64>,
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Tokens of all answers.
    pub completion_tokens: u64,
    /// Requests whose prompt was estimated to exceed the window.
    pub context_overflows: u64,
    /// Requests that were sent later than intended, because too many were under way.
    pub late: u64,
    /// What the first request took, a load included; `None` = there was none yet.
    pub warm_up_ms: Option<f64>,
    /// From the first counted request on.
    pub duration_ms: f64,
}

/// One request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sample {
    /// What went wrong, and what was said of it; `None` = nothing.
    pub(super) error: Option<(String, String)>,
    /// From the intended arrival.
    pub(super) ttft: Option<Duration>,
    /// From the intended arrival.
    pub(super) latency: Duration,
    /// As the edge tells.
    pub(super) queue_ms: Option<f64>,
    pub(super) tokens_per_s: Option<f64>,
    pub(super) prefill_tokens_per_s: Option<f64>,
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    pub(super) overflow: bool,
    pub(super) late: bool,
}

/// What has been measured, value by value: at most as many as a run has requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    pub(super) ttft_ms: Vec<f64>,
    pub(super) latency_ms: Vec<f64>,
    queue_ms: Vec<f64>,
    pub(super) tokens_per_s: Vec<f64>,
    prefill_tokens_per_s: Vec<f64>,
}

impl Measured {
    /// Takes what `sample` has measured; nothing of one that failed.
    fn take(&mut self, sample: &Sample) {
        if sample.error.is_some() {
            return;
        }
        self.latency_ms.push(ms(sample.latency));
        self.ttft_ms.extend(sample.ttft.map(ms));
        self.queue_ms.extend(sample.queue_ms);
        self.tokens_per_s.extend(sample.tokens_per_s);
        self.prefill_tokens_per_s.extend(sample.prefill_tokens_per_s);
    }

    /// Adds what another pair has measured.
    pub(super) fn add(&mut self, other: &Self) {
        self.latency_ms.extend(&other.latency_ms);
        self.ttft_ms.extend(&other.ttft_ms);
        self.tokens_per_s.extend(&other.tokens_per_s);
    }
}

/// One pair as it is measured.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) result: BenchmarkResult,
    pub(super) measured: Measured,
    pub(super) errors_in_a_row: u32,
}

impl Tally {
    /// Counts a request; `elapsed` is from the first counted one.
    pub(super) fn count(&mut self, sample: &Sample, elapsed: Duration) {
        let result = &mut self.result;
        result.requests += 1;
        result.prompt_tokens += sample.prompt_tokens;
        result.completion_tokens += sample.completion_tokens;
        result.context_overflows += u64::from(sample.overflow);
        result.late += u64::from(sample.late);
        result.duration_ms = ms(elapsed);
        match &sample.error {
            Some((status, said)) => {
                self.errors_in_a_row += 1;
                result.errors += 1;
                *result.errors_by_status.entry(status.clone()).or_default() += 1;
                result.last_error = Some(said.clone());
            }
            None => self.errors_in_a_row = 0,
        }
        self.measured.take(sample);
    }

    /// As it is shown.
    pub(super) fn result(&self) -> BenchmarkResult {
        let measured = &self.measured;
        let seconds = Some(self.result.duration_ms / 1e3).filter(|seconds| *seconds > 0.0);
        let tokens = Some(self.result.completion_tokens as f64).filter(|tokens| *tokens > 0.0);
        BenchmarkResult {
            ttft_ms: quantiles(&measured.ttft_ms),
            latency_ms: quantiles(&measured.latency_ms),
            queue_ms: quantiles(&measured.queue_ms),
            tokens_per_s: rates(&measured.tokens_per_s),
            prefill_tokens_per_s: rates(&measured.prefill_tokens_per_s).p50,
            throughput_tokens_per_s: seconds.zip(tokens).map(|(seconds, tokens)| rounded(tokens / seconds)),
            ..self.result.clone()
        }
    }
}

/// Milliseconds to a hundredth.
pub(super) fn ms(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1e3)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Percentiles by nearest rank, so that each is a value that was measured.
pub(super) fn quantiles(values: &[f64]) -> Quantiles {
    let of = ranked(values);
    Quantiles { p50: of(50), p95: of(95), p99: of(99) }
}

/// The same for speeds.
pub(super) fn rates(values: &[f64]) -> Rates {
    let of = ranked(values);
    Rates { p5: of(5), p50: of(50), p95: of(95) }
}

fn ranked(values: &[f64]) -> impl Fn(usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    move |percent| {
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.max(1) - 1).copied().map(rounded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantiles(&hundred), Quantiles { p50: Some(50.0), p95: Some(95.0), p99: Some(99.0) });
        assert_eq!(rates(&hundred), Rates { p5: Some(5.0), p50: Some(50.0), p95: Some(95.0) });
        assert_eq!(quantiles(&[7.0]), Quantiles { p50: Some(7.0), p95: Some(7.0), p99: Some(7.0) });
        assert_eq!(quantiles(&[]), Quantiles::default());
    }

    #[test]
    fn what_failed_is_counted_and_not_measured() {
        let mut tally = Tally::default();
        let failed = Sample { error: Some(("503".into(), "full".into())), ..Sample::default() };
        let done = Sample { latency: Duration::from_millis(40), completion_tokens: 8, ..Sample::default() };
        for sample in [&failed, &done, &failed] {
            tally.count(sample, Duration::from_secs(2));
        }
        let result = tally.result();
        assert_eq!((result.requests, result.errors, result.errors_by_status["503"]), (3, 2, 2));
        assert_eq!((result.latency_ms.p99, result.ttft_ms.p50), (Some(40.0), None));
        assert_eq!((result.throughput_tokens_per_s, tally.errors_in_a_row), (Some(4.0), 1));
    }
}
