//! What clients ask first, to see who answers: `/`, `/api/version`, and the probe of Anthropic clients.

use std::cmp::Reverse;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use herd_core::fleet::NodeState;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION, VARY};
use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;

use crate::answer::{JSON, OLLAMA_JSON, json};
use crate::node_facts::ollama_version;
use crate::state::AdminState;
use crate::view::View;

/// Ollama's greeting for programs, the dashboard for browsers.
pub(crate) async fn root(method: Method, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if method == Method::GET && accept.contains("text/html") {
        return (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "/dashboard"), (VARY, "accept")]).into_response();
    }
    ([(CONTENT_TYPE, "text/plain; charset=utf-8"), (VARY, "accept")], "Ollama is running").into_response()
}

#[derive(Serialize)]
struct Version<'a> {
    version: &'a str,
    herd_version: &'a str,
}

/// The version of Ollama that clients may count on, and ours.
pub(crate) async fn version(State(state): State<AdminState>) -> Response {
    let view = state.view();
    let version = lowest_version(&view).unwrap_or(NO_VERSION);
    json(StatusCode::OK, OLLAMA_JSON, &Version { version, herd_version: &state.config().version })
}

/// Told when no node is known. Clients parse versions and switch features on by them: 0.0.0 parses and promises
/// nothing, where a word would be an error to them.
const NO_VERSION: &str = "0.0.0";

/// The lowest among the online nodes, as any of them may serve the client's next request; else among all.
fn lowest_version(view: &View) -> Option<&str> {
    let nodes = &view.snapshot.nodes;
    let online = nodes.iter().filter(|node| node.state(view.now_ms, &view.policy.life) == NodeState::Online);
    let online = online.map(|node| ollama_version(node));
    let all = nodes.iter().map(|node| ollama_version(node));
    minimum(online).or_else(|| minimum(all))
}

fn minimum<'a>(versions: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    versions.filter(|version| !version.is_empty()).min_by_key(|version| order(version))
}

/// Orders versions: numbers as numbers, and `0.33.0-rc2` before `0.33.0`.
fn order(version: &str) -> (Vec<u64>, Reverse<bool>, &str) {
    let (numbers, pre_release) = version.split_once('-').unwrap_or((version, ""));
    let numbers = numbers.split('.').map(|part| part.parse().unwrap_or(0)).collect();
    (numbers, Reverse(!pre_release.is_empty()), pre_release)
}

#[derive(Serialize)]
struct Probe {
    ok: bool,
    service: &'static str,
    endpoint: &'static str,
    ts: u64,
}

/// Anthropic clients ask with GET whether the endpoint exists.
pub(crate) async fn messages_probe(State(state): State<AdminState>) -> Response {
    let ts = state.view().unix_ms / 1000;
    json(StatusCode::OK, JSON, &Probe { ok: true, service: "herd", endpoint: "/v1/messages", ts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_version_is_found_by_number() {
        let lowest = |versions: &[&'static str]| minimum(versions.iter().copied());
        assert_eq!(lowest(&["0.9.0", "0.10.1", ""]), Some("0.9.0"));
        assert_eq!(lowest(&["0.33.0", "0.33.0-rc2"]), Some("0.33.0-rc2"));
        assert_eq!(lowest(&["0.33.0-rc2", "0.33.0-rc1"]), Some("0.33.0-rc1"));
        assert_eq!(lowest(&["", ""]), None);
    }
}
