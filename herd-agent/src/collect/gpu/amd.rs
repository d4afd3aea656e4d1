//! AMD GPUs as the Linux kernel's `amdgpu` driver shows them in sysfs; no library and no root needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use herd_core::wire;

const VENDOR: &str = "0x1002";

/// Every AMD card below `drm` (`/sys/class/drm`), in the order of their numbers.
pub(super) fn read(drm: &Path) -> Vec<wire::Gpu> {
    let mut cards: Vec<(u32, PathBuf)> = fs::read_dir(drm)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((card_number(entry.file_name().to_str()?)?, entry.path().join("device"))))
        .collect();
    cards.sort();
    cards.iter().filter_map(|(_, device)| card(device)).collect()
}

/// `card1` is a card; `card1-DP-1` is one of its outputs.
fn card_number(name: &str) -> Option<u32> {
    name.strip_prefix("card")?.parse().ok()
}

fn card(device: &Path) -> Option<wire::Gpu> {
    if text(&device.join("vendor"))? != VENDOR {
        return None;
    }
    let vram_total: u64 = number(&device.join("mem_info_vram_total"))?;
    let hwmon = first_hwmon(device);
    let sensor = |file: &str| hwmon.as_ref().and_then(|dir| number::<f64>(&dir.join(file)));
    Some(wire::Gpu {
        name: text(&device.join("product_name")).unwrap_or_else(|| "AMD GPU".to_owned()),
        vendor: "amd".to_owned(),
        // An APU's "VRAM" is a carve-out that firmware set aside; it is dedicated as far as a model's weights go.
        unified: false,
        vram_total_bytes: Some(vram_total),
        vram_free_bytes: number::<u64>(&device.join("mem_info_vram_used")).map(|used| vram_total.saturating_sub(used)),
        utilization_pct: number(&device.join("gpu_busy_percent")),
        temperature_c: sensor("temp1_input").map(|millidegrees| millidegrees / 1000.0),
        power_watts: sensor("power1_average").or_else(|| sensor("power1_input")).map(|microwatts| microwatts / 1e6),
    })
}

fn first_hwmon(device: &Path) -> Option<PathBuf> {
    fs::read_dir(device.join("hwmon")).ok()?.flatten().map(|entry| entry.path()).min()
}

fn text(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn number<T: FromStr>(file: &Path) -> Option<T> {
    text(file)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn tree(dir: &TestDir) {
        dir.write("card0/device/vendor", "0x10de\n");
        dir.write("card1-DP-1/device/vendor", "0x1002\n");
        dir.write("card1/device/vendor", "0x1002\n");
        dir.write("card1/device/product_name", "AMD Radeon RX 7900 XTX\n");
        dir.write("card1/device/mem_info_vram_total", "25753026560\n");
        dir.write("card1/device/mem_info_vram_used", "1753026560\n");
        dir.write("card1/device/gpu_busy_percent", "37\n");
        dir.write("card1/device/hwmon/hwmon3/temp1_input", "54000\n");
        dir.write("card1/device/hwmon/hwmon3/power1_average", "120500000\n");
        dir.write("card10/device/vendor", "0x1002\n");
        dir.write("card10/device/mem_info_vram_total", "8573157376\n");
        dir.write("card10/device/gpu_busy_percent", "not a number\n");
        dir.write("card2/device/vendor", "0x1002\n");
    }

    #[test]
    fn cards_are_read_from_sysfs_and_what_is_missing_stays_unknown() {
        let dir = TestDir::new();
        tree(&dir);
        let gpus = read(dir.path());
        assert_eq!(gpus.len(), 2, "another maker's card, an output and a card without memory are left out: {gpus:?}");
        assert_eq!(gpus[0].name, "AMD Radeon RX 7900 XTX");
        assert_eq!(gpus[0].vram_free_bytes, Some(24_000_000_000));
        assert_eq!((gpus[0].utilization_pct, gpus[0].temperature_c), (Some(37.0), Some(54.0)));
        assert_eq!(gpus[0].power_watts, Some(120.5));
        assert_eq!(gpus[1].vram_total_bytes, Some(8_573_157_376));
        assert_eq!((gpus[1].vram_free_bytes, gpus[1].utilization_pct, gpus[1].temperature_c), (None, None, None));
    }

    #[test]
    fn no_sysfs_is_no_gpu() {
        assert!(read(Path::new("/nonexistent")).is_empty());
    }
}
