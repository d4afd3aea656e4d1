//! Which conversations a runner is likely to have in its cache.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::lock;

/// Conversations that are remembered of one runner; more than runners have slots in practice.
const REMEMBERED: usize = 32;

/// The last requests that a runner has answered, the newest first: each of its slots keeps what it has read and written
/// until another conversation takes it, and the one that was not used for longest is taken first.
#[derive(Debug, Default)]
pub(super) struct Conversations(Mutex<VecDeque<(Option<u64>, u64)>>);

impl Conversations {
    /// Notes an answer: its conversation, `None` = none, and the tokens of both prompt and answer.
    pub(super) fn remember(&self, conversation: Option<u64>, tokens: u64) {
        let mut known = lock(&self.0);
        let before = known.iter().position(|(one, _)| conversation.is_some() && *one == conversation);
        if let Some(before) = before {
            known.remove(before);
        }
        known.push_front((conversation, tokens));
        known.truncate(REMEMBERED);
    }

    /// Tokens of `conversation` that are likely in the cache of one of `slots`.
    pub(super) fn cached(&self, conversation: u64, slots: u32) -> u64 {
        let known = lock(&self.0);
        let mut newest = known.iter().take(slots as usize);
        newest.find(|(one, _)| *one == Some(conversation)).map_or(0, |(_, tokens)| *tokens)
    }

    /// Forgets all: the runner is another.
    pub(super) fn forget(&self) {
        lock(&self.0).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keep_the_newest_conversations() {
        let known = Conversations::default();
        known.remember(Some(1), 100);
        known.remember(None, 50);
        assert_eq!((known.cached(1, 1), known.cached(1, 2), known.cached(2, 2)), (0, 100, 0));
        known.remember(Some(1), 300);
        assert_eq!(known.cached(1, 1), 300);
        (0..100).for_each(|other| known.remember(Some(1_000 + other), 1));
        assert_eq!(known.cached(1, u32::MAX), 0, "and no more than that");
        known.forget();
        assert_eq!(known.cached(1_099, 1), 0);
    }
}
