//! The simulated node: an Ollama without a model, faithful on the wire.
//!
//! It speaks every surface that herd routes with the bytes a real Ollama 0.33 sends, and behind them models what
//! matters to a router: loads that take time, reloads caused by options, one queue for loads, slots, memory, expiry,
//! clients that leave. What it says is deterministic nonsense. Faults can be switched on while it runs, and it remembers
//! what it was asked. Tests, benches and `herd --demo` share it; there is no second fake.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use herd_sim::{Fault, FaultKind, SimConfig, SimModel, SimNode};
//!
//! let node = SimNode::start(SimConfig { models: vec![SimModel::named("tiny")], ..SimConfig::default() }).await?;
//! println!("an Ollama at {}", node.url());
//! node.set_fault(Fault::new(FaultKind::CutMidStream).after(3)).await;
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod agent;
mod answer;
mod body;
mod broken;
mod catalog;
mod clock;
mod config;
mod connection;
mod control;
mod dispatch;
mod embed;
mod engine;
mod exchange;
mod fault;
mod generate;
mod guard;
mod json;
mod launch;
mod listing;
mod manage;
mod node;
mod options;
mod plan;
mod profile;
mod request;
mod route;
mod scheduler;
mod server;
mod slots;
mod socket;
mod stats;
mod surface;
#[cfg(test)]
mod tests;
mod text;
mod transcribe;
mod wire;

use std::{io, net::SocketAddr, sync::Arc};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use config::{Capability, Hardware, HardwareKind, Preload, SimConfig, SimConfigError, SimGpu, SimModel};
pub use fault::{Fault, FaultKind, FaultPaths};
pub use scheduler::SchedulerCounters;
pub use slots::{RunnerView, SlotView};
pub use stats::{SeenRequest, SimStats};

use connection::Role;
use node::Node;

/// A running node; dropping it stops it.
#[derive(Debug)]
pub struct SimNode {
    node: Arc<Node>,
    addr: SocketAddr,
    control_addr: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: JoinSet<io::Result<()>>,
}

impl SimNode {
    /// Binds the listeners and serves on the current tokio runtime.
    ///
    /// # Errors
    /// When the configuration is wrong ([`io::ErrorKind::InvalidInput`]) or an address cannot be bound.
    #[expect(clippy::unused_async, reason = "binding needs a runtime, and callers may rely on await points later")]
    pub async fn start(config: SimConfig) -> io::Result<Self> {
        config.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let listener = server::listen(config.listen)?;
        let control = config.control_listen.map(server::listen).transpose()?;
        let addr = listener.local_addr()?;
        let control_addr = control.as_ref().map(tokio::net::TcpListener::local_addr).transpose()?;
        let (node, stop) = (Arc::new(Node::new(config)), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let driver = Arc::clone(&node.engine);
        let until = stop.clone();
        tasks.spawn(async move {
            until.run_until_cancelled(driver.drive()).await;
            Ok(())
        });
        tasks.spawn(server::run(Arc::clone(&node), listener, Role::Node, stop.clone()));
        if let Some(control) = control {
            tasks.spawn(server::run(Arc::clone(&node), control, Role::Control, stop.clone()));
        }
        Ok(Self { node, addr, control_addr, stop, tasks })
    }

    /// Where the Ollama surfaces listen.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same as a URL, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where `/_sim/*` listens on its own, if configured.
    #[must_use]
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.control_addr
    }

    /// The configuration it was started with.
    #[must_use]
    pub fn config(&self) -> &SimConfig {
        &self.node.config
    }

    /// What it has been asked so far.
    #[must_use]
    pub fn stats(&self) -> SimStats {
        self.node.stats()
    }

    /// Forgets what it has been asked; requests in flight stay counted.
    pub fn reset_stats(&self) {
        self.node.reset_stats();
    }

    /// Slots of the runners in memory: what an agent on a real node reads from its `llama-server` processes.
    #[must_use]
    pub fn slots(&self) -> Vec<RunnerView> {
        self.node.engine.slots()
    }

    /// Puts a fault in force in place of the one before, which is none by default: requests that one froze go on. When it
    /// returns, the listener has followed.
    pub async fn set_fault(&self, fault: Fault) {
        self.node.set_fault(fault).await;
    }

    /// Stops: no new connections, those open are cut, as when Ollama is terminated.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
