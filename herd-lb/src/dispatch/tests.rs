//! Who gets which slot, and when, over a fleet made of heartbeats.

use std::net::{IpAddr, Ipv4Addr};

use herd_core::choice::Choice;
use herd_core::exchange::Mode;
use herd_core::fleet::{HeartbeatLimits, Sender};
use herd_core::inspect::{InspectLimits, inspect};
use herd_core::launch::Signature;
use herd_core::queue::{Class, QueueFull};
use herd_core::request::Surface;
use herd_core::wire::{AvailableModel, Heartbeat, HerdReport, LoadedModel, OllamaEnv, OllamaReport};

use super::*;
use crate::config::Config;
use crate::selector::balancer;

struct Bench {
    fleet: Arc<Fleet>,
    dispatcher: Arc<Dispatcher>,
    seq: u64,
}

impl Bench {
    fn new(yaml: &str) -> Self {
        let config = Config::build(yaml, |_| None, &[]).unwrap();
        let fleet = Arc::new(Fleet::new(config.policy.clone(), HeartbeatLimits::default()));
        let selector = Selector::new(Arc::clone(&fleet), Arc::new(balancer(&fleet, &config.probe)));
        let dispatcher = Arc::new(Dispatcher::new(Arc::clone(&fleet), selector, LiveConfig::new(config)));
        Self { fleet, dispatcher, seq: 0 }
    }

    /// A node with one model of one GiB: hot at 4096 tokens, or cold.
    fn join(&mut self, id: &str, port: u16, hot: bool) {
        self.seq += 1;
        let name = "m".to_owned();
        let available = vec![AvailableModel { name: name.clone(), size_bytes: 1 << 30, ..Default::default() }];
        let loaded = LoadedModel { name, context_length: 4096, ..Default::default() };
        let loaded = if hot { vec![loaded] } else { Vec::new() };
        let env = OllamaEnv { num_parallel: Some(1), ..Default::default() };
        let ollama =
            OllamaReport { address: format!("127.0.0.1:{port}"), available, loaded, env, ..Default::default() };
        let report = HerdReport { seq: self.seq, boot: id.into(), ollama, ..Default::default() };
        let heartbeat = Heartbeat { node_id: id.into(), herd: Some(report), ..Default::default() };
        let sender = Sender::at(IpAddr::V4(Ipv4Addr::LOCALHOST));
        self.fleet.heartbeat(heartbeat, sender).unwrap();
    }

    fn ask(&self) -> Answer {
        self.dispatcher.ask(ask(r#"{"model":"m"}"#))
    }
}

fn ask(body: &str) -> Ask {
    let profile = inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap();
    let seek = Seek {
        profile: Arc::new(profile),
        tried: Vec::new(),
        class: Class::Interactive,
        fairness_key: herd_core::queue::Owner::default(),
        holds: true,
        hold_since_ms: None,
        awaits_unreachable: false,
        mode: Mode::Queue,
    };
    Ask { seek, request_id: "r".into() }
}

#[track_caller]
fn chosen(answer: Answer) -> Box<Choice> {
    match answer {
        Answer::Offer(Offer::Chosen(choice, _)) => choice,
        Answer::Offer(offer) => panic!("{offer:?}"),
        Answer::Waits(_) => panic!("waits"),
    }
}

#[track_caller]
fn waits(answer: Answer) -> Ticket {
    match answer {
        Answer::Waits(ticket) => ticket,
        Answer::Offer(offer) => panic!("{offer:?}"),
    }
}

fn is_nobody(answer: &Answer) -> bool {
    matches!(answer, Answer::Offer(Offer::Nobody(_)))
}

/// Whether the turn of `ticket` has come.
async fn handed(ticket: &mut Ticket) -> Option<Offer> {
    tokio::select! {
        biased;
        handed = ticket.turn() => Some(handed),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test]
async fn the_first_slot_to_free_takes_the_one_who_waits() {
    let mut bench = Bench::new("");
    bench.join("a", 1001, true);
    bench.join("b", 1002, true);
    let (first, second) = (chosen(bench.ask()), chosen(bench.ask()));
    let mut third = waits(bench.ask());
    let mut fourth = waits(bench.ask());
    bench.dispatcher.pass();
    assert!(handed(&mut third).await.is_none());
    let freed = second.node().id.clone();
    drop(second);
    bench.dispatcher.pass();
    let Some(Offer::Chosen(choice, _)) = handed(&mut third).await else { panic!("still waits") };
    assert_eq!(choice.node().id, freed);
    assert!(handed(&mut fourth).await.is_none());
    drop(first);
    bench.dispatcher.pass();
    assert!(matches!(handed(&mut fourth).await, Some(Offer::Chosen(..))));
    drop((choice, third, fourth));
    assert_eq!((bench.fleet.snapshot().in_flight(), bench.dispatcher.waiting()), (0, 0));
}

#[tokio::test]
async fn who_leaves_waits_no_longer_and_keeps_no_slot() {
    let mut bench = Bench::new("");
    bench.join("a", 1001, true);
    let busy = chosen(bench.ask());
    let (leaver, mut stayer) = (waits(bench.ask()), waits(bench.ask()));
    drop(leaver);
    assert_eq!(bench.dispatcher.waiting(), 1);
    drop(busy);
    bench.dispatcher.pass();
    let Some(Offer::Chosen(choice, _)) = handed(&mut stayer).await else { panic!("still waits") };
    // One that is handed a slot in the moment in which it leaves gives it back.
    let late = waits(bench.ask());
    drop(choice);
    bench.dispatcher.pass();
    drop((stayer, late));
    assert_eq!((bench.fleet.snapshot().in_flight(), bench.dispatcher.waiting()), (0, 0));
}

#[tokio::test]
async fn nobody_overtakes_those_who_wait_for_the_same_model() {
    let mut bench = Bench::new("");
    bench.join("a", 1001, true);
    let busy = chosen(bench.ask());
    let mut first = waits(bench.ask());
    drop(busy);
    let mut newcomer = waits(bench.ask());
    bench.dispatcher.pass();
    let served = handed(&mut first).await;
    assert!(matches!(served, Some(Offer::Chosen(..))));
    assert!(handed(&mut newcomer).await.is_none());
}

#[tokio::test]
async fn one_load_serves_all_who_ask_for_a_cold_model() {
    let mut bench = Bench::new("");
    bench.join("a", 1001, false);
    bench.join("b", 1002, false);
    let mut loading = chosen(bench.ask());
    assert!(loading.slot.claim().is_some_and(|claim| claim.loading_since_ms().is_some()));
    let mut waiting: Vec<Ticket> = (0..20).map(|_| waits(bench.ask())).collect();
    bench.dispatcher.pass();
    for ticket in &mut waiting {
        assert!(handed(ticket).await.is_none(), "a load is under way");
    }
    assert_eq!(bench.fleet.snapshot().in_flight(), 1);
    // Its first byte ends the load; its slot is still taken.
    loading.slot.claim().and_then(herd_core::load::Claim::load_ended);
    let node = loading.node().number;
    let model = loading.model.clone();
    let signature = Signature::DEFAULT;
    bench.fleet.loaded(&herd_core::fleet::Loaded { node, model: &model, context_length: Some(4096), signature });
    let id = loading.node().id.clone();
    drop(loading);
    for ticket in &mut waiting {
        bench.dispatcher.pass();
        let Some(Offer::Chosen(choice, _)) = handed(ticket).await else { panic!("still waits") };
        assert_eq!((&choice.node().id, choice.candidate.plan.action.to_string()), (&id, "pinned".to_owned()));
    }
}

#[tokio::test]
async fn a_full_queue_refuses_with_the_predicted_wait() {
    let mut bench = Bench::new("queue: {max_waiting: 2}");
    bench.join("a", 1001, true);
    let _busy = chosen(bench.ask());
    let _tickets = [waits(bench.ask()), waits(bench.ask())];
    let Answer::Offer(Offer::QueueFull(QueueFull::All(2), predicted_ms)) = bench.ask() else {
        panic!("is not refused")
    };
    assert!(predicted_ms > 0.0);
}

#[tokio::test]
async fn a_model_whose_node_is_away_is_held_until_it_returns() {
    let mut bench = Bench::new("hold: {start_ms: 0}");
    bench.join("a", 1001, true);
    bench.fleet.set_cordon("a", true);
    let mut ticket = waits(bench.ask());
    bench.dispatcher.pass();
    assert!(handed(&mut ticket).await.is_none());
    bench.fleet.set_cordon("a", false);
    bench.dispatcher.pass();
    assert!(matches!(handed(&mut ticket).await, Some(Offer::Chosen(..))));
    assert!(is_nobody(&bench.dispatcher.ask(ask(r#"{"model":"x"}"#))), "nobody has it");
}

#[tokio::test]
async fn holding_has_an_end_and_can_be_switched_off() {
    let mut bench = Bench::new("hold: {start_ms: 0, max_ms: 0}");
    bench.join("a", 1001, true);
    bench.fleet.set_cordon("a", true);
    assert!(is_nobody(&bench.ask()));
}

#[tokio::test]
async fn what_does_not_hold_is_told_at_once() {
    let mut bench = Bench::new("");
    let measuring = |bench: &Bench| {
        let mut ask = ask(r#"{"model":"m"}"#);
        ask.seek.holds = false;
        bench.dispatcher.ask(ask)
    };
    assert!(is_nobody(&measuring(&bench)), "right after the start");
    bench.join("a", 1001, true);
    drop(chosen(measuring(&bench)));
}

#[tokio::test]
async fn right_after_the_start_an_unknown_model_waits_for_heartbeats() {
    let mut bench = Bench::new("");
    let mut ticket = waits(bench.ask());
    bench.dispatcher.pass();
    assert!(handed(&mut ticket).await.is_none());
    bench.join("a", 1001, true);
    bench.dispatcher.pass();
    assert!(matches!(handed(&mut ticket).await, Some(Offer::Chosen(..))));
}

#[tokio::test]
async fn what_waits_is_shown() {
    let mut bench = Bench::new("");
    bench.join("a", 1001, true);
    let _busy = chosen(bench.ask());
    let ticket = waits(bench.ask());
    bench.dispatcher.pass();
    let view = bench.dispatcher.view();
    let shown = &view.waiting[0];
    assert_eq!((view.total, shown.model.as_str(), shown.class, shown.reason), (1, "m:latest", "interactive", "busy"));
    drop(ticket);
    bench.dispatcher.publish_view();
    assert_eq!(bench.dispatcher.view().total, 0);
}

#[tokio::test]
async fn requests_of_different_needs_do_not_block_each_other() {
    let mut bench = Bench::new("");
    bench.join("a", 1001, true);
    bench.join("b", 1002, true);
    // Another launch needs an idle node; it waits while both are busy, and the plain ones go on.
    let (one, two) = (chosen(bench.ask()), chosen(bench.ask()));
    let mut other = waits(bench.dispatcher.ask(ask(r#"{"model":"m","options":{"draft_num_predict":64}}"#)));
    let mut plain = waits(bench.ask());
    bench.dispatcher.pass();
    drop(one);
    bench.dispatcher.pass();
    let mut held = (handed(&mut other).await, handed(&mut plain).await);
    assert!(held.0.is_some() ^ held.1.is_some(), "one node is free");
    drop(two);
    bench.dispatcher.pass();
    if held.0.is_none() {
        held.0 = handed(&mut other).await;
    } else {
        held.1 = handed(&mut plain).await;
    }
    assert!(held.0.is_some() && held.1.is_some());
}
