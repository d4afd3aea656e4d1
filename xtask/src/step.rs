//! One program run as a step: announced, timed, its failure named.

use std::process::{Command, ExitStatus};
use std::time::Instant;

/// Why the run ends early.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What to exit with.
    pub(crate) code: u8,
    /// For the person at the terminal.
    pub(crate) message: String,
}

impl Failure {
    /// A failure that makes the program exit with `code`.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Runs `command` to its end and says how long it took.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<(), Failure> {
    eprintln!("xtask: {name}");
    let began = Instant::now();
    let status = command.status().map_err(|error| cannot_run(command, &error))?;
    let seconds = began.elapsed().as_secs_f64();
    if status.success() {
        eprintln!("xtask: {name}: ok, {seconds:.1} s");
        return Ok(());
    }
    Err(Failure::new(code(status), format!("{name}: failed after {seconds:.1} s ({status})")))
}

/// The failure of a program that could not be started.
pub(crate) fn cannot_run(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(1, format!("cannot run {}: {error}", command.get_program().display()))
}

/// The program's own code; 1 when a signal ended it.
fn code(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<(), u8> {
        run("test", Command::new("sh").args(["-c", script])).map_err(|failure| failure.code)
    }

    #[test]
    fn a_failure_keeps_the_code_of_the_program() {
        assert_eq!(shell("exit 0"), Ok(()));
        assert_eq!(shell("exit 101"), Err(101));
        assert_eq!(shell("kill -9 $$"), Err(1));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let failure = run("test", &mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(failure.message.contains("/nonexistent/program"), "{}", failure.message);
    }
}
