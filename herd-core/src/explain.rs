//! A decision in words and numbers: for the explain endpoint, traces and logs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::decide::{Candidate, Decision, Policy, Question, StandIn};
use crate::eligible::Ineligible;
use crate::fleet::FleetSnapshot;
use crate::protect::ReloadCause;
use crate::request::RequestProfile;

/// What herd would do with a request, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The API it came in on.
    pub surface: &'static str,
    /// The model it asks for, normalised.
    pub requested_model: String,
    /// The model that would serve it.
    pub model: String,
    /// Whether the answer would be streamed.
    pub stream: bool,
    /// `num_ctx` asked for, tokens.
    pub num_ctx: Option<u64>,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u64,
    /// Why that is not the requested one: `alias`, `fallback`, `upgrade`, `vram`; null = it is.
    pub stand_in: Option<&'static str>,
    /// The node that would win; null = none can serve it.
    pub winner: Option<String>,
    /// The node that it would be sent to now; null = it would wait.
    pub goes_to: Option<String>,
    /// Every node, the winner first, the ineligible last.
    pub nodes: Vec<NodeExplanation>,
}

/// One node's part in a decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeExplanation {
    /// Its id.
    pub node_id: String,
    /// Whether it could serve the request.
    pub eligible: bool,
    /// Why not: a short name and a sentence; or why it is used only if no other candidate is eligible.
    pub reason: Option<Reason>,
    /// The sum of the signals; null when ineligible.
    pub score: Option<f64>,
    /// The seven signals in points; empty when ineligible.
    pub signals: BTreeMap<&'static str, f64>,
    /// What it would take there; null when ineligible.
    pub predicted: Option<Predicted>,
    /// Whether it may go there now, `free`, or what it would wait for there; null when ineligible.
    pub readiness: Option<&'static str>,
    /// `kept`, `pinned`, `raised`, `upgraded`, `reload` or `load`; null when ineligible.
    pub context_action: Option<String>,
    /// Why the model would be reloaded; null = it would not.
    pub reload_cause: Option<&'static str>,
    /// The window that would serve it, tokens.
    pub context_length: Option<u64>,
    /// Requests of ours on it.
    pub in_flight: u32,
}

/// A reason with its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Stable, for programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// Predicted times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Predicted {
    /// Until a slot is free.
    pub wait_ms: f64,
    /// Loading the model.
    pub load_ms: f64,
    /// Reading the prompt.
    pub prefill_ms: f64,
    /// Writing the answer.
    pub decode_ms: f64,
    /// What those that run there lose by it, added up; no part of the total.
    pub others_ms: f64,
    /// All of it.
    pub total_ms: f64,
}

/// Decides `profile` without sending it anywhere, comparing all nodes however many there are.
#[must_use]
pub fn explain(snapshot: &FleetSnapshot, profile: &RequestProfile, policy: &Policy, now_ms: u64) -> Explanation {
    let (ahead, waited_ms, draw) = (0, 0, None);
    let decision =
        Question { snapshot, profile, policy, tried: &[], ahead, waited_ms, draw, allow_any_substitute: false, now_ms }
            .decide();
    let id = |index: usize| snapshot.nodes[index].id.to_string();
    let mut nodes: Vec<NodeExplanation> =
        decision.candidates.iter().map(|candidate| eligible(candidate, snapshot)).collect();
    nodes.extend(
        decision
            .refused
            .iter()
            .map(|(index, reason)| ineligible(id(*index), *reason, snapshot.nodes[*index].load.in_flight())),
    );
    Explanation {
        surface: profile.surface.name(),
        requested_model: profile.model.to_string(),
        model: decision.model.to_string(),
        stream: profile.stream,
        num_ctx: profile.num_ctx,
        prompt_tokens: profile.prompt_tokens,
        stand_in: decision.stand_in.map(StandIn::name),
        winner: decision.candidates.first().map(|candidate| id(candidate.node)),
        goes_to: decision.ready().next().map(|candidate| id(candidate.node)),
        nodes,
    }
}

fn eligible(candidate: &Candidate, snapshot: &FleetSnapshot) -> NodeExplanation {
    let prediction = candidate.prediction;
    NodeExplanation {
        node_id: snapshot.nodes[candidate.node].id.to_string(),
        eligible: true,
        reason: candidate
            .last_resort
            .map(|code| Reason { code, message: format!("used only if no other candidate is eligible: {code}") }),
        score: Some(rounded(candidate.total)),
        signals: candidate.score.named().map(|(name, points)| (name, rounded(points))).collect(),
        predicted: Some(Predicted {
            wait_ms: rounded(prediction.wait_ms),
            load_ms: rounded(prediction.load_ms),
            prefill_ms: rounded(prediction.prefill_ms),
            decode_ms: rounded(prediction.decode_ms),
            others_ms: rounded(prediction.others_ms),
            total_ms: rounded(prediction.total_ms()),
        }),
        readiness: Some(candidate.readiness.name()),
        context_action: Some(candidate.plan.action.to_string()),
        reload_cause: candidate.plan.cause.map(ReloadCause::name),
        context_length: candidate.plan.window,
        in_flight: candidate.seen.in_flight,
    }
}

fn ineligible(node_id: String, reason: Ineligible, in_flight: u32) -> NodeExplanation {
    NodeExplanation {
        node_id,
        eligible: false,
        reason: Some(Reason { code: reason.name(), message: reason.to_string() }),
        score: None,
        signals: BTreeMap::new(),
        predicted: None,
        readiness: None,
        context_action: None,
        reload_cause: None,
        context_length: None,
        in_flight,
    }
}

/// Why nobody serves a request, in one line for the client: each reason with its nodes, a few of them.
#[must_use]
pub fn refusal(decision: &Decision, snapshot: &FleetSnapshot) -> String {
    const SHOWN: usize = 5;
    let mut reasons: Vec<String> = decision
        .refused
        .iter()
        .filter(|(_, reason)| *reason != Ineligible::ModelAbsent)
        .map(|(index, reason)| format!("{}: {reason}", snapshot.nodes[*index].id))
        .collect();
    let more = reasons.len().saturating_sub(SHOWN);
    reasons.truncate(SHOWN);
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    reasons.join("; ")
}

/// Three decimals: more is noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{InspectLimits, inspect};
    use crate::load::Claim;
    use crate::request::Surface;
    use crate::testing::{NodeSpec, fleet};

    #[test]
    fn names_every_node_with_its_signals_or_its_reason() {
        let spec = NodeSpec::default();
        let nodes = [("hot", spec.clone().hot("m", 4096)), ("cold", spec.clone().cold("m")), ("none", spec)];
        let snapshot = fleet(&nodes, 0);
        let profile = inspect(Surface::OllamaChat, br#"{"model":"m"}"#, &InspectLimits::default()).unwrap();
        let told = explain(&snapshot, &profile, &Policy::default(), 0);
        assert_eq!(told.winner.as_deref(), Some("hot"));
        let names: Vec<_> = told.nodes.iter().map(|node| (node.node_id.as_str(), node.signals.len())).collect();
        assert_eq!(names, [("hot", 7), ("cold", 7), ("none", 0)]);
        assert_eq!(told.nodes[2].reason.as_ref().unwrap().code, "model_absent");
        let sum: f64 = told.nodes[0].signals.values().sum();
        assert!((sum - told.nodes[0].score.unwrap()).abs() < 0.01);
        assert!(told.nodes[0].signals.values().all(|points| *points != 0.0 || points.is_sign_positive()), "no -0");
        let policy = Policy::default();
        let tried = &[0, 1];
        let decision = Question {
            snapshot: &snapshot,
            profile: &profile,
            policy: &policy,
            tried,
            ahead: 0,
            waited_ms: 0,
            draw: None,
            allow_any_substitute: false,
            now_ms: 0,
        };
        let decision = decision.decide();
        assert_eq!(refusal(&decision, &snapshot), "cold: already tried; hot: already tried");
    }

    #[test]
    fn what_others_lose_is_told_beside_its_own_time() {
        let snapshot = fleet(&[("hot", NodeSpec { slots: Some(2), ..NodeSpec::default() }.hot("m", 4096))], 0);
        let profile = inspect(Surface::OllamaChat, br#"{"model":"m"}"#, &InspectLimits::default()).unwrap();
        let lost_ms = || explain(&snapshot, &profile, &Policy::default(), 0).nodes[0].predicted.map(|p| p.others_ms);
        assert_eq!(lost_ms(), Some(0.0));
        let node = &snapshot.nodes[0];
        let _running = Claim::take(&node.load, &node.models[0].load, 1);
        assert!(lost_ms() > Some(0.0));
    }
}
