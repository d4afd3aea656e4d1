//! Spellings of a model, as Ollama 0.33 reads them.
//!
//! White space around a name is nothing. A source may stand behind it: `:local` says that it must not run elsewhere,
//! `:cloud` and a tag's end `-cloud` that it does. What is left is host, namespace, model and tag, of which the model
//! alone must be there.

use super::NameError;

const HOST: &str = "registry.ollama.ai";
const NAMESPACE: &str = "library";
const TAG: &str = "latest";
/// Longest host, and longest of the other parts, in bytes.
const HOST_MAX_BYTES: usize = 350;
const PART_MAX_BYTES: usize = 80;

/// Where a name says that its model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Local,
    Cloud,
}

/// The one form of every spelling of a name: lower case, with its tag, without the default host and namespace.
pub(super) fn parse(text: &str) -> Result<String, NameError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let (base, source) = cut_source(text);
    if source.is_some() && cut_source(base).1.is_some() {
        return Err(NameError::Conflict(text.chars().take(PART_MAX_BYTES).collect()));
    }
    let mut name = canonical(base)?;
    if source == Some(Source::Cloud) {
        // Ollama's own lists have such a model by this name.
        if has_tag(base) {
            name.push_str("-cloud");
        } else {
            name.truncate(name.len() - TAG.len());
            name.push_str("cloud");
        }
    }
    Ok(name)
}

/// Whether a name of the one form says that its model runs elsewhere.
pub(super) fn is_cloud(name: &str) -> bool {
    cut_source(name).1 == Some(Source::Cloud)
}

fn cut_source(text: &str) -> (&str, Option<Source>) {
    let Some((base, last)) = text.rsplit_once(':') else { return (text, None) };
    let word = last.trim();
    if word.eq_ignore_ascii_case("cloud") {
        return (base, Some(Source::Cloud));
    }
    if word.eq_ignore_ascii_case("local") {
        return (base, Some(Source::Local));
    }
    let end = word.len().checked_sub("-cloud".len()).filter(|end| word.is_char_boundary(*end));
    match end {
        Some(end) if word[end..].eq_ignore_ascii_case("-cloud") && !word.contains('/') => {
            // White space within is refused as a part of the tag.
            let start = text.len() - last.len() + (last.len() - last.trim_start().len());
            (&text[..start + end], Some(Source::Cloud))
        }
        _ => (text, None),
    }
}

fn has_tag(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

fn canonical(text: &str) -> Result<String, NameError> {
    let (path, tag) = match text.rsplit_once(':') {
        Some((path, tag)) if has_tag(text) => (path, tag),
        _ => (text, TAG),
    };
    let (rest, model) = path.rsplit_once('/').map_or((None, path), |(rest, model)| (Some(rest), model));
    let (host, namespace) = match rest.map(|rest| rest.rsplit_once('/').ok_or(rest)) {
        None => (HOST, NAMESPACE),
        Some(Err(namespace)) => (HOST, namespace),
        Some(Ok((host, namespace))) => (host.split_once("://").map_or(host, |(_, host)| host), namespace),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let fits = |part: &str, max: usize, more: &str| {
        let begins = part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        begins && part.len() <= max && part.chars().all(|c| is_plain(c) || more.contains(c))
    };
    let valid = fits(host, HOST_MAX_BYTES, ".:")
        && fits(namespace, PART_MAX_BYTES, "")
        && fits(model, PART_MAX_BYTES, ".")
        && fits(tag, PART_MAX_BYTES, ".");
    if !valid {
        return Err(NameError::Invalid);
    }
    let name = if !host.eq_ignore_ascii_case(HOST) {
        format!("{host}/{namespace}/{model}:{tag}")
    } else if !namespace.eq_ignore_ascii_case(NAMESPACE) {
        format!("{namespace}/{model}:{tag}")
    } else {
        format!("{model}:{tag}")
    };
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn reads(text: &str, expected: &str) {
        assert_eq!(parse(text).as_deref(), Ok(expected), "{text:?}");
    }

    #[test]
    fn every_spelling_that_ollama_takes_is_one_name() {
        for text in [
            "tiny",
            "TINY:Latest",
            " tiny",
            "tiny\n",
            "\u{a0}tiny\t",
            "tiny:latest",
            "library/tiny",
            "Library/Tiny:LATEST",
            "registry.ollama.ai/library/tiny",
            "https://registry.ollama.ai/library/tiny",
            "http://REGISTRY.ollama.ai/library/tiny:latest",
            "tiny:local",
            "tiny:latest:local",
            "tiny: LOCAL",
            "registry.ollama.ai/library/tiny:local",
        ] {
            reads(text, "tiny:latest");
        }
        reads("me/tiny:2b", "me/tiny:2b");
        reads("hf.co/Org/Model-GGUF:Q4_K_M", "hf.co/org/model-gguf:q4_k_m");
        reads("huggingface.co/org/m", "huggingface.co/org/m:latest");
        reads("localhost:5000/me/tiny", "localhost:5000/me/tiny:latest");
        reads("localhost:5000/library/tiny", "localhost:5000/library/tiny:latest");
        reads("_a._b-c:_d.e-f", "_a._b-c:_d.e-f");
    }

    #[test]
    fn a_model_that_runs_elsewhere_is_named_as_it_is_listed() {
        reads("gpt-oss:120b-cloud", "gpt-oss:120b-cloud");
        reads("gpt-oss:120b:cloud", "gpt-oss:120b-cloud");
        reads("GPT-OSS:120B-Cloud", "gpt-oss:120b-cloud");
        reads("m:cloud", "m:cloud");
        reads("m:latest:cloud", "m:latest-cloud");
        reads("me/m:CLOUD", "me/m:cloud");
        reads("m-cloud", "m-cloud:latest");
        reads("localhost:5000/a/m-cloud", "localhost:5000/a/m-cloud:latest");
        assert!(is_cloud("gpt-oss:120b-cloud") && is_cloud("m:cloud"));
        assert!(!is_cloud("m-cloud:latest") && !is_cloud("m:latest") && !is_cloud("localhost:5000/a/m-cloud:latest"));
    }

    #[test]
    fn what_ollama_refuses_is_refused() {
        for text in [
            "tiny:",
            ":latest",
            "/tiny",
            "tiny/",
            "library/",
            "a//b",
            "a/b/c/d",
            "https://tiny",
            "a b",
            "tiny: 2b",
            "-a",
            ".a",
            "a:-b",
            "a.b/tiny",
            "tiny@sha256:aaaaaaaa",
            "tiny@latest",
            "m\u{e9}",
            "a\u{7}b",
            "m::local",
            "m:-cloud",
            "a:b:c",
            "<b>",
            "../../etc/passwd",
        ] {
            assert_eq!(parse(text), Err(NameError::Invalid), "{text:?}");
        }
        assert_eq!(parse(&format!("tiny@sha256:{}", "a".repeat(64))), Err(NameError::Invalid));
        assert_eq!(parse(&"x".repeat(81)), Err(NameError::Invalid));
        assert!(parse(&"x".repeat(80)).is_ok());
        assert_eq!(parse(""), Err(NameError::Empty));
        assert_eq!(parse(" \t\n"), Err(NameError::Empty));
        assert_eq!(parse("m:local:cloud"), Err(NameError::Conflict("m:local:cloud".into())));
        assert_eq!(parse("m:7b-cloud:local"), Err(NameError::Conflict("m:7b-cloud:local".into())));
    }

    proptest! {
        #[test]
        fn the_one_form_reads_as_itself(text in "[a-zA-Z0-9_./: -]{0,40}") {
            if let Ok(name) = parse(&text) {
                prop_assert_eq!(parse(&name), Ok(name.clone()), "{}", text);
            }
        }

        #[test]
        fn no_text_is_too_odd(text in ".{0,60}") {
            drop(parse(&text));
        }
    }
}
