//! What became of a request: one terminal record for each, on every path.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use herd_core::record::RequestRecord;
use herd_core::request::Surface;
use herd_store::unix_ms;

use crate::record::Recorder;

pub use herd_core::vocabulary::Status;

/// The record of an inference request. It is closed and handed over when this is dropped, so that no path can lose it.
#[derive(Debug)]
pub struct Trace {
    record: RequestRecord,
    /// When the request's header had been read.
    began: Instant,
    recorder: Arc<Recorder>,
}

impl Trace {
    /// A request that begins now.
    #[must_use]
    pub fn begin(request_id: String, surface: Surface, recorder: Arc<Recorder>) -> Self {
        Self { record: RequestRecord::begin(request_id, surface), began: Instant::now(), recorder }
    }

    /// Milliseconds since it began.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes the record out, for the exchange of the request.
    #[must_use]
    pub fn take_record(&mut self) -> RequestRecord {
        std::mem::take(&mut self.record)
    }

    /// Puts it back when the exchange is over.
    pub fn conclude(&mut self, record: RequestRecord) {
        self.record = record;
    }
}

impl Deref for Trace {
    type Target = RequestRecord;

    fn deref(&self) -> &RequestRecord {
        &self.record
    }
}

impl DerefMut for Trace {
    fn deref_mut(&mut self) -> &mut RequestRecord {
        &mut self.record
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let latency_ms = self.began.elapsed().as_secs_f64() * 1e3;
        self.record.close(latency_ms, unix_ms());
        self.recorder.ended(std::mem::take(&mut self.record));
    }
}

/// The nodes that were asked and how it went, `a:error_500,b:completed`.
fn story(record: &RequestRecord) -> String {
    let told = record.attempts.iter().map(|attempt| format!("{}:{}", attempt.node_id, attempt.outcome.name()));
    told.collect::<Vec<_>>().join(",")
}

/// One line of the log.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds; casts from floats saturate")]
pub(crate) fn log(record: &RequestRecord) {
    let whole = |ms: f64| ms as u64;
    tracing::info!(
        target: "herd::request",
        request_id = record.request_id,
        benchmark = record.benchmark,
        surface = record.surface_name(),
        key_id = record.key_id,
        model = record.original_model,
        served_model = if record.node_id.is_empty() { "" } else { &record.model },
        stand_in = record.stand_in.map_or("", herd_core::vocabulary::StandIn::name),
        node_id = record.node_id,
        score = record.score.unwrap_or_default(),
        attempts = story(record),
        http_status = record.http_status,
        status = record.status_name(),
        latency_ms = whole(record.latency_ms),
        queue_ms = record.queue_ms.map(whole),
        predicted_ms = record.predicted_ms,
        ttft_ms = record.first_byte_ms().map(whole),
        num_ctx = record.num_ctx,
        context_length = record.context_length,
        context_action = record.context_action.map_or("", herd_core::vocabulary::ContextAction::name),
        reload_cause = record.reload_cause.map_or("", herd_core::vocabulary::ReloadCause::name),
        prompt_tokens = record.counts.prompt_tokens,
        completion_tokens = record.counts.completion_tokens,
        tokens_estimated = record.counts.estimated,
        load_ms = record.counts.load_ms,
        response_bytes = record.response_bytes,
        error = record.error_message.as_deref().unwrap_or_default(),
        "request ended"
    );
}
