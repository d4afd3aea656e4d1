//! Whose a request is, and what it says of itself beside its body.

use std::sync::Arc;

use herd_core::name::fnv1a;
use herd_core::places::client_of;
use herd_core::queue::{Class, Owner};
use herd_core::record::RequestRecord;
use pingora_proxy::Session;

use super::access::KeyUse;
use super::client_ip;
use super::ctx::Admitted;

/// Tags of one request, and the longest of them, as in a body.
const TAGS_MAX: usize = 16;
const TAG_MAX_BYTES: usize = 64;
/// The application that benchmarks are shown as.
const BENCHMARK_TAG: &str = "benchmark";

/// Notes what is known of a client before its body is.
pub(super) fn note_caller(session: &Session, record: &mut RequestRecord) {
    record.client_ip = client_ip(session).map(|ip| ip.to_string()).unwrap_or_default();
    header(session, "User-Agent").unwrap_or_default().clone_into(&mut record.user_agent);
}

fn header<'a>(session: &'a Session, name: &str) -> Option<&'a str> {
    session.req_header().headers.get(name)?.to_str().ok()
}

/// How urgent a request is, and whose: from its headers, its body and where it comes from.
pub(super) fn identify(session: &Session, admitted: &mut Admitted) {
    if admitted.marks.benchmark {
        measure(admitted);
    } else {
        listen(session, admitted);
    }
    let profile = Arc::clone(&admitted.profile);
    let mut tags: Vec<String> = header(session, "X-Herd-Tags").map(listed).unwrap_or_default();
    tags.extend(profile.tags.iter().cloned());
    tags.truncate(TAGS_MAX);
    let key = admitted.key.as_ref().map(|key| KeyUse::id(key).to_owned());
    let record = &mut *admitted.trace;
    record.app = app(key, &tags, profile.user.as_deref(), &record.user_agent);
    let app = fnv1a(record.app.as_bytes());
    if let Some(user) = &profile.user {
        tags.push(user_tag(user));
    }
    record.tags = tags;
    record.priority = Some(admitted.class);
    record.stream = Some(profile.stream);
    record.request_bytes = profile.body_bytes as u64;
    record.estimated_tokens = Some(profile.prompt_tokens);
    // What it says of itself it may make up; a key and an address it may not.
    let client = match (&admitted.key, client_ip(session)) {
        _ if admitted.marks.benchmark => fnv1a(BENCHMARK_TAG.as_bytes()),
        (Some(key), _) => fnv1a(KeyUse::id(key).as_bytes()),
        (None, Some(ip)) => fnv1a(client_of(ip).to_string().as_bytes()),
        (None, None) => 0,
    };
    admitted.fairness_key = Owner { client, app };
}

/// What a client says.
fn listen(session: &Session, admitted: &mut Admitted) {
    let class = header(session, "X-Fleet-Priority").unwrap_or_default().trim().to_ascii_lowercase();
    admitted.class = Class::parse(&class).unwrap_or_default();
    let strict = header(session, "X-Fleet-No-Fallback").map(|text| text.trim().to_ascii_lowercase());
    if strict.is_some_and(|text| ["1", "true", "yes", "on"].contains(&text.as_str())) {
        Arc::make_mut(&mut admitted.profile).fallback = Some(false);
    }
}

/// A benchmark gives way to everybody else, and is to measure the model that it names.
fn measure(admitted: &mut Admitted) {
    let profile = Arc::make_mut(&mut admitted.profile);
    profile.fallback = Some(false);
    profile.fallback_models.clear();
    profile.tags = vec![BENCHMARK_TAG.to_owned()];
    admitted.class = Class::Batch;
}

/// An end user beside the tags of an application, told from them by a prefix, as ollama-herd writes it.
fn user_tag(user: &str) -> String {
    let tag = format!("user:{user}");
    tag[..tag.floor_char_boundary(TAG_MAX_BYTES)].to_owned()
}

/// The application that a request is counted for: its key, its first tag, its user, else its program's family.
fn app(key: Option<String>, tags: &[String], user: Option<&str>, user_agent: &str) -> String {
    let told = key.or_else(|| tags.first().cloned()).or_else(|| user.map(str::to_owned));
    let app = told.unwrap_or_else(|| family(user_agent).to_owned());
    app.chars().take(TAG_MAX_BYTES).collect()
}

/// The first product of a user agent, without its version.
fn family(user_agent: &str) -> &str {
    let product = user_agent.split(['/', ' ']).next().unwrap_or_default();
    if product.is_empty() { "unknown" } else { product }
}

/// Tags from a header: separated by commas.
fn listed(text: &str) -> Vec<String> {
    let tags = text.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    tags.take(TAGS_MAX).map(|tag| tag[..tag.floor_char_boundary(TAG_MAX_BYTES)].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_for_one_application() {
        let tags = ["report".to_owned(), "nightly".to_owned()];
        assert_eq!(app(Some("key-1".into()), &tags, Some("u"), "curl/8"), "key-1");
        assert_eq!(app(None, &tags, Some("u"), "curl/8"), "report");
        assert_eq!(app(None, &[], Some("u"), "curl/8"), "u");
        assert_eq!(app(None, &[], None, "OpenAI/Python 1.2"), "OpenAI");
        assert_eq!(app(None, &[], None, ""), "unknown");
        assert_eq!(listed(" a , ,b"), ["a", "b"]);
        assert_eq!((user_tag("u").as_str(), user_tag(&"ä".repeat(99)).len()), ("user:u", 63));
        assert_eq!(listed(&"x".repeat(99)), ["x".repeat(64)]);
    }
}
