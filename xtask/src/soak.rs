//! `cargo xtask soak`: months of a small fleet in virtual time, built for speed.

use std::ffi::OsString;

use crate::cargo;
use crate::step::{Failure, run};

/// Builds it and runs it with `args`.
pub(crate) fn soak(args: &[OsString]) -> Result<(), Failure> {
    let program = ["run", "--release", "--locked", "--quiet", "--package", "herd-bench", "--bin", "herd-soak", "--"];
    run("soak", cargo().args(program).args(args))
}
