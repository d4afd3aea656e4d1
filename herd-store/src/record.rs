//! The bounds of what is kept of one request.

use herd_core::record::{AttemptRecord, Candidates, RequestRecord};
use herd_core::vocabulary::{Recorded, Word};

/// Most bytes of an id, a name or an address.
const NAME_BYTES: usize = 256;
/// Most bytes of an error message.
const MESSAGE_BYTES: usize = 2_000;
/// Most bytes of the signals of all candidates; JSON cannot be cut, so what is longer is left out.
const BREAKDOWN_BYTES: usize = 16 << 10;
/// Most tags of a request.
const TAGS: usize = 16;
/// Most attempts that are kept of a request.
const ATTEMPTS: usize = 32;

/// `record` within the bounds of the store: strings are cut, numbers that are none become unknown, and candidates
/// become JSON, so that no picture of the fleet is kept for them.
pub(super) fn bounded(mut record: RequestRecord) -> RequestRecord {
    for name in [
        &mut record.request_id,
        &mut record.model,
        &mut record.original_model,
        &mut record.node_id,
        &mut record.client_ip,
        &mut record.app,
        &mut record.key_id,
        &mut record.user_agent,
    ] {
        cut(name, NAME_BYTES);
    }
    record.surface.iter_mut().for_each(cut_word);
    record.status.iter_mut().for_each(cut_word);
    if let Some(message) = &mut record.error_message {
        cut(message, MESSAGE_BYTES);
    }
    record.candidates = as_json(record.candidates);
    record.tags.truncate(TAGS);
    record.tags.iter_mut().for_each(|tag| cut(tag, NAME_BYTES));
    record.latency_ms = duration(Some(record.latency_ms)).unwrap_or(0.0);
    for time in [
        &mut record.time_to_first_token_ms,
        &mut record.queue_ms,
        &mut record.counts.load_ms,
        &mut record.decode_ms,
        &mut record.predicted_ms,
    ] {
        *time = duration(*time);
    }
    record.score = record.score.filter(|score| score.is_finite());
    record.attempts.truncate(ATTEMPTS);
    record.attempts.iter_mut().for_each(bound_attempt);
    record
}

fn as_json(candidates: Candidates) -> Candidates {
    let json = match candidates {
        _ if candidates.is_empty() => return Candidates::None,
        Candidates::Json(json) => Some(json),
        ranked => serde_json::to_string(&ranked).ok().map(Into::into),
    };
    json.filter(|json| json.len() <= BREAKDOWN_BYTES).map_or(Candidates::None, Candidates::Json)
}

fn bound_attempt(attempt: &mut AttemptRecord) {
    cut(&mut attempt.node_id, NAME_BYTES);
    cut_word(&mut attempt.outcome);
    attempt.score = attempt.score.filter(|score| score.is_finite());
    attempt.started_ms = duration(attempt.started_ms);
    attempt.duration_ms = duration(attempt.duration_ms);
}

fn duration(ms: Option<f64>) -> Option<f64> {
    ms.filter(|ms| ms.is_finite()).map(|ms| ms.max(0.0))
}

fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
    }
}

/// Herd's own words are short.
fn cut_word<W: Word>(word: &mut Recorded<W>) {
    if let Recorded::Foreign(text) = word
        && text.len() > NAME_BYTES
    {
        *text = text[..text.floor_char_boundary(NAME_BYTES)].into();
    }
}
