//! `herd-soak`: months of a small fleet in minutes of virtual time.

use std::process::ExitCode;

fn main() -> ExitCode {
    herd_bench::soak::main()
}
