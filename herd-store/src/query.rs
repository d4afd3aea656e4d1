//! What can be asked, and the numbers of every answer.
//!
//! All but lists of single requests come from the roll-ups, so that their cost does not grow with the number of
//! requests, and all count the same requests: each that is over and is no benchmark, once.

mod apps;
mod cells;
mod context;
mod day;
mod latency;
mod overview;
mod residency;
mod scores;
mod traces;
mod trends;
mod usage;

use herd_core::histogram::Histogram;
use herd_core::vocabulary::Status;
use serde::Serialize;

use super::rollup::{Cell, Count, MINUTE_MS, MINUTES_KEPT_MS, Measure};
use super::{DAY_MS, HOUR_MS};

pub use apps::{AppDay, Apps, Asker, ModelShare};
pub use context::ContextUsage;
pub use day::{DaySums, PairDay};
pub use latency::RecentLatency;
pub use overview::{ModelDay, ModelUsage, Models, Overview};
pub use residency::Residency;
pub use scores::HealthScore;
pub use traces::{TraceFilter, TracePage};
pub use trends::{TrendFilter, TrendPoint, Trends};
pub use usage::{GroupBy, Usage, UsageRow};

/// Most rows of an answer.
const ROWS: usize = 10_000;
/// Longest range.
const RANGE_MS: u64 = 400 * DAY_MS;

/// A stretch of time in whole hours, or in whole minutes where it begins not long ago, as long as roll-ups are kept at
/// most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range {
    from_ms: u64,
    to_ms: u64,
}

impl Range {
    /// All whole hours that touch the time from `from_ms` to before `to_ms`, Unix milliseconds. Of more than roll-ups
    /// are kept, the last; of none, the hour of `from_ms`.
    #[must_use]
    pub fn new(from_ms: u64, to_ms: u64) -> Self {
        Self::whole(HOUR_MS, from_ms, to_ms)
    }

    /// The same in whole minutes, where minutes are still kept at `now_ms`.
    #[must_use]
    pub fn fine(from_ms: u64, to_ms: u64, now_ms: u64) -> Self {
        let kept = from_ms.saturating_add(MINUTES_KEPT_MS) > now_ms.saturating_add(MINUTE_MS);
        Self::whole(if kept { MINUTE_MS } else { HOUR_MS }, from_ms, to_ms)
    }

    fn whole(width_ms: u64, from_ms: u64, to_ms: u64) -> Self {
        // A bound that leaves room for every sum that is made of it.
        let latest = to_ms.max(from_ms.saturating_add(1)).min(1 << 52);
        let to_ms = latest.next_multiple_of(width_ms);
        let from_ms = from_ms.min(latest - 1).max(to_ms.saturating_sub(RANGE_MS));
        Self { from_ms: from_ms - from_ms % width_ms, to_ms }
    }

    /// The range of the same length before it, where minutes are still kept at `now_ms`, else in the whole hours of it.
    #[must_use]
    pub fn before(self, now_ms: u64) -> Self {
        let from_ms = self.from_ms.saturating_sub(self.to_ms - self.from_ms);
        let exact = Self::fine(from_ms, self.from_ms, now_ms);
        if exact.to_ms <= self.from_ms { exact } else { Self::new(from_ms, self.from_ms - self.from_ms % HOUR_MS) }
    }

    /// Whether it begins and ends with an hour.
    fn is_of_hours(self) -> bool {
        self.from_ms.is_multiple_of(HOUR_MS) && self.to_ms.is_multiple_of(HOUR_MS)
    }

    /// The last `span_ms` before `now_ms`, and the rest of the hour.
    #[must_use]
    pub fn last(span_ms: u64, now_ms: u64) -> Self {
        Self::new(now_ms.saturating_sub(span_ms), now_ms.saturating_add(1))
    }

    /// Its begin, Unix milliseconds.
    #[must_use]
    pub fn from_ms(self) -> u64 {
        self.from_ms
    }

    /// Its end, which is no part of it, Unix milliseconds.
    #[must_use]
    pub fn to_ms(self) -> u64 {
        self.to_ms
    }
}

/// How a measurement is spread. Average, least and greatest are exact, quantiles right within about 3 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Spread {
    pub count: u64,
    pub avg: f64,
    pub min: f64,
    pub p50: f64,
    pub p75: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    fn of(histogram: &Histogram) -> Option<Self> {
        let rounded = |value: Option<f64>| value.map(|value| (value * 1e3).round() / 1e3);
        Some(Self {
            count: histogram.count(),
            avg: rounded(histogram.mean())?,
            min: rounded(histogram.min())?,
            p50: rounded(histogram.quantile(0.5))?,
            p75: rounded(histogram.quantile(0.75))?,
            p95: rounded(histogram.quantile(0.95))?,
            p99: rounded(histogram.quantile(0.99))?,
            max: rounded(histogram.max())?,
        })
    }
}

/// Requests, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Summary {
    /// All of them: the sum of the eight that follow.
    pub requests: u64,
    /// Answered whole.
    pub completed: u64,
    /// Ended in an error of the edge or of a backend.
    pub failed: u64,
    /// Refused before a node was asked.
    pub rejected: u64,
    /// Broken off after the first byte.
    pub incomplete: u64,
    /// Cancelled, as their node showed no progress.
    pub reaped: u64,
    /// Ended by an operator.
    pub cancelled: u64,
    /// Left by their clients.
    pub client_disconnected: u64,
    /// Ended as only an older database knows.
    pub other: u64,
    /// Those that ended in an error: see [`Status::is_error`].
    pub errors: u64,
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// Bytes of requests.
    pub request_bytes: u64,
    /// Bytes of answers.
    pub response_bytes: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Served by another model.
    pub fallbacks: u64,
    /// Made a loaded model load anew.
    pub reloads: u64,
    /// Waited for a model to load.
    pub cold_loads: u64,
    /// Prompts that were estimated to be longer than the window that served them.
    pub overflows: u64,
    /// Refused, as no node has such a model.
    pub unknown_models: u64,
    /// Of completed requests, milliseconds; null = there are none.
    pub latency_ms: Option<Spread>,
    /// From the request read to the first byte of the answer, of those that were streamed, milliseconds.
    pub time_to_first_token_ms: Option<Spread>,
    /// Waiting for a slot, milliseconds.
    pub queue_ms: Option<Spread>,
    /// Tokens written per second.
    pub tokens_per_s: Option<Spread>,
    /// Loading models that were not in memory, milliseconds, where backends told it.
    pub load_ms: Option<Spread>,
    /// When the first was over, Unix milliseconds; 0 = there are none.
    pub first_ms: u64,
    /// When the last was over.
    pub last_ms: u64,
}

impl Summary {
    pub(super) fn of(cell: &Cell) -> Self {
        let count = |count| cell.count(count);
        let spread = |measure| Spread::of(cell.measure(measure));
        let errors = Status::ALL.into_iter().filter(|status| status.is_error()).map(|status| cell.ended(status));
        let (prompt_tokens, completion_tokens) = (count(Count::PromptTokens), count(Count::CompletionTokens));
        let mut summary = Self {
            requests: count(Count::Requests),
            other: count(Count::Other),
            errors: errors.fold(0, u64::saturating_add),
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            request_bytes: count(Count::RequestBytes),
            response_bytes: count(Count::ResponseBytes),
            retries: count(Count::Retries),
            fallbacks: count(Count::Fallbacks),
            reloads: count(Count::Reloads),
            cold_loads: count(Count::ColdLoads),
            overflows: count(Count::Overflows),
            unknown_models: count(Count::Unknown),
            latency_ms: spread(Measure::Latency),
            time_to_first_token_ms: spread(Measure::Ttft),
            queue_ms: spread(Measure::Queue),
            tokens_per_s: spread(Measure::DecodeRate),
            load_ms: spread(Measure::Load),
            first_ms: cell.first_ms,
            last_ms: cell.last_ms,
            ..Self::default()
        };
        for status in Status::ALL {
            *summary.ended(status) = cell.ended(status);
        }
        summary
    }

    /// How many ended with `status`.
    fn ended(&mut self, status: Status) -> &mut u64 {
        match status {
            Status::Completed => &mut self.completed,
            Status::Failed => &mut self.failed,
            Status::Rejected => &mut self.rejected,
            Status::Incomplete => &mut self.incomplete,
            Status::Reaped => &mut self.reaped,
            Status::Cancelled => &mut self.cancelled,
            Status::ClientDisconnected => &mut self.client_disconnected,
        }
    }
}
