//! What the edge itself sees of loads, ahead of the next heartbeat.

use std::sync::Arc;

use super::changed::loaded_again;
use super::{FleetSnapshot, Node, Resident};
use crate::launch::Signature;
use crate::name::ModelName;
use crate::protect::effective_context;

/// A load that a request has caused, as the first byte of its answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded<'a> {
    /// Number of the node.
    pub node: u32,
    /// The model.
    pub model: &'a ModelName,
    /// The context that the node was asked for; `None` = its default, which is not known.
    pub context_length: Option<u64>,
    /// The launch options of the request.
    pub signature: Signature,
}

impl FleetSnapshot {
    /// The picture after a load: the model is in memory with that context, until a heartbeat says otherwise.
    ///
    /// Without this, requests that waited for the load would be decided as if it had not happened, for as long as it
    /// takes the node to report it. `None` = the node or the model is gone.
    #[must_use]
    pub fn with_loaded(&self, loaded: &Loaded<'_>, now_ms: u64) -> Option<Self> {
        let known = self.by_number(loaded.node)?;
        let mut node: Node = known.as_ref().clone();
        let key = loaded.model.key();
        let model = node.models.iter().find(|model| model.key == key)?;
        let load = Arc::clone(&model.load);
        let context_length = loaded.context_length.map(|tokens| effective_context(tokens, model));
        if model.resident.is_none() {
            // What was free at the last heartbeat has been taken since.
            let taken = model.size_bytes.unwrap_or(0);
            node.device.free_bytes = node.device.free_bytes.map(|free| free.saturating_sub(taken));
        }
        let launched = Signature::after(load.launched().unwrap_or_default(), loaded.signature);
        load.set_launched(Some(launched));
        load.forget_conversations();
        let sharing = node.models.iter().filter(|model| Arc::ptr_eq(&model.load, &load));
        let names: Vec<ModelName> = sharing.map(|model| model.name.clone()).collect();
        loaded_again(&mut node.recent, &names);
        // All names of one runner are loaded with it.
        for model in node.models.iter_mut().filter(|model| Arc::ptr_eq(&model.load, &load)) {
            let before = model.resident.take().unwrap_or_default();
            model.resident = Some(Resident {
                size_bytes: before.size_bytes.or(model.size_bytes),
                context_length,
                busy_by_others: 0,
                seen_at_ms: Some(now_ms),
                unconfirmed: true,
                ..before
            });
            model.unloaded_at_ms = None;
        }
        Some(self.with(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Applied, HeartbeatLimits, LifeLimits};
    use crate::testing::{NodeSpec, fleet, sender};

    #[test]
    fn a_load_is_known_before_the_heartbeat_and_survives_one_that_was_made_before_it() {
        let spec = NodeSpec::default().cold("m");
        let snapshot = fleet(&[("a", spec.clone())], 1_000);
        let name = ModelName::new("m").unwrap();
        let loaded = Loaded { node: 0, model: &name, context_length: Some(8_192), signature: Signature::DEFAULT };
        let snapshot = snapshot.with_loaded(&loaded, 1_000).unwrap();
        let after = |snapshot: &FleetSnapshot, spec: &NodeSpec, seq, now_ms| {
            let (life, limits) = (LifeLimits::default(), HeartbeatLimits::default());
            let Ok(Applied::Changed(next)) = snapshot.apply(spec.heartbeat("a", seq), sender(), now_ms, &life, &limits)
            else {
                panic!("refused")
            };
            next
        };
        let context = |snapshot: &FleetSnapshot| {
            let model = &snapshot.nodes[0].models[0];
            (model.resident.as_ref().and_then(|r| r.context_length), model.load.launched())
        };
        let early = after(&snapshot, &spec, 2, 2_000);
        assert_eq!(context(&early), (Some(8_192), Some(Signature::DEFAULT)));
        let confirmed = after(&early, &NodeSpec::default().hot("m", 8_192), 3, 3_000);
        assert_eq!(context(&confirmed), (Some(8_192), Some(Signature::DEFAULT)));
        assert!(!confirmed.nodes[0].models[0].resident.as_ref().unwrap().unconfirmed);
        assert_eq!(context(&after(&early, &spec, 3, 5_000)), (None, None), "or it was not so");
        assert!(snapshot.with_loaded(&Loaded { node: 9, ..loaded }, 0).is_none());
    }
}
