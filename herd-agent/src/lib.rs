//! The agent of herd: it collects facts about a machine, its GPUs and its Ollama, and reports them to the edges.
//!
//! ```text
//! collect (machine, GPUs, runners) ─┐
//!                                   ├─ compose (pure) ─ outbox (newest only) ─ send, one task per edge
//! ollama (HTTP, own pace) ──────────┘                                            ▲
//!                                                              discover (mDNS) ──┘
//! ```
//!
//! Each part has its own task and its own time limits, so that nothing that hangs, be it Ollama, a GPU driver or an
//! edge, keeps the others from their work. What one part tells the next is always the newest state, never a queue.

mod agent;
pub mod cli;
mod collect;
mod compose;
mod config;
mod discover;
mod flags;
mod identity;
pub mod log;
mod ollama;
mod reach;
mod send;
#[cfg(test)]
mod test_dir;

pub use agent::{RunError, run, run_pausable};
pub use collect::{CpuFacts, HostSource, MachineFacts, Temperature, host_name, interfaces};
pub use config::ollama_host::ollama_url;
pub use config::{
    Config, ConfigError, HeartbeatConfig, Interfaces, JoinToken, MdnsConfig, OllamaConfig, Problem, SERVICE_TYPE,
    TokenError, unread_variables,
};
pub use discover::{Advertisement, Advertiser, DiscoverError};
pub use flags::Flags;
pub use identity::IdentityError;
pub use reqwest::Url;
