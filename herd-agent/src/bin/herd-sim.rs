//! `herd-sim`: one simulated Ollama node as a process.
//!
//! Prints one line of JSON with its addresses when it listens, so that a harness can find its ports, and runs until
//! SIGTERM or SIGINT.

use std::{
    fs, io,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;
use herd_agent::simulate::{Preload, SimConfig, SimModel, SimNode};
use herd_agent::{Config, HostSource, Url};
use herd_core::name::NodeId;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What a process exits with when its configuration is wrong (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

/// A simulated Ollama node.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Address of the Ollama surfaces; port 0 takes a free one [default: 127.0.0.1:0]
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Address of a second listener for /_sim/* alone, which no fault touches
    #[arg(long)]
    control_listen: Option<SocketAddr>,
    /// Built-in node to start from: mac-studio, rtx or laptop
    #[arg(long, conflicts_with = "config")]
    profile: Option<String>,
    /// File to start from, YAML or JSON
    #[arg(long)]
    config: Option<PathBuf>,
    /// Model to add; with "embed" in its name it makes vectors instead of text
    #[arg(long, value_name = "NAME[=SIZE_GB]", value_parser = parse_model)]
    model: Vec<SimModel>,
    /// Model to have in memory at the start
    #[arg(long, value_name = "NAME")]
    hot: Vec<String>,
    /// Requests that one runner serves at once
    #[arg(long)]
    num_parallel: Option<u32>,
    /// Memory for runners, in gigabytes
    #[arg(long)]
    memory_gb: Option<f64>,
    /// Tokens written per second; 0 is at once
    #[arg(long)]
    decode_tps: Option<f64>,
    /// Tokens read per second; 0 is at once
    #[arg(long)]
    prefill_tps: Option<f64>,
    /// Gigabytes loaded per second; 0 is at once
    #[arg(long)]
    load_gbps: Option<f64>,
    /// Context of a request that names none
    #[arg(long)]
    context_length: Option<u32>,
    /// Name of the node
    #[arg(long)]
    node_id: Option<String>,
    /// Edge to report to; may be given more than once
    #[arg(long)]
    router_url: Vec<String>,
}

/// The line on standard output.
#[derive(Serialize)]
struct Started {
    listening: SocketAddr,
    control: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match configure(&args) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    match run(config, &args.router_url) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // Standard error may be closed, and then nobody wants to know.
    drop(writeln!(io::stderr(), "herd-sim: {error:#}"));
    ExitCode::from(code)
}

#[tokio::main]
async fn run(config: SimConfig, router_urls: &[String]) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let node = SimNode::start(config).await.context("cannot listen")?;
    let started = Started { listening: node.addr(), control: node.control_addr() };
    writeln!(io::stdout(), "{}", serde_json::to_string(&started)?)?;
    let (stop, stopping) = watch::channel(false);
    let mut agent = std::pin::pin!(run_agent(agent_of(&node, router_urls)?, stopping));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        result = &mut agent => return result,
    }
    // The agent says goodbye to its edges before the node goes.
    stop.send_replace(true);
    agent.await?;
    node.shutdown().await;
    Ok(())
}

/// The node's own agent, which reports to `router_urls`; `None` without any.
fn agent_of(node: &SimNode, router_urls: &[String]) -> anyhow::Result<Option<(Config, HostSource)>> {
    if router_urls.is_empty() {
        return Ok(None);
    }
    let routers = router_urls.iter().map(|url| Url::parse(url)).collect::<Result<_, _>>().context("--router-url")?;
    let id = NodeId::new(&node.config().name).context("--node-id")?;
    let config = node.agent_config(id, routers, None).context("the node's address is no URL")?;
    Ok(Some((config, node.host_source())))
}

/// Runs the agent, or waits like one.
async fn run_agent(agent: Option<(Config, HostSource)>, mut stopping: watch::Receiver<bool>) -> anyhow::Result<()> {
    if let Some((config, source)) = agent {
        return Ok(herd_agent::run(config, source, stopping).await?);
    }
    // An error means that nobody can stop it any more, which is an end as well.
    stopping.changed().await.ok();
    Ok(())
}

/// The node that the arguments describe: profile or file, then the other flags over it.
fn configure(args: &Args) -> anyhow::Result<SimConfig> {
    let mut config = match (&args.profile, &args.config) {
        (Some(profile), _) => SimConfig::profile(profile)
            .with_context(|| format!("--profile {profile}: there are {}", SimConfig::PROFILES.join(", ")))?,
        (None, Some(path)) => read_config(path)?,
        (None, None) => SimConfig::default(),
    };
    config.models.extend(args.model.iter().cloned());
    config.preload.extend(args.hot.iter().map(|model| Preload { model: model.clone(), num_ctx: None }));
    set(&mut config.listen, args.listen);
    set(&mut config.num_parallel, args.num_parallel);
    set(&mut config.memory_bytes, args.memory_gb.map(bytes));
    set(&mut config.decode_tokens_per_s, args.decode_tps);
    set(&mut config.prefill_tokens_per_s, args.prefill_tps);
    set(&mut config.load_bytes_per_s, args.load_gbps.map(|gb| gb * 1e9));
    set(&mut config.context_length, args.context_length);
    set(&mut config.name, args.node_id.clone());
    config.control_listen = args.control_listen.or(config.control_listen);
    config.check()?;
    Ok(config)
}

fn read_config(path: &Path) -> anyhow::Result<SimConfig> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    SimConfig::from_yaml(&text).with_context(|| path.display().to_string())
}

fn set<T>(value: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *value = given;
    }
}

fn parse_model(text: &str) -> Result<SimModel, String> {
    let (name, size) = text.split_once('=').map_or((text, None), |(name, size)| (name, Some(size)));
    let size = size.map(|size| size.parse().map_err(|error| format!("{size:?} is no size: {error}"))).transpose()?;
    let mut model = if name.contains("embed") { SimModel::embedding(name, 768) } else { SimModel::named(name) };
    set(&mut model.size_bytes, size.map(bytes));
    Ok(model)
}

fn bytes(gigabytes: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "negative and huge sizes saturate")]
    let bytes = (gigabytes * 1e9) as u64;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(flags: &str) -> anyhow::Result<SimConfig> {
        configure(&Args::try_parse_from(std::iter::once("herd-sim").chain(flags.split_whitespace()))?)
    }

    #[test]
    fn flags_describe_a_node() {
        let flags = "--model big=40 --model my-embedder --hot big --num-parallel 2 --memory-gb 48 --load-gbps 2";
        let config = configured(flags).expect("is fine");
        let names: Vec<_> = config.models.iter().map(|model| (model.name.as_str(), model.size_bytes)).collect();
        assert_eq!(names, [("big", 40_000_000_000), ("my-embedder", 274_302_450)]);
        assert_eq!((config.preload.len(), config.num_parallel, config.memory_bytes), (1, 2, 48_000_000_000));
        assert_eq!(config.load_time(4_000_000_000).as_secs(), 2);
    }

    #[test]
    fn flags_go_over_a_profile() {
        let config = configured("--profile laptop --decode-tps 7 --node-id mine").expect("is fine");
        let laptop = SimConfig::profile("laptop").expect("is there");
        assert_eq!(config, SimConfig { name: "mine".to_owned(), decode_tokens_per_s: 7.0, ..laptop });
    }

    #[test]
    fn nonsense_is_refused() {
        for flags in
            ["--profile mainframe", "--hot nothing", "--model a=b", "--num-parallel 0", "--config /no/such/file"]
        {
            assert!(configured(flags).is_err(), "{flags}");
        }
    }
}
