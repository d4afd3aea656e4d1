//! A soak in virtual time: months of a small fleet in minutes.
//!
//! Laptops sleep and wake with another address, the edge's process is stopped, its wall clock jumps, an operator forgets busy
//! nodes, models come and go, and clients invent names. The fleet, the queue, the edge's clock and the store's roll-ups are
//! those of herd; what is around them is made here. After each hour it is checked that counts are those of the requests that
//! run, that sums are those of the requests that were, that sizes are within their limits, and that what was done to the
//! fleet is seen ([`world`]).

mod edge;
mod keeper;
mod machine;
mod world;

use std::fmt;
use std::process::ExitCode;

use clap::Parser;

pub use world::Report;

/// What the soak has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// When, milliseconds from its start.
    pub at_ms: u64,
    /// What does not hold.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, minutes) = (self.at_ms / 86_400_000, self.at_ms % 86_400_000 / 60_000);
        write!(f, "day {days}, minute {minutes}: {}", self.what)
    }
}

/// Runs `days` of virtual time. The same seed is the same run.
///
/// # Errors
/// With the first thing that does not hold.
pub fn run(days: u32, seed: u64) -> Result<Report, Broken> {
    world::World::new(seed).run(days)
}

/// Months of a small fleet in minutes: what must hold, is held against what was done.
#[derive(Debug, Parser)]
#[command(name = "herd-soak")]
struct Args {
    /// Days of virtual time.
    #[arg(long, default_value_t = 1)]
    days: u32,
    /// What the run is made from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The program.
#[must_use]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "its output")]
pub fn main() -> ExitCode {
    let Args { days, seed } = Args::parse();
    match run(days, seed) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(broken) => {
            eprintln!("seed {seed}: {broken}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_everything_holds() {
        match run(1, 1) {
            Ok(report) => assert!(report.requests > 1_000 && report.is_eventful(), "{report}"),
            Err(broken) => panic!("{broken}"),
        }
    }
}
