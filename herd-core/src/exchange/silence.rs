//! How long a silent node is waited for.
//!
//! Ollama sends nothing at all while a model loads, while a prompt is read and, unless it streams, while the answer is
//! written; nor does it where a stream composes a tool call. So silence alone is no evidence against a node. Three
//! things are: the edge's probe and the agent's heartbeats both stay out; the agent sees the runner, by its slots or by
//! what its process uses of the machine, and the runner does nothing; the agent sees that Ollama answers nobody. A node that shows progress of any kind is never given up.
//!
//! What is known then decides how soon another node is asked, if one is ready; without one, the node is waited for up to
//! the operator's ceiling.

use std::sync::Arc;

use super::{Chooser, Exchange};
use crate::choice::{FleetView, Place};
use crate::estimate::{Prediction, needs_load};
use crate::fleet::{Condition, FleetSnapshot, LifeLimits, Node};
use crate::name::ModelName;
use crate::patience::{self, Evidence, GiveUp, Patience};
use crate::protect::ContextPlan;
use crate::request::RequestProfile;

/// How often a silent node is looked at, milliseconds.
const LOOK_MS: u64 = 1_000;
/// Silence after which a node that answers neither the probe nor sends heartbeats is replaced: two failed probes and
/// their time-outs at the defaults, and half a heartbeat's interval.
pub const UNHEARD_MS: u64 = 2_500;
/// Silence after which a node is replaced whose runner is seen to do nothing: a heartbeat's interval, and what it takes
/// to report.
pub const STOPPED_MS: u64 = 8_000;
/// The same after an answer has begun, when no other node can take over: reading a long tool result between two chunks
/// shows as progress, so that this is generous.
const STOPPED_ANSWER_MS: u64 = 120_000;
/// A report is evidence of no progress only if it was made at least so long after the last progress.
const REPORT_MS: u64 = 1_000;
/// What the way of a report, and an agent's own pace, may add to its interval.
const REPORT_SLACK_MS: u64 = 3_000;
/// Longest prompt, in tokens, that counts as cheap to read again on another node. A judgement: a second or two of a
/// common GPU.
const CHEAP_PROMPT_TOKENS: u64 = 4_096;
/// A judgement that comes so much later than it was due was not due to the node: this process was frozen or starved, and
/// what the node sent meanwhile has not been read yet.
pub const ASLEEP_MS: u64 = 5_000;

/// What is known of the node that is silent, read when it is asked for.
pub trait Signs {
    /// What its model's runner has done; `None` = the node or the model is gone from the fleet.
    fn evidence(&self) -> Option<Evidence>;
    /// What is wrong with the node.
    fn condition(&self) -> Condition;
    /// When its last heartbeat came, on the receiver's clock; `None` = it is gone from the fleet.
    fn heartbeat_at_ms(&self) -> Option<u64>;
    /// How often its agent reports, milliseconds.
    fn heartbeat_interval_ms(&self) -> u64;
    /// Whether a node beside those whose numbers are `tried` has the model in memory and could be sent the request now.
    fn has_alternative(&self, tried: &[u32]) -> bool;
    /// Whether the edge no longer waits for anybody.
    fn stopping(&self) -> bool;
}

/// What one snapshot of a fleet tells of the node that an exchange waits for.
#[derive(Debug)]
pub struct Known<'a, C> {
    snapshot: Arc<FleetSnapshot>,
    life: LifeLimits,
    now_ms: u64,
    /// Its number, and the model that it is asked for.
    asked: Option<(u32, ModelName)>,
    request: Arc<RequestProfile>,
    chooser: &'a C,
    stopping: bool,
}

impl<'a, C: Chooser> Known<'a, C> {
    /// What `fleet` tells now of the node that `exchange` waits for; `chooser` would choose another one. `stopping` says
    /// whether the edge no longer waits for anybody.
    #[must_use]
    pub fn of(exchange: &Exchange, fleet: &impl FleetView, chooser: &'a C, stopping: bool) -> Self {
        let asked = exchange.attempt().map(|attempt| &attempt.choice);
        Self {
            snapshot: fleet.snapshot(),
            life: fleet.policy().life,
            now_ms: fleet.now_ms(),
            asked: asked.map(|choice| (choice.node().number, choice.model.clone())),
            request: Arc::clone(&exchange.request().profile),
            chooser,
            stopping,
        }
    }

    fn node(&self) -> Option<&Node> {
        self.snapshot.by_number(self.asked.as_ref()?.0).map(AsRef::as_ref)
    }
}

impl<C: Chooser> Signs for Known<'_, C> {
    fn evidence(&self) -> Option<Evidence> {
        let (number, model) = self.asked.as_ref()?;
        patience::evidence(&self.snapshot, *number, model)
    }

    fn condition(&self) -> Condition {
        self.node().map_or(Condition::Unreachable, |node| node.condition(self.now_ms, &self.life))
    }

    fn heartbeat_at_ms(&self) -> Option<u64> {
        self.node().map(|node| node.heartbeat_at_ms)
    }

    fn heartbeat_interval_ms(&self) -> u64 {
        self.node().map_or(0, |node| node.heartbeat.interval_ms())
    }

    fn has_alternative(&self, tried: &[u32]) -> bool {
        let decision = self.chooser.look(&self.request, tried, Place::default());
        decision.ready().any(|candidate| candidate.last_resort.is_none() && !needs_load(&candidate.plan))
    }

    fn stopping(&self) -> bool {
        self.stopping
    }
}

/// What to do about a silent node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Look again at [`Silence::due_ms`].
    Wait,
    /// Stop waiting.
    GiveUp(GiveUp),
}

/// How far the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing of it has come.
    Unanswered,
    /// Some of it has come, and the client has none of it yet.
    Held,
    /// The client has a part of it, so that no other node can take over.
    Passing,
}

/// What silence means, from what else is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The host or its Ollama is gone.
    Dead,
    /// Neither the probe nor a heartbeat has been heard since the node fell silent.
    Unheard,
    /// The runner is seen, and does nothing; or Ollama answers nobody.
    Stopped,
    /// Nothing is known against it.
    Unknown,
}

/// The silence of one attempt.
#[derive(Debug, Clone, Copy)]
pub struct Silence {
    stage: Stage,
    /// When the last byte came, or the last sign of progress.
    progress_at_ms: u64,
    due_ms: u64,
    evidence: Evidence,
    /// Predicted time to the first byte; not finite = unknown.
    predicted_ms: f64,
    /// Asking another node costs this one little: the model is in memory, the prompt short, and an answer was due.
    cheap: bool,
}

impl Silence {
    /// The silence of an attempt that begins at `now_ms`, on a node of which `evidence` is known.
    #[must_use]
    pub fn begin(
        profile: &RequestProfile,
        plan: &ContextPlan,
        prediction: &Prediction,
        evidence: Evidence,
        now_ms: u64,
    ) -> Self {
        let whole = !profile.stream;
        let decode_ms = if whole { prediction.decode_ms } else { 0.0 };
        // How long an answer gets is not known beforehand, and without a view of the runner nothing tells that it is
        // being written.
        let may_be_written = whole && evidence.tokens_done.is_none() && evidence.activity.is_none();
        Self {
            stage: Stage::Unanswered,
            progress_at_ms: now_ms,
            due_ms: now_ms + LOOK_MS,
            evidence,
            predicted_ms: prediction.until_answer_ms() + decode_ms,
            cheap: !needs_load(plan) && profile.prompt_tokens <= CHEAP_PROMPT_TOKENS && !may_be_written,
        }
    }

    /// When [`Self::judge`] is to be called next.
    #[must_use]
    pub fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// Notes a byte of the answer.
    pub fn byte(&mut self, stage: Stage, now_ms: u64) {
        self.stage = stage;
        self.progress_at_ms = now_ms;
    }

    /// Judges the silence at `now_ms`. `tried` are the numbers of the nodes that would not be asked instead; `None` = no
    /// other node would be, whatever there is, so that giving this one up early gains nothing.
    pub fn judge(&mut self, signs: &dyn Signs, tried: Option<&[u32]>, patience: &Patience, now_ms: u64) -> Verdict {
        if signs.stopping() {
            return Verdict::GiveUp(GiveUp::Stopping);
        }
        let asleep = now_ms > self.due_ms.saturating_add(ASLEEP_MS);
        let evidence = signs.evidence();
        if asleep || evidence.is_some_and(|evidence| evidence != self.evidence) {
            self.progress_at_ms = now_ms;
        }
        if let Some(heartbeat_at_ms) = signs.heartbeat_at_ms().filter(|_| evidence.is_some_and(|seen| seen.loading)) {
            self.progress_at_ms = self.progress_at_ms.max(heartbeat_at_ms);
        }
        self.evidence = evidence.unwrap_or(self.evidence);
        let silent_ms = now_ms.saturating_sub(self.progress_at_ms);
        let standing = self.standing(signs, now_ms);
        let (replaced_after_ms, ceiling_ms) = self.limits(standing, signs.heartbeat_interval_ms(), patience);
        let replaced_after_ms = replaced_after_ms.filter(|_| self.stage != Stage::Passing);
        let has_alternative = || tried.is_some_and(|tried| signs.has_alternative(tried));
        if silent_ms >= ceiling_ms || replaced_after_ms.is_some_and(|ms| silent_ms >= ms && has_alternative()) {
            return Verdict::GiveUp(self.reason(standing));
        }
        let next_ms = replaced_after_ms.filter(|ms| *ms > silent_ms).unwrap_or(ceiling_ms).min(ceiling_ms);
        self.due_ms = now_ms + next_ms.saturating_sub(silent_ms).clamp(1, LOOK_MS);
        Verdict::Wait
    }

    fn standing(&self, signs: &dyn Signs, now_ms: u64) -> Standing {
        let heartbeat_at_ms = signs.heartbeat_at_ms();
        match signs.condition() {
            Condition::Unreachable | Condition::OllamaDown => Standing::Dead,
            Condition::OllamaHung => Standing::Stopped,
            Condition::ProbeFails if heartbeat_at_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= UNHEARD_MS) => {
                Standing::Unheard
            }
            _ if self.is_seen_idle(heartbeat_at_ms) => Standing::Stopped,
            _ => Standing::Unknown,
        }
    }

    /// Whether the runner is visible, and was seen without progress since the last one.
    fn is_seen_idle(&self, heartbeat_at_ms: Option<u64>) -> bool {
        let reported = heartbeat_at_ms.is_some_and(|at_ms| at_ms >= self.progress_at_ms + REPORT_MS);
        reported && !self.evidence.loading && (self.evidence.tokens_done.is_some() || self.evidence.activity_conclusive)
    }

    /// After which silence another node is asked, if one is ready, and after which none is waited for any more.
    fn limits(&self, standing: Standing, interval_ms: u64, patience: &Patience) -> (Option<u64>, u64) {
        let ceiling_ms = match self.stage {
            Stage::Unanswered => patience.first_byte_ceiling_ms,
            Stage::Held | Stage::Passing => patience.no_progress_ms,
        };
        match standing {
            Standing::Dead => (Some(UNHEARD_MS), patience.dead_node_ms.min(ceiling_ms)),
            Standing::Unheard => (Some(UNHEARD_MS), ceiling_ms),
            Standing::Stopped if self.stage == Stage::Passing => {
                (None, ceiling_ms.min(STOPPED_ANSWER_MS.max(seen_twice_ms(interval_ms))))
            }
            Standing::Stopped => (Some(self.stopped_ms().max(seen_twice_ms(interval_ms))), ceiling_ms),
            Standing::Unknown if self.cheap && self.stage == Stage::Unanswered => (
                Some(bounded(self.predicted_ms * patience.first_byte_factor, patience.first_byte_floor_ms, ceiling_ms)),
                ceiling_ms,
            ),
            Standing::Unknown => (None, ceiling_ms),
        }
    }

    /// Tokens move in steps of a batch of the prompt, so that without a view of the runner's work itself a long prompt
    /// needs its time.
    fn stopped_ms(&self) -> u64 {
        let slack_ms = if self.evidence.activity_conclusive { 0.0 } else { self.predicted_ms * 2.0 };
        bounded(slack_ms, STOPPED_MS, u64::MAX)
    }

    fn reason(&self, standing: Standing) -> GiveUp {
        match (standing, self.stage) {
            (Standing::Dead | Standing::Unheard, _) => GiveUp::NodeDead,
            (_, Stage::Unanswered) => GiveUp::NoFirstByte,
            (_, Stage::Held | Stage::Passing) => GiveUp::NoProgress,
        }
    }
}

/// The silence after which a report came that could have shown the work of a runner since the one before: the first may
/// have been made as the work began.
fn seen_twice_ms(interval_ms: u64) -> u64 {
    interval_ms + REPORT_SLACK_MS
}

/// A predicted time within bounds; one that is no number counts as the least.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two u64")]
fn bounded(ms: f64, least_ms: u64, most_ms: u64) -> u64 {
    ms.max(least_ms as f64).min(most_ms as f64) as u64
}

#[cfg(test)]
mod tests;
