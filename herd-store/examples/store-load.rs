//! Fills a store and measures it: rows written per second, and what each question takes.
//!
//! `cargo run --release -p herd-store --example store-load -- 1000000 /tmp/herd-store-load`
//!
//! A third argument says over how many days the rows are spread, 30 when nothing is said; within one, all of the last half
//! day are counted by the minute as well. A fourth of `0` asks no questions, for counting what writing takes alone.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use herd_core::answer::Counts;
use herd_core::histogram::Histogram;
use herd_core::record::{AttemptRecord, Candidates, RequestRecord};
use herd_core::vocabulary::{Class, ContextAction, Outcome, Reason, Status, Surface};
use herd_store::{GroupBy, Range, Store, StoreError, StoreHandle, StoreSettings, TraceFilter, TrendFilter};

const DAY_MS: u64 = 86_400_000;
/// Days over which rows are spread when nothing is said.
const DAYS: u64 = 30;
const HOUR_MS: u64 = 3_600_000;
const LIMIT: Duration = Duration::from_mins(10);
/// Times that each question is asked.
const TIMES: usize = 200;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let rows: u64 = arguments.next().map_or(Ok(100_000), |rows| rows.parse())?;
    let dir: PathBuf = arguments.next().map_or_else(|| std::env::temp_dir().join("herd-store-load"), PathBuf::from);
    let days: u64 = arguments.next().map_or(Ok(DAYS), |days| days.parse())?;
    let questions = arguments.next().as_deref() != Some("0");
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    if !dir.exists() {
        write(&dir, rows, now, days).await?;
    }
    let begun = Instant::now();
    let (store, thread) = Store::open(&dir, StoreSettings::default())?;
    println!("open returns after {:?}", begun.elapsed());
    println!("ready: {} after {:?}", store.ready(LIMIT).await, begun.elapsed());
    let recent = store.latency_p75(now).await?;
    println!("{} pairs for the scorer after {:?}", recent.len(), begun.elapsed());
    while store.health().backfill_left > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("nothing left to add up after {:?}", begun.elapsed());
    if questions {
        ask(&store, now).await?;
    }
    println!("{:?}", store.health());
    println!("closed: {}", thread.close(LIMIT));
    Ok(())
}

async fn write(dir: &std::path::Path, rows: u64, now: u64, days: u64) -> Result<(), Failure> {
    let (store, thread) = Store::open(dir, StoreSettings::default())?;
    store.ready(LIMIT).await;
    let mut random = 0x9e37_79b9_7f4a_7c15;
    let begun = Instant::now();
    let mut handed_over = Histogram::default();
    for id in 0..rows {
        while store.health().queue_len >= 8_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let made = request(id, now - days * DAY_MS + id * days * DAY_MS / rows, &mut random);
        let handed = Instant::now();
        drop(store.record(made));
        handed_over.observe(handed.elapsed().as_secs_f64() * 1e6);
    }
    let closed = thread.close(LIMIT);
    let took = begun.elapsed();
    let health = store.health();
    println!("{rows} rows in {took:?}: {:.0} rows/s; all written: {closed}", rows as f64 / took.as_secs_f64());
    let [p50, p99, p9999] = [0.5, 0.99, 0.9999].map(|q| handed_over.quantile(q).unwrap_or_default());
    println!("handing over took p50 {p50:.1}, p99 {p99:.1}, p99.99 {p9999:.1} microseconds");
    println!("{} bytes; dropped {}", health.file_bytes, health.dropped);
    Ok(())
}

macro_rules! measure {
    ($name:expr, $question:expr) => {{
        let mut times = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            let begun = Instant::now();
            let answer = $question;
            times.push(begun.elapsed());
            answer?;
        }
        times.sort();
        let (p50, p99, first) = (times[TIMES / 2], times[TIMES * 99 / 100], times[TIMES - 1]);
        println!("{:<44} p50 {p50:>10.2?}  p99 {p99:>10.2?}  max {first:>10.2?}", $name);
    }};
}

async fn ask(store: &StoreHandle, now: u64) -> Result<(), StoreError> {
    let month = Range::last(DAYS * DAY_MS, now);
    let week = Range::last(7 * DAY_MS, now);
    let is = |text: &str| Some(text.to_owned());
    let lately = |hours: u64| Range::fine(now - hours * HOUR_MS, now + 1, now);
    for (name, range) in [
        ("1 h", lately(1)),
        ("6 h", lately(6)),
        ("7 d", week),
        ("30 d", month),
        ("400 d", Range::last(400 * DAY_MS, now)),
    ] {
        measure!(format!("overview {name}"), store.overview(range).await);
        measure!(format!("models {name}"), store.models(range).await);
        measure!(format!("apps {name}"), store.apps(range).await);
        measure!(format!("apps_daily {name}"), store.apps_daily(range).await);
        measure!(format!("context_usage {name}"), store.context_usage(range).await);
        measure!(format!("context_usage_on_nodes {name}"), store.context_usage_on_nodes(range).await);
        measure!(format!("trends all, as fine as can be {name}"), store.trends(range, 1, TrendFilter::default()).await);
        for group in
            [GroupBy::Node, GroupBy::Model, GroupBy::App, GroupBy::Day, GroupBy::NodeModel, GroupBy::NodeModelDay]
        {
            measure!(format!("usage {group:?} {name}"), store.usage(group, range).await);
        }
        let one = TrendFilter { model: is("model-3:8b"), ..TrendFilter::default() };
        let two = TrendFilter { node_id: is("node-1"), ..one.clone() };
        let odd = TrendFilter { app: is("app-1"), ..one.clone() };
        for (step, filter, what) in [
            (3_600, TrendFilter::default(), "all, 1 h"),
            (86_400, TrendFilter::default(), "all, 1 d"),
            (3_600, one, "one model, 1 h"),
            (3_600, two, "one model on one node, 1 h"),
            (3_600, odd, "one model of one app, 1 h"),
        ] {
            measure!(format!("trends {what} {name}"), store.trends(range, step, filter.clone()).await);
        }
    }
    measure!("latency_p75", store.latency_p75(now).await);
    measure!("trace", store.trace("request-500000").await);
    let none = TraceFilter::default();
    for (name, filter) in [
        ("all", none.clone()),
        ("model", TraceFilter { model: is("model-3:8b"), ..none.clone() }),
        ("node", TraceFilter { node_id: is("node-1"), ..none.clone() }),
        ("node that is not there", TraceFilter { node_id: is("node-x"), ..none.clone() }),
        ("status failed", TraceFilter { status: is("failed"), ..none.clone() }),
        ("status failed, model", TraceFilter { status: is("failed"), model: is("model-3:8b"), ..none.clone() }),
        ("tag", TraceFilter { tag: is("ci"), ..none.clone() }),
        ("tag, node that is not there", TraceFilter { tag: is("ci"), node_id: is("node-x"), ..none.clone() }),
        ("client", TraceFilter { client_ip: is("10.0.0.7"), ..none.clone() }),
        ("a day a month ago", TraceFilter { to_ms: Some(now - 29 * DAY_MS), ..none.clone() }),
    ] {
        measure!(format!("traces 50, {name}"), store.traces(filter.clone(), None, 50).await);
        measure!(format!("traces 1000, {name}"), store.traces(filter.clone(), None, 1_000).await);
    }
    Ok(())
}

fn request(id: u64, timestamp_ms: u64, random: &mut u64) -> RequestRecord {
    let mut below = |sides: u64| {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random % sides
    };
    let (model, node, app) = (below(6), below(4), below(6));
    let status = if below(100) < 95 { Status::Completed } else { Status::Failed };
    let (queue, ttft, decode) =
        (below(2_000) as f64, 50.0 + below(3_000) as f64 / 3.0, 200.0 + below(30_000) as f64 / 3.0);
    let breakdown = r#"[{"node_id":"node-0","total":74.15,"signals":{"thermal":50.0,"memory_fit":20.0,"queue_depth":-3.0,"latency_history":-0.29,"role_affinity":15.0,"availability_trend":0.0,"context_fit":15.0}}]"#;
    RequestRecord {
        request_id: format!("request-{id}"),
        timestamp_ms,
        model: format!("model-{model}:8b"),
        original_model: format!("model-{model}"),
        node_id: format!("node-{node}"),
        surface: Some(
            [Surface::OllamaChat, Surface::OpenAiChat, Surface::AnthropicMessages]
                [usize::try_from(below(3)).unwrap_or(0)]
            .into(),
        ),
        status: Some(status.into()),
        latency_ms: queue + ttft + decode,
        time_to_first_token_ms: Some(ttft),
        queue_ms: Some(queue),
        decode_ms: Some(decode),
        predicted_ms: Some(queue),
        counts: Counts {
            prompt_tokens: Some(below(8_000)),
            completion_tokens: Some(below(800)),
            load_ms: Some(30.0),
            ..Counts::default()
        },
        score: Some(74.15),
        candidates: Candidates::Json(breakdown.into()),
        client_ip: format!("10.0.0.{}", below(50)),
        tags: if app < 2 { vec!["ci".into()] } else { Vec::new() },
        app: format!("app-{app}"),
        user_agent: "ollama-python/0.6".into(),
        http_status: 200,
        stream: Some(true),
        num_ctx: Some(8_192),
        context_length: Some(16_384),
        context_action: Some(ContextAction::Pinned),
        request_bytes: below(40_000),
        response_bytes: below(80_000),
        priority: Some(Class::Interactive),
        finish_reason: Some(Reason::Stop),
        attempts: vec![AttemptRecord {
            node_id: format!("node-{node}"),
            outcome: Outcome::Ended(status).into(),
            score: Some(74.15),
            started_ms: Some(queue),
            duration_ms: Some(ttft + decode),
        }],
        ..RequestRecord::default()
    }
}
