//! How long a silent node is waited for, and what counts as a sign that it works.
//!
//! Ollama sends nothing at all while a model loads, while a prompt is read and, unless it streams, while the answer is
//! written. So silence is judged against what was predicted, and a node that shows progress by other means is never
//! given up: its agent reports what its runners have done.

use crate::estimate::Prediction;
use crate::fleet::{Condition, FleetSnapshot};
use crate::name::ModelName;

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

/// How often a silent node is looked at, milliseconds.
const LOOK_MS: u64 = 1_000;

/// What is known of a model's work on a node, besides the bytes of its answer. Two that differ are a sign of progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Tokens that its runner has read and written for what it runs now; `None` = the node does not report it.
    pub tokens_done: Option<u64>,
    /// It is in memory.
    pub resident: bool,
    /// Its agent sees it being loaded.
    pub loading: bool,
    /// A number that grows with the work of its runner, whatever that is; `None` = the node does not report it.
    pub activity: Option<u64>,
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

/// What to do about a silent node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Look again after so many milliseconds.
    Wait(u64),
    /// Stop waiting.
    GiveUp(GiveUp),
}

/// One attempt being watched.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    patience: Patience,
    /// Longest silence before the first byte.
    first_byte_ms: u64,
    answered: bool,
    /// When the last byte came, or the last sign of progress.
    progress_at_ms: u64,
    evidence: Option<Evidence>,
}

impl Watch {
    /// Watches an attempt that begins at `now_ms` and was predicted to take `prediction`; `whole` = the answer comes in
    /// one piece, so that its first byte comes when all of it has been written.
    #[must_use]
    pub fn begin(patience: Patience, prediction: &Prediction, whole: bool, evidence: Evidence, now_ms: u64) -> Self {
        let mut predicted_ms = prediction.until_start_ms() + prediction.prefill_ms;
        if whole {
            predicted_ms += prediction.decode_ms;
        }
        let bounded_ms = (predicted_ms * patience.first_byte_factor)
            // In this order a prediction that is no number counts as none.
            .max(patience.first_byte_floor_ms as f64)
            .min(patience.first_byte_ceiling_ms as f64);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two u64")]
        let mut first_byte_ms = bounded_ms as u64;
        if whole && evidence.tokens_done.is_none() {
            // How long an answer gets is not known beforehand, and nothing will tell that it is being written.
            first_byte_ms = patience.first_byte_ceiling_ms;
        }
        Self { patience, first_byte_ms, answered: false, progress_at_ms: now_ms, evidence: Some(evidence) }
    }

    /// Notes a byte of the answer.
    pub fn byte(&mut self, now_ms: u64) {
        self.answered = true;
        self.progress_at_ms = now_ms;
    }

    /// Judges the silence at `now_ms`, with what is known of the node now; `evidence: None` = nothing, as when the node
    /// is gone from the fleet.
    pub fn judge(&mut self, evidence: Option<Evidence>, condition: Condition, now_ms: u64) -> Verdict {
        if evidence.is_some() && evidence != self.evidence {
            self.evidence = evidence;
            self.progress_at_ms = now_ms;
        }
        let silent_ms = now_ms.saturating_sub(self.progress_at_ms);
        let dead = matches!(condition, Condition::Unreachable | Condition::OllamaHung | Condition::OllamaDown);
        let (allowed_ms, reason) = match (dead, self.answered) {
            (true, _) => (self.patience.dead_node_ms, GiveUp::NodeDead),
            (false, true) => (self.patience.no_progress_ms, GiveUp::NoProgress),
            (false, false) => (self.first_byte_ms, GiveUp::NoFirstByte),
        };
        if silent_ms >= allowed_ms {
            return Verdict::GiveUp(reason);
        }
        Verdict::Wait((allowed_ms - silent_ms).min(LOOK_MS))
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
    Some(Evidence { tokens_done, resident: model.resident.is_some(), loading, activity: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Applied, HeartbeatLimits, LifeLimits};
    use crate::testing::{NodeSpec, sender};

    const PATIENCE: Patience = Patience {
        first_byte_floor_ms: 10_000,
        first_byte_ceiling_ms: 100_000,
        first_byte_factor: 4.0,
        no_progress_ms: 20_000,
        dead_node_ms: 5_000,
    };

    fn prediction(load_ms: f64, decode_ms: f64) -> Prediction {
        Prediction { load_ms, decode_ms, ..Prediction::default() }
    }

    fn seen(tokens: u64) -> Evidence {
        Evidence { tokens_done: Some(tokens), resident: true, ..Evidence::default() }
    }

    /// Gives up exactly at `expected` when nothing happens.
    #[track_caller]
    fn check(prediction: Prediction, whole: bool, evidence: Evidence, expected: u64) {
        let watch = Watch::begin(PATIENCE, &prediction, whole, evidence, 0);
        let at = |now_ms| {
            let mut watch = watch;
            watch.judge(Some(evidence), Condition::Well, now_ms)
        };
        assert!(matches!(at(expected - 1), Verdict::Wait(_)), "{:?}", at(expected - 1));
        assert_eq!(at(expected), Verdict::GiveUp(GiveUp::NoFirstByte));
    }

    #[test]
    fn the_first_byte_is_waited_for_as_long_as_was_predicted_within_bounds() {
        let unknown = Evidence::default();
        check(prediction(0.0, 0.0), false, unknown, 10_000);
        check(prediction(10_000.0, 0.0), false, unknown, 40_000);
        check(prediction(1e9, 0.0), false, unknown, 100_000);
        check(prediction(f64::NAN, 0.0), false, unknown, 10_000);
        check(prediction(0.0, 10_000.0), false, seen(0), 10_000);
        check(prediction(0.0, 10_000.0), true, seen(0), 40_000);
        check(prediction(0.0, 10_000.0), true, unknown, 100_000);
    }

    #[test]
    fn progress_of_any_kind_extends_it() {
        let mut watch = Watch::begin(PATIENCE, &prediction(0.0, 0.0), false, seen(0), 0);
        assert_eq!(watch.judge(Some(seen(5)), Condition::Well, 9_999), Verdict::Wait(1_000));
        assert_eq!(watch.judge(Some(seen(5)), Condition::Well, 19_500), Verdict::Wait(499));
        assert_eq!(watch.judge(None, Condition::Well, 19_999), Verdict::GiveUp(GiveUp::NoFirstByte));
        let mut loading = Watch::begin(PATIENCE, &prediction(0.0, 0.0), false, Evidence::default(), 0);
        let loaded = Evidence { resident: true, ..Evidence::default() };
        assert_eq!(loading.judge(Some(loaded), Condition::Well, 9_000), Verdict::Wait(1_000));
        assert!(matches!(loading.judge(Some(loaded), Condition::Well, 18_999), Verdict::Wait(_)));
    }

    #[test]
    fn a_stopped_stream_is_given_up_unless_its_runner_goes_on() {
        let mut watch = Watch::begin(PATIENCE, &prediction(0.0, 0.0), false, seen(0), 0);
        watch.byte(1_000);
        assert!(matches!(watch.judge(Some(seen(0)), Condition::Well, 20_999), Verdict::Wait(1)));
        assert_eq!(watch.judge(Some(seen(0)), Condition::Well, 21_000), Verdict::GiveUp(GiveUp::NoProgress));
        assert_eq!(watch.judge(Some(seen(9)), Condition::Well, 21_000), Verdict::Wait(1_000));
    }

    #[test]
    fn a_dead_node_is_given_up_sooner_and_a_silent_agent_alone_is_not_death() {
        let silent = |condition| {
            let mut watch = Watch::begin(PATIENCE, &prediction(0.0, 0.0), false, seen(0), 0);
            watch.judge(Some(seen(0)), condition, 5_000)
        };
        for condition in [Condition::Unreachable, Condition::OllamaHung, Condition::OllamaDown] {
            assert_eq!(silent(condition), Verdict::GiveUp(GiveUp::NodeDead));
        }
        for condition in [Condition::Well, Condition::AgentSilent, Condition::ProbeFails] {
            assert_eq!(silent(condition), Verdict::Wait(1_000));
        }
    }

    #[track_caller]
    fn sees_load(loading: &[&str], expected: bool) {
        let mut heartbeat = NodeSpec::default().cold("m").heartbeat("a", 1);
        if let Some(report) = &mut heartbeat.herd {
            report.ollama.loading = loading.iter().map(|name| (*name).to_owned()).collect();
        }
        let (life, limits) = (LifeLimits::default(), HeartbeatLimits::default());
        let applied = FleetSnapshot::default().apply(heartbeat, sender(), 0, &life, &limits);
        let Ok(Applied::Changed(snapshot)) = applied else { panic!("{applied:?}") };
        let seen = evidence(&snapshot, snapshot.nodes[0].number, &ModelName::new("m").unwrap()).unwrap();
        assert_eq!((seen.loading, seen.resident), (expected, false), "{loading:?}");
    }

    #[test]
    fn a_load_that_the_agent_sees_is_evidence_of_work() {
        sees_load(&["m:latest"], true);
        sees_load(&[""], true);
        sees_load(&["other"], false);
        sees_load(&[], false);
    }
}
