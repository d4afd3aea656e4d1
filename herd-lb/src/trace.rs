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
