//! What one answered request teaches of the runner that served it.
//!
//! Rates describe a runner that is in memory: no time that holds a load, or may hold one, becomes part of a rate.
//! Ollama's own API tells a load's duration; the other APIs do not, so that there the plan, the heartbeats and the
//! rates known so far decide whether a time is usable. When in doubt nothing is learned.

use crate::answer::Counts;
use crate::estimate::needs_load;
use crate::fleet::Model;
use crate::load::Work;
use crate::protect::ContextPlan;
use crate::request::Dialect;

/// A load reported by Ollama that takes at least this is a load; for a resident model it reports one or two
/// milliseconds.
pub const LOAD_REPORTED_MS: f64 = 250.0;

/// A whole answer without reported times that takes this many times what is known of its runner may hold a load that
/// nobody reported.
const SUSPICIOUS_FACTOR: f64 = 4.0;

/// The times of one attempt, measured by the edge from the moment at which the node was asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// To the last byte of the answer, milliseconds.
    pub service_ms: f64,
    /// To its first byte, milliseconds; `None` = the answer was not streamed, so that its first byte comes when all of
    /// it has been written.
    pub first_byte_ms: Option<f64>,
    /// Whether the model was loaded meanwhile, as far as [`was_loaded`] can tell.
    pub loaded: bool,
}

/// What is to be learned from an answer. Everything that is `None` is left as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lesson {
    /// What the whole request took on a resident runner, milliseconds.
    pub service_ms: Option<f64>,
    /// What its parts took, not yet corrected for what ran beside it; see [`crate::estimate::alone`].
    pub work: Work,
    /// Ollama reports a load that was not planned.
    pub unforeseen_load: bool,
}

/// Whether a request that was sent to a node under `plan`, when the model there was as `before`, met a load: because
/// one was planned, or because the heartbeats up to its end (`after`, as the node has it now) tell of another runner.
#[must_use]
pub fn was_loaded(plan: &ContextPlan, before: &Model, after: Option<&Model>) -> bool {
    let context = |model: &Model| model.resident.as_ref().map(|resident| resident.context_length);
    let changed = |after: &Model| {
        let (old, new) = (context(before), context(after));
        // A context that was not known and is known now is no change.
        new.is_some() && matches!((old.flatten(), new.flatten()), (Some(old), Some(new)) if old != new)
    };
    needs_load(plan) || before.resident.is_none() || after.is_some_and(changed)
}

/// What a load has taken, told by the first byte of an answer, milliseconds; `None` = this answer does not tell it:
/// Ollama's own API reports it at the end, and the first byte of a whole answer comes after all of it was written.
///
/// `taken_ms` is the time since the load began, `prefill_ms` the predicted time for reading the prompt.
#[must_use]
pub fn load_ms_at_first_byte(dialect: Dialect, streamed: bool, taken_ms: f64, prefill_ms: f64) -> Option<f64> {
    (streamed && dialect != Dialect::Ollama).then_some((taken_ms - prefill_ms).max(1.0))
}

/// What an answer of `counts` and `timing` teaches of `model`.
#[must_use]
pub fn lesson(counts: &Counts, timing: &Timing, model: &Model) -> Lesson {
    let reported_load = counts.load_ms.map(|ms| ms >= LOAD_REPORTED_MS);
    let loaded = reported_load.unwrap_or(timing.loaded);
    let is_doubtful = reported_load.is_none() && may_hold_load(counts, timing, model);
    let without_load = |load_ms: f64| Some(timing.service_ms - load_ms).filter(|left| *left > 0.0);
    let service_ms = match (loaded, counts.load_ms) {
        (true, Some(load_ms)) => without_load(load_ms),
        (true, None) => None,
        (false, _) => Some(timing.service_ms).filter(|_| !is_doubtful),
    };
    // The first byte of a stream comes after any load.
    let written_ms = match timing.first_byte_ms {
        Some(first_byte_ms) => Some((timing.service_ms - first_byte_ms).max(0.0)),
        None => service_ms,
    };
    let work = Work {
        load_ms: counts.load_ms.filter(|_| loaded),
        prefill: part(counts.prompt_tokens, counts.prefill_ms),
        decode: part(counts.completion_tokens.filter(|_| !counts.estimated), counts.decode_ms.or(written_ms)),
    };
    Lesson { service_ms, work, unforeseen_load: loaded && !timing.loaded }
}

/// When an answer was written, milliseconds since the node was asked, from and to; `None` = that is not known.
///
/// Ollama's own API tells it. Else a stream is taken to be written as it comes; a client that reads slowly draws that out.
#[must_use]
pub fn written(counts: &Counts, timing: &Timing) -> Option<(u64, u64)> {
    let (from_ms, to_ms) = match (counts.total_ms, counts.decode_ms) {
        (Some(total_ms), Some(decode_ms)) => {
            let to_ms = total_ms.min(timing.service_ms);
            (to_ms - decode_ms, to_ms)
        }
        _ => (timing.first_byte_ms?, timing.service_ms),
    };
    Some((whole_ms(from_ms), whole_ms(to_ms)))
}

/// Time that a request spends in Ollama beyond its parts before it counts as having waited for a slot.
const WAITED_MS: f64 = 1_000.0;

/// Whether a request waited for a slot inside its node: Ollama tells all of its time and that of the parts, and the wait is
/// what is left. `None` = it is not told.
#[must_use]
pub fn waited_inside(counts: &Counts, timing: &Timing) -> Option<bool> {
    let (load_ms, prefill_ms, decode_ms) = (counts.load_ms?, counts.prefill_ms?, counts.decode_ms?);
    let in_all_ms = counts.total_ms? - load_ms - prefill_ms - decode_ms;
    // What comes after the first byte is the reading, which may be slow.
    let before_first_ms = timing.first_byte_ms.map_or(f64::INFINITY, |first_ms| first_ms - load_ms - prefill_ms);
    Some(in_all_ms.min(before_first_ms) >= WAITED_MS)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts from floats saturate")]
fn whole_ms(ms: f64) -> u64 {
    ms as u64
}

/// Tokens and their time, where both are known.
fn part(tokens: Option<u64>, ms: Option<f64>) -> Option<(u64, f64)> {
    Some((tokens?, ms?)).filter(|(tokens, _)| *tokens > 0)
}

/// Whether an untimed whole answer took so much longer than the runner is known to need that a load may be in it.
fn may_hold_load(counts: &Counts, timing: &Timing, model: &Model) -> bool {
    let (None, Some(tokens), Some(rate)) =
        (timing.first_byte_ms, counts.completion_tokens, model.load.decode_ms_per_token())
    else {
        return false;
    };
    let prefill_ms = model.load.prefill_ms_per_token().unwrap_or(0.0) * counts.prompt_tokens.unwrap_or(0) as f64;
    let known_ms = prefill_ms + rate * tokens as f64;
    timing.service_ms > known_ms * SUSPICIOUS_FACTOR + LOAD_REPORTED_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protect::ContextAction;
    use crate::testing::{NodeSpec, fleet};

    fn model(spec: NodeSpec) -> Model {
        fleet(&[("a", spec)], 1_000).nodes[0].models[0].clone()
    }

    fn hot() -> Model {
        model(NodeSpec::default().hot("m", 4096))
    }

    fn whole(service_ms: f64, loaded: bool) -> Timing {
        Timing { service_ms, first_byte_ms: None, loaded }
    }

    const V1: Counts = Counts {
        prompt_tokens: Some(10),
        completion_tokens: Some(100),
        estimated: false,
        load_ms: None,
        prefill_ms: None,
        decode_ms: None,
        total_ms: None,
    };

    #[test]
    fn a_cold_load_by_a_whole_answer_is_no_run_time() {
        let lesson = lesson(&V1, &whole(30_000.0, true), &hot());
        assert_eq!((lesson.service_ms, lesson.work), (None, Work::default()));
        assert!(!lesson.unforeseen_load);
    }

    #[test]
    fn a_load_that_ollama_reports_is_taken_out() {
        let native = Counts { load_ms: Some(9_000.0), prefill_ms: Some(50.0), decode_ms: Some(900.0), ..V1 };
        let learned = lesson(&native, &whole(10_000.0, true), &hot());
        assert_eq!(learned.service_ms, Some(1_000.0));
        let work = Work { load_ms: Some(9_000.0), prefill: Some((10, 50.0)), decode: Some((100, 900.0)) };
        assert_eq!(learned.work, work);
        let unforeseen = lesson(&native, &whole(10_000.0, false), &hot());
        assert_eq!((unforeseen.unforeseen_load, unforeseen.work, unforeseen.service_ms), (true, work, Some(1_000.0)));
        // A load that was planned and did not happen: the model was in memory already.
        let warm = Counts { load_ms: Some(1.5), ..native };
        let learned = lesson(&warm, &whole(1_000.0, true), &hot());
        assert_eq!((learned.service_ms, learned.work.load_ms), (Some(1_000.0), None));
    }

    #[test]
    fn a_stream_is_timed_from_its_first_byte() {
        let timing = |loaded| Timing { service_ms: 12_000.0, first_byte_ms: Some(10_000.0), loaded };
        let cold = lesson(&V1, &timing(true), &hot());
        assert_eq!((cold.service_ms, cold.work.decode), (None, Some((100, 2_000.0))));
        assert_eq!(lesson(&V1, &timing(false), &hot()).service_ms, Some(12_000.0));
    }

    #[test]
    fn a_whole_answer_that_is_far_too_slow_teaches_nothing() {
        let known = hot();
        known.load.observe_work(&Work { decode: Some((100, 1_000.0)), ..Work::default() });
        assert_eq!(lesson(&V1, &whole(1_200.0, false), &known).work.decode, Some((100, 1_200.0)));
        assert_eq!(lesson(&V1, &whole(3_000.0, false), &known).service_ms, Some(3_000.0), "slower, and believed");
        let doubted = lesson(&V1, &whole(8_000.0, false), &known);
        assert_eq!((doubted.service_ms, doubted.work.decode), (None, None));
    }

    #[test]
    fn ollama_tells_when_it_wrote_and_whether_a_request_waited_inside() {
        let native = Counts {
            load_ms: Some(2.0),
            prefill_ms: Some(500.0),
            decode_ms: Some(4_000.0),
            total_ms: Some(4_510.0),
            ..V1
        };
        let stream = |first_byte_ms| Timing { service_ms: 60_000.0, first_byte_ms: Some(first_byte_ms), loaded: false };
        assert_eq!(written(&native, &stream(510.0)), Some((510, 4_510)), "its client reads slowly");
        assert_eq!(waited_inside(&native, &stream(510.0)), Some(false));
        let waited = Counts { total_ms: Some(9_510.0), ..native };
        assert_eq!(waited_inside(&waited, &stream(5_510.0)), Some(true));
        assert_eq!(waited_inside(&waited, &stream(510.0)), Some(false), "it was being read");
        assert_eq!(waited_inside(&waited, &whole(9_520.0, false)), Some(true));
        assert_eq!(written(&waited, &whole(9_520.0, false)), Some((5_510, 9_510)));
        let loaded = Counts { load_ms: Some(5_000.0), ..waited };
        assert_eq!(waited_inside(&loaded, &whole(9_520.0, true)), Some(false), "a load is told as one");
        assert_eq!((written(&V1, &stream(300.0)), waited_inside(&V1, &stream(300.0))), (Some((300, 60_000)), None));
        assert_eq!(written(&V1, &whole(300.0, false)), None);
    }

    #[test]
    fn estimated_tokens_teach_no_rate() {
        let estimated = Counts { estimated: true, ..V1 };
        assert_eq!(lesson(&estimated, &whole(1_000.0, false), &hot()).work.decode, None);
    }

    #[test]
    fn loads_are_told_by_the_plan_and_by_heartbeats() {
        let kept = ContextPlan { action: ContextAction::Kept, ..ContextPlan::default() };
        let (cold, other) = (model(NodeSpec::default().cold("m")), model(NodeSpec::default().hot("m", 8192)));
        assert!(was_loaded(&ContextPlan { action: ContextAction::Load, ..kept }, &cold, None));
        assert!(was_loaded(&ContextPlan { action: ContextAction::Reload, ..kept }, &hot(), Some(&hot())));
        assert!(was_loaded(&kept, &hot(), Some(&other)), "another context: another runner");
        assert!(!was_loaded(&kept, &hot(), Some(&hot())) && !was_loaded(&kept, &hot(), None));
    }

    #[test]
    fn the_first_byte_tells_a_load_where_nothing_else_does() {
        assert_eq!(load_ms_at_first_byte(Dialect::OpenAi, true, 5_000.0, 200.0), Some(4_800.0));
        assert_eq!(load_ms_at_first_byte(Dialect::OpenAi, false, 5_000.0, 200.0), None);
        assert_eq!(load_ms_at_first_byte(Dialect::Ollama, true, 5_000.0, 200.0), None);
    }
}
