//! `herd`: the edge.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use herd_agent::log::{Logging, Logs};
use herd_lb::cli::{Command, Flags};
use herd_lb::config::{Config, ConfigError, Layers, Legacy};
use herd_lb::settings::{check_owner, load};

/// A request makes some two hundred allocations, most of them Pingora's, and frees many on another thread.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a process exits with when it was started wrongly (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    if let Some(Command::Bench(flags)) = &flags.command {
        return herd_lb::bench::run(flags).unwrap_or_else(|error| fail(&error, 1));
    }
    let Configured { layers, config, passed_over, legacy } = match configure(&flags) {
        Ok(configured) => configured,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    if flags.check_config {
        return ExitCode::SUCCESS;
    }
    if let Some(Command::Key(command)) = &flags.command {
        let _audit = herd_agent::log::audit_only(&config.data_dir);
        let (mut out, mut notes) = (std::io::stdout(), std::io::stderr());
        return match herd_lb::keys::run(command, &config, &mut out, &mut notes) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        };
    }
    let logs = log(&config);
    check_folder(&config.data_dir);
    tell_legacy(&legacy);
    for (key, value) in &layers.saved {
        let value = serde_json::to_string(value).unwrap_or_default();
        tracing::info!(key, value, "set in settings.json, which goes over the file");
    }
    for why in passed_over {
        tracing::warn!(why, "a saved setting is passed over");
    }
    let saved: Vec<String> = layers.saved.keys().cloned().collect();
    let ran = herd_lb::run(layers, &config, flags.demo, |edge, admin| announce(edge, admin, flags.demo));
    drop(logs);
    if flags.demo && config.data_dir == demo_folder() {
        // Nothing of it is wanted, and the system clears its temporary folder in the end.
        drop(std::fs::remove_dir_all(&config.data_dir));
    }
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&named_source(error, &saved, &config.data_dir), 1),
    }
}

/// `error` with where its key is set, if that was done at run time and so stands in no file that people write.
fn named_source(error: anyhow::Error, saved: &[String], data_dir: &Path) -> anyhow::Error {
    let text = error.to_string();
    match saved.iter().find(|key| text.starts_with(&format!("{key}: "))) {
        Some(key) => error.context(format!("{key} is set in {}", data_dir.join("settings.json").display())),
        None => error,
    }
}

/// Says what was taken over from ollama-herd, and what was not.
fn tell_legacy(legacy: &Legacy) {
    if let Some(file) = &legacy.file {
        tracing::info!(file = %file.display(), "variables of ollama-herd are read from its file");
    }
    for (name, key) in &legacy.mapped {
        tracing::info!(variable = name, key, "a variable of ollama-herd sets a key of herd");
    }
    if !legacy.ignored.is_empty() {
        tracing::warn!(ignored = legacy.ignored.join(", "), "variables that herd does not know have no effect");
    }
}

/// What a start is configured by.
struct Configured {
    layers: Layers,
    config: Config,
    /// Saved settings that were passed over.
    passed_over: Vec<String>,
    legacy: Legacy,
}

/// Reads all that says how herd is to run.
fn configure(flags: &Flags) -> anyhow::Result<Configured> {
    let file = match &flags.config {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => String::new(),
    };
    let env = std::env::vars().filter(|(name, _)| name.starts_with("FLEET_")).collect();
    let mut layers = Layers { file, env, flags: flags.overrides(), ..Layers::default() };
    if flags.demo && !layers.says("data_dir") {
        // What simulated nodes did is nothing to keep beside what real ones do.
        layers.flags.push(("data_dir", demo_folder().display().to_string()));
    }
    // Where the file of variables is must be known before it is read; what is wrong elsewhere is told after it.
    let folder = layers.data_dir();
    let legacy = layers.take_over(&folder);
    let place = |error: ConfigError| anyhow::anyhow!("{}", layers.located(&error, flags.config.as_deref()));
    let data_dir = layers.build().map_err(place)?.data_dir;
    check_owner(&data_dir).map_err(anyhow::Error::msg)?;
    let passed_over = if flags.check_config { Vec::new() } else { load(&mut layers, &data_dir) };
    let config = layers.build()?;
    Ok(Configured { layers, config, passed_over, legacy })
}

/// Where a demo keeps its data, for as long as it runs.
fn demo_folder() -> PathBuf {
    std::env::temp_dir().join(format!("herd-demo-{}", std::process::id()))
}

/// Says at the start what will be missing, if nothing can be written where state is kept.
fn check_folder(folder: &Path) {
    let probe = folder.join(format!(".write-{}", std::process::id()));
    let tried = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&probe, b""));
    match tried {
        Ok(()) => drop(std::fs::remove_file(&probe)),
        Err(error) => tracing::error!(
            data_dir = %folder.display(),
            %error,
            "the data folder cannot be written: traces, latencies, settings, keys and log files are not kept. Make it \
             writable, or set data_dir (FLEET_DATA_DIR, --data-dir)"
        ),
    }
}

fn log(config: &Config) -> Logs {
    // Pingora reports each client that leaves as an error of its own; every request has our line at its end.
    let filter =
        format!("{},pingora=off,pingora_core=off,pingora_proxy=off,pingora_load_balancing=off", config.log_level);
    Logging {
        program: "herd",
        filter: &filter,
        data_dir: &config.data_dir,
        files: config.log_files,
        stderr: config.log_stderr,
    }
    .start()
}

/// Two lines that scripts can read, and in the demo what to try.
fn announce(edge: SocketAddr, admin: SocketAddr, demo: bool) {
    let mut text = format!("edge http://{edge}\nadmin http://{admin}\ndashboard http://{edge}/dashboard\n");
    if demo {
        text.push_str(&herd_lb::demo::invitation(edge));
    }
    let mut out = std::io::stdout();
    // Standard output may be closed, and then nobody wants to know.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    drop(writeln!(std::io::stderr(), "herd: {error:#}"));
    ExitCode::from(code)
}
