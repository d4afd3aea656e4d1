//! The command line of `cargo xtask`.

use std::ffi::OsString;
use std::fmt;

/// What `cargo xtask --help` says.
pub(crate) const HELP: &str = "\
Set-up and checks of herd.

Usage: cargo xtask <COMMAND>

Commands:
  bench [ARGS]... Build herd for speed, measure it beside other proxies for ten minutes, and print a table; ARGS are
                  flags of `herd-load run`
  demo [ARGS]...  Build herd and run it with three simulated nodes; ARGS are flags of herd
  fuzz [SECONDS] [NAME]...
                  Read mutated inputs as if they came from the network, each target for so many seconds (60)
  test            Run every check: format, lints, build, tests, links in the documentation
  simulate [ARGS]...
                  Compare routing policies and write bench/results; ARGS are flags of herd-simulate
  soak [ARGS]...  Live through months of a small fleet in virtual time, and check that its state stays right; ARGS are
                  flags of herd-soak, such as `--days 90 --seed 1`

All look for cmake, make and a C compiler first. On Debian and its kin root gets them installed; elsewhere the missing
package is named. The tests use promtool, which root gets unpacked into the target folder there, and Chromium with its
driver, which root gets installed; elsewhere their tests are skipped unless CI=true.
";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Say what there is.
    Help,
    /// Run every check.
    Test,
    /// Measure with further flags for `herd-load run`.
    Bench(Vec<OsString>),
    /// Run the targets of fuzzing: for how long, and which.
    Fuzz(Vec<OsString>),
    /// Run the demo with further flags for `herd`.
    Demo(Vec<OsString>),
    /// Run the simulator with flags for `herd-simulate`.
    Simulate(Vec<OsString>),
    /// Run the soak with flags for `herd-soak`.
    Soak(Vec<OsString>),
}

/// Why a command line is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UsageError {
    /// There is no command.
    Missing,
    /// There is no such command.
    Unknown(String),
    /// The command takes no such argument.
    Unexpected(String),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("a command is required"),
            Self::Unknown(name) => write!(f, "there is no command `{name}`"),
            Self::Unexpected(argument) => write!(f, "`test` takes no argument `{argument}`"),
        }
    }
}

/// Reads the arguments that follow the program's name.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut args = args.into_iter();
    let Some(name) = args.next() else { return Err(UsageError::Missing) };
    match name.to_str() {
        Some("-h" | "--help" | "help") => Ok(Command::Help),
        Some("bench") => Ok(Command::Bench(args.collect())),
        Some("demo") => Ok(Command::Demo(args.collect())),
        Some("fuzz") => Ok(Command::Fuzz(args.collect())),
        Some("simulate") => Ok(Command::Simulate(args.collect())),
        Some("soak") => Ok(Command::Soak(args.collect())),
        Some("test") => match args.next() {
            None => Ok(Command::Test),
            Some(help) if help == "-h" || help == "--help" => Ok(Command::Help),
            Some(other) => Err(UsageError::Unexpected(other.to_string_lossy().into_owned())),
        },
        _ => Err(UsageError::Unknown(name.to_string_lossy().into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(args: &[&str], expected: &Result<Command, UsageError>) {
        assert_eq!(&parse(args.iter().map(OsString::from)), expected, "{args:?}");
    }

    #[test]
    fn each_command_is_known_by_its_name() {
        for help in ["-h", "--help", "help"] {
            check(&[help], &Ok(Command::Help));
        }
        check(&["test"], &Ok(Command::Test));
        check(&["test", "--help"], &Ok(Command::Help));
        check(&["demo"], &Ok(Command::Demo(Vec::new())));
        check(&["fuzz", "600"], &Ok(Command::Fuzz(vec!["600".into()])));
        check(&["bench", "--only", "c1"], &Ok(Command::Bench(["--only", "c1"].map(OsString::from).into())));
    }

    #[test]
    fn whatever_follows_demo_is_for_herd() {
        let rest = ["--listen", "127.0.0.1:0", "--help", "--"].map(OsString::from);
        check(&["demo", "--listen", "127.0.0.1:0", "--help", "--"], &Ok(Command::Demo(rest.into())));
    }

    #[test]
    fn whatever_follows_simulate_is_for_the_simulator() {
        let rest = ["--workload", "steady", "--help"].map(OsString::from);
        check(&["simulate", "--workload", "steady", "--help"], &Ok(Command::Simulate(rest.into())));
    }

    #[test]
    fn whatever_follows_soak_is_for_the_soak() {
        let rest = ["--days", "90"].map(OsString::from);
        check(&["soak", "--days", "90"], &Ok(Command::Soak(rest.into())));
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        check(&[], &Err(UsageError::Missing));
        check(&["tset"], &Err(UsageError::Unknown("tset".into())));
        check(&["--listen"], &Err(UsageError::Unknown("--listen".into())));
        check(&["test", "lb"], &Err(UsageError::Unexpected("lb".into())));
    }
}
