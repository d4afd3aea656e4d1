//! Memory for what is held of requests and answers: taken before it is used, given back when its share is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that may be held at one time, all requests together. Cloning it shares them.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
}

/// The budget has no room for what was asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request-body buffer is full")]
pub struct Spent;

impl Budget {
    /// A budget of `limit_bytes`.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self(Arc::new(Pool { limit_bytes, used_bytes: AtomicUsize::new(0) }))
    }

    /// Bytes that are held now.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.0.used_bytes.load(Relaxed)
    }

    /// Bytes that may still be taken, as of now.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.0.limit_bytes.saturating_sub(self.used_bytes())
    }

    /// A share of nothing, to be grown by what is about to be held.
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

/// What one holder has taken of the budget. Dropping it gives all of it back.
#[derive(Debug)]
#[must_use = "what is held counts as long as its share lives"]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `bytes` more, or nothing.
    ///
    /// # Errors
    /// When the budget has fewer left.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Spent> {
        let pool = &self.budget.0;
        let after = |used: usize| used.checked_add(bytes).filter(|used| *used <= pool.limit_bytes);
        pool.used_bytes.fetch_update(Relaxed, Relaxed, after).map_err(|_| Spent)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Takes what it lacks of `bytes` in all. It never shrinks by this.
    ///
    /// # Errors
    /// When the budget has fewer left.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Spent> {
        self.grow(bytes.saturating_sub(self.bytes))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.used_bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_within_the_budget_and_give_back_all_that_they_took() {
        let budget = Budget::new(1_000);
        let mut first = budget.share();
        first.grow(600).unwrap();
        first.grow_to(700).unwrap();
        first.grow_to(10).unwrap();
        let mut second = budget.share();
        assert_eq!((second.grow(301), second.grow(usize::MAX), second.bytes()), (Err(Spent), Err(Spent), 0));
        second.grow(300).unwrap();
        assert_eq!((first.bytes(), budget.used_bytes(), budget.free_bytes()), (700, 1_000, 0));
        drop(first);
        assert_eq!((budget.used_bytes(), second.grow(700)), (300, Ok(())));
        drop(second);
        assert_eq!(budget.free_bytes(), 1_000);
    }
}
