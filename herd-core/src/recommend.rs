//! Which models to pull, keep, unload or move on which node: from what clients really ask for, and what really fits.
//!
//! Nothing is recommended without evidence, nothing of unknown size, and nothing that does not fit beside what its node
//! is asked for already. All recommendations of one list fit together.

mod catalogue;
pub mod memory;
mod room;
mod rules;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::health::{Inputs, Value};
use crate::name::{ModelName, NodeId};

pub use catalogue::{Catalogue, CatalogueError, KnownModel};
pub use room::{UNKNOWN_CACHE_SHARE, USABLE_DISCRETE, USABLE_SHARED};

use room::Rooms;

/// Most recommendations of one list: nobody reads more, and each is taken into account by the next list.
pub const RECOMMENDATIONS_MAX: usize = 20;

/// What kind of advice it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// No node has what is asked for.
    Pull,
    /// Those that have it are not enough.
    Replicate,
    /// Another node holds it better.
    Move,
    /// It is loaded again and again, and could stay.
    Keep,
    /// It is in the way.
    Unload,
}

impl Kind {
    /// Its name in JSON and in ids.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Replicate => "replicate",
            Self::Move => "move",
            Self::Keep => "keep",
            Self::Unload => "unload",
        }
    }
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// It would be tidier.
    Low,
    /// Some minutes a day.
    Medium,
    /// Requests fail, or wait for long.
    High,
}

/// What one click does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Action {
    /// `POST /api/pull` with these.
    Pull {
        /// The model.
        model: String,
        /// The node.
        node_id: String,
    },
    /// `POST /fleet/pin` with these.
    Pin {
        /// The model.
        model: String,
        /// The node.
        node_id: String,
    },
    /// `POST /fleet/nodes/{node_id}/unload` with the model.
    Unload {
        /// The model.
        model: String,
        /// The node.
        node_id: String,
    },
}

/// What it would bring, from what was counted in the last 24 hours; none = cannot be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Gain {
    /// Requests that would no longer be refused.
    pub requests_served_per_day: Option<u64>,
    /// Loads that nobody would wait for any more.
    pub cold_loads_avoided_per_day: Option<u64>,
    /// Time that clients would no longer wait, over all of them.
    pub seconds_saved_per_day: Option<f64>,
    /// Memory that would be free.
    pub freed_bytes: Option<u64>,
}

/// One piece of advice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// Stable: the same advice has the same id in every list.
    pub id: String,
    /// What kind it is.
    pub kind: Kind,
    /// How much it matters.
    pub priority: Priority,
    /// The model.
    pub model: String,
    /// The node on which something is to be done.
    pub node_id: String,
    /// The node that it moves away from; none unless it moves.
    pub from_node_id: Option<String>,
    /// Size of its weights: what is downloaded and takes disk, where it is pulled.
    pub size_bytes: Option<u64>,
    /// Memory that it takes there once it is loaded.
    pub memory_bytes: Option<u64>,
    /// One sentence.
    pub reason: String,
    /// All numbers that it rests on.
    pub evidence: BTreeMap<String, Value>,
    /// What it would bring.
    pub expected_gain: Gain,
    /// What one click does.
    pub action: Action,
    /// What is to be done once that is done; none = nothing.
    pub then: Option<Action>,
}

/// What is under way or promised already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Commitments<'a> {
    /// Nodes that pull now.
    pub pulling: &'a [NodeId],
    /// Models that are pinned to nodes.
    pub pinned: &'a [(NodeId, ModelName)],
}

impl Commitments<'_> {
    fn is_pinned(&self, node: &NodeId, model: &ModelName) -> bool {
        self.pinned.iter().any(|(on, pinned)| on == node && pinned == model)
    }
}

/// What there is to improve, what matters most first. At most [`RECOMMENDATIONS_MAX`]; the same inputs give the same
/// list. A fleet that serves what it is asked for gets none.
#[must_use]
pub fn recommend(inputs: &Inputs<'_>, commitments: &Commitments<'_>) -> Vec<Recommendation> {
    let mut rooms = Rooms::new(inputs, commitments);
    // In this order they get the room there is: what is there stays, then what is missing comes.
    let rules = [rules::keep, rules::relocate, rules::pull, rules::replicate, rules::unload];
    let mut all: Vec<Recommendation> = rules.iter().flat_map(|rule| rule(inputs, commitments, &mut rooms)).collect();
    all.sort_by(|a, b| {
        let by_time = |one: &Recommendation| one.expected_gain.seconds_saved_per_day.unwrap_or(0.0);
        let by_rank = Reverse(a.priority).cmp(&Reverse(b.priority));
        by_rank.then(by_time(b).total_cmp(&by_time(a))).then_with(|| a.id.cmp(&b.id))
    });
    all.truncate(RECOMMENDATIONS_MAX);
    all
}
