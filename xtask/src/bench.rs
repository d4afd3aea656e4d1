//! `cargo xtask bench`: what herd is measured with is built or installed, and becomes this process.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::step::{Failure, cannot_run, run};
use crate::{cargo, prerequisites};

/// Servers that herd is measured beside, with the packages of Debian that bring them.
const OTHERS: [(&str, &str); 2] = [("nginx", "nginx-light"), ("haproxy", "haproxy")];

/// What is built, cheapest last.
const BUILDS: [&[&str]; 3] = [
    &["build", "--release", "--locked", "--package", "herd-lb", "--bin", "herd"],
    &["build", "--release", "--locked", "--package", "herd-bench", "--example", "pass_through"],
    &["build", "--release", "--locked", "--package", "herd-bench", "--bin", "herd-load"],
];

/// Measures, with further flags for `herd-load run`.
pub(crate) fn bench(args: &[OsString]) -> Result<(), Failure> {
    prerequisites::ensure()?;
    obtain();
    for build in BUILDS {
        run("build for speed", cargo().args(build))?;
    }
    let mut load = Command::new(release_folder()?.join("herd-load"));
    load.arg("run").args(args);
    let error = load.exec();
    Err(cannot_run(&load, &error))
}

/// Installs the other servers where that may be done; without them, their columns are left out.
fn obtain() {
    let path = env::var_os("PATH").unwrap_or_default();
    let missing = missing(&with_sbin(&path));
    if missing.is_empty() || !prerequisites::may_install() {
        return;
    }
    // Installed as servers they would be started, which nobody has asked for.
    let denied = deny_starts();
    if prerequisites::install(&missing).is_err() {
        eprintln!("xtask: without {}, its column is left out", missing.join(", "));
    }
    if denied {
        drop(fs::remove_file(POLICY));
    }
}

/// What Debian's packages ask before they start a server.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Has packages not start their servers; false = the machine has rules of its own about that.
fn deny_starts() -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    if Path::new(POLICY).exists() {
        return false;
    }
    let written = fs::write(POLICY, "#!/bin/sh\nexit 101\n");
    written.and_then(|()| fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))).is_ok()
}

/// Debian keeps servers where the path of ordinary users does not lead.
fn with_sbin(path: &OsStr) -> OsString {
    let folders = env::split_paths(path).chain([PathBuf::from("/usr/sbin")]);
    env::join_paths(folders).unwrap_or_else(|_| path.to_owned())
}

fn missing(path: &OsStr) -> Vec<&'static str> {
    OTHERS
        .iter()
        .filter(|(program, _)| !prerequisites::on_path(&[program], path))
        .map(|(_, package)| *package)
        .collect()
}

/// Where Cargo puts what it builds for speed: beside the folder of this program, wherever the target directory is.
fn release_folder() -> Result<PathBuf, Failure> {
    let this = env::current_exe().map_err(|error| Failure::new(1, format!("where am I: {error}")))?;
    let profile = this.parent().unwrap_or(&this);
    Ok(profile.with_file_name("release"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_are_not_there_are_named_by_their_packages() {
        assert_eq!(missing(OsStr::new("/nonexistent")), ["nginx-light", "haproxy"]);
        assert!(with_sbin(OsStr::new("/bin")).to_string_lossy().ends_with("/bin:/usr/sbin"));
    }
}
