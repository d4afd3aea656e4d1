//! Names of one blob have one runner: what is in memory and what is counted belongs to all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::node::{Model, Node};
use crate::alias::{is_alias, is_alias_of};
use crate::load::ModelLoad;

/// Makes the models that share a blob share their runner: [`Model::resident`], [`Model::load`], and one of them
/// stands for it. `models` are in the order of their names.
///
/// Ollama finds a runner by its blob, which no heartbeat tells; the digest of the manifest does for copies of a model,
/// and the name for aliases of herd's own making.
pub(super) fn share_runners(models: &mut [Model], known: Option<&Node>) {
    let mut taken: Vec<Arc<ModelLoad>> = Vec::with_capacity(models.len());
    for places in groups(models) {
        let load = shared_load(models, &places, known, &taken);
        // `/api/ps` shows a runner under the name that loaded it, so that this name stands for it.
        let context = |place: &usize| models[*place].resident.as_ref().map(|resident| resident.context_length);
        let first = places.iter().copied().rev().max_by_key(context).unwrap_or_default();
        let resident = models[first].resident.clone();
        for place in places {
            let model = &mut models[place];
            model.load = Arc::clone(&load);
            model.resident.clone_from(&resident);
            model.shares_runner = place != first;
        }
        taken.push(load);
    }
}

/// The places of the models of each blob, in the order of their first names.
fn groups(models: &[Model]) -> Vec<Vec<usize>> {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (place, model) in models.iter().enumerate() {
        let number = *numbers.entry(blob(model, models)).or_insert(groups.len());
        match groups.get_mut(number) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    groups
}

/// What names of one blob have in common. A digest is hex and never a name with a tag.
fn blob<'a>(model: &'a Model, models: &'a [Model]) -> &'a str {
    let original = models.iter().find(|other| is_alias(&model.name) && is_alias_of(&model.name, &other.name));
    let model = original.unwrap_or(model);
    if model.details.digest.is_empty() { model.name.as_str() } else { &model.details.digest }
}

/// The count that the names at `places` go on with, which must outlive the coming and going of names: the one with
/// requests in flight, else that of the first name known before.
///
/// Names that part, because one was given another blob, part their counts too: the first keeps it. Requests of the
/// other that still run return their slots to where they took them.
fn shared_load(models: &[Model], places: &[usize], known: Option<&Node>, taken: &[Arc<ModelLoad>]) -> Arc<ModelLoad> {
    let was_known = |model: &Model| known.is_some_and(|known| known.model(&model.name).is_some());
    let is_taken = |model: &Model| taken.iter().any(|load| Arc::ptr_eq(load, &model.load));
    let free = places.iter().map(|place| &models[*place]).filter(|model| !is_taken(model));
    // The last of equals wins, so that the first name is asked last.
    let best = free.rev().max_by_key(|model| (model.load.in_flight(), was_known(model)));
    best.map(|model| Arc::clone(&model.load)).unwrap_or_default()
}
