//! Context protection: what a request's context does to the runner that would serve it, and the edits that keep that
//! runner.
//!
//! Ollama reloads a model whenever the effective `num_ctx` differs from the loaded one, smaller ones and absent ones
//! included, and whenever the options differ that it launches runners with (measured on 0.33).

use std::fmt;

use crate::fleet::{Model, Node};
use crate::launch::Signature;
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
    mode: Protection,
) -> ContextPlan {
    let sizes = Sizes {
        asked: profile.num_ctx.map(|tokens| effective_context(tokens, model)),
        default: node.env.context_length.map(|tokens| effective_context(tokens, model)),
        rewrites: mode == Protection::Strip && profile.surface.carries_num_ctx(),
    };
    if model.remote {
        return sizes.unchanged(ContextAction::Kept);
    }
    let Some(resident) = &model.resident else { return sizes.unchanged(ContextAction::Load) };
    let relaunches = Signature::reloads(launched.unwrap_or_default(), profile.launch);
    match resident.context_length {
        None if relaunches => reload(sizes.unchanged(ContextAction::Reload), ReloadCause::LaunchOptions),
        // Where the request or the node says a size, that is the window either way: kept or reloaded to it.
        None => sizes.unchanged(ContextAction::Kept),
        Some(loaded) if relaunches => reload(sizes.relaunched(loaded), ReloadCause::LaunchOptions),
        Some(loaded) => sizes.beside(loaded, mode),
    }
}

impl ContextPlan {
    /// The plan where an alias may be made: a request that cannot say a context keeps the runner by asking for an alias
    /// that has it, wherever the node's default is another or not known.
    #[must_use]
    pub fn by_alias(self, profile: &RequestProfile, node: &Node, model: &Model) -> Self {
        let loaded = model.resident.as_ref().and_then(|resident| resident.context_length);
        let (Some(loaded), false) = (loaded, profile.surface.carries_num_ctx()) else { return self };
        let unsure = self.action == ContextAction::Kept && node.env.context_length.is_none();
        if self.cause != Some(ReloadCause::NodeDefault) && !unsure {
            return self;
        }
        let (action, window) = (ContextAction::Pinned, Some(loaded));
        Self { action, num_ctx: None, window, alias: Some(loaded), cause: None }
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
        ContextPlan { action, num_ctx: None, window: self.asked.or(self.default), alias: None, cause: None }
    }

    /// The node is sent `window` in place of the client's words.
    fn rewritten(action: ContextAction, window: u64) -> ContextPlan {
        ContextPlan { action, num_ctx: Some(window), window: Some(window), alias: None, cause: None }
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

/// The edit that makes a body say `num_ctx`.
#[must_use]
pub fn set_num_ctx(places: &Places, num_ctx: u64) -> Edit {
    let replace = |range: &std::ops::Range<usize>, text| Edit { range: range.clone(), text };
    if let Some(range) = &places.num_ctx {
        return replace(range, num_ctx.to_string());
    }
    if let Some(range) = &places.options_null {
        return replace(range, format!("{{\"num_ctx\":{num_ctx}}}"));
    }
    match places.options_start {
        Some((at, has_members)) => {
            Edit::insert(at, format!("\"num_ctx\":{num_ctx}{}", if has_members { "," } else { "" }))
        }
        // A body has at least the member `model`, so that a comma always belongs here.
        None => Edit::insert(places.start, format!("\"options\":{{\"num_ctx\":{num_ctx}}},")),
    }
}

#[cfg(test)]
mod tests;
