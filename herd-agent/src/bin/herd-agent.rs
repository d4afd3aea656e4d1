//! `herd-agent`: see [`herd_agent::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    herd_agent::cli::main()
}
