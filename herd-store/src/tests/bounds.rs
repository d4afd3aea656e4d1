//! However many names there are, and whatever the clock does: sizes are bounded, sums are right, and nothing is lost.

use herd_core::record::RequestRecord;
use herd_core::vocabulary::Status;

use crate::testing::{VirtualStore, record};
use crate::vocabulary::{COMBINATIONS, MINUTE_CELLS, NAMES, PAIRS};
use crate::{DAY_MS, HOUR_MS, StoreSettings};

/// 2026-11-22, noon.
const NOON_MS: u64 = 1_795_348_800_000;

fn settings(max_bytes: u64) -> StoreSettings {
    StoreSettings { max_bytes, ..StoreSettings::default() }
}

/// The request number `id` of a user with a model.
fn of_user(id: u64, user: u64, model: u64, timestamp_ms: u64) -> RequestRecord {
    let model = format!("model-{model}");
    RequestRecord {
        app: format!("app-{user}"),
        key_id: format!("key-{user}"),
        original_model: model.clone(),
        model,
        ..record(id, timestamp_ms)
    }
}

fn rows(store: &VirtualStore, table: &str, dimension: &str) -> u64 {
    store.number(&format!("SELECT count(*) FROM {table} WHERE dimension = '{dimension}'"))
}

fn requests(store: &VirtualStore, table: &str, dimension: &str) -> u64 {
    store.number(&format!("SELECT sum(requests) FROM {table} WHERE dimension = '{dimension}'"))
}

#[test]
fn combinations_of_names_are_bounded_and_their_sums_are_right() {
    let mut store = VirtualStore::new(settings(1 << 40));
    let all: Vec<_> = (0..4_900).map(|id| of_user(id, id / 70, id % 70, NOON_MS)).collect();
    all.chunks(512).for_each(|batch| _ = store.write(batch, NOON_MS));
    for table in ["rollup_hourly", "rollup_daily"] {
        let rows = store.number(&format!("SELECT count(*) FROM {table}"));
        assert!(rows <= 2 * COMBINATIONS as u64 + 1, "{table} has {rows}");
        assert_eq!(store.number(&format!("SELECT sum(requests) FROM {table}")), 4_900);
    }
    for dimension in ["app", "key"] {
        for table in ["rollup_hourly_by", "rollup_daily_by"] {
            let rows = rows(&store, table, dimension);
            assert!(rows <= (PAIRS + NAMES + 1) as u64, "{table} has {rows} by {dimension}");
            assert_eq!(requests(&store, table, dimension), 4_900);
            let each = format!(
                "SELECT count(*) FROM (SELECT sum(requests) AS all_of_it FROM {table} \
                 WHERE dimension = '{dimension}' GROUP BY value) WHERE all_of_it = 70"
            );
            assert_eq!(store.number(&each), 70, "the sums of a user are exact");
        }
        assert!(rows(&store, "rollup_minutely_by", dimension) <= MINUTE_CELLS as u64 + 1);
        assert_eq!(requests(&store, "rollup_minutely_by", dimension), 4_900);
    }
    // The limits hold for a process that starts anew.
    store.restart();
    let more: Vec<_> = (0..1_000).map(|id| of_user(id, 100 + id, 200 + id, NOON_MS)).collect();
    store.write(&more, NOON_MS);
    assert!(store.number("SELECT count(*) FROM rollup_daily") <= 2 * COMBINATIONS as u64 + 1);
    assert!(rows(&store, "rollup_daily_by", "key") <= (PAIRS + NAMES + 1) as u64);
}

#[test]
fn invented_tags_cost_neither_cells_nor_rows() {
    let mut store = VirtualStore::new(settings(1 << 40));
    let tags = |id: u64| (0..8).map(|tag| format!("invented-{id}-{tag}")).collect();
    let all: Vec<_> = (0..2_000).map(|id| RequestRecord { tags: tags(id), ..record(id, NOON_MS) }).collect();
    all.chunks(512).for_each(|batch| _ = store.write(batch, NOON_MS));
    assert!(rows(&store, "rollup_daily_by", "tag") <= NAMES as u64 + 1);
    assert!(rows(&store, "rollup_minutely_by", "tag") <= MINUTE_CELLS as u64 + 1);
    assert_eq!(store.number("SELECT count(*) FROM request_tags"), NAMES as u64);
    assert_eq!(store.number("SELECT count(*) FROM request_traces"), 2_000);
    let other = "SELECT sum(requests) FROM rollup_daily_by WHERE dimension = 'tag' AND value = '(other)'";
    assert_eq!(store.number(other), 2_000 - NAMES as u64 / 8);
}

#[test]
fn a_flood_of_refusals_is_counted_and_leaves_the_rows_alone() {
    let mut store = VirtualStore::new(settings(1 << 40));
    let refused = |id| RequestRecord {
        status: Some(Status::Rejected.into()),
        node_id: String::new(),
        http_status: 404,
        original_model: format!("invented-{id}"),
        model: format!("invented-{id}"),
        ..record(id, NOON_MS)
    };
    let all: Vec<_> = (0..5_000).map(refused).collect();
    let counted_only: usize = all.chunks(512).map(|batch| store.write(batch, NOON_MS)).sum();
    assert_eq!((counted_only, store.number("SELECT count(*) FROM request_traces")), (4_970, 30));
    assert_eq!(store.number("SELECT sum(rejected) FROM rollup_daily_by WHERE dimension = 'total'"), 5_000);
}

/// Forty days of users with invented tags, in a store that may hold `max_bytes`; returns the most that it held.
fn forty_days(max_bytes: u64) -> (VirtualStore, u64) {
    let (mut store, mut largest_bytes, mut id) = (VirtualStore::within(max_bytes), 0, 0);
    for look in 0..80 {
        let since_ms = look * 12 * HOUR_MS;
        let now_ms = NOON_MS + since_ms;
        let mut batch = Vec::new();
        for user in 0..30 {
            id += 1;
            let tags = (0..4).map(|tag| format!("invented-{id}-{tag}")).collect();
            batch.push(RequestRecord { tags, ..of_user(id, user, (id * 7) % 5, now_ms) });
        }
        store.write(&batch, now_ms);
        store.upkeep(since_ms, now_ms);
        largest_bytes = largest_bytes.max(store.used_bytes());
    }
    (store, largest_bytes)
}

#[test]
fn over_the_limit_roll_ups_go_before_the_newest_requests() {
    let (_, all_bytes) = forty_days(1 << 40);
    let max_bytes = all_bytes * 85 / 100;
    let (store, largest_bytes) = forty_days(max_bytes);
    assert!(largest_bytes <= max_bytes, "{largest_bytes} bytes of {max_bytes}");
    let buckets =
        |table: &str| store.number(&format!("SELECT count(DISTINCT bucket) FROM {table} WHERE dimension = 'total'"));
    assert!((48..80).contains(&buckets("rollup_hourly_by")), "{} hours", buckets("rollup_hourly_by"));
    assert!((35..=41).contains(&buckets("rollup_daily_by")), "{} days", buckets("rollup_daily_by"));
    let young = "SELECT count(*) FROM request_traces WHERE timestamp > (SELECT max(timestamp) FROM request_traces) \
                 - 29 * 86400";
    assert_eq!(store.number(young), 29 * 60, "of a month every request is there");
}

#[test]
fn a_clock_that_was_ahead_for_a_minute_deletes_nothing() {
    let mut store = VirtualStore::new(StoreSettings::default());
    let all: Vec<_> = (0..500).map(|id| record(id, NOON_MS - id * HOUR_MS)).collect();
    store.write(&all, NOON_MS);
    let kept = |store: &VirtualStore| {
        ["request_traces", "rollup_hourly"].map(|table| store.number(&format!("SELECT count(*) FROM {table}")))
    };
    store.upkeep(0, NOON_MS);
    assert_eq!(kept(&store), [500, 500]);
    let ahead_ms = NOON_MS + 500 * DAY_MS;
    store.upkeep(60_000, ahead_ms);
    store.restart();
    store.upkeep(70_000, ahead_ms + 10_000);
    store.upkeep(120_000, NOON_MS + 120_000);
    assert_eq!(kept(&store), [500, 500], "in spite of a restart in between");
    // One that stays is believed after a day.
    store.upkeep(180_000, ahead_ms);
    store.upkeep(180_000 + DAY_MS, ahead_ms + DAY_MS);
    assert_eq!(kept(&store), [0, 0]);
}

#[test]
fn a_clock_that_comes_back_does_not_blind_the_last_hour() {
    let mut store = VirtualStore::new(StoreSettings::default());
    store.write(&[record(1, NOON_MS)], NOON_MS);
    let ahead_ms = NOON_MS + 40 * DAY_MS;
    store.write(&[record(2, ahead_ms)], ahead_ms);
    assert_eq!(store.last_hour(ahead_ms).total.summary().requests, 1);
    store.write(&[record(3, NOON_MS + 60_000), record(4, NOON_MS + 61_000)], NOON_MS + 61_000);
    assert_eq!(store.last_hour(NOON_MS + 61_000).total.summary().requests, 2);
}
