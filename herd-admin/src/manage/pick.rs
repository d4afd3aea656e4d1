//! Which node a change goes to.

use std::cmp::Reverse;

use herd_core::fleet::Node;
use herd_core::name::ModelName;
use herd_core::pull::disk_available;
use http::{HeaderMap, StatusCode};

use crate::caller::Caller;
use crate::catalogue::reachable;
use crate::health::NO_NODES;
use crate::node_facts::takes_requests;
use crate::ollama::FLEET_NODE;
use crate::refusal::Refusal;
use crate::state::AdminState;
use crate::view::View;

/// The node that a request names: in its body, else in `X-Fleet-Node`.
pub(super) fn named<'a>(in_body: Option<&'a str>, headers: &'a HeaderMap) -> Option<&'a str> {
    in_body.or_else(|| headers.get(FLEET_NODE)?.to_str().ok()).map(str::trim).filter(|id| !id.is_empty())
}

/// The node named `id`.
///
/// # Errors
/// When there is none, or it is offline.
pub(super) fn node_named<'a>(view: &'a View, id: &str) -> Result<&'a Node, Refusal> {
    let unknown = || Refusal::not_found("unknown_node", format!("there is no node named '{id}'"));
    let node = view.snapshot.node(id).ok_or_else(unknown)?;
    let offline = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "node_offline", format!("node '{id}' is offline"));
    reachable(view).find(|reached| reached.id == node.id).ok_or_else(offline)
}

/// What a request of a sequence is about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct About<'a> {
    /// The node that it names.
    pub(super) node: Option<&'a str>,
    /// Files that it needs, by their digests.
    pub(super) files: &'a [&'a str],
    /// A model that it needs.
    pub(super) needs: Option<&'a ModelName>,
    /// The model that it makes.
    pub(super) makes: Option<&'a ModelName>,
}

/// The node for a request of `caller`'s sequence: the named one; the one with its files; the one of the sequence; the best
/// of those with the model that it needs; else the one with most room on its disk.
///
/// # Errors
/// When there is no such node, or none at all.
pub(super) fn one<'a>(
    state: &AdminState,
    view: &'a View,
    caller: &Caller,
    about: &About<'_>,
) -> Result<&'a Node, Refusal> {
    if let Some(id) = about.node {
        return node_named(view, id);
    }
    let sequences = state.sequences();
    let at = |id: Option<String>| id.and_then(|id| node_named(view, &id).ok());
    if let Some(node) = at(sequences.node_with_files(about.files)) {
        return Ok(node);
    }
    let has_what_it_needs = |node: &&Node| about.needs.is_none_or(|name| view.model(node, name).is_some());
    if let Some(node) = at(sequences.node(caller.ip, view.now_ms)).filter(has_what_it_needs) {
        return Ok(node);
    }
    let nodes = || reachable(view).filter(|node| node.same_ollama_as.is_none());
    let best = |node: &&Node| {
        let makes = about.makes.is_some_and(|name| view.model(node, name).is_some());
        let ready = takes_requests(node, &view.policy, view.now_ms);
        (Reverse(ready), Reverse(makes), Reverse(disk_available(node)), node.load.in_flight())
    };
    // What no node has, a node pulls.
    let found = nodes().filter(has_what_it_needs).min_by_key(best).or_else(|| nodes().min_by_key(best));
    found.ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no_nodes", NO_NODES))
}
