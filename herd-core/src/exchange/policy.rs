//! What the operator says of how requests are carried out.

use crate::budget::Retries;
use crate::patience::Patience;

/// What is given to an exchange with every call.
#[derive(Debug, Clone, Copy)]
pub struct Env<'a> {
    /// The receiver's monotonic clock.
    pub now_ms: u64,
    /// The operator's limits.
    pub policy: &'a ExchangePolicy,
    /// The retries that the fleet may still make.
    pub retries: &'a Retries,
}

/// Limits on one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExchangePolicy {
    /// Most attempts in which a node may have begun to work.
    pub max_attempts: u32,
    /// After so long no other node is asked.
    pub retry_deadline_ms: u64,
    /// How long nodes that are away are waited for.
    pub hold: Hold,
    /// Longest wait for a slot, milliseconds.
    pub max_wait_ms: u64,
    /// A prompt that exceeds the window is refused instead of sent.
    pub refuse_overflow: bool,
    /// How long silent nodes are waited for.
    pub patience: Patience,
}

impl Default for ExchangePolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            retry_deadline_ms: 600_000,
            hold: Hold::default(),
            max_wait_ms: 300_000,
            refuse_overflow: false,
            patience: Patience::default(),
        }
    }
}

/// How long a request waits for nodes that are away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Longest hold, milliseconds.
    pub max_ms: u64,
    /// After the start of the edge an unknown model is waited for until this, milliseconds.
    pub start_ms: u64,
}

impl Default for Hold {
    fn default() -> Self {
        Self { max_ms: 30_000, start_ms: 10_000 }
    }
}
