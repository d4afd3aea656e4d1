//! The generator and the backend understand each other, on every path and at either pace.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use herd_bench::load::drive::{Load, Pace, drive};
use herd_bench::load::target::Process;
use herd_bench::load::workload::{Api, Call, Workload};

fn backend() -> (Process, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herd-load"));
    let mut backend =
        Process::start(command.args(["backend", "127.0.0.1:0"]).stdout(Stdio::piped())).expect("a backend");
    let address = backend.lines(1).expect("it listens")[0].parse().expect("an address");
    (backend, address)
}

#[track_caller]
fn check(server: SocketAddr, workload: Workload, pace: Pace) {
    let (ramp, warm, time) = (Duration::ZERO, Duration::ZERO, Duration::from_millis(200));
    let mut edges = 0;
    let load = Load { workload, connections: 3, pace, ramp, warm, time };
    let mut measured = drive(server, &load, || edges += 1).expect("a run");
    assert_eq!((measured.errors, &measured.first_error, edges), (0, &None, 2), "{workload:?}");
    assert!(measured.requests > 0 && measured.latency.quantile(0.5).is_some(), "{workload:?}");
    assert_eq!(measured.ttft.count() as u64, measured.requests, "{workload:?}");
}

#[test]
fn every_kind_of_request_is_answered_at_either_pace() {
    let (_backend, server) = backend();
    for api in [Api::Ollama, Api::OpenAi] {
        for call in [Call::Chat, Call::Generate, Call::Embed] {
            let workload = Workload { call, api, ..Workload::chat(1 << 10) };
            check(server, workload, Pace::Closed);
            if call != Call::Embed {
                check(server, workload.streaming(5, 1), Pace::Closed);
            }
        }
    }
    check(server, Workload::chat(1 << 10), Pace::Open(500.0));
    check(server, Workload::chat(1 << 20), Pace::Closed);
}

#[test]
fn chunks_carry_their_times() {
    let (_backend, server) = backend();
    let time = Duration::from_millis(300);
    let workload = Workload::chat(1 << 10).streaming(10, 1);
    let load = Load { workload, connections: 2, pace: Pace::Closed, ramp: time / 10, warm: time / 10, time };
    let mut measured = drive(server, &load, || {}).unwrap();
    assert!(measured.chunks > 0 && measured.chunks == measured.transit.count() as u64);
    // One clock: what was made after it was read would be a mistake of the stamps, and be zero.
    assert!(measured.transit.quantile(0.0).unwrap() > 0);
}
