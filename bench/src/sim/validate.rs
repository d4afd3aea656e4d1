//! The simulator against real time: the same small workload, once in virtual time and once with real processes.
//!
//! Three `herd-sim` nodes of different speed are real servers. herd is asked through its own port. The other policies are
//! the very code that the simulator runs, playing a router on the client's side: what they say is sent straight to the
//! nodes. Only the ranking is compared, and only where the simulator sees a clear difference: real requests also pay for
//! connections, scheduling and a machine that does other things.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use herd_harness::{Edge, Sim, post, send};

use super::catalogue::{Hardware, MODELS, RTX, model_index};
use super::engine::run;
use super::node::{Report, RunnerReport, Timing};
use super::policy::{PEER, POLICIES, PolicySpec};
use super::rng::Rng;
use super::router::{Action, Ended, Failed, Failure, World};
use super::workload::{NodeSpec, Request, Scenario};

/// The policies that are played: herd, and what a client can play without help from the nodes.
const PLAYED: [&str; 5] = ["herd", "least-connections", "round-robin", "random", PEER];
const MODEL: &str = "llama3.2:3b";
/// Requests, and how many come in a second.
const REQUESTS: u32 = 160;
const PER_S: f64 = 4.0;
/// Differences of means below this share are none.
const CLEAR: f64 = 0.1;
/// How often a client-side policy hears of the nodes.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Writes so many tokens per second for each of two requests, and reads at once: what `herd-sim` does with its flags.
const fn machine(bandwidth_gbps: f64) -> Hardware {
    Hardware {
        bandwidth_gbps,
        efficiency: 1.0,
        token_overhead_ms: 0.0,
        prefill_tps_8b: 1e9,
        batch_cost: 0.0,
        slots: 2,
        context: 4_096,
        ..RTX
    }
}

/// A model of 2 GB at that bandwidth: 100, 50 and 20 tokens per second.
static MACHINES: [Hardware; 3] = [machine(200.0), machine(100.0), machine(40.0)];

/// Means in seconds of one policy.
struct Row {
    name: &'static str,
    virtual_s: f64,
    real_s: f64,
}

/// Runs the comparison and returns its report; false = the rankings differ.
pub(crate) fn validate(seed: u64) -> (String, bool) {
    let scenario = scenario(seed);
    let mut rows: Vec<Row> = PLAYED
        .iter()
        .filter_map(|name| POLICIES.iter().find(|policy| policy.name == *name))
        .map(|policy| {
            let virtual_s = in_virtual_time(&scenario, policy, seed);
            let real_s = if policy.herd { through_the_edge(&scenario) } else { as_a_client(&scenario, policy, seed) };
            super::cli::tell(&format!("{}: {virtual_s:.3} s in virtual time, {real_s:.3} s in real time", policy.name));
            Row { name: policy.name, virtual_s, real_s }
        })
        .collect();
    rows.sort_by(|a, b| a.virtual_s.total_cmp(&b.virtual_s));
    let clear = |a: &Row, b: &Row| b.virtual_s > a.virtual_s * (1.0 + CLEAR);
    let pairs = || rows.iter().enumerate().flat_map(|(place, a)| rows[place + 1..].iter().map(move |b| (a, b)));
    let holds = pairs().filter(|(a, b)| clear(a, b)).all(|(a, b)| a.real_s < b.real_s);
    (markdown(&rows, holds), holds)
}

fn markdown(rows: &[Row], holds: bool) -> String {
    let mut text = include_str!("validate/head.md").to_owned();
    for Row { name, virtual_s, real_s } in rows {
        putln!(text, "| {name} | {virtual_s:.3} | {real_s:.3} |");
    }
    let verdict = if holds {
        "Every two policies whose simulated means differ by more than a tenth have the same order in real time."
    } else {
        "The order in real time is another: what the simulator says of such differences is not to be believed."
    };
    putln!(text, "\n{verdict}");
    text
}

fn scenario(seed: u64) -> Scenario {
    let mut rng = Rng::new(seed);
    let model = model_index(MODEL);
    let nodes = MACHINES.iter().map(|machine| NodeSpec::new(machine, &[model], &[model])).collect();
    let mut at_ms = 0.0;
    let requests = (0..REQUESTS).map(|number| {
        at_ms += rng.exponential(1e3 / PER_S);
        let output = 10 + rng.index(50) as u64;
        Request {
            at_ms,
            after: None,
            model,
            prompt: 8,
            estimate: 8,
            prefix: None,
            output,
            limit: Some(output),
            num_ctx: None,
            app: u64::from(number % 4),
            foreign: None,
        }
    });
    Scenario { nodes, requests: requests.collect(), outages: Vec::new() }
}

fn in_virtual_time(scenario: &Scenario, policy: &PolicySpec, seed: u64) -> f64 {
    let mut router = (policy.make)(seed);
    let outcome = run(scenario, router.as_mut());
    let times: Vec<f64> = outcome.records.iter().flatten().map(super::engine::Record::completion_ms).collect();
    mean_s(&times)
}

fn mean_s(times_ms: &[f64]) -> f64 {
    times_ms.iter().sum::<f64>() / times_ms.len().max(1) as f64 / 1e3
}

fn start(edge: Option<&Edge>) -> Vec<Sim> {
    let start = |(number, machine): (usize, &Hardware)| {
        let tokens_per_s = format!("{:.0}", 1e3 / machine.token_ms(&MODELS[model_index(MODEL)]));
        let model = format!("{MODEL}=2");
        let slots = machine.slots.to_string();
        let flags = ["--model", &model, "--hot", MODEL, "--num-parallel", &slots, "--decode-tps", &tokens_per_s];
        Sim::start(edge, &format!("n{number}"), &flags)
    };
    MACHINES.iter().enumerate().map(start).collect()
}

/// A request as its client writes it.
fn body(request: &Request) -> Vec<u8> {
    let (model, tokens) = (MODELS[request.model].name, request.output);
    let body = format!(
        r#"{{"model":"{model}","messages":[{{"role":"user","content":"Say something."}}],"options":{{"num_predict":{tokens}}}}}"#
    );
    post("/api/chat", body.as_bytes())
}

/// An answer: whose, and whether it was right.
struct Answered {
    request: usize,
    node: usize,
    sent_ms: f64,
    served: bool,
}

/// Asks `address` on a thread of its own.
fn ask(to: std::net::SocketAddr, body: Vec<u8>, mut answered: Answered, tell: Sender<Answered>) {
    thread::spawn(move || {
        let answer = send(to, &body);
        answered.served = answer.status == 200 && answer.whole;
        // Who asked may have given up.
        drop(tell.send(answered));
    });
}

fn through_the_edge(scenario: &Scenario) -> f64 {
    let edge = Edge::start(&[]);
    let _nodes = start(Some(&edge));
    edge.wait_for(&["n0", "n1", "n2"]);
    let play = |_: f64, request: usize, began: Instant, tell: &Sender<Answered>| {
        let sent_ms = since(began);
        let answered = Answered { request, node: 0, sent_ms, served: false };
        ask(edge.address, body(&scenario.requests[request]), answered, tell.clone());
    };
    drive(scenario, play, |_, _| {}, |_| {}, |_, _| {})
}

fn as_a_client(scenario: &Scenario, policy: &PolicySpec, seed: u64) -> f64 {
    let nodes = start(None);
    let world = World { nodes: &scenario.nodes, requests: &scenario.requests };
    let router = std::cell::RefCell::new((policy.make)(seed));
    let running = std::cell::RefCell::new(vec![0_u32; nodes.len()]);
    let out = std::cell::RefCell::new(Vec::new());
    let carry_out = |began: Instant, tell: &Sender<Answered>| {
        for action in out.take() {
            let Action::Send(sent) = action else { continue };
            running.borrow_mut()[sent.node] += 1;
            let answered = Answered { request: sent.request, node: sent.node, sent_ms: since(began), served: false };
            ask(nodes[sent.node].address, body(&scenario.requests[sent.request]), answered, tell.clone());
        }
    };
    let reports = |now_ms: f64| {
        for node in 0..nodes.len() {
            router.borrow_mut().heartbeat(world, now_ms, node, &report(scenario, node, running.borrow()[node]));
        }
    };
    reports(0.0);
    let arrives = |now_ms: f64, request: usize, began: Instant, tell: &Sender<Answered>| {
        router.borrow_mut().arrives(world, now_ms, request, &mut out.borrow_mut());
        carry_out(began, tell);
    };
    let ended = |now_ms: f64, answered: &Answered| {
        let Answered { request, node, sent_ms, served } = *answered;
        running.borrow_mut()[node] -= 1;
        let timing = Timing { load_ms: 0.0, prefill_ms: 0.0, decode_ms: now_ms - sent_ms };
        let mut router = router.borrow_mut();
        if served {
            router.done(world, now_ms, Ended { request, node, sent_ms, timing }, &mut out.borrow_mut());
        } else {
            let failed = Failed { request, node, failure: Failure::Reset, answered: true };
            router.failed(world, now_ms, failed, &mut out.borrow_mut());
        }
    };
    let looks = |now_ms: f64| {
        reports(now_ms);
        router.borrow_mut().settle(world, now_ms, &mut out.borrow_mut());
    };
    drive(scenario, arrives, ended, looks, carry_out)
}

/// What an agent would say of a node on which so many requests run.
fn report(scenario: &Scenario, node: usize, running: u32) -> Report {
    let hardware = scenario.nodes[node].hardware;
    let model = scenario.nodes[node].models[0];
    let bytes = hardware.runner_bytes(&MODELS[model], hardware.context);
    let busy = running.min(hardware.slots);
    let runner = RunnerReport { model, context: hardware.context, bytes, busy, waiting: running - busy };
    Report { runners: vec![runner], loading: None, free_bytes: hardware.memory_bytes - bytes }
}

fn since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

/// Lets real time pass until every request has ended; returns the mean time of those that were served, in seconds.
fn drive(
    scenario: &Scenario,
    arrives: impl Fn(f64, usize, Instant, &Sender<Answered>),
    ended: impl Fn(f64, &Answered),
    looks: impl Fn(f64),
    then: impl Fn(Instant, &Sender<Answered>),
) -> f64 {
    let (tell, told) = channel();
    let (began, mut looked) = (Instant::now(), Instant::now());
    let mut times_ms = Vec::new();
    let (mut next, mut over) = (0, 0);
    while over < scenario.requests.len() {
        let due_ms = scenario.requests.get(next).map_or(f64::INFINITY, |request| request.at_ms);
        if since(began) >= due_ms {
            arrives(since(began), next, began, &tell);
            next += 1;
        }
        if looked.elapsed() >= REPORT_EVERY {
            looked = Instant::now();
            looks(since(began));
        }
        then(began, &tell);
        let wait_ms = (due_ms - since(began)).clamp(0.0, 50.0);
        match told.recv_timeout(Duration::from_secs_f64(wait_ms / 1e3)) {
            Ok(answered) => {
                over += 1;
                let now_ms = since(began);
                if answered.served {
                    times_ms.push(now_ms - scenario.requests[answered.request].at_ms);
                }
                ended(now_ms, &answered);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    assert_eq!(times_ms.len(), scenario.requests.len(), "every request is served");
    mean_s(&times_ms)
}

/// Where the report keeps what was found.
pub(crate) fn write(folder: &Path, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(super::report::VALIDATION), text)
}
