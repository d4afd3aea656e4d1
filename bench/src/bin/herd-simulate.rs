//! `herd-simulate`: compares routing policies in virtual time, and herd with itself in real time.

use std::process::ExitCode;

fn main() -> ExitCode {
    herd_bench::sim::main()
}
