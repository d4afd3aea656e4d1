//! `cargo xtask simulate`: the simulator of routing policies, built for speed.

use std::ffi::OsString;

use crate::cargo;
use crate::step::{Failure, run};

/// Builds it and runs it with `args`.
pub(crate) fn simulate(args: &[OsString]) -> Result<(), Failure> {
    let program =
        ["run", "--release", "--locked", "--quiet", "--package", "herd-bench", "--bin", "herd-simulate", "--"];
    run("simulator", cargo().args(program).args(args))
}
