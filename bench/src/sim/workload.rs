//! What is asked of which fleet: one function per workload, from a seed to all that will happen.

mod agents;
mod chat;
mod large;

use super::catalogue::Hardware;
use super::rng::Rng;

/// How long Ollama keeps a model that nobody uses, unless a request says otherwise.
pub(crate) const KEEP_ALIVE_MS: f64 = 300_000.0;

/// A workload, for one seed.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// The fleet.
    pub(crate) nodes: Vec<NodeSpec>,
    /// The requests, in the order of their numbers.
    pub(crate) requests: Vec<Request>,
    /// When which node is away.
    pub(crate) outages: Vec<Outage>,
}

/// A node of a fleet.
#[derive(Debug, Clone)]
pub(crate) struct NodeSpec {
    /// The machine.
    pub(crate) hardware: &'static Hardware,
    /// Models on its disk, in the order of the catalogue.
    pub(crate) models: Vec<usize>,
    /// Models in memory at the start, with their context; `None` = the node's default.
    pub(crate) hot: Vec<(usize, Option<u64>)>,
    /// How often it reports.
    pub(crate) interval_ms: f64,
    /// How long a report is under way.
    pub(crate) delay_ms: f64,
}

impl NodeSpec {
    /// With agents as they are shipped: a report every five seconds, over a local network.
    pub(crate) fn new(hardware: &'static Hardware, models: &[usize], hot: &[usize]) -> Self {
        let mut models = models.to_vec();
        models.sort_unstable();
        let hot = hot.iter().map(|model| (*model, None)).collect();
        Self { hardware, models, hot, interval_ms: 5_000.0, delay_ms: 2.0 }
    }
}

/// A request as a client sends it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// When it is sent, or how long after the end of [`Self::after`].
    pub(crate) at_ms: f64,
    /// The request whose answer its client waits for first.
    pub(crate) after: Option<usize>,
    /// Index of its model.
    pub(crate) model: usize,
    /// Tokens of its prompt.
    pub(crate) prompt: u64,
    /// What a router takes them for, from the bytes.
    pub(crate) estimate: u64,
    /// Its conversation, and the tokens of the prompt that stood there before.
    pub(crate) prefix: Option<(u64, u64)>,
    /// Tokens of its answer.
    pub(crate) output: u64,
    /// Most tokens that its client allows (`num_predict`), where it says so.
    pub(crate) limit: Option<u64>,
    /// `num_ctx`, where its client names one.
    pub(crate) num_ctx: Option<u64>,
    /// Its client.
    pub(crate) app: u64,
    /// Sent to this node past every router: it is load, and not measured.
    pub(crate) foreign: Option<usize>,
}

/// A time in which a node is away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outage {
    /// The node.
    pub(crate) node: usize,
    /// From when.
    pub(crate) from_ms: f64,
    /// Until when; it comes back with nothing in memory.
    pub(crate) until_ms: f64,
    /// How.
    pub(crate) kind: OutageKind,
}

/// How a node is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutageKind {
    /// Its Ollama and its agent end: connections are reset, new ones refused.
    Crash,
    /// Its lid is closed: silence, and connections that are never made.
    Sleep,
}

/// A workload by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    /// Its name on the command line and in tables.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) about: &'static str,
    /// How many requests it has unless told otherwise.
    pub(crate) requests: usize,
    /// Load is even and nothing goes wrong, so that a good policy should come near the bound.
    pub(crate) steady: bool,
    /// Makes it from a seed, with about so many requests.
    pub(crate) build: fn(&mut Rng, usize) -> Scenario,
}

/// All workloads, in the order of the report.
pub(crate) const WORKLOADS: [Workload; 10] = [
    Workload {
        name: "steady",
        about: "six RTX PCs with one 8B model in memory, Poisson arrivals at about 60 % of what they can do",
        requests: 3_000,
        steady: true,
        build: chat::steady,
    },
    Workload {
        name: "mixed",
        about: "an H100, two RTX PCs, two Mac Studios and three laptops; three models, arrivals that follow a day",
        requests: 3_000,
        steady: true,
        build: chat::mixed,
    },
    Workload {
        name: "models",
        about: "ten models of uneven popularity on two RTX PCs and a Mac Studio: not all fit, cold loads dominate",
        requests: 1_500,
        steady: false,
        build: chat::models,
    },
    Workload {
        name: "bursts",
        about: "four RTX PCs and two Mac Studios, two models; every minute sixty requests within two seconds",
        requests: 3_000,
        steady: false,
        build: chat::bursts,
    },
    Workload {
        name: "agents",
        about: "agent loops with long, growing prompts and mixed num_ctx on five machines",
        requests: 1_500,
        steady: false,
        build: agents::agents,
    },
    Workload {
        name: "death",
        about: "five RTX PCs; one dies after a third of the time and comes back, cold, after two thirds",
        requests: 2_500,
        steady: false,
        build: chat::death,
    },
    Workload {
        name: "stale",
        about: "six machines that report every 1 to 30 s, with a third of their load from clients that no router sees",
        requests: 3_000,
        steady: false,
        build: chat::stale,
    },
    Workload {
        name: "laptops",
        about: "two Mac Studios, and four laptops whose lids are closed and opened",
        requests: 2_000,
        steady: false,
        build: chat::laptops,
    },
    Workload {
        name: "thousand",
        about: "1,000 machines of all kinds, three of twelve models on each",
        requests: 6_000,
        steady: true,
        build: large::thousand,
    },
    Workload {
        name: "ten-thousand",
        about: "10,000 machines of all kinds, three of twelve models on each",
        requests: 2_000,
        steady: true,
        build: large::ten_thousand,
    },
];

/// A request of a conversation that has just begun.
fn request(rng: &mut Rng, at_ms: f64, model: usize, (prompt, output): (f64, f64)) -> Request {
    let prompt = tokens(rng.log_normal(prompt, 0.8), 8, 12_000);
    Request {
        at_ms,
        after: None,
        model,
        prompt,
        estimate: estimate(rng, prompt),
        prefix: None,
        output: tokens(rng.log_normal(output, 0.7), 4, 4_000),
        limit: None,
        num_ctx: None,
        app: rng.index(12) as u64,
        foreign: None,
    }
}

/// Routers count bytes, not tokens: they are wrong by up to a fifth or so.
fn estimate(rng: &mut Rng, prompt: u64) -> u64 {
    tokens(prompt as f64 * rng.between(0.85, 1.25), 1, u64::MAX)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn tokens(amount: f64, least: u64, most: u64) -> u64 {
    (amount as u64).clamp(least, most)
}

/// Poisson arrivals, so many per second.
fn poisson(rng: &mut Rng, per_s: f64, count: usize) -> Vec<f64> {
    let mut at_ms = 0.0;
    (0..count)
        .map(|_| {
            at_ms += rng.exponential(1e3 / per_s);
            at_ms
        })
        .collect()
}
