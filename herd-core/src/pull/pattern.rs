//! Patterns of model names.

use std::fmt;

use crate::name::{MODEL_NAME_MAX_BYTES, ModelName, NameError};

/// A pattern of normalised model names, in which `*` stands for any characters, none included.
///
/// Without a `*` it is one name, and like any bare name it means `:latest`. Two kinds of names are never matched by a
/// `*` alone, as pulling them reaches further than a model of the default registry does:
/// - a name with a registry host of its own (`hf.co/org/model`) needs a pattern that begins with that host, since
///   otherwise anybody who may ask for a model could make a node call any address;
/// - a cloud model (a tag that is `cloud` or ends in `-cloud`) needs a pattern that ends in `cloud`, since it runs on
///   somebody else's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Every name of the default registry.
    #[must_use]
    pub fn any() -> Self {
        Self("*".into())
    }

    /// Normalises `text` as names are.
    ///
    /// # Errors
    /// When it is empty, longer than a name may be, or has white space or control characters.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if !text.contains('*') {
            return ModelName::new(text).map(|name| Self(name.as_str().into()));
        }
        if text.len() > MODEL_NAME_MAX_BYTES {
            return Err(NameError::TooLong(MODEL_NAME_MAX_BYTES));
        }
        if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(NameError::Character(bad));
        }
        let lower = text.to_lowercase();
        let path = lower.strip_prefix("registry.ollama.ai/").unwrap_or(&lower);
        let path = path.strip_prefix("library/").unwrap_or(path);
        if path.is_empty() {
            return Err(NameError::Empty);
        }
        Ok(Self(path.into()))
    }

    /// The normalised pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` is one of those meant. Takes time in proportion to the lengths of both.
    #[must_use]
    pub fn matches(&self, name: &ModelName) -> bool {
        let literal_start = self.0.split('*').next().unwrap_or_default();
        let host_is_meant = host(name.as_str()).is_none_or(|host| literal_start.starts_with(host));
        let cloud_is_meant = !name.is_cloud() || self.0.ends_with("cloud");
        host_is_meant && cloud_is_meant && glob(&self.0, name.as_str())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The registry of a normalised name, with the `/` after it; `None` = the default one. Ollama takes the first of three
/// parts as a host, and a scheme before it makes yet more parts.
fn host(name: &str) -> Option<&str> {
    let mut slashes = name.match_indices('/').map(|(index, _)| index);
    let (first, _second) = (slashes.next()?, slashes.next()?);
    Some(&name[..=first])
}

/// The pieces between the stars are looked for one after the other, each at its first place: that is never worse than a
/// later one, so nothing is tried twice.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        let Some((_, after)) = text.split_once(piece) else { return false };
        text = after;
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, name: &str, expected: bool) {
        let pattern = Pattern::new(pattern).unwrap();
        assert_eq!(pattern.matches(&ModelName::new(name).unwrap()), expected, "{pattern} {name}");
    }

    #[test]
    fn stars_stand_for_anything() {
        check("*", "tiny", true);
        check("*", "me/tiny:7b", true);
        check("tiny", "Tiny:latest", true);
        check("tiny", "tiny:7b", false);
        check("tiny*", "tiny:7b", true);
        check("library/tiny:*", "tiny:7b", true);
        check("tiny:*", "tinyllama:7b", false);
        check("*:7b", "tiny:7b", true);
        check("*:7b", "tiny:7b-q8_0", false);
        check("q*n*:*b", "qwen2.5:32b", true);
        check("q*n*:*b", "qwen2.5:32b-q8", false);
        check("ab*ba", "aba:latest", false);
        check("a*aa*", "aa:latest", false);
        check("a**t", "a:latest", true);
        check("me/*", "you/tiny", false);
    }

    #[test]
    fn a_foreign_registry_must_be_meant() {
        check("*", "hf.co/org/model:q4", false);
        check("*", "192.168.1.1:80/x/y", false);
        check("*", "http://evil.example/x/y", false);
        check("h*", "hf.co/org/model:q4", false);
        check("hf.co/*", "hf.co/org/model:q4", true);
        check("hf.co/*", "hf.co.evil.example/org/model:q4", false);
        check("hf.co/org/model:q4", "hf.co/Org/Model:Q4", true);
    }

    #[test]
    fn a_cloud_model_must_be_meant() {
        check("*", "gpt-oss:120b-cloud", false);
        check("*", "glm:cloud", false);
        check("*cloud", "glm:cloud", true);
        check("gpt-oss:120b-cloud", "gpt-oss:120b-cloud", true);
        check("*", "cloud:7b", true);
    }

    #[test]
    fn hostile_patterns_are_refused_or_cheap() {
        assert_eq!(Pattern::new(""), Err(NameError::Empty));
        assert_eq!(Pattern::new("* x"), Err(NameError::Character(' ')));
        assert_eq!(Pattern::new(&"*".repeat(257)), Err(NameError::TooLong(256)));
        check(&"*a".repeat(128), &"a".repeat(240), false);
    }
}
