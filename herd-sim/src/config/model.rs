//! A model of a simulated node.

use serde::{Deserialize, Serialize};

/// One model of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimModel {
    /// Its name, with or without a tag.
    pub name: String,
    /// Bytes of weights.
    pub size_bytes: u64,
    /// Digest of its manifest; derived from the name when absent.
    pub digest: Option<String>,
    /// Architecture, such as `llama` or `bert`.
    pub family: String,
    /// As shown, such as `3.2B`.
    pub parameter_size: String,
    /// As shown, such as `Q4_K_M`.
    pub quantization: String,
    /// What it can do.
    pub capabilities: Vec<Capability>,
    /// Context it was trained with: the most a runner gets.
    pub context_length: u32,
    /// Length of its embedding vectors.
    pub embedding_length: u32,
    /// `PARAMETER num_ctx` of its Modelfile.
    pub num_ctx: Option<u32>,
    /// Name of the model whose weights it shares: an alias, served by the same runner.
    pub from: Option<String>,
    /// Context memory per token and slot; the node's value when absent.
    pub kv_bytes_per_token: Option<u64>,
    /// Whether the engine itself renders the prompt: one that is too long is then refused, not cut.
    pub native_template: bool,
}

impl Default for SimModel {
    fn default() -> Self {
        Self {
            name: String::new(),
            size_bytes: 1_000_000_000,
            digest: None,
            family: "llama".to_owned(),
            parameter_size: "1B".to_owned(),
            quantization: "Q4_K_M".to_owned(),
            capabilities: vec![Capability::Completion],
            context_length: 8192,
            embedding_length: 64,
            num_ctx: None,
            from: None,
            kv_bytes_per_token: None,
            native_template: false,
        }
    }
}

impl SimModel {
    /// A completion model with that name, everything else at its default.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// An embedding model with that name: a small `bert` with vectors of `dimensions`.
    #[must_use]
    pub fn embedding(name: &str, dimensions: u32) -> Self {
        Self {
            name: name.to_owned(),
            family: "bert".to_owned(),
            size_bytes: 274_302_450,
            parameter_size: "137M".to_owned(),
            quantization: "F16".to_owned(),
            capabilities: vec![Capability::Embedding],
            context_length: 2048,
            embedding_length: dimensions,
            ..Self::default()
        }
    }

    /// The same model with `capability` added.
    #[must_use]
    pub fn with(mut self, capability: Capability) -> Self {
        if !self.can(capability) {
            self.capabilities.push(capability);
        }
        self
    }

    /// Whether the model has `capability`.
    #[must_use]
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}

/// Something a model can do, as Ollama names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Writes text.
    Completion,
    /// Makes vectors.
    Embedding,
    /// Calls tools.
    Tools,
    /// Thinks before it answers.
    Thinking,
    /// Reads images.
    Vision,
}
