//! The command line of `herd`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use herd_core::access::Scopes;

use crate::bench::BenchFlags;

/// The flags; each is a key of the configuration or a way of running.
#[derive(Debug, Parser)]
#[command(name = "herd", version, about = "Load balancer for fleets of Ollama nodes: one endpoint, the best machine")]
pub struct Flags {
    /// Configuration file; conf/herd.yaml shows every key
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Address and port for clients [default: 0.0.0.0:11435]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Address and port of the admin service [default: 127.0.0.1:11436]
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<String>,
    /// Where state is kept [default: ~/.fleet-manager]
    #[arg(long, value_name = "DIR", global = true)]
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
    /// What to do instead of running the edge.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What `herd` does besides running the edge.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// API keys: a running herd notices changes by itself
    #[command(subcommand)]
    Key(KeyCommand),
    /// Measure nodes and models through a running herd
    Bench(BenchFlags),
}

/// What is done to API keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key; its secret is printed once and kept nowhere
    Add(NewKeyArgs),
    /// List all keys
    List,
    /// Take a key away
    Remove(KeyName),
    /// Switch a key off
    Disable(KeyName),
    /// Switch a key on again
    Enable(KeyName),
}

/// A key to be made.
#[derive(Debug, Args)]
pub struct NewKeyArgs {
    /// What to call it
    pub name: String,
    /// What it is good for: infer, read, admin, node
    #[arg(long, visible_alias = "scopes", value_name = "LIST", default_value = "infer,read", value_parser = scopes)]
    pub scope: Scopes,
    /// Most inference requests per second
    #[arg(long, value_name = "N")]
    pub requests_per_s: Option<f64>,
    /// Most inference requests at a time
    #[arg(long, value_name = "N")]
    pub in_flight: Option<u32>,
    /// Most tokens per minute, of prompts and answers together
    #[arg(long, value_name = "N")]
    pub tokens_per_min: Option<u64>,
}

/// Which key.
#[derive(Debug, Args)]
pub struct KeyName {
    /// Its name or its id
    pub name: String,
}

fn scopes(text: &str) -> Result<Scopes, String> {
    Scopes::parse(text.split(',')).ok_or_else(|| "some of infer, read, admin and node, with commas between".to_owned())
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
