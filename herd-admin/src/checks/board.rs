//! What the last looks found.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use herd_core::health::{Findings, Observed, Report, What};
use herd_core::recommend::{Catalogue, Recommendation};

use super::counted::{Counted, Counts};
use crate::state::{AdminState, unix_ms};
use crate::store::{DAY_MS, HOUR_MS, HealthPoint};

/// Where the store keeps the findings.
const KEY: &str = "health.findings";
/// How far back the score is told: a day of looks.
const POINTS: usize = 4_320;
/// Departures that are remembered of a node.
const DEPARTURES: usize = 64;

/// Longest time from one score to the next that is kept.
const KEPT_EVERY_MS: u64 = 60_000;

/// What the last looks found.
#[derive(Debug)]
pub(crate) struct Checks {
    catalogue: Catalogue,
    board: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    findings: Findings,
    /// What the store has of them was read, or will never be.
    restored: bool,
    points: VecDeque<HealthPoint>,
    /// The last of them that the store was given.
    kept: Option<HealthPoint>,
    advice: Arc<Vec<Recommendation>>,
    counts: Counts,
    /// Nodes that took requests at the last look.
    present: HashSet<String>,
    departures: HashMap<String, VecDeque<u64>>,
}

impl Default for Checks {
    fn default() -> Self {
        Self { catalogue: Catalogue::built_in(), board: Mutex::default() }
    }
}

impl Checks {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Reads what was known before the restart, once the store answers.
    pub(super) async fn restore(&self, state: &AdminState) {
        if self.board().restored {
            return;
        }
        let known = match &state.config().store {
            Some(store) => store.setting::<Findings>(KEY).await,
            None => Ok(None),
        };
        if let Ok(known) = known {
            let mut board = self.board();
            board.restored = true;
            // What this process has found by now is newer, but was never acknowledged nor muted.
            if let Some(known) = known {
                board.findings = known;
            }
        }
    }

    /// Keeps what is known over a restart. A store that fails is a finding of its own.
    pub(super) async fn save(&self, state: &AdminState) {
        let Some(store) = &state.config().store else { return };
        let (restored, findings) = {
            let board = self.board();
            (board.restored, board.findings.clone())
        };
        if restored && let Err(error) = store.set_setting(KEY, &findings).await {
            tracing::debug!(%error, "the health findings could not be kept");
        }
    }

    /// Takes what a look saw; returns whether anything has changed.
    pub(super) fn fold(&self, observed: Vec<Observed>, at_unix_ms: u64) -> bool {
        let mut board = self.board();
        let folded = board.findings.fold(observed, at_unix_ms);
        board.findings = folded.findings;
        let report = board.findings.report(at_unix_ms);
        if board.points.len() == POINTS {
            board.points.pop_front();
        }
        let Report { score, critical, warning, info, .. } = report;
        let [critical, warning, info] = [critical, warning, info].map(|count| count as u64);
        board.points.push_back(HealthPoint { at_unix_ms, score, critical, warning, info });
        drop(board);
        for change in &folded.changes {
            let finding = &change.finding;
            let (check, node_id, model) = (&finding.key.check, &finding.key.node_id, &finding.key.model);
            match change.what {
                What::Closed => tracing::info!(target: "herd::health", check, node_id, model, "a finding is gone"),
                _ => {
                    tracing::warn!(target: "herd::health", check, node_id, model, detail = finding.detail, "{}", finding.title);
                }
            }
        }
        !folded.changes.is_empty()
    }

    /// What there is to tell now.
    pub(crate) fn report(&self) -> Report {
        self.board().findings.report(unix_ms())
    }

    /// Changes the findings; `None` = `change` does not apply.
    pub(super) fn change(&self, change: impl FnOnce(&Findings) -> Option<Findings>) -> Option<()> {
        let mut board = self.board();
        board.findings = change(&board.findings)?;
        Some(())
    }

    /// The scores from `from_unix_ms` on: those of this process as they were, and the worst of each stretch before.
    pub(super) async fn points(&self, state: &AdminState, from_unix_ms: u64) -> Vec<HealthPoint> {
        let own: Vec<_> =
            self.board().points.iter().filter(|point| point.at_unix_ms >= from_unix_ms).copied().collect();
        let until = own.first().map_or_else(unix_ms, |point| point.at_unix_ms);
        let before = match &state.config().store {
            Some(store) if from_unix_ms < until => store.health_history(from_unix_ms, until).await.unwrap_or_default(),
            _ => Vec::new(),
        };
        before.into_iter().chain(own).collect()
    }

    /// Keeps the score over a restart: when it changes, and every minute.
    pub(super) fn keep_point(&self, state: &AdminState) {
        let Some(store) = &state.config().store else { return };
        let mut board = self.board();
        let Some(now) = board.points.back().copied() else { return };
        let same = |kept: &HealthPoint| HealthPoint { at_unix_ms: kept.at_unix_ms, ..now } == *kept;
        let is_due = |kept: &HealthPoint| now.at_unix_ms.saturating_sub(kept.at_unix_ms) >= KEPT_EVERY_MS;
        if board.kept.as_ref().is_none_or(|kept| !same(kept) || is_due(kept)) && store.post_health(now).is_ok() {
            board.kept = Some(now);
        }
    }

    pub(super) fn advice(&self) -> Arc<Vec<Recommendation>> {
        Arc::clone(&self.board().advice)
    }

    pub(super) fn set_advice(&self, advice: Arc<Vec<Recommendation>>) {
        self.board().advice = advice;
    }

    /// Takes what is counted now; returns how much of it was in the last hour and in the last day.
    pub(super) fn count(&self, now: Counted, now_ms: u64) -> [Counted; 2] {
        self.board().counts.take(now, now_ms)
    }

    /// Takes which nodes take requests now, and which have left without being asked to; returns how often each of them
    /// left in the last hour and in the last day.
    pub(super) fn departures(
        &self,
        present: HashSet<String>,
        asked: &HashSet<String>,
        now_ms: u64,
    ) -> Vec<(String, [u64; 2])> {
        let mut board = self.board();
        let board = &mut *board;
        for gone in board.present.difference(&present).filter(|id| !asked.contains(*id)) {
            let times = board.departures.entry(gone.clone()).or_default();
            times.push_back(now_ms);
            if times.len() > DEPARTURES {
                times.pop_front();
            }
        }
        board.present = present;
        board.departures.retain(|_, times| {
            times.retain(|at| now_ms.saturating_sub(*at) <= DAY_MS);
            !times.is_empty()
        });
        let within = |times: &VecDeque<u64>, span_ms| {
            times.iter().filter(|at| now_ms.saturating_sub(**at) <= span_ms).count() as u64
        };
        let told = board.departures.iter();
        told.map(|(id, times)| (id.clone(), [HOUR_MS, DAY_MS].map(|span_ms| within(times, span_ms)))).collect()
    }
}
