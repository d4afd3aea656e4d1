//! Chromium and its driver, before which the tests put the dashboard: found, or installed where that may be done.

use std::env;
use std::process::Command;

use crate::prerequisites::{may_install, on_path};
use crate::step::{Failure, run};

/// Without fonts a page has no words that could be clicked.
const PACKAGES: [&str; 3] = ["chromium", "chromium-driver", "fonts-dejavu-core"];

/// Makes sure of it where it can. Without, the tests say that they are skipped, and fail where `CI` is `true`.
pub(crate) fn ensure() {
    let path = env::var_os("PATH").unwrap_or_default();
    let has_browser = on_path(&["chromium", "chromium-browser", "google-chrome"], &path);
    if (has_browser && on_path(&["chromedriver"], &path)) || !may_install() {
        return;
    }
    if let Err(failure) = install() {
        eprintln!("xtask: {}; going on without a browser", failure.message);
    }
}

fn install() -> Result<(), Failure> {
    run("package lists", Command::new("apt-get").arg("update"))?;
    let install = ["install", "--yes", "--no-install-recommends"];
    run("chromium", Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(install).args(PACKAGES))
}
