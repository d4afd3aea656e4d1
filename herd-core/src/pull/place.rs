//! Where a model goes: the node that it fits best, by its real size.

use std::cmp::Reverse;

use crate::eligible::{Ineligible, node_eligible};
use crate::fleet::{FleetSnapshot, LifeLimits, Node, NodeState};
use crate::name::{ModelName, NodeId};
use crate::wire::{OllamaState, Pressure};

use super::{PullPolicy, PullRefusal};

const GIB: f64 = 1_073_741_824.0;
/// A model holds fully in a device whose memory is larger than its weights by one part in so many: context takes some.
const CONTEXT_SHARE: u64 = 10;

/// What becomes of nodes that have the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holders {
    /// They are left out: a request could not be served there, and another copy is wanted.
    Skip,
    /// They come first: the model is brought up to date.
    Prefer,
}

/// What a choice of a node for a pull depends on besides the fleet.
#[derive(Debug, Clone, Copy)]
pub struct Placing<'a> {
    /// The model.
    pub model: &'a ModelName,
    /// Its size on disk, bytes; `None` = not known before its manifest is read.
    pub size_bytes: Option<u64>,
    /// What is left alone.
    pub policy: &'a PullPolicy,
    /// When silent nodes change their state.
    pub life: &'a LifeLimits,
    /// Now.
    pub now_ms: u64,
    /// Nodes that pull now, each one model.
    pub pulling: &'a [NodeId],
    /// What becomes of nodes that have it.
    pub holders: Holders,
}

/// The size of `model` on disk as some node of the fleet knows it, one that is offline too; `None` = none does.
#[must_use]
pub fn known_size(snapshot: &FleetSnapshot, model: &ModelName) -> Option<u64> {
    let key = model.key();
    let holders = snapshot.nodes.iter().filter_map(|node| node.model_by_key(key));
    holders.filter(|held| held.name == *model).filter_map(|held| held.size_bytes).max()
}

/// What is free on the disk with the node's models, bytes; `None` = not reported.
#[must_use]
pub fn disk_available(node: &Node) -> Option<u64> {
    let ours = node.heartbeat.herd.as_ref().and_then(|report| report.disk.as_ref());
    let theirs = node.heartbeat.disk.as_ref().filter(|disk| disk.total_gb > 0.0);
    ours.map(|disk| disk.available_bytes).or_else(|| theirs.map(|disk| from_gib(disk.available_gb)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of heartbeats are checked")]
fn from_gib(amount: f64) -> u64 {
    (amount * GIB) as u64
}

/// The node that `ask.model` fits best, as an index into the snapshot's nodes.
///
/// Nodes are left out that take no requests, are silent for long, are short of memory, pull another model, or have not
/// the memory or the disk; an unknown size rules nobody out by memory, an unknown disk comes last, and after it who
/// failed requests lately. Among the others those come first that hold the model fully in the memory of their device, then those with more of it free (idle
/// models count as free), then those with more disk, then the first by id.
///
/// # Errors
/// With the one thing that would have to be different: of all nodes the reason of the one that came nearest.
pub fn place(snapshot: &FleetSnapshot, ask: &Placing<'_>) -> Result<usize, PullRefusal> {
    let judged: Vec<_> = snapshot.nodes.iter().map(|node| judge(node, ask)).collect();
    let fit = judged.iter().enumerate().filter_map(|(index, verdict)| Some((index, verdict.as_ref().ok()?)));
    match fit.min_by_key(|(_, rank)| Reverse(**rank)) {
        Some((index, _)) => Ok(index),
        None => Err(refusal(judged.into_iter().filter_map(Result::err), ask)),
    }
}

/// The node named `id`, if it can take `ask.model`, as an index into the snapshot's nodes.
///
/// Whoever names a node knows it: only what would fail in any case is refused, so that a drained or paused node, or one
/// short of memory, can be filled.
///
/// # Errors
/// When there is no such node, it cannot be reached, pulls another model or has not the disk.
pub fn place_on(snapshot: &FleetSnapshot, id: &str, ask: &Placing<'_>) -> Result<usize, PullRefusal> {
    let found = snapshot.nodes.iter().position(|node| node.id.as_str() == id).ok_or(PullRefusal::UnknownNode)?;
    let node = &snapshot.nodes[found];
    if node.state(ask.now_ms, ask.life) == NodeState::Offline || node.ollama != OllamaState::Ok {
        return Err(PullRefusal::NodeUnavailable { node: node.id.clone() });
    }
    match check_disk(node, ask).and_then(|()| check_pulling(node, ask)) {
        Ok(()) => Ok(found),
        Err(unfit) => Err(refusal([unfit].into_iter(), ask)),
    }
}

/// What is thought of a node by how requests went there; the later, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    FailedLately,
    Good,
}

/// How well a node takes the model: the larger, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    standing: Standing,
    has_it: bool,
    disk_is_known: bool,
    holds_it_in_device: bool,
    free_bytes: Option<u64>,
    disk_bytes: Option<u64>,
}

/// Why a node does not take the model; the later, the nearer it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unfit {
    NotReady,
    HasIt,
    Memory { best_bytes: u64 },
    Disk { best_bytes: u64 },
    Pulling,
}

fn judge(node: &Node, ask: &Placing<'_>) -> Result<Rank, Unfit> {
    let is_silent = node.state(ask.now_ms, ask.life) == NodeState::Stale;
    let is_short = node.pressure == Pressure::Critical;
    if is_silent || is_short {
        return Err(Unfit::NotReady);
    }
    // That requests failed there is no reason to tell a client that its model does not exist.
    let standing = match node_eligible(node, ask.now_ms, ask.life) {
        Ok(()) => Standing::Good,
        Err(Ineligible::Ejected(_) | Ineligible::OnTrial) => Standing::FailedLately,
        Err(_) => return Err(Unfit::NotReady),
    };
    let has_it = node.model(ask.model).is_some();
    if has_it && ask.holders == Holders::Skip {
        return Err(Unfit::HasIt);
    }
    check_memory(node, ask)?;
    check_disk(node, ask)?;
    check_pulling(node, ask)?;
    let device = &node.device;
    let with_context = ask.size_bytes.map(|size| size.saturating_add(size / CONTEXT_SHARE));
    let holds = |needed| device.total_bytes.is_some_and(|total| needed <= total);
    let free = device.free_bytes.map(|free| free.saturating_add(node.evictable_bytes()));
    let disk_bytes = disk_available(node);
    Ok(Rank {
        standing,
        has_it,
        disk_is_known: disk_bytes.is_some(),
        holds_it_in_device: with_context.is_none_or(holds),
        free_bytes: free.map(|free| device.total_bytes.map_or(free, |total| free.min(total))),
        disk_bytes,
    })
}

/// As for requests: layers that a discrete GPU cannot hold go to system memory, slowly, so both count.
fn check_memory(node: &Node, ask: &Placing<'_>) -> Result<(), Unfit> {
    let system = if node.device.discrete { node.device.system_bytes.unwrap_or(0) } else { 0 };
    match (ask.size_bytes, node.device.total_bytes.map(|device| device.saturating_add(system))) {
        (Some(needed), Some(best_bytes)) if needed > best_bytes => Err(Unfit::Memory { best_bytes }),
        _ => Ok(()),
    }
}

fn check_disk(node: &Node, ask: &Placing<'_>) -> Result<(), Unfit> {
    let needed = ask.size_bytes.unwrap_or(0).saturating_add(ask.policy.disk_reserve_bytes);
    match disk_available(node) {
        Some(best_bytes) if best_bytes < needed => Err(Unfit::Disk { best_bytes }),
        _ => Ok(()),
    }
}

fn check_pulling(node: &Node, ask: &Placing<'_>) -> Result<(), Unfit> {
    if ask.pulling.contains(&node.id) { Err(Unfit::Pulling) } else { Ok(()) }
}

fn refusal(unfit: impl Iterator<Item = Unfit>, ask: &Placing<'_>) -> PullRefusal {
    match unfit.max() {
        None | Some(Unfit::NotReady) => PullRefusal::NoNode,
        Some(Unfit::HasIt) => PullRefusal::AlreadyThere,
        Some(Unfit::Memory { best_bytes }) => {
            PullRefusal::NoMemory { needed_bytes: ask.size_bytes.unwrap_or(0), best_bytes }
        }
        Some(Unfit::Disk { best_bytes }) => PullRefusal::NoDisk {
            needed_bytes: ask.size_bytes,
            reserve_bytes: ask.policy.disk_reserve_bytes,
            best_bytes,
        },
        Some(Unfit::Pulling) => PullRefusal::Busy,
    }
}
