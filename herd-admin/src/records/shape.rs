//! Sums as the dashboard reads them.

use serde::Serialize;

use crate::store::{Spread, Summary};

/// How a measurement is spread; null = nothing was measured.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Quantiles {
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
}

impl From<Option<Spread>> for Quantiles {
    fn from(spread: Option<Spread>) -> Self {
        spread.map_or_else(Self::default, |spread| Self {
            p50: Some(spread.p50),
            p95: Some(spread.p95),
            p99: Some(spread.p99),
        })
    }
}

/// Requests, added up.
#[derive(Debug, Serialize)]
pub(super) struct Sums {
    requests: u64,
    completed: u64,
    errors: u64,
    failed: u64,
    rejected: u64,
    incomplete: u64,
    reaped: u64,
    client_disconnected: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    retries: u64,
    fallbacks: u64,
    reloads: u64,
    cold_loads: u64,
    /// From dispatch to the first byte.
    ttft_ms: Quantiles,
    latency_ms: Quantiles,
    queue_ms: Quantiles,
    /// The median.
    tokens_per_s: Option<f64>,
}

impl From<&Summary> for Sums {
    fn from(summary: &Summary) -> Self {
        Self {
            requests: summary.requests,
            completed: summary.completed,
            errors: summary.errors,
            failed: summary.failed,
            rejected: summary.rejected,
            incomplete: summary.incomplete,
            reaped: summary.reaped,
            client_disconnected: summary.client_disconnected,
            prompt_tokens: summary.prompt_tokens,
            completion_tokens: summary.completion_tokens,
            retries: summary.retries,
            fallbacks: summary.fallbacks,
            reloads: summary.reloads,
            cold_loads: summary.cold_loads,
            ttft_ms: summary.time_to_first_token_ms.into(),
            latency_ms: summary.latency_ms.into(),
            queue_ms: summary.queue_ms.into(),
            tokens_per_s: summary.tokens_per_s.map(|spread| spread.p50),
        }
    }
}
