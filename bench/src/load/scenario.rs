//! What is measured: the loads of a run, and what is to come of them.

use std::time::Duration;

use super::drive::{Load, Pace};
use super::target::Target;
use super::workload::{Api, Call, Workload};

/// A number that a load shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Requests a second.
    RequestsPerS,
    /// Bodies' bytes a second, MiB.
    MibPerS,
    /// Median latency less that of the backend alone, microseconds.
    AddedP50Us,
    /// The same of the 99th percentile.
    AddedP99Us,
    /// Median time to the first byte of the body less that of the backend alone, microseconds.
    AddedTtftP50Us,
    /// The same of the 99th percentile.
    AddedTtftP99Us,
    /// Median time from the making of a chunk to its reading, microseconds.
    TransitP50Us,
    /// The same of the 99th percentile.
    TransitP99Us,
    /// CPU time of a request, microseconds.
    CpuPerRequestUs,
    /// CPU time of a million chunks, seconds.
    CpuPerMillionChunksS,
    /// Most memory since the server's start, MiB.
    PeakMib,
}

impl Measure {
    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestsPerS => "requests/s",
            Self::MibPerS => "MiB/s",
            Self::AddedP50Us => "added p50, µs",
            Self::AddedP99Us => "added p99, µs",
            Self::AddedTtftP50Us => "added TTFT p50, µs",
            Self::AddedTtftP99Us => "added TTFT p99, µs",
            Self::TransitP50Us => "chunk transit p50, µs",
            Self::TransitP99Us => "chunk transit p99, µs",
            Self::CpuPerRequestUs => "CPU per request, µs",
            Self::CpuPerMillionChunksS => "CPU per million chunks, s",
            Self::PeakMib => "peak memory, MiB",
        }
    }
}

/// What herd is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Nothing: it is shown.
    None,
    /// So many times the bare Pingora at least.
    AtLeast(f64),
    /// So many times the bare Pingora at most.
    AtMost(f64),
    /// So much itself at most.
    Below(f64),
}

/// A load and what it shows.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, in the table.
    pub about: &'static str,
    /// The load.
    pub load: Load,
    /// What else goes on meanwhile, and is not measured.
    pub beside: Option<Load>,
    /// How often each target is measured; the median counts.
    pub rounds: u32,
    /// What is measured.
    pub targets: &'static [Target],
    /// What is shown, with what herd is to reach.
    pub shows: &'static [(Measure, Goal)],
}

const fn closed(workload: Workload, connections: usize, time_ms: u64) -> Load {
    let (ramp, warm) = (Duration::from_millis(50), Duration::from_millis(250));
    Load { workload, connections, pace: Pace::Closed, ramp, warm, time: Duration::from_millis(time_ms) }
}

/// Streams that begin one after the other within the length of one, so that at any time some begin and some end.
const fn streams(workload: Workload, connections: usize, ramp_ms: u64, time_ms: u64) -> Load {
    Load { ramp: Duration::from_millis(ramp_ms), ..closed(workload, connections, time_ms) }
}

const KIB: Workload = Workload::chat(1 << 10);
const NO_DIRECT: [Target; 4] = [Target::Nginx, Target::Haproxy, Target::Pingora, Target::Herd];

const REQUESTS: &[(Measure, Goal)] = &[
    (Measure::RequestsPerS, Goal::AtLeast(0.95)),
    (Measure::CpuPerRequestUs, Goal::AtMost(1.10)),
    (Measure::AddedP99Us, Goal::None),
];
const STREAMS: &[(Measure, Goal)] = &[
    (Measure::AddedTtftP50Us, Goal::AtMost(1.10)),
    (Measure::AddedTtftP99Us, Goal::None),
    (Measure::TransitP50Us, Goal::AtMost(1.10)),
    (Measure::TransitP99Us, Goal::None),
    (Measure::CpuPerMillionChunksS, Goal::AtMost(1.10)),
];
const MANY_STREAMS: &[(Measure, Goal)] = &[
    (Measure::AddedTtftP50Us, Goal::AtMost(1.10)),
    (Measure::AddedTtftP99Us, Goal::None),
    (Measure::TransitP50Us, Goal::AtMost(1.10)),
    (Measure::TransitP99Us, Goal::None),
    (Measure::CpuPerMillionChunksS, Goal::AtMost(1.10)),
    (Measure::PeakMib, Goal::Below(60.0)),
];

/// All that is measured, within ten minutes.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "c1",
        about: "1 KiB chat, 1 connection",
        load: closed(KIB, 1, 800),
        beside: None,
        rounds: 5,
        targets: &Target::ALL,
        shows: &[
            (Measure::AddedP50Us, Goal::AtMost(1.15)),
            (Measure::AddedP99Us, Goal::None),
            (Measure::CpuPerRequestUs, Goal::None),
        ],
    },
    Scenario {
        name: "c32",
        about: "1 KiB chat, 32 connections",
        load: closed(KIB, 32, 1_200),
        beside: None,
        rounds: 5,
        targets: &Target::ALL,
        shows: REQUESTS,
    },
    Scenario {
        name: "open",
        about: "1 KiB chat, 2,000 a second whatever comes",
        load: Load { pace: Pace::Open(2_000.0), ..closed(KIB, 64, 1_500) },
        beside: None,
        rounds: 3,
        targets: &Target::ALL,
        shows: &[
            (Measure::AddedP50Us, Goal::None),
            (Measure::AddedP99Us, Goal::None),
            (Measure::CpuPerRequestUs, Goal::None),
        ],
    },
    Scenario {
        name: "embed",
        about: "1 KiB embed in OpenAI's API, 32 connections",
        load: closed(Workload { call: Call::Embed, api: Api::OpenAi, ..KIB }, 32, 1_000),
        beside: None,
        rounds: 3,
        targets: &Target::ALL,
        shows: &[(Measure::RequestsPerS, Goal::None), (Measure::CpuPerRequestUs, Goal::None)],
    },
    Scenario {
        name: "s64",
        about: "64 streams of 50 chunks, 20 ms apart",
        load: streams(KIB.streaming(50, 20), 64, 1_000, 3_000),
        beside: None,
        rounds: 3,
        targets: &Target::ALL,
        shows: STREAMS,
    },
    Scenario {
        name: "s64-openai",
        about: "64 streams in OpenAI's API",
        load: streams(Workload { api: Api::OpenAi, ..KIB.streaming(50, 20) }, 64, 1_000, 2_500),
        beside: None,
        rounds: 2,
        targets: &Target::ALL,
        shows: &[(Measure::TransitP50Us, Goal::None), (Measure::CpuPerMillionChunksS, Goal::None)],
    },
    Scenario {
        // For machines on which a thousand are too many for any of the servers.
        name: "s300",
        about: "300 streams of 50 chunks, 20 ms apart",
        load: streams(KIB.streaming(50, 20), 300, 1_000, 2_500),
        beside: None,
        rounds: 3,
        targets: &Target::ALL,
        shows: STREAMS,
    },
    Scenario {
        name: "s1000",
        about: "1,000 streams of 50 chunks, 20 ms apart",
        load: streams(KIB.streaming(50, 20), 1_000, 1_500, 3_000),
        beside: None,
        rounds: 2,
        targets: &Target::ALL,
        shows: MANY_STREAMS,
    },
    Scenario {
        name: "s10000",
        about: "10,000 streams, a chunk every 2 s",
        load: streams(KIB.streaming(8, 2_000), 10_000, 5_000, 4_000),
        beside: None,
        rounds: 1,
        targets: &NO_DIRECT,
        shows: &[(Measure::PeakMib, Goal::Below(400.0))],
    },
    Scenario {
        name: "1mib",
        about: "1 MiB bodies, 8 connections",
        load: closed(Workload::chat(1 << 20), 8, 1_500),
        beside: None,
        rounds: 3,
        targets: &Target::ALL,
        shows: &[
            (Measure::MibPerS, Goal::AtLeast(0.90)),
            (Measure::CpuPerRequestUs, Goal::None),
            (Measure::PeakMib, Goal::None),
        ],
    },
    Scenario {
        name: "32mib",
        about: "1 KiB chat, 4 connections, beside two that send 32 MiB each",
        load: closed(KIB, 4, 2_000),
        beside: Some(closed(Workload::chat(32 << 20), 2, 2_000)),
        rounds: 3,
        targets: &Target::ALL,
        shows: &[(Measure::AddedP50Us, Goal::None), (Measure::AddedP99Us, Goal::None), (Measure::PeakMib, Goal::None)],
    },
];
