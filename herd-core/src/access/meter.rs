//! What one key uses, against what it may use.
//!
//! Rates are kept as one number each: the moment at which all that was taken will be paid off (the "theoretical arrival
//! time" of the generic cell rate algorithm). That is a token bucket without a timer and without a lock.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A debt is paid off after so many times the bucket's own time at the most: numbers that a node reports must not lock
/// a key out for good.
const DEBT_BUCKETS: u64 = 10;

/// A rate with a bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    per_unit_ns: f64,
    bucket_ns: u64,
}

impl Rate {
    /// `units` in `seconds`, all of which may be taken at once. None below a millionth per second.
    #[must_use]
    pub fn new(units: f64, seconds: f64) -> Option<Self> {
        let per_second = units / seconds;
        if !per_second.is_finite() || per_second < 1e-6 {
            return None;
        }
        let per_unit_ns = 1e9 / per_second;
        // One unit must fit, or nothing ever could be taken.
        Some(Self { per_unit_ns, bucket_ns: whole((per_unit_ns * units.max(1.0)).ceil()) })
    }

    /// The moment to keep after `units` were taken at `now_ns`, where `until_ns` was kept before.
    ///
    /// More than the bucket holds may be taken when it is full, and is then owed.
    ///
    /// # Errors
    /// With the time to wait, when there are not so many yet.
    pub fn take(&self, until_ns: u64, now_ns: u64, units: u64) -> Result<u64, u64> {
        let owed = until_ns.saturating_sub(now_ns);
        let cost = self.cost(units);
        let allowed = self.bucket_ns.saturating_sub(cost.min(self.bucket_ns));
        if owed > allowed {
            return Err(owed - allowed);
        }
        Ok(self.charge(until_ns, now_ns, units))
    }

    /// The same whether there are so many or not.
    #[must_use]
    pub fn charge(&self, until_ns: u64, now_ns: u64, units: u64) -> u64 {
        let most = now_ns.saturating_add(self.bucket_ns.saturating_mul(DEBT_BUCKETS));
        until_ns.max(now_ns).saturating_add(self.cost(units)).min(most)
    }

    /// Rounded down, so that the whole bucket can be taken in units.
    fn cost(&self, units: u64) -> u64 {
        whole(self.per_unit_ns * units as f64)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times are positive; a cast saturates")]
fn whole(ns: f64) -> u64 {
    ns as u64
}

/// What a key may use; `None` = as much as it likes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct KeyLimits {
    /// Requests per second; one second's worth may come at once.
    pub requests_per_s: Option<f64>,
    /// Requests under way.
    pub in_flight: Option<u32>,
    /// Tokens per minute, of prompts as estimated and of answers as told by the node.
    pub tokens_per_min: Option<u64>,
}

/// A limit that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// Too many requests.
    #[error("the API key exceeds its limit of requests per second")]
    Requests {
        /// Until there is room.
        wait_ms: u64,
    },
    /// Too many under way.
    #[error("the API key exceeds its limit of requests at a time")]
    InFlight,
    /// Too many tokens.
    #[error("the API key exceeds its limit of tokens per minute")]
    Tokens {
        /// Until there is room.
        wait_ms: u64,
    },
}

impl Exceeded {
    /// When to come back.
    #[must_use]
    pub fn wait_ms(self) -> u64 {
        match self {
            Self::Requests { wait_ms } | Self::Tokens { wait_ms } => wait_ms.max(1),
            // Nobody knows when the key's own requests end.
            Self::InFlight => 1_000,
        }
    }
}

/// What a key has used. It outlives changes of the key's limits.
#[derive(Debug, Default)]
pub struct Usage {
    in_flight: AtomicU32,
    requests_until_ns: AtomicU64,
    tokens_until_ns: AtomicU64,
}

impl Usage {
    /// Requests of the key under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }
}

/// Limits of a key beside its use.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    limits: KeyLimits,
    requests: Option<Rate>,
    tokens: Option<Rate>,
    usage: Arc<Usage>,
}

impl Meter {
    /// A meter that goes on from `usage`.
    #[must_use]
    pub fn new(limits: KeyLimits, usage: Arc<Usage>) -> Self {
        Self {
            limits,
            requests: limits.requests_per_s.and_then(|per_s| Rate::new(per_s, 1.0)),
            tokens: limits.tokens_per_min.and_then(|per_min| Rate::new(per_min as f64, 60.0)),
            usage,
        }
    }

    /// What it counts into.
    #[must_use]
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// Lets one request in, which counts until the guard is dropped.
    ///
    /// # Errors
    /// When a limit is used up.
    pub fn admit(&self, now_ms: u64) -> Result<InFlight, Exceeded> {
        let most = self.limits.in_flight.unwrap_or(u32::MAX);
        let taken = self.usage.in_flight.fetch_update(Relaxed, Relaxed, |count| (count < most).then_some(count + 1));
        taken.map_err(|_| Exceeded::InFlight)?;
        let guard = InFlight(Arc::clone(&self.usage));
        // After the other, so that a request that is turned away there costs nothing here.
        take(self.requests, &self.usage.requests_until_ns, now_ms, 1)
            .map_err(|wait_ms| Exceeded::Requests { wait_ms })?;
        Ok(guard)
    }

    /// Takes the estimated tokens of a prompt.
    ///
    /// # Errors
    /// When they are used up.
    pub fn take_prompt(&self, tokens: u64, now_ms: u64) -> Result<(), Exceeded> {
        take(self.tokens, &self.usage.tokens_until_ns, now_ms, tokens).map_err(|wait_ms| Exceeded::Tokens { wait_ms })
    }

    /// Charges the tokens of an answer: they have been written, so later requests pay for them.
    pub fn charge_answer(&self, tokens: u64, now_ms: u64) {
        let Some(rate) = self.tokens else { return };
        let charge = |until_ns| Some(rate.charge(until_ns, ns(now_ms), tokens));
        // It always has an answer, so it cannot fail.
        self.usage.tokens_until_ns.fetch_update(Relaxed, Relaxed, charge).unwrap_or_default();
    }
}

fn take(rate: Option<Rate>, until_ns: &AtomicU64, now_ms: u64, units: u64) -> Result<(), u64> {
    let Some(rate) = rate else { return Ok(()) };
    let mut wait_ns = 0;
    let take = |until_ns| rate.take(until_ns, ns(now_ms), units).inspect_err(|wait| wait_ns = *wait).ok();
    match until_ns.fetch_update(Relaxed, Relaxed, take) {
        Ok(_) => Ok(()),
        Err(_) => Err(wait_ns.div_ceil(1_000_000)),
    }
}

fn ns(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}

/// One request under way, counted until this is dropped.
#[derive(Debug)]
#[must_use = "dropping the guard ends the request's count"]
pub struct InFlight(Arc<Usage>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
