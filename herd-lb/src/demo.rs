//! `herd --demo`: three simulated nodes of different kinds, so that routing can be seen without a GPU.

use std::net::SocketAddr;

use anyhow::Context as _;
use async_trait::async_trait;
use herd_agent::{Config as AgentConfig, Url};
use herd_core::name::NodeId;
use herd_sim::{SimConfig, SimNode};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::task::JoinSet;

/// The built-in nodes that take part.
const PROFILES: [&str; 3] = ["mac-studio", "rtx", "laptop"];

/// The simulated nodes and their agents.
pub struct Demo {
    /// Where their agents report to.
    pub admin: SocketAddr,
    /// Sent with every heartbeat.
    pub join_token: Option<herd_agent::JoinToken>,
}

#[async_trait]
impl BackgroundService for Demo {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut nodes = Vec::new();
        let mut agents = JoinSet::new();
        for profile in PROFILES {
            let Some(config) = SimConfig::profile(profile) else { continue };
            match SimNode::start(config).await {
                Ok(node) => {
                    match self.agent(profile, &node) {
                        Ok(config) => {
                            agents.spawn(herd_agent::run(config, node.host_source(), shutdown.clone()));
                        }
                        Err(error) => tracing::error!(%error, profile, "cannot configure a simulated node's agent"),
                    }
                    nodes.push(node);
                }
                Err(error) => tracing::error!(%error, profile, "cannot start a simulated node"),
            }
        }
        // Ends when the edge does; dropping the nodes and agents stops them.
        shutdown.changed().await.ok();
    }
}

impl Demo {
    fn agent(&self, profile: &str, node: &SimNode) -> anyhow::Result<AgentConfig> {
        let routers = vec![Url::parse(&format!("http://{}", self.admin))?];
        let id = NodeId::new(profile)?;
        node.agent_config(id, routers, self.join_token.clone()).context("the node's address is no URL")
    }
}

/// What to try, for people.
#[must_use]
pub fn invitation(edge: SocketAddr) -> String {
    format!(
        "\nThree simulated nodes are running. Try:\n\n\
         curl http://{edge}/api/chat -d '{{\"model\":\"llama3.2:3b\",\"messages\":[{{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}}]}}'\n\n\
         curl -i http://{edge}/v1/chat/completions -d '{{\"model\":\"llama3.2:3b\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'\n\n\
         curl http://{edge}/fleet/explain -d '{{\"model\":\"llama3.2:3b\",\"options\":{{\"num_ctx\":8192}}}}'\n"
    )
}
