//! How large the database of a fleet becomes: a year of roll-ups in virtual time, and what each table takes.
//!
//! `cargo run --release -p herd-store --features testing --example store-year -- USERS MODELS NODES REQUESTS_A_DAY`
//!
//! Requests come by day more than by night, from users that each prefer some models. Single requests are counted for the days
//! that are kept.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use herd_core::answer::Counts;
use herd_core::record::RequestRecord;
use herd_store::testing::{VirtualStore, record};
use herd_store::{DAY_MS, HOUR_MS};

/// 2026-01-01.
const BEGIN_MS: u64 = 1_767_225_600_000;
const DAYS: u64 = 365;
/// How much of a day's requests come in each hour, per thousand.
const HOURS: [u64; 24] = [5, 4, 3, 3, 3, 5, 10, 25, 60, 85, 90, 85, 65, 75, 85, 85, 80, 65, 45, 35, 30, 25, 20, 12];

struct Fleet {
    users: u64,
    models: u64,
    nodes: u64,
    requests_a_day: u64,
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse().unwrap_or(1));
    let mut next = |default| numbers.next().unwrap_or(default);
    let fleet = Fleet { users: next(200), models: next(10), nodes: next(4), requests_a_day: next(20_000) };
    let mut store = VirtualStore::within(u64::MAX);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut id = 0;
    for hour in 0..DAYS * 24 {
        let began_ms = BEGIN_MS + hour * HOUR_MS;
        let share = HOURS[usize::try_from(hour % 24).unwrap_or(0)];
        let count = fleet.requests_a_day * share / 1_000;
        let batch: Vec<_> = (0..count).map(|_| request(&mut id, began_ms, &fleet, &mut random)).collect();
        store.write(&batch, began_ms + HOUR_MS);
        if hour % 24 == 23 {
            store.upkeep(hour * HOUR_MS, began_ms + HOUR_MS);
        }
    }
    let Fleet { users, models, nodes, requests_a_day } = fleet;
    println!("{users} users, {models} models, {nodes} nodes, {requests_a_day} requests a day, after {DAYS} days:");
    for table in TABLES {
        let bytes = format!(
            "SELECT sum(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_master WHERE tbl_name = '{table}')"
        );
        println!("{table}: {:.1} MB", store.number(&bytes) as f64 / 1e6);
    }
    println!("all: {:.1} MB", store.used_bytes() as f64 / 1e6);
    println!("a day: {} cells", store.number(CELLS));
}

/// The tables that grow; each counts with its indexes.
const TABLES: [&str; 7] = [
    "rollup_minutely_by",
    "rollup_hourly_by",
    "rollup_daily_by",
    "rollup_hourly",
    "rollup_daily",
    "request_traces",
    "request_attempts",
];
const CELLS: &str = "SELECT count(*) / 365 FROM rollup_daily_by";

fn request(id: &mut u64, began_ms: u64, fleet: &Fleet, random: &mut Random) -> RequestRecord {
    *id += 1;
    let user = random.below(fleet.users);
    // Each has three models that it mostly uses.
    let model = if random.below(10) < 8 { (user + random.below(3)) % fleet.models } else { random.below(fleet.models) };
    let model = format!("model-{model}:8b");
    RequestRecord {
        app: format!("application-{user}"),
        key_id: format!("key-{user}"),
        node_id: format!("node-{}", random.below(fleet.nodes)),
        original_model: model.clone(),
        model,
        latency_ms: 500.0 + random.below(20_000) as f64,
        time_to_first_token_ms: Some(100.0 + random.below(2_000) as f64),
        counts: Counts {
            prompt_tokens: Some(random.below(6_000)),
            completion_tokens: Some(random.below(1_500)),
            ..Counts::default()
        },
        ..record(*id, (began_ms + random.below(HOUR_MS)).min(BEGIN_MS + DAYS * DAY_MS))
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }
}
