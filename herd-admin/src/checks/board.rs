//! What the last looks found.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use herd_core::health::{Findings, Observed, Report, What};
use herd_core::recommend::{Catalogue, Recommendation};
use herd_store::{DAY_MS, HOUR_MS, HealthScore, StoreHandle, unix_ms};

use super::counted::{Counted, Counts};

/// Where the store keeps the findings.
const KEY: &str = "health.findings";
/// How far back the score is told where there is no store: a day of looks.
const POINTS: usize = 4_320;
/// Departures that are remembered of a node.
const DEPARTURES: usize = 64;

/// What the last looks found.
#[derive(Debug)]
pub(crate) struct Checks {
    catalogue: Catalogue,
    board: Mutex<Board>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Board {
    findings: Findings,
    /// What the store has of them was read, or will never be.
    restored: bool,
    points: VecDeque<HealthScore>,
    advice: Arc<Vec<Recommendation>>,
    counts: Counts,
    /// Nodes that took requests at the last look.
    present: HashSet<String>,
    departures: HashMap<String, VecDeque<u64>>,
}

impl Default for Checks {
    fn default() -> Self {
        Self { catalogue: Catalogue::built_in(), board: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
}

impl Checks {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn to look.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    pub(super) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Reads what was known before the restart, once the store answers.
    pub(super) async fn restore(&self, store: Option<&StoreHandle>) {
        if self.board().restored {
            return;
        }
        let known = match store {
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
    pub(super) async fn save(&self, store: Option<&StoreHandle>) {
        let Some(store) = store else { return };
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
        let [critical, warning, info] = [report.critical, report.warning, report.info].map(|count| count as u64);
        board.points.push_back(HealthScore { at_unix_ms, score: report.score, critical, warning, info });
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

    /// The scores of this process from `from_unix_ms` to before `to_unix_ms`.
    pub(super) fn points(&self, from_unix_ms: u64, to_unix_ms: u64) -> Vec<HealthScore> {
        let wanted = from_unix_ms..to_unix_ms;
        self.board().points.iter().filter(|point| wanted.contains(&point.at_unix_ms)).copied().collect()
    }

    /// Keeps the last score over a restart. A store that fails is a finding of its own.
    pub(super) fn keep_score(&self, store: Option<&StoreHandle>) {
        let Some(last) = self.board().points.back().copied() else { return };
        if let Some(store) = store
            && let Err(error) = store.post_score(last)
        {
            tracing::debug!(%error, "the health score could not be kept");
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
