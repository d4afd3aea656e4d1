//! Dates of the wall clock, for display and for the order of the catalogue. Written out, as a date library would be
//! more than these few functions.

/// A moment of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    /// Unix seconds.
    pub(crate) seconds: i64,
    /// And so many nanoseconds.
    pub(crate) nanos: u32,
}

/// The wall clock now in RFC 3339, as Ollama writes it.
#[must_use]
pub fn now_rfc3339() -> String {
    rfc3339(herd_store::unix_ms())
}

const DAY_SECONDS: i64 = 86_400;

/// Reads RFC 3339, with any offset and any fraction; `None` = it is not that.
pub(crate) fn parse(text: &str) -> Option<Moment> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let mark = |at: usize, known: &str| text.as_bytes().get(at).is_some_and(|b| known.as_bytes().contains(b));
    if !(mark(4, "-") && mark(7, "-") && mark(10, "Tt ") && mark(13, ":") && mark(16, ":")) {
        return None;
    }
    let days = days_from_civil(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let clock = number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    let (nanos, offset) = fraction(text.get(19..)?)?;
    Some(Moment { seconds: days * DAY_SECONDS + clock - offset_seconds(offset)?, nanos })
}

/// Reads what follows the seconds; returns nanoseconds and the rest.
fn fraction(text: &str) -> Option<(u32, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let shown = &rest[..digits.min(9)];
    let nanos: u32 = format!("{shown:0<9}").parse().ok()?;
    (digits > 0).then_some((nanos, &rest[digits..]))
}

fn offset_seconds(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let sign = match text.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    (hours.len() == 2 && minutes.len() == 2).then_some(())?;
    Some(sign * (i64::from(hours.parse::<u8>().ok()?) * 3600 + i64::from(minutes.parse::<u8>().ok()?) * 60))
}

/// Writes RFC 3339 in UTC with microseconds, as Ollama-compatible clients read it.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    let (year, month, day) = civil_from_days(seconds.div_euclid(DAY_SECONDS));
    let clock = seconds.rem_euclid(DAY_SECONDS);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let millis = unix_ms % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}000Z")
}

/// The day in UTC, as `2026-11-24`.
pub(crate) fn day(unix_seconds: u64) -> String {
    let seconds = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
    let (year, month, day) = civil_from_days(seconds.div_euclid(DAY_SECONDS));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days from 1970-01-01, in the Gregorian calendar extended to all years. Years are counted from March, so that the
/// leap day is the last one: then the days before a month follow from a line through the month's number.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(i64, u32)>) {
        assert_eq!(parse(text).map(|moment| (moment.seconds, moment.nanos)), expected, "{text}");
    }

    #[test]
    fn reads_what_ollama_writes() {
        check("1970-01-01T00:00:00Z", Some((0, 0)));
        check("2026-11-22T12:54:07.621883931Z", Some((1_795_352_047, 621_883_931)));
        check("2026-11-22T05:54:07.5-07:00", Some((1_795_352_047, 500_000_000)));
        check("2000-02-29T23:59:59+00:30", Some((951_868_799 - 1_800, 0)));
        check("0001-01-01T00:00:00Z", Some((-62_135_596_800, 0)));
        check("2318-12-31T00:00:00Z", Some((11_013_235_200, 0)));
        for bad in ["", "now", "2026-11-22", "2026-13-01T00:00:00Z", "2026-11-22T12:54:07", "2026-11-22T12:54:07.Z"] {
            check(bad, None);
        }
        check("2026-11-22T12:54:07+7:00", None);
        check("2026-11-2\u{e9}T12:54:07Z", None);
    }

    #[test]
    fn writes_what_it_reads() {
        assert_eq!(rfc3339(1_795_352_047_621), "2026-11-22T12:54:07.621000Z");
        for day in (0..60_000).step_by(17) {
            let ms = day * 86_400_000 + 3_723_004;
            let moment = parse(&rfc3339(ms)).unwrap();
            assert_eq!((moment.seconds, moment.nanos), (i64::try_from(ms / 1000).unwrap(), 4_000_000));
        }
    }
}
