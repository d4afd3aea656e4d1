//! Context protection: what a request's context does to the runner that would serve it, and the edits that keep that
//! runner.
//!
//! Ollama reloads a model whenever the effective `num_ctx` differs from the loaded one, smaller ones and absent ones
//! included (measured on 0.33).

use std::fmt;

use crate::fleet::{Model, Node};
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

/// What happens to the context of a request on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextAction {
    /// The runner serves the request as it is.
    Kept,
    /// The request said nothing; the loaded context is filled in.
    Pinned,
    /// The request asked for less; the loaded context is filled in.
    Raised,
    /// Ollama will reload the model.
    Reload,
    /// The model is not loaded, so that there is nothing to protect.
    Load,
}

impl fmt::Display for ContextAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Pinned => "pinned",
            Self::Raised => "raised",
            Self::Reload => "reload",
            Self::Load => "load",
        })
    }
}

/// The context of one request on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextPlan {
    /// What happens.
    pub action: ContextAction,
    /// The `num_ctx` that the node is sent in place of the client's; `None` = the client's words stay.
    pub num_ctx: Option<u64>,
    /// The window that will serve the request, tokens; `None` = not known.
    pub window: Option<u64>,
}

/// Plans the context of `profile` for `model` on `node`.
#[must_use]
pub fn plan(profile: &RequestProfile, node: &Node, model: &Model, mode: Protection) -> ContextPlan {
    let capped = |tokens: u64| model.context_length_max.map_or(tokens, |max| tokens.min(max));
    let default = node.env.context_length.map(capped);
    let asked = profile.num_ctx.map(capped);
    let Some(resident) = &model.resident else {
        return ContextPlan { action: ContextAction::Load, num_ctx: None, window: asked.or(default) };
    };
    let Some(loaded) = resident.context_length else {
        return ContextPlan { action: ContextAction::Kept, num_ctx: None, window: None };
    };
    let kept = ContextPlan { action: ContextAction::Kept, num_ctx: None, window: Some(loaded) };
    let rewritten = |action| ContextPlan { action, num_ctx: Some(loaded), window: Some(loaded) };
    let reload = |window| ContextPlan { action: ContextAction::Reload, num_ctx: None, window };
    let rewrites = mode == Protection::Strip && profile.surface.carries_num_ctx();
    match asked {
        Some(tokens) if tokens == loaded => kept,
        Some(tokens) if tokens < loaded && rewrites => rewritten(ContextAction::Raised),
        Some(tokens) => reload(Some(tokens)),
        None if default == Some(loaded) => kept,
        None if rewrites => rewritten(ContextAction::Pinned),
        None if default.is_some() => reload(default),
        // Without the node's default nobody can tell; the loaded size may well be it.
        None => kept,
    }
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
mod tests {
    use super::*;
    use crate::inspect::{InspectLimits, inspect};
    use crate::request::Surface;
    use crate::splice::splice;
    use crate::testing::{NodeSpec, node};

    #[track_caller]
    fn check(
        mode: Protection,
        surface: Surface,
        asked: &str,
        loaded: Option<u64>,
        expected: (ContextAction, Option<u64>, Option<u64>),
    ) {
        let body = format!("{{\"model\":\"m\",\"options\":{{{asked}}}}}");
        let profile = inspect(surface, body.as_bytes(), &InspectLimits::default()).unwrap();
        let spec = NodeSpec { default_context: Some(4096), train_context: 32_768, ..NodeSpec::default() };
        let spec = if let Some(tokens) = loaded { spec.hot("m", tokens) } else { spec.cold("m") };
        let node = node("n", &spec);
        let plan = plan(&profile, &node, &node.models[0], mode);
        assert_eq!((plan.action, plan.num_ctx, plan.window), expected, "{mode:?} {surface:?} {asked} on {loaded:?}");
    }

    #[test]
    fn a_request_keeps_the_runner_wherever_it_can() {
        use ContextAction::{Kept, Load, Pinned, Raised, Reload};
        use Protection::{Passthrough, Strip, Warn};
        let chat = Surface::OllamaChat;
        let v1 = Surface::OpenAiChat;
        let ctx = "\"num_ctx\":";
        let say = |n: u64| format!("{ctx}{n}");
        check(Strip, chat, "", Some(4096), (Kept, None, Some(4096)));
        check(Strip, chat, "", Some(8192), (Pinned, Some(8192), Some(8192)));
        check(Strip, chat, &say(8192), Some(8192), (Kept, None, Some(8192)));
        check(Strip, chat, &say(2048), Some(8192), (Raised, Some(8192), Some(8192)));
        check(Strip, chat, &say(16_384), Some(8192), (Reload, None, Some(16_384)));
        check(Strip, chat, &say(99_999), Some(32_768), (Kept, None, Some(32_768)));
        check(Strip, chat, "", None, (Load, None, Some(4096)));
        check(Strip, chat, &say(9000), None, (Load, None, Some(9000)));
        check(Strip, Surface::OllamaEmbed, "", Some(8192), (Pinned, Some(8192), Some(8192)));
        for mode in [Warn, Passthrough] {
            check(mode, chat, "", Some(8192), (Reload, None, Some(4096)));
            check(mode, chat, &say(2048), Some(8192), (Reload, None, Some(2048)));
            check(mode, chat, &say(8192), Some(8192), (Kept, None, Some(8192)));
        }
        check(Strip, v1, "", Some(4096), (Kept, None, Some(4096)));
        check(Strip, v1, &say(8192), Some(8192), (Reload, None, Some(4096)));
    }

    #[test]
    fn the_edit_fits_every_form_of_options() {
        let set = |body: &str| {
            let profile = inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap();
            String::from_utf8(splice(body.as_bytes(), &[set_num_ctx(&profile.places, 8192)])).unwrap()
        };
        assert_eq!(set(r#"{"model":"m"}"#), r#"{"options":{"num_ctx":8192},"model":"m"}"#);
        assert_eq!(set(r#" { "model":"m"}"#), r#" {"options":{"num_ctx":8192}, "model":"m"}"#);
        assert_eq!(set(r#"{"model":"m","options":null}"#), r#"{"model":"m","options":{"num_ctx":8192}}"#);
        assert_eq!(set(r#"{"model":"m","options":{}}"#), r#"{"model":"m","options":{"num_ctx":8192}}"#);
        assert_eq!(
            set(r#"{"model":"m","options":{"seed":1}}"#),
            r#"{"model":"m","options":{"num_ctx":8192,"seed":1}}"#
        );
        assert_eq!(set(r#"{"options":{"num_ctx": 5 },"model":"m"}"#), r#"{"options":{"num_ctx": 8192 },"model":"m"}"#);
    }
}
