//! How long a silent node is waited for, and what counts as a sign that it works.
//!
//! Ollama sends nothing at all while a model loads, while a prompt is read and, unless it streams, while the answer is
//! written. So silence is judged against what was predicted, and a node that shows progress by other means is never
//! given up: its agent reports what its runners have done.

use crate::fleet::FleetSnapshot;
use crate::name::ModelName;

/// Longest wait for a connection to a node, milliseconds, unless the operator says otherwise.
pub const CONNECT_TIMEOUT_MS: u64 = 2_000;

/// Bounds on the waiting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// Shortest wait for the first byte, whatever was predicted.
    pub first_byte_floor_ms: u64,
    /// Longest wait for it without a sign of progress.
    pub first_byte_ceiling_ms: u64,
    /// Predicted times are multiplied by this.
    pub first_byte_factor: f64,
    /// Longest time without progress once an answer has begun.
    pub no_progress_ms: u64,
    /// The same for a node that neither its agent nor the edge's probe can reach, or whose Ollama is known to hang.
    pub dead_node_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_byte_floor_ms: 25_000,
            first_byte_ceiling_ms: 600_000,
            first_byte_factor: 4.0,
            no_progress_ms: 600_000,
            dead_node_ms: 15_000,
        }
    }
}

/// What is known of a model's work on a node, besides the bytes of its answer. Two that differ are a sign of progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Tokens that its runner has read and written for what it runs now; `None` = the node does not report it.
    pub tokens_done: Option<u64>,
    /// It is in memory.
    pub resident: bool,
    /// Its agent sees it being loaded.
    pub loading: bool,
    /// A number that grows with the work of its runner, told by what its processes use; `None` = the node does not report
    /// it.
    pub activity: Option<u64>,
    /// Whether `activity` would show that the runner stands still.
    pub activity_conclusive: bool,
}

words! {
    /// Why a node is no longer waited for.
    pub enum GiveUp {
        /// No first byte, and no sign of progress, for much longer than predicted.
        NoFirstByte = "no_first_byte",
        /// An answer began and then stopped.
        NoProgress = "no_progress",
        /// The node is dead, or its Ollama hangs.
        NodeDead = "node_dead",
        /// An operator ended the request.
        Cancelled = "cancelled",
        /// The edge stops, and no longer waits for anybody.
        Stopping = "stopping",
    }
}

/// What `snapshot` knows of the work of `model` on the node of `number`; `None` = the node or the model is gone.
#[must_use]
pub fn evidence(snapshot: &FleetSnapshot, number: u32, model: &ModelName) -> Option<Evidence> {
    let node = snapshot.by_number(number)?;
    let model = node.model(model)?;
    let tokens_done = model.resident.as_ref().and_then(|resident| resident.tokens_done);
    // A load whose model could not be named may be this one's.
    let is_it = |name: &String| name.is_empty() || ModelName::new(name).is_ok_and(|name| name == model.name);
    let report = node.heartbeat.herd.as_ref();
    let loading = report.is_some_and(|report| report.ollama.loading.iter().any(is_it));
    let runners = || report.iter().flat_map(|report| &report.ollama.activity).filter(|runner| is_it(&runner.model));
    let activity = runners().map(|runner| runner.steps).reduce(u64::wrapping_add);
    let activity_conclusive = activity.is_some() && runners().all(|runner| runner.conclusive);
    Some(Evidence { tokens_done, resident: model.resident.is_some(), loading, activity, activity_conclusive })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Applied, HeartbeatLimits, LifeLimits};
    use crate::testing::{NodeSpec, sender};
    use crate::wire::{OllamaReport, RunnerActivity};

    /// What is known of the model `m` on a node whose Ollama reports so.
    fn seen(report: impl FnOnce(&mut OllamaReport)) -> Evidence {
        let mut heartbeat = NodeSpec::default().cold("m").heartbeat("a", 1);
        if let Some(herd) = &mut heartbeat.herd {
            report(&mut herd.ollama);
        }
        let (life, limits) = (LifeLimits::default(), HeartbeatLimits::default());
        let applied = FleetSnapshot::default().apply(heartbeat, sender(), 0, &life, &limits);
        let Ok(Applied::Changed(snapshot)) = applied else { panic!("{applied:?}") };
        evidence(&snapshot, snapshot.nodes[0].number, &ModelName::new("m").unwrap()).unwrap()
    }

    #[track_caller]
    fn sees_load(loading: &[&str], expected: bool) {
        let seen = seen(|ollama| ollama.loading = loading.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!((seen.loading, seen.resident), (expected, false), "{loading:?}");
    }

    #[track_caller]
    fn sees_activity(runners: &[(&str, u64, bool)], expected: (Option<u64>, bool)) {
        let runner = |(model, steps, conclusive): &(&str, u64, bool)| RunnerActivity {
            model: (*model).to_owned(),
            steps: *steps,
            conclusive: *conclusive,
        };
        let seen = seen(|ollama| ollama.activity = runners.iter().map(runner).collect());
        assert_eq!((seen.activity, seen.activity_conclusive), expected, "{runners:?}");
    }

    #[test]
    fn the_work_of_runners_that_may_be_the_models_is_evidence() {
        sees_activity(&[], (None, false));
        sees_activity(&[("m:latest", 3, true)], (Some(3), true));
        sees_activity(&[("other", 9, true)], (None, false));
        sees_activity(&[("m", 3, true), ("", 4, false), ("other", 9, true)], (Some(7), false));
        sees_activity(&[("m", u64::MAX, true), ("", 2, true)], (Some(1), true));
    }

    #[test]
    fn a_load_that_the_agent_sees_is_evidence_of_work() {
        sees_load(&["m:latest"], true);
        sees_load(&[""], true);
        sees_load(&["other"], false);
        sees_load(&[], false);
    }
}
