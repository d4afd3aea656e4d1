//! Apple Silicon: the GPU is part of the chip and shares system memory.

use herd_core::wire;

/// The GPU of an Apple chip, from the chip's name. Load and temperature need root on macOS, so they stay unknown.
pub(super) fn read(chip: &str, memory: Option<&wire::MemoryBytes>) -> Option<wire::Gpu> {
    // Only Apple's own chips: an Intel Mac's brand string begins with "Intel".
    chip.starts_with("Apple M").then(|| wire::Gpu {
        name: chip.to_owned(),
        vendor: "apple".to_owned(),
        unified: true,
        vram_total_bytes: memory.map(|memory| memory.total_bytes),
        vram_free_bytes: memory.map(|memory| memory.available_bytes),
        ..wire::Gpu::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_apple_chip_is_a_gpu_with_the_systems_memory() {
        let memory = wire::MemoryBytes { total_bytes: 64, available_bytes: 40, ..wire::MemoryBytes::default() };
        let gpu = read("Apple M4 Max", Some(&memory)).unwrap();
        assert_eq!((gpu.vram_total_bytes, gpu.vram_free_bytes, gpu.unified), (Some(64), Some(40), true));
        assert_eq!(read("Intel(R) Core(TM) i9", Some(&memory)), None);
        assert_eq!(read("Apple M1", None).unwrap().vram_total_bytes, None);
    }
}
