//! How long a request would take on a node: `wait + load + prefill + decode`, from what was measured there, else from
//! what such hardware does with a model of that size.

use std::sync::Arc;

use crate::fleet::{Model, Node};
use crate::load::{Loading, Work};
use crate::protect::{ContextAction, ContextPlan};
use crate::request::{RequestProfile, Task};
use crate::spot::{Spot, runner_occupancy};

/// Size that a model of unknown size is taken to have: a 14B model at four bits, large enough not to win by it.
pub const ASSUMED_MODEL_BYTES: u64 = 9_000_000_000;
/// Bandwidth in GB/s of a device that does not tell it: a laptop's, so that the unknown is not taken for the best.
pub const ASSUMED_BANDWIDTH_GBPS: f64 = 100.0;
/// Share of the memory bandwidth that decoding reaches. Decoding reads all weights once per token.
const BANDWIDTH_EFFICIENCY: f64 = 0.6;
/// Prompt tokens processed in the time of one decoded token. Prefill is bound by arithmetic, not by memory.
const PREFILL_SPEEDUP: f64 = 20.0;
/// What each further request of a batch adds to a token of all, as a share of it. Measured with llama.cpp it is between a
/// twentieth on large GPUs and a quarter on laptops, at the batches that Ollama has.
const BATCH_COST: f64 = 0.1;
/// Tokens of an answer of unknown length.
const ASSUMED_OUTPUT_TOKENS: u64 = 200;
/// Reading weights from disk, bytes per second: a common `NVMe` drive with the cost of setting up.
const COLD_LOAD_BYTES_PER_S: f64 = 1.5e9;
/// Reading weights from the page cache, bytes per second.
const WARM_LOAD_BYTES_PER_S: f64 = 6e9;
/// Starting a runner, whatever its size.
const LOAD_OVERHEAD_MS: f64 = 500.0;
/// How far from what such hardware is taken to need a pace can be: beyond, what the hardware is said to be is wrong.
const PACE_MAX: f64 = 1_000.0;
/// How long after its unloading a model is taken to be in the page cache, at most.
pub const WARM_MS: u64 = 1_800_000;

/// What is usual for a model over all nodes that have it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usual {
    /// Tokens of an answer: a node's own last few tell more of chance than of it, and what chance tells must not send a
    /// request past an idle node. `None` = never measured.
    pub tokens: Option<f64>,
    /// What a token takes where that was measured, against what such hardware is taken to need, so that a node that was
    /// never measured is judged by the others and neither shunned nor preferred for a guess. `None` = never measured.
    pub pace: Option<f64>,
}

impl Usual {
    /// What the nodes that have the model, given with it, have shown.
    #[must_use]
    pub fn of<'a>(everywhere: impl Iterator<Item = (&'a Node, &'a Model)>) -> Self {
        let (mut tokens, mut paces) = ((0.0, 0.0), (0.0, 0.0));
        for (node, model) in everywhere {
            if let Some(measured) = model.load.output_tokens() {
                tokens = (tokens.0 + measured, tokens.1 + 1.0);
            }
            if let Some(measured) = model.load.decode_ms_per_token() {
                paces = (paces.0 + measured / token_ms(node, model).max(f64::MIN_POSITIVE), paces.1 + 1.0);
            }
        }
        let mean = |(sum, count): (f64, f64)| Some(sum / count).filter(|mean: &f64| mean.is_finite());
        let pace = mean(paces).map(|pace| pace.clamp(1.0 / PACE_MAX, PACE_MAX));
        Self { tokens: mean(tokens), pace }
    }
}

/// What one token of one answer takes on such hardware, milliseconds.
fn token_ms(node: &Node, model: &Model) -> f64 {
    let bytes = model.size_bytes.unwrap_or(ASSUMED_MODEL_BYTES) as f64;
    let bandwidth = node.bandwidth_gbps.unwrap_or(ASSUMED_BANDWIDTH_GBPS).max(1.0) * 1e9;
    bytes / (bandwidth * BANDWIDTH_EFFICIENCY) * 1e3
}

/// How long a request would take, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prediction {
    /// Until a slot is free.
    pub wait_ms: f64,
    /// Loading or reloading the model.
    pub load_ms: f64,
    /// Reading the prompt.
    pub prefill_ms: f64,
    /// Writing the answer.
    pub decode_ms: f64,
    /// What those that run there lose by it, added up: no part of its own time.
    pub others_ms: f64,
}

impl Prediction {
    /// From now to the last byte.
    #[must_use]
    pub fn total_ms(&self) -> f64 {
        self.until_answer_ms() + self.decode_ms
    }

    /// From now until the answer begins.
    #[must_use]
    pub fn until_answer_ms(&self) -> f64 {
        self.until_start_ms() + self.prefill_ms
    }

    /// The request itself: prompt and answer.
    #[must_use]
    pub fn run_ms(&self) -> f64 {
        self.prefill_ms + self.decode_ms
    }

    /// What it costs all, but for a load: the wait, the request itself, and the slowdown imposed on concurrent requests. Who chooses by its own
    /// time alone goes where it slows down the most, as long as it is itself slowed down a little less.
    #[must_use]
    pub fn cost_ms(&self) -> f64 {
        self.wait_ms + self.run_ms() + self.others_ms
    }

    /// From now until the model reads the prompt.
    #[must_use]
    pub fn until_start_ms(&self) -> f64 {
        self.wait_ms + self.load_ms
    }
}

/// Predicts `profile` at `spot`, with `plan` for its context, when nobody waits at the edge before it.
///
/// `usual` is what is usual for the model over all nodes, see [`Usual::of`]; it stands in for what the node has not shown.
#[must_use]
pub fn predict(profile: &RequestProfile, spot: &Spot<'_>, plan: &ContextPlan, usual: Usual) -> Prediction {
    let new_tokens = new_tokens(profile, profile.prompt_tokens, spot.model, plan, spot.slots);
    let (prefill_ms, decode_ms) = run_ms(profile, spot.node, spot.model, usual, new_tokens);
    // Where all that runs is on the model's own runner, which is nearly everywhere, the others need not be looked at.
    let alone = spot.occupancy == spot.runner_occupancy;
    let sharing = if alone { 1.0 } else { sharing(spot.node, spot.model) };
    let beside = spot.runner_occupancy.min(spot.slots.saturating_sub(1));
    let others_ms = others_ms(spot, beside, (prefill_ms, decode_ms));
    let (prefill_ms, decode_ms) = (prefill_ms * sharing, decode_ms * sharing * batch(beside));
    let is_awaited = |load: Loading| load.model == spot.model.key && !load.is_overdue(spot.now_ms);
    // A load that is under way is waited for, not done again; of one that does not end, nothing is known.
    let loads = needs_load(plan) && !spot.loading.is_some_and(is_awaited);
    let load_ms = if loads { load_ms(spot.model, spot.now_ms) } else { 0.0 };
    let wait_ms = wait_ms(spot, plan, prefill_ms + decode_ms);
    Prediction { wait_ms, load_ms, prefill_ms, decode_ms, others_ms }
}

/// How many times as long something must be predicted to take before that counts: predictions of two nodes are right
/// within a factor of two or so.
pub const SLOWER_BY: f64 = 2.0;

/// What is lost by serving a request `here`, where the model is in memory, and not where it must be `loaded`: the wait, what
/// the request takes longer itself beyond the error of predictions, be it that the machine is slow or crowded, and what
/// others lose more by it. What it would take longer there, however little, is gained.
#[must_use]
pub fn lost_ms(here: &Prediction, loaded: &Prediction) -> f64 {
    let longer_ms = (here.run_ms() - SLOWER_BY * loaded.run_ms()).max(0.0);
    let shorter_ms = (loaded.run_ms() - here.run_ms()).max(0.0);
    here.wait_ms + longer_ms - shorter_ms + (here.others_ms - loaded.others_ms).max(0.0)
}

/// Whether the model must be loaded or reloaded before it can serve.
#[must_use]
pub fn needs_load(plan: &ContextPlan) -> bool {
    plan.action.needs_load()
}

/// How many times as long everything takes because other runners of the device work: they take turns.
fn sharing(node: &Node, model: &Model) -> f64 {
    let other = |other: &Model| other.key != model.key && !Arc::ptr_eq(&other.load, &model.load);
    let working = node.runners().filter(|(one, _)| other(one) && runner_occupancy(one) > 0).count();
    1.0 + working as f64
}

/// How many times as long a token takes in a batch with so many others.
fn batch(beside: u32) -> f64 {
    1.0 + BATCH_COST * f64::from(beside)
}

/// What those that run on the device lose, added up, by a request that alone takes so long to read and to write.
///
/// Those in its batch wait while its prompt is read, and each of its tokens slows theirs. Where its runner was idle, that
/// takes turns from the other runners as long as the request is worked on; a runner that works has its turns already.
fn others_ms(spot: &Spot<'_>, beside: u32, (prefill_ms, decode_ms): (f64, f64)) -> f64 {
    let (held_up, each_ms) = match spot.runner_occupancy {
        0 => (spot.occupancy, prefill_ms + decode_ms),
        _ => (beside, prefill_ms + BATCH_COST * decode_ms),
    };
    // Nobody loses nothing, whatever the time is: it may be infinite.
    if held_up == 0 { 0.0 } else { f64::from(held_up) * each_ms }
}

/// Tokens of a prompt of `prompt_tokens` that `model` must read: those that it has not in the cache of a slot, from the
/// same conversation. A runner that is loaded first has none.
fn new_tokens(profile: &RequestProfile, prompt_tokens: u64, model: &Model, plan: &ContextPlan, slots: u32) -> u64 {
    let known = profile.conversation.filter(|_| !needs_load(plan));
    let cached = known.map_or(0, |conversation| model.load.cached_tokens(conversation, slots));
    prompt_tokens.saturating_sub(cached).max(prompt_tokens.min(1))
}

/// What `work` on `model` of `node` would have taken alone, judged by what runs there as it ends, itself included: so
/// that a rate that was learned in a crowd does not tell against a node that is idle now. Of a prompt only what had to be
/// read counts; one that was cached for the most part tells nothing of the speed of reading.
#[must_use]
pub fn alone(profile: &RequestProfile, node: &Node, model: &Model, plan: &ContextPlan, work: &Work) -> Work {
    let slots = model.slots(&node.env);
    let read = |tokens: u64| new_tokens(profile, tokens, model, plan, slots);
    let told = |(tokens, ms): (u64, f64)| Some((read(tokens), ms)).filter(|(read, _)| *read > tokens / 2);
    let sharing = sharing(node, model);
    let batch = batch(runner_occupancy(model).saturating_sub(1));
    Work {
        load_ms: work.load_ms,
        prefill: work.prefill.and_then(told).map(|(tokens, ms)| (tokens, ms / sharing)),
        decode: work.decode.map(|(tokens, ms)| (tokens, ms / sharing / batch)),
    }
}

/// Loading `model` on a node where it is not resident, in milliseconds: as measured there, else from its size.
#[must_use]
pub fn load_ms(model: &Model, now_ms: u64) -> f64 {
    if let Some(measured) = model.load.load_ms() {
        return measured;
    }
    let bytes = model.size_bytes.unwrap_or(ASSUMED_MODEL_BYTES) as f64;
    let warm = model.resident.is_some() || warmth(model, now_ms) > 0.0;
    let rate = if warm { WARM_LOAD_BYTES_PER_S } else { COLD_LOAD_BYTES_PER_S };
    LOAD_OVERHEAD_MS + bytes / rate * 1e3
}

/// How likely a model that is not resident is still in the page cache: 1 right after its unloading, falling to 0.
#[must_use]
pub fn warmth(model: &Model, now_ms: u64) -> f64 {
    model.unloaded_at_ms.map_or(0.0, |at| 1.0 - now_ms.saturating_sub(at).min(WARM_MS) as f64 / WARM_MS as f64)
}

/// What the request itself takes, prompt and answer: from the rates learned here; else from the p75 of whole requests,
/// split as the hardware would; else from what such hardware does.
fn run_ms(profile: &RequestProfile, node: &Node, model: &Model, usual: Usual, new_tokens: u64) -> (f64, f64) {
    let token_ms = token_ms(node, model) * usual.pace.unwrap_or(1.0);
    let load = &model.load;
    let prefill_rate = load.prefill_ms_per_token().unwrap_or(token_ms / PREFILL_SPEEDUP);
    let prefill_ms = new_tokens as f64 * prefill_rate;
    let decode_ms = output_tokens(profile, usual.tokens) * load.decode_ms_per_token().unwrap_or(token_ms);
    match (load.decode_ms_per_token(), load.p75_ms()) {
        (None, Some(p75_ms)) => (prefill_ms.min(p75_ms), (p75_ms - prefill_ms).max(0.0)),
        _ => (prefill_ms, decode_ms),
    }
}

/// Tokens that the answer is taken to have: as answers have had, at most what the request allows.
fn output_tokens(profile: &RequestProfile, usual_tokens: Option<f64>) -> f64 {
    if profile.surface.task() == Task::Embedding {
        return 0.0;
    }
    match (profile.max_output_tokens.map(|limit| limit as f64), usual_tokens) {
        (Some(limit), Some(usual)) => limit.min(usual),
        // A limit says little above what answers usually have.
        (Some(limit), None) => limit.min(ASSUMED_OUTPUT_TOKENS as f64 * 4.0),
        (None, usual) => usual.unwrap_or(ASSUMED_OUTPUT_TOKENS as f64),
    }
}

fn wait_ms(spot: &Spot<'_>, plan: &ContextPlan, service_ms: f64) -> f64 {
    // Ollama loads one model at a time, and serves those in memory meanwhile.
    let loading = spot.loading.filter(|load| load.model == spot.model.key || needs_load(plan));
    let until_loaded = loading.map_or(0.0, |load| load.until_ms.saturating_sub(spot.now_ms) as f64);
    let beyond_slots = spot.occupancy.saturating_add(1).saturating_sub(spot.slots);
    let ahead = match plan.action {
        // A reload waits for everything that runs on the runner.
        ContextAction::Reload => beyond_slots.max(spot.runner_occupancy),
        _ => beyond_slots,
    };
    let pause = spot.model.load.backs_off_for_ms(spot.now_ms) as f64;
    until_loaded.max(pause) + queue_ms(f64::from(ahead), spot.slots, service_ms)
}

/// Until `ahead` requests of `service_ms` each have left room in `slots`.
fn queue_ms(ahead: f64, slots: u32, service_ms: f64) -> f64 {
    if ahead <= 0.0 {
        return 0.0;
    }
    // What runs has run for a while: on average half of it is left.
    (ahead - 0.5) / f64::from(slots.max(1)) * service_ms
}

#[cfg(test)]
mod tests;
