//! What became of a request: one terminal record for each, on every path.

use std::time::Instant;

use herd_core::request::Surface;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The answer was passed on whole.
    Completed,
    /// It failed: the edge's error or the backend's.
    Failed,
    /// It was refused before any node was asked.
    Rejected,
    /// The backend broke off after the first byte.
    Incomplete,
    /// The client left.
    ClientDisconnected,
}

impl Status {
    /// Its name in traces and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Incomplete => "incomplete",
            Self::ClientDisconnected => "client_disconnected",
        }
    }
}

/// The terminal record of an inference request. Written when it is dropped, so that no path can lose it.
#[derive(Debug)]
pub struct Trace {
    /// The request's id.
    pub request_id: String,
    /// Where it came in.
    pub surface: Surface,
    /// The model it asked for; empty = that could not be read.
    pub model: String,
    /// The node that was asked last; empty = none.
    pub node_id: String,
    /// Score of that node.
    pub score: f64,
    /// Nodes asked.
    pub attempts: u32,
    /// Status that the client got; 0 = none.
    pub http_status: u16,
    /// How it ended; none until known: then the task was cut off.
    pub status: Option<Status>,
    /// What went wrong.
    pub error: String,
    /// When the request's header had been read.
    pub began: Instant,
    /// From there to the first byte of the answer's body.
    pub ttft_ms: Option<u64>,
    /// Bytes of the answer's body.
    pub response_bytes: usize,
}

impl Trace {
    /// A request that begins now.
    #[must_use]
    pub fn begin(request_id: String, surface: Surface) -> Self {
        Self {
            request_id,
            surface,
            model: String::new(),
            node_id: String::new(),
            score: 0.0,
            attempts: 0,
            http_status: 0,
            status: None,
            error: String::new(),
            began: Instant::now(),
            ttft_ms: None,
            response_bytes: 0,
        }
    }

    /// Milliseconds since it began.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Nothing told us how it ended: the task was dropped, as at the end of a drain.
        let status = self.status.unwrap_or(Status::Incomplete);
        tracing::info!(
            target: "herd::request",
            request_id = self.request_id,
            surface = self.surface.name(),
            model = self.model,
            node_id = self.node_id,
            score = self.score,
            attempts = self.attempts,
            http_status = self.http_status,
            status = status.name(),
            latency_ms = self.age_ms(),
            ttft_ms = self.ttft_ms,
            response_bytes = self.response_bytes,
            error = self.error,
            "request ended"
        );
    }
}
