//! What each key means, in the words of `conf/herd.yaml`: they are written once.

use std::collections::BTreeMap;

/// The shipped file, whose comments explain its keys.
const SHIPPED: &str = include_str!("../../../conf/herd.yaml");

/// The explanation of every dotted key: the comment right above it.
#[must_use]
pub fn help() -> BTreeMap<String, String> {
    explained(SHIPPED)
}

fn explained(yaml: &str) -> BTreeMap<String, String> {
    let mut explained = BTreeMap::new();
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in yaml.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        let words = std::mem::take(&mut comment).join(" ");
        let Some((key, value)) = text.split_once(':') else { continue };
        path.retain(|(depth, _)| *depth < indent);
        if value.trim().is_empty() {
            path.push((indent, key));
        } else {
            let dotted: Vec<&str> = path.iter().map(|(_, key)| *key).chain([key]).collect();
            explained.insert(dotted.join("."), words);
        }
    }
    explained
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config::ConfigFile;

    #[test]
    fn every_key_is_explained_by_a_text_of_its_own() {
        let explained = help();
        let mut texts = HashMap::new();
        for (key, _) in ConfigFile::keys() {
            let text = explained.get(&key).map_or("", String::as_str);
            assert!(text.len() > 8, "{key} has no comment in conf/herd.yaml");
            assert_eq!(texts.insert(text, key.clone()), None, "{key} has its neighbour's text");
        }
        assert_eq!(texts.len(), explained.len(), "a key of conf/herd.yaml is none");
        assert_eq!(explained["threads"], "Worker threads of the data plane; 0 = one per core.");
        assert!(explained["admin.hosts"].contains("DNS rebinding"));
    }

    #[test]
    fn a_text_belongs_to_the_one_key_below_it() {
        let explained = explained("# about the file\n\na: 1\n# of\n# s\ns:\n  # of b\n  b: 2\n  c: 3\n# of d\nd: 4\n");
        let expected = [("a", ""), ("d", "of d"), ("s.b", "of b"), ("s.c", "")];
        assert!(explained.iter().map(|(key, text)| (key.as_str(), text.as_str())).eq(expected), "{explained:?}");
    }
}
