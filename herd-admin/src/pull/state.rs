//! How far a pull is.

use herd_core::pull::{Failure, PullStop};
use serde::Serialize;

use super::line::Line;

/// How far a pull is, for whoever waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullState {
    /// What is being done.
    pub phase: PullPhase,
    /// Ollama's own words for it; empty = it has said nothing yet.
    pub status: String,
    /// The layer that these words are about.
    pub layer: Option<Layer>,
    /// Bytes on the node, over all layers known so far.
    pub completed_bytes: u64,
    /// Bytes of the layers known so far: it grows as they are announced. `None` = none is.
    pub total_bytes: Option<u64>,
}

/// One layer of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its digest.
    pub digest: String,
    /// All of its bytes.
    pub total_bytes: u64,
    /// Those on the node; `None` = not told.
    pub completed_bytes: Option<u64>,
}

/// What a pull does, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullPhase {
    /// The node is being asked.
    Starting,
    /// The node reads the manifest.
    Manifest,
    /// The node fetches layers.
    Downloading,
    /// The node checks what it fetched and puts it in place.
    Verifying,
    /// The model is on the node. The fleet knows it with the node's next heartbeat.
    Succeeded,
    /// It failed.
    Failed(PullFailure),
    /// Somebody stopped it, for the reason told.
    Cancelled(String),
}

impl PullPhase {
    /// Its name in JSON and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Manifest => "manifest",
            Self::Downloading => "downloading",
            Self::Verifying => "verifying",
            Self::Succeeded => "succeeded",
            Self::Failed(_) => "failed",
            Self::Cancelled(_) => "cancelled",
        }
    }

    /// Whether the pull has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed(_) | Self::Cancelled(_))
    }

    /// Why it ended without the model; `None` = it did not.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Failed(failure) => Some(&failure.message),
            Self::Cancelled(reason) => Some(reason),
            _ => None,
        }
    }
}

/// Why a pull failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullFailure {
    /// For programs.
    pub kind: FailureKind,
    /// For people; Ollama's own words where it said some.
    pub message: String,
}

/// The kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The registry does not have the model.
    UnknownModel,
    /// It is larger than it may be.
    TooLarge,
    /// The node's disk has not the space.
    NoDisk,
    /// Nothing happened for too long.
    NoProgress,
    /// The node could not be reached, or broke off.
    Node,
    /// Ollama said that it failed.
    Ollama,
}

impl PullFailure {
    /// Of `kind`, with these words.
    pub(super) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What Ollama says when a pull fails, in the words of its own and of registries.
    pub(super) fn said_by_ollama(message: String) -> Self {
        let refused = message.strip_prefix("pull model manifest: 4");
        let is_busy = |code: &str| code.starts_with("29") || code.starts_with("08");
        let kind = if message.contains("file does not exist") || refused.is_some_and(|code| !is_busy(code)) {
            FailureKind::UnknownModel
        } else if message.contains("no space left") {
            FailureKind::NoDisk
        } else {
            FailureKind::Ollama
        };
        Self { kind, message }
    }

    /// What it means for trying again.
    pub(super) fn for_backoff(&self) -> Failure {
        match self.kind {
            FailureKind::UnknownModel => Failure::UnknownModel,
            FailureKind::TooLarge => Failure::TooLarge,
            FailureKind::NoDisk | FailureKind::NoProgress | FailureKind::Node | FailureKind::Ollama => Failure::Other,
        }
    }
}

impl From<PullStop> for PullFailure {
    fn from(stop: PullStop) -> Self {
        let kind = match stop {
            PullStop::TooLarge { .. } | PullStop::TooManyLayers => FailureKind::TooLarge,
            PullStop::NoDisk { .. } => FailureKind::NoDisk,
        };
        Self::new(kind, stop.to_string())
    }
}

impl PullState {
    /// Nothing has happened yet.
    pub(super) fn new() -> Self {
        Self { phase: PullPhase::Starting, status: String::new(), layer: None, completed_bytes: 0, total_bytes: None }
    }

    /// Takes what the node says. Words of a later Ollama that we do not know change no phase.
    pub(super) fn say(&mut self, line: &Line) {
        if line.layer.is_some() {
            self.phase = PullPhase::Downloading;
        } else if line.status == "pulling manifest" {
            self.phase = PullPhase::Manifest;
        } else if line.status.starts_with("verifying") || line.status.starts_with("writing") {
            self.phase = PullPhase::Verifying;
        }
        self.status.clone_from(&line.status);
        self.layer.clone_from(&line.layer);
    }

    /// Ends it.
    pub(super) fn end(&mut self, phase: PullPhase) {
        if phase == PullPhase::Succeeded {
            "success".clone_into(&mut self.status);
            self.layer = None;
        }
        self.phase = phase;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, expected: FailureKind) {
        assert_eq!(PullFailure::said_by_ollama(message.to_owned()).kind, expected, "{message}");
    }

    #[test]
    fn what_ollama_says_is_understood() {
        check("pull model manifest: file does not exist", FailureKind::UnknownModel);
        check("pull model manifest: 400: {\"error\":\"Repository is not GGUF\"}", FailureKind::UnknownModel);
        check("pull model manifest: 404: ", FailureKind::UnknownModel);
        check("pull model manifest: 429: slow down", FailureKind::Ollama);
        check("pull model manifest: 503: ", FailureKind::Ollama);
        check("pull model manifest: Get \"https://x\": dial tcp: no such host", FailureKind::Ollama);
        check("write /models/blobs: no space left on device", FailureKind::NoDisk);
    }
}
