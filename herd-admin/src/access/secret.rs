//! Secrets of keys, and their digests.

use herd_core::join::JoinSecret;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What every secret begins with, so that scanners of repositories and people know one when they see it.
pub(super) const PREFIX: &str = "herd_";
/// Random bytes of a secret.
const BYTES: usize = 32;
/// How a digest begins in the file.
const ALGORITHM: &str = "sha256:";

/// `N` random bytes of the operating system, in hex.
///
/// # Errors
/// When it has none to give, which no system in working order does.
pub fn random_hex<const N: usize>() -> std::io::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(hex(&bytes))
}

/// A new secret.
pub(super) fn new_secret() -> std::io::Result<String> {
    Ok(format!("{PREFIX}{}", random_hex::<BYTES>()?))
}

/// Whether `text` could be a secret of ours, right or wrong.
pub(super) fn looks_like_one(text: &[u8]) -> bool {
    text.starts_with(PREFIX.as_bytes())
}

/// What is kept of a secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Whether the two are the same, in a time that does not depend on where they differ.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// For proofs that the secret is known; see [`herd_core::join`].
    pub(super) fn for_joining(self) -> JoinSecret {
        JoinSecret::from_digest(self.0)
    }

    /// As it stands in the file.
    pub(super) fn to_text(self) -> String {
        format!("{ALGORITHM}{}", hex(&self.0))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(ALGORITHM)?.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

fn digit(c: u8) -> Option<u8> {
    char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
