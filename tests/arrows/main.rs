//! The shape of the workspace: which crate may depend on which, and that files of different folders do not import each
//! other in a circle.
//!
//! Read from manifests and from the paths in the sources, so that nothing needs to be kept up to date but [`CRATES`] and
//! the list of what is still wrong, [`KNOWN`], which may only get shorter.

mod imports;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use imports::Imports;

/// Each crate with those of the workspace that it may depend on, besides for its tests.
const CRATES: [(&str, &[&str]); 6] = [
    ("herd-core", &[]),
    ("herd-store", &["herd-core"]),
    ("herd-agent", &["herd-core"]),
    ("herd-sim", &["herd-core", "herd-agent"]),
    ("herd-admin", &["herd-core", "herd-store"]),
    ("herd-lb", &["herd-core", "herd-store", "herd-agent", "herd-sim", "herd-admin"]),
];

/// Libraries with the crates that alone may depend on them, besides for tests.
const LIBRARIES: [(&str, &[&str]); 5] = [
    ("pingora", &["herd-lb"]),
    ("pingora-proxy", &["herd-lb"]),
    ("rusqlite", &["herd-store"]),
    ("sysinfo", &["herd-agent"]),
    ("axum", &["herd-admin"]),
];

/// Imports that close a circle, as `crate: from -> to`.
const KNOWN: &[&str] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the manifest of `name` lists in its section of dependencies.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).expect("a crate has a manifest");
    let section = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let lines = section.take_while(|line| !line.starts_with('['));
    let names =
        lines.filter(|line| line.contains('=')).map(|line| line.split(['.', ' ', '=']).next().unwrap_or_default());
    names.filter(|name| !name.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn crates_depend_on_those_below_them_alone() {
    for (name, allowed) in CRATES {
        let dependencies = dependencies(name);
        assert!(!dependencies.is_empty(), "{name}");
        let ours = dependencies.iter().filter(|one| one.starts_with("herd-"));
        let wrong: Vec<_> = ours.filter(|one| !allowed.contains(&one.as_str())).collect();
        assert!(wrong.is_empty(), "{name} depends on {wrong:?}");
        for (library, users) in LIBRARIES {
            let uses = dependencies.iter().any(|one| one == library);
            assert!(!uses || users.contains(&name), "{name} depends on {library}");
        }
    }
}

#[test]
fn files_of_different_folders_do_not_import_each_other_in_a_circle() {
    let mut closing = BTreeSet::new();
    for (name, _) in CRATES {
        let imports = Imports::read(&root().join(name).join("src"));
        assert!(imports.len() > 5, "{name} is not read");
        closing.extend(imports.closing_circles().into_iter().map(|arrow| format!("{name}: {arrow}")));
    }
    let known: BTreeSet<String> = KNOWN.iter().map(|arrow| (*arrow).to_owned()).collect();
    let new: Vec<_> = closing.difference(&known).collect();
    assert!(new.is_empty(), "these imports close a circle: {new:#?}");
    let mended: Vec<_> = known.difference(&closing).collect();
    assert!(mended.is_empty(), "these close none any more, and go from KNOWN: {mended:#?}");
}
