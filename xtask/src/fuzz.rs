//! `cargo xtask fuzz`: what reads from the network against mutated inputs, for as long as one likes.

use std::ffi::OsString;

use crate::cargo;
use crate::step::{Failure, run};

/// How long each target runs; read by `herd_fuzz`.
pub(crate) const SECONDS: &str = "HERD_FUZZ_SECONDS";
/// Within `cargo xtask test`, in which all of them together take about a minute.
pub(crate) const SECONDS_IN_TEST: &str = "6";
/// By itself, unless an argument says otherwise.
const SECONDS_ALONE: &str = "60";
/// How the tests are called that are targets.
const TARGETS: &str = "fuzz_";

/// Runs every target; the first of `args` is how many seconds each, others are further filters.
pub(crate) fn fuzz(args: &[OsString]) -> Result<(), Failure> {
    let (seconds, rest) = match args {
        [] => (OsString::from(SECONDS_ALONE), args),
        [seconds, rest @ ..] => (seconds.clone(), rest),
    };
    let mut tests = cargo();
    // Built for speed: an input costs some microseconds then.
    tests.args([
        "test",
        "--workspace",
        "--release",
        "--locked",
        "--quiet",
        "--lib",
        "--test",
        "fuzz",
        "--",
        "--nocapture",
    ]);
    let filters: &[OsString] = if rest.is_empty() { &[OsString::from(TARGETS)] } else { rest };
    run("fuzz", tests.args(filters).env(SECONDS, seconds))
}
