//! What holds for every sequence of events.

use proptest::prelude::*;

use super::*;
use crate::vocabulary::Outcome;

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    prop_oneof![
        2 => Just(Refuses),
        1 => Just(ConnectTimesOut),
        2 => Just(Resets),
        1 => Just(ClosesKept),
        4 => Just(Answers(200)),
        1 => Just(Answers(400)),
        1 => Just(Answers(404)),
        2 => Just(Answers(500)),
        2 => Just(Answers(503)),
        3 => Just(Bytes),
        3 => Just(EndsWhole),
        2 => Just(EndsTorn),
        1 => Just(EndsWithError),
        2 => Just(StaysSilent),
        1 => Just(Overflows),
        1 => Just(SlotFrees),
        1 => Just(Leaves),
        1 => Just(Violates),
        1 => Just(Cancelled),
        1 => Just(Stopping),
    ]
}

/// Every law, for one sequence. The test that a failure prints can be pasted.
fn check(nodes: usize, stream: bool, hold_ms: u64, happenings: &[Happening]) -> Result<(), String> {
    let mut universe = Universe::new(nodes);
    universe.policy.hold.max_ms = hold_ms;
    let mut exchange = universe.exchange(if stream { STREAM } else { WHOLE });
    universe.drive(&mut exchange, happenings);
    let record = exchange.record();
    let law = |holds: bool, law: &str| {
        let told =
            || format!("{law}\n    check({nodes}, {stream}, {hold_ms}, &{happenings:?}).unwrap();\n{exchange:#?}");
        if holds { Ok(()) } else { Err(told()) }
    };
    law(exchange.has_ended(), "every sequence ends")?;
    law(record.known_status().is_some(), "with a status of the vocabulary")?;
    law(universe.in_flight() == 0, "every slot is given back")?;
    law(universe.asked_late.get() == 0, "no node is asked after a byte reached the client")?;
    law(exchange.attempts_spent <= universe.policy.max_attempts, "there are no more attempts than allowed")?;
    law(
        record.attempts.iter().all(|asked| asked.outcome.known() != Some(Outcome::Running)),
        "no attempt is left running",
    )?;
    let completed = record.known_status() == Some(Status::Completed);
    law(!completed || (200..400).contains(&record.http_status), "what is completed had a good status")?;
    let torn = !stream && record.http_status == 200 && record.known_status() == Some(Status::Incomplete);
    let passed = happenings.iter().any(|one| matches!(one, Happening::Overflows | Happening::EndsWithError));
    let dropped = exchange.client() != Client::Answer;
    law(!torn || passed || dropped, "a whole answer is never torn")?;
    let status = record.known_status();
    for late in happenings {
        let action = universe.happen(&mut exchange, *late);
        let quiet = matches!(action, Action::None | Action::End);
        if !quiet || exchange.record().known_status() != status {
            return Err(format!("nothing happens after the end: {late:?} {action:?} after {happenings:?}"));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_exchange_ends_once_and_leaves_nothing_behind(
        nodes in 0_usize..4,
        stream in any::<bool>(),
        hold_ms in prop_oneof![Just(0), Just(2_000)],
        happenings in prop::collection::vec(happening(), 0..14),
    ) {
        check(nodes, stream, hold_ms, &happenings).map_err(TestCaseError::fail)?;
    }
}
