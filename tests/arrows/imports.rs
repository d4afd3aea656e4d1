//! Which file of a crate names which other, read from the paths in its source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module by its path from the crate's root; the root itself is empty.
type Module = Vec<String>;

/// The files of one crate and what they import from each other, tests left out.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    sources: BTreeMap<Module, String>,
    /// What modules re-export, by module and name.
    exports: BTreeMap<(Module, String), Module>,
    arrows: BTreeMap<Module, BTreeSet<Module>>,
}

impl Imports {
    /// Reads the sources below `src`.
    pub(crate) fn read(src: &Path) -> Self {
        let mut imports = Self::default();
        imports.collect(src, &mut Vec::new());
        imports.resolve_all();
        imports
    }

    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    fn collect(&mut self, folder: &Path, path: &mut Module) {
        let entries = std::fs::read_dir(folder).expect("sources are readable");
        for entry in entries.map(|entry| entry.expect("sources are readable")) {
            let name = entry.file_name().into_string().expect("names of sources are text");
            if entry.path().is_dir() {
                if !matches!(name.as_str(), "tests" | "bin") {
                    path.push(name);
                    self.collect(&entry.path(), path);
                    path.pop();
                }
                continue;
            }
            let Some(name) = name.strip_suffix(".rs") else { continue };
            if matches!(name, "tests" | "testing" | "test_dir" | "main") {
                continue;
            }
            let source = without_tests(&std::fs::read_to_string(entry.path()).expect("sources are readable"));
            let is_root = name == "lib" && path.is_empty();
            let module = if is_root { Vec::new() } else { [path.as_slice(), &[name.to_owned()]].concat() };
            self.sources.insert(module, source);
        }
    }

    fn resolve_all(&mut self) {
        for (module, source) in &self.sources {
            for (path, name) in uses(source, true) {
                self.exports.insert((module.clone(), name), path);
            }
        }
        let mut arrows = BTreeMap::new();
        for (module, source) in self.sources.iter().filter(|(module, _)| !module.is_empty()) {
            let named = uses(source, false).into_iter().map(|(path, _)| path).chain(inline_paths(source));
            let targets = named.filter_map(|path| self.resolve(module, &path, 0));
            // The root gathers what others have: it is no file of a folder.
            let targets: BTreeSet<Module> = targets.filter(|to| to != module && !to.is_empty()).collect();
            arrows.insert(module.clone(), targets);
        }
        self.arrows = arrows;
    }

    /// The file in which what `path` names is defined, as seen from `module`; `None` = it is of another crate.
    fn resolve(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        let supers = path.iter().take_while(|part| *part == "super").count();
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (module.clone(), &path[1..]),
            "super" => (module[..module.len().saturating_sub(supers)].to_vec(), &path[supers..]),
            first => {
                let child = [module.as_slice(), &[first.to_owned()]].concat();
                self.sources.get(&child)?;
                (module.clone(), path)
            }
        };
        while let Some((part, behind)) = rest.split_first() {
            let below = [at.as_slice(), std::slice::from_ref(part)].concat();
            if !self.sources.contains_key(&below) {
                break;
            }
            (at, rest) = (below, behind);
        }
        match rest.first().and_then(|name| self.exports.get(&(at.clone(), name.clone()))) {
            // What is re-exported of another crate is no import of a file.
            Some(export) if depth < 5 => self.resolve(&at, export, depth + 1),
            _ => Some(at),
        }
    }

    /// The imports between files of different folders that are part of a circle, as `from -> to`. A module and what is below
    /// it are one folder.
    pub(crate) fn closing_circles(&self) -> BTreeSet<String> {
        let reach: BTreeMap<&Module, BTreeSet<&Module>> =
            self.arrows.keys().map(|module| (module, self.reachable(module))).collect();
        let mut found = BTreeSet::new();
        for (from, targets) in &self.arrows {
            for to in targets.iter().filter(|to| to[0] != from[0]) {
                if reach.get(to).is_some_and(|reach| reach.contains(from)) {
                    found.insert(format!("{} -> {}", from.join("/"), to.join("/")));
                }
            }
        }
        found
    }

    fn reachable<'a>(&'a self, from: &'a Module) -> BTreeSet<&'a Module> {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            for to in self.arrows.get(module).into_iter().flatten() {
                if seen.insert(to) {
                    open.push(to);
                }
            }
        }
        seen
    }
}

/// `source` without comments, and without the module of tests at its end.
fn without_tests(source: &str) -> String {
    let end = source.find("\n#[cfg(test)]\nmod tests {").unwrap_or(source.len());
    let lines = source[..end].lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths of the `use` lines of `source`, each with the name that it has there: of those that re-export, or of the others.
fn uses(source: &str, exports: bool) -> Vec<(Module, String)> {
    let mut paths = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find("use ") {
        let (before, behind) = (&rest[..at], &rest[at + 4..]);
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        let is_export = line.starts_with("pub");
        let is_use = line.is_empty() || is_export;
        let Some(end) = behind.find(';') else { break };
        if is_use && is_export == exports {
            expand(&behind[..end], &mut Vec::new(), &mut paths);
        }
        rest = if is_use { &behind[end..] } else { behind };
    }
    paths
}

/// Adds every path of the tree `text` to `paths`.
fn expand(text: &str, before: &mut Module, paths: &mut Vec<(Module, String)>) {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        let (mut depth, mut start) = (0_usize, 0);
        for (at, letter) in inner.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    expand(&inner[start..at], before, paths);
                    start = at + 1;
                }
                _ => {}
            }
        }
        return expand(&inner[start..], before, paths);
    }
    match text.split_once("::") {
        Some((first, rest)) => {
            before.push(first.trim().to_owned());
            expand(rest, before, paths);
            before.pop();
        }
        None if text.is_empty() => {}
        None => {
            let (name, alias) = text.split_once(" as ").unwrap_or((text, text));
            let own = (name != "self").then(|| name.to_owned());
            paths.push((before.iter().cloned().chain(own).collect(), alias.trim().to_owned()));
        }
    }
}

/// Paths that begin with `crate` or `super` outside of `use` lines.
fn inline_paths(source: &str) -> impl Iterator<Item = Module> {
    let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | ':');
    let words = source.split(move |letter: char| !is_part(letter));
    let paths = words.filter(|word| word.starts_with("crate::") || word.starts_with("super::"));
    paths.map(|word| word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(files: &[(&str, &str)]) -> BTreeSet<String> {
        let module = |name: &str| name.split('/').map(str::to_owned).collect();
        let sources = files.iter().map(|(name, source)| (module(name), without_tests(source))).collect();
        let mut imports = Imports { sources, ..Imports::default() };
        imports.resolve_all();
        imports.closing_circles()
    }

    #[test]
    fn circles_are_found_through_re_exports_and_inline_paths() {
        let far = [
            ("a", "pub use x::{Y, Z as W};\nfn f() { crate::b::g(); }"),
            ("a/x", "use super::V;"),
            ("b", "use crate::{a::{self, Y}, c};"),
            ("c", "use crate::a::W;\n// use crate::b;"),
        ];
        // b names what a/x defines, and that names what a itself defines, which calls b.
        let expected = ["a -> b", "b -> a", "b -> a/x", "b -> c", "c -> a/x"];
        assert_eq!(imports(&far).into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_module_and_its_children_are_one_folder_and_tests_do_not_count() {
        let near = [
            ("a", "use self::x::Y;\nuse crate::c::D;"),
            ("a/x", "use super::Z;"),
            ("c", "struct D;\n\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}"),
        ];
        assert!(imports(&near).is_empty(), "{:?}", imports(&near));
    }
}
