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
use herd_agent::{Config, HostSource, Url};
use herd_core::name::NodeId;
use herd_sim::{Capability, Preload, SimConfig, SimModel, SimNode};
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
    /// Model to add; may be given more than once
    ///
    /// With "embed" in its name it makes vectors instead of text. @CTX is the context that it was trained with, in
    /// tokens. It calls tools, thinks or reads images only when it is said to: qwen3:4b=2.5@40960+tools+thinking
    #[arg(long, value_name = MODEL, value_parser = parse_model)]
    model: Vec<SimModel>,
    /// Model that a pull can fetch, described as for --model; may be given more than once
    #[arg(long, value_name = MODEL, value_parser = parse_model)]
    library: Vec<SimModel>,
    /// Model to have in memory at the start
    #[arg(long, value_name = "NAME")]
    hot: Vec<String>,
    /// Requests that one runner serves at once
    #[arg(long)]
    num_parallel: Option<u32>,
    /// Memory for runners, in gigabytes
    #[arg(long)]
    memory_gb: Option<f64>,
    /// Room for models on disk, in gigabytes
    #[arg(long)]
    disk_gb: Option<f64>,
    /// Gigabytes pulled per second; 0 is at once
    #[arg(long)]
    pull_gbps: Option<f64>,
    /// Tokens written per second; 0 is at once
    #[arg(long)]
    decode_tps: Option<f64>,
    /// Tokens read per second; 0 is at once
    #[arg(long)]
    prefill_tps: Option<f64>,
    /// Gigabytes loaded per second; 0 is at once
    #[arg(long)]
    load_gbps: Option<f64>,
    /// Milliseconds that every load takes on top of that
    #[arg(long)]
    load_ms: Option<u64>,
    /// Tokens of an answer to a request that sets no limit
    #[arg(long)]
    answer_tokens: Option<u32>,
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

/// How a model is described.
const MODEL: &str = "NAME[=SIZE_GB][@CTX][+tools][+thinking][+vision]";

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
    let mut agent = std::pin::pin!(run_agent(agent_of(&node, router_urls)?, stopping, node.agent_paused()));
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
async fn run_agent(
    agent: Option<(Config, HostSource)>,
    mut stopping: watch::Receiver<bool>,
    paused: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    if let Some((config, source)) = agent {
        return Ok(herd_agent::run_pausable(config, source, stopping, paused).await?);
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
    config.library.extend(args.library.iter().cloned());
    config.preload.extend(args.hot.iter().map(|model| Preload { model: model.clone(), num_ctx: None }));
    set(&mut config.listen, args.listen);
    set(&mut config.num_parallel, args.num_parallel);
    set(&mut config.memory_bytes, args.memory_gb.map(bytes));
    set(&mut config.decode_tokens_per_s, args.decode_tps);
    set(&mut config.prefill_tokens_per_s, args.prefill_tps);
    set(&mut config.load_bytes_per_s, args.load_gbps.map(|gb| gb * 1e9));
    set(&mut config.load_overhead_ms, args.load_ms);
    set(&mut config.disk_bytes, args.disk_gb.map(bytes));
    set(&mut config.pull_bytes_per_s, args.pull_gbps.map(|gb| gb * 1e9));
    set(&mut config.answer_tokens, args.answer_tokens);
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
    let marks = ['=', '@', '+'];
    let (name, mut rest) = text.split_at(text.find(marks).unwrap_or(text.len()));
    let mut model = if name.contains("embed") { SimModel::embedding(name, 768) } else { SimModel::named(name) };
    while let Some(mark) = rest.chars().next() {
        let after = &rest[mark.len_utf8()..];
        let (value, next) = after.split_at(after.find(marks).unwrap_or(after.len()));
        rest = next;
        match mark {
            '=' => model.size_bytes = value.parse().map(bytes).map_err(|e| format!("{value:?} is no size: {e}"))?,
            '@' => model.context_length = value.parse().map_err(|e| format!("{value:?} is no context: {e}"))?,
            _ => model = model.with(capability(value)?),
        }
    }
    Ok(model)
}

fn capability(name: &str) -> Result<Capability, String> {
    match name {
        "tools" => Ok(Capability::Tools),
        "thinking" => Ok(Capability::Thinking),
        "vision" => Ok(Capability::Vision),
        _ => Err(format!("{name:?} is none of tools, thinking, vision")),
    }
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
    fn a_model_is_described_in_one_word() {
        let model = parse_model("qwen3:4b=2.5@40960+tools+thinking").expect("is fine");
        let expected = SimModel { size_bytes: 2_500_000_000, context_length: 40_960, ..SimModel::named("qwen3:4b") };
        assert_eq!(model, expected.with(Capability::Tools).with(Capability::Thinking));
        assert_eq!(parse_model("a+vision"), Ok(SimModel::named("a").with(Capability::Vision)));
        assert_eq!(
            parse_model("my-embed@512").map(|model| (model.family, model.context_length)),
            Ok(("bert".into(), 512))
        );
        for wrong in ["a=", "a=big", "a@", "a@-1", "a+", "a+wings"] {
            assert!(parse_model(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_pull_brings_and_what_it_takes_are_flags() {
        let flags =
            "--library new=2+tools --library new-embed --disk-gb 10 --pull-gbps 0.5 --load-ms 700 --answer-tokens 5";
        let config = configured(flags).expect("is fine");
        assert!(config.library[0].can(Capability::Tools) && config.library[1].can(Capability::Embedding));
        assert_eq!((config.disk_bytes, config.load_overhead_ms, config.answer_tokens), (10_000_000_000, 700, 5));
        assert_eq!(config.pull_bytes_per_s.to_bits(), 5e8_f64.to_bits());
    }

    #[test]
    fn flags_go_over_a_profile() {
        let config = configured("--profile laptop --decode-tps 7 --node-id mine").expect("is fine");
        let laptop = SimConfig::profile("laptop").expect("is there");
        assert_eq!(config, SimConfig { name: "mine".to_owned(), decode_tokens_per_s: 7.0, ..laptop });
    }

    #[test]
    fn nonsense_is_refused() {
        for flags in [
            "--profile mainframe",
            "--hot nothing",
            "--model a=b",
            "--library =2",
            "--num-parallel 0",
            "--config /no/such/file",
        ] {
            assert!(configured(flags).is_err(), "{flags}");
        }
    }
}
