//! Facts of one node that stand in either of a heartbeat's two forms: our agent's report, or the Python project's.

use herd_core::decide::Policy;
use herd_core::eligible::node_eligible;
use herd_core::fleet::{Model, Node, NodeState, Resident};
use herd_core::name::ModelName;
use herd_core::wire::{LoadedModel, LoadedSummary};

/// Version of the node's Ollama; empty = not reported.
pub(crate) fn ollama_version(node: &Node) -> &str {
    let ours = node.heartbeat.herd.as_ref().map(|report| report.ollama.version.as_str());
    let theirs = node.heartbeat.ollama.as_ref().map(|ollama| ollama.version.as_str());
    ours.filter(|version| !version.is_empty()).or(theirs).unwrap_or_default()
}

/// The model's name as its node writes it, which may have capitals that the normalised name has not.
pub(crate) fn shown_name(model: &Model) -> &str {
    let told = model.details.name.as_str();
    let has_tag = told.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if has_tag { told } else { model.name.as_str() }
}

/// A model in memory, one runner of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Runner<'a> {
    /// Manifest digest; empty = not reported. It differs from that on disk when the model was pulled anew since.
    pub(crate) digest: &'a str,
    /// All that it holds; `None` = not reported.
    pub(crate) size_bytes: Option<u64>,
    /// The part in GPU memory; `None` = not reported.
    pub(crate) size_vram_bytes: Option<u64>,
    /// Context per slot; `None` = not reported.
    pub(crate) context_length: Option<u64>,
    /// When it would be unloaded; empty = not reported.
    pub(crate) expires_at: &'a str,
    /// `3.2B`, where only the runner tells.
    pub(crate) parameter_size: &'a str,
    /// `Q4_K_M`, where only the runner tells.
    pub(crate) quantization: &'a str,
}

/// The runners of `model` on `node`: mostly one; two after its tag moved while it was loaded; none when not in memory.
pub(crate) fn runners<'a>(node: &'a Node, model: &'a Model) -> Vec<Runner<'a>> {
    let Some(resident) = &model.resident else { return Vec::new() };
    let is_it = |name: &str| ModelName::new(name).is_ok_and(|name| name == model.name);
    let ours = node.heartbeat.herd.iter().flat_map(|report| &report.ollama.loaded);
    let mut found: Vec<_> = ours.filter(|loaded| is_it(&loaded.name)).map(from_ours).collect();
    if node.heartbeat.herd.is_none() {
        let theirs = node.heartbeat.ollama.iter().flat_map(|ollama| &ollama.models_loaded);
        found.extend(theirs.filter(|loaded| is_it(&loaded.name)).map(|loaded| from_theirs(loaded, resident)));
    }
    if found.is_empty() {
        // Its Ollama did not answer the agent this time: what was known last.
        found.push(from_resident(resident));
    }
    found
}

fn from_ours(loaded: &LoadedModel) -> Runner<'_> {
    let told = |value: u64| Some(value).filter(|value| *value > 0);
    Runner {
        digest: &loaded.digest,
        size_bytes: told(loaded.size_bytes),
        size_vram_bytes: told(loaded.size_bytes).map(|_| loaded.size_vram_bytes),
        context_length: told(loaded.context_length),
        expires_at: &loaded.expires_at,
        parameter_size: "",
        quantization: "",
    }
}

fn from_theirs<'a>(loaded: &'a LoadedSummary, resident: &'a Resident) -> Runner<'a> {
    Runner {
        digest: &loaded.digest,
        parameter_size: &loaded.parameter_size,
        quantization: &loaded.quantization,
        ..from_resident(resident)
    }
}

fn from_resident(resident: &Resident) -> Runner<'_> {
    Runner {
        digest: "",
        size_bytes: resident.size_bytes,
        size_vram_bytes: resident.size_vram_bytes,
        context_length: resident.context_length,
        expires_at: &resident.expires_at,
        parameter_size: "",
        quantization: "",
    }
}

/// Requests that the models in memory can run at once.
pub(crate) fn slots(node: &Node) -> u32 {
    node.runners().map(|(model, _)| model.slots(&node.env)).fold(0, u32::saturating_add)
}

/// Requests for `model` that wait at `node` for a slot, as far as is known: ours and those of others, beyond its slots.
pub(crate) fn queue_depth(node: &Node, model: &Model) -> u32 {
    let others = model.resident.as_ref().map_or(0, |resident| resident.busy_by_others);
    model.load.in_flight().saturating_add(others).saturating_sub(model.slots(&node.env))
}

/// Why a node is not quite well: a short name for programs and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Why {
    /// Stable.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: String,
}

/// Why `node` takes no requests, or takes them only if no other is eligible; `None` = all is well.
pub(crate) fn why(node: &Node, policy: &Policy, now_ms: u64) -> Option<Why> {
    if let Err(reason) = node_eligible(node, now_ms, &policy.life) {
        let mut message = reason.to_string();
        if let Some(paused) = node.paused.as_ref().filter(|_| reason.name() == "paused") {
            message = format!("{message}: {paused}");
        }
        return Some(Why { code: reason.name(), message });
    }
    let state = node.state(now_ms, &policy.life);
    let silent_ms = now_ms.saturating_sub(node.heartbeat_at_ms);
    let message = format!("no heartbeat for {}.{} s", silent_ms / 1000, silent_ms % 1000 / 100);
    (state != NodeState::Online).then(|| Why { code: state.name(), message })
}

/// The model that the store or a pin calls `name`, if `node` has it.
pub(crate) fn model_named<'a>(node: &'a Node, name: &str) -> Option<&'a Model> {
    node.model(&ModelName::new(name).ok()?)
}

/// Whether `node` takes new requests.
pub(crate) fn takes_requests(node: &Node, policy: &Policy, now_ms: u64) -> bool {
    node_eligible(node, now_ms, &policy.life).is_ok()
}
