//! Single rules, each with the sequence that shows it.

use Happening::*;

use super::*;

fn driven(universe: &Universe, body: &str, happenings: &[Happening]) -> Exchange {
    let mut exchange = universe.exchange(body);
    universe.drive(&mut exchange, happenings);
    exchange
}

fn outcomes(exchange: &Exchange) -> Vec<&str> {
    exchange.record().attempts.iter().map(|asked| asked.outcome.name()).collect()
}

fn failures(universe: &Universe, id: &str) -> u64 {
    let snapshot = universe.snapshot();
    let node = snapshot.node(id).unwrap();
    // Two more make an ejection of what has failed once.
    (0..2).for_each(|_| node.load.failed(0));
    node.load.ejected_for_ms(0)
}

#[test]
fn an_error_is_the_nodes_only_if_another_serves_the_request() {
    let universe = Universe::new(2);
    let served = driven(&universe, STREAM, &[Answers(500), Answers(200), Bytes, EndsWhole]);
    assert_eq!(outcomes(&served), ["error_status", "completed"]);
    let first = served.record().attempts[0].node_id.clone();
    assert!(failures(&universe, &first) > 0);
    let universe = Universe::new(2);
    let failed = driven(&universe, STREAM, &[Answers(500), Answers(500), EndsWhole]);
    assert_eq!((outcomes(&failed), failed.record().http_status), (vec!["error_status", "failed"], 500));
    assert_eq!(failures(&universe, "a"), 0);
}

#[test]
fn a_kept_connection_that_was_closed_is_tried_once_more_and_costs_no_attempt() {
    let universe = Universe::new(3);
    let exchange = driven(&universe, STREAM, &[ClosesKept, ClosesKept, Resets, Resets]);
    assert_eq!(outcomes(&exchange), ["stale_connection", "reset", "failed"]);
    assert_eq!(exchange.record().http_status, 502);
}

#[test]
fn the_budget_of_the_fleet_bounds_retries_of_what_was_sent() {
    let mut universe = Universe::new(2);
    universe.retries = Retries::new(BudgetLimits { ratio: 0.0, per_s: 0.0, burst: 0.0 });
    let sent = driven(&universe, STREAM, &[Answers(500), EndsWhole]);
    assert_eq!((outcomes(&sent), sent.record().http_status), (vec!["failed"], 500));
    let unsent = driven(&universe, STREAM, &[Refuses, Answers(200), EndsWhole]);
    assert_eq!(outcomes(&unsent), ["connect_refused", "completed"]);
}

#[test]
fn nodes_that_were_not_reached_are_asked_again_while_they_are_held_for() {
    let mut universe = Universe::new(1);
    universe.policy.hold.max_ms = 2_000;
    let exchange = driven(&universe, STREAM, &[Refuses, StaysSilent, Refuses, StaysSilent, Answers(200), EndsWhole]);
    assert_eq!(outcomes(&exchange), ["connect_refused", "connect_refused", "completed"]);
    assert!(exchange.record().queue_ms >= Some(500.0));
}

#[test]
fn nodes_that_all_refuse_connections_are_told_of_within_three_seconds() {
    let mut universe = Universe::new(1);
    universe.policy.hold.max_ms = 30_000;
    let began_ms = universe.now_ms.get();
    let steps: Vec<_> = [Refuses, StaysSilent].into_iter().cycle().take(200).collect();
    let exchange = driven(&universe, STREAM, &steps);
    let took_ms = universe.now_ms.get() - began_ms;
    assert!((2_000..=3_000).contains(&took_ms), "{took_ms}");
    let record = exchange.record();
    assert_eq!((record.http_status, record.known_status()), (502, Some(Status::Failed)), "{record:?}");
    assert!(record.attempts.len() <= 12, "{}", record.attempts.len());
    // One that is away for other reasons is held for.
    let steps: Vec<_> = [Refuses, StaysSilent].into_iter().cycle().take(6).chain([Answers(200), EndsWhole]).collect();
    assert_eq!(driven(&universe, STREAM, &steps).record().http_status, 200);
}

#[test]
fn a_whole_answer_is_held_until_it_is_complete() {
    let universe = Universe::new(1);
    driven(&universe, WHOLE, &[Answers(200), Bytes, EndsWhole]);
    assert_eq!(*universe.actions.borrow(), ["Seek", "Ask", "Accept", "Release"]);
    let universe = Universe::new(2);
    let retried = driven(&universe, WHOLE, &[Answers(200), Bytes, Bytes, EndsTorn, Answers(200), Bytes, EndsWhole]);
    assert_eq!((outcomes(&retried), retried.record().response_bytes), (vec!["torn_answer", "completed"], 10));
    assert_eq!(retried.record().counts, Seen::WHOLE.counts);
    let universe = Universe::new(2);
    let failed = driven(&universe, WHOLE, &[Answers(200), Bytes, EndsTorn, Resets]);
    assert_eq!((outcomes(&failed), failed.record().counts), (vec!["torn_answer", "failed"], Seen::WHOLE.counts));
    let universe = Universe::new(2);
    let passed = driven(&universe, WHOLE, &[Answers(200), Bytes, Overflows, Bytes, EndsTorn]);
    assert_eq!((outcomes(&passed), passed.client()), (vec!["incomplete"], Client::Answer));
    assert_eq!(universe.actions.borrow().last().map(String::as_str), Some("TellTorn"));
}

#[test]
fn a_cancelled_request_is_not_asked_of_another_node_and_keeps_its_slot_until_the_connection_is_closed() {
    let universe = Universe::new(2);
    let mut exchange = universe.exchange(STREAM);
    let Action::Seek(seek) = exchange.handle(Event::Ready, &universe.env()) else { panic!("{exchange:?}") };
    assert!(matches!(exchange.handle(Event::Offered(universe.offer(&seek)), &universe.env()), Action::Ask));
    assert!(matches!(exchange.handle(Event::Sent { name: name("m") }, &universe.env()), Action::None));
    let action = exchange.abandon(GiveUp::Cancelled);
    assert!(matches!(action, Action::Abandon(GiveUp::Cancelled)), "{action:?}");
    assert_eq!(universe.in_flight(), 1);
    let action = exchange.handle(Event::Broke { reused: false }, &universe.env());
    assert!(matches!(action, Action::Refuse(Refusal::Cancelled)), "{action:?}");
    assert_eq!((universe.in_flight(), exchange.record().known_status()), (0, Some(Status::Cancelled)));
}

#[test]
fn a_request_that_waits_can_be_cancelled_and_ends_at_its_deadline() {
    let universe = Universe::new(1);
    let mut first = universe.exchange(STREAM);
    let Action::Seek(seek) = first.handle(Event::Ready, &universe.env()) else { panic!("{first:?}") };
    assert!(matches!(first.handle(Event::Offered(universe.offer(&seek)), &universe.env()), Action::Ask));
    let cancelled = driven(&universe, STREAM, &[Cancelled]);
    assert_eq!(cancelled.record().known_status(), Some(Status::Cancelled));
    let late = driven(&universe, STREAM, &[StaysSilent]);
    let record = late.record();
    assert_eq!(
        (record.http_status, record.known_status(), record.queue_ms),
        (503, Some(Status::Rejected), Some(300_000.0))
    );
    drop(first);
    assert_eq!(universe.in_flight(), 0);
}

#[test]
fn a_process_that_was_frozen_does_not_end_what_waits() {
    let universe = Universe::new(1);
    let mut first = universe.exchange(STREAM);
    let Action::Seek(seek) = first.handle(Event::Ready, &universe.env()) else { panic!("{first:?}") };
    let _slot = first.handle(Event::Offered(universe.offer(&seek)), &universe.env());
    let mut exchange = universe.exchange(STREAM);
    let Action::Seek(seek) = exchange.handle(Event::Ready, &universe.env()) else { panic!("{exchange:?}") };
    let action = exchange.handle(Event::Offered(universe.offer(&seek)), &universe.env());
    assert!(matches!(action, Action::Wait));
    universe.now_ms.set(universe.now_ms.get() + universe.policy.max_wait_ms + 130_000);
    assert!(matches!(exchange.handle_timeout(&universe.env(), &universe), Action::None), "another second");
    let due_ms = exchange.poll_timeout(&universe.env()).unwrap();
    assert_eq!(due_ms, universe.now_ms.get() + 1_000);
}

#[test]
fn a_silent_node_is_not_given_up_early_where_no_other_would_be_asked() {
    // When the last node that is asked is given up, milliseconds after it was asked.
    let given_up = |universe: &Universe, happenings: &[Happening]| {
        let exchange = driven(universe, STREAM, happenings);
        let asked = exchange.record().attempts.last().and_then(|asked| asked.started_ms).unwrap();
        (outcomes(&exchange).len(), universe.now_ms.get() as f64 - exchange.began_ms() as f64 - asked)
    };
    let ceiling_ms = Universe::new(2).policy.patience.first_byte_ceiling_ms as f64;
    let (asked, ms) = given_up(&Universe::new(2), &[Answers(500), StaysSilent]);
    assert!(asked == 2 && ms >= ceiling_ms, "the other node has been asked: {ms}");
    let mut last = Universe::new(3);
    last.policy.max_attempts = 2;
    let (asked, ms) = given_up(&last, &[Answers(500), StaysSilent]);
    assert!(asked == 2 && ms >= ceiling_ms, "no more attempts: {ms}");
    let mut late = Universe::new(3);
    late.policy.retry_deadline_ms = 1;
    let (asked, ms) = given_up(&late, &[StaysSilent]);
    assert!(asked == 1 && ms >= ceiling_ms, "no more time: {ms}");
    let mut spent = Universe::new(2);
    spent.retries = Retries::new(BudgetLimits { ratio: 0.0, per_s: 0.0, burst: 0.0 });
    let (asked, ms) = given_up(&spent, &[StaysSilent]);
    assert!(asked == 1 && ms >= ceiling_ms, "no more retries: {ms}");
    let universe = Universe::new(2);
    let mut exchange = universe.exchange(STREAM);
    exchange.request.benchmark = true;
    universe.drive(&mut exchange, &[StaysSilent]);
    let ms = universe.now_ms.get() - exchange.began_ms();
    assert!(outcomes(&exchange).len() == 1 && ms as f64 >= ceiling_ms, "a benchmark: {ms}");
}

/// Ten seconds of an answer of one node, whose times Ollama tells; `inside_ms` of them it waited for a slot there.
fn answered(universe: &Universe, mut exchange: Exchange, inside_ms: f64) {
    universe.now_ms.set(universe.now_ms.get() + 1);
    drop(exchange.handle(Event::Head { status: 200 }, &universe.env()));
    let total_ms = exchange.attempt().map_or(0, |attempt| universe.now_ms.get() - attempt.began_ms) as f64;
    let counts = Counts {
        load_ms: Some(1.0),
        prefill_ms: Some(1.0),
        decode_ms: Some((total_ms - 2.0 - inside_ms).max(0.0)),
        total_ms: Some(total_ms),
        ..Counts::default()
    };
    let seen = Seen { ending: Ending::Complete, counts, ..Seen::WHOLE };
    let now = universe.snapshot.borrow().clone();
    drop(exchange.handle(Event::Finished(seen, now), &universe.env()));
}

/// A request that has waited for `waited_ms` and is sent, if a slot is found for it.
fn sent(universe: &Universe, waited_ms: u64) -> Option<Exchange> {
    let mut exchange = universe.exchange(r#"{"model":"m","stream":false,"messages":[]}"#);
    drop(exchange.handle(Event::Ready, &universe.env()));
    let place = Place { waited_ms, ..Place::default() };
    let profile = exchange.request().profile.clone();
    let Choices::Chosen(choice) = choice::choose(universe, &profile, &[], place, |_, _| None) else { return None };
    drop(exchange.handle(Event::Offered(Offer::Chosen(choice, Obtained::Waited)), &universe.env()));
    drop(exchange.handle(Event::Sent { name: profile.model.clone() }, &universe.env()));
    Some(exchange)
}

#[test]
fn slots_that_a_node_does_not_tell_are_found_by_requests_that_have_waited_long() {
    let universe = Universe::new(1);
    let pass = |ms: u64| universe.now_ms.set(universe.now_ms.get() + ms);
    let first = sent(&universe, 0).unwrap();
    assert!(sent(&universe, 2_999).is_none(), "it is taken to have one");
    pass(5_000);
    let second = sent(&universe, 3_000).unwrap();
    assert!(sent(&universe, 60_000).is_none(), "one at a time is tried");
    pass(5_000);
    answered(&universe, first, 0.0);
    pass(5_000);
    answered(&universe, second, 0.0);
    let both = [sent(&universe, 0), sent(&universe, 0)];
    assert!(both.iter().all(Option::is_some), "they ran side by side, so that it has two");
    assert!(sent(&universe, 0).is_none());
    let third = sent(&universe, 3_000);
    assert!(third.is_some(), "and may have more");
}

#[test]
fn a_node_that_lets_requests_wait_inside_is_sent_no_more_than_it_runs() {
    let universe = Universe::new(1);
    let pass = |ms: u64| universe.now_ms.set(universe.now_ms.get() + ms);
    for (number, waits) in (0..).zip([true, false]) {
        let first = sent(&universe, 0).unwrap();
        let second = sent(&universe, 3_000);
        assert_eq!(second.is_some(), waits, "try {number}");
        pass(5_000);
        answered(&universe, first, 0.0);
        pass(5_000);
        if let Some(second) = second {
            answered(&universe, second, 5_000.0);
        }
    }
    pass(60_000);
    let _first = sent(&universe, 0).unwrap();
    assert!(sent(&universe, 3_000).is_some(), "a minute later it is tried again");
}
