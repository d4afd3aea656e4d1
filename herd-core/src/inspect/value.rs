//! Reads values that a decision needs, each with its range.

use std::ops::Range;

use super::InspectError;
use super::json::{JsonError, Kind, Scanner};

/// A whole number or null. Ollama takes `4096.0` for 4096, so do we.
pub(super) fn integer(
    scanner: &mut Scanner<'_>,
    key: &'static str,
) -> Result<(Option<i64>, Range<usize>), InspectError> {
    let kind = scanner.kind()?;
    let (whole, range) = integer_or_none(scanner)?;
    if whole.is_some() || kind == Kind::Null {
        Ok((whole, range))
    } else {
        Err(InspectError::WrongType { key, expected: "an integer" })
    }
}

/// A whole number; `None` for anything else, which is the backend's to refuse.
pub(super) fn integer_or_none(scanner: &mut Scanner<'_>) -> Result<(Option<i64>, Range<usize>), JsonError> {
    let kind = scanner.kind()?;
    let range = scanner.skip()?;
    if kind != Kind::Number {
        return Ok((None, range));
    }
    let text = std::str::from_utf8(scanner.slice(&range)).unwrap_or_default();
    Ok((text.parse::<i64>().ok().or_else(|| whole_number(text)), range))
}

fn whole_number(text: &str) -> Option<i64> {
    /// Whole numbers up to here are exact in an `f64`.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = text.parse::<f64>().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and within the exact range")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// A boolean or null.
pub(super) fn boolean(
    scanner: &mut Scanner<'_>,
    key: &'static str,
) -> Result<(Option<bool>, Range<usize>), InspectError> {
    let kind = scanner.kind()?;
    let (told, range) = boolean_or_none(scanner)?;
    if told.is_some() || kind == Kind::Null {
        Ok((told, range))
    } else {
        Err(InspectError::WrongType { key, expected: "a boolean" })
    }
}

/// A boolean; `None` for anything else, which is the backend's to refuse.
pub(super) fn boolean_or_none(scanner: &mut Scanner<'_>) -> Result<(Option<bool>, Range<usize>), JsonError> {
    let kind = scanner.kind()?;
    let range = scanner.skip()?;
    Ok(((kind == Kind::Bool).then(|| range.len() == "true".len()), range))
}

/// Whether the value in `range` is a list with something in it, or a string that is not empty.
pub(super) fn has_content(scanner: &Scanner<'_>, range: &Range<usize>) -> bool {
    match scanner.slice(range) {
        [b'[', inside @ .., b']'] => !inside.iter().all(u8::is_ascii_whitespace),
        [b'"', inside @ .., b'"'] => !inside.is_empty(),
        _ => false,
    }
}

/// Whether `keep_alive` says that a model is unloaded at once: zero as a number of seconds, or as a duration of Go.
pub(super) fn is_no_time(value: &[u8]) -> bool {
    let text = std::str::from_utf8(value).unwrap_or_default();
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        None => text.parse::<f64>().is_ok_and(|seconds| seconds == 0.0),
        Some(duration) => is_zero_duration(duration.trim_start_matches(['+', '-'])),
    }
}

/// Numbers that are all zero, each with a unit; `0` alone needs none.
fn is_zero_duration(text: &str) -> bool {
    const UNITS: [&str; 8] = ["ns", "us", "\u{b5}s", "\u{3bc}s", "ms", "s", "m", "h"];
    if text == "0" {
        return true;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(['0', '.']);
        let known = UNITS.iter().find(|known| {
            let after = unit.strip_prefix(**known);
            after.is_some_and(|after| !after.starts_with(|c: char| c.is_alphabetic()))
        });
        match known {
            Some(known) if unit.len() < rest.len() => rest = &unit[known.len()..],
            _ => return false,
        }
    }
    !text.is_empty()
}

/// A list of strings; null and a single string count as lists of none and one.
pub(super) fn strings(
    scanner: &mut Scanner<'_>,
    key: &'static str,
    mut each: impl FnMut(&str) -> Result<(), InspectError>,
) -> Result<Range<usize>, InspectError> {
    let wrong = InspectError::WrongType { key, expected: "an array of strings" };
    match scanner.kind()? {
        Kind::Null => Ok(scanner.skip()?),
        Kind::String => {
            let range = scanner.string()?;
            each(&scanner.text(&range))?;
            Ok(range)
        }
        Kind::Array => scanner.array(|scanner| {
            if scanner.kind()? != Kind::String {
                return Err(wrong.clone());
            }
            let range = scanner.string()?;
            each(&scanner.text(&range))
        }),
        _ => Err(wrong),
    }
}

/// What only labels a request: a string or a number, cut to `max_bytes`; `None` = neither, or empty.
pub(super) fn label(scanner: &mut Scanner<'_>, max_bytes: usize) -> Result<(Option<String>, Range<usize>), JsonError> {
    let kind = scanner.kind()?;
    let range = scanner.skip()?;
    let text = match kind {
        Kind::String => scanner.text(&range),
        Kind::Number => String::from_utf8_lossy(scanner.slice(&range)),
        _ => return Ok((None, range)),
    };
    let text = &text[..text.floor_char_boundary(max_bytes)];
    Ok(((!text.is_empty()).then(|| text.to_owned()), range))
}

/// A list of labels, `count_max` of them at the most, or one; what else it is has none.
pub(super) fn labels(
    scanner: &mut Scanner<'_>,
    count_max: usize,
    max_bytes: usize,
) -> Result<(Vec<String>, Range<usize>), JsonError> {
    let mut all = Vec::new();
    let mut each = |scanner: &mut Scanner<'_>| {
        let (one, range) = label(scanner, max_bytes)?;
        all.extend(one.filter(|_| all.len() < count_max));
        Ok::<_, JsonError>(range)
    };
    let range = match scanner.kind()? {
        Kind::Array => scanner.array(|scanner| each(scanner).map(drop))?,
        _ => each(scanner)?,
    };
    Ok((all, range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_told_in_many_ways() {
        for none in ["0", "0.0", "-0", "0e5", "\"0\"", "\"0s\"", "\"0m0s\"", "\"0h\"", "\"-0ms\"", "\"0.0s\""] {
            assert!(is_no_time(none.as_bytes()), "{none}");
        }
        for some in [
            "1",
            "-1",
            "0.5",
            "null",
            "true",
            "\"\"",
            "\"5m\"",
            "\"0x\"",
            "\"s\"",
            "\"0s1ms\"",
            "\"00\"",
            "[]",
            "\"-1\"",
        ] {
            assert!(!is_no_time(some.as_bytes()), "{some}");
        }
    }
}
