//! `herd-load`: measures what herd and other proxies add to a request, and prints a table.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use herd_bench::load::process::raise_open_files;
use herd_bench::load::rounds::measure;
use herd_bench::load::scenario::{self, Scenario};
use herd_bench::load::table::table;
use herd_bench::load::target::{Process, Programs, Target};
use herd_bench::load::{backend, choose, history, queue};

/// Open files that are asked for: what ten thousand streams need on both sides of a proxy, and some.
const OPEN_FILES: u64 = 32_768;
/// Open files of a proxy beside its streams.
const SPARE_FILES: u64 = 200;

/// Measures what herd and other proxies add to a request.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run the loads and print the table
    Run(RunFlags),
    /// Measure the choice of a node in fleets of any size and the reading of bodies, and print tables
    Choose,
    /// Measure what a long history costs: starts, answers, traffic and watchers with a full store
    History {
        /// Requests in the store
        #[arg(long, value_name = "N", default_value_t = 1_000_000)]
        requests: u32,
    },
    /// Be the backend: one node on each address
    #[command(hide = true)]
    Backend {
        /// Where to listen
        #[arg(required = true)]
        addresses: Vec<SocketAddr>,
    },
}

#[derive(Debug, Args)]
struct RunFlags {
    /// Only these loads: c1, c32, s64 and so on; may be given more than once [default: all]
    #[arg(long, value_name = "NAME", value_parser = scenario_of)]
    only: Vec<&'static Scenario>,
    /// Only these servers, with commas between [default: all that are there]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = Target::parse)]
    targets: Vec<Target>,
    /// Rounds of every load, instead of its own number
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Length of every measurement as a share of its own
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    scale: f64,
    /// Nodes behind the proxies
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    nodes: u8,
}

fn scenario_of(name: &str) -> Result<&'static Scenario, String> {
    let names: Vec<&str> = scenario::ALL.iter().map(|scenario| scenario.name).collect();
    scenario::ALL.iter().find(|one| one.name == name).ok_or_else(|| format!("none of {}", names.join(", ")))
}

fn main() -> ExitCode {
    let done = match Flags::parse().command {
        What::Run(flags) => run(&flags),
        What::Choose => {
            say(&format!("{}\n{}", choose::table(5, 2_000), choose::reading(2_000)));
            let pass = |nodes: usize| format!("| {nodes} | {:.2} |\n", queue::pass_ms(nodes, 200));
            let rows: String = choose::FLEETS.into_iter().filter(|nodes| *nodes <= queue::NODES).map(pass).collect();
            let waiting = queue::WAITING;
            say(&format!("\n| nodes | a pass over {waiting} different requests, ms |\n| --- | --- |\n{rows}"));
            Ok(())
        }
        What::History { requests } => history(requests),
        What::Backend { addresses } => backend::run(&addresses),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("herd-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &RunFlags) -> anyhow::Result<()> {
    let files = raise_open_files(OPEN_FILES).context("open files")?;
    let streams_max = usize::try_from(files.saturating_sub(SPARE_FILES) / 2).unwrap_or(usize::MAX);
    let programs = Programs::find()?;
    let targets = targets(flags, &programs);
    let folder = tempfile()?;
    let (_backend, nodes) = start_backend(flags.nodes)?;
    let mut shown = Vec::new();
    for scenario in
        scenario::ALL.iter().filter(|one| flags.only.is_empty() || flags.only.iter().any(|only| only.name == one.name))
    {
        let mut scenario = scaled(scenario, flags);
        if scenario.load.connections > streams_max {
            eprintln!(
                "herd-load: {files} open files are allowed: {streams_max} streams instead of {}",
                scenario.load.connections
            );
            scenario.load.connections = streams_max;
        }
        eprintln!("herd-load: {}", scenario.about);
        let targets: Vec<Target> = targets.iter().copied().filter(|target| scenario.targets.contains(target)).collect();
        shown.push((scenario, measure(&scenario, &targets, &programs, &nodes, &folder.0)?));
    }
    say(&format!("{}\n{}\n", table(&shown, &targets), versions(&programs)));
    Ok(())
}

fn history(requests: u32) -> anyhow::Result<()> {
    let programs = Programs::find()?;
    let folder = tempfile()?;
    let (_backend, nodes) = start_backend(2)?;
    say(&history::measure(requests, &programs, &nodes, &folder.0)?);
    Ok(())
}

fn scaled(scenario: &Scenario, flags: &RunFlags) -> Scenario {
    let mut scenario = *scenario;
    scenario.rounds = flags.rounds.unwrap_or(scenario.rounds).max(1);
    let scale = flags.scale.clamp(0.01, 100.0);
    scenario.load.time = scenario.load.time.mul_f64(scale);
    if let Some(beside) = &mut scenario.beside {
        beside.time = beside.time.mul_f64(scale);
    }
    scenario
}

fn targets(flags: &RunFlags, programs: &Programs) -> Vec<Target> {
    let asked = Target::ALL.into_iter().filter(|target| flags.targets.is_empty() || flags.targets.contains(target));
    let there = |target: &Target| {
        let there = programs.have(*target);
        if !there {
            eprintln!("herd-load: {target} is not there, and left out");
        }
        there
    };
    asked.filter(there).collect()
}

fn start_backend(nodes: u8) -> anyhow::Result<(Process, Vec<SocketAddr>)> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).to_string();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("backend").args(std::iter::repeat_n(any, nodes.into())).stdout(Stdio::piped());
    let mut backend = Process::start(&mut command)?;
    let lines = backend.lines(nodes.into())?;
    let nodes = lines.iter().map(|line| line.parse().context("an address of the backend")).collect::<Result<_, _>>()?;
    Ok((backend, nodes))
}

/// What was measured with what, in one line.
fn versions(programs: &Programs) -> String {
    let first_line = |program: &std::path::Path, flag: &str| {
        let output = Command::new(program).arg(flag).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let all = [
        Some(format!("Linux {}, {cores} cores", kernel.trim())),
        first_line(&programs.nginx, "-v"),
        first_line(&programs.haproxy, "-v"),
        first_line(&programs.herd, "--version"),
        Some("Pingora 0.9.1".to_owned()),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[expect(clippy::print_stdout, reason = "the table is the program's output")]
fn say(text: &str) {
    print!("{text}");
}

/// A folder for the files of a run, gone with it.
struct Folder(std::path::PathBuf);

fn tempfile() -> anyhow::Result<Folder> {
    let path = std::env::temp_dir().join(format!("herd-load-{}", std::process::id()));
    std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(Folder(path))
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
