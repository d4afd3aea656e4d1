//! Counters with one series for each word of a closed set.

use std::marker::PhantomData;

use herd_core::vocabulary::{ContextAction, ReloadCause, WordSet};
use prometheus::IntCounter;
use prometheus::IntCounterVec;

/// A counter for each word: counting is an addition, and every series is there before its first count.
#[derive(Debug)]
pub(super) struct PerWord<W> {
    counters: Vec<IntCounter>,
    words: PhantomData<W>,
}

impl<W: WordSet> PerWord<W> {
    /// Those of `family`, whose only label is the word.
    pub(super) fn new(family: &IntCounterVec) -> Self {
        Self::labelled(family, |word| vec![word])
    }

    fn labelled(family: &IntCounterVec, labels: impl Fn(&'static str) -> Vec<&'static str>) -> Self {
        let counters = W::WORDS.iter().map(|word| family.with_label_values(&labels(word.word()))).collect();
        Self { counters, words: PhantomData }
    }

    /// How often `word` was counted.
    pub(super) fn count(&self, word: W) -> u64 {
        self.counters[word.place()].get()
    }

    /// How often any was.
    pub(super) fn sum(&self) -> u64 {
        self.counters.iter().map(IntCounter::get).sum()
    }

    /// Counts `word`.
    pub(super) fn inc(&self, word: W) {
        self.counters[word.place()].inc();
    }
}

/// What happens to contexts, and why where a model is reloaded.
#[derive(Debug)]
pub(super) struct ContextActions {
    /// Of those that are no reload, by place.
    others: Vec<Option<IntCounter>>,
    reloads: PerWord<ReloadCause>,
}

impl ContextActions {
    /// Those of `family`, whose labels are the action and the cause.
    pub(super) fn new(family: &IntCounterVec) -> Self {
        let reload = ContextAction::Reload;
        let other = |action: ContextAction| (action != reload).then(|| family.with_label_values(&[action.name(), ""]));
        Self {
            others: ContextAction::ALL.into_iter().map(other).collect(),
            reloads: PerWord::labelled(family, |cause| vec![reload.name(), cause]),
        }
    }

    /// Counts `action`; a reload has a cause.
    pub(super) fn inc(&self, action: ContextAction, cause: Option<ReloadCause>) {
        match (&self.others[action.place()], cause) {
            (Some(counter), _) => counter.inc(),
            (None, Some(cause)) => self.reloads.inc(cause),
            (None, None) => {}
        }
    }
}
