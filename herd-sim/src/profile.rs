//! Built-in nodes for the demo: three machines that differ as real ones do.
//!
//! Speeds are chosen so that a hot model answers well within a second and its tokens can be watched; sizes, contexts
//! and the order of the machines are realistic.

use super::config::{Capability, Hardware, HardwareKind, Preload, SimConfig, SimGpu, SimModel};

const GB: f64 = 1e9;
const GIB: u64 = 1 << 30;

impl SimConfig {
    /// Names of the built-in nodes.
    pub const PROFILES: [&str; 3] = ["mac-studio", "rtx", "laptop"];

    /// The built-in node of that name, one of [`Self::PROFILES`].
    #[must_use]
    pub fn profile(name: &str) -> Option<Self> {
        match name {
            "mac-studio" => Some(mac_studio()),
            "rtx" => Some(rtx()),
            "laptop" => Some(laptop()),
            _ => None,
        }
    }
}

/// What the three have in common.
fn base(name: &str, models: &[&str], hot: &[&str]) -> SimConfig {
    let library = library();
    let is_here = |model: &&SimModel| models.contains(&model.name.as_str());
    let preload = |model: &&str| Preload { model: (*model).to_owned(), num_ctx: None };
    SimConfig {
        name: name.to_owned(),
        models: library.iter().filter(is_here).cloned().collect(),
        library,
        preload: hot.iter().map(preload).collect(),
        load_overhead_ms: 400,
        pull_bytes_per_s: 0.4 * GB,
        answer_tokens: 120,
        // People send generous limits and do not want to watch them being used up.
        fill_to_limit: false,
        ..SimConfig::default()
    }
}

fn mac_studio() -> SimConfig {
    let models = ["llama3.3:70b", "qwen3:32b", "gpt-oss:20b", "qwen2.5-coder:14b", "llama3.2:3b", "nomic-embed-text"];
    SimConfig {
        memory_bytes: 144 * GIB,
        disk_bytes: 1000 * GIB,
        num_parallel: 4,
        max_loaded_models: 5,
        context_length: 32_768,
        keep_alive_ms: -1,
        load_bytes_per_s: 5.0 * GB,
        prefill_tokens_per_s: 900.0,
        decode_tokens_per_s: 60.0,
        hardware: Hardware {
            kind: HardwareKind::MacStudio,
            chip: "Apple M2 Ultra".to_owned(),
            cores_physical: 24,
            memory_total_bytes: 192 * GIB,
            gpu: None,
            memory_bandwidth_gbps: 800.0,
        },
        ..base("mac-studio", &models, &["llama3.3:70b", "gpt-oss:20b", "nomic-embed-text"])
    }
}

fn rtx() -> SimConfig {
    let models = ["gpt-oss:20b", "qwen2.5-coder:14b", "gemma3:12b", "llama3.1:8b", "llama3.2:3b", "nomic-embed-text"];
    SimConfig {
        memory_bytes: 23 * GIB,
        disk_bytes: 500 * GIB,
        num_parallel: 2,
        context_length: 8192,
        load_bytes_per_s: 3.5 * GB,
        prefill_tokens_per_s: 4000.0,
        decode_tokens_per_s: 110.0,
        hardware: Hardware {
            kind: HardwareKind::Rtx,
            chip: "AMD Ryzen 9 7950X".to_owned(),
            cores_physical: 16,
            memory_total_bytes: 64 * GIB,
            gpu: Some(SimGpu { name: "NVIDIA GeForce RTX 4090".to_owned(), vram_bytes: 24 * GIB }),
            memory_bandwidth_gbps: 1008.0,
        },
        ..base("rtx", &models, &["qwen2.5-coder:14b", "llama3.2:3b"])
    }
}

fn laptop() -> SimConfig {
    let models = ["qwen3:4b", "gemma3:4b", "llama3.2:3b", "nomic-embed-text"];
    SimConfig {
        memory_bytes: 11 * GIB,
        disk_bytes: 120 * GIB,
        context_length: 4096,
        load_bytes_per_s: 2.0 * GB,
        prefill_tokens_per_s: 500.0,
        decode_tokens_per_s: 42.0,
        hardware: Hardware {
            kind: HardwareKind::Laptop,
            chip: "Apple M3".to_owned(),
            cores_physical: 8,
            memory_total_bytes: 16 * GIB,
            gpu: None,
            memory_bandwidth_gbps: 100.0,
        },
        ..base("laptop", &models, &["llama3.2:3b", "nomic-embed-text"])
    }
}

/// A completion model of the library; context memory as its layers and heads have it.
fn model(name: &str, family: &str, (size_gb, kv_kib): (f64, u64), size: &str, context_length: u32) -> SimModel {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive constant")]
    let size_bytes = (size_gb * GB) as u64;
    SimModel {
        name: name.to_owned(),
        size_bytes,
        family: family.to_owned(),
        parameter_size: size.to_owned(),
        context_length,
        embedding_length: 4096,
        kv_bytes_per_token: Some(kv_kib << 10),
        ..SimModel::default()
    }
}

/// Everything that the simulated registry has.
fn library() -> Vec<SimModel> {
    use Capability::{Thinking, Tools, Vision};
    let embed = SimModel { context_length: 2048, ..SimModel::embedding("nomic-embed-text", 768) };
    let oss = model("gpt-oss:20b", "gptoss", (13.8, 48), "20.9B", 131_072).with(Tools).with(Thinking);
    vec![
        model("llama3.3:70b", "llama", (42.5, 320), "70.6B", 131_072).with(Tools),
        model("qwen3:32b", "qwen3", (20.2, 256), "32.8B", 40_960).with(Tools).with(Thinking),
        SimModel { quantization: "MXFP4".to_owned(), native_template: true, ..oss },
        model("qwen2.5-coder:14b", "qwen2", (9.0, 192), "14.8B", 32_768).with(Tools),
        model("gemma3:12b", "gemma3", (8.1, 96), "12.2B", 131_072).with(Vision),
        model("llama3.1:8b", "llama", (4.9, 128), "8.0B", 131_072).with(Tools),
        model("mistral:7b", "llama", (4.4, 128), "7.2B", 32_768).with(Tools),
        model("gemma3:4b", "gemma3", (3.3, 68), "4.3B", 131_072).with(Vision),
        model("qwen3:4b", "qwen3", (2.5, 144), "4.0B", 40_960).with(Tools).with(Thinking),
        model("llama3.2:3b", "llama", (2.0, 112), "3.2B", 131_072).with(Tools),
        model("llama3.2:1b", "llama", (1.3, 32), "1.2B", 131_072).with(Tools),
        SimModel { family: "nomic-bert".to_owned(), ..embed },
    ]
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc, time::Duration};

    use super::*;
    use crate::{catalog::Catalog, node::Node};

    #[test]
    fn the_profiles_are_valid_and_fit_their_memory() {
        for name in SimConfig::PROFILES {
            let config = SimConfig::profile(name).expect(name);
            assert_eq!(config.check(), Ok(()), "{name}");
            assert_eq!(SimConfig::from_yaml(&serde_yaml::to_string(&config).expect("yaml")), Ok(config.clone()));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let node = runtime.block_on(async { Arc::new(Node::new(config.clone())) });
            let used: u64 = node.engine.with_runners(|runners| runners.iter().map(|runner| runner.memory_bytes).sum());
            assert!(used <= config.memory_bytes, "{name}: {used} bytes hot");
            let on_disk = Catalog::new(&config.models, Duration::ZERO).disk_bytes();
            assert!(on_disk < config.disk_bytes, "{name}: {on_disk} bytes on disk");
        }
        assert_eq!(SimConfig::profile("mainframe"), None);
    }

    #[test]
    fn the_profiles_share_small_models_and_differ_in_what_is_hot() {
        let profiles = SimConfig::PROFILES.map(|name| SimConfig::profile(name).expect(name));
        for shared in ["llama3.2:3b", "nomic-embed-text"] {
            assert!(profiles.iter().all(|profile| profile.models.iter().any(|model| model.name == shared)), "{shared}");
        }
        let hot = |profile: &SimConfig| profile.preload.iter().map(|hot| hot.model.clone()).collect::<BTreeSet<_>>();
        assert_eq!(profiles.iter().map(hot).collect::<BTreeSet<_>>().len(), profiles.len());
    }
}
