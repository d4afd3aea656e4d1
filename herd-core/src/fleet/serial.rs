//! Models that Ollama runs one request at a time, whatever `OLLAMA_NUM_PARALLEL` says.

use crate::wire::AvailableModel;

/// Families that Ollama's scheduler starts with one slot, by the exact word of `details.family`.
///
/// Source: `server/sched.go`, `func (s *Scheduler) load`, commit fb30760996 of 2026-08-21 (0.33). Older versions have
/// shorter lists: mllama alone before 0.12.7, qwen3vl since then, qwen3next and lfm2 since 0.15.5, qwen35 and `nemotron_h`
/// since 0.17.1, `nemotron_h_omni` since 0.22. There one slot is too few, until answers prove more; one too many hides a
/// queue.
pub const SERIAL_FAMILIES: [&str; 11] = [
    "mllama",
    "qwen3vl",
    "qwen3vlmoe",
    "qwen35",
    "qwen35moe",
    "qwen3next",
    "lfm2",
    "lfm2moe",
    "nemotron_h",
    "nemotron_h_moe",
    "nemotron_h_omni",
];

/// Format of the weights that Ollama gives to its MLX runner, which works on one request at a time.
const MLX_FORMAT: &str = "safetensors";

/// Why Ollama starts a model with one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serial {
    /// Every version does: the MLX runner has no others, and a model that cannot complete is given no others.
    Always,
    /// Its family is one of [`SERIAL_FAMILIES`].
    Family,
}

/// Why Ollama starts a model with one slot; `None` = it does not.
pub(super) fn serial(details: &AvailableModel, completes: Option<bool>) -> Option<Serial> {
    let embeds_only = completes == Some(false);
    if embeds_only || details.format.eq_ignore_ascii_case(MLX_FORMAT) {
        return Some(Serial::Always);
    }
    SERIAL_FAMILIES.contains(&details.family.as_str()).then_some(Serial::Family)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Capabilities;
    use crate::testing::{NodeSpec, node};
    use crate::wire::OllamaEnv;

    #[track_caller]
    fn slots(family: &str, format: &str, capabilities: &[&str], running: Option<u32>, expected: u32) {
        let capabilities: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
        let mut model = node("n", &NodeSpec::default().hot("m", 4_096)).models[0].clone();
        model.capabilities = Capabilities::from_names(&capabilities);
        model.resident.as_mut().unwrap().slots = running;
        model.details = std::sync::Arc::new(AvailableModel {
            family: family.into(),
            format: format.into(),
            capabilities,
            ..AvailableModel::default()
        });
        let env = OllamaEnv { num_parallel: Some(4), ..OllamaEnv::default() };
        assert_eq!(model.slots(&env), expected, "{family} {format}");
    }

    #[test]
    fn num_parallel_counts_where_ollama_goes_by_it() {
        slots("llama", "gguf", &["completion", "tools"], None, 4);
        slots("qwen3", "gguf", &[], None, 4);
        slots("", "", &[], None, 4);
        for family in SERIAL_FAMILIES {
            slots(family, "gguf", &["completion"], None, 1);
        }
        slots("qwen3vl2", "gguf", &["completion"], None, 4);
        slots("llama", "safetensors", &["completion"], None, 1);
        slots("bert", "gguf", &["embedding"], None, 1);
        slots("qwen3", "gguf", &["completion", "embedding"], None, 4);
    }

    #[test]
    fn more_slots_are_possible_where_some_version_has_them() {
        let possible = |family: &str, format: &str, told: [Option<u32>; 2]| {
            let mut model = node("n", &NodeSpec::default().hot("m", 4_096)).models[0].clone();
            model.resident.as_mut().unwrap().slots = told[0];
            let details = AvailableModel { family: family.into(), format: format.into(), ..AvailableModel::default() };
            model.details = std::sync::Arc::new(details);
            model.slot_range(&OllamaEnv { num_parallel: told[1], ..OllamaEnv::default() }).possible
        };
        assert_eq!(possible("llama", "gguf", [None, None]), crate::load::SLOTS_TRIED_MAX);
        assert_eq!(possible("llama", "gguf", [None, Some(2)]), 2);
        assert_eq!(possible("llama", "gguf", [Some(1), None]), 1);
        assert_eq!(possible("qwen3vl", "gguf", [None, Some(4)]), 4);
        assert_eq!(possible("qwen3vl", "gguf", [None, None]), 1);
        assert_eq!(possible("llama", "safetensors", [None, Some(4)]), 1);
    }

    #[test]
    fn what_the_runner_itself_tells_wins() {
        slots("qwen3vl", "gguf", &["completion", "vision"], Some(4), 4);
        slots("bert", "gguf", &["embedding"], Some(2), 2);
        slots("llama", "gguf", &["completion"], Some(1), 1);
    }
}
