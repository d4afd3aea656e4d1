//! What a run was and what came of it, as it is shown and kept.

use serde::{Deserialize, Serialize};

use super::measure::{BenchmarkResult, Quantiles, Rates};

/// What a run does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkConfig {
    /// Requests for each pair of a node and a model.
    pub requests: u64,
    /// Closed loop: so many at a time for each pair, the next when one has ended.
    pub concurrency: Option<u64>,
    /// Open loop: so many arrive per second for each pair, however long answers take.
    pub rate_per_s: Option<f64>,
    /// Tokens of a prompt, roughly.
    pub prompt_tokens: u64,
    /// Most tokens of an answer.
    pub max_tokens: u64,
    /// What prompts and arrivals are made of: the same seed makes the same.
    pub seed: u64,
    /// The run ends after so many seconds, whatever is left.
    pub max_duration_s: u64,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BenchmarkState {
    /// It goes on.
    Running,
    /// All was measured; requests may have failed.
    Completed,
    /// Somebody ended it, or herd stopped; what was measured until then is kept.
    Cancelled,
    /// Nothing succeeded, or its time was over first.
    Failed,
}

impl BenchmarkState {
    /// Its name in JSON and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// A pair that is not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The node.
    pub node_id: String,
    /// The model.
    pub model: String,
    /// Why.
    pub reason: String,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkRun {
    /// Its name.
    pub run_id: String,
    /// How it stands.
    pub state: BenchmarkState,
    /// Why it ended early; `None` = it did not.
    pub error: Option<String>,
    /// Wall clock.
    pub started_unix_ms: u64,
    /// Wall clock; `None` = it goes on.
    pub ended_unix_ms: Option<u64>,
    /// The models measured.
    pub models: Vec<String>,
    /// The nodes measured.
    pub nodes: Vec<String>,
    /// What it does.
    pub config: BenchmarkConfig,
    /// Pairs that were asked for and are not measured.
    pub left_out: Vec<LeftOut>,
    /// All pairs together.
    pub summary: BenchmarkSummary,
}

/// All pairs of a run together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkSummary {
    /// Requests that have ended.
    pub requests: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// From the intended arrival to the first token.
    pub ttft_ms: Quantiles,
    /// From the intended arrival to the end.
    pub latency_ms: Quantiles,
    /// Tokens per second while an answer is written.
    pub tokens_per_s: Rates,
}

/// A run with what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkRecord {
    /// The run.
    pub run: BenchmarkRun,
    /// What was measured, pair by pair.
    pub results: Vec<BenchmarkResult>,
}
