//! What a long history costs: herd before a store of a million requests, asked for everything while it serves.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use herd_harness::{Answer, get};
use rusqlite::Connection;

use super::clock::now_ns;
use super::drive::{Load, Pace, drive};
use super::process::Usage;
use super::samples::{Samples, median};
use super::target::{Programs, Running, Target};
use super::workload::Workload;

/// Longest that the 99th percentile of a GET may take, milliseconds.
const GET_MS_MAX: f64 = 100.0;
/// Longest from the start of the process to the first answer, milliseconds.
const START_MS_MAX: f64 = 1_000.0;
/// Most that those who watch may cost, of one core.
const WATCHING_MAX: f64 = 0.05;
/// Who watches.
const WATCHERS: usize = 100;
/// How often every path is asked.
const ASKS: usize = 100;
/// Rounds of traffic, with and without questions.
const ROUNDS: u32 = 5;
/// Longest that old requests may take to be added up.
const ADDED_UP_WITHIN: Duration = Duration::from_mins(10);
/// How long a herd that does nothing is watched.
const IDLE: Duration = Duration::from_secs(5);

/// The GETs of the admin service whose answers come from the store or grow with the fleet.
const PATHS: [&str; 32] = [
    "/fleet/status",
    "/fleet/queue",
    "/fleet/limits",
    "/metrics",
    "/dashboard/api/traces?limit=50",
    "/dashboard/api/traces?limit=1000",
    "/dashboard/api/traces?model=model-3:8b&limit=50",
    "/dashboard/api/traces?node=node-5&limit=50",
    "/dashboard/api/traces?node=node-5&model=model-3:8b&limit=50",
    "/dashboard/api/traces?status=failed&limit=50",
    "/dashboard/api/traces?status=completed&limit=50",
    "/dashboard/api/traces?app=app-7&limit=50",
    "/dashboard/api/traces?client=10.0.0.9&limit=50",
    "/dashboard/api/traces?surface=openai_chat&limit=50",
    "/dashboard/api/traces?tag=tag-3&limit=50",
    "/dashboard/api/overview?range=24h",
    "/dashboard/api/overview?range=30d",
    "/dashboard/api/trends?range=1h",
    "/dashboard/api/trends?range=24h",
    "/dashboard/api/trends?range=30d",
    "/dashboard/api/trends?range=30d&model=model-3:8b",
    "/dashboard/api/models?range=24h",
    "/dashboard/api/models?range=30d",
    "/dashboard/api/usage?group_by=node&range=30d",
    "/dashboard/api/usage?group_by=model&range=30d",
    "/dashboard/api/usage?group_by=app&range=30d",
    "/dashboard/api/usage?group_by=day&range=30d",
    "/dashboard/api/apps?range=30d",
    "/dashboard/api/apps/daily?range=30d",
    "/dashboard/api/context-usage?range=30d",
    "/dashboard/api/health",
    "/dashboard/api/health/history?range=30d",
];

/// Requests of the last 29 days, spread evenly: 12 models on 8 nodes, 20 apps and tags, 50 clients, one in 50 failed.
/// `?1` = how many, `?2` = now, Unix seconds.
const REQUESTS: &str = "
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1),
     r AS (SELECT i, i * 2654435761 % 4294967296 / 65536 AS a, i * 40503 % 65536 AS b FROM n)
INSERT INTO request_traces (request_id, timestamp, model, node_id, status, latency_ms, time_to_first_token_ms, queue_ms,
    decode_ms, predicted_ms, prompt_tokens, completion_tokens, original_model, original_format, app, client_ip,
    http_status, stream, score, num_ctx, context_length, context_action, request_bytes, response_bytes, tags,
    user_agent, scores_breakdown)
SELECT printf('%016x', i), ?2 - 29 * 86400.0 * (?1 - i) / ?1, printf('model-%d:8b', a % 12), printf('node-%d', b % 8),
    iif(a % 50 = 7, 'failed', 'completed'), 200 + a % 9000, 50 + b % 900, b % 40, 150 + a % 8000, 900,
    a % 4000, b % 700, printf('model-%d:8b', a % 12), iif(b % 2, 'openai_chat', 'ollama_chat'),
    printf('app-%d', a % 20), printf('10.0.0.%d', b % 50), iif(a % 50 = 7, 502, 200), 1, 40 + b % 90, 8192, 8192,
    'keep', 1000 + a % 9000, 4000 + b % 9000, json_array(printf('tag-%d', a % 20)), 'OpenAI/Python 1.99',
    json_object('thermal', 50, 'memory_fit', 20, 'queue_depth', -b % 30, 'latency', -a % 25, 'role_affinity', 0,
        'availability_trend', 10, 'context_fit', 15)
FROM r";

/// Fills a store with `requests`, measures the herd before it, and returns a report.
///
/// # Errors
/// When herd does not run, or fails to answer.
pub fn measure(requests: u32, programs: &Programs, nodes: &[SocketAddr], folder: &Path) -> anyhow::Result<String> {
    let mut report = Report::default();
    fill(requests, programs, nodes, folder)?;
    let (herd, admin) = start(&mut report, programs, nodes, folder)?;
    added_up(&mut report, folder)?;
    gets(&mut report, admin)?;
    traffic(&mut report, &herd, admin)?;
    watchers(&mut report, &herd, admin)?;
    Ok(report.0)
}

/// Lines of a table.
#[derive(Default)]
struct Report(String);

impl Report {
    fn line(&mut self, what: &str, number: &str, bar: Option<(bool, &str)>) {
        if self.0.is_empty() {
            self.0.push_str("| what | measured | bar |\n| --- | --- | --- |\n");
        }
        let bar = bar.map(|(met, bar)| format!("{bar}: {}", if met { "met" } else { "missed" })).unwrap_or_default();
        // Writing to a string cannot fail.
        writeln!(self.0, "| {what} | {number} | {bar} |").ok();
    }
}

/// herd makes the tables; then the requests are put there as those of an older database are, for herd to add up.
fn fill(requests: u32, programs: &Programs, nodes: &[SocketAddr], folder: &Path) -> anyhow::Result<()> {
    eprintln!("herd-load: making {requests} requests");
    drop(Running::start(Target::Herd, programs, nodes, folder)?);
    let mut store = open(folder)?;
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    let transaction = store.transaction()?;
    transaction.execute("DELETE FROM request_traces", [])?;
    transaction.execute(REQUESTS, (requests, now_s))?;
    let backfill = "INSERT OR REPLACE INTO herd_upkeep (name, value) VALUES ('backfilled_to', 0), ('backfill_end', ?1)";
    transaction.execute(backfill, [requests])?;
    transaction.commit()?;
    Ok(())
}

fn open(folder: &Path) -> anyhow::Result<Connection> {
    let store = Connection::open(folder.join("herd/data/latency.db"))?;
    store.busy_timeout(Duration::from_secs(5))?;
    Ok(store)
}

/// From the start of the process to the first answers.
fn start(
    report: &mut Report,
    programs: &Programs,
    nodes: &[SocketAddr],
    folder: &Path,
) -> anyhow::Result<(Running, SocketAddr)> {
    let began = Instant::now();
    let herd = Running::start(Target::Herd, programs, nodes, folder)?;
    let serves_ms = ms(began.elapsed());
    let admin = herd.admin.context("herd told no address of its admin service")?;
    let (traces, _) = timed(admin, "/dashboard/api/traces?limit=50");
    let traces_ms = ms(began.elapsed());
    ensure!(traces.status == 200, "traces: status {}", traces.status);
    let size = std::fs::metadata(folder.join("herd/data/latency.db"))?.len() >> 20;
    report.line("size of the store", &format!("{size} MiB"), None);
    for (what, number) in [("start to the first request served", serves_ms), ("start to a page of traces", traces_ms)] {
        report.line(what, &format!("{number:.0} ms"), Some((number < START_MS_MAX, "< 1 s")));
    }
    Ok((herd, admin))
}

fn added_up(report: &mut Report, folder: &Path) -> anyhow::Result<()> {
    eprintln!("herd-load: herd adds them up");
    let (store, began) = (open(folder)?, Instant::now());
    let sql = "SELECT (SELECT value FROM herd_upkeep WHERE name = 'backfill_end')
        - (SELECT value FROM herd_upkeep WHERE name = 'backfilled_to')";
    while store.query_row(sql, [], |row| row.get::<_, i64>(0))? > 0 {
        ensure!(began.elapsed() < ADDED_UP_WITHIN, "old requests are not added up in time");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    report.line("old requests added up, in the background", &format!("{:.0} s", began.elapsed().as_secs_f64()), None);
    Ok(())
}

/// One answer and how long it took to its last byte.
fn timed(admin: SocketAddr, path: &str) -> (Answer, u64) {
    let began = now_ns();
    let answer = get(admin, path);
    (answer, now_ns() - began)
}

/// Every path in turn, so that none finds only what it has left in the caches itself.
fn gets(report: &mut Report, admin: SocketAddr) -> anyhow::Result<()> {
    eprintln!("herd-load: asking for everything");
    let mut times = vec![Samples::default(); PATHS.len()];
    for _ in 0..ASKS {
        for (path, times) in PATHS.iter().zip(&mut times) {
            let (answer, ns) = timed(admin, path);
            ensure!(answer.status == 200, "{path}: status {}", answer.status);
            times.add(ns);
        }
    }
    for (path, times) in PATHS.iter().zip(&mut times) {
        let quantile = |times: &mut Samples, q| times.quantile_us(q).unwrap_or_default() / 1e3;
        let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
        let met = p99 < GET_MS_MAX;
        report.line(&format!("`{path}`"), &format!("p50 {p50:.1} ms, p99 {p99:.1} ms"), Some((met, "p99 < 100 ms")));
    }
    Ok(())
}

/// A steady trickle of requests, with and without somebody who asks for everything without a pause.
fn traffic(report: &mut Report, herd: &Running, admin: SocketAddr) -> anyhow::Result<()> {
    eprintln!("herd-load: serving while asked");
    let load = Load {
        workload: Workload::chat(1 << 10),
        connections: 64,
        pace: Pace::Open(200.0),
        ramp: Duration::ZERO,
        warm: Duration::from_millis(300),
        time: Duration::from_secs(3),
    };
    let mut alone = [Vec::new(), Vec::new()];
    let mut asked = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for asks in [false, true] {
            let mut latency = while_asking(asks.then_some(admin), || drive(herd.address, &load, || {}))?.latency;
            let kept = if asks { &mut asked } else { &mut alone };
            for (kept, q) in kept.iter_mut().zip([0.5, 0.99]) {
                kept.push(latency.quantile_us(q).context("no request was served")?);
            }
        }
    }
    for (name, (alone, asked)) in ["p50", "p99"].into_iter().zip(alone.into_iter().zip(asked)) {
        let ratio = median(alone.iter().zip(&asked).map(|(alone, asked)| asked / alone)).unwrap_or_default();
        let (alone, asked) = (median(alone).unwrap_or_default(), median(asked).unwrap_or_default());
        let number = format!("{alone:.0} µs alone, {asked:.0} µs while everything is asked for: {ratio:.2}");
        report.line(&format!("latency of requests, {name}"), &number, None);
    }
    Ok(())
}

/// Does `work` while another thread asks `admin` for one path after the other.
fn while_asking<T>(admin: Option<SocketAddr>, work: impl FnOnce() -> T) -> T {
    let done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        if let Some(admin) = admin {
            scope.spawn(move || {
                for path in PATHS.iter().cycle().take_while(|_| !done.load(Relaxed)) {
                    drop(timed(admin, path));
                }
            });
        }
        let worked = work();
        done.store(true, Relaxed);
        worked
    })
}

/// What those who watch the dashboard's events cost while nothing happens, and while requests are served.
fn watchers(report: &mut Report, herd: &Running, admin: SocketAddr) -> anyhow::Result<()> {
    eprintln!("herd-load: {WATCHERS} watch");
    let pid = herd.pid().context("herd has no process")?;
    let busy = Load {
        workload: Workload::chat(1 << 10),
        connections: 16,
        pace: Pace::Open(50.0),
        ramp: Duration::ZERO,
        warm: Duration::ZERO,
        time: IDLE,
    };
    let idle = || -> anyhow::Result<()> {
        std::thread::park_timeout(IDLE);
        Ok(())
    };
    let busy = || drive(herd.address, &busy, || {}).map(drop);
    let works: [(&str, &dyn Fn() -> anyhow::Result<()>); 2] = [("idle", &idle), ("50 requests a second", &busy)];
    for (what, work) in works {
        let unwatched = share_of_core(pid, work)?;
        let watched = while_watched(admin, || share_of_core(pid, work))??;
        let number = format!("{:.1} % of a core, {:.1} % unwatched", watched * 100.0, unwatched * 100.0);
        let met = watched - unwatched < WATCHING_MAX;
        report.line(&format!("{WATCHERS} watch, {what}"), &number, Some((met, "< 5 % more")));
    }
    Ok(())
}

/// Does `work` while all the watchers are told what happens.
fn while_watched<T>(admin: SocketAddr, work: impl FnOnce() -> T) -> anyhow::Result<T> {
    let mut watching = Vec::with_capacity(WATCHERS);
    for _ in 0..WATCHERS {
        let mut stream = TcpStream::connect(admin)?;
        stream.write_all(b"GET /dashboard/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")?;
        // What all is like comes first, and costs once.
        ensure!(stream.read(&mut [0; 4 << 10])? > 0, "nothing is told of what happens");
        watching.push(stream);
    }
    std::thread::scope(|scope| {
        for stream in &watching {
            scope.spawn(move || {
                let mut stream = stream;
                while stream.read(&mut [0; 4 << 10]).is_ok_and(|read| read > 0) {}
            });
        }
        let worked = work();
        for stream in &watching {
            // One that is gone already is not read from any more.
            stream.shutdown(Shutdown::Both).ok();
        }
        Ok(worked)
    })
}

fn share_of_core(pid: u32, work: &dyn Fn() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let (before, began) = (Usage::of(pid), Instant::now());
    work()?;
    Ok(Usage::of(pid).since(&before).cpu.as_secs_f64() / began.elapsed().as_secs_f64())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
