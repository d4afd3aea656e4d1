//! Versions of Ollama and of agents, to be compared.

use std::fmt;

/// A version of three numbers; what follows them (`-rc1`, `+build`) is not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Reads `0.13.3`, `v0.13.3-rc1` or `0.13`; `None` = it is no version, or the `0.0.0` of a development build.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text);
        let numbers = text.split(['-', '+', ' ']).next()?;
        let mut parts = numbers.split('.').map(str::parse::<u32>);
        let major = parts.next()?.ok()?;
        let minor = parts.next()?.ok()?;
        let patch = parts.next().map_or(Some(0), Result::ok)?;
        let version = Self(major, minor, patch);
        (version != Self(0, 0, 0)).then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(u32, u32, u32)>) {
        assert_eq!(Version::parse(text), expected.map(|(a, b, c)| Version(a, b, c)), "{text}");
    }

    #[test]
    fn versions_are_numbers_and_not_text() {
        check("0.13.3", Some((0, 13, 3)));
        check(" v0.30.0-rc1 ", Some((0, 30, 0)));
        check("1.2", Some((1, 2, 0)));
        check("0.9.7+cuda", Some((0, 9, 7)));
        assert!(Version::parse("0.13.3") > Version::parse("0.9.7"));
        for nonsense in ["", "unknown", "1", "a.b.c", "0.0.0", "1.2.x", "99999999999.1.1", "-1.2.3"] {
            check(nonsense, None);
        }
    }
}
