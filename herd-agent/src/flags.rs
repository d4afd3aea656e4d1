//! What the command line says.

use std::path::PathBuf;

use clap::Parser;

/// Reports this machine, its GPUs and its Ollama to the edges of a herd.
#[derive(Debug, Clone, Default, Parser)]
#[command(version)]
pub struct Flags {
    /// URL of an edge; may be given several times. Without any, edges are found by mDNS.
    #[arg(long, value_name = "URL")]
    pub router_url: Vec<String>,
    /// URL of the local Ollama [default: that of `OLLAMA_HOST`, else port 11434 of this machine].
    #[arg(long, value_name = "URL")]
    pub ollama_url: Option<String>,
    /// Name of this node [default: kept in the data folder, at first the host name].
    #[arg(long, value_name = "NAME")]
    pub node_id: Option<String>,
    /// Folder of the agent's own files [default: ~/.fleet-manager].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Time between two heartbeats in milliseconds, 250 to 60000 [default: 5000].
    #[arg(long, value_name = "MS")]
    pub interval_ms: Option<u64>,
    /// Do not look for edges on the network.
    #[arg(long)]
    pub no_mdns: bool,
    /// Shared secret for the edge; better given as `FLEET_JOIN_TOKEN`.
    #[arg(long, value_name = "TOKEN")]
    pub join_token: Option<String>,
    /// Configuration file, see conf/herd-agent.yaml.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// error, warn, info, debug or trace [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Check flags, environment and file, then stop.
    #[arg(long)]
    pub check_config: bool,
}
