//! The store through its handle, on real files.

mod bounds;
mod migration;
mod oracle;
mod paging;
mod retention;
mod sql;
mod trouble;

use std::path::PathBuf;
use std::time::Duration;

use herd_core::answer::Counts;
use herd_core::record::{AttemptRecord, RequestRecord};
use herd_core::vocabulary::{ContextAction, Recorded, ReloadCause, Surface};
use rusqlite::Connection;

use super::testing::{TestDir, record};
use super::{FILE_NAME, Store, StoreHandle, StoreSettings, StoreThread, from_db};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

/// A moment in these tests: 2026-11-22, noon.
const NOON_MS: u64 = 1_795_348_800_000;

impl TestDir {
    fn file(&self) -> PathBuf {
        self.path().join(FILE_NAME)
    }

    /// The database as any other program sees it.
    fn sql(&self) -> Connection {
        Connection::open(self.file()).unwrap()
    }

    /// The number that `query` tells any other program.
    fn number(&self, query: &str) -> u64 {
        from_db(self.sql().query_row(query, [], |row| row.get(0)).unwrap())
    }
}

/// Settings that keep everything that these tests make.
fn keeping() -> StoreSettings {
    StoreSettings { raw_days: 20_000, rollup_days: 20_000, ..StoreSettings::default() }
}

async fn open(dir: &TestDir) -> (StoreHandle, StoreThread) {
    open_with(dir, keeping()).await
}

async fn open_with(dir: &TestDir, settings: StoreSettings) -> (StoreHandle, StoreThread) {
    let (store, thread) = Store::open(dir.path(), settings).unwrap();
    assert!(store.ready(LIMIT).await, "{:?}", store.health());
    (store, thread)
}

/// Records all of them, as fast as they are written.
async fn fill(store: &StoreHandle, records: &[RequestRecord]) {
    for (at, record) in (1_u64..).zip(records) {
        store.record(record.clone()).unwrap();
        if at % 4_096 == 0 {
            written(store, at).await;
        }
    }
    written(store, records.len() as u64).await;
}

/// Waits until so many records are written. Every write waits for a round of the writer.
async fn written(store: &StoreHandle, count: u64) {
    while store.health().written < count {
        store.write(|_| Ok(())).await.unwrap();
        assert_eq!(store.health().dropped, 0);
    }
}

/// Numbers that only look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Requests of all kinds over `days` days before [`NOON_MS`].
fn any_requests(count: u64, days: u64) -> Vec<RequestRecord> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    (0..count).map(|id| any_request(id, days, &mut dice)).collect()
}

fn any_request(id: u64, days: u64, dice: &mut Dice) -> RequestRecord {
    let status = dice.pick(&[
        "completed",
        "completed",
        "completed",
        "completed",
        "failed",
        "rejected",
        "incomplete",
        "reaped",
        "cancelled",
        "client_disconnected",
        "no_output",
    ]);
    let served = status != "rejected";
    let node_id = if served { dice.pick(&["node-a", "node-b", "node-c"]) } else { "" };
    let some = |dice: &mut Dice, below| (served && dice.chance(80)).then(|| dice.below(below));
    let ms = |ticks: Option<u64>| ticks.map(|ticks| ticks as f64 / 4.0);
    let tags: &[&str] = dice.pick(&[&[], &["ci"], &["ci", "nightly"], &["nightly", "ci", "ci"]]);
    let (load_ms, decode_ms) = (ms(some(dice, 8_000)), ms(some(dice, 40_000)));
    let (prompt_tokens, completion_tokens) = (some(dice, 8_192), some(dice, 1_024));
    RequestRecord {
        timestamp_ms: NOON_MS - dice.below(days * 86_400_000),
        model: dice.pick(&["llama3.2:3b", "qwen3:8b", "nomic-embed-text:latest"]).into(),
        node_id: node_id.into(),
        surface: Some(dice.pick(&[Surface::OllamaChat, Surface::OpenAiChat]).into()),
        status: Recorded::parse(status),
        latency_ms: dice.below(100_000) as f64 / 4.0,
        time_to_first_token_ms: ms(some(dice, 8_000)),
        queue_ms: ms(some(dice, 4_000)),
        counts: Counts { prompt_tokens, completion_tokens, load_ms, ..Counts::default() },
        decode_ms,
        app: dice.pick(&["", "aider", "open-webui"]).into(),
        tags: tags.iter().map(|tag| (*tag).into()).collect(),
        client_ip: dice.pick(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]).into(),
        retry_count: dice.pick(&[0, 0, 0, 1, 2]),
        fallback_used: dice.chance(5),
        stream: dice.pick(&[Some(true), Some(false), None]),
        overflow: dice.chance(5),
        http_status: if served { 200 } else { dice.pick(&[400, 404]) },
        context_action: ContextAction::parse(dice.pick(&["kept", "pinned", "load", "reload"])),
        reload_cause: dice.pick(&[None, None, None, Some(ReloadCause::ContextLarger)]),
        num_ctx: dice.chance(30).then_some(8_192),
        context_length: served.then_some(16_384),
        estimated_tokens: dice.chance(90).then(|| dice.below(18_000)),
        key_id: dice.pick(&["", "", "k1", "k2"]).into(),
        request_bytes: dice.below(10_000),
        response_bytes: dice.below(100_000),
        benchmark: dice.chance(5),
        attempts: vec![AttemptRecord {
            node_id: node_id.into(),
            outcome: Recorded::parse(status).unwrap(),
            ..AttemptRecord::default()
        }],
        ..record(id, 0)
    }
}
