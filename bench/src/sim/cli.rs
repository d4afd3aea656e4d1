//! The command line of `herd-simulate`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::matrix::Plan;
use super::policy::POLICIES;
use super::report::Report;
use super::workload::WORKLOADS;

/// What a program exits with when it was called wrongly (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

/// Where the report goes when everything is run.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results");

/// Compares routing policies in virtual time
///
/// Without flags it runs every workload under every policy and writes the report into bench/results. With --workload,
/// --policy, --seed, --seeds or --requests it runs that part, and prints the report unless --out says where it goes.
#[derive(Debug, Parser)]
#[command(name = "herd-simulate", version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Workload to run; may be given more than once
    #[arg(long, value_parser = workload_names())]
    workload: Vec<String>,
    /// Policy to run; may be given more than once
    #[arg(long, value_parser = policy_names())]
    policy: Vec<String>,
    /// First seed [default: 1]
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds, one after the other [default: 16]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: Option<u64>,
    /// Requests of each workload, in place of its own number
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    requests: Option<u64>,
    /// Folder of the report and its plots
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compares the simulator with real time: herd and simulated nodes as processes
    ///
    /// Takes about four minutes, and writes validation.md beside the report, which takes it in when it is made next.
    /// Exits with 1 when policies rank otherwise in real time.
    Validate {
        /// Seed of the workload
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Folder for validation.md [default: bench/results]
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

fn workload_names() -> clap::builder::PossibleValuesParser {
    WORKLOADS.iter().map(|workload| workload.name).collect::<Vec<_>>().into()
}

fn policy_names() -> clap::builder::PossibleValuesParser {
    POLICIES.iter().map(|policy| policy.name).collect::<Vec<_>>().into()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    match Args::try_parse() {
        Ok(Args { command: Some(Command::Validate { seed, out }), .. }) => validate(seed, out),
        Ok(args) => simulate(&args),
        Err(error) => {
            drop(error.print());
            ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
        }
    }
}

impl Args {
    fn plan(&self) -> Plan {
        let asked = |names: &[String], name: &str| names.is_empty() || names.iter().any(|one| one == name);
        let first = self.seed.unwrap_or(1);
        // A single seed that was asked for is run alone.
        let seeds = self.seeds.unwrap_or(if self.seed.is_some() { 1 } else { 16 });
        Plan {
            workloads: WORKLOADS.iter().filter(|workload| asked(&self.workload, workload.name)).collect(),
            policies: POLICIES.iter().filter(|policy| asked(&self.policy, policy.name)).collect(),
            seeds: (0..seeds).map(|number| first.wrapping_add(number)).collect(),
            requests: self.requests.and_then(|requests| usize::try_from(requests).ok()),
        }
    }

    fn is_whole(&self) -> bool {
        let narrowed = self.seed.is_some() || self.seeds.is_some() || self.requests.is_some();
        self.workload.is_empty() && self.policy.is_empty() && !narrowed
    }
}

fn simulate(args: &Args) -> ExitCode {
    let plan = args.plan();
    let cells = plan.run();
    let report = Report { plan: &plan, cells: &cells };
    let folder = args.out.clone().or_else(|| args.is_whole().then(|| PathBuf::from(RESULTS)));
    let written = match &folder {
        Some(folder) => report.write(folder),
        None => std::io::stdout().write_all(report.markdown(None).as_bytes()),
    };
    done(&written)
}

fn validate(seed: u64, out: Option<PathBuf>) -> ExitCode {
    let (text, holds) = super::validate::validate(seed);
    let code = done(&super::validate::write(&out.unwrap_or_else(|| PathBuf::from(RESULTS)), &text));
    if holds { code } else { ExitCode::FAILURE }
}

fn done(written: &std::io::Result<()>) -> ExitCode {
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("the report cannot be written: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says something to whoever watches.
pub(crate) fn tell(words: &str) {
    // Nobody may be looking.
    drop(writeln!(std::io::stderr(), "herd-simulate: {words}"));
}
