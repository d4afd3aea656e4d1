//! The seven signals.
//!
//! Common rules: points, higher is better; continuous; finite for any input; a missing input yields a neutral value,
//! never accidentally the best.

use super::Weights;
use crate::estimate::{Prediction, lost_ms, needs_load, warmth};
use crate::protect::{ContextAction, ContextPlan};
use crate::request::RequestProfile;
use crate::spot::Spot;

/// What the signals see of one candidate.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The request.
    pub profile: &'a RequestProfile,
    /// The model on the node.
    pub spot: &'a Spot<'a>,
    /// What happens to the context there.
    pub plan: &'a ContextPlan,
    /// What it would take there.
    pub prediction: &'a Prediction,
    /// What it would take on the node that would be done first of those that must load the model; `None` = there is none.
    pub load_elsewhere: Option<&'a Prediction>,
    /// The least [`Prediction::cost_ms`] of any candidate; `None` = there is no other.
    pub fastest_ms: Option<f64>,
}

/// Share of the thermal weight for a model just unloaded, likely in the page cache.
const WARM_SHARE: f64 = 0.6;
/// Share for a model on disk.
const COLD_SHARE: f64 = 0.2;
/// How late warmth begins to fade as the wait grows; 1 would be linear. A load hurts more than the one request that
/// waits for it (it evicts others), so warmth holds until the wait is most of a load, then falls steeply.
const YIELD_EXPONENT: i32 = 4;

/// Model warmth: hot (in memory, no reload needed), warm (lately unloaded), cold (on disk).
///
/// Warmth is worth the load time it saves. It falls as what is lost by staying here, see [`lost_ms`], nears the time in
/// which another node could load the model and start, and when it gets there, it is so far below zero that an idle cold
/// node that fits wins whatever the other signals say. Range `[-(all other gains), weight]`. No alternative: full warmth.
#[must_use]
pub fn thermal(facts: &Facts<'_>, weights: &Weights) -> f64 {
    let full = weights.thermal;
    if facts.plan.action == ContextAction::Reload {
        // Worse than cold: it takes the runner from those whom it serves, who are likely to take it back.
        return 0.0;
    }
    if needs_load(facts.plan) {
        let share = COLD_SHARE + (WARM_SHARE - COLD_SHARE) * warmth(facts.spot.model, facts.spot.now_ms);
        return full * share;
    }
    let Some(load) = facts.load_elsewhere else { return full };
    let lost_ms = lost_ms(facts.prediction, load);
    let ratio = finite(lost_ms / load.until_start_ms().max(1.0), 1.0).clamp(0.0, 1.0);
    // The cold node may have none of these gains, and a penalty for a window that is too small.
    let others = weights.memory_fit + weights.role_affinity + weights.availability_trend + 2.0 * weights.context_fit;
    full - (full + others) * ratio.powi(YIELD_EXPONENT)
}

/// Headroom after the model is placed. Range `[0, weight]`.
///
/// Resident: the share of it that is in GPU memory. Else: free memory against twice the weights, zero when they just fit.
/// What is not known is neutral: half.
#[must_use]
pub fn memory_fit(facts: &Facts<'_>, weights: &Weights) -> f64 {
    let full = weights.memory_fit;
    let Spot { node, model, .. } = facts.spot;
    if let Some(resident) = &model.resident {
        return match (resident.size_vram_bytes, resident.size_bytes) {
            _ if !node.device.discrete => full,
            (Some(vram), Some(size)) if size > 0 => full * share(vram, size),
            _ => full / 2.0,
        };
    }
    let (Some(size), Some(free)) = (model.size_bytes, node.device.free_bytes) else { return full / 2.0 };
    full * (free as f64 / size.max(1) as f64 - 1.0).clamp(0.0, 1.0)
}

/// Work on the node's device against the slots of the model there: ours in flight and others' as reported.
/// Range `(-weight, 0]`; half of it when all slots are busy. Slots unknown: one, Ollama's default.
#[must_use]
pub fn queue_depth(facts: &Facts<'_>, weights: &Weights) -> f64 {
    let busy = f64::from(facts.spot.occupancy);
    let slots = f64::from(facts.spot.model.slots(&facts.spot.node.env).max(facts.spot.slots));
    -weights.queue_depth * busy / (busy + slots)
}

/// Differences well below this are not more than the error of a prediction, whatever the request takes.
const LATENCY_GRAIN_MS: f64 = 250.0;

/// Expected time of the wait, of the request itself and of the slowdown of others, from what requests really took here,
/// against that of the fastest candidate: how many times as long matters, be it seconds or minutes. Half of the weight for
/// twice as long, three quarters for four times. Range `(-weight, 0]`. Never measured: what such hardware takes for a model
/// of that size, as far as others have shown it, not zero.
#[must_use]
pub fn latency_history(facts: &Facts<'_>, weights: &Weights) -> f64 {
    let grained = |ms: f64| finite(ms, f64::MAX).clamp(0.0, 1e12) + LATENCY_GRAIN_MS;
    let expected_ms = grained(facts.prediction.cost_ms());
    let fastest_ms = facts.fastest_ms.map_or(expected_ms, grained).min(expected_ms);
    -weights.latency_history * (1.0 - fastest_ms / expected_ms)
}

/// Smallest machine of the role scale, bytes of memory for models.
const ROLE_NODE_BYTES: f64 = 8e9;
/// Smallest model of the role scale, bytes of weights: a quarter of the machine it suits best, so that context and
/// neighbours have room.
const ROLE_MODEL_BYTES: f64 = 2e9;
/// How many times as large the largest machine and model of the scale are.
const ROLE_SPAN: f64 = 64.0;
/// Binary logarithm of [`ROLE_SPAN`].
const ROLE_SPAN_LOG2: f64 = 6.0;

/// How well the model's size suits the machine's, both on logarithmic scales: large models to large machines, small
/// ones to small, so that the large machine stays free for what only it can do. Range `[0, weight]`.
/// Unknown size or memory: half.
#[must_use]
pub fn role_affinity(facts: &Facts<'_>, weights: &Weights) -> f64 {
    let (Some(size), Some(memory)) = (facts.spot.model.size_bytes, facts.spot.node.device.total_bytes) else {
        return weights.role_affinity / 2.0;
    };
    let place = |bytes: u64, smallest: f64| (bytes as f64 / smallest).clamp(1.0, ROLE_SPAN);
    // The difference of two logarithms is that of their ratio, and a logarithm is what costs most here.
    let ratio = place(size, ROLE_MODEL_BYTES) / place(memory, ROLE_NODE_BYTES);
    weights.role_affinity * (1.0 - ratio.log2().abs() / ROLE_SPAN_LOG2)
}

/// Fall of the idle share at which [`availability_trend`] gives nothing more.
const FALL_FULL: f64 = 0.3;

/// Whether the node stays available to us. Range `[0, weight]`: full when stable or rising, less as work that is not
/// ours comes. Too early to tell: half.
#[must_use]
pub fn availability_trend(facts: &Facts<'_>, weights: &Weights) -> f64 {
    match facts.spot.node.trend.direction() {
        Some(direction) => weights.availability_trend * (1.0 + direction / FALL_FULL).clamp(0.0, 1.0),
        None => weights.availability_trend / 2.0,
    }
}

/// Whether the window that would serve the request holds the prompt and a reserve for the answer.
/// Range `[-weight, weight]`: zero when it just does, full at twice that, down to the whole weight when it holds half.
/// Unknown window: zero.
#[must_use]
pub fn context_fit(facts: &Facts<'_>, weights: &Weights) -> f64 {
    let (Some(window), needed) = (facts.plan.window, facts.profile.context_needed()) else { return 0.0 };
    if needed == 0 {
        return 0.0;
    }
    let ratio = window as f64 / needed as f64;
    let position = if ratio < 1.0 { 2.0 * (ratio - 1.0) } else { ratio - 1.0 };
    weights.context_fit * position.clamp(-1.0, 1.0)
}

fn share(part: u64, whole: u64) -> f64 {
    (part as f64 / whole as f64).clamp(0.0, 1.0)
}

fn finite(value: f64, otherwise: f64) -> f64 {
    if value.is_finite() { value } else { otherwise }
}
