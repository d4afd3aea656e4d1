//! When a model that could not be pulled may be tried again by itself.

use crate::name::ModelName;

use super::PullRefusal;

/// Pause after the first failure; it doubles with each further one.
const FIRST_MS: u64 = 30_000;
/// Longest pause, and the one after a failure that trying again soon cannot help.
const LONGEST_MS: u64 = 30 * 60_000;
/// Models that are remembered. Beyond them the one to be tried soonest is forgotten.
const REMEMBERED_MAX: usize = 256;
/// Unknown models in [`UNKNOWN_WINDOW_MS`] after which no other unseen name is looked for: somebody is making up names,
/// and each costs the registry a request.
const UNKNOWN_MAX: usize = 20;
/// The time in which they are counted.
const UNKNOWN_WINDOW_MS: u64 = 60_000;

/// How a pull failed, as far as trying again goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The registry has no such model.
    UnknownModel,
    /// The model is larger than it may be.
    TooLarge,
    /// Anything else.
    Other,
}

/// What is remembered of pulls that failed.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    model: ModelName,
    failure: Failure,
    failures: u32,
    failed_at_ms: u64,
    until_ms: u64,
    message: String,
}

impl Backoff {
    /// Whether `model` may be pulled by itself at `now_ms`.
    ///
    /// # Errors
    /// When it failed too lately, or too many unknown models were asked for.
    pub fn check(&self, model: &ModelName, now_ms: u64) -> Result<(), PullRefusal> {
        let Some(entry) = self.entries.iter().find(|entry| entry.model == *model) else {
            return self.check_unseen(now_ms);
        };
        let retry_after_ms = entry.until_ms.saturating_sub(now_ms);
        match (retry_after_ms, entry.failure) {
            (0, _) => Ok(()),
            (_, Failure::UnknownModel) => Err(PullRefusal::UnknownModel { last: entry.message.clone() }),
            (_, Failure::TooLarge | Failure::Other) => {
                Err(PullRefusal::BackingOff { retry_after_ms, last: entry.message.clone() })
            }
        }
    }

    fn check_unseen(&self, now_ms: u64) -> Result<(), PullRefusal> {
        let age = |entry: &Entry| now_ms.saturating_sub(entry.failed_at_ms);
        let unknown = self.entries.iter().filter(|entry| entry.failure == Failure::UnknownModel);
        let lately: Vec<u64> = unknown.map(age).filter(|age| *age < UNKNOWN_WINDOW_MS).collect();
        if lately.len() < UNKNOWN_MAX {
            return Ok(());
        }
        let oldest = lately.into_iter().max().unwrap_or_default();
        let last = "many unknown models were asked for".to_owned();
        Err(PullRefusal::BackingOff { retry_after_ms: UNKNOWN_WINDOW_MS - oldest, last })
    }

    /// Notes that a pull of `model` failed, with the words of whoever said so.
    pub fn failed(&mut self, model: &ModelName, failure: Failure, message: &str, now_ms: u64) {
        let before = self.remove(model);
        // A failure long ago says nothing about one today.
        let before = before.filter(|entry| now_ms.saturating_sub(entry.until_ms) < LONGEST_MS);
        let failures = before.map_or(1, |entry| entry.failures.saturating_add(1));
        let pause_ms = match failure {
            Failure::UnknownModel | Failure::TooLarge => LONGEST_MS,
            Failure::Other => FIRST_MS.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_MS),
        };
        if self.entries.len() >= REMEMBERED_MAX {
            self.forget_one();
        }
        let (model, message, until_ms) = (model.clone(), message.to_owned(), now_ms.saturating_add(pause_ms));
        self.entries.push(Entry { model, failure, failures, failed_at_ms: now_ms, until_ms, message });
    }

    /// Notes that `model` was pulled.
    pub fn succeeded(&mut self, model: &ModelName) {
        self.remove(model);
    }

    fn remove(&mut self, model: &ModelName) -> Option<Entry> {
        let index = self.entries.iter().position(|entry| entry.model == *model)?;
        Some(self.entries.swap_remove(index))
    }

    fn forget_one(&mut self) {
        let soonest = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.until_ms);
        if let Some((index, _)) = soonest {
            self.entries.swap_remove(index);
        }
    }
}
