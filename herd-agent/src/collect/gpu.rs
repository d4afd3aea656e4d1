//! GPUs of the machine. "No GPU" is a value, not an error.

mod amd;
mod apple;
mod nvidia;

use std::collections::BTreeMap;
use std::path::PathBuf;

use herd_core::wire;

/// Keeps what is costly to open: the NVIDIA library.
pub(super) struct Gpus {
    nvidia: nvidia::Nvidia,
    drm: PathBuf,
}

impl Gpus {
    pub(super) fn new() -> Self {
        Self { nvidia: nvidia::Nvidia::default(), drm: PathBuf::from("/sys/class/drm") }
    }

    /// Every GPU found now. `chip` and `memory` describe an Apple Silicon GPU, which is part of the chip.
    pub(super) fn read(&mut self, chip: &str, memory: Option<&wire::MemoryBytes>) -> Vec<wire::Gpu> {
        let mut gpus = self.nvidia.read();
        gpus.extend(amd::read(&self.drm));
        gpus.extend(apple::read(chip, memory));
        gpus
    }
}

/// Those of `gpus` that an Ollama may use whose environment has `variable`: the variables of CUDA and `ROCm` name devices by
/// their numbers, and one that is there and names none hides all. Devices that are named otherwise are all kept, as it
/// cannot be told which they are.
pub(super) fn visible<'a>(gpus: Vec<wire::Gpu>, variable: impl Fn(&str) -> Option<&'a str>) -> Vec<wire::Gpu> {
    const VARIABLES: [(&str, &[&str]); 2] =
        [("nvidia", &["CUDA_VISIBLE_DEVICES"]), ("amd", &["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"])];
    if variable("OLLAMA_LLM_LIBRARY").is_some_and(|library| library.starts_with("cpu")) {
        return Vec::new();
    }
    let of_vendor = |vendor: &str| {
        let (_, names) = VARIABLES.iter().find(|(known, _)| *known == vendor)?;
        names.iter().find_map(|name| variable(name)).and_then(numbers)
    };
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    gpus.into_iter()
        .filter(|gpu| {
            let place = seen.entry(gpu.vendor.clone()).or_default();
            let number = std::mem::replace(place, *place + 1);
            of_vendor(&gpu.vendor).is_none_or(|visible| visible.contains(&number))
        })
        .collect()
}

/// The numbers of devices in `text`, up to the first that is none, as CUDA reads them; `None` = they are not numbers.
fn numbers(text: &str) -> Option<Vec<usize>> {
    let text = text.trim().trim_matches(['"', '\'']);
    let mut visible = Vec::new();
    for (place, word) in text.split(',').map(str::trim).enumerate() {
        match word.parse::<i64>() {
            Ok(number) => match usize::try_from(number) {
                Ok(number) => visible.push(number),
                Err(_) => break,
            },
            Err(_) if word.is_empty() || place > 0 => break,
            Err(_) => return None,
        }
    }
    Some(visible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(env: &[(&str, &str)], expected: &[&str]) {
        let gpu =
            |vendor: &str, name: &str| wire::Gpu { vendor: vendor.into(), name: name.into(), ..Default::default() };
        let all = vec![gpu("nvidia", "n0"), gpu("nvidia", "n1"), gpu("amd", "a0"), gpu("apple", "m")];
        let visible = visible(all, |name| env.iter().find(|(known, _)| *known == name).map(|(_, value)| *value));
        assert_eq!(visible.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>(), expected, "{env:?}");
    }

    #[test]
    fn an_ollama_owns_the_gpus_that_its_process_may_use() {
        check(&[], &["n0", "n1", "a0", "m"]);
        check(&[("CUDA_VISIBLE_DEVICES", "1")], &["n1", "a0", "m"]);
        check(&[("CUDA_VISIBLE_DEVICES", "1, 0")], &["n0", "n1", "a0", "m"]);
        check(&[("CUDA_VISIBLE_DEVICES", "0,-1,1")], &["n0", "a0", "m"]);
        check(&[("CUDA_VISIBLE_DEVICES", "")], &["a0", "m"]);
        check(&[("CUDA_VISIBLE_DEVICES", "-1"), ("ROCR_VISIBLE_DEVICES", "-1")], &["m"]);
        check(&[("HIP_VISIBLE_DEVICES", "\"0\"")], &["n0", "n1", "a0", "m"]);
        check(&[("HIP_VISIBLE_DEVICES", "1")], &["n0", "n1", "m"]);
        check(&[("CUDA_VISIBLE_DEVICES", "GPU-8f3a,GPU-11")], &["n0", "n1", "a0", "m"]);
        check(&[("OLLAMA_LLM_LIBRARY", "cpu_avx2")], &[]);
    }
}
