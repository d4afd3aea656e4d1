//! Context protection: what a request's context does to the runner that would serve it, and the edits that keep that
//! runner.
//!
//! Ollama reloads a model whenever the effective `num_ctx` differs from the loaded one, smaller ones and absent ones
//! included, and whenever the options differ that it launches runners with (measured on 0.33).

use std::fmt;

use crate::fleet::{Model, Node};
use crate::launch::{Signature, SpeedOptions};
use crate::request::{Places, RequestProfile};
use crate::splice::Edit;

/// What herd does about a client's `num_ctx`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protection {
    /// Rewrite it so that the loaded runner serves the request.
    #[default]
    Strip,
    /// Forward it unchanged, and say what it does.
    Warn,
    /// Forward it unchanged.
    Passthrough,
}

impl Protection {
    /// Every mode with its name in the configuration.
    pub const NAMES: [(&'static str, Self); 3] =
        [("strip", Self::Strip), ("warn", Self::Warn), ("passthrough", Self::Passthrough)];
}

/// When an alias is made for a request that cannot say a context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AliasUse {
    /// Never: the request runs at the node's default, and the model is reloaded for it.
    #[default]
    Never,
    /// Where the request would otherwise reload a runner that is in memory.
    WhereNeeded,
    /// Wherever the node's default is not known to be what is loaded.
    Always,
}

impl AliasUse {
    /// All of them with their names in the configuration.
    pub const NAMES: [(&'static str, Self); 3] =
        [("auto", Self::WhereNeeded), ("alias", Self::Always), ("default", Self::Never)];
}

/// What may be done to a request to keep a runner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mode {
    /// What is done about its context.
    pub protection: Protection,
    /// What is done about its options of speed.
    pub speed: SpeedOptions,
}

impl From<Protection> for Mode {
    fn from(protection: Protection) -> Self {
        Self { protection, speed: SpeedOptions::Honour }
    }
}

words! {
    /// What happens to the context of a request on one node.
    #[derive(Default)]
    pub enum ContextAction {
        /// The runner serves the request as it is.
        #[default]
        Kept = "kept",
        /// The request said nothing; the loaded context is filled in.
        Pinned = "pinned",
        /// The request asked for less; the loaded context is filled in.
        Raised = "raised",
        /// Ollama will reload the model.
        Reload = "reload",
        /// The model is not loaded, so that there is nothing to protect.
        Load = "load",
        /// A larger model that has the context loaded serves the request. [`plan`] never says so: it is about one model.
        Upgraded = "upgraded",
    }
}

impl ContextAction {
    /// Whether the model is loaded for the request, or loaded anew.
    #[must_use]
    pub const fn needs_load(self) -> bool {
        match self {
            Self::Load | Self::Reload => true,
            Self::Kept | Self::Pinned | Self::Raised | Self::Upgraded => false,
        }
    }
}

words! {
    /// Why Ollama will reload a model that is loaded.
    pub enum ReloadCause {
        /// In `strip`: the request asks for more context than is loaded, the one difference that cannot be rewritten.
        ContextLarger = "context_larger",
        /// In the other modes: the request asks for another context than is loaded, and its words are forwarded.
        ContextDiffers = "context_differs",
        /// The request says nothing that Ollama reads, so that it takes the node's default, and that is not what is
        /// loaded.
        NodeDefault = "node_default",
        /// The request's launch options differ from those of the runner, whatever the context.
        LaunchOptions = "launch_options",
    }
}

/// The context of one request on one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContextPlan {
    /// What happens.
    pub action: ContextAction,
    /// The `num_ctx` that the node is sent in place of the client's; `None` = the client's words stay.
    pub num_ctx: Option<u64>,
    /// The window that will serve the request, tokens; `None` = not known.
    pub window: Option<u64>,
    /// The context of the alias that the node is to be asked for in place of the model, because the request itself cannot
    /// say it; `None` = it is asked for the model.
    pub alias: Option<u64>,
    /// Why the model is reloaded; `None` unless the action is [`ContextAction::Reload`].
    pub cause: Option<ReloadCause>,
    /// The node is sent the options of speed that its runner has, in place of the client's.
    pub keeps_speed: bool,
}

/// Smallest context that Ollama gives a model: it raises anything below, negative numbers included.
const CONTEXT_MIN: u64 = 4;
/// Smallest context that Ollama gives a model with vision.
const VISION_CONTEXT_MIN: u64 = 2048;

/// The context that a runner of `model` gets when `tokens` are asked for: at least Ollama's floor, at most what the
/// model was trained with. An unknown training context does not cap; unknown capabilities count as without vision.
#[must_use]
pub fn effective_context(tokens: u64, model: &Model) -> u64 {
    let floor = if model.capabilities.has("vision") == Some(true) { VISION_CONTEXT_MIN } else { CONTEXT_MIN };
    model.context_length_max.unwrap_or(u64::MAX).min(tokens.max(floor))
}

/// The largest batch that Ollama gives a model which only embeds: as large as its context, but for this.
const EMBED_BATCH_MAX: u64 = 2_048;
/// The least context that Ollama gives a model unasked, and so what is taken where a node does not tell.
const DEFAULT_CONTEXT_MIN: u64 = 4_096;
/// Contexts that Ollama gives a model unasked, by the memory of its GPUs: the first below 23 GiB and without one, the
/// second below 47 GiB (0.15.5 and later).
const DEFAULT_CONTEXTS: [u64; 3] = [DEFAULT_CONTEXT_MIN, 32_768, 262_144];
const GIB: u64 = 1 << 30;

/// Whether `model` does nothing but embed. For such Ollama derives `num_batch` from the context that is asked for, before
/// it is capped to what the model was trained with, so that another number for the same context reloads it.
fn only_embeds(model: &Model) -> bool {
    model.capabilities.has("embedding") == Some(true) && model.capabilities.has("completion") != Some(true)
}

/// The context that a request without one asks for, before it is capped; `None` = the node does not tell.
fn unasked(node: &Node, model: &Model) -> Option<u64> {
    Some(model.details.num_ctx).filter(|tokens| *tokens > 0).or(node.env.context_length)
}

/// Whether a runner of `model` with a context of `loaded` may be what the node starts unasked, where it does not tell what
/// that is.
fn may_be_default(loaded: u64, node: &Node, model: &Model) -> bool {
    let report = node.heartbeat.herd.as_ref();
    let without_gpu = report.is_some_and(|report| report.gpus.is_empty());
    let known = match node.device.total_bytes {
        _ if without_gpu => Some(DEFAULT_CONTEXTS[0]),
        Some(bytes) if node.device.discrete => Some(match bytes / GIB {
            0..23 => DEFAULT_CONTEXTS[0],
            23..47 => DEFAULT_CONTEXTS[1],
            _ => DEFAULT_CONTEXTS[2],
        }),
        // How much of a shared memory counts is Ollama's to say.
        _ => None,
    };
    let mut possible = DEFAULT_CONTEXTS.into_iter().filter(|tokens| known.is_none_or(|known| known == *tokens));
    possible.any(|tokens| effective_context(tokens, model) == loaded)
}

/// What a request for `tokens` of context, before they are capped, makes of `wanted` on `model`: the batch that Ollama
/// derives. The largest one is what a request gets that says nothing.
fn with_derived_batch(wanted: Signature, tokens: u64, model: &Model) -> Signature {
    if !only_embeds(model) {
        return wanted;
    }
    let derived = wanted.num_batch().or(i64::try_from(tokens.min(EMBED_BATCH_MAX)).ok());
    wanted.with_batch(derived.filter(|batch| batch.cast_unsigned() != EMBED_BATCH_MAX))
}

/// The launch options that a runner has after `profile` was sent under `plan` to `node`.
#[must_use]
pub fn sent_launch(profile: &RequestProfile, node: &Node, model: &Model, plan: &ContextPlan) -> Signature {
    let runner = model.load.launched().unwrap_or_default();
    let wanted = if plan.keeps_speed { profile.launch.at_speed_of(runner) } else { profile.launch };
    let tokens = plan.num_ctx.or(profile.num_ctx).or(unasked(node, model)).unwrap_or(DEFAULT_CONTEXT_MIN);
    with_derived_batch(wanted, tokens, model)
}

/// Plans the context of `profile` for `model` on `node`.
///
/// `launched` is what the runner was launched with; `None` = not known, taken for a launch without options. A node
/// that does not tell its default context is taken to have loaded the model at it, so that what cannot say a context
/// is planned as kept. A runner whose context is not known is taken to be kept.
#[must_use]
pub fn plan(
    profile: &RequestProfile,
    node: &Node,
    model: &Model,
    launched: Option<Signature>,
    mode: impl Into<Mode>,
) -> ContextPlan {
    let mode: Mode = mode.into();
    let rewrites = mode.protection == Protection::Strip && profile.surface.carries_num_ctx();
    let unasked = unasked(node, model).or(only_embeds(model).then_some(DEFAULT_CONTEXT_MIN));
    let sizes = Sizes {
        asked: profile.num_ctx.map(|tokens| effective_context(tokens, model)),
        default: unasked.map(|tokens| effective_context(tokens, model)),
        rewrites,
    };
    if model.remote {
        return sizes.unchanged(ContextAction::Kept);
    }
    let Some(resident) = &model.resident else { return sizes.unchanged(ContextAction::Load) };
    let runner = launched.unwrap_or_default();
    let keeps = rewrites && mode.speed == SpeedOptions::Keep;
    let wanted = if keeps { profile.launch.at_speed_of(runner) } else { profile.launch };
    let keeps_speed = wanted != profile.launch;
    let plan = if only_embeds(model) {
        let tokens = profile.num_ctx.or(unasked).unwrap_or(DEFAULT_CONTEXT_MIN);
        embedder(profile, model, (launched, wanted), tokens, sizes, mode.protection)
    } else {
        let relaunches = Signature::reloads(runner, wanted);
        beside(resident.context_length, relaunches, sizes, mode.protection)
    };
    ContextPlan { keeps_speed, ..plan }
}

/// The plan beside a runner with a context of `loaded`, which is launched anew whatever the context if `relaunches`.
fn beside(loaded: Option<u64>, relaunches: bool, sizes: Sizes, mode: Protection) -> ContextPlan {
    match loaded {
        None if relaunches => reload(sizes.unchanged(ContextAction::Reload), ReloadCause::LaunchOptions),
        // Where the request or the node says a size, that is the window either way: kept or reloaded to it.
        None => sizes.unchanged(ContextAction::Kept),
        Some(loaded) if relaunches => reload(sizes.relaunched(loaded), ReloadCause::LaunchOptions),
        Some(loaded) => sizes.beside(loaded, mode),
    }
}

/// The plan for a model that only embeds, whose batch follows from the context that is asked for: `tokens`, before they
/// are capped. Where the client's words lead to the runner that is there they stay; else a number is sent that does.
fn embedder(
    profile: &RequestProfile,
    model: &Model,
    (launched, wanted): (Option<Signature>, Signature),
    tokens: u64,
    sizes: Sizes,
    mode: Protection,
) -> ContextPlan {
    let loaded = model.resident.as_ref().and_then(|resident| resident.context_length);
    let Some(loaded) = loaded else { return beside(None, false, sizes, mode) };
    // One that others started has the batch of its own context, or the largest where that is all it can have.
    let whole = model.context_length_max == Some(loaded);
    let guessed = || with_derived_batch(Signature::DEFAULT, if whole { EMBED_BATCH_MAX } else { loaded }, model);
    let runner = launched.unwrap_or_else(guessed);
    let own = sizes.asked.or(sizes.default).unwrap_or(loaded);
    if own == loaded && !Signature::reloads(runner, with_derived_batch(wanted, tokens, model)) {
        return ContextPlan { window: Some(loaded), ..sizes.unchanged(ContextAction::Kept) };
    }
    let batch = runner.num_batch().map_or(EMBED_BATCH_MAX, i64::cast_unsigned);
    let sent = if batch == EMBED_BATCH_MAX { loaded.max(EMBED_BATCH_MAX) } else { batch };
    let leads_there = effective_context(sent, model) == loaded
        && !Signature::reloads(runner, with_derived_batch(wanted, sent, model));
    // More is asked for than is loaded only where the model could have more.
    if sizes.rewrites && leads_there && (own <= loaded || profile.num_ctx.is_none()) {
        let action = if profile.num_ctx.is_some() { ContextAction::Raised } else { ContextAction::Pinned };
        return ContextPlan { window: Some(loaded), ..Sizes::rewritten(action, sent) };
    }
    beside(Some(loaded), own == loaded, sizes, mode)
}

impl ContextPlan {
    /// The plan where an alias may be made: a request that cannot say a context keeps the runner by asking for an alias
    /// that has it.
    #[must_use]
    pub fn by_alias(self, profile: &RequestProfile, node: &Node, model: &Model, wanted: AliasUse) -> Self {
        let loaded = model.resident.as_ref().and_then(|resident| resident.context_length);
        let (Some(loaded), false) = (loaded, profile.surface.carries_num_ctx()) else { return self };
        let unsure = self.action == ContextAction::Kept && unasked(node, model).is_none() && !only_embeds(model);
        let reloads = self.cause == Some(ReloadCause::NodeDefault);
        let needed = match wanted {
            AliasUse::Never => false,
            AliasUse::WhereNeeded => reloads || (unsure && !may_be_default(loaded, node, model)),
            AliasUse::Always => reloads || unsure,
        };
        if !needed {
            return self;
        }
        let (action, window) = (ContextAction::Pinned, Some(loaded));
        Self { action, num_ctx: None, window, alias: Some(loaded), cause: None, keeps_speed: false }
    }
}

fn reload(plan: ContextPlan, cause: ReloadCause) -> ContextPlan {
    ContextPlan { action: ContextAction::Reload, cause: Some(cause), ..plan }
}

/// The contexts of one request on one node, as Ollama would give them, in tokens.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Asked for by the client.
    asked: Option<u64>,
    /// Taken where nothing is asked for.
    default: Option<u64>,
    /// Whether the client's words may be replaced.
    rewrites: bool,
}

impl Sizes {
    /// The client's words stay, and decide the window.
    fn unchanged(self, action: ContextAction) -> ContextPlan {
        ContextPlan { action, window: self.asked.or(self.default), ..ContextPlan::default() }
    }

    /// The node is sent `window` in place of the client's words.
    fn rewritten(action: ContextAction, window: u64) -> ContextPlan {
        ContextPlan { action, num_ctx: Some(window), window: Some(window), ..ContextPlan::default() }
    }

    /// A reload that happens anyway: it must not shrink the context that others use.
    fn relaunched(self, loaded: u64) -> ContextPlan {
        let suits = match self.asked {
            Some(tokens) => tokens >= loaded,
            None => self.default == Some(loaded),
        };
        if self.rewrites && !suits {
            return Self::rewritten(ContextAction::Reload, loaded);
        }
        self.unchanged(ContextAction::Reload)
    }

    /// The runner could serve the request, if the context were `loaded`.
    fn beside(self, loaded: u64, mode: Protection) -> ContextPlan {
        let kept = ContextPlan { window: Some(loaded), ..self.unchanged(ContextAction::Kept) };
        let unchanged = self.unchanged(ContextAction::Reload);
        match self.asked {
            Some(tokens) if tokens == loaded => kept,
            Some(tokens) if tokens < loaded && self.rewrites => Self::rewritten(ContextAction::Raised, loaded),
            Some(_) if mode == Protection::Strip => reload(unchanged, ReloadCause::ContextLarger),
            Some(_) => reload(unchanged, ReloadCause::ContextDiffers),
            None if self.default == Some(loaded) => kept,
            None if self.rewrites => Self::rewritten(ContextAction::Pinned, loaded),
            None if self.default.is_some() => reload(unchanged, ReloadCause::NodeDefault),
            None => kept,
        }
    }
}

/// A prompt that the window serving it does not hold: Ollama cuts it and answers 200 all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow {
    /// Estimated tokens that the window would have to hold at once.
    pub estimated_tokens: u64,
    /// The window, tokens.
    pub context_length: u64,
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "estimated_tokens={}; context_length={}", self.estimated_tokens, self.context_length)
    }
}

/// Whether the prompt of `profile` is too long for `window` tokens, the room for an answer not counted; an unknown
/// window is taken to hold it. Of an embedding request the longest input counts, because each is embedded alone.
#[must_use]
pub fn overflow(profile: &RequestProfile, window: Option<u64>) -> Option<Overflow> {
    let (estimated_tokens, context_length) = (profile.tokens_at_once, window?);
    (estimated_tokens > context_length).then_some(Overflow { estimated_tokens, context_length })
}

/// The edits that make a body say `options`: names with their values in JSON.
#[must_use]
pub fn set_options(places: &Places, options: &[(&str, String)]) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut missing = Vec::new();
    for (name, value) in options {
        let before = edits.len();
        let standing = places.options.iter().filter(|(known, _)| known == name);
        edits.extend(standing.map(|(_, range)| Edit { range: range.clone(), text: value.clone() }));
        // What is not there need not be said to be nothing.
        if edits.len() == before && value != "null" {
            missing.push(format!("\"{name}\":{value}"));
        }
    }
    if missing.is_empty() {
        return edits;
    }
    let members = missing.join(",");
    edits.push(match (&places.options_null, places.options_start) {
        (Some(range), _) => Edit { range: range.clone(), text: format!("{{{members}}}") },
        (None, Some((at, has_members))) => Edit::insert(at, format!("{members}{}", if has_members { "," } else { "" })),
        // A body has at least the member `model`, so that a comma always belongs here.
        (None, None) => Edit::insert(places.start, format!("\"options\":{{{members}}},")),
    });
    edits
}

#[cfg(test)]
mod tests;
