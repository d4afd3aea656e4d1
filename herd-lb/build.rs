//! Tells the program what it was built with: `HERD_RUSTC` and `HERD_REVISION`, each `unknown` where nobody can say.
//!
//! Only release builds ask for the revision, so that a commit does not make the next test run build the edge anew.

use std::process::Command;

const UNKNOWN: &str = "unknown";

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let rustc = said(Command::new(rustc).arg("--version"));
    // `rustc 1.95.0 (59807616e 2026-04-14)`.
    let rustc = rustc.as_deref().and_then(|text| text.split_whitespace().nth(1)).unwrap_or(UNKNOWN);
    println!("cargo::rustc-env=HERD_RUSTC={rustc}");
    println!("cargo::rerun-if-env-changed=HERD_REVISION");
    println!("cargo::rerun-if-changed=build.rs");
    let given = std::env::var("HERD_REVISION").ok().filter(|given| !given.trim().is_empty());
    println!("cargo::rustc-env=HERD_REVISION={}", given.or_else(revision).as_deref().map_or(UNKNOWN, str::trim));
}

/// The commit, where this is a release build of a git checkout.
fn revision() -> Option<String> {
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return None;
    }
    let git = |args: &[&str]| said(Command::new("git").args(args));
    // Written on every commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// What a program says; `None` = it is not there or fails.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}
