//! Names for a model at a fixed context, by which surfaces without `num_ctx` reach a runner that has another context
//! than the node's default.
//!
//! `POST /api/create` with `from` and a parameter makes one on a node: a small manifest of the same blob, and so the
//! same runner. Making and removing them is I/O and stands elsewhere; here is what they are called and how one is
//! told.

use std::fmt;

use crate::name::{ModelName, fnv1a};
use crate::splice::json_string;

/// Namespace of all aliases. Nobody publishes there, and an operator sees whose they are.
const NAMESPACE: &str = "herd-alias/";
/// Before the context in the tag.
const TAG_PREFIX: &str = "ctx";
/// Longest model part of a name that Ollama takes, in bytes.
const PART_MAX_BYTES: usize = 80;

/// Which edge made an alias. Edges that share nodes have aliases of their own, so that none takes away another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeMark(pub u32);

impl EdgeMark {
    /// Reads one as it is written; `None` = it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(text, 16).ok().filter(|_| is_plain).map(Self)
    }
}

impl fmt::Display for EdgeMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The alias of `model` at `num_ctx` tokens that the edge `edge` makes; `None` = there is none: the model is an alias itself, or its name is too
/// long for Ollama to take one made of it, or has no letter or digit.
///
/// The alias shows path and tag of the model, and ends in a hash of its name: `herd-alias/me-tiny-2b-1f…:ctx8192-0a1b…`.
#[must_use]
pub fn alias_name(model: &ModelName, num_ctx: u64, edge: EdgeMark) -> Option<ModelName> {
    ModelName::new(&format!("{}:{TAG_PREFIX}{num_ctx}-{edge}", path(model)?)).ok()
}

/// What all aliases of `model` have before their tag.
fn path(model: &ModelName) -> Option<String> {
    let hash = fnv1a(model.as_str().as_bytes());
    let shown: String = model.as_str().chars().map(shown).collect();
    // Ollama's names neither start with a separator nor have two dots in a row.
    let shown = shown.trim_start_matches(['.', '-']).replace("..", "--");
    let part = format!("{shown}-{hash:016x}");
    if shown.is_empty() || part.len() > PART_MAX_BYTES || is_alias(model) {
        return None;
    }
    Some(format!("{NAMESPACE}{part}"))
}

/// What stands for `c` of a model's name: separators and what Ollama's names do not have become dashes.
fn shown(c: char) -> char {
    if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' }
}

/// Whether `name` is one that [`alias_name`] makes.
#[must_use]
pub fn is_alias(name: &ModelName) -> bool {
    alias_context(name).is_some()
}

/// The context of an alias in tokens; `None` = it is no alias.
#[must_use]
pub fn alias_context(name: &ModelName) -> Option<u64> {
    let (_, context, _) = parts(name)?;
    context.parse().ok()
}

/// Path, context and mark of an alias.
fn parts(name: &ModelName) -> Option<(&str, &str, EdgeMark)> {
    let (path, tag) = name.as_str().split_once(':')?;
    let (context, mark) = tag.strip_prefix(TAG_PREFIX)?.split_once('-')?;
    path.starts_with(NAMESPACE).then_some(())?;
    Some((path, context, EdgeMark::parse(mark)?))
}

/// Whether `name` is an alias of `model`, at whatever context and whoever made it.
#[must_use]
pub fn is_alias_of(name: &ModelName, model: &ModelName) -> bool {
    parts(name).is_some_and(|(of, ..)| path(model).as_deref() == Some(of))
}

/// Whether the edge `edge` made the alias `name`.
#[must_use]
pub fn is_made_by(name: &ModelName, edge: EdgeMark) -> bool {
    is_alias(name) && parts(name).is_some_and(|(_, _, mark)| mark == edge)
}

/// The body of the `POST /api/create` that makes `alias` for `model` at `num_ctx` tokens, answered in one piece.
#[must_use]
pub fn create_body(model: &ModelName, alias: &ModelName, num_ctx: u64) -> String {
    let (alias, from) = (json_string(alias.as_str()), json_string(model.as_str()));
    format!("{{\"model\":{alias},\"from\":{from},\"parameters\":{{\"num_ctx\":{num_ctx}}},\"stream\":false}}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EDGE: EdgeMark = EdgeMark(0xa1b2_c3d4);

    fn name(text: &str) -> ModelName {
        ModelName::new(text).unwrap()
    }

    #[track_caller]
    fn check(model: &str, starts: &str) {
        let alias = alias_name(&name(model), 8192, EDGE).unwrap();
        assert!(alias.as_str().starts_with(starts) && alias.as_str().ends_with(":ctx8192-a1b2c3d4"), "{alias}");
        assert_eq!(alias.as_str().len(), starts.len() + 16 + ":ctx8192-a1b2c3d4".len(), "{alias}");
        assert_eq!(alias_context(&alias), Some(8192));
        assert!(is_alias_of(&alias, &name(model)) && !is_alias_of(&alias, &name("other")));
        assert_eq!(alias_name(&alias, 8192, EDGE), None, "no alias of an alias");
    }

    #[test]
    fn an_alias_shows_whose_it_is() {
        check("tiny", "herd-alias/tiny-latest-");
        check("Qwen2.5-Coder:7B", "herd-alias/qwen2.5-coder-7b-");
        check("hf.co/me/m_x-gguf:q4_k_m", "herd-alias/hf.co-me-m_x-gguf-q4_k_m-");
        check("a@b:1", "herd-alias/a-b-1-");
    }

    #[test]
    fn only_aliases_are_taken_for_aliases() {
        for other in [
            "herd-alias/tiny:ctx8192",
            "herd-alias/tiny:ctx8192-a1",
            "tiny",
            "herd-alias/tiny",
            "herd-alias/tiny:ctx",
            "me/tiny:ctx8192",
            "herd-alias/tiny:ctx8k",
        ] {
            assert!(!is_alias(&name(other)), "{other}");
        }
    }

    #[test]
    fn edges_have_aliases_of_their_own() {
        let (own, other) = (alias_name(&name("tiny"), 8192, EDGE), alias_name(&name("tiny"), 8192, EdgeMark(7)));
        let (own, other) = (own.unwrap(), other.unwrap());
        assert!(own != other && is_made_by(&own, EDGE) && !is_made_by(&other, EDGE));
        assert!(is_alias_of(&own, &name("tiny")) && is_alias_of(&other, &name("tiny")));
        assert_eq!(EdgeMark::parse(&EdgeMark(7).to_string()), Some(EdgeMark(7)));
        assert_eq!([EdgeMark::parse("7"), EdgeMark::parse("+0000007"), EdgeMark::parse("0000000g")], [None; 3]);
    }

    #[test]
    fn a_name_that_would_be_too_long_has_none() {
        let fits = name(&"x".repeat(PART_MAX_BYTES - 17 - "-latest".len()));
        assert!(alias_name(&fits, u64::MAX, EDGE).is_some());
        assert_eq!(alias_name(&name(&format!("{}:latest", "x".repeat(57))), 1, EDGE), None);
    }

    #[test]
    fn models_that_look_alike_have_different_aliases() {
        let aliases =
            ["a/b:c", "a-b:c", "a-b-c:latest", "a/b-c:latest", "a:b"].map(|text| alias_name(&name(text), 9, EDGE));
        let distinct: std::collections::BTreeSet<_> = aliases.iter().flatten().collect();
        assert_eq!(distinct.len(), aliases.len());
        assert_ne!(alias_name(&name("a"), 9, EDGE), alias_name(&name("a"), 10, EDGE));
    }

    #[test]
    fn the_body_makes_the_alias() {
        let model = name("tiny");
        let body = create_body(&model, &alias_name(&model, 8192, EDGE).unwrap(), 8192);
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["from"], "tiny:latest");
        assert_eq!(value["model"], alias_name(&model, 8192, EDGE).unwrap().as_str());
        assert_eq!((&value["parameters"]["num_ctx"], &value["stream"]), (&8192.into(), &false.into()));
    }

    proptest! {
        #[test]
        fn every_alias_is_a_name_that_ollama_takes(text in "\\PC{1,80}", num_ctx: u64) {
            let Ok(model) = ModelName::new(&text) else { return Ok(()) };
            let Some(alias) = alias_name(&model, num_ctx, EDGE) else { return Ok(()) };
            let (part, tag) = alias.as_str().strip_prefix(NAMESPACE).unwrap().split_once(':').unwrap();
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            prop_assert!(part.len() <= PART_MAX_BYTES && part.chars().all(allowed) && tag.chars().all(allowed));
            prop_assert!(!part.starts_with(['.', '-']), "{}", part);
            prop_assert!(!part.contains(".."), "{}", part);
        }
    }
}
