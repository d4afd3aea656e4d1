//! Carrying out one pull: the node's lines, and when they stop it.

use std::time::Duration;

use herd_core::pull::{Download, disk_available};
use http::StatusCode;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::job::Job;
use super::line::{Line, Lines};
use super::pulls::Shared;
use super::state::{FailureKind, Layer, PullFailure, PullPhase};

/// The slowest disk on which checking a model counts as progress: Ollama says nothing while it reads all of it.
const CHECKED_BYTES_PER_S: u64 = 50_000_000;
/// The most that is read of an answer that is an error.
const ERROR_MAX_BYTES: usize = 64 << 10;

#[derive(Serialize)]
struct Ask<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    insecure: bool,
    stream: bool,
}

/// Pulls `job`'s model onto its node. Dropping this drops the connection, and then Ollama stops.
///
/// # Errors
/// When it fails, or must stop.
pub(super) async fn pull(shared: &Shared, job: &Job) -> Result<(), PullFailure> {
    let mut course = Course::new(shared, job);
    let url = format!("http://{}/api/pull", job.address);
    let request = shared.client.post(url).json(&Ask { model: &job.spelling, insecure: job.insecure, stream: true });
    let mut answer = course.in_time(request.send()).await?;
    let status = answer.status();
    let mut lines = Lines::default();
    while let Some(chunk) = course.in_time(answer.chunk()).await? {
        lines.push(&chunk);
        if status != StatusCode::OK {
            if lines.len() > ERROR_MAX_BYTES {
                break;
            }
            continue;
        }
        while let Some(line) = lines.next()? {
            if course.take(&line)? == Turn::Success {
                return Ok(());
            }
        }
    }
    let rest = lines.rest();
    if status != StatusCode::OK {
        return Err(refused(status, &rest));
    }
    let is_success = !rest.is_empty() && course.take(&rest)? == Turn::Success;
    is_success.then_some(()).ok_or_else(|| PullFailure::new(FailureKind::Node, "the node broke off the pull"))
}

/// An answer that is no stream of lines.
fn refused(status: StatusCode, body: &[u8]) -> PullFailure {
    match Line::read(body) {
        Err(said) if said.kind != FailureKind::Node => said,
        _ => PullFailure::new(FailureKind::Node, format!("the node answered {status}")),
    }
}

/// What a line means for the rest.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// More is to come.
    GoesOn,
    /// The model is there.
    Success,
}

/// How one pull goes.
struct Course<'a> {
    shared: &'a Shared,
    job: &'a Job,
    download: Download,
    /// Bytes that were counted.
    counted: u64,
    /// When the pull fails unless something happens.
    deadline: Instant,
    last: Line,
}

impl<'a> Course<'a> {
    fn new(shared: &'a Shared, job: &'a Job) -> Self {
        let download = Download::new(job.max_bytes, job.room_bytes);
        let deadline = Instant::now() + shared.settings.no_progress;
        Self { shared, job, download, counted: 0, deadline, last: Line::default() }
    }

    /// What `step` yields, if it does so before the deadline.
    async fn in_time<T>(&self, step: impl Future<Output = reqwest::Result<T>>) -> Result<T, PullFailure> {
        match timeout_at(self.deadline, step).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                tracing::debug!(job = ?self.job, %error, "the node's answer broke");
                let message = if error.is_connect() { "the node cannot be reached" } else { "the node broke off" };
                Err(PullFailure::new(FailureKind::Node, message))
            }
            Err(_) => Err(self.no_progress()),
        }
    }

    fn no_progress(&self) -> PullFailure {
        let message = format!("no progress for {} s", self.patience().as_secs());
        PullFailure::new(FailureKind::NoProgress, message)
    }

    /// How long nothing may happen.
    fn patience(&self) -> Duration {
        let checking = match self.job.state.borrow().phase {
            PullPhase::Verifying => Duration::from_secs(self.download.total_bytes() / CHECKED_BYTES_PER_S),
            _ => Duration::ZERO,
        };
        self.shared.settings.no_progress + checking
    }

    fn take(&mut self, line: &[u8]) -> Result<Turn, PullFailure> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(Turn::GoesOn);
        }
        let line = Line::read(line)?;
        if line.layer.is_none() && line.status == "success" {
            return Ok(Turn::Success);
        }
        // Ollama says the same again and again while a download hangs.
        if line != self.last {
            self.advance(&line)?;
            self.last = line;
            self.deadline = Instant::now() + self.patience();
        } else if Instant::now() >= self.deadline {
            return Err(self.no_progress());
        }
        Ok(Turn::GoesOn)
    }

    fn advance(&mut self, line: &Line) -> Result<(), PullFailure> {
        if let Some(layer) = &line.layer {
            self.download.note(&layer.digest, layer.total_bytes, layer.completed_bytes.unwrap_or(0))?;
            self.check_disk(layer)?;
            let brought = self.download.brought_bytes();
            self.shared.metrics.bytes.inc_by(brought.saturating_sub(self.counted));
            self.counted = self.counted.max(brought);
        }
        self.job.update(|state| {
            state.say(line);
            state.completed_bytes = self.download.completed_bytes();
            state.total_bytes = Some(self.download.total_bytes()).filter(|total| *total > 0);
        });
        Ok(())
    }

    /// Others write to the disk too.
    fn check_disk(&self, layer: &Layer) -> Result<(), PullFailure> {
        let snapshot = self.shared.source.snapshot();
        let available = snapshot.node(self.job.node_id.as_str()).and_then(|node| disk_available(node));
        let reserve = self.shared.policy.load().disk_reserve_bytes;
        let is_done = layer.completed_bytes.is_some_and(|completed| completed >= layer.total_bytes);
        if !is_done && available.is_some_and(|available| available < reserve) {
            return Err(PullFailure::new(FailureKind::NoDisk, "the node's disk has come to its reserve"));
        }
        Ok(())
    }
}
