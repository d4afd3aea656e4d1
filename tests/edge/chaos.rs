//! The bars: what must hold when everything happens at once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

use herd_harness::{Answer, Edge, Sim, eventually};

const REQUESTS: usize = 1_000;
const CLIENTS: usize = 12;
const NODE: [&str; 6] = ["--hot", "tiny", "--num-parallel", "4", "--decode-tps", "80"];

/// How an answer ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Whole,
    /// It broke off after its first byte, and the client was told so in the protocol's own form.
    ToldInTheStream,
}

const PATHS: [(&str, bool); 4] =
    [("/api/chat", true), ("/api/chat", false), ("/v1/chat/completions", true), ("/v1/chat/completions", false)];

fn body(path: &str, stream: bool) -> String {
    let limit = if path == "/api/chat" { r#""options":{"num_predict":8}"# } else { r#""max_tokens":8"# };
    format!(r#"{{"model":"tiny","stream":{stream},{limit},"messages":[{{"role":"user","content":"hi"}}]}}"#)
}

/// `None` = a failure that the client should not have seen.
fn judge(path: &str, stream: bool, answer: &Answer) -> Option<Seen> {
    let text = answer.text();
    let (end, error) = match (path, stream) {
        ("/api/chat", true) => ("\"done\":true", "{\"error\":"),
        ("/api/chat", false) => ("\"done\":true", "\0"),
        (_, true) => ("data: [DONE]", "data: {\"error\":"),
        (_, false) => ("\"finish_reason\":\"", "\0"),
    };
    let begun = answer.status == 200 && answer.whole;
    let last = text.lines().rfind(|line| !line.is_empty()).unwrap_or_default();
    match begun {
        true if text.contains(end) => Some(Seen::Whole),
        true if last.starts_with(error) => Some(Seen::ToldInTheStream),
        _ => None,
    }
}

/// Kills one node after the other, and starts each again a second later where it was, until told to stop; returns how
/// often.
fn kill_in_turn(edge: &Edge, sims: &mut [(&str, Sim)], stop: &mpsc::Receiver<()>) -> usize {
    let pause = || stop.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout);
    let mut kills = 0;
    while pause() {
        let (id, sim) = &mut sims[kills % 3];
        sim.process.kill();
        kills += 1;
        let goes_on = pause();
        sim.restart(Some(edge), id, &NODE);
        if !goes_on {
            break;
        }
    }
    kills
}

#[test]
fn nobody_notices_that_nodes_are_killed_before_a_byte_has_come() {
    let edge = Edge::start(&[]);
    let mut sims = ["a", "b", "c"].map(|id| (id, Sim::start(Some(&edge), id, &NODE)));
    edge.wait_for(&["a", "b", "c"]);
    let (next, slowest_ms) = (AtomicUsize::new(0), AtomicU64::new(0));
    let client = || {
        let mut seen = Vec::new();
        while let Some(index) = Some(next.fetch_add(1, Relaxed)).filter(|index| *index < REQUESTS) {
            let (path, stream) = PATHS[index % PATHS.len()];
            let began = Instant::now();
            let answer = edge.post(path, body(path, stream).as_bytes());
            slowest_ms.fetch_max(u64::try_from(began.elapsed().as_millis()).unwrap(), Relaxed);
            seen.push(judge(path, stream, &answer).ok_or_else(|| format!("{path} {stream} {answer:?}")));
        }
        seen
    };
    let (stop, stopped) = mpsc::channel();
    let began = Instant::now();
    let (seen, kills) = std::thread::scope(|scope| {
        let (edge, sims) = (&edge, &mut sims);
        let killer = scope.spawn(move || kill_in_turn(edge, sims, &stopped));
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let seen: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        drop(stop);
        (seen, killer.join().unwrap())
    });
    let failed: Vec<&String> = seen.iter().filter_map(|seen| seen.as_ref().err()).collect();
    let told = seen.iter().filter(|seen| **seen == Ok(Seen::ToldInTheStream)).count();
    eprintln!(
        "{} requests in {:?}, {kills} kills: {} failed, {told} cut and told, slowest {slowest_ms:?} ms",
        seen.len(),
        began.elapsed(),
        failed.len(),
    );
    assert!(failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), seen.len());
    assert_eq!(seen.len(), REQUESTS);
    assert!(kills >= 2, "{kills}");
    eventually("nothing is left", || edge.in_flight() == 0 && edge.waiting().is_empty());
    edge.wait_for(&["a", "b", "c"]);
}

const CROWD: usize = 500;

#[test]
fn a_crowd_that_asks_for_a_cold_model_causes_one_load() {
    let edge = Edge::start_with("queue: {max_waiting_per_model: 400}", &[]);
    let node = |id| Sim::start(Some(&edge), id, &["--model", "cold=2", "--load-ms", "1500", "--num-parallel", "4"]);
    let sims = [node("a"), node("b"), node("c")];
    edge.wait_for(&["a", "b", "c"]);
    let request =
        br#"{"model":"cold","stream":false,"options":{"num_predict":2},"messages":[{"role":"user","content":"hi"}]}"#;
    let together = Barrier::new(CROWD + 1);
    let began = Instant::now();
    let (answers, most_waiting) = std::thread::scope(|scope| {
        let client = || {
            together.wait();
            edge.post("/api/chat", request)
        };
        let builder = || std::thread::Builder::new().stack_size(256 << 10);
        let clients: Vec<_> = (0..CROWD).map(|_| builder().spawn_scoped(scope, client).unwrap()).collect();
        together.wait();
        let mut most_waiting = 0;
        while clients.iter().any(|client| !client.is_finished()) {
            let waiting = edge.admin("GET", "/fleet/queue", "")["waiting"].as_u64().unwrap();
            most_waiting = most_waiting.max(waiting);
        }
        let answers: Vec<Answer> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        (answers, most_waiting)
    });
    let took = began.elapsed();
    let served = answers.iter().filter(|answer| answer.status == 200 && answer.whole).count();
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        let honest = answer.status == 503 && answer.header("Retry-After").is_some();
        assert!(honest && answer.text().contains("queue.max_waiting_per_model"), "{answer:?}");
    }
    let loads: Vec<u64> = sims.iter().map(|sim| sim.stats()["loads"].as_u64().unwrap()).collect();
    eprintln!("{served} of {CROWD} served in {took:?}, {most_waiting} waited at most, loads {loads:?}");
    assert_eq!(loads.iter().sum::<u64>(), 1, "{loads:?}");
    assert!(served >= 400, "{served}");
    assert!((1..=400).contains(&most_waiting), "{most_waiting}");
    eventually("nothing is left", || edge.in_flight() == 0 && edge.waiting().is_empty());
    assert!(sims.iter().all(|sim| sim.stats()["in_flight"] == 0 && sim.stats()["cancelled"] == 0));
}
