//! Scripted failures, switchable while a node runs.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A way to fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Works.
    #[default]
    None,
    /// Nobody listens: connections are refused, idle ones are closed, running answers finish.
    Refuse,
    /// Requests are accepted and never answered, as from a frozen process; they go on when the fault is cleared.
    Stall,
    /// Inference is never answered, everything else is: a hung engine. The request keeps its slot, and gets nowhere.
    HangBeforeFirstByte,
    /// A stream stops after some chunks (a whole answer after half of it), and the connection stays open, as does the
    /// slot.
    HangMidStream,
    /// The connection ends after some chunks, without the end of the message: a killed server.
    CutMidStream,
    /// The message ends cleanly after some chunks, without the stream's own end.
    CleanEnd,
    /// The engine dies after some chunks: the error line or bogus chunk that Ollama writes, then a clean end.
    CrashMidStream,
    /// One line that is no JSON comes after some chunks (before a whole answer), then all goes on as usual.
    GarbageLine,
    /// 400 at once.
    #[serde(rename = "error_400")]
    Error400,
    /// 500 at once.
    #[serde(rename = "error_500")]
    Error500,
    /// Prompts and answers take `factor` times as long.
    Slow,
    /// 404, as for a model that is not there.
    NotFound,
    /// 503, as with a full queue.
    #[serde(rename = "busy_503")]
    Busy503,
    /// The connection is reset, before the answer or after some chunks of it.
    Reset,
}

impl FaultKind {
    /// Whether it lets an answer begin. A `reset` without a number of chunks has struck before.
    pub(crate) fn is_mid_stream(self) -> bool {
        matches!(
            self,
            Self::HangMidStream
                | Self::CutMidStream
                | Self::CleanEnd
                | Self::CrashMidStream
                | Self::GarbageLine
                | Self::Reset
        )
    }
}

/// Which requests a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultPaths {
    /// Those that run a model.
    Inference,
    /// All but `/_sim/*`.
    All,
}

/// A fault to be in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub fault: FaultKind,
    /// Chunks of the answer that still come, for the faults in the middle of one; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_chunks: Option<u32>,
    /// How much slower; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// Requests it strikes before it clears itself; no end when absent. Not for `refuse`, which no request reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Whom it strikes; all requests for `stall`, inference for the others when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<FaultPaths>,
}

impl Fault {
    /// The fault `kind`, for all it may strike, until it is cleared.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self { fault: kind, ..Self::default() }
    }

    /// The same, after `chunks` chunks of an answer.
    #[must_use]
    pub fn after(mut self, chunks: u32) -> Self {
        self.after_chunks = Some(chunks);
        self
    }

    /// The same, for the next `count` requests only.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = Some(count);
        self
    }

    /// The same, for `paths`.
    #[must_use]
    pub fn on(mut self, paths: FaultPaths) -> Self {
        self.paths = Some(paths);
        self
    }

    /// How much slower requests are.
    pub(crate) fn slowness(&self) -> f64 {
        if self.fault == FaultKind::Slow { self.factor.unwrap_or(10.0) } else { 1.0 }
    }

    fn strikes(&self, inference: bool) -> bool {
        let all_by_default = self.fault == FaultKind::Stall;
        let default = if all_by_default { FaultPaths::All } else { FaultPaths::Inference };
        match self.fault {
            FaultKind::None | FaultKind::Refuse => false,
            _ => inference || self.paths.unwrap_or(default) == FaultPaths::All,
        }
    }
}

/// A fault that strikes one request.
#[derive(Debug)]
pub(crate) struct Struck {
    pub(crate) fault: Fault,
    epoch: watch::Receiver<u64>,
}

impl Struck {
    /// Waits until somebody sets another fault.
    pub(crate) async fn lifted(&mut self) {
        // An error means that the node is gone, and the request with it.
        drop(self.epoch.changed().await);
    }
}

/// The fault in force on a node.
#[derive(Debug)]
pub(crate) struct FaultSwitch {
    fault: Mutex<Fault>,
    /// Counts the times somebody set a fault; one that clears itself does not count, so that a request it struck
    /// stays struck.
    epoch: watch::Sender<u64>,
}

impl FaultSwitch {
    pub(crate) fn new() -> Self {
        Self { fault: Mutex::new(Fault::default()), epoch: watch::Sender::new(0) }
    }

    /// Puts `fault` in force in place of the one before.
    pub(crate) fn set(&self, fault: Fault) {
        let mut in_force = self.lock();
        *in_force = fault;
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// The fault in force.
    pub(crate) fn get(&self) -> Fault {
        self.lock().clone()
    }

    /// The fault that strikes a request which begins now; counts it.
    pub(crate) fn strike(&self, inference: bool) -> Option<Struck> {
        let mut fault = self.lock();
        if !fault.strikes(inference) {
            return None;
        }
        // Under the lock, so that no change can slip in between.
        let struck = Struck { fault: fault.clone(), epoch: self.epoch.subscribe() };
        match &mut fault.count {
            Some(left) if *left > 1 => *left -= 1,
            Some(_) => *fault = Fault::default(),
            None => {}
        }
        Some(struck)
    }

    /// Follows the changes made by [`Self::set`].
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_fault_clears_itself() {
        let switch = FaultSwitch::new();
        switch.set(Fault::new(FaultKind::Error500).times(2));
        assert!(switch.strike(false).is_none());
        assert!(switch.strike(true).is_some());
        assert!(switch.strike(true).is_some());
        assert!(switch.strike(true).is_none());
        assert_eq!(switch.get(), Fault::default());
    }

    #[test]
    fn faults_parse_as_documented() {
        let parse = |text: &str| serde_json::from_str::<Fault>(text).ok();
        assert_eq!(parse(r#"{"fault":"error_500"}"#), Some(Fault::new(FaultKind::Error500)));
        assert_eq!(
            parse(r#"{"fault":"cut_mid_stream","after_chunks":3}"#),
            Some(Fault::new(FaultKind::CutMidStream).after(3))
        );
        let stall = Fault::new(FaultKind::Stall).times(1).on(FaultPaths::All);
        assert_eq!(parse(r#"{"fault":"stall","count":1,"paths":"all"}"#), Some(stall));
        assert_eq!(parse(r#"{"fault":"none","bogus":1}"#), None);
    }
}
