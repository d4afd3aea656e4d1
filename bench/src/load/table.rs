//! The result as a table in Markdown.

use std::fmt::Write as _;

use super::rounds::Shown;
use super::samples::median;
use super::scenario::{Goal, Measure, Scenario};
use super::target::Target;

/// All that was measured, one row for each number.
#[must_use]
pub fn table(all: &[(Scenario, Shown)], targets: &[Target]) -> String {
    let columns: Vec<Target> = targets.iter().copied().filter(|target| *target != Target::PingoraAgain).collect();
    let mut text = String::from("| load | measure |");
    for target in &columns {
        write!(text, " {target} |").ok();
    }
    text.push_str(" herd / pingora | goal | pingora / itself |\n| --- | --- |");
    text.push_str(&" --- |".repeat(columns.len() + 3));
    text.push('\n');
    for (scenario, shown) in all {
        for (measure, goal) in scenario.shows {
            row(&mut text, scenario, shown, (*measure, *goal), &columns);
        }
    }
    notes(&mut text, all, targets);
    text
}

fn row(text: &mut String, scenario: &Scenario, shown: &Shown, (measure, goal): (Measure, Goal), columns: &[Target]) {
    write!(text, "| {} |", scenario.about).ok();
    // Writing to a string does not fail.
    let mut cell = |content: &str| write!(text, " {content} |").ok();
    cell(measure.name());
    for target in columns {
        cell(&shown.median(*target, measure).map_or_else(|| "-".to_owned(), short));
    }
    let ratio = median(shown.ratios(Target::Herd, Target::Pingora, measure));
    cell(&ratio.map_or_else(|| "-".to_owned(), |ratio| format!("**{ratio:.2}**")));
    cell(&verdict(goal, ratio, shown.median(Target::Herd, measure)));
    cell(&spread(shown.ratios(Target::PingoraAgain, Target::Pingora, measure)));
    text.push('\n');
}

fn verdict(goal: Goal, ratio: Option<f64>, herd: Option<f64>) -> String {
    let (what, value, met) = match goal {
        Goal::None => return String::new(),
        Goal::AtLeast(least) => (format!("\u{2265} {least:.2}"), ratio, ratio.map(|ratio| ratio >= least)),
        Goal::AtMost(most) => (format!("\u{2264} {most:.2}"), ratio, ratio.map(|ratio| ratio <= most)),
        Goal::Below(most) => (format!("\u{2264} {}", short(most)), herd, herd.map(|herd| herd <= most)),
    };
    let word = match (value, met) {
        (None, _) | (_, None) => "not measured",
        (_, Some(true)) => "met",
        (_, Some(false)) => "missed",
    };
    format!("{what}: {word}")
}

/// The median, and from where to where the rounds lay.
fn spread(ratios: Vec<f64>) -> String {
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    median(ratios).map_or_else(|| "-".to_owned(), |middle| format!("{middle:.2} ({least:.2} to {most:.2})"))
}

/// Three digits that count.
fn short(number: f64) -> String {
    let size = number.abs();
    let digits = if size >= 100.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{number:.digits$}");
    // Thousands apart, as people write them.
    match text.len() {
        length if digits == 0 && size >= 10_000.0 => format!("{},{}", &text[..length - 3], &text[length - 3..]),
        _ => text,
    }
}

fn notes(text: &mut String, all: &[(Scenario, Shown)], targets: &[Target]) {
    for (scenario, shown) in all {
        for target in targets {
            if let (errors @ 1.., first) = shown.errors(*target) {
                writeln!(text, "\n{} at {target}: {errors} errors ({}).", scenario.about, first.unwrap_or("?")).ok();
            }
        }
    }
    text.push_str("\nCPU of herd's threads, µs per request:\n\n");
    for (scenario, shown) in all {
        let threads = shown.threads_us(Target::Herd).into_iter().filter(|(_, us)| *us >= 0.05);
        let threads: Vec<String> = threads.map(|(name, us)| format!("{name} {}", short(us))).collect();
        if !threads.is_empty() {
            writeln!(text, "- {}: {}", scenario.about, threads.join(", ")).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::load::rounds::Seen;
    use crate::load::scenario;

    #[test]
    fn a_row_has_medians_ratio_verdict_and_noise() {
        let seen = |rps: f64| Seen { numbers: BTreeMap::from([(Measure::RequestsPerS, rps)]), ..Seen::default() };
        let round = |pingora, again, herd| {
            BTreeMap::from([
                (Target::Pingora, seen(pingora)),
                (Target::PingoraAgain, seen(again)),
                (Target::Herd, Seen { errors: 2, ..seen(herd) }),
            ])
        };
        let shown = Shown { rounds: vec![round(20_000.0, 21_000.0, 18_000.0)] };
        let scenario = Scenario { shows: &[(Measure::RequestsPerS, Goal::AtLeast(0.95))], ..scenario::ALL[1] };
        let text = table(&[(scenario, shown)], &[Target::Pingora, Target::PingoraAgain, Target::Herd]);
        let row = "| 1 KiB chat, 32 connections | requests/s | 20,000 | 18,000 | **0.90** | ≥ 0.95: missed | 1.05 (1.05 to 1.05) |\n";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("at herd: 2 errors"), "{text}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.123, 12.34, 123.4, 9_999.0, 48_713.2].map(short), ["0.12", "12.3", "123", "9999", "48,713"]);
    }
}
