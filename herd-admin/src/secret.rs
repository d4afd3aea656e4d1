//! Strings that must not leak.

use std::fmt;

use herd_core::join::JoinSecret;
use subtle::ConstantTimeEq as _;

use http::HeaderValue;

/// A token that callers show. Its text is in no log, and comparing it takes the same time whatever is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Whether `shown` is this secret. An empty one is shown by nobody, so that an unset variable opens no door.
    ///
    /// The length may leak through time; the content does not.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        let own = self.0.as_bytes();
        !own.is_empty() && own.ct_eq(shown).into()
    }

    /// Its text, for whoever it is shown to.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// For proofs that it is known; see [`herd_core::join`].
    pub(crate) fn for_joining(&self) -> JoinSecret {
        JoinSecret::of(&self.0)
    }

    /// As the value of a header that is not shown in logs either; `None` = it is empty, or cannot be one.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.0).ok().filter(|value| !value.is_empty())?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_text_is_the_secret() {
        let secret = Secret::from("s3cret");
        assert!(secret.is(b"s3cret"));
        for shown in ["", "s3cre", "s3cret ", "S3cret", "s3creT"] {
            assert!(!secret.is(shown.as_bytes()), "{shown:?}");
        }
        assert!(!Secret::from("").is(b""));
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
