//! What the build needs besides Rust: found, installed where that may be done, or named.
//!
//! Pingora builds zlib-ng with cmake, and `SQLite` is compiled from C.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::step::{Failure, run};

/// A need of the build.
struct Tool {
    what: &'static str,
    /// A variable that names another program for it.
    variable: &'static str,
    /// Any of these will do.
    programs: &'static [&'static str],
    /// Packages of Debian that bring it.
    packages: &'static [&'static str],
}

const TOOLS: [Tool; 3] = [
    Tool { what: "cmake", variable: "CMAKE", programs: &["cmake"], packages: &["cmake"] },
    Tool { what: "make", variable: "CMAKE_GENERATOR", programs: &["make", "gmake"], packages: &["make"] },
    // Recommended packages may be off, and without libc6-dev gcc finds no headers.
    Tool { what: "a C compiler", variable: "CC", programs: &["cc"], packages: &["gcc", "libc6-dev"] },
];

/// Makes sure that every tool is there.
pub(crate) fn ensure() -> Result<(), Failure> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().flat_map(|tool| tool.packages).copied().collect();
    if !may_install() {
        return Err(Failure::new(1, advice(&missing, &packages)));
    }
    install(&packages)
}

/// Installs packages of Debian.
pub(crate) fn install(packages: &[&str]) -> Result<(), Failure> {
    run("package lists", Command::new("apt-get").arg("update"))?;
    let install = ["install", "--yes", "--no-install-recommends"];
    run("packages", Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(install).args(packages))
}

fn missing() -> Vec<&'static Tool> {
    let path = env::var_os("PATH").unwrap_or_default();
    TOOLS.iter().filter(|tool| env::var_os(tool.variable).is_none() && !on_path(tool.programs, &path)).collect()
}

pub(crate) fn on_path(programs: &[&str], path: &OsStr) -> bool {
    env::split_paths(path).any(|folder| programs.iter().any(|program| folder.join(program).is_file()))
}

fn advice(missing: &[&Tool], packages: &[&str]) -> String {
    let whats: Vec<_> = missing.iter().map(|tool| tool.what).collect();
    format!(
        "missing: {}\n  Debian, Ubuntu: apt-get install {}\n  macOS: xcode-select --install; brew install cmake\n  \
         elsewhere: the packages cmake, make and gcc",
        whats.join(", "),
        packages.join(" ")
    )
}

/// Only root on Debian or its kin can install without being asked for a password.
pub(crate) fn may_install() -> bool {
    Path::new("/etc/debian_version").exists() && is_root()
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_any_folder_of_the_path() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = env::join_paths([Path::new("/nonexistent"), here]).unwrap();
        assert!(on_path(&["absent", "Cargo.toml"], &path));
        // A folder is no program.
        assert!(!on_path(&["absent", "src"], &path));
    }

    #[test]
    fn the_advice_names_what_is_missing_and_its_packages() {
        let text = advice(&[&TOOLS[0], &TOOLS[2]], &["cmake", "gcc"]);
        assert!(text.starts_with("missing: cmake, a C compiler\n"), "{text}");
        assert!(text.contains("apt-get install cmake gcc\n"), "{text}");
    }
}
