//! Which models are pinned.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use herd_core::fleet::{FleetSnapshot, Model, Node};
use herd_core::name::{ModelName, NodeId};
use herd_store::StoreHandle;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::node_facts::model_named;

/// Where the store keeps them.
const KEY: &str = "fleet.pins";
/// Most pins of a fleet.
pub(super) const PINS_MAX: usize = 1_000;
/// Percent of a node's memory that pinned models may have together.
pub(super) const SHARE_PERCENT: u64 = 80;

/// A model that stays in a node's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pin {
    /// Its normalised name.
    pub(crate) model: String,
    /// The node.
    pub(crate) node_id: String,
    /// Since when, Unix milliseconds.
    pub(crate) since_unix_ms: u64,
    /// Who pinned it.
    pub(crate) by: String,
}

impl Pin {
    /// It keeps the same model on the same node.
    fn is_for(&self, other: &Self) -> bool {
        self.model == other.model && self.node_id == other.node_id
    }
}

/// How the keeper fares with a pin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) failures: u32,
    /// By the edge's clock.
    pub(super) again_at_ms: u64,
    pub(super) reason: String,
}

#[derive(Debug, Default)]
struct Book {
    pins: Vec<Pin>,
    troubles: Vec<((String, String), Trouble)>,
    /// Those that were taken back, until their nodes know it.
    leaving: Vec<Pin>,
    /// What the store has of them was read, or there is no store.
    restored: bool,
}

/// The pins.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    book: Mutex<Book>,
    changed: Notify,
}

impl Pins {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads those from before the restart, once the store answers.
    pub(super) async fn restore(&self, store: Option<&StoreHandle>) {
        if self.book().restored {
            return;
        }
        let kept = match store {
            Some(store) => store.setting::<Vec<Pin>>(KEY).await,
            None => Ok(None),
        };
        let Ok(kept) = kept else { return };
        let mut book = self.book();
        book.restored = true;
        for pin in kept.into_iter().flatten() {
            if !book.pins.iter().any(|known| known.model == pin.model && known.node_id == pin.node_id) {
                book.pins.push(pin);
            }
        }
    }

    /// Keeps them over a restart; returns whether that worked.
    pub(super) async fn save(&self, store: Option<&StoreHandle>) -> bool {
        let Some(store) = store else { return false };
        let (restored, pins) = {
            let book = self.book();
            (book.restored, book.pins.clone())
        };
        restored && store.set_setting(KEY, &pins).await.is_ok()
    }

    pub(crate) fn all(&self) -> Vec<Pin> {
        self.book().pins.clone()
    }

    pub(crate) fn is_pinned(&self, node_id: &str, model: &str) -> bool {
        self.book().pins.iter().any(|pin| pin.node_id == node_id && pin.model == model)
    }

    /// Those on nodes that are there.
    pub(crate) fn on_nodes(&self, snapshot: &FleetSnapshot) -> Vec<(NodeId, ModelName)> {
        let pins = self.all().into_iter();
        pins.filter_map(|pin| Some((snapshot.node(&pin.node_id)?.id.clone(), ModelName::new(&pin.model).ok()?)))
            .collect()
    }

    /// Takes a pin, or takes the place of the same one; false = there are too many.
    pub(super) fn add(&self, pin: Pin) -> bool {
        let mut book = self.book();
        book.troubles.retain(|((node, model), _)| !(*node == pin.node_id && *model == pin.model));
        book.leaving.retain(|known| !known.is_for(&pin));
        if book.pins.iter().any(|known| known.model == pin.model && known.node_id == pin.node_id) {
            return true;
        }
        let has_room = book.pins.len() < PINS_MAX;
        if has_room {
            book.pins.push(pin);
        }
        has_room
    }

    /// Takes back the pins of `model`, on `node_id` only if that is given; returns the nodes.
    pub(super) fn remove(&self, model: &str, node_id: Option<&str>) -> Vec<String> {
        let is_it = |pin: &Pin| pin.model == model && node_id.is_none_or(|id| id == pin.node_id);
        let mut book = self.book();
        let (gone, rest): (Vec<_>, _) = std::mem::take(&mut book.pins).into_iter().partition(is_it);
        book.pins = rest;
        let nodes = gone.iter().map(|pin| pin.node_id.clone()).collect();
        book.leaving.extend(gone);
        let beyond = book.leaving.len().saturating_sub(PINS_MAX);
        book.leaving.drain(..beyond);
        book.troubles.retain(|((node, known), _)| !(known == model && node_id.is_none_or(|id| id == node)));
        nodes
    }

    /// Those that were taken back and whose nodes may not know it yet.
    pub(super) fn leaving(&self) -> Vec<Pin> {
        self.book().leaving.clone()
    }

    /// The node of `pin` knows that it was taken back.
    pub(super) fn left(&self, pin: &Pin) {
        self.book().leaving.retain(|known| !known.is_for(pin));
    }

    /// Marks what is pinned of `snapshot`, so that requests cannot have it unloaded, and lets the keeper look.
    pub(super) fn changed(&self, snapshot: &FleetSnapshot) {
        self.mark(snapshot);
        self.changed.notify_one();
    }

    /// Waits until a pin was made or taken back.
    pub(super) async fn change(&self) {
        self.changed.notified().await;
    }

    /// Marks the runners of `snapshot` that are pinned by any of their names, and no others.
    pub(super) fn mark(&self, snapshot: &FleetSnapshot) {
        let book = self.book();
        for node in &snapshot.nodes {
            let here = || book.pins.iter().filter(|pin| pin.node_id == node.id.as_str());
            let pinned: Vec<_> = here().filter_map(|pin| Some(&model_named(node, &pin.model)?.load)).collect();
            for model in &node.models {
                model.load.set_pinned(pinned.iter().any(|load| Arc::ptr_eq(load, &model.load)));
            }
        }
    }

    pub(super) fn trouble(&self, pin: &Pin) -> Option<Trouble> {
        let book = self.book();
        let mut troubles = book.troubles.iter();
        troubles
            .find(|((node, model), _)| *node == pin.node_id && *model == pin.model)
            .map(|(_, trouble)| trouble.clone())
    }

    /// Notes how the keeper fared; `None` = well.
    pub(super) fn set_trouble(&self, pin: &Pin, trouble: Option<Trouble>) {
        let mut book = self.book();
        book.troubles.retain(|((node, model), _)| !(*node == pin.node_id && *model == pin.model));
        if let Some(trouble) = trouble {
            book.troubles.push(((pin.node_id.clone(), pin.model.clone()), trouble));
        }
    }
}

/// Memory that `model` takes, or will at the least; `None` = unknown.
pub(super) fn size_of(model: &Model) -> Option<u64> {
    model.resident.as_ref().and_then(|resident| resident.size_bytes).or(model.size_bytes)
}

/// Why `model` should not be pinned on `node` besides `pins`; `None` = it may.
pub(super) fn objection(node: &Node, model: &Model, pins: &[Pin]) -> Option<String> {
    let Some(total) = node.device.total_bytes else { return Some("the node's memory is not known".into()) };
    let Some(size) = size_of(model) else { return Some("the model's size is not known".into()) };
    let here = pins.iter().filter(|pin| pin.node_id == node.id.as_str() && pin.model != model.name.as_str());
    let known = here.filter_map(|pin| model_named(node, &pin.model));
    let all = known.filter_map(size_of).fold(size, u64::saturating_add);
    let most = total / 100 * SHARE_PERCENT;
    (all > most)
        .then(|| format!("pinned models would take {all} bytes of the {most} that they may have together there"))
}
