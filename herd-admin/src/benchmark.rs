//! Benchmarks: chosen models on chosen nodes, measured through the edge as a client would see them.
//!
//! Requests come in on the edge's own client address, so that slots, queue and context protection hold for them as for
//! any other. Headers that count beside the edge's secret alone keep each on its node, and out of what the edge learns
//! and counts. One run at a time; everything is bounded.

mod ask;
mod drive;
mod http;
mod measure;
mod prompt;
mod record;
mod request;
mod run;
mod runs;
mod store;

use ::http::HeaderName;

pub use ask::BenchmarkRefusal;
pub use measure::{BenchmarkResult, Quantiles, Rates};
pub use record::{BenchmarkConfig, BenchmarkRecord, BenchmarkRun, BenchmarkState, BenchmarkSummary, LeftOut};
pub use runs::{BenchmarkProgress, Benchmarks};
pub use store::BenchmarkStore;

pub(crate) use http::{cancel, list, progress, show, start};

/// Beside the edge's secret: the request belongs to the benchmark that it names.
pub const BENCHMARK_HEADER: HeaderName = HeaderName::from_static("x-fleet-benchmark");
/// Beside the edge's secret: the one node that may serve the request.
pub const ONLY_NODE_HEADER: HeaderName = HeaderName::from_static("x-fleet-only-node");

/// Most requests of a run, over all nodes and models.
const REQUESTS_MAX: u64 = 10_000;
/// Most pairs of a node and a model.
const PAIRS_MAX: usize = 64;
/// Longest run, seconds.
const DURATION_MAX_S: u64 = 3_600;
/// Most requests at a time for one pair.
const CONCURRENCY_MAX: u64 = 64;
/// Most requests at a time over all pairs: well below what may wait at the edge, which is there for clients.
const OUTSTANDING_MAX: usize = 256;
/// Most arrivals per second for one pair.
const RATE_MAX_PER_S: f64 = 1_000.0;
/// Fewest: one in a hundred seconds.
const RATE_MIN_PER_S: f64 = 0.01;
/// Longest prompt, tokens.
const PROMPT_TOKENS_MAX: u64 = 131_072;
/// Longest answer, tokens.
const ANSWER_TOKENS_MAX: u64 = 16_384;
/// Errors in a row after which a pair is given up.
const ERRORS_IN_A_ROW_MAX: u32 = 20;
