//! Counters whose labels are words of this program.

use prometheus::IntCounter;
use prometheus::IntCounterVec;

/// A family of counters with `N` labels, those of known words resolved.
///
/// A walk along a dozen short words is cheaper than the hash and the lock that the family takes for each.
#[derive(Debug)]
pub(super) struct Words<const N: usize> {
    family: IntCounterVec,
    known: Vec<([&'static str; N], IntCounter)>,
}

impl<const N: usize> Words<N> {
    pub(super) fn new(family: IntCounterVec, known: &[[&'static str; N]]) -> Self {
        let known = known.iter().map(|words| (*words, family.with_label_values(words))).collect();
        Self { family, known }
    }

    /// How often `words` were counted; 0 = they are not known.
    pub(super) fn count(&self, words: [&str; N]) -> u64 {
        self.known.iter().find(|(known, _)| *known == words).map_or(0, |(_, counter)| counter.get())
    }

    /// Counts one of `words`, which need not be known, but must be words of this program.
    pub(super) fn inc(&self, words: [&str; N]) {
        match self.known.iter().find(|(known, _)| *known == words) {
            Some((_, counter)) => counter.inc(),
            None => self.family.with_label_values(&words).inc(),
        }
    }
}
