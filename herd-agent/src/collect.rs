//! Facts about this machine, collected off the async threads and within a time limit.
//!
//! A fact that could not be read is `None` or an empty list, never zero.

mod activity;
mod bandwidth;
mod gpu;
mod host;
mod memory;
mod process;
mod runner;

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use herd_core::wire;
use reqwest::{Client, Url};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::ollama::OllamaFacts;
pub(crate) use bandwidth::memory_bandwidth_gbps;
use host::Machine;
pub use host::{host_name, interfaces};

/// How long a heartbeat waits for the machine's facts before it goes with the last known ones.
///
/// Normal is some tens of milliseconds; a GPU driver or a network file system that hangs can take for ever.
const LIMIT: Duration = Duration::from_secs(1);

/// What the agent reports about a machine, besides its Ollama's own lists.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MachineFacts {
    /// Host name, operating system and its version.
    pub host: wire::Host,
    /// `apple_silicon`, `x86_64`, `arm64` or what the system calls it.
    pub arch: String,
    /// Marketing name of the CPU; empty = not known.
    pub chip: String,
    /// CPU load.
    pub cpu: Option<CpuFacts>,
    /// System memory.
    pub memory: Option<wire::MemoryBytes>,
    /// Disk of the models' folder.
    pub disk: Option<wire::DiskBytes>,
    /// Hottest sensor outside the GPUs.
    pub temperature: Option<Temperature>,
    /// Devices that can run models.
    pub gpus: Vec<wire::Gpu>,
    /// Settings of the Ollama process.
    pub ollama_env: wire::OllamaEnv,
    /// Occupancy of Ollama's runners; `None` = could not be read.
    pub runners: Option<Vec<wire::Runner>>,
    /// Names of the models that are being loaded; an empty one could not be named.
    pub loading: Vec<String>,
    /// Whether its runners work; empty = not known.
    pub activity: Vec<wire::RunnerActivity>,
}

/// CPU load.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CpuFacts {
    /// Physical cores.
    pub cores_physical: u32,
    /// Busy share since the facts were collected last, 0-100.
    pub utilization_pct: f64,
}

/// A sensor's reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Temperature {
    /// Degrees Celsius.
    pub celsius: f64,
    /// Name of the sensor.
    pub source: String,
}

/// Where the facts about the machine come from.
#[derive(Clone)]
pub enum HostSource {
    /// The machine that the agent runs on.
    Machine,
    /// Data: the simulated node. Called once per heartbeat on an async thread, so it must not block.
    Fixed(Arc<dyn Fn() -> MachineFacts + Send + Sync>),
}

impl std::fmt::Debug for HostSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Machine => "Machine",
            Self::Fixed(_) => "Fixed(..)",
        })
    }
}

/// What one pass over the machine yields: facts, and the runner processes that remain to be asked.
#[derive(Debug, Clone, Default)]
struct Survey {
    facts: MachineFacts,
    runners: Option<Vec<process::RunnerProcess>>,
    work: Vec<activity::Work>,
}

impl Survey {
    /// Nothing new was seen: that the work of runners has not grown since says nothing of them.
    fn is_old(&mut self) {
        self.work.iter_mut().for_each(|work| work.conclusive = false);
    }
}

/// Collects [`MachineFacts`], one survey at a time.
pub(crate) enum Collector {
    /// From the machine itself.
    Machine(Box<MachineCollector>),
    /// From data.
    Fixed {
        /// Where it is from.
        facts: Arc<dyn Fn() -> MachineFacts + Send + Sync>,
        /// What was last collected of it.
        told_busy: Option<u32>,
    },
}

/// Requests that all runners run; `None` = nobody can tell.
fn busy(runners: Option<&[wire::Runner]>) -> Option<u32> {
    Some(runners?.iter().map(|runner| runner.slots_busy).fold(0, u32::saturating_add))
}

impl Collector {
    pub(crate) fn new(source: HostSource, client: Client, ollama: &Url, agent_env: wire::OllamaEnv) -> Self {
        match source {
            HostSource::Machine => Self::Machine(Box::new(MachineCollector::new(client, ollama, agent_env))),
            HostSource::Fixed(facts) => Self::Fixed { facts, told_busy: None },
        }
    }

    /// The newest facts that could be had within the limits.
    /// `quick` = of the machine only what its runners do is read anew.
    pub(crate) async fn collect(&mut self, ollama: &OllamaFacts, quick: bool) -> MachineFacts {
        match self {
            Self::Machine(machine) => machine.collect(ollama, quick).await,
            Self::Fixed { facts, told_busy } => {
                let facts = facts();
                *told_busy = busy(facts.runners.as_deref());
                facts
            }
        }
    }

    /// Whether runners are busy with another number of requests than was last collected.
    pub(crate) async fn is_busy_otherwise(&self) -> bool {
        match self {
            Self::Machine(machine) => machine.is_busy_otherwise().await,
            Self::Fixed { facts, told_busy } => busy(facts().runners.as_deref()) != *told_busy,
        }
    }
}

/// Surveys the real machine.
pub(crate) struct MachineCollector {
    client: Client,
    runners: runner::Runners,
    /// The machine, while no survey has it.
    idle: Option<Machine>,
    running: Option<JoinHandle<(Machine, Survey)>>,
    last: Survey,
    late: bool,
}

impl MachineCollector {
    fn new(client: Client, ollama: &Url, agent_env: wire::OllamaEnv) -> Self {
        let machine = Machine::new(ollama.clone(), agent_env);
        let (runners, last) = (runner::Runners::default(), Survey::default());
        Self { client, runners, idle: Some(machine), running: None, last, late: false }
    }

    async fn is_busy_otherwise(&self) -> bool {
        let Some(processes) = &self.last.runners else { return false };
        self.runners.are_busy_otherwise(&self.client, processes).await
    }

    async fn collect(&mut self, ollama: &OllamaFacts, quick: bool) -> MachineFacts {
        if !quick {
            self.survey().await;
        }
        let mut facts = self.last.facts.clone();
        if let Some(processes) = &self.last.runners {
            let occupancy = self.runners.ask(&self.client, processes, ollama).await;
            (facts.runners, facts.loading) = (occupancy.runners, occupancy.loading);
        }
        facts.activity = runner::named_work(&self.last.work, ollama).await;
        facts
    }

    /// Starts a survey unless one still runs, and takes its outcome if it comes within the limit.
    async fn survey(&mut self) {
        if let Some(mut machine) = self.idle.take() {
            self.running = Some(tokio::task::spawn_blocking(move || {
                let survey = machine.survey();
                (machine, survey)
            }));
        }
        let Some(running) = &mut self.running else { return };
        match timeout(LIMIT, running).await {
            Ok(Ok((machine, survey))) => {
                self.running = None;
                self.idle = Some(machine);
                self.last = survey;
                self.late = false;
            }
            Ok(Err(error)) => {
                // The machine is lost with the panic; the last facts stay, which is better than no heartbeat.
                self.running = None;
                self.last.is_old();
                tracing::error!(%error, "collecting host facts failed; the last ones stay");
            }
            Err(_) => {
                self.last.is_old();
                if !std::mem::replace(&mut self.late, true) {
                    tracing::warn!("host facts are late; heartbeats carry the last known ones");
                }
            }
        }
    }
}

/// Only an address of this machine can be bound.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}
