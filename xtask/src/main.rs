//! `cargo xtask`: the one entry for set-up and checks. Standard library only, so that it is there at once.

mod args;
mod bench;
mod chromium;
mod fuzz;
mod prerequisites;
mod promtool;
mod simulate;
mod soak;
mod step;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use step::{Failure, cannot_run, run};

/// What a program exits with when it was called wrongly (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

/// The checks of `cargo xtask test` before the tests, cheapest first.
const CHECKS: [(&str, &[&str]); 3] = [
    ("format", &["fmt", "--all", "--", "--check"]),
    ("lints", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
    // Tests of whole processes start these.
    ("build", &["build", "--workspace", "--bins", "--locked"]),
];

fn main() -> ExitCode {
    let done = match args::parse(std::env::args_os().skip(1)) {
        Ok(args::Command::Help) => {
            help();
            Ok(())
        }
        Ok(args::Command::Test) => test(),
        Ok(args::Command::Demo(rest)) => demo(&rest),
        Ok(args::Command::Bench(rest)) => bench::bench(&rest),
        Ok(args::Command::Simulate(rest)) => simulate::simulate(&rest),
        Ok(args::Command::Soak(rest)) => soak::soak(&rest),
        Ok(args::Command::Fuzz(rest)) => fuzz::fuzz(&rest),
        Err(error) => Err(Failure::new(EXIT_USAGE, format!("{error}; see `cargo xtask --help`"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

#[expect(clippy::print_stdout, reason = "help that was asked for is the program's output")]
fn help() {
    print!("{}", args::HELP);
}

/// Runs every check, and stops at the first that fails.
fn test() -> Result<(), Failure> {
    prerequisites::ensure()?;
    for (name, args) in CHECKS {
        run(name, cargo().args(args))?;
    }
    chromium::ensure();
    let mut tests = cargo();
    tests.env(fuzz::SECONDS, fuzz::SECONDS_IN_TEST);
    if let Some(promtool) = promtool::obtain() {
        tests.env(promtool::VARIABLE, promtool);
    }
    if has_nextest() {
        run("tests", tests.args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]))?;
    } else {
        run("tests", tests.args(["test", "--workspace", "--locked"]))?;
    }
    let mut doc = cargo();
    doc.args(["doc", "--workspace", "--no-deps", "--locked", "--quiet"]);
    run("links in the documentation", doc.env("RUSTDOCFLAGS", "-D rustdoc::broken_intra_doc_links"))
}

/// Builds `herd` and becomes it.
fn demo(args: &[OsString]) -> Result<(), Failure> {
    prerequisites::ensure()?;
    run("build", cargo().args(["build", "--package", "herd-lb", "--bin", "herd", "--locked"]))?;
    // Cargo puts both into the same folder, wherever the target directory is.
    let this = std::env::current_exe().map_err(|error| Failure::new(1, format!("where am I: {error}")))?;
    let mut herd = Command::new(this.with_file_name("herd"));
    herd.arg("--demo").args(args);
    // Signals and the exit code are herd's from here on.
    let error = herd.exec();
    Err(cannot_run(&herd, &error))
}

fn has_nextest() -> bool {
    let asked = cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// The cargo that runs this program, in the workspace's folder.
fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    command.current_dir(here.parent().unwrap_or(here));
    command
}
