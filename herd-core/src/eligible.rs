//! Whether a node could serve a request at all, and if not, why.

use std::fmt;

use crate::fleet::{LifeLimits, Model, Node, NodeState};
use crate::request::{RequestProfile, Task};
use crate::wire::{OllamaState, Pressure};

/// Why a node cannot serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ineligible {
    /// It was tried for this request.
    AlreadyTried,
    /// No heartbeat for too long, or its Ollama is down.
    Offline,
    /// Its Ollama does not answer.
    OllamaHung,
    /// It takes no new requests.
    Draining,
    /// Its owner paused it.
    Paused,
    /// It failed lately and rests for so many milliseconds.
    Ejected(u64),
    /// It failed lately, and one request tries whether it has recovered.
    OnTrial,
    /// It does not answer the edge's health probe.
    ProbeFailed,
    /// Another node is the same Ollama, and requests go there.
    SameOllama,
    /// The edge has never reached its Ollama, though its agent is heard.
    Unreached,
    /// The edge has not seen an Ollama at its address yet.
    Unverified,
    /// What answers at its address is no Ollama.
    NotOllama,
    /// It does not have the model.
    ModelAbsent,
    /// The model lacks what the request needs: `vision`, `tools`, `embedding`, `completion`.
    MissingCapability(&'static str),
    /// The prompt is longer than the model's largest window of so many tokens.
    ContextTooSmall(u64),
    /// The model needs so many bytes and so many are the most that it can have.
    DoesNotFit {
        /// Bytes of its weights.
        needed_bytes: u64,
        /// Memory of the node.
        capacity_bytes: u64,
    },
    /// Memory is critically short and the model is not in it.
    MemoryPressure,
}

words! {
    /// The kinds of [`Ineligible`], without what it says beside.
    pub enum IneligibleKind {
        /// [`Ineligible::AlreadyTried`]
        AlreadyTried = "already_tried",
        /// [`Ineligible::Offline`]
        Offline = "offline",
        /// [`Ineligible::OllamaHung`]
        OllamaHung = "ollama_hung",
        /// [`Ineligible::Draining`]
        Draining = "draining",
        /// [`Ineligible::Paused`]
        Paused = "paused",
        /// [`Ineligible::Ejected`]
        Ejected = "ejected",
        /// [`Ineligible::OnTrial`]
        OnTrial = "on_trial",
        /// [`Ineligible::ProbeFailed`]
        ProbeFailed = "probe_failed",
        /// [`Ineligible::SameOllama`]
        SameOllama = "same_ollama",
        /// [`Ineligible::Unreached`]
        Unreached = "unreached",
        /// [`Ineligible::Unverified`]
        Unverified = "unverified",
        /// [`Ineligible::NotOllama`]
        NotOllama = "not_ollama",
        /// [`Ineligible::ModelAbsent`]
        ModelAbsent = "model_absent",
        /// [`Ineligible::MissingCapability`]
        MissingCapability = "missing_capability",
        /// [`Ineligible::ContextTooSmall`]
        ContextTooSmall = "context_too_small",
        /// [`Ineligible::DoesNotFit`]
        DoesNotFit = "does_not_fit",
        /// [`Ineligible::MemoryPressure`]
        MemoryPressure = "memory_pressure",
    }
}

impl Ineligible {
    /// Its kind.
    #[must_use]
    pub const fn kind(self) -> IneligibleKind {
        match self {
            Self::AlreadyTried => IneligibleKind::AlreadyTried,
            Self::Offline => IneligibleKind::Offline,
            Self::OllamaHung => IneligibleKind::OllamaHung,
            Self::Draining => IneligibleKind::Draining,
            Self::Paused => IneligibleKind::Paused,
            Self::Ejected(_) => IneligibleKind::Ejected,
            Self::OnTrial => IneligibleKind::OnTrial,
            Self::ProbeFailed => IneligibleKind::ProbeFailed,
            Self::SameOllama => IneligibleKind::SameOllama,
            Self::Unreached => IneligibleKind::Unreached,
            Self::Unverified => IneligibleKind::Unverified,
            Self::NotOllama => IneligibleKind::NotOllama,
            Self::ModelAbsent => IneligibleKind::ModelAbsent,
            Self::MissingCapability(_) => IneligibleKind::MissingCapability,
            Self::ContextTooSmall(_) => IneligibleKind::ContextTooSmall,
            Self::DoesNotFit { .. } => IneligibleKind::DoesNotFit,
            Self::MemoryPressure => IneligibleKind::MemoryPressure,
        }
    }

    /// Its name in JSON, metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.kind().name()
    }

    /// Whether a node with this reason is still better than none: it is ranked last instead of ruled out.
    ///
    /// Probes and ejection are suspicions, and in a fleet of one they must not turn a slow answer into none. What the
    /// model lacks, it lacks on every node, and its backend says so in its own words. So does Ollama when a model is too
    /// large: it counts swap, and reads weights from the disk as they are needed where the system allows that.
    #[must_use]
    pub fn yields_to_any(self) -> bool {
        matches!(
            self,
            Self::ProbeFailed
                | Self::Ejected(_)
                | Self::OnTrial
                | Self::MissingCapability(_)
                | Self::ContextTooSmall(_)
                | Self::DoesNotFit { .. }
        )
    }

    /// Whether waiting may help: the node could serve this request at another time.
    #[must_use]
    pub fn passes(self) -> bool {
        !matches!(
            self,
            Self::ModelAbsent
                | Self::MissingCapability(_)
                | Self::ContextTooSmall(_)
                | Self::DoesNotFit { .. }
                | Self::SameOllama
                | Self::Unreached
                | Self::NotOllama
        )
    }
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyTried => f.write_str("already tried"),
            Self::Offline => f.write_str("offline"),
            Self::OllamaHung => f.write_str("its Ollama does not answer"),
            Self::Draining => f.write_str("draining"),
            Self::Paused => f.write_str("paused by its owner"),
            Self::Ejected(ms) => write!(f, "ejected after failures for another {ms} ms"),
            Self::OnTrial => f.write_str("a request tries whether it has recovered"),
            Self::ProbeFailed => f.write_str("does not answer its health probe"),
            Self::SameOllama => f.write_str("is the same Ollama as another node"),
            Self::Unreached => f.write_str("the edge cannot reach its Ollama: start it with OLLAMA_HOST=0.0.0.0"),
            Self::Unverified => f.write_str("the edge has not seen its Ollama yet"),
            Self::NotOllama => f.write_str("what answers at its address is not an Ollama"),
            Self::ModelAbsent => f.write_str("does not have the model"),
            Self::MissingCapability(what) => write!(f, "the model there has no {what} capability"),
            Self::ContextTooSmall(max) => write!(f, "the prompt exceeds the model's context of {max} tokens"),
            Self::DoesNotFit { needed_bytes, capacity_bytes } => {
                write!(f, "the model needs {needed_bytes} bytes, the node has {capacity_bytes}")
            }
            Self::MemoryPressure => f.write_str("memory is critically short"),
        }
    }
}

/// A prompt's estimate can be about twice what the tokenizer makes of it, so only beyond that is it surely too long.
const ESTIMATE_SLACK: u64 = 2;

/// Whether `node` itself can take requests now, whatever they are.
///
/// # Errors
/// With the reason why not.
pub fn node_eligible(node: &Node, now_ms: u64, life: &LifeLimits) -> Result<(), Ineligible> {
    if node.load.never_reached() {
        return Err(Ineligible::Unreached);
    }
    if !node.load.is_verified() {
        return Err(if node.load.is_foreign() { Ineligible::NotOllama } else { Ineligible::Unverified });
    }
    match node.state(now_ms, life) {
        NodeState::Offline => return Err(Ineligible::Offline),
        NodeState::Draining => return Err(Ineligible::Draining),
        NodeState::Online | NodeState::Degraded | NodeState::Stale => {}
    }
    if node.ollama == OllamaState::Hung {
        return Err(Ineligible::OllamaHung);
    }
    if node.paused.is_some() {
        return Err(Ineligible::Paused);
    }
    if node.same_ollama_as.is_some() {
        return Err(Ineligible::SameOllama);
    }
    if node.load.probe_failed() {
        return Err(Ineligible::ProbeFailed);
    }
    match node.load.ejected_for_ms(now_ms) {
        0 if node.load.on_trial() => Err(Ineligible::OnTrial),
        0 => Ok(()),
        ms => Err(Ineligible::Ejected(ms)),
    }
}

/// Whether `model` on `node` can serve `profile`.
///
/// # Errors
/// With the reason why not.
pub fn model_eligible(profile: &RequestProfile, node: &Node, model: &Model) -> Result<(), Ineligible> {
    // What rules it out goes before what only ranks it last.
    let loads = model.resident.is_none() && !model.remote;
    if loads && node.pressure == Pressure::Critical {
        return Err(Ineligible::MemoryPressure);
    }
    if loads {
        fits(node, model)?;
    }
    if let Some(missing) = missing_capability(profile, model) {
        return Err(Ineligible::MissingCapability(missing));
    }
    if let Some(max) = model.context_length_max
        && profile.surface.task() == Task::Completion
        && profile.text_tokens() > max.saturating_mul(ESTIMATE_SLACK)
    {
        return Err(Ineligible::ContextTooSmall(max));
    }
    Ok(())
}

fn missing_capability(profile: &RequestProfile, model: &Model) -> Option<&'static str> {
    let task = match profile.surface.task() {
        Task::Completion => "completion",
        Task::Embedding => "embedding",
        Task::Transcription => "audio",
        Task::Image => "image",
    };
    let needed = [(true, task), (profile.images > 0, "vision"), (profile.tools, "tools"), (profile.think, "thinking")];
    needed.into_iter().find(|(needs, name)| *needs && model.capabilities.has(name) == Some(false)).map(|(_, name)| name)
}

/// Against the whole memory: idle models are evicted by Ollama itself. Layers that a discrete GPU cannot hold go to
/// system memory, slowly, so both count. What is not known does not rule a node out.
fn fits(node: &Node, model: &Model) -> Result<(), Ineligible> {
    let system = if node.device.discrete { node.device.system_bytes.unwrap_or(0) } else { 0 };
    match (model.size_bytes, node.device.total_bytes.map(|device| device.saturating_add(system))) {
        (Some(needed_bytes), Some(capacity_bytes)) if needed_bytes > capacity_bytes => {
            Err(Ineligible::DoesNotFit { needed_bytes, capacity_bytes })
        }
        _ => Ok(()),
    }
}
