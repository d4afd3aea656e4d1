//! Findings: what checks see, folded over evaluations, so that a flicker is none and a fix is believed only after a
//! while.
//!
//! Times are on the caller's clock. The admin service passes milliseconds since 1970 and keeps this state in its store,
//! so that what was acknowledged or muted outlasts a restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::observed::{Observed, Value};
use super::{CHECK_COUNT, Severity, check};

/// Most findings that are kept.
pub const FINDINGS_MAX: usize = 512;
/// Most mutes that are kept.
pub const MUTES_MAX: usize = 256;

/// What a finding is about: one check at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The check.
    pub check: String,
    /// The node; none = the fleet.
    pub node_id: Option<String>,
    /// The model; none = whatever runs there.
    pub model: Option<String>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    #[serde(flatten)]
    pub key: Key,
    /// What the check finds, for people.
    pub title: String,
    /// How bad it is, as last seen.
    pub severity: Severity,
    /// One sentence with the numbers that matter, as last seen.
    pub detail: String,
    /// All numbers that the check went by, as last seen.
    pub evidence: BTreeMap<String, Value>,
    /// A command or a line of configuration, to be pasted.
    pub fix: String,
    /// When it was first seen.
    pub first_seen_ms: u64,
    /// When it was last seen.
    pub last_seen_ms: u64,
    /// Whether it has held for long enough to be told.
    pub open: bool,
    /// When somebody said that they know; none = nobody has since it opened or grew worse.
    pub acknowledged_at_ms: Option<u64>,
    /// Until when nobody wants to hear of it; none = it is not muted. Filled in by [`Findings::report`].
    pub muted_until_ms: Option<u64>,
    /// Evaluations in a row that have seen it.
    held: u32,
    /// Evaluations in a row that have not.
    missed: u32,
}

/// What nobody wants to hear of for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mute {
    /// The check.
    pub check: String,
    /// On this node only; none = wherever.
    pub node_id: Option<String>,
    /// For this model only; none = whichever.
    pub model: Option<String>,
    /// When it ends.
    pub until_ms: u64,
}

impl Mute {
    fn covers(&self, key: &Key, at_ms: u64) -> bool {
        let fits = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
        at_ms < self.until_ms
            && self.check == key.check
            && fits(&self.node_id, &key.node_id)
            && fits(&self.model, &key.model)
    }

    fn is_for(&self, other: &Self) -> bool {
        self.check == other.check && self.node_id == other.node_id && self.model == other.model
    }
}

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It has held for long enough.
    Opened,
    /// It is worse than it was.
    Worsened,
    /// It has been gone for long enough.
    Closed,
}

/// A change that is worth a line in the log or a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What happened.
    pub what: What,
    /// To which finding, as it is now, or was last.
    pub finding: Finding,
}

/// All findings, those that have yet to hold included.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Findings {
    /// In the order of their keys.
    #[serde(rename = "findings")]
    open_or_held: Vec<Finding>,
    mutes: Vec<Mute>,
    evaluations: u64,
}

/// The next state, and how it differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded {
    /// The next state.
    pub findings: Findings,
    /// What opened, grew worse or closed.
    pub changes: Vec<Change>,
}

impl Findings {
    /// The state after one more evaluation, which saw `observed` at `at_ms`.
    #[must_use]
    pub fn fold(&self, observed: Vec<Observed>, at_ms: u64) -> Folded {
        let mut before: BTreeMap<&Key, &Finding> = self.open_or_held.iter().map(|known| (&known.key, known)).collect();
        let mut after = Vec::new();
        let mut changes = Vec::new();
        for (key, one) in worst_of_each(observed).into_iter().take(FINDINGS_MAX) {
            let (finding, change) = seen_again(before.remove(&key), key, one, at_ms);
            changes.extend(change.map(|what| Change { what, finding: finding.clone() }));
            after.push(finding);
        }
        // What never opened, and is gone, was nothing.
        for known in before.into_values().filter(|known| known.open) {
            let finding = Finding { missed: known.missed.saturating_add(1), ..known.clone() };
            if finding.missed >= check(&finding.key.check).map_or(1, |check| check.closes_after) {
                changes.push(Change { what: What::Closed, finding });
            } else if after.len() < FINDINGS_MAX {
                after.push(finding);
            }
        }
        after.sort_by(|a, b| a.key.cmp(&b.key));
        let mutes = self.mutes.iter().filter(|mute| at_ms < mute.until_ms).cloned().collect();
        let evaluations = self.evaluations.saturating_add(1);
        Folded { findings: Self { open_or_held: after, mutes, evaluations }, changes }
    }

    /// The state after somebody said that they know of the open finding `key`; `None` = there is none.
    ///
    /// It counts as before: that it is known does not make it right. It is forgotten when the finding closes or grows
    /// worse.
    #[must_use]
    pub fn acknowledge(&self, key: &Key, at_ms: u64) -> Option<Self> {
        let mut next = self.clone();
        let found = next.open_or_held.iter_mut().find(|finding| finding.open && finding.key == *key)?;
        found.acknowledged_at_ms = Some(at_ms);
        Some(next)
    }

    /// The state in which nobody hears of what `mute` covers, and it costs no points; whether it is open now or not. A
    /// second mute of the same takes the place of the first. `None` = there is no such check, or there are
    /// [`MUTES_MAX`] others.
    #[must_use]
    pub fn mute(&self, mute: Mute) -> Option<Self> {
        let mut next = self.unmute(&mute);
        if check(&mute.check).is_none() || next.mutes.len() >= MUTES_MAX {
            return None;
        }
        next.mutes.push(mute);
        Some(next)
    }

    /// The state without the mute of what `mute` names, whenever it would have ended.
    #[must_use]
    pub fn unmute(&self, mute: &Mute) -> Self {
        let mut next = self.clone();
        next.mutes.retain(|known| !known.is_for(mute));
        next
    }

    /// All mutes that have not ended at the last evaluation.
    #[must_use]
    pub fn mutes(&self) -> &[Mute] {
        &self.mutes
    }

    /// What there is to tell at `at_ms`.
    #[must_use]
    pub fn report(&self, at_ms: u64) -> Report {
        let until =
            |key: &Key| self.mutes.iter().filter(|mute| mute.covers(key, at_ms)).map(|mute| mute.until_ms).max();
        let open = self.open_or_held.iter().filter(|finding| finding.open);
        let mut findings: Vec<Finding> =
            open.map(|finding| Finding { muted_until_ms: until(&finding.key), ..finding.clone() }).collect();
        findings.sort_by_key(|finding| (finding.muted_until_ms.is_some(), std::cmp::Reverse(finding.severity)));
        let heard = || findings.iter().filter(|finding| finding.muted_until_ms.is_none());
        let count = |severity| heard().filter(|finding| finding.severity == severity).count();
        let (critical, warning, info) = (count(Severity::Critical), count(Severity::Warning), count(Severity::Info));
        let overall = match (critical, warning) {
            _ if self.evaluations == 0 => Overall::Unknown,
            (0, 0) => Overall::Healthy,
            (0, _) => Overall::Attention,
            _ => Overall::Critical,
        };
        Report {
            score: score(heard()),
            status: overall,
            summary: summary(overall, critical, warning, info),
            critical,
            warning,
            info,
            muted: findings.len() - critical - warning - info,
            checks: CHECK_COUNT,
            evaluations: self.evaluations,
            findings,
        }
    }
}

/// Each place once, with the worst that was seen there.
fn worst_of_each(observed: Vec<Observed>) -> BTreeMap<Key, Observed> {
    let mut worst: BTreeMap<Key, Observed> = BTreeMap::new();
    for one in observed {
        let key = Key { check: one.check.to_owned(), node_id: one.node_id.clone(), model: one.model.clone() };
        if worst.get(&key).is_none_or(|known| known.severity < one.severity) {
            worst.insert(key, one);
        }
    }
    worst
}

fn seen_again(known: Option<&Finding>, key: Key, one: Observed, at_ms: u64) -> (Finding, Option<What>) {
    let kind = check(&key.check);
    let held = known.map_or(0, |known| known.held).saturating_add(1);
    let was_open = known.is_some_and(|known| known.open);
    let is_worse = known.is_some_and(|known| known.severity < one.severity);
    let finding = Finding {
        key,
        title: kind.map_or_else(String::new, |check| check.title.to_owned()),
        severity: one.severity,
        detail: one.detail,
        evidence: one.evidence,
        fix: one.fix,
        first_seen_ms: known.map_or(at_ms, |known| known.first_seen_ms),
        last_seen_ms: at_ms,
        open: was_open || held >= kind.map_or(1, |check| check.opens_after),
        acknowledged_at_ms: known.and_then(|known| known.acknowledged_at_ms).filter(|_| !is_worse),
        muted_until_ms: None,
        held,
        missed: 0,
    };
    let change = match (was_open, finding.open) {
        (false, true) => Some(What::Opened),
        (true, _) if is_worse => Some(What::Worsened),
        _ => None,
    };
    (finding, change)
}

/// What the first finding of a check takes from the score.
#[must_use]
pub fn finding_cost(severity: Severity) -> f64 {
    match severity {
        Severity::Critical => 25.0,
        Severity::Warning => 8.0,
        Severity::Info => 0.0,
    }
}

/// From 100, healthy, to 0: `100 - Σ cost × (2 - 2^(1 - n))` over the checks with open findings, each with the cost of its
/// worst one and the number `n` of those that cost anything. The second finding of a check costs half of the first and so
/// on, so that one cause at many places does not count as many. What is muted, and information, costs nothing.
#[must_use]
pub fn score<'a>(findings: impl Iterator<Item = &'a Finding>) -> u8 {
    let mut checks: BTreeMap<&str, (f64, i32)> = BTreeMap::new();
    for finding in findings {
        let cost = finding_cost(finding.severity);
        let (worst, count) = checks.entry(&finding.key.check).or_default();
        *worst = worst.max(cost);
        *count = count.saturating_add(i32::from(cost > 0.0));
    }
    let lost: f64 = checks.values().map(|(cost, count)| cost * (2.0 - f64::powi(2.0, 1 - count))).sum();
    let left = (100.0 - lost).clamp(0.0, 100.0).floor();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    let left = left as u8;
    left
}

/// The fleet in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overall {
    /// Nothing has been evaluated yet.
    Unknown,
    /// Nothing is wrong.
    Healthy,
    /// Something could be better.
    Attention,
    /// Requests fail, or will soon.
    Critical,
}

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// 0 to 100; see [`score`].
    pub score: u8,
    /// In one word.
    pub status: Overall,
    /// In one sentence.
    pub summary: String,
    /// Open findings that are critical, the muted left out.
    pub critical: usize,
    /// Open findings that are warnings, the muted left out.
    pub warning: usize,
    /// Open findings that are information, the muted left out.
    pub info: usize,
    /// Open findings that are muted.
    pub muted: usize,
    /// How many checks there are.
    pub checks: usize,
    /// How often they have been made.
    pub evaluations: u64,
    /// All open findings, the worst first, the muted last.
    pub findings: Vec<Finding>,
}

fn summary(overall: Overall, critical: usize, warning: usize, info: usize) -> String {
    let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let notes = if info == 0 { String::new() } else { format!(" {} besides.", many(info, "note")) };
    match overall {
        Overall::Unknown => "No check has been made yet.".into(),
        Overall::Healthy => format!("The fleet is healthy: {CHECK_COUNT} checks find nothing wrong.{notes}"),
        Overall::Attention => format!("{}.{notes}", many(warning, "warning")),
        Overall::Critical => format!("{}, {}.{notes}", many(critical, "critical finding"), many(warning, "warning")),
    }
}
