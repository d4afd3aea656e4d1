//! The scheduler against what was observed on a real server, in virtual time.

use super::*;
use crate::config::SimModel;

const GB: u64 = 1_000_000_000;

/// A scheduler and the decisions it has made.
struct Bench {
    scheduler: Scheduler,
    now: Duration,
    decided: Vec<(Ticket, Result<Grant, Refusal>)>,
}

/// A load takes one second per gigabyte; context memory counts nothing.
fn config() -> SimConfig {
    SimConfig { load_bytes_per_s: 1e9, kv_bytes_per_token: 0, memory_bytes: 10 * GB, ..SimConfig::default() }
}

fn model(name: &str) -> Arc<Stored> {
    Stored::for_test(SimModel { size_bytes: GB, ..SimModel::named(name) })
}

fn want(model: &Arc<Stored>, num_ctx: Option<i64>) -> Want {
    let options = LoadOptions { num_ctx, ..LoadOptions::default() };
    Want { model: Arc::clone(model), options, keep_alive: None, slot: true }
}

impl Bench {
    fn new(config: SimConfig) -> Self {
        Self { scheduler: Scheduler::new(Arc::new(config)), now: Duration::ZERO, decided: Vec::new() }
    }

    fn submit(&mut self, want: Want) -> Ticket {
        let ticket = self.scheduler.submit(self.now, want);
        self.decided.extend(self.scheduler.take_decided());
        ticket
    }

    fn leave(&mut self, ticket: Ticket) {
        self.scheduler.leave(self.now, ticket);
        self.decided.extend(self.scheduler.take_decided());
    }

    /// Lets `millis` pass.
    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.scheduler.advance(self.now);
        self.decided.extend(self.scheduler.take_decided());
    }

    fn decision(&self, ticket: Ticket) -> Option<Result<Grant, Refusal>> {
        self.decided.iter().find(|(decided, _)| *decided == ticket).map(|(_, decision)| *decision)
    }

    #[track_caller]
    fn assert_runs(&self, ticket: Ticket) -> Grant {
        self.decision(ticket).expect("a decision").expect("a grant")
    }

    #[track_caller]
    fn assert_waits(&self, ticket: Ticket) {
        assert_eq!(self.decision(ticket), None);
    }

    /// Has `model` loaded and idle.
    fn warm(&mut self, model: &Arc<Stored>) {
        let ticket = self.submit(want(model, None));
        self.pass(1000);
        self.leave(ticket);
    }

    fn loaded(&self) -> Vec<(&str, u32)> {
        self.scheduler.runners().iter().map(|runner| (runner.model.name.as_str(), runner.launch.num_ctx)).collect()
    }
}

#[test]
fn a_load_takes_its_time_and_is_invisible_meanwhile() {
    let mut bench = Bench::new(config());
    let ticket = bench.submit(want(&model("a"), None));
    bench.pass(999);
    bench.assert_waits(ticket);
    assert_eq!(bench.loaded(), []);
    bench.pass(1);
    assert_eq!(bench.assert_runs(ticket), Grant { attached_at: Duration::from_secs(1), num_ctx: 4096 });
    assert_eq!(bench.loaded(), [("a:latest", 4096)]);
    assert_eq!(bench.scheduler.counters(), SchedulerCounters { loads: 1, ..SchedulerCounters::default() });
}

#[test]
fn a_loaded_model_is_served_at_once_and_the_rest_waits_for_a_slot() {
    let mut bench = Bench::new(SimConfig { num_parallel: 2, ..config() });
    let a = model("a");
    bench.warm(&a);
    let tickets = [0; 4].map(|_| bench.submit(want(&a, None)));
    bench.assert_runs(tickets[0]);
    bench.assert_runs(tickets[1]);
    bench.assert_waits(tickets[2]);
    // The one that leaves its place in line must not keep the next one waiting.
    bench.leave(tickets[2]);
    bench.leave(tickets[0]);
    bench.assert_runs(tickets[3]);
    bench.assert_waits(tickets[2]);
}

#[test]
fn the_slot_wait_is_not_part_of_the_load() {
    let mut bench = Bench::new(config());
    let a = model("a");
    bench.warm(&a);
    let first = bench.submit(want(&a, None));
    let second = bench.submit(want(&a, None));
    let attached_at = bench.now;
    bench.pass(5000);
    bench.leave(first);
    assert_eq!(bench.assert_runs(second).attached_at, attached_at);
}

#[test]
fn embedding_models_have_one_slot() {
    let mut bench = Bench::new(SimConfig { num_parallel: 4, ..config() });
    let embed = Stored::for_test(SimModel { size_bytes: GB, ..SimModel::embedding("embed", 64) });
    bench.warm(&embed);
    let first = bench.submit(want(&embed, None));
    let second = bench.submit(want(&embed, None));
    bench.assert_runs(first);
    bench.assert_waits(second);
}

#[test]
fn another_context_reloads_after_the_running_requests() {
    let mut bench = Bench::new(config());
    let a = model("a");
    bench.warm(&a);
    let running = bench.submit(want(&a, None));
    let other = bench.submit(want(&a, Some(2048)));
    // Later requests of the old size are still admitted, and served first: they overtake.
    let same = bench.submit(want(&a, None));
    bench.pass(10_000);
    bench.assert_waits(other);
    bench.leave(running);
    bench.assert_runs(same);
    bench.assert_waits(other);
    bench.leave(same);
    assert_eq!(bench.loaded(), []);
    bench.pass(1000);
    assert_eq!(bench.assert_runs(other).num_ctx, 2048);
    assert_eq!(bench.scheduler.counters().reloads, 1);
}

#[test]
fn a_reload_that_waits_blocks_other_loads_but_not_loaded_models() {
    let mut bench = Bench::new(config());
    let (busy, loaded, cold) = (model("busy"), model("loaded"), model("cold"));
    bench.warm(&busy);
    bench.warm(&loaded);
    let running = bench.submit(want(&busy, None));
    let reload = bench.submit(want(&busy, Some(2048)));
    let blocked = bench.submit(want(&cold, None));
    let passing = bench.submit(want(&loaded, None));
    bench.pass(60_000);
    bench.assert_runs(passing);
    bench.assert_waits(reload);
    bench.assert_waits(blocked);
    bench.leave(running);
    bench.pass(1000);
    bench.assert_runs(reload);
    bench.assert_waits(blocked);
    bench.pass(1000);
    bench.assert_runs(blocked);
}

#[test]
fn one_load_at_a_time_and_those_who_fit_join_it() {
    let mut bench = Bench::new(SimConfig { num_parallel: 2, ..config() });
    let (a, b) = (model("a"), model("b"));
    let first = bench.submit(want(&a, None));
    let other = bench.submit(want(&b, None));
    let joins = bench.submit(want(&a, Some(4096)));
    bench.pass(1000);
    bench.assert_runs(first);
    bench.assert_runs(joins);
    bench.assert_waits(other);
    bench.pass(1000);
    bench.assert_runs(other);
    assert_eq!(bench.scheduler.counters().loads, 2);
}

#[test]
fn a_full_queue_refuses_at_once_and_the_head_is_extra() {
    let mut bench = Bench::new(SimConfig { max_queue: 2, max_loaded_models: 1, ..config() });
    let (busy, cold) = (model("busy"), model("cold"));
    bench.warm(&busy);
    let running = bench.submit(want(&busy, None));
    let queued = [0; 3].map(|_| bench.submit(want(&cold, None)));
    let refused = bench.submit(want(&cold, None));
    for ticket in queued {
        bench.assert_waits(ticket);
    }
    assert_eq!(bench.decision(refused), Some(Err(Refusal::Busy)));
    assert_eq!(bench.scheduler.counters().rejected_busy, 1);
    let loaded = bench.submit(want(&busy, None));
    bench.leave(running);
    bench.assert_runs(loaded);
}

#[test]
fn the_idle_runner_with_the_shortest_keep_alive_is_evicted() {
    let mut bench = Bench::new(SimConfig { max_loaded_models: 2, ..config() });
    let (short, long, new) = (model("short"), model("long"), model("new"));
    bench.warm(&short);
    bench.warm(&long);
    for (model, seconds) in [(&short, 60), (&long, 600)] {
        let keep_alive = Some(KeepAlive::For(Duration::from_secs(seconds)));
        let ticket = bench.submit(Want { keep_alive, ..want(model, None) });
        bench.leave(ticket);
    }
    bench.warm(&new);
    assert_eq!(bench.loaded(), [("long:latest", 4096), ("new:latest", 4096)]);
    assert_eq!(bench.scheduler.counters().evictions, 1);
}

#[test]
fn memory_evicts_too_and_waits_when_nobody_is_idle() {
    let mut bench = Bench::new(SimConfig { memory_bytes: 2 * GB, ..config() });
    let (a, b, c) = (model("a"), model("b"), model("c"));
    bench.warm(&a);
    bench.warm(&b);
    let running = [bench.submit(want(&a, None)), bench.submit(want(&b, None))];
    let waits = bench.submit(want(&c, None));
    bench.pass(5000);
    bench.assert_waits(waits);
    bench.leave(running[1]);
    bench.pass(1000);
    bench.assert_runs(waits);
    assert_eq!(bench.loaded(), [("a:latest", 4096), ("c:latest", 4096)]);
}

#[test]
fn the_context_takes_memory_for_every_slot() {
    let tight = SimConfig { kv_bytes_per_token: 1000, num_parallel: 4, ..config() };
    let mut bench = Bench::new(SimConfig { memory_bytes: GB + 4 * 4096 * 1000, ..tight });
    let fits = bench.submit(want(&model("a"), None));
    bench.pass(1000);
    bench.assert_runs(fits);
    bench.leave(fits);
    let refused = bench.submit(want(&model("a"), Some(4097)));
    let (need, have) = (GB + 4 * 4097 * 1000, GB + 4 * 4096 * 1000);
    assert_eq!(bench.decision(refused), Some(Err(Refusal::TooLarge { need, have })));
    assert_eq!(bench.loaded(), [("a:latest", 4096)]);
}

#[test]
fn a_runner_goes_when_its_keep_alive_is_over_but_not_while_it_works() {
    let mut bench = Bench::new(SimConfig { keep_alive_ms: 5000, ..config() });
    let a = model("a");
    let ticket = bench.submit(want(&a, None));
    bench.pass(60_000);
    assert_eq!(bench.loaded().len(), 1);
    bench.leave(ticket);
    bench.pass(4999);
    assert_eq!(bench.loaded().len(), 1);
    bench.pass(1);
    assert_eq!(bench.loaded(), []);
    assert_eq!(bench.scheduler.counters().evictions, 0);
}

#[test]
fn keep_alive_sticks_to_the_runner() {
    let mut bench = Bench::new(SimConfig { keep_alive_ms: 5000, ..config() });
    let a = model("a");
    let forever = Some(KeepAlive::Forever);
    let ticket = bench.submit(Want { keep_alive: forever, slot: false, ..want(&a, None) });
    bench.pass(1000);
    bench.leave(ticket);
    let ticket = bench.submit(want(&a, None));
    bench.leave(ticket);
    bench.pass(1_000_000_000);
    assert_eq!(bench.loaded().len(), 1);
    assert_eq!(bench.scheduler.next_deadline(), None);
    let ticket = bench.submit(Want { keep_alive: Some(KeepAlive::For(Duration::ZERO)), ..want(&a, None) });
    bench.leave(ticket);
    assert_eq!(bench.loaded(), []);
}

#[test]
fn an_unload_waits_for_the_running_request() {
    let mut bench = Bench::new(config());
    let a = model("a");
    bench.warm(&a);
    let running = bench.submit(want(&a, None));
    bench.scheduler.unload(bench.now, &a.blob);
    assert_eq!(bench.loaded().len(), 1);
    bench.leave(running);
    assert_eq!(bench.loaded(), []);
}

#[test]
fn a_client_that_leaves_during_the_load_aborts_it() {
    let mut bench = Bench::new(config());
    let a = model("a");
    let first = bench.submit(want(&a, None));
    bench.pass(500);
    bench.leave(first);
    bench.pass(10_000);
    assert_eq!(bench.loaded(), []);
    assert_eq!(bench.scheduler.counters(), SchedulerCounters { loads_cancelled: 1, ..SchedulerCounters::default() });
}

#[test]
fn those_who_joined_an_aborted_load_start_their_own() {
    let mut bench = Bench::new(config());
    let (a, b) = (model("a"), model("b"));
    let first = bench.submit(want(&a, None));
    let joined = bench.submit(want(&a, None));
    let queued = bench.submit(want(&b, None));
    bench.pass(500);
    bench.leave(first);
    bench.pass(1000);
    bench.assert_runs(queued);
    bench.assert_waits(joined);
    bench.pass(1000);
    bench.assert_runs(joined);
}

#[test]
fn a_client_that_leaves_the_queue_is_skipped() {
    let mut bench = Bench::new(config());
    let (a, b, c) = (model("a"), model("b"), model("c"));
    bench.submit(want(&a, None));
    let gone = bench.submit(want(&b, None));
    let next = bench.submit(want(&c, None));
    bench.leave(gone);
    bench.pass(2000);
    bench.assert_runs(next);
    assert_eq!(bench.loaded(), [("a:latest", 4096), ("c:latest", 4096)]);
}

#[test]
fn aliases_of_the_same_weights_share_a_runner() {
    let mut bench = Bench::new(config());
    let base = model("base");
    let alias = Arc::new(Stored { blob: base.blob.clone(), ..(*model("alias")).clone() });
    bench.warm(&base);
    let ticket = bench.submit(want(&alias, None));
    bench.assert_runs(ticket);
    assert_eq!(bench.loaded(), [("base:latest", 4096)]);
    bench.leave(ticket);
    let ticket = bench.submit(want(&alias, Some(2048)));
    bench.pass(1000);
    bench.assert_runs(ticket);
    assert_eq!(bench.loaded(), [("alias:latest", 2048)]);
}

#[test]
fn loading_without_a_slot_keeps_nothing_busy() {
    let mut bench = Bench::new(config());
    let a = model("a");
    let load = bench.submit(Want { slot: false, ..want(&a, Some(8192)) });
    bench.pass(1000);
    assert_eq!(bench.assert_runs(load).num_ctx, 8192);
    let ticket = bench.submit(want(&a, Some(8192)));
    bench.assert_runs(ticket);
}
