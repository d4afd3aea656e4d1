//! What each key means, in the words of `conf/herd.yaml`: they are written once.

use std::collections::BTreeMap;

/// The shipped file, whose comments explain its keys.
const SHIPPED: &str = include_str!("../../../conf/herd.yaml");

/// The explanation of every dotted key. A key without a comment of its own shares that of the one before it in its
/// section.
#[must_use]
pub fn help() -> BTreeMap<String, String> {
    let mut explained = BTreeMap::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut comment = Vec::new();
    let mut shared = String::new();
    for line in SHIPPED.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim().to_owned());
            continue;
        }
        let Some((key, value)) = text.split_once(':') else {
            comment.clear();
            continue;
        };
        path.retain(|(depth, _)| *depth < indent);
        let dotted: Vec<&str> = path.iter().map(|(_, key)| key.as_str()).chain([key]).collect();
        if !comment.is_empty() {
            shared = std::mem::take(&mut comment).join(" ");
        }
        if value.trim().is_empty() {
            path.push((indent, key.to_owned()));
            shared.clear();
        } else {
            explained.insert(dotted.join("."), shared.clone());
        }
    }
    explained
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigFile;

    #[test]
    fn every_key_is_in_the_file_and_most_are_explained() {
        let explained = help();
        for (key, _) in ConfigFile::keys() {
            assert!(explained.contains_key(&key), "{key}");
        }
        assert_eq!(explained["threads"], "Worker threads of the data plane; 0 = one per core.");
        assert!(explained["context.protection"].starts_with("What happens to a client's num_ctx"));
        assert!(explained["routing.weights.role_affinity"].is_empty() || explained.len() == ConfigFile::keys().len());
    }
}
