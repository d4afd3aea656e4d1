//! Which models could serve in place of another, and which of them are in memory.
//!
//! Whether one should is decided elsewhere; here is what must hold for any that does.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::alias::is_alias;
use crate::fleet::{Capabilities, FleetSnapshot, Model, Node};
use crate::name::ModelName;
use crate::protect::effective_context;
use crate::request::{RequestProfile, Task};
use crate::wire::OllamaState;

/// Most models that are offered in place of one: each is ranked over the whole fleet.
pub const SUBSTITUTES_MAX: usize = 8;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Text of any kind.
    General,
    /// Code.
    Coding,
    /// Reasoning before the answer.
    Reasoning,
    /// Stories and roles.
    Creative,
    /// Images beside text.
    Vision,
    /// Embeddings, and scores made of them.
    Embedding,
}

impl Category {
    /// Its name in JSON, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::Coding => "coding",
            Self::Reasoning => "reasoning",
            Self::Creative => "creative",
            Self::Vision => "vision",
            Self::Embedding => "embedding",
        }
    }
}

/// Parts of names that tell what a model is for; the first that is found counts, so that `vision` goes before `coder`
/// and `encoder` before that.
///
/// Names of families in Ollama's public library and of the usual GGUF conversions. It is asked only where a node
/// does not say what its model can do, and for the difference between text models, which no node tells.
const NAME_PARTS: &[(Category, &[&str])] = &[
    (Category::Embedding, &["embed", "encoder", "minilm", "bge-", "gte-", "e5-", "rerank", "paraphrase"]),
    (Category::Vision, &["llava", "moondream", "minicpm-v", "vision", "-vl", "vl:", "-ocr", "pixtral"]),
    (
        Category::Coding,
        &[
            "coder",
            "codestral",
            "codellama",
            "codegemma",
            "codeqwen",
            "codegeex",
            "codeup",
            "devstral",
            "granite-code",
            "stable-code",
        ],
    ),
    (
        Category::Reasoning,
        &[
            "deepseek-r1",
            "r1-1776",
            "qwq",
            "reasoning",
            "thinking",
            "magistral",
            "openthinker",
            "deepscaler",
            "smallthinker",
            "marco-o1",
            "exaone-deep",
        ],
    ),
    (
        Category::Creative,
        &["creative", "story", "writer", "mythomax", "mythalion", "fimbulvetr", "lumimaid", "rocinante"],
    ),
];

/// What the last part of a name, with its tag, says; a name that says nothing is general.
fn category_by_name(name: &ModelName) -> Category {
    let text = last_part(name);
    let says = |parts: &&[&str]| parts.iter().any(|part| text.contains(part));
    NAME_PARTS.iter().find(|(_, parts)| says(parts)).map_or(Category::General, |(category, _)| *category)
}

fn last_part(name: &ModelName) -> &str {
    name.as_str().rsplit('/').next().unwrap_or_default()
}

/// What a model is for: by what it can do, where its node says so, else by its name.
#[must_use]
pub fn category(name: &ModelName, capabilities: Capabilities) -> Category {
    let by_name = category_by_name(name);
    let has = |what| capabilities.has(what);
    match (has("completion"), has("embedding"), has("vision")) {
        (Some(false), Some(true), _) => Category::Embedding,
        (_, _, Some(true)) => Category::Vision,
        // It can write text and cannot see, whatever its name says.
        (Some(true), ..) if matches!(by_name, Category::Embedding | Category::Vision) => Category::General,
        _ => by_name,
    }
}

/// The category that counts for this request. With images all that see are alike, and without them a model that could
/// also see is what its name says: most recent text models can.
fn role(profile: &RequestProfile, name: &ModelName, capabilities: Capabilities) -> Category {
    match category(name, capabilities) {
        Category::Embedding => Category::Embedding,
        _ if profile.images > 0 => Category::Vision,
        Category::Vision => category_by_name(name),
        other => other,
    }
}

/// Whether `candidate` can do what `profile` needs of `requested`, which is `None` where no node has it.
///
/// Embeddings are never served by another model: their spaces differ. A model that writes text never stands for one
/// that embeds, nor the reverse. What a candidate does not tell it cannot do: images, tools and thinking need a word
/// of its node, plain text does not. Models in somebody's cloud and aliases never stand in.
#[must_use]
pub fn can_stand_in(profile: &RequestProfile, requested: Option<&Model>, candidate: &Model) -> bool {
    let embeds = |model: &Model| category(&model.name, model.capabilities) == Category::Embedding;
    let asked_of = requested.map_or_else(|| category_by_name(&profile.model) == Category::Embedding, embeds);
    if profile.surface.task() != Task::Completion || asked_of || embeds(candidate) {
        return false;
    }
    if candidate.capabilities.has("completion") == Some(false) || is_elsewhere(&candidate.name) {
        return false;
    }
    let needs = [(profile.images > 0, "vision"), (profile.tools, "tools"), (profile.think, "thinking")];
    needs.into_iter().all(|(needed, what)| !needed || candidate.capabilities.has(what) == Some(true))
}

/// A name of which the work is done elsewhere, by Ollama's cloud, or which is herd's own.
fn is_elsewhere(name: &ModelName) -> bool {
    let tag = name.as_str().rsplit(':').next().unwrap_or_default();
    tag == "cloud" || tag.ends_with("-cloud") || is_alias(name)
}

/// Larger models that are in memory with the context that `profile` asks for, the smallest first: none loads, and the
/// client gets at least what it asked for. Empty where it asks for no context or nobody tells the size of `requested`.
///
/// At most [`SUBSTITUTES_MAX`]. Nodes that take no work by their own word are passed over; whether one of the others
/// is reachable now is for the ranking to say.
#[must_use]
pub fn upgrades(snapshot: &FleetSnapshot, profile: &RequestProfile, requested: &ModelName) -> Vec<ModelName> {
    let wanted = Wanted::new(snapshot, profile, requested);
    let (Some(asked), Some(size_bytes)) = (profile.num_ctx, wanted.size_bytes) else { return Vec::new() };
    let asked = wanted.model.map_or(asked, |model| effective_context(asked, model));
    let holds = |context_length: Option<u64>| context_length.is_some_and(|tokens| tokens >= asked);
    let larger = wanted.resident(snapshot, holds).into_iter().filter_map(|(name, found)| {
        let candidate_bytes = found.size_bytes.filter(|bytes| *bytes > size_bytes)?;
        Some((candidate_bytes, name))
    });
    first_of(larger.collect())
}

/// Models in memory that can serve `profile` in place of `requested`, the likest first: of its family, then of the
/// nearest size, then by name. An unknown size is the least near. `requested` need not be on any node.
///
/// At most [`SUBSTITUTES_MAX`], as for [`upgrades`]. A window that is known must hold the prompt.
#[must_use]
pub fn substitutes(snapshot: &FleetSnapshot, profile: &RequestProfile, requested: &ModelName) -> Vec<ModelName> {
    let wanted = Wanted::new(snapshot, profile, requested);
    let holds = |context_length: Option<u64>| context_length.is_none_or(|tokens| tokens >= profile.text_tokens());
    let likeness = wanted.resident(snapshot, holds).into_iter().map(|(name, found)| {
        let apart = wanted.size_bytes.zip(found.size_bytes).map(|(wanted, found)| wanted.abs_diff(found));
        ((Reverse(found.same_family), apart.unwrap_or(u64::MAX)), name)
    });
    first_of(likeness.collect())
}

fn first_of<K: Ord>(mut ranked: Vec<(K, &ModelName)>) -> Vec<ModelName> {
    ranked.sort_unstable();
    ranked.into_iter().take(SUBSTITUTES_MAX).map(|(_, name)| name.clone()).collect()
}

/// What is asked for, as far as the fleet knows it.
struct Wanted<'a> {
    profile: &'a RequestProfile,
    name: &'a ModelName,
    /// On the node that tells most of it.
    model: Option<&'a Model>,
    /// The largest size that a node tells, so that no quantization of it is an upgrade of itself.
    size_bytes: Option<u64>,
    role: Category,
}

/// What is known of a candidate, over all nodes that have it in memory.
struct Found {
    size_bytes: Option<u64>,
    same_family: bool,
}

impl<'a> Wanted<'a> {
    fn new(snapshot: &'a FleetSnapshot, profile: &'a RequestProfile, name: &'a ModelName) -> Self {
        let everywhere = || snapshot.nodes.iter().filter_map(|node| node.model(name));
        let told = |model: &&Model| model.capabilities != Capabilities::default();
        let model = everywhere().find(told).or_else(|| everywhere().next());
        let capabilities = model.map_or_else(Capabilities::default, |model| model.capabilities);
        let size_bytes = everywhere().filter_map(|model| model.size_bytes).max();
        Self { profile, name, model, size_bytes, role: role(profile, name, capabilities) }
    }

    /// The models in memory that could stand in, where their window is one that `holds`.
    fn resident(
        &self,
        snapshot: &'a FleetSnapshot,
        holds: impl Fn(Option<u64>) -> bool,
    ) -> BTreeMap<&'a ModelName, Found> {
        let mut found: BTreeMap<&ModelName, Found> = BTreeMap::new();
        for node in snapshot.nodes.iter().filter(|node| takes_work(node)) {
            for model in &node.models {
                let window = model.resident.as_ref().map(|resident| resident.context_length);
                if !window.is_some_and(&holds) || !self.is_matched_by(model) {
                    continue;
                }
                let same_family = self.is_family_of(model);
                let entry = found.entry(&model.name).or_insert(Found { size_bytes: None, same_family });
                entry.size_bytes = entry.size_bytes.max(model.size_bytes);
            }
        }
        found
    }

    fn is_matched_by(&self, candidate: &Model) -> bool {
        candidate.name != *self.name
            && can_stand_in(self.profile, self.model, candidate)
            && role(self.profile, &candidate.name, candidate.capabilities) == self.role
    }

    fn is_family_of(&self, candidate: &Model) -> bool {
        let told = |model: &'a Model| Some(model.details.family.as_str()).filter(|family| !family.is_empty());
        let same_architecture = self.model.and_then(told).is_some_and(|family| family == candidate.details.family);
        let stem = stem(self.name);
        same_architecture || (!stem.is_empty() && stem == self::stem(&candidate.name))
    }
}

/// The letters that a name starts with: `qwen` of `qwen2.5-coder:7b`.
fn stem(name: &ModelName) -> &str {
    let text = last_part(name);
    let end = text.find(|c: char| !c.is_alphabetic()).unwrap_or(text.len());
    &text[..end]
}

/// Whether the node's own words let it take work. What depends on the time is not asked.
fn takes_work(node: &Node) -> bool {
    !node.draining && !node.cordoned && node.paused.is_none() && node.ollama == OllamaState::Ok
}

#[cfg(test)]
mod tests;
