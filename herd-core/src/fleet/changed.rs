//! What herd itself did to the models of a node, ahead of the heartbeat that will tell of it.
//!
//! A script that copies a model asks for the copy in the next moment, and one that stops a model lists those in memory;
//! a heartbeat that was composed before must not undo either.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::FleetSnapshot;
use super::apply::remember;
use super::departed::{left_models, model_load};
use super::node::{Model, Node};
use crate::name::ModelName;
use crate::wire;

/// A change of one model on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelChange<'a> {
    /// It is another name of a model that the node has.
    Copied {
        /// That model.
        from: &'a ModelName,
    },
    /// It was pulled or created: the node has it on disk now.
    Added {
        /// The model that it was made from, whose metadata it has until the node tells its own; `None` = none is known.
        from: Option<&'a ModelName>,
    },
    /// It was deleted from the disk.
    Removed,
    /// It was taken out of memory.
    Unloaded,
}

/// Changes of one node that are remembered; the oldest goes first.
const RECENT_MAX: usize = 64;
/// How old what an agent tells of the memory may be: it looks at its Ollama every second or two.
const MEMORY_MS: u64 = 3_000;
/// How much longer than its heartbeat interval an agent may take to tell of the disk.
const DISK_SLACK_MS: u64 = 3_000;

/// A change that heartbeats may not know of yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recent {
    name: ModelName,
    kind: Kind,
    at_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Added,
    Removed,
    Unloaded,
}

/// What a heartbeat tells of one model: its entry on disk, and its runner.
pub(super) type Told<L> = (Option<wire::AvailableModel>, Option<L>);

impl FleetSnapshot {
    /// The picture after herd changed `model` on the node named `id`; `None` = there is no such node, or nothing to change.
    #[must_use]
    pub fn with_change(&self, id: &str, model: &ModelName, change: ModelChange<'_>, now_ms: u64) -> Option<Self> {
        let known = self.node(id)?;
        let mut node: Node = known.as_ref().clone();
        match change {
            ModelChange::Copied { from } => copy(&mut node, known.model(from)?, model),
            ModelChange::Added { from } => add(&mut node, known, model, from),
            ModelChange::Removed => node.models.retain(|known| known.name != *model),
            ModelChange::Unloaded => unload(&mut node, model, now_ms)?,
        }
        let kind = match change {
            ModelChange::Copied { .. } | ModelChange::Added { .. } => Kind::Added,
            ModelChange::Removed => Kind::Removed,
            ModelChange::Unloaded => Kind::Unloaded,
        };
        let unloaded = |other: &&Model| kind == Kind::Unloaded && same_runner(known, model, other);
        let names = known.models.iter().filter(unloaded).map(|other| &other.name).filter(|name| *name != model);
        for name in std::iter::once(model).chain(names) {
            note(&mut node.recent, Recent { name: name.clone(), kind, at_ms: now_ms });
        }
        node.left_models = left_models(Some(known), &node.models);
        Some(self.with(node))
    }
}

/// A second name of `original`, with which it shares its runner.
fn copy(node: &mut Node, original: &Model, name: &ModelName) {
    let details = wire::AvailableModel { name: name.to_string(), ..original.details.as_ref().clone() };
    let copy = Model {
        name: name.clone(),
        key: name.key(),
        details: Arc::new(details),
        shares_runner: true,
        unlisted: false,
        ..original.clone()
    };
    put(node, copy);
}

fn add(node: &mut Node, known: &Node, name: &ModelName, from: Option<&ModelName>) {
    if let Some(model) = node.models.iter_mut().find(|model| model.name == *name) {
        // It was made anew: its node tells what is different.
        model.unlisted = false;
        return;
    }
    let original = from.and_then(|from| known.model(from)).map(|model| model.details.as_ref().clone());
    let details = wire::AvailableModel {
        name: name.to_string(),
        // It has a manifest of its own.
        digest: String::new(),
        modified_at: String::new(),
        ..original.unwrap_or_default()
    };
    let load = model_load(Some(known), name).unwrap_or_default();
    put(node, remember(name.clone(), Some(details), None, None, load));
}

/// Models are kept in the order of their keys.
fn put(node: &mut Node, model: Model) {
    match node.models.binary_search_by_key(&model.key, |known| known.key) {
        Ok(index) => node.models[index] = model,
        Err(index) => node.models.insert(index, model),
    }
}

fn unload(node: &mut Node, model: &ModelName, now_ms: u64) -> Option<()> {
    let load = Arc::clone(&node.model(model)?.load);
    load.set_launched(None);
    load.forget_conversations();
    for model in node.models.iter_mut().filter(|model| Arc::ptr_eq(&model.load, &load)) {
        if model.resident.take().is_some() {
            model.unloaded_at_ms = Some(now_ms);
        }
    }
    Some(())
}

fn same_runner(node: &Node, model: &ModelName, other: &Model) -> bool {
    node.model(model).is_some_and(|model| Arc::ptr_eq(&model.load, &other.load))
}

fn note(all: &mut Vec<Recent>, new: Recent) {
    all.retain(|known| known.name != new.name || (known.kind == Kind::Unloaded) != (new.kind == Kind::Unloaded));
    if all.len() >= RECENT_MAX {
        all.remove(0);
    }
    all.push(new);
}

/// Forgets that `names` were unloaded: one of them has been loaded again.
pub(super) fn loaded_again(all: &mut Vec<Recent>, names: &[ModelName]) {
    all.retain(|known| known.kind != Kind::Unloaded || !names.contains(&known.name));
}

/// Those of `all` that `heartbeat`, which came at `now_ms`, may have been composed before.
pub(super) fn still_open(all: &[Recent], heartbeat: &wire::Heartbeat, now_ms: u64) -> Vec<Recent> {
    let disk_ms = heartbeat.interval_ms() + DISK_SLACK_MS;
    let limit_ms = |recent: &Recent| if recent.kind == Kind::Unloaded { MEMORY_MS } else { disk_ms };
    all.iter().filter(|recent| now_ms.saturating_sub(recent.at_ms) < limit_ms(recent)).cloned().collect()
}

/// Makes what a heartbeat tells of the models of `node` agree with what herd did since; returns what the heartbeat did not
/// know of.
pub(super) fn overrule<L>(
    recent: Vec<Recent>,
    told: &mut BTreeMap<ModelName, Told<L>>,
    known: Option<&Node>,
) -> Vec<Recent> {
    let before =
        |name: &ModelName| known.and_then(|known| known.model(name)).map(|model| model.details.as_ref().clone());
    let mut open = recent;
    open.retain(|recent| match recent.kind {
        Kind::Removed => told.remove(&recent.name).is_some(),
        Kind::Added => {
            let entry = told.entry(recent.name.clone()).or_default();
            let unknown = entry.0.is_none();
            if unknown {
                entry.0 = before(&recent.name).or_else(|| Some(wire::AvailableModel::default()));
            }
            unknown
        }
        Kind::Unloaded => told.get_mut(&recent.name).is_some_and(|(_, loaded)| loaded.take().is_some()),
    });
    open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Applied, HeartbeatLimits, LifeLimits, Loaded};
    use crate::launch::Signature;
    use crate::load::Claim;
    use crate::testing::{NodeSpec, fleet, sender};

    fn name(text: &str) -> ModelName {
        ModelName::new(text).unwrap()
    }

    fn after(snapshot: &FleetSnapshot, spec: &NodeSpec, seq: u64, now_ms: u64) -> FleetSnapshot {
        let (life, limits) = (LifeLimits::default(), HeartbeatLimits::default());
        match snapshot.apply(spec.heartbeat("a", seq), sender(), now_ms, &life, &limits) {
            Ok(Applied::Changed(next)) => next,
            other => panic!("{other:?}"),
        }
    }

    fn names(snapshot: &FleetSnapshot) -> Vec<String> {
        let mut names: Vec<_> = snapshot.nodes[0].models.iter().map(|model| model.name.to_string()).collect();
        names.sort();
        names
    }

    fn is_loaded(snapshot: &FleetSnapshot, model: &str) -> bool {
        snapshot.nodes[0].model(&name(model)).is_some_and(|model| model.resident.is_some())
    }

    #[test]
    fn a_copy_is_there_at_once_and_an_older_heartbeat_does_not_take_it_away() {
        let spec = NodeSpec::default().cold("m");
        let copied = fleet(&[("a", spec.clone())], 1_000)
            .with_change("a", &name("copy"), ModelChange::Copied { from: &name("m") }, 2_000)
            .unwrap();
        assert_eq!(names(&copied), ["copy:latest", "m:latest"]);
        let copy = copied.nodes[0].model(&name("copy")).unwrap();
        assert_eq!(copy.size_bytes, copied.nodes[0].model(&name("m")).unwrap().size_bytes);
        let early = after(&copied, &spec, 2, 3_000);
        assert_eq!(names(&early), ["copy:latest", "m:latest"]);
        let told = after(&early, &NodeSpec::default().cold("m").cold("copy"), 3, 4_000);
        assert!(told.nodes[0].recent.is_empty(), "a heartbeat tells of it itself");
        assert_eq!(names(&after(&told, &spec, 4, 5_000)), ["m:latest"], "and is believed from then on");
        assert_eq!(names(&after(&copied, &spec, 2, 60_000)), ["m:latest"], "or it was not so");
        assert!(copied.with_change("b", &name("m"), ModelChange::Removed, 0).is_none());
    }

    #[test]
    fn what_was_deleted_is_gone_at_once() {
        let spec = NodeSpec::default().cold("m").cold("other");
        let deleted = fleet(&[("a", spec.clone())], 1_000).with_change("a", &name("m"), ModelChange::Removed, 2_000);
        let deleted = deleted.unwrap();
        assert_eq!(names(&deleted), ["other:latest"]);
        assert_eq!(names(&after(&deleted, &spec, 2, 3_000)), ["other:latest"]);
        assert_eq!(names(&after(&deleted, &spec, 2, 60_000)), ["m:latest", "other:latest"]);
        let again = deleted.with_change("a", &name("m"), ModelChange::Added { from: None }, 2_500).unwrap();
        assert_eq!(names(&after(&again, &spec, 2, 3_000)), ["m:latest", "other:latest"]);
    }

    #[test]
    fn what_was_unloaded_is_not_in_memory_until_it_is_loaded_again() {
        let hot = NodeSpec::default().hot("m", 4_096);
        let snapshot = fleet(&[("a", hot.clone())], 1_000);
        let unloaded = snapshot.with_change("a", &name("m"), ModelChange::Unloaded, 2_000).unwrap();
        assert!(!is_loaded(&unloaded, "m"));
        assert_eq!(unloaded.nodes[0].models[0].unloaded_at_ms, Some(2_000));
        assert!(!is_loaded(&after(&unloaded, &hot, 2, 2_500), "m"));
        assert!(is_loaded(&after(&unloaded, &hot, 2, 9_000), "m"), "somebody else has loaded it");
        let model = name("m");
        let loaded = Loaded { node: 0, model: &model, context_length: Some(4_096), signature: Signature::DEFAULT };
        let again = unloaded.with_loaded(&loaded, 2_200).unwrap();
        assert!(is_loaded(&after(&again, &hot, 2, 2_500), "m"));
        assert!(snapshot.with_change("a", &name("nope"), ModelChange::Unloaded, 0).is_none());
    }

    #[test]
    fn requests_in_flight_keep_their_count_when_their_model_is_deleted() {
        let snapshot = fleet(&[("a", NodeSpec::default().hot("m", 4_096))], 1_000);
        let model = snapshot.nodes[0].models[0].clone();
        let _claim = Claim::take(&snapshot.nodes[0].load, &model.load, 1);
        let deleted = snapshot.with_change("a", &name("m"), ModelChange::Removed, 2_000).unwrap();
        assert_eq!(deleted.nodes[0].left_models.len(), 1);
        let back = deleted.with_change("a", &name("m"), ModelChange::Added { from: None }, 3_000).unwrap();
        assert!(Arc::ptr_eq(&back.nodes[0].model(&name("m")).unwrap().load, &model.load));
    }
}
