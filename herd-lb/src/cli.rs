//! The command line of `herd`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::bench::BenchFlags;

/// The flags; each is a key of the configuration or a way of running.
#[derive(Debug, Parser)]
#[command(
    name = "herd",
    version,
    args_conflicts_with_subcommands = true,
    about = "Load balancer for fleets of Ollama nodes: one endpoint, the best machine"
)]
pub struct Flags {
    /// What to do instead of running the edge
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Configuration file; conf/herd.yaml shows every key
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port for clients [default: 0.0.0.0:11435]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Address and port of the admin service [default: 127.0.0.1:11436]
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<String>,
    /// Where state is kept [default: ~/.fleet-manager]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Do not announce this edge on the local network
    #[arg(long)]
    pub no_mdns: bool,
    /// Run with three simulated nodes, without mDNS and without the local Ollama
    #[arg(long)]
    pub demo: bool,
    /// Check the configuration and exit
    #[arg(long)]
    pub check_config: bool,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// What `herd` does besides running the edge.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure nodes and models through a running herd
    Bench(BenchFlags),
}

impl Flags {
    /// The flags as keys of the configuration.
    #[must_use]
    pub fn overrides(&self) -> Vec<(&'static str, String)> {
        let given = [
            ("listen", &self.listen),
            ("admin.listen", &self.admin_listen),
            ("data_dir", &self.data_dir),
            ("log.level", &self.log_level),
        ];
        let mut keys: Vec<_> = given.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect();
        if self.no_mdns || self.demo {
            keys.push(("mdns.enabled", "false".into()));
        }
        if self.demo {
            keys.push(("agent.embedded", "off".into()));
        }
        keys
    }
}
