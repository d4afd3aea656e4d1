//! Pulling models: what may be pulled, onto which node, and when a pull goes too far.
//!
//! A pull makes a machine fetch gigabytes from the internet and fills its disk, and a request with a typo can ask for
//! one. So everything here is bounded: which names ([`PullPolicy`]), where ([`place`]), how much ([`Download`]) and how
//! often ([`Backoff`]).

mod backoff;
mod daily;
mod download;
mod pattern;
mod place;
mod refusal;
#[cfg(test)]
mod tests;

use crate::name::ModelName;

pub use backoff::{Backoff, Failure};
pub use daily::Daily;
pub use download::{Download, PullStop};
pub use pattern::Pattern;
pub use place::{Holders, Placing, disk_available, known_size, place, place_on};
pub use refusal::PullRefusal;

/// What herd may pull by itself, and what every pull leaves alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullPolicy {
    /// Models that requests ask for and no node has are pulled. An operator may pull in any case.
    pub enabled: bool,
    /// Names that are pulled by themselves: those that match one of these. None = no model is.
    pub allow: Vec<Pattern>,
    /// Largest model that is pulled by itself, bytes on disk.
    pub max_bytes: u64,
    /// Most that is pulled by itself within a day, over all nodes, bytes.
    pub bytes_per_day: u64,
    /// Disk of a node that no pull uses up, an operator's neither.
    pub disk_reserve_bytes: u64,
    /// Pulls at a time over all nodes. Each node runs one at a time besides.
    pub running_max: usize,
}

impl Default for PullPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            allow: vec![Pattern::any()],
            max_bytes: 50_000_000_000,
            bytes_per_day: 200_000_000_000,
            disk_reserve_bytes: 10_000_000_000,
            running_max: 4,
        }
    }
}

impl PullPolicy {
    /// Whether `model` may be pulled because a request asks for it.
    ///
    /// # Errors
    /// When that is switched off, or no pattern allows the name.
    pub fn allows(&self, model: &ModelName) -> Result<(), PullRefusal> {
        if !self.enabled {
            return Err(PullRefusal::Disabled);
        }
        if self.allow.iter().any(|pattern| pattern.matches(model)) {
            return Ok(());
        }
        Err(PullRefusal::NotAllowed { model: model.clone() })
    }
}
