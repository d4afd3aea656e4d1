//! Reads values that a decision needs, each with its range.

use std::ops::Range;

use super::InspectError;
use super::json::{Kind, Scanner};

/// A whole number or null. Ollama takes `4096.0` for 4096, so do we.
pub(super) fn integer(
    scanner: &mut Scanner<'_>,
    key: &'static str,
) -> Result<(Option<i64>, Range<usize>), InspectError> {
    const WRONG: &str = "an integer";
    let kind = scanner.kind()?;
    let range = scanner.skip()?;
    match kind {
        Kind::Null => Ok((None, range)),
        Kind::Number => {
            let text = std::str::from_utf8(scanner.slice(&range)).unwrap_or_default();
            let whole = text.parse::<i64>().ok().or_else(|| whole_number(text));
            whole.map(|n| (Some(n), range)).ok_or(InspectError::WrongType { key, expected: WRONG })
        }
        _ => Err(InspectError::WrongType { key, expected: WRONG }),
    }
}

fn whole_number(text: &str) -> Option<i64> {
    /// Whole numbers up to here are exact in an `f64`.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = text.parse::<f64>().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and within the exact range")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// A list of strings; null and a single string count as lists of none and one.
pub(super) fn strings(
    scanner: &mut Scanner<'_>,
    key: &'static str,
    limit: usize,
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
        Kind::Array => {
            let mut count = 0;
            scanner.array(|scanner| {
                count += 1;
                if count > limit {
                    return Err(InspectError::TooMuch { key, limit });
                }
                if scanner.kind()? != Kind::String {
                    return Err(wrong.clone());
                }
                let range = scanner.string()?;
                each(&scanner.text(&range))
            })
        }
        _ => Err(wrong),
    }
}
