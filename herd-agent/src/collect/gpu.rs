//! GPUs of the machine. "No GPU" is a value, not an error.

mod amd;
mod apple;
mod nvidia;

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
