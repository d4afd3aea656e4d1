//! How long each kind of silent node is waited for.

use super::*;
use crate::inspect::{InspectLimits, inspect};
use crate::protect::ContextAction;
use crate::request::Surface;

/// What is known of a node, and how it changes.
#[derive(Clone, Copy)]
struct Known {
    evidence: Evidence,
    condition: Condition,
    /// Between heartbeats, milliseconds; `None` = none comes.
    heartbeat_ms: Option<u64>,
    alternative: bool,
    /// What `evidence.activity` grows by every second.
    works: u64,
}

struct At {
    known: Known,
    now_ms: u64,
}

impl Signs for At {
    fn evidence(&self) -> Option<Evidence> {
        let activity = self.known.evidence.activity.map(|before| before + self.known.works * (self.now_ms / 1_000));
        Some(Evidence { activity, ..self.known.evidence })
    }

    fn condition(&self) -> Condition {
        self.known.condition
    }

    fn heartbeat_at_ms(&self) -> Option<u64> {
        self.known.heartbeat_ms.map(|every_ms| self.now_ms / every_ms * every_ms)
    }

    fn heartbeat_interval_ms(&self) -> u64 {
        self.known.heartbeat_ms.unwrap_or(0)
    }

    fn has_alternative(&self, _tried: &[u32]) -> bool {
        self.known.alternative
    }

    fn stopping(&self) -> bool {
        false
    }
}

const HOT: Evidence =
    Evidence { tokens_done: None, resident: true, loading: false, activity: None, activity_conclusive: false };
/// A runner whose work is seen by what its process uses.
const VISIBLE: Evidence = Evidence { activity: Some(1), activity_conclusive: true, ..HOT };
const PATIENCE: Patience = Patience {
    first_byte_floor_ms: 25_000,
    first_byte_ceiling_ms: 600_000,
    first_byte_factor: 4.0,
    no_progress_ms: 600_000,
    dead_node_ms: 15_000,
};
const FINE: Known =
    Known { evidence: HOT, condition: Condition::Well, heartbeat_ms: Some(5_000), alternative: true, works: 0 };

fn silence(known: &Known, body: &str, loads: bool) -> Silence {
    let profile = inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap();
    let action = if loads { ContextAction::Load } else { ContextAction::Kept };
    let plan = ContextPlan { action, ..ContextPlan::default() };
    let prediction = Prediction { prefill_ms: 1_000.0, ..Prediction::default() };
    Silence::begin(&profile, &plan, &prediction, known.evidence, 0)
}

/// When a silence that begins at 0 is given up, and why; `None` = not within an hour.
fn given_up(mut silence: Silence, known: Known) -> Option<(u64, GiveUp)> {
    let patience = PATIENCE;
    while silence.due_ms() < 3_600_000 {
        let now_ms = silence.due_ms();
        match silence.judge(&At { known, now_ms }, Some(&[]), &patience, now_ms) {
            Verdict::Wait => assert!(silence.due_ms() > now_ms),
            Verdict::GiveUp(why) => return Some((now_ms, why)),
        }
    }
    None
}

const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const WHOLE: &str = r#"{"model":"m","stream":false,"messages":[{"role":"user","content":"hi"}]}"#;

#[track_caller]
fn check(known: Known, expected: Option<(u64, GiveUp)>) {
    assert_eq!(given_up(silence(&known, STREAM, false), known), expected);
}

#[test]
fn nothing_known_against_a_node_it_is_waited_for_up_to_the_ceiling() {
    check(Known { alternative: false, ..FINE }, Some((600_000, GiveUp::NoFirstByte)));
    // A load has no cheap alternative, whatever is ready.
    assert_eq!(given_up(silence(&FINE, STREAM, true), FINE), Some((600_000, GiveUp::NoFirstByte)));
    // Nor has an answer that may be being written, or a prompt that takes long to read.
    assert_eq!(given_up(silence(&FINE, WHOLE, false), FINE), Some((600_000, GiveUp::NoFirstByte)));
    let long =
        format!(r#"{{"model":"m","prompt":"","messages":[{{"role":"user","content":"{}"}}]}}"#, "word ".repeat(9_000));
    assert_eq!(given_up(silence(&FINE, &long, false), FINE), Some((600_000, GiveUp::NoFirstByte)));
}

#[test]
fn a_short_prompt_for_a_hot_model_is_asked_elsewhere_within_half_a_minute() {
    let (at_ms, why) = given_up(silence(&FINE, STREAM, false), FINE).unwrap();
    assert!((20_000..=30_000).contains(&at_ms) && why == GiveUp::NoFirstByte, "{at_ms}");
}

#[test]
fn a_dead_host_is_replaced_within_three_seconds() {
    let dead = Known { condition: Condition::Unreachable, heartbeat_ms: None, ..FINE };
    check(dead, Some((2_500, GiveUp::NodeDead)));
    check(Known { alternative: false, ..dead }, Some((15_000, GiveUp::NodeDead)));
    let unheard = Known { condition: Condition::ProbeFails, heartbeat_ms: None, ..FINE };
    check(unheard, Some((2_500, GiveUp::NodeDead)));
    check(Known { alternative: false, ..unheard }, Some((600_000, GiveUp::NodeDead)));
}

#[test]
fn a_runner_that_is_seen_to_do_nothing_is_replaced_within_ten_seconds() {
    let seen = Evidence { tokens_done: Some(7), ..VISIBLE };
    let stopped = Known { evidence: seen, ..FINE };
    let (at_ms, why) = given_up(silence(&stopped, STREAM, false), stopped).unwrap();
    assert!((8_000..=10_000).contains(&at_ms) && why == GiveUp::NoFirstByte, "{at_ms}");
    let hung = Known { condition: Condition::OllamaHung, ..FINE };
    let (at_ms, _) = given_up(silence(&hung, STREAM, false), hung).unwrap();
    assert!((8_000..=10_000).contains(&at_ms), "{at_ms}");
    check(Known { alternative: false, ..stopped }, Some((600_000, GiveUp::NoFirstByte)));
}

#[test]
fn a_runner_without_visible_slots_that_stops_is_replaced_within_ten_seconds_where_a_stop_shows() {
    let stopped = Known { evidence: VISIBLE, ..FINE };
    for body in [STREAM, WHOLE] {
        let (at_ms, why) = given_up(silence(&stopped, body, false), stopped).unwrap();
        assert!((8_000..=10_000).contains(&at_ms) && why == GiveUp::NoFirstByte, "{at_ms}");
    }
    let unknown = Known { evidence: Evidence { activity_conclusive: false, ..VISIBLE }, ..FINE };
    let (at_ms, _) = given_up(silence(&unknown, STREAM, false), unknown).unwrap();
    assert!((20_000..=30_000).contains(&at_ms), "as where nothing is known: {at_ms}");
}

#[test]
fn a_runner_that_works_is_never_given_up() {
    check(Known { evidence: VISIBLE, works: 3, ..FINE }, None);
    check(Known { evidence: Evidence { activity_conclusive: false, ..VISIBLE }, works: 3, ..FINE }, None);
    // A long step of the prompt, in which no token is counted.
    check(Known { evidence: Evidence { tokens_done: Some(7), ..VISIBLE }, works: 3, ..FINE }, None);
    check(Known { evidence: Evidence { loading: true, resident: false, ..HOT }, ..FINE }, None);
}

#[test]
fn after_the_first_byte_no_other_node_takes_over_and_two_minutes_of_silence_are_nothing() {
    let mut answered = silence(&FINE, STREAM, false);
    answered.byte(Stage::Passing, 0);
    assert_eq!(given_up(answered, FINE), Some((600_000, GiveUp::NoProgress)));
    let seen = Known { evidence: VISIBLE, ..FINE };
    let mut stopped = silence(&seen, STREAM, false);
    stopped.byte(Stage::Passing, 0);
    assert_eq!(given_up(stopped, seen), Some((120_000, GiveUp::NoProgress)));
}

#[test]
fn an_agent_that_reports_seldom_is_heard_twice_before_its_runner_counts_as_stopped() {
    let seldom = |every_ms| Known { evidence: VISIBLE, heartbeat_ms: Some(every_ms), ..FINE };
    for (every_ms, earliest_ms) in [(1_000, 8_000), (5_000, 8_000), (60_000, 63_000)] {
        // No other rule ends it: a load has no cheap alternative.
        let (at_ms, _) = given_up(silence(&seldom(every_ms), STREAM, true), seldom(every_ms)).unwrap();
        assert!((earliest_ms..earliest_ms + every_ms + 2_000).contains(&at_ms), "{every_ms}: {at_ms}");
    }
}

#[test]
fn a_judge_that_was_frozen_itself_begins_anew() {
    let dead = Known { condition: Condition::Unreachable, heartbeat_ms: None, ..FINE };
    let mut silence = silence(&dead, STREAM, false);
    let verdict = silence.judge(&At { known: dead, now_ms: 130_000 }, Some(&[]), &PATIENCE, 130_000);
    assert_eq!((verdict, silence.due_ms()), (Verdict::Wait, 131_000));
}

#[test]
fn progress_of_any_kind_begins_the_silence_anew() {
    let known = Known { alternative: false, ..FINE };
    for before in [Evidence { tokens_done: Some(0), ..HOT }, Evidence { resident: false, ..HOT }] {
        let mut silence = silence(&Known { evidence: before, ..known }, STREAM, false);
        for now_ms in (1_000..=500_000).step_by(1_000) {
            let at = At { known: Known { evidence: before, ..known }, now_ms };
            assert_eq!(silence.judge(&at, Some(&[]), &PATIENCE, now_ms), Verdict::Wait);
        }
        let after = Known { evidence: Evidence { tokens_done: before.tokens_done.map(|_| 5), ..HOT }, ..known };
        let (at_ms, _) = given_up(silence, after).unwrap();
        assert_eq!(at_ms, 501_000 + 600_000);
    }
}

#[test]
fn a_prediction_is_kept_within_bounds_and_one_that_is_no_number_counts_as_the_least() {
    let waits_ms = |predicted_ms| bounded(predicted_ms, 25_000, 600_000);
    assert_eq!([0.0, 40_000.0, 1e9, f64::NAN].map(waits_ms), [25_000, 40_000, 600_000, 25_000]);
}
