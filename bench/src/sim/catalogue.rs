//! What machines and models are like.
//!
//! Speeds are those of llama.cpp with models at four bits, rounded, as its users publish them (discussions 4167 for
//! Apple silicon and 15013 for CUDA in its repository); how they scale to other models follows from what they are bound
//! by: writing reads all weights once per token, reading a prompt is arithmetic on all parameters.

/// A model that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ModelSpec {
    /// Its name with tag.
    pub(crate) name: &'static str,
    /// Weights.
    pub(crate) bytes: u64,
    /// Parameters in billions.
    pub(crate) params_b: f64,
    /// Key and value cache of one token at 16 bits.
    pub(crate) kv_bytes_per_token: u64,
    /// Context that it was trained with.
    pub(crate) train_context: u64,
}

const fn model(name: &'static str, bytes: u64, params_b: f64, kv_kib: u64, train_context: u64) -> ModelSpec {
    ModelSpec { name, bytes, params_b, kv_bytes_per_token: kv_kib * 1024, train_context }
}

/// Models by name, of the sizes that Ollama's library has.
pub(crate) const MODELS: [ModelSpec; 12] = [
    model("llama3.2:3b", 2_000_000_000, 3.2, 112, 131_072),
    model("qwen3:4b", 2_600_000_000, 4.0, 144, 40_960),
    model("mistral:7b", 4_400_000_000, 7.2, 128, 32_768),
    model("llama3.1:8b", 4_900_000_000, 8.0, 128, 131_072),
    model("gemma3:12b", 8_100_000_000, 12.2, 128, 131_072),
    model("phi4:14b", 9_100_000_000, 14.7, 200, 16_384),
    model("qwen3:14b", 9_300_000_000, 14.8, 160, 40_960),
    model("deepseek-r1:14b", 9_000_000_000, 14.8, 192, 131_072),
    model("devstral:24b", 14_300_000_000, 23.6, 160, 131_072),
    model("qwen2.5-coder:32b", 19_900_000_000, 32.8, 256, 131_072),
    model("gemma3:27b", 17_400_000_000, 27.0, 248, 131_072),
    model("llama3.3:70b", 42_500_000_000, 70.6, 320, 131_072),
];

/// The index of a model in [`MODELS`].
pub(crate) fn model_index(name: &str) -> usize {
    MODELS.iter().position(|model| model.name == name).expect("workloads name models of the catalogue")
}

/// A kind of machine, with its Ollama's settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Hardware {
    /// Its name in tables.
    pub(crate) name: &'static str,
    /// Memory for models: of the GPU, or what macOS lets its GPU use.
    pub(crate) memory_bytes: u64,
    /// The host's memory.
    pub(crate) system_bytes: u64,
    /// It has a GPU with memory of its own.
    pub(crate) discrete: bool,
    /// Bandwidth of that memory, GB/s.
    pub(crate) bandwidth_gbps: f64,
    /// Share of the bandwidth that decoding reaches.
    pub(crate) efficiency: f64,
    /// Time per token that does not depend on the model, milliseconds.
    pub(crate) token_overhead_ms: f64,
    /// Prompt tokens per second of a model of 8 billion parameters.
    pub(crate) prefill_tps_8b: f64,
    /// What each further sequence of a batch adds to a decoding step, as a share of it.
    pub(crate) batch_cost: f64,
    /// Reading weights from disk, bytes per second.
    pub(crate) disk_bps: f64,
    /// Reading them from the page cache.
    pub(crate) cached_bps: f64,
    /// `OLLAMA_NUM_PARALLEL`.
    pub(crate) slots: u32,
    /// `OLLAMA_CONTEXT_LENGTH`.
    pub(crate) context: u64,
    /// `OLLAMA_MAX_LOADED_MODELS`.
    pub(crate) max_loaded: u32,
}

/// A `MacBook` Pro with an M3 Pro and 36 GB; Ollama as installed, so that it serves one request at a time.
pub(crate) const LAPTOP: Hardware = Hardware {
    name: "laptop",
    memory_bytes: 27_000_000_000,
    system_bytes: 36_000_000_000,
    discrete: false,
    bandwidth_gbps: 150.0,
    efficiency: 0.75,
    token_overhead_ms: 1.5,
    prefill_tps_8b: 320.0,
    batch_cost: 0.25,
    disk_bps: 3.0e9,
    cached_bps: 8.0e9,
    slots: 1,
    context: 8_192,
    max_loaded: 3,
};

/// A Mac Studio with an M2 Ultra and 192 GB.
pub(crate) const STUDIO: Hardware = Hardware {
    name: "mac-studio",
    memory_bytes: 144_000_000_000,
    system_bytes: 192_000_000_000,
    discrete: false,
    bandwidth_gbps: 800.0,
    efficiency: 0.6,
    token_overhead_ms: 1.5,
    prefill_tps_8b: 1_050.0,
    batch_cost: 0.18,
    disk_bps: 5.0e9,
    cached_bps: 15.0e9,
    slots: 4,
    context: 16_384,
    max_loaded: 3,
};

/// A PC with an RTX 4090 and 64 GB.
pub(crate) const RTX: Hardware = Hardware {
    name: "rtx",
    memory_bytes: 24_000_000_000,
    system_bytes: 64_000_000_000,
    discrete: true,
    bandwidth_gbps: 1_008.0,
    efficiency: 0.65,
    token_overhead_ms: 0.8,
    prefill_tps_8b: 6_500.0,
    batch_cost: 0.08,
    disk_bps: 2.5e9,
    cached_bps: 12.0e9,
    slots: 4,
    context: 8_192,
    max_loaded: 3,
};

/// A server with one H100 of 80 GB.
pub(crate) const H100: Hardware = Hardware {
    name: "h100",
    memory_bytes: 80_000_000_000,
    system_bytes: 512_000_000_000,
    discrete: true,
    bandwidth_gbps: 3_350.0,
    efficiency: 0.5,
    token_overhead_ms: 1.2,
    prefill_tps_8b: 13_000.0,
    batch_cost: 0.05,
    disk_bps: 3.0e9,
    cached_bps: 20.0e9,
    slots: 8,
    context: 8_192,
    max_loaded: 3,
};

/// The same server set up for long contexts, of which eight would not fit.
pub(crate) const H100_LONG: Hardware = Hardware { slots: 4, ..H100 };

/// Starting a runner, whatever its size.
pub(crate) const LOAD_OVERHEAD_MS: f64 = 900.0;

impl Hardware {
    /// One token of one sequence that runs alone, milliseconds.
    pub(crate) fn token_ms(&self, model: &ModelSpec) -> f64 {
        model.bytes as f64 / (self.bandwidth_gbps * 1e6 * self.efficiency) + self.token_overhead_ms
    }

    /// One decoding step of `batch` sequences, milliseconds.
    pub(crate) fn step_ms(&self, model: &ModelSpec, batch: usize) -> f64 {
        self.token_ms(model) * (1.0 + self.batch_cost * (batch as f64 - 1.0))
    }

    /// Prompt tokens per millisecond.
    pub(crate) fn prefill_per_ms(&self, model: &ModelSpec) -> f64 {
        self.prefill_tps_8b / 1e3 * 8.0 / model.params_b
    }

    /// Loading `model`, milliseconds.
    pub(crate) fn load_ms(&self, model: &ModelSpec, cached: bool) -> f64 {
        let rate = if cached { self.cached_bps } else { self.disk_bps };
        LOAD_OVERHEAD_MS + model.bytes as f64 / rate * 1e3
    }

    /// Memory of a runner of `model` with `context` tokens in each of its slots.
    pub(crate) fn runner_bytes(&self, model: &ModelSpec, context: u64) -> u64 {
        model.bytes + model.kv_bytes_per_token * context * u64::from(self.slots)
    }

    /// The context that a runner of `model` has when `asked` is asked for.
    pub(crate) fn effective_context(&self, model: &ModelSpec, asked: Option<u64>) -> u64 {
        asked.unwrap_or(self.context).max(4).min(model.train_context)
    }

    /// How much faster than one after the other requests are worked off here at most.
    pub(crate) fn batch_gain(&self) -> f64 {
        let slots = f64::from(self.slots);
        slots / (1.0 + self.batch_cost * (slots - 1.0))
    }
}
