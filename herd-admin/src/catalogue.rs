//! The models of the whole fleet: the union over its nodes, by normalised name.
//!
//! Strict clients decode the catalogue with fixed types, so that nothing in it is null. What no node tells has a
//! stand-in that cannot be taken for a fact: see [`Entry`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use herd_core::fleet::{Model, Node, NodeState};
use herd_core::name::ModelName;
use herd_core::wire::AvailableModel;

use crate::node_facts::shown_name;
use crate::time::{self, Moment};
use crate::view::View;

/// One model of the fleet.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// Its name as the first node writes it.
    pub(crate) shown: &'a str,
    /// Its metadata, from the first node that tells a digest.
    pub(crate) details: &'a AvailableModel,
    /// Its size on disk, else in memory; 0 = no node tells.
    pub(crate) size_bytes: u64,
    /// Manifest digest; [`stand_in_digest`] when no node tells.
    pub(crate) digest: Cow<'a, str>,
    /// When it was last pulled, RFC 3339; when the first of its nodes joined, if no node tells.
    pub(crate) modified_at: Cow<'a, str>,
    /// The same as a moment.
    pub(crate) modified: Moment,
    /// Context that it was trained with; `None` = no node tells.
    pub(crate) context_length_max: Option<u64>,
    /// The largest window that a request without `num_ctx` would get, loaded or by its node's default; `None` = no
    /// node tells.
    pub(crate) window: Option<u64>,
    /// The nodes that have it, by id.
    pub(crate) nodes: Vec<&'a str>,
}

type Holders<'a> = Vec<(&'a Node, &'a Model)>;

/// All models of the nodes that are not offline, in the order of their names.
pub(crate) fn catalogue(view: &View) -> Vec<Entry<'_>> {
    let mut holders: BTreeMap<&ModelName, Holders<'_>> = BTreeMap::new();
    for node in reachable(view) {
        for model in view.models(node) {
            holders.entry(&model.name).or_default().push((node, model));
        }
    }
    holders.into_values().filter_map(|holders| entry(&holders, view)).collect()
}

/// The model named `name`, if a node that is not offline has it.
pub(crate) fn find<'a>(view: &'a View, name: &ModelName) -> Option<Entry<'a>> {
    let holders: Holders<'a> = reachable(view).filter_map(|node| Some((node, view.model(node, name)?))).collect();
    entry(&holders, view)
}

/// The nodes that are not offline.
pub(crate) fn reachable(view: &View) -> impl Iterator<Item = &Node> {
    let is_offline = |node: &Node| node.state(view.now_ms, &view.policy.life) == NodeState::Offline;
    view.snapshot.nodes.iter().map(AsRef::as_ref).filter(move |node| !is_offline(node))
}

/// `None` = nobody has it.
fn entry<'a>(holders: &Holders<'a>, view: &View) -> Option<Entry<'a>> {
    let (_, first) = *holders.first()?;
    let models = || holders.iter().map(|(_, model)| *model);
    let details = models().find(|model| !model.details.digest.is_empty()).unwrap_or(first).details.as_ref();
    let stub = || Some(details.size_bytes).filter(|bytes| *bytes > 0);
    let on_disk = models().find_map(|model| model.size_bytes).or_else(stub);
    let in_memory = || models().find_map(|model| model.resident.as_ref()?.size_bytes);
    let (modified_at, modified) = modified(details, holders, view);
    Some(Entry {
        shown: shown_name(first),
        details,
        size_bytes: on_disk.or_else(in_memory).unwrap_or(0),
        digest: digest_or_stand_in(&details.digest, &first.name),
        modified_at,
        modified,
        context_length_max: models().filter_map(|model| model.context_length_max).max(),
        window: holders.iter().filter_map(|(node, model)| window(node, model)).max(),
        nodes: holders.iter().map(|(node, _)| node.id.as_str()).collect(),
    })
}

fn modified<'a>(details: &'a AvailableModel, holders: &Holders<'a>, view: &View) -> (Cow<'a, str>, Moment) {
    if let Some(moment) = time::parse(&details.modified_at) {
        return (Cow::Borrowed(&details.modified_at), moment);
    }
    let joined_ms = holders.iter().map(|(node, _)| node.joined_at_ms).min().unwrap_or(view.now_ms);
    let text = time::rfc3339(view.unix_ms_at(joined_ms));
    let moment = time::parse(&text).unwrap_or(Moment { seconds: 0, nanos: 0 });
    (Cow::Owned(text), moment)
}

/// The window of a request that does not say `num_ctx`.
pub(crate) fn window(node: &Node, model: &Model) -> Option<u64> {
    let capped = |tokens: u64| model.context_length_max.map_or(tokens, |max| tokens.min(max));
    match &model.resident {
        Some(resident) if resident.context_length.is_some() => resident.context_length,
        _ => node.env.context_length.map(capped),
    }
}

/// `digest`, or [`stand_in_digest`].
pub(crate) fn digest_or_stand_in<'a>(digest: &'a str, name: &ModelName) -> Cow<'a, str> {
    if digest.is_empty() { Cow::Owned(stand_in_digest(name)) } else { Cow::Borrowed(digest) }
}

/// 64 hex digits, the same for the same name, 48 of them zeros: no SHA-256 that anybody will ever see looks so.
fn stand_in_digest(name: &ModelName) -> String {
    format!("{:064x}", name.key())
}
