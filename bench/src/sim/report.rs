//! The report: Markdown with tables, and plots beside it.

mod verdict;

use std::io;
use std::path::Path;

use super::matrix::{Cell, Plan};
use super::metrics::Summary;
use super::policy::{PEER, PolicySpec};
use super::svg::{self, Bar, Curve, Hue, seconds};
use super::workload::Workload;

/// What `herd-simulate validate` has found, if it was run; taken into the report.
pub(crate) const VALIDATION: &str = "validation.md";

/// The report of a whole plan.
pub(crate) struct Report<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) cells: &'a [Vec<Cell>],
}

impl Report<'_> {
    /// The Markdown; plots are named as files beside it.
    pub(crate) fn markdown(&self, validation: Option<&str>) -> String {
        let mut text = include_str!("report/head.md").to_owned();
        let seeds = &self.plan.seeds;
        let first = seeds.first().copied().unwrap_or_default();
        putln!(text, "\nSeeds {first} to {}.\n", first + seeds.len().saturating_sub(1) as u64);
        self.verdicts(&mut text);
        if let Some(validation) = validation {
            text.push('\n');
            text.push_str(validation);
        }
        text.push_str("\n## Workloads\n");
        for (workload, row) in self.plan.workloads.iter().zip(self.cells) {
            self.workload(&mut text, workload, row);
        }
        text
    }

    /// Writes the report and its plots into `folder`.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let validation = std::fs::read_to_string(folder.join(VALIDATION)).ok();
        std::fs::write(folder.join("README.md"), self.markdown(validation.as_deref()))?;
        for (workload, row) in self.plan.workloads.iter().zip(self.cells) {
            std::fs::write(folder.join(format!("{}.svg", workload.name)), self.bars(workload, row))?;
            std::fs::write(folder.join(format!("{}-curves.svg", workload.name)), self.curves(workload, row))?;
        }
        Ok(())
    }

    fn workload(&self, text: &mut String, workload: &Workload, row: &[Cell]) {
        let size = row.first().and_then(|cell| cell.first()).map_or(0, |summary| summary.requests);
        let bound = row.first().map_or(0.0, |cell| mean_of(cell, |summary| summary.bound_ms));
        putln!(text, "\n### {}\n\n{}.", workload.name, sentence(workload.about));
        putln!(text, "{size} requests; no policy can have a mean below {} s.\n", seconds(bound / 1e3));
        text.push_str(
            "| policy | mean s | p50 | p95 | p99 s | first byte mean | p95 | p99 | loads | reloads (avoidable) \
             | utilisation | fairness | failures | retries | mean / bound |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for (policy, cell) in self.plan.policies.iter().zip(row) {
            text.push_str(&line(policy, cell));
        }
        putln!(text, "\n![Means and 99th percentiles]({0}.svg)\n\n![Curves]({0}-curves.svg)", workload.name);
    }

    fn bars(&self, workload: &Workload, row: &[Cell]) -> String {
        let bars: Vec<Bar> = self
            .plan
            .policies
            .iter()
            .zip(row)
            .map(|(policy, cell)| Bar {
                name: policy.name.to_owned(),
                hue: hue(policy),
                mean: spread(cell, |summary| summary.completion.mean / 1e3),
                p99: spread(cell, |summary| summary.completion.p99 / 1e3),
            })
            .collect();
        let bound = row.first().map_or(0.0, |cell| mean_of(cell, |summary| summary.bound_ms));
        svg::bars(&format!("{}: completion, mean (dark) and p99 (light)", workload.name), &bars, bound / 1e3)
    }

    fn curves(&self, workload: &Workload, row: &[Cell]) -> String {
        const OTHERS: [&str; 5] = ["#5b6b8c", "#8c6f2a", "#7d4f8a", "#3c8c8c", "#8a93a0"];
        let mut shown: Vec<usize> = (0..row.len()).collect();
        // herd and the peer, then the best of the others.
        shown.sort_by(|a, b| {
            let key = |place: &usize| {
                let own = matches!(hue(self.plan.policies[*place]), Hue::Other);
                (own, mean_of(&row[*place], |summary| summary.completion.mean))
            };
            let ((own_a, mean_a), (own_b, mean_b)) = (key(a), key(b));
            own_a.cmp(&own_b).then(mean_a.total_cmp(&mean_b))
        });
        let mut others = OTHERS.iter();
        let curves: Vec<Curve> = shown
            .into_iter()
            .take(6)
            .map(|place| {
                let policy = self.plan.policies[place];
                let color = match (hue(policy), policy.name) {
                    (Hue::Own, "herd") => "#2f6f4f",
                    (Hue::Own, _) => "#7fb79a",
                    (Hue::Peer, _) => "#b5532a",
                    (Hue::Other, _) => others.next().copied().unwrap_or("#8a93a0"),
                };
                let at = |percent: usize| mean_of(&row[place], |s| s.hundredths.get(percent).copied().unwrap_or(0.0));
                let hundredths = (0..100).map(|percent| at(percent) / 1e3).collect();
                Curve { name: policy.name.to_owned(), color, hundredths }
            })
            .collect();
        svg::curves(&format!("{}: share of requests complete within a time", workload.name), &curves)
    }
}

fn hue(policy: &PolicySpec) -> Hue {
    match policy.name {
        _ if policy.herd => Hue::Own,
        PEER => Hue::Peer,
        _ => Hue::Other,
    }
}

fn line(policy: &PolicySpec, cell: &Cell) -> String {
    let ms = |of: fn(&Summary) -> f64| seconds(mean_of(cell, of) / 1e3);
    let count = |of: fn(&Summary) -> f64| short(mean_of(cell, of));
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} ({}) | {:.0} % | {:.2} | {} | {} | {:.2} |\n",
        if policy.herd { format!("**{}**", policy.name) } else { policy.name.to_owned() },
        ranged(cell, |summary| summary.completion.mean / 1e3),
        ms(|summary| summary.completion.p50),
        ms(|summary| summary.completion.p95),
        ranged(cell, |summary| summary.completion.p99 / 1e3),
        ms(|summary| summary.first_byte.mean),
        ms(|summary| summary.first_byte.p95),
        ms(|summary| summary.first_byte.p99),
        count(|summary| summary.loads),
        count(|summary| summary.reloads),
        count(|summary| summary.avoidable),
        mean_of(cell, |summary| summary.utilisation) * 100.0,
        mean_of(cell, |summary| summary.fairness),
        count(|summary| summary.failures as f64),
        count(|summary| summary.retries),
        mean_of(cell, |summary| summary.ratio),
    )
}

/// A number with one decimal unless it is whole.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), ToOwned::to_owned)
}

/// The mean over the seeds with the least and the most.
fn ranged(cell: &Cell, of: impl Fn(&Summary) -> f64) -> String {
    let [least, mean, most] = spread(cell, of);
    if cell.len() < 2 { seconds(mean) } else { format!("{} ({}–{})", seconds(mean), seconds(least), seconds(most)) }
}

fn spread(cell: &Cell, of: impl Fn(&Summary) -> f64) -> [f64; 3] {
    let values = || cell.iter().map(&of);
    [values().fold(f64::MAX, f64::min), mean_of(cell, &of), values().fold(0.0, f64::max)]
}

fn mean_of(cell: &Cell, of: impl Fn(&Summary) -> f64) -> f64 {
    cell.iter().map(of).sum::<f64>() / cell.len().max(1) as f64
}

fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests;
