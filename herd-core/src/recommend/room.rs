//! What room there is: memory and disk of each node, less what is spoken for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Commitments;
use super::memory::{Footprint, default_context, known_kv, resident_bytes};
use crate::eligible::node_eligible;
use crate::fleet::{Model, Node, NodeState};
use crate::health::Inputs;
use crate::name::ModelName;
use crate::pull::disk_available;
use crate::wire::Pressure;

/// Share of memory that models may have where the system has the rest.
pub const USABLE_SHARED: f64 = 0.8;
/// The same for the memory of a GPU of its own.
pub const USABLE_DISCRETE: f64 = 0.95;
/// What a cache of unknown size is taken to need, as a share of the weights: more than common windows take.
pub const UNKNOWN_CACHE_SHARE: f64 = 0.5;

/// The room of all nodes, less what this list of recommendations has taken already.
pub(super) struct Rooms<'a> {
    inputs: Inputs<'a>,
    commitments: Commitments<'a>,
    taken: BTreeMap<String, Taken>,
}

#[derive(Default)]
struct Taken {
    memory_bytes: u64,
    disk_bytes: u64,
    pulls: u32,
}

/// A place for a model.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) node: &'a Node,
    pub(super) memory_bytes: u64,
}

impl<'a> Rooms<'a> {
    pub(super) fn new(inputs: &Inputs<'a>, commitments: &Commitments<'a>) -> Self {
        Self { inputs: *inputs, commitments: *commitments, taken: BTreeMap::new() }
    }

    /// All nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &'a Node> + use<'a> {
        self.inputs.nodes()
    }

    /// The node that has the most memory to spare for a download of `size_bytes`; of equals the first by id. Nodes that
    /// have the model are passed over. `None` = it fits nowhere, or not for certain.
    pub(super) fn for_pull(&self, name: &ModelName, size_bytes: u64, context: Option<u64>) -> Option<Place<'a>> {
        self.for_pull_where(name, size_bytes, context, |_| true)
    }

    /// The same among the nodes that are `wanted`.
    pub(super) fn for_pull_where(
        &self,
        name: &ModelName,
        size_bytes: u64,
        context: Option<u64>,
        wanted: impl Fn(&Node) -> bool,
    ) -> Option<Place<'a>> {
        let lacks = self.inputs.nodes().filter(|node| node.model(name).is_none() && wanted(node));
        let fits = lacks.filter(|node| self.takes_downloads(node, size_bytes)).filter_map(|node| {
            let needed = needed_bytes(&self.inputs, node, name, size_bytes, context)?;
            let spare = self.spare_bytes(node, None)?.checked_sub(needed)?;
            Some((spare, Place { node, memory_bytes: needed }))
        });
        // The first of equals, where `max_by_key` would take the last.
        fits.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, place)| place)
    }

    /// Memory that a model takes on a node that has it, if it fits beside all that is asked for there.
    pub(super) fn for_model(&self, node: &'a Node, model: &Model, context: Option<u64>) -> Option<Place<'a>> {
        let loaded = model.resident.as_ref().and_then(|resident| resident.size_bytes);
        let computed = || needed_bytes(&self.inputs, node, &model.name, model.size_bytes?, context);
        let needed = loaded.or_else(computed)?;
        let fits = is_well(&self.inputs, node) && needed <= self.spare_bytes(node, Some(model))?;
        fits.then_some(Place { node, memory_bytes: needed })
    }

    pub(super) fn take(&mut self, place: &Place<'_>, disk_bytes: Option<u64>) {
        let taken = self.taken.entry(place.node.id.to_string()).or_default();
        taken.memory_bytes = taken.memory_bytes.saturating_add(place.memory_bytes);
        taken.disk_bytes = taken.disk_bytes.saturating_add(disk_bytes.unwrap_or(0));
        taken.pulls += u32::from(disk_bytes.is_some());
    }

    fn takes_downloads(&self, node: &Node, size_bytes: u64) -> bool {
        let taken = self.taken.get(node.id.as_str());
        let reserve = self.inputs.policy.pull.disk_reserve_bytes;
        let needed = size_bytes.saturating_add(reserve).saturating_add(taken.map_or(0, |taken| taken.disk_bytes));
        let is_free = !self.commitments.pulling.contains(&node.id) && taken.is_none_or(|taken| taken.pulls == 0);
        is_free && is_well(&self.inputs, node) && disk_available(node).is_some_and(|free| free >= needed)
    }

    /// Memory of a node that nothing which is asked for there needs; `None` = unknown. `except` is left out.
    fn spare_bytes(&self, node: &Node, except: Option<&Model>) -> Option<u64> {
        let share = if node.device.discrete { USABLE_DISCRETE } else { USABLE_SHARED };
        let usable = part_of(node.device.total_bytes?, share);
        let counted = |model: &Model| except.is_none_or(|except| !Arc::ptr_eq(&except.load, &model.load));
        let mut needed = node.runners().filter(|(model, _)| counted(model)).filter(|(model, resident)| {
            let is_busy = model.load.in_flight() > 0 || resident.busy_by_others > 0;
            is_busy || self.commitments.is_pinned(&node.id, &model.name) || is_asked_for(&self.inputs, node, model)
        });
        let spoken_for = needed.try_fold(0_u64, |all, (_, resident)| Some(all.saturating_add(resident.size_bytes?)))?;
        let taken = self.taken.get(node.id.as_str()).map_or(0, |taken| taken.memory_bytes);
        Some(usable.saturating_sub(spoken_for).saturating_sub(taken))
    }
}

/// Whether a node takes requests, and has memory for more.
fn is_well(inputs: &Inputs<'_>, node: &Node) -> bool {
    let life = &inputs.policy.life;
    let is_heard = node.state(inputs.now_ms, life) == NodeState::Online;
    is_heard && node.pressure == Pressure::Normal && node_eligible(node, inputs.now_ms, life).is_ok()
}

/// Whether any name that shares the runner of `model` was asked for there in the last 24 hours.
pub(super) fn is_asked_for(inputs: &Inputs<'_>, node: &Node, model: &Model) -> bool {
    let mut names = node.models.iter().filter(|other| Arc::ptr_eq(&other.load, &model.load));
    names.any(|name| {
        let row = inputs.stats.pair(node.id.as_str(), name.name.as_str());
        row.is_some_and(|row| row.day.requests > 0)
    })
}

/// Memory that `name` would take on `node`, with `context` or else the node's default. A cache of unknown size is taken
/// to be large.
fn needed_bytes(
    inputs: &Inputs<'_>,
    node: &Node,
    name: &ModelName,
    size_bytes: u64,
    context: Option<u64>,
) -> Option<u64> {
    let trained = inputs.catalogue.shape(name).and_then(|known| known.context_length);
    let footprint = Footprint {
        weights_bytes: Some(size_bytes),
        kv_bytes_per_token: known_kv(name, inputs.catalogue),
        context_length: context.max(default_context(node, trained)),
        parallel: node.env.num_parallel.unwrap_or(1),
    };
    footprint.context_length?;
    let at_least = || size_bytes.saturating_add(part_of(size_bytes, UNKNOWN_CACHE_SHARE));
    Some(resident_bytes(&footprint).unwrap_or_else(at_least))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a number of bytes")]
fn part_of(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share) as u64
}
