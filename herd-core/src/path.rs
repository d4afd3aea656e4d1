//! Request paths as Ollama's server reads them: escapes decoded, paths that are not clean sent to the clean one.
//!
//! A path is routed by what it says after decoding and goes on in that form, so that nobody behind the edge can read it
//! as another one.

use std::borrow::Cow;

use crate::request::{COUNT_TOKENS_PATH, Surface};

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading<'a> {
    /// It is routed as this.
    Routed(Cow<'a, str>),
    /// The client is sent to this path, which has to be asked instead.
    Moved(Cow<'a, str>),
}

/// What can be read at the admin service's side of Ollama's and `OpenAI`'s APIs.
const READ: [&str; 5] = ["/api/tags", "/api/ps", "/api/version", "/api/status", "/v1/models"];
/// What can be asked for there otherwise.
const POSTED: [&str; 6] = ["/api/show", "/api/pull", "/api/push", "/api/create", "/api/copy", COUNT_TOKENS_PATH];

/// Reads `path`, which came without its query, of a request with `method`.
#[must_use]
pub fn read<'a>(method: &str, path: &'a str) -> Reading<'a> {
    let clean = clean(path);
    if let Cow::Owned(clean) = clean {
        return Reading::Moved(Cow::Owned(clean));
    }
    let decoded = decode(path);
    match decoded.strip_suffix('/') {
        Some(shorter) if has(method, shorter) => Reading::Moved(Cow::Owned(shorter.to_owned())),
        _ => Reading::Routed(decoded),
    }
}

/// Whether `path` tells which models there are, and what of them is in memory.
#[must_use]
pub fn is_catalogue(path: &str) -> bool {
    READ.contains(&path) || path.strip_prefix("/v1/models/").is_some_and(|id| !id.is_empty())
}

/// Whether Ollama's router has `path` for `method`.
fn has(method: &str, path: &str) -> bool {
    match method {
        "GET" | "HEAD" => READ.contains(&path) || path.strip_prefix("/v1/models/").is_some_and(|id| !id.contains('/')),
        "POST" => Surface::at(path).is_some() || POSTED.contains(&path),
        "DELETE" => path == "/api/delete",
        _ => false,
    }
}

/// `path` without empty and dot segments; borrowed when it has none. A slash at its end stays.
fn clean(path: &str) -> Cow<'_, str> {
    let Some(rest) = path.strip_prefix('/') else { return Cow::Borrowed(path) };
    let is_odd = |segment: &str| matches!(segment, "." | "..");
    if !rest.contains("//") && !rest.starts_with('/') && !rest.split('/').any(is_odd) {
        return Cow::Borrowed(path);
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in rest.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let mut clean: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
    if clean.is_empty() || path.ends_with('/') {
        clean.push('/');
    }
    Cow::Owned(clean)
}

/// `path` with its escapes decoded, if the result is a clean path of plain characters; else as it is, which no route is.
fn decode(path: &str) -> Cow<'_, str> {
    let Some(decoded) = path.contains('%').then(|| unescape(path)).flatten() else { return Cow::Borrowed(path) };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._:~@+=,-".contains(c);
    if decoded.chars().all(is_plain) && matches!(clean(&decoded), Cow::Borrowed(_)) {
        Cow::Owned(decoded)
    } else {
        Cow::Borrowed(path)
    }
}

/// `path` with its escapes decoded; `None` = one is none, or it is no text then.
pub(crate) fn unescape(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| plain)?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn routed(method: &str, path: &str, expected: &str) {
        assert_eq!(read(method, path), Reading::Routed(expected.into()), "{method} {path}");
    }

    #[track_caller]
    fn moved(method: &str, path: &str, expected: &str) {
        assert_eq!(read(method, path), Reading::Moved(expected.into()), "{method} {path}");
    }

    #[test]
    fn a_path_is_routed_as_it_decodes() {
        routed("GET", "/", "/");
        routed("GET", "/api/tags", "/api/tags");
        routed("GET", "/api/%74ags", "/api/tags");
        routed("POST", "/api%2Fchat", "/api/chat");
        routed("GET", "/v1/models/hf.co%2Forg%2Fm%3Alatest", "/v1/models/hf.co/org/m:latest");
        routed("OPTIONS", "*", "*");
    }

    #[test]
    fn a_path_that_is_not_clean_is_sent_to_the_clean_one() {
        moved("GET", "//api/tags", "/api/tags");
        moved("POST", "/api//chat", "/api/chat");
        moved("GET", "///", "/");
        moved("GET", "/api/./tags", "/api/tags");
        moved("GET", "/x/../api/tags", "/api/tags");
        moved("GET", "/../../fleet/status", "/fleet/status");
        moved("POST", "/v1//chat/completions/", "/v1/chat/completions/");
        moved("GET", "//evil.example/%2e%2e", "/evil.example/%2e%2e");
    }

    #[test]
    fn a_slash_at_the_end_is_taken_off_where_there_is_a_route_without_it() {
        moved("GET", "/api/tags/", "/api/tags");
        moved("HEAD", "/api/version/", "/api/version");
        moved("GET", "/v1/models/", "/v1/models");
        moved("GET", "/v1/models/tiny/", "/v1/models/tiny");
        moved("POST", "/api/chat/", "/api/chat");
        moved("POST", "/v1/messages/", "/v1/messages");
        moved("DELETE", "/api/delete/", "/api/delete");
        routed("GET", "/api/chat/", "/api/chat/");
        routed("POST", "/api/tags/", "/api/tags/");
        routed("GET", "/dashboard/", "/dashboard/");
        routed("GET", "/api/nope/", "/api/nope/");
    }

    #[test]
    fn what_decodes_to_tricks_stays_as_it_is() {
        for path in
            ["/api/%2e%2e/fleet", "/api/%2ftags", "/api/tags%00", "/api/tags%3fx", "/a%20b", "/%zz", "/%+1", "/%"]
        {
            routed("GET", path, path);
        }
    }

    proptest! {
        #[test]
        fn nobody_is_sent_elsewhere(path in "/[a-z./%25eE]{0,24}") {
            match read("GET", &path) {
                Reading::Moved(to) => {
                    prop_assert!(to.starts_with('/') && !to.starts_with("//"), "{}", to);
                    // Where the clean path goes on, it goes on shorter, so that it ends.
                    prop_assert!(to.len() < path.len());
                }
                Reading::Routed(to) => prop_assert!(!to.contains("//") && !to.contains("/../"), "{}", to),
            }
        }
    }
}
