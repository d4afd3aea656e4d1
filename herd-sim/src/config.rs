//! What a simulated node is: its models, its memory, its speeds and its limits.
//!
//! Every key has a default, so that a test states only what it is about. Rates of zero (or infinity) mean "at once":
//! a node with such rates answers as fast as it can write, which is what tests and load generators want.

mod hardware;
mod model;

use std::{net::SocketAddr, time::Duration};

use herd_core::name::ModelName;
use serde::{Deserialize, Serialize};

pub use hardware::{Hardware, HardwareKind, SimGpu};
pub use model::{Capability, SimModel};

/// One simulated node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimConfig {
    /// Name of the node; only shown, never on the Ollama surfaces.
    pub name: String,
    /// Where the Ollama surfaces listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// A second listener with `/_sim/*` alone, still reachable while the first one refuses.
    pub control_listen: Option<SocketAddr>,
    /// What `/api/version` answers.
    pub version: String,
    /// Models on disk at the start.
    pub models: Vec<SimModel>,
    /// What `/api/pull` can fetch; a name outside it (and outside [`Self::models`]) does not exist.
    pub library: Vec<SimModel>,
    /// Models in memory at the start.
    pub preload: Vec<Preload>,
    /// Memory for runners (weights and context): of the GPU, or unified.
    pub memory_bytes: u64,
    /// Room for models on disk.
    pub disk_bytes: u64,
    /// `OLLAMA_NUM_PARALLEL`: requests that one runner serves at once.
    pub num_parallel: u32,
    /// `OLLAMA_MAX_LOADED_MODELS`; 0 means 3, as with one GPU.
    pub max_loaded_models: u32,
    /// `OLLAMA_MAX_QUEUE`: requests that may wait for a load.
    pub max_queue: usize,
    /// `OLLAMA_CONTEXT_LENGTH`: context of a request that names none.
    pub context_length: u32,
    /// `OLLAMA_KEEP_ALIVE` in milliseconds; negative means for ever.
    pub keep_alive_ms: i64,
    /// Speed of a load, on top of [`Self::load_overhead_ms`].
    pub load_bytes_per_s: f64,
    /// Fixed cost of a load.
    pub load_overhead_ms: u64,
    /// Speed of reading a prompt, per request.
    pub prefill_tokens_per_s: f64,
    /// Speed of writing an answer, per request; a busy runner is not slower.
    pub decode_tokens_per_s: f64,
    /// Speed of a pull.
    pub pull_bytes_per_s: f64,
    /// Context memory per token and slot, unless the model says otherwise.
    pub kv_bytes_per_token: u64,
    /// Tokens of an answer to a request that sets no limit.
    pub answer_tokens: u32,
    /// Whether an answer is as long as the request's limit (`num_predict`, `max_tokens`) says. Otherwise, and always
    /// on `/v1/messages` where the limit is mandatory, the limit only cuts.
    pub fill_to_limit: bool,
    /// The machine it pretends to be.
    pub hardware: Hardware,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            name: "sim".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            control_listen: None,
            version: "0.33.0".to_owned(),
            models: Vec::new(),
            library: Vec::new(),
            preload: Vec::new(),
            memory_bytes: 64 << 30,
            disk_bytes: 1 << 40,
            num_parallel: 1,
            max_loaded_models: 0,
            max_queue: 512,
            context_length: 4096,
            keep_alive_ms: 300_000,
            load_bytes_per_s: 0.0,
            load_overhead_ms: 0,
            prefill_tokens_per_s: 0.0,
            decode_tokens_per_s: 0.0,
            pull_bytes_per_s: 0.0,
            kv_bytes_per_token: 1024,
            answer_tokens: 32,
            fill_to_limit: true,
            hardware: Hardware::default(),
        }
    }
}

/// A model in memory at the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preload {
    /// Name of a model of the node.
    pub model: String,
    /// Context to load it with; the default one when absent.
    #[serde(default)]
    pub num_ctx: Option<u32>,
}

/// Why a configuration is refused; the text names the key and the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct SimConfigError {
    /// Dotted key.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl SimConfig {
    /// Reads YAML (and so JSON) and checks it.
    ///
    /// # Errors
    /// When it does not parse, has an unknown key, or [`Self::check`] refuses it.
    pub fn from_yaml(text: &str) -> Result<Self, SimConfigError> {
        let config: Self = serde_yaml::from_str(text).map_err(|error| refuse("config", error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what types cannot: names, references between models, limits above zero.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), SimConfigError> {
        if self.num_parallel == 0 {
            return Err(refuse("num_parallel", "must be at least 1".to_owned()));
        }
        let mut names = Vec::with_capacity(self.models.len());
        for (index, model) in self.models.iter().enumerate() {
            let name = checked_name(&format!("models[{index}].name"), &model.name)?;
            if names.contains(&name) {
                return Err(refuse(&format!("models[{index}].name"), format!("{name} is there twice")));
            }
            names.push(name);
        }
        for (index, model) in self.library.iter().enumerate() {
            checked_name(&format!("library[{index}].name"), &model.name)?;
        }
        let known = |field: String, text: &str| {
            let is_there = names.contains(&checked_name(&field, text)?);
            is_there.then_some(()).ok_or_else(|| refuse(&field, format!("{text:?} is not among the models")))
        };
        for (index, model) in self.models.iter().enumerate() {
            model.from.as_ref().map_or(Ok(()), |from| known(format!("models[{index}].from"), from))?;
        }
        self.preload.iter().enumerate().try_for_each(|(i, hot)| known(format!("preload[{i}].model"), &hot.model))
    }

    /// How many runners may be loaded at once.
    #[must_use]
    pub fn loaded_limit(&self) -> usize {
        // Three per GPU is Ollama's own default; a node here has one.
        if self.max_loaded_models == 0 { 3 } else { self.max_loaded_models as usize }
    }

    /// How long a load of `bytes` takes.
    #[must_use]
    pub fn load_time(&self, bytes: u64) -> Duration {
        Duration::from_millis(self.load_overhead_ms) + time_for(bytes as f64, self.load_bytes_per_s)
    }
}

/// Time that `amount` takes at `rate` per second; nothing when the rate is zero, infinite or nonsense.
#[must_use]
pub(crate) fn time_for(amount: f64, rate: f64) -> Duration {
    if rate > 0.0 && rate.is_finite() {
        // A day bounds what an absurd configuration can ask for, and keeps the conversion from overflowing.
        Duration::from_secs_f64((amount / rate).clamp(0.0, 86_400.0))
    } else {
        Duration::ZERO
    }
}

fn checked_name(field: &str, text: &str) -> Result<ModelName, SimConfigError> {
    ModelName::new(text).map_err(|error| refuse(field, format!("{text:?} {error}")))
}

fn refuse(field: &str, reason: String) -> SimConfigError {
    SimConfigError { field: field.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(SimConfig::from_yaml("{}"), Ok(SimConfig::default()));
    }

    #[test]
    fn a_config_survives_yaml_and_json() {
        let config = SimConfig { models: vec![SimModel::named("a")], ..SimConfig::default() };
        let yaml = serde_yaml::to_string(&config).expect("serialises");
        let json = serde_json::to_string(&config).expect("serialises");
        assert_eq!(SimConfig::from_yaml(&yaml), Ok(config.clone()));
        assert_eq!(SimConfig::from_yaml(&json), Ok(config));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        #[track_caller]
        fn check(yaml: &str, field: &str) {
            assert_eq!(SimConfig::from_yaml(yaml).expect_err("is refused").field, field, "{yaml}");
        }
        check("bogus: 1", "config");
        check("num_parallel: 0", "num_parallel");
        check("models: [{name: a}, {name: 'A:latest'}]", "models[1].name");
        check("models: [{name: ''}]", "models[0].name");
        check("library: [{name: ''}]", "library[0].name");
        check("models: [{name: a, from: b}]", "models[0].from");
        check("{models: [{name: a}], preload: [{model: b}]}", "preload[0].model");
    }

    #[test]
    fn no_rate_means_at_once() {
        assert_eq!(time_for(1000.0, 0.0), Duration::ZERO);
        assert_eq!(time_for(1000.0, f64::INFINITY), Duration::ZERO);
        assert_eq!(time_for(1000.0, 500.0), Duration::from_secs(2));
    }
}
