//! herd against the best of the others, workload by workload.

use super::{Report, mean_of, seconds};
use crate::sim::matrix::Cell;
use crate::sim::metrics::Summary;
use crate::sim::policy::PEER;
use crate::sim::workload::Workload;

/// The policy that serves traffic unless told otherwise.
const OWN: &str = "herd";

/// Share of the requests that a policy may fail more than herd and still be compared with.
const MORE_FAILURES: f64 = 0.005;

/// herd's number over another's, seed by seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Paired {
    pub(super) mean: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Paired {
    pub(super) fn of(own: &Cell, other: &Cell, of: impl Fn(&Summary) -> f64) -> Self {
        let ratios = || own.iter().zip(other).map(|(own, other)| of(own) / of(other).max(1e-9));
        let mean = ratios().sum::<f64>() / own.len().max(1) as f64;
        Self { mean, least: ratios().fold(f64::MAX, f64::min), most: ratios().fold(0.0, f64::max) }
    }

    /// At or below, or above by no more than seeds differ.
    pub(super) fn holds(self) -> bool {
        self.mean <= 1.0 || self.least <= 1.0
    }
}

impl Report<'_> {
    /// A table of the bars; nothing where herd was not run.
    pub(super) fn verdicts(&self, text: &mut String) {
        let Some(own) = self.place(OWN) else { return };
        text.push_str(
            "## herd against the best of the others\n\n\
             Best of the baselines by that number, the peer among them, of those that fail no more than half a percent of \
             the requests more than herd; ratios are of the same seed, with the least and the most over seeds. At or \
             below: the mean ratio is at most 1, or that of some seed is. Near: at most 1.3 times the bound, which is \
             asked of the workloads with even load.\n\n\
             | workload | mean s | best other | ratio | p99 s | best other | ratio | p99 to the peer's | mean / bound \
             | avoidable reloads | failures | at or below |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for (workload, row) in self.plan.workloads.iter().zip(self.cells) {
            self.verdict(text, workload, row, own);
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.plan.policies.iter().position(|policy| policy.name == name)
    }

    fn verdict(&self, text: &mut String, workload: &Workload, row: &[Cell], own: usize) {
        let mean = |summary: &Summary| summary.completion.mean;
        let p99 = |summary: &Summary| summary.completion.p99;
        let (Some(by_mean), Some(by_p99)) = (self.best(row, own, mean), self.best(row, own, p99)) else { return };
        let (means, p99s) = (Paired::of(&row[own], &row[by_mean], mean), Paired::of(&row[own], &row[by_p99], p99));
        let peer = self.place(PEER).map(|peer| Paired::of(&row[own], &row[peer], p99));
        let total = |of: fn(&Summary) -> f64| row[own].iter().map(of).sum::<f64>();
        putln!(
            text,
            "| {} | {} | {} {} | {} | {} | {} {} | {} | {} | {} | {} | {} | {} |",
            workload.name,
            seconds(mean_of(&row[own], mean) / 1e3),
            self.plan.policies[by_mean].name,
            seconds(mean_of(&row[by_mean], mean) / 1e3),
            shown(means),
            seconds(mean_of(&row[own], p99) / 1e3),
            self.plan.policies[by_p99].name,
            seconds(mean_of(&row[by_p99], p99) / 1e3),
            shown(p99s),
            peer.map_or_else(|| "-".into(), shown),
            to_bound(workload, mean_of(&row[own], |summary| summary.ratio)),
            total(|summary| summary.avoidable),
            total(|summary| summary.failures as f64),
            match (means.holds(), p99s.holds()) {
                (true, true) => "both",
                (true, false) => "mean only",
                (false, true) => "p99 only",
                (false, false) => "neither",
            },
        );
    }

    /// The baseline with the least of a number, of those that fail about as few requests as herd.
    fn best(&self, row: &[Cell], own: usize, of: impl Fn(&Summary) -> f64) -> Option<usize> {
        let failed = |cell: &Cell| mean_of(cell, |summary| summary.failures as f64 / summary.requests.max(1) as f64);
        let most = failed(&row[own]) + MORE_FAILURES;
        let others = (0..row.len()).filter(|place| !self.plan.policies[*place].herd && failed(&row[*place]) <= most);
        others.min_by(|a, b| mean_of(&row[*a], &of).total_cmp(&mean_of(&row[*b], &of)))
    }
}

/// Where load is even and nothing goes wrong, herd is to be near what is possible.
const NEAR: f64 = 1.3;

fn to_bound(workload: &Workload, ratio: f64) -> String {
    match (workload.steady, ratio <= NEAR) {
        (true, true) => format!("{ratio:.2}, near"),
        (true, false) => format!("{ratio:.2}, not near"),
        (false, _) => format!("{ratio:.2}"),
    }
}

fn shown(Paired { mean, least, most }: Paired) -> String {
    format!("{mean:.2} ({least:.2}–{most:.2})")
}
