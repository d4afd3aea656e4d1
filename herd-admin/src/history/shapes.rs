//! The shapes of answers: what the store tells, by the names of the dashboard's API.

use herd_core::record::{AttemptRecord, Candidates, RequestRecord};
use herd_core::vocabulary::Word;
use herd_store::{Spread, Summary};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Quantiles; null = no data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Quantiles {
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

/// Requests, added up. Those of each end together are all requests.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Totals {
    requests: u64,
    completed: u64,
    failed: u64,
    rejected: u64,
    incomplete: u64,
    reaped: u64,
    cancelled: u64,
    client_disconnected: u64,
    /// Ended as only another program knows, whose rows they are.
    other: u64,
    errors: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    request_bytes: u64,
    response_bytes: u64,
    retries: u64,
    fallbacks: u64,
    reloads: u64,
    cold_loads: u64,
    overflows: u64,
    ttft_ms: Quantiles,
    latency_ms: Quantiles,
    queue_ms: Quantiles,
    latency_ms_avg: Option<f64>,
    ttft_ms_avg: Option<f64>,
    tokens_per_s: Option<f64>,
}

impl Totals {
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }
}

impl From<&Summary> for Totals {
    fn from(told: &Summary) -> Self {
        // Every field by name: what the store comes to tell is not passed over.
        let Summary {
            requests,
            completed,
            failed,
            rejected,
            incomplete,
            reaped,
            cancelled,
            client_disconnected,
            other,
            errors,
            prompt_tokens,
            completion_tokens,
            total_tokens: _,
            request_bytes,
            response_bytes,
            retries,
            fallbacks,
            reloads,
            cold_loads,
            overflows,
            unknown_models: _,
            latency_ms,
            time_to_first_token_ms,
            queue_ms,
            tokens_per_s,
            load_ms: _,
            first_ms: _,
            last_ms: _,
        } = *told;
        Self {
            requests,
            completed,
            failed,
            rejected,
            incomplete,
            reaped,
            cancelled,
            client_disconnected,
            other,
            errors,
            prompt_tokens,
            completion_tokens,
            request_bytes,
            response_bytes,
            retries,
            fallbacks,
            reloads,
            cold_loads,
            overflows,
            ttft_ms: time_to_first_token_ms.into(),
            latency_ms: latency_ms.into(),
            queue_ms: queue_ms.into(),
            latency_ms_avg: latency_ms.map(|spread| spread.avg),
            ttft_ms_avg: time_to_first_token_ms.map(|spread| spread.avg),
            tokens_per_s: tokens_per_s.map(|spread| spread.p50),
        }
    }
}

/// One request of a list.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TraceRow<'a> {
    request_id: &'a str,
    at_unix_ms: u64,
    surface: &'a str,
    original_model: &'a str,
    model: &'a str,
    node_id: Option<&'a str>,
    status: &'a str,
    http_status: u16,
    latency_ms: f64,
    queue_ms: Option<f64>,
    /// From the request read to the first byte of its answer, the time in the queue included.
    ttft_ms: Option<f64>,
    load_ms: Option<f64>,
    decode_ms: Option<f64>,
    predicted_ms: Option<f64>,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    score: Option<f64>,
    /// Points of the node that was chosen, by signal; null where none was.
    scores_breakdown: Option<Value>,
    retry_count: u32,
    stand_in: Option<&'a str>,
    fallback_used: bool,
    context_action: &'a str,
    reload_cause: Option<&'a str>,
    num_ctx: Option<u64>,
    context_length: Option<u64>,
    app: &'a str,
    tags: &'a [String],
    client_ip: &'a str,
    error_message: Option<&'a str>,
    stream: Option<bool>,
}

/// What is not known is null.
fn told(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

impl<'a> From<&'a RequestRecord> for TraceRow<'a> {
    fn from(record: &'a RequestRecord) -> Self {
        Self {
            request_id: &record.request_id,
            at_unix_ms: record.timestamp_ms,
            surface: record.surface_name(),
            original_model: &record.original_model,
            model: &record.model,
            node_id: told(&record.node_id),
            status: record.status_name(),
            http_status: record.http_status,
            latency_ms: record.latency_ms,
            queue_ms: record.queue_ms,
            ttft_ms: record.first_byte_ms(),
            load_ms: record.counts.load_ms,
            decode_ms: record.decode_ms,
            predicted_ms: record.predicted_ms,
            prompt_tokens: record.counts.prompt_tokens,
            completion_tokens: record.counts.completion_tokens,
            score: record.score,
            scores_breakdown: breakdown(record),
            retry_count: record.retry_count,
            stand_in: record.stand_in.map(Word::word),
            fallback_used: record.fallback_used,
            context_action: record.context_action.map_or("", Word::word),
            reload_cause: record.reload_cause.map(Word::word),
            num_ctx: record.num_ctx,
            context_length: record.context_length,
            app: &record.app,
            tags: &record.tags,
            client_ip: &record.client_ip,
            error_message: record.error_message.as_deref(),
            stream: record.stream,
        }
    }
}

/// One request with all that is known of it.
#[derive(Debug, Serialize)]
pub(crate) struct OneTrace<'a> {
    trace: WholeTrace<'a>,
    attempts: Vec<AttemptRow<'a>>,
    /// The nodes that were ranked, with their signals; null = no node was.
    candidates: Option<Box<RawValue>>,
}

/// One node that was asked.
#[derive(Debug, Serialize)]
struct AttemptRow<'a> {
    node_id: &'a str,
    outcome: &'a str,
    score: Option<f64>,
    started_ms: Option<f64>,
    duration_ms: Option<f64>,
}

impl<'a> From<&'a AttemptRecord> for AttemptRow<'a> {
    fn from(attempt: &'a AttemptRecord) -> Self {
        let AttemptRecord { node_id, outcome, score, started_ms, duration_ms } = attempt;
        Self { node_id, outcome: outcome.name(), score: *score, started_ms: *started_ms, duration_ms: *duration_ms }
    }
}

#[derive(Debug, Serialize)]
struct WholeTrace<'a> {
    #[serde(flatten)]
    row: TraceRow<'a>,
    request_bytes: u64,
    response_bytes: u64,
    user_agent: Option<&'a str>,
    key_id: Option<&'a str>,
    priority: &'a str,
    finish_reason: Option<&'a str>,
    estimated_tokens: Option<u64>,
    benchmark: bool,
}

impl<'a> From<&'a RequestRecord> for OneTrace<'a> {
    fn from(record: &'a RequestRecord) -> Self {
        Self {
            trace: WholeTrace {
                row: record.into(),
                request_bytes: record.request_bytes,
                response_bytes: record.response_bytes,
                user_agent: told(&record.user_agent),
                key_id: told(&record.key_id),
                priority: record.priority.map_or("", Word::word),
                finish_reason: record.finish_reason.map(Word::word),
                estimated_tokens: record.estimated_tokens,
                benchmark: record.benchmark,
            },
            attempts: record.attempts.iter().map(Into::into).collect(),
            candidates: match &record.candidates {
                Candidates::Json(json) => RawValue::from_string(json.to_string()).ok(),
                Candidates::None | Candidates::Ranked(..) => None,
            },
        }
    }
}

/// The points of the node that was chosen, by signal, with their sum; `None` = they were not read, or none was chosen.
fn breakdown(record: &RequestRecord) -> Option<Value> {
    let Candidates::Json(json) = &record.candidates else { return None };
    match serde_json::from_str(json).ok()? {
        Value::Array(ranked) => {
            let mut chosen = ranked.into_iter().find(|one| one["node_id"] == record.node_id.as_str())?;
            let mut signals = chosen["signals"].take();
            signals["total"] = chosen["total"].take();
            Some(signals)
        }
        // As ollama-herd kept them.
        signals @ Value::Object(_) => Some(signals),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_is_waited_for_in_the_queue_too() {
        let record =
            RequestRecord { queue_ms: Some(100.0), time_to_first_token_ms: Some(50.0), ..RequestRecord::default() };
        assert_eq!(TraceRow::from(&record).ttft_ms, Some(150.0));
        let unanswered = RequestRecord { queue_ms: Some(100.0), ..RequestRecord::default() };
        assert_eq!(TraceRow::from(&unanswered).ttft_ms, None);
    }
}
