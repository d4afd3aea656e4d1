//! The command line of `herd-agent` and `herd-node`, which are one program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tokio::sync::watch;

use crate::config::{Config, unread_variables};
use crate::flags::Flags;
use crate::log::{Logging, StderrLines};
use crate::{HostSource, run};

/// `EX_USAGE` of `sysexits.h`: flags or configuration are wrong, and starting again will not help.
const EXIT_USAGE: u8 = 64;

/// Runs the agent until SIGINT or SIGTERM.
///
/// Exits with 64 when flags or configuration are wrong, with 1 on any other failure.
#[must_use]
pub fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            // Printing fails only when nobody can read it any more.
            error.print().ok();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    let config = match load(&flags, &env) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if flags.check_config {
        return ExitCode::SUCCESS;
    }
    let logs = Logging {
        stderr: StderrLines::All,
        program: "herd-agent",
        filter: &config.log_level,
        data_dir: &config.data_dir,
        files: config.log_files,
    }
    .start();
    for name in unread_variables(&env) {
        tracing::warn!(variable = name, "environment variable is not known to this agent");
    }
    let served = serve(config);
    drop(logs);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn load(flags: &Flags, env: &BTreeMap<String, String>) -> anyhow::Result<Config> {
    let file = flags.config.clone().or_else(|| env.get("FLEET_NODE_CONFIG").map(PathBuf::from));
    let text = match &file {
        Some(path) => Some(std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?),
        None => None,
    };
    let mut config = Config::from_layers(text.as_deref(), env, flags)?;
    config.expand_home(env.get("HOME").or_else(|| env.get("USERPROFILE")).map(String::as_str))?;
    Ok(config)
}

fn serve(config: Config) -> anyhow::Result<()> {
    // The agent waits far more than it works: one thread, and the blocking pool for what blocks.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let result = runtime.block_on(async {
        let (stop, shutdown) = watch::channel(false);
        let agent = run(config, HostSource::Machine, shutdown);
        tokio::pin!(agent);
        tokio::select! {
            result = &mut agent => return Ok(result?),
            signal = stop_signal() => signal.context("cannot listen for signals")?,
        }
        stop.send_replace(true);
        Ok(agent.await?)
    });
    // A GPU driver or file system that hangs keeps its blocking thread; it must not keep the process.
    runtime.shutdown_background();
    result
}

#[cfg(unix)]
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    // A terminal that is closed does not take the node out of the fleet.
    let _hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn stop_signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

#[expect(clippy::print_stderr, reason = "before logging starts, and for the person at the terminal")]
fn complain(error: &anyhow::Error) {
    eprintln!("herd-agent: {error:#}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn parse(args: &[&str]) -> Result<Flags, clap::Error> {
        Flags::try_parse_from([&["herd-agent"], args].concat())
    }

    #[test]
    fn flags_become_configuration() {
        let args = ["--router-url", "http://a:1", "--router-url", "http://b:2", "--ollama-url", ":9", "--no-mdns"];
        let home = BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]);
        let config = load(&parse(&args).unwrap(), &home).unwrap();
        assert_eq!(config.router_urls.len(), 2);
        assert_eq!(config.ollama.url.as_str(), "http://127.0.0.1:9/");
        assert!(!config.mdns.enabled);
        assert!(parse(&["--interval-ms", "soon"]).is_err());
        for homeless in [BTreeMap::new(), BTreeMap::from([("HOME".to_owned(), String::new())])] {
            let error = load(&parse(&args).unwrap(), &homeless).unwrap_err().to_string();
            assert!(error.contains("--data-dir"), "{error}");
        }
    }

    #[test]
    fn the_file_may_be_named_by_flag_or_variable_and_must_exist() {
        let dir = TestDir::new();
        dir.write("agent.yaml", "node_id: from-file\n");
        let path = dir.path().join("agent.yaml").to_str().unwrap().to_owned();
        let env = BTreeMap::from([("FLEET_NODE_CONFIG".to_owned(), path), ("HOME".to_owned(), "/home/me".to_owned())]);
        let config = load(&Flags::default(), &env).unwrap();
        assert_eq!(config.node_id.unwrap().as_str(), "from-file");
        assert_eq!(config.data_dir, PathBuf::from("/home/me/.fleet-manager"));
        let error = load(&parse(&["--config", "/nonexistent"]).unwrap(), &env).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}
