//! Names that come from outside: model names and node ids, checked once and then trusted.

mod near;
mod spelling;

use std::fmt;

pub use near::nearest;

/// Longest model name, in bytes. Ollama's own names stay far below.
pub const MODEL_NAME_MAX_BYTES: usize = 256;
/// Longest node id, in bytes.
pub const NODE_ID_MAX_BYTES: usize = 64;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
    /// It is too long.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// It has a character that no such name has.
    #[error("has a character that is not allowed: {0:?}")]
    Character(char),
    /// One of its parts is missing or is not as Ollama has it.
    #[error("invalid model name")]
    Invalid,
    /// It says twice where it runs.
    #[error("use either :local or :cloud, not both: {0:?}")]
    Conflict(String),
}

/// A model name as Ollama compares it: lower case, with a tag, without the default host and namespace.
///
/// `Llama3`, `llama3:latest`, `library/llama3` and `registry.ollama.ai/library/llama3:latest` are one model.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(Box<str>);

impl ModelName {
    /// Reads `text` as Ollama reads the name in a request: every spelling that it takes, and no other.
    ///
    /// # Errors
    /// When it is empty, or is no name to Ollama.
    pub fn asked(text: &str) -> Result<Self, NameError> {
        spelling::parse(text).map(|name| Self(name.into()))
    }

    /// Whether Ollama takes it for a model that runs in its cloud, without anything of it on the node: by the tag `cloud`,
    /// or a tag that ends in `-cloud`.
    #[must_use]
    pub fn is_cloud(&self) -> bool {
        spelling::is_cloud(&self.0)
    }

    /// Normalises `text`, which may be any name that a node reports.
    ///
    /// # Errors
    /// When it is empty, longer than [`MODEL_NAME_MAX_BYTES`], or has white space or control characters.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check_length(text, MODEL_NAME_MAX_BYTES)?;
        if let Ok(name) = Self::asked(text) {
            return Ok(name);
        }
        if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(NameError::Character(bad));
        }
        let lower = text.to_lowercase();
        let mut path = lower.as_str();
        // As often as it stands there: what is left is a name, and has one spelling too.
        while let Some(rest) = path.strip_prefix("registry.ollama.ai/").or_else(|| path.strip_prefix("library/")) {
            path = rest;
        }
        if path.is_empty() {
            return Err(NameError::Empty);
        }
        let has_tag = path.rsplit('/').next().is_some_and(|last| last.contains(':'));
        Ok(Self(if has_tag { path.into() } else { format!("{path}:latest").into() }))
    }

    /// The normalised name, with its tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A 64-bit FNV-1a hash of the name: equal names have equal keys, and a fleet has few enough names that a clash
    /// is not to be expected. Comparisons that matter also compare the name.
    #[must_use]
    pub fn key(&self) -> u64 {
        fnv1a(self.0.as_bytes())
    }
}

impl fmt::Debug for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a node: 1 to [`NODE_ID_MAX_BYTES`] letters, digits, `.`, `_` and `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Box<str>);

impl NodeId {
    /// Checks `text`; it is kept as it is.
    ///
    /// # Errors
    /// When it is empty, too long, or has a character outside letters, digits, `.`, `_`, `-`.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check_length(text, NODE_ID_MAX_BYTES)?;
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
            Some(bad) => Err(NameError::Character(bad)),
            None => Ok(Self(text.into())),
        }
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_length(text: &str, max: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        len if len > max => Err(NameError::TooLong(max)),
        _ => Ok(()),
    }
}

/// 64-bit FNV-1a (Fowler, Noll, Vo): offset basis and prime from the authors' description.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(ModelName::new(text).unwrap().as_str(), expected);
    }

    #[test]
    fn names_compare_as_ollama_compares_them() {
        check("tiny", "tiny:latest");
        check("TINY:Latest", "tiny:latest");
        check("library/tiny", "tiny:latest");
        check("registry.ollama.ai/library/tiny:2b", "tiny:2b");
        check("me/tiny", "me/tiny:latest");
        check("localhost:5000/me/tiny", "localhost:5000/me/tiny:latest");
        check("hf.co/Org/Model-GGUF:Q4_K_M", "hf.co/org/model-gguf:q4_k_m");
    }

    #[test]
    fn a_reported_name_that_is_none_to_ollama_is_kept() {
        check("<b>X</b>", "<b>x</b>:latest");
        check("a/b/c/d/e:1", "a/b/c/d/e:1");
        check("@cf/meta/llama", "@cf/meta/llama:latest");
    }

    #[test]
    fn hostile_names_are_refused() {
        assert_eq!(ModelName::new(""), Err(NameError::Empty));
        assert_eq!(ModelName::new("library/"), Err(NameError::Empty));
        assert_eq!(ModelName::new("a b"), Err(NameError::Character(' ')));
        assert_eq!(ModelName::new("a\u{7}"), Err(NameError::Character('\u{7}')));
        assert_eq!(ModelName::new(&"x".repeat(257)), Err(NameError::TooLong(256)));
        assert_eq!(NodeId::new("<script>"), Err(NameError::Character('<')));
        assert_eq!(NodeId::new("a/b"), Err(NameError::Character('/')));
        assert!(NodeId::new("studio-1.local").is_ok());
    }
}
