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
    let carve_out: u64 = number(&device.join("mem_info_vram_total"))?;
    let shared = shared_bytes(device, carve_out);
    let vram_total = carve_out.saturating_add(shared.unwrap_or(0));
    let used = |file| number::<u64>(&device.join(file));
    let vram_used = match shared {
        Some(_) => used("mem_info_vram_used").map(|vram| vram.saturating_add(used("mem_info_gtt_used").unwrap_or(0))),
        None => used("mem_info_vram_used"),
    };
    let hwmon = first_hwmon(device);
    let sensor = |file: &str| hwmon.as_ref().and_then(|dir| number::<f64>(&dir.join(file)));
    Some(wire::Gpu {
        name: text(&device.join("product_name")).unwrap_or_else(|| "AMD GPU".to_owned()),
        vendor: "amd".to_owned(),
        unified: shared.is_some(),
        vram_total_bytes: Some(vram_total),
        vram_free_bytes: vram_used.map(|used| vram_total.saturating_sub(used)),
        utilization_pct: number(&device.join("gpu_busy_percent")),
        temperature_c: sensor("temp1_input").map(|millidegrees| millidegrees / 1000.0),
        power_watts: sensor("power1_average").or_else(|| sensor("power1_input")).map(|microwatts| microwatts / 1e6),
    })
}

/// What an APU uses of the system's memory besides its carve-out, by the rule that Ollama itself goes by; `None` = the card
/// has memory of its own.
///
/// Source: `discover/amd.go`, `readROCmDRMDevice`, commit fb30760996 of 2026-08-21 (0.33).
fn shared_bytes(device: &Path, carve_out: u64) -> Option<u64> {
    const CARVE_OUT_MAX: u64 = 4 << 30;
    const SHARED_MIN: u64 = 8 << 30;
    let is_card = ["mem_info_vram_vendor", "board_info"].iter().any(|file| device.join(file).exists());
    let shared: u64 = number(&device.join("mem_info_gtt_total"))?;
    let integrated = carve_out > 0 && carve_out <= CARVE_OUT_MAX && shared >= SHARED_MIN && shared >= 4 * carve_out;
    (integrated && !is_card).then_some(shared)
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
    fn an_apu_has_the_systems_memory_and_a_small_card_its_own() {
        let unified = |carve_out: u64, shared: u64, others: &[&str]| {
            let dir = TestDir::new();
            dir.write("card1/device/vendor", "0x1002\n");
            dir.write("card1/device/mem_info_vram_total", &carve_out.to_string());
            dir.write("card1/device/mem_info_vram_used", "1000");
            dir.write("card1/device/mem_info_gtt_total", &shared.to_string());
            dir.write("card1/device/mem_info_gtt_used", "24");
            for file in others {
                dir.write(&format!("card1/device/{file}"), "samsung");
            }
            let gpu = read(dir.path()).remove(0);
            (gpu.unified, gpu.vram_total_bytes.unwrap(), gpu.vram_free_bytes.unwrap())
        };
        let (mib, gib) = (1 << 20, 1 << 30);
        let total = 512 * mib + 108 * gib;
        assert_eq!(unified(512 * mib, 108 * gib, &[]), (true, total, total - 1024));
        assert!(unified(4 * gib, 16 * gib, &[]).0 && unified(2 * gib, 8 * gib, &[]).0);
        assert_eq!(unified(4 * gib, 32 * gib, &["mem_info_vram_vendor"]), (false, 4 * gib, 4 * gib - 1000));
        assert!(!unified(96 * gib, 16 * gib, &[]).0, "firmware has set most of the memory aside");
        assert!(!unified(4 * gib, 15 * gib, &[]).0 && !unified(512 * mib, 7 * gib, &["board_info"]).0);
    }

    #[test]
    fn no_sysfs_is_no_gpu() {
        assert!(read(Path::new("/nonexistent")).is_empty());
    }
}
