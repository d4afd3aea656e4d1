//! `promtool`, which checks the Prometheus files: found, or taken out of Debian's package without installing that.
//!
//! The package starts a server when it is installed, and only one of its programs is wanted here.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::prerequisites::{may_install, on_path};
use crate::step::{Failure, run};

/// Names the program for the tests.
pub(crate) const VARIABLE: &str = "PROMTOOL";

/// The program; `None` = it is not here and cannot be had. Then its tests say so, and fail where `CI` is `true`.
pub(crate) fn obtain() -> Option<PathBuf> {
    if let Some(named) = env::var_os(VARIABLE) {
        return Some(named.into());
    }
    if on_path(&["promtool"], &env::var_os("PATH").unwrap_or_default()) {
        return Some("promtool".into());
    }
    let folder = tools()?;
    let program = folder.join("prometheus/usr/bin/promtool");
    if !program.is_file() {
        if !may_install() {
            return None;
        }
        if let Err(failure) = fetch(&folder) {
            eprintln!("xtask: {}; going on without promtool", failure.message);
        }
    }
    program.is_file().then_some(program)
}

/// A folder for tools in the target folder, where this program is, too: `target/debug/xtask`.
fn tools() -> Option<PathBuf> {
    let here = env::current_exe().ok()?;
    here.ancestors().nth(2).map(|target| target.join("tools"))
}

fn fetch(folder: &Path) -> Result<(), Failure> {
    let cannot = |what: &str, error: &std::io::Error| Failure::new(1, format!("{what}: {error}"));
    fs::create_dir_all(folder).map_err(|error| cannot("tools", &error))?;
    let download = || run("promtool", Command::new("apt-get").args(["download", "prometheus"]).current_dir(folder));
    if download().is_err() {
        run("package lists", Command::new("apt-get").arg("update"))?;
        download()?;
    }
    let packages = fs::read_dir(folder).map_err(|error| cannot("tools", &error))?;
    let mut packages = packages.filter_map(|entry| Some(entry.ok()?.path()));
    let package = packages.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let package = package.ok_or_else(|| Failure::new(1, "apt-get has left no package"))?;
    let unpacked = folder.join("prometheus");
    run("promtool, unpacked", Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&unpacked))?;
    // The package and the server in it are large, and nobody needs them any more.
    for surplus in [package, unpacked.join("usr/bin/prometheus")] {
        fs::remove_file(surplus).ok();
    }
    Ok(())
}
