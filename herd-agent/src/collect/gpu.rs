//! GPUs of the machine. "No GPU" is a value, not an error.

mod amd;
mod apple;
mod nvidia;

use std::cmp::Ordering;
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
    pub(super) fn read(&mut self, chip: &str, memory: Option<&wire::MemoryBytes>) -> Vec<Card> {
        let mut cards = self.nvidia.read();
        cards.extend(amd::read(&self.drm).into_iter().map(Card::from));
        cards.extend(apple::read(chip, memory).into_iter().map(Card::from));
        cards
    }
}

/// A GPU, and what Ollama's variables tell it by.
#[derive(Debug, Clone, Default)]
pub(super) struct Card {
    pub(super) gpu: wire::Gpu,
    /// Its name for programs, `GPU-` and digits; empty = unknown.
    uuid: String,
    /// Cores times clock, by which CUDA numbers its devices; `None` = unknown.
    speed: Option<u64>,
}

impl From<wire::Gpu> for Card {
    fn from(gpu: wire::Gpu) -> Self {
        Self { gpu, ..Self::default() }
    }
}

/// A device in one of the variables.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Number(usize),
    /// The beginning of its UUID.
    Uuid(String),
}

/// Those of `cards` that an Ollama may use whose environment has `variable`: the variables of CUDA and `ROCm` name devices by
/// their numbers or UUIDs, and one that is there and names none hides all. Devices that are named otherwise are all kept,
/// as it cannot be told which they are.
pub(super) fn visible<'a>(cards: Vec<Card>, variable: impl Fn(&str) -> Option<&'a str>) -> Vec<wire::Gpu> {
    const VARIABLES: [(&str, &[&str]); 2] =
        [("nvidia", &["CUDA_VISIBLE_DEVICES"]), ("amd", &["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"])];
    if variable("OLLAMA_LLM_LIBRARY").is_some_and(|library| library.starts_with("cpu")) {
        return Vec::new();
    }
    let of_vendor = |vendor: &str| {
        let (_, names) = VARIABLES.iter().find(|(known, _)| *known == vendor)?;
        names.iter().find_map(|name| variable(name)).and_then(named)
    };
    let by_bus = variable("CUDA_DEVICE_ORDER").is_some_and(|order| unquoted(order) == "PCI_BUS_ID");
    let is_visible = |place: usize| {
        let card = &cards[place];
        let Some(visible) = of_vendor(&card.gpu.vendor) else { return true };
        let number = number(&cards, place, by_bus);
        visible.iter().any(|named| match named {
            Named::Number(visible) => *visible == number,
            Named::Uuid(start) => card.uuid.is_empty() || card.uuid.starts_with(start),
        })
    };
    let visible: Vec<bool> = (0..cards.len()).map(is_visible).collect();
    cards.into_iter().zip(visible).filter(|(_, visible)| *visible).map(|(card, _)| card.gpu).collect()
}

/// The number of the card at `place` among those of its vendor. CUDA counts the fastest first unless it is told to go `by_bus`,
/// the order in which cards are read.
fn number(cards: &[Card], place: usize, by_bus: bool) -> usize {
    let own = &cards[place];
    let others = || cards.iter().enumerate().filter(|(_, card)| card.gpu.vendor == own.gpu.vendor);
    let by_speed = !by_bus && others().all(|(_, card)| card.speed.is_some());
    let before = |other: usize, card: &Card| {
        let faster = if by_speed { card.speed.cmp(&own.speed) } else { Ordering::Equal };
        faster.then(place.cmp(&other)).is_gt()
    };
    others().filter(|(other, card)| before(*other, card)).count()
}

/// The devices in `text`, up to the first that is none, as CUDA reads them; `None` = they are named otherwise.
fn named(text: &str) -> Option<Vec<Named>> {
    let mut visible = Vec::new();
    for (place, word) in unquoted(text).split(',').map(str::trim).enumerate() {
        match word.parse::<i64>() {
            Ok(number) => match usize::try_from(number) {
                Ok(number) => visible.push(Named::Number(number)),
                Err(_) => break,
            },
            Err(_) if word.starts_with("GPU-") => visible.push(Named::Uuid(word.to_owned())),
            Err(_) if word.is_empty() || place > 0 => break,
            Err(_) => return None,
        }
    }
    Some(visible)
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(env: &[(&str, &str)], expected: &[&str]) {
        let all = vec![card("nvidia", "n0"), card("nvidia", "n1"), card("amd", "a0"), card("apple", "m")];
        check_of(all, env, expected);
    }

    #[track_caller]
    fn check_of(all: Vec<Card>, env: &[(&str, &str)], expected: &[&str]) {
        let visible = visible(all, |name| env.iter().find(|(known, _)| *known == name).map(|(_, value)| *value));
        assert_eq!(visible.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>(), expected, "{env:?}");
    }

    fn card(vendor: &str, name: &str) -> Card {
        wire::Gpu { vendor: vendor.into(), name: name.into(), ..Default::default() }.into()
    }

    #[test]
    fn cuda_numbers_the_fastest_first_and_nvml_goes_by_the_bus() {
        let known = |name: &str, speed| Card { speed, uuid: format!("GPU-{name}{name}"), ..card("nvidia", name) };
        let all = || vec![known("slow", Some(10)), known("fast", Some(30)), known("even", Some(10))];
        let by_bus = ("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
        check_of(all(), &[("CUDA_VISIBLE_DEVICES", "0")], &["fast"]);
        check_of(all(), &[("CUDA_VISIBLE_DEVICES", "0,2")], &["fast", "even"]);
        check_of(all(), &[("CUDA_VISIBLE_DEVICES", "0"), by_bus], &["slow"]);
        check_of(all(), &[("CUDA_VISIBLE_DEVICES", "1"), ("CUDA_DEVICE_ORDER", "FASTEST_FIRST")], &["slow"]);
        check_of(all(), &[("CUDA_VISIBLE_DEVICES", "GPU-even, GPU-fastf")], &["fast", "even"]);
        check_of(all(), &[("CUDA_VISIBLE_DEVICES", "GPU-none")], &[]);
        check_of(all(), &[("CUDA_VISIBLE_DEVICES", "MIG-1")], &["slow", "fast", "even"]);
        let unknown = || vec![known("slow", Some(10)), known("odd", None), known("fast", Some(30))];
        check_of(unknown(), &[("CUDA_VISIBLE_DEVICES", "0")], &["slow"]);
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
