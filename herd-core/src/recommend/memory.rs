//! How much memory a model takes once it is loaded: its weights, and a KV cache for every token of every slot.

use crate::fleet::{Model, Node, Resident};
use crate::name::ModelName;

use super::Catalogue;

/// Bytes of one number in the cache, which Ollama keeps at 16 bits unless told otherwise (`OLLAMA_KV_CACHE_TYPE`).
const CACHE_NUMBER_BYTES: u64 = 2;
const GIB: u64 = 1 << 30;

/// The shape of a cache that grows with every token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Layers with attention.
    pub layers: u64,
    /// Heads of keys, and as many of values, in each.
    pub kv_heads: u64,
    /// Numbers in each head.
    pub head_dim: u64,
}

impl KvShape {
    /// Bytes that one token takes at 16 bits: keys and values.
    #[must_use]
    pub fn bytes_per_token(self) -> u64 {
        let numbers = self.layers.saturating_mul(self.kv_heads).saturating_mul(self.head_dim);
        numbers.saturating_mul(2 * CACHE_NUMBER_BYTES)
    }
}

/// What a loaded model consists of; `None` = unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Its weights.
    pub weights_bytes: Option<u64>,
    /// What one token takes in its cache.
    pub kv_bytes_per_token: Option<u64>,
    /// Tokens of one slot.
    pub context_length: Option<u64>,
    /// Slots that the cache is made for.
    pub parallel: u32,
}

/// Memory that a model takes: `weights + kv_bytes_per_token × context × parallel`. Unknown if any part is: a guess
/// that is too low takes machines down. Buffers for computing, some hundred megabytes, are not in it.
#[must_use]
pub fn resident_bytes(footprint: &Footprint) -> Option<u64> {
    let cache = cache_bytes(footprint.kv_bytes_per_token?, footprint.context_length?, footprint.parallel);
    Some(footprint.weights_bytes?.saturating_add(cache))
}

/// The cache alone.
#[must_use]
pub fn cache_bytes(kv_bytes_per_token: u64, context_length: u64, parallel: u32) -> u64 {
    kv_bytes_per_token.saturating_mul(context_length).saturating_mul(u64::from(parallel.max(1)))
}

/// What a token takes in the cache of `model`, as the catalogue knows its shape; less where it is loaded and takes less,
/// as a cache of fewer bits does. A loaded model of unknown shape gives a measure too: all that it takes beyond its
/// weights. `None` = neither is known.
///
/// The smaller of both, so that what a smaller window would save is never overstated.
#[must_use]
pub fn kv_bytes_per_token(node: &Node, model: &Model, catalogue: &Catalogue) -> Option<u64> {
    let measured = model.resident.as_ref().and_then(|resident| measured(node, model, resident));
    match (known_kv(&model.name, catalogue), measured) {
        (Some(known), Some(measured)) => Some(known.min(measured)),
        (known, measured) => known.or(measured),
    }
}

/// What the catalogue knows of the cache of `name`.
#[must_use]
pub fn known_kv(name: &ModelName, catalogue: &Catalogue) -> Option<u64> {
    catalogue.shape(name)?.kv.map(KvShape::bytes_per_token)
}

fn measured(node: &Node, model: &Model, resident: &Resident) -> Option<u64> {
    let beyond = resident.size_bytes?.checked_sub(model.size_bytes?)?;
    let tokens = resident.context_length?.saturating_mul(u64::from(model.slots(&node.env)));
    beyond.checked_div(tokens).filter(|bytes| *bytes > 0)
}

/// The context that the node's Ollama gives a model when nobody asks for one: its own setting, else by the memory of its
/// device as Ollama's tiers are, at most what the model was trained for. `None` = the memory is unknown.
#[must_use]
pub fn default_context(node: &Node, trained: Option<u64>) -> Option<u64> {
    let tier = |bytes: u64| match bytes {
        bytes if bytes < 23 * GIB => 4_096,
        bytes if bytes < 47 * GIB => 32_768,
        _ => 262_144,
    };
    let told = node.env.context_length.filter(|tokens| *tokens > 0);
    let tokens = told.or_else(|| node.device.total_bytes.map(tier))?;
    Some(tokens.min(trained.unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NodeSpec, node};

    const KNOWN: Footprint = Footprint {
        weights_bytes: Some(5_000_000_000),
        kv_bytes_per_token: Some(131_072),
        context_length: Some(8_192),
        parallel: 2,
    };

    #[test]
    fn a_loaded_model_is_its_weights_and_its_cache() {
        assert_eq!(resident_bytes(&KNOWN), Some(5_000_000_000 + 131_072 * 8_192 * 2));
        assert_eq!(resident_bytes(&Footprint { parallel: 0, ..KNOWN }), Some(5_000_000_000 + 131_072 * 8_192));
    }

    #[test]
    fn the_unknown_stays_unknown_and_the_huge_does_not_wrap() {
        assert_eq!(resident_bytes(&Footprint { weights_bytes: None, ..KNOWN }), None);
        assert_eq!(resident_bytes(&Footprint { kv_bytes_per_token: None, ..KNOWN }), None);
        assert_eq!(resident_bytes(&Footprint { context_length: None, ..KNOWN }), None);
        let huge = Footprint { context_length: Some(u64::MAX), parallel: u32::MAX, ..KNOWN };
        assert_eq!(resident_bytes(&huge), Some(u64::MAX));
        let shape = KvShape { layers: u64::MAX, kv_heads: 2, head_dim: 2 };
        assert_eq!(shape.bytes_per_token(), u64::MAX);
    }

    #[test]
    fn the_cost_of_a_token_is_known_or_measured_and_never_overstated() {
        let catalogue = Catalogue::built_in();
        let cost = |model: &str, beyond: u64| {
            let mut node = node("a", &NodeSpec::default().hot(model, 1_000));
            let model = &mut node.models[0];
            let size = model.size_bytes.unwrap();
            model.resident.as_mut().unwrap().size_bytes = Some(size + beyond);
            let model = model.clone();
            kv_bytes_per_token(&node, &model, &catalogue)
        };
        assert_eq!(cost("llama3.1:8b", 131_072_000 * 2), Some(131_072), "known");
        assert_eq!(cost("llama3.1:8b", 65_536_000), Some(65_536), "a cache of eight bits");
        assert_eq!(cost("nobody-knows", 50_000_000), Some(50_000), "measured");
        assert_eq!(cost("nobody-knows", 0), None);
    }

    #[test]
    fn the_default_context_follows_the_node() {
        let of = |gib: u64, told: Option<u64>, trained: Option<u64>| {
            let spec = NodeSpec { memory_bytes: gib << 30, default_context: told, ..NodeSpec::default() };
            default_context(&node("a", &spec), trained)
        };
        assert_eq!(of(16, None, None), Some(4_096));
        assert_eq!(of(32, None, None), Some(32_768));
        assert_eq!(of(128, None, Some(131_072)), Some(131_072));
        assert_eq!(of(128, Some(16_384), None), Some(16_384));
    }
}
