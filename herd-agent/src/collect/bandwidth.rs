//! Memory bandwidth by device name: what bounds the speed of decoding.

use herd_core::wire;

/// Device names as sets of words, and their memory bandwidth in GB/s. The first line whose words are all there counts,
/// so a longer name stands above the shorter one that it contains.
///
/// Source: the makers' data sheets (apple.com/specs, nvidia.com, amd.com), largest memory variant of each name. Names
/// that stand for parts of different bandwidth (Apple M3 Max: 300 or 400, RTX 4060 Ti, A100: 1555 to 2039) carry the
/// value that most of them have. A device that is not here is unknown, which is neutral, so the table needs not be full.
const TABLE: &[(&str, f64)] = &[
    // Apple: the whole of system memory, shared with the CPU.
    ("apple m1 ultra", 800.0),
    ("apple m1 max", 400.0),
    ("apple m1 pro", 200.0),
    ("apple m1", 68.0),
    ("apple m2 ultra", 800.0),
    ("apple m2 max", 400.0),
    ("apple m2 pro", 200.0),
    ("apple m2", 100.0),
    ("apple m3 ultra", 819.0),
    ("apple m3 max", 400.0),
    ("apple m3 pro", 150.0),
    ("apple m3", 100.0),
    ("apple m4 max", 546.0),
    ("apple m4 pro", 273.0),
    ("apple m4", 120.0),
    ("apple m5", 153.0),
    // NVIDIA, data centre.
    ("b200", 8000.0),
    ("gh200", 4000.0),
    ("h200", 4800.0),
    ("h100 pcie", 2039.0),
    ("h100 nvl", 3938.0),
    ("h100", 3350.0),
    ("a100", 2039.0),
    ("a40", 696.0),
    ("a30", 933.0),
    ("a10g", 600.0),
    ("a10", 600.0),
    ("l40s", 864.0),
    ("l40", 864.0),
    ("l4", 300.0),
    ("v100", 900.0),
    ("p100", 732.0),
    ("p40", 347.0),
    ("t4", 320.0),
    // NVIDIA, workstation.
    ("rtx pro 6000", 1792.0),
    ("rtx 6000 ada", 960.0),
    ("rtx 5000 ada", 576.0),
    ("rtx 4500 ada", 432.0),
    ("rtx 4000 ada", 360.0),
    ("rtx a6000", 768.0),
    ("rtx a5000", 768.0),
    ("rtx a4000", 448.0),
    ("rtx a2000", 288.0),
    ("rtx a1000", 192.0),
    ("gb10", 273.0),
    // NVIDIA, GeForce. A laptop part shares the name and not the memory.
    ("rtx 5090 laptop", 896.0),
    ("rtx 5090", 1792.0),
    ("rtx 5080 laptop", 896.0),
    ("rtx 5080", 960.0),
    ("rtx 5070 laptop", 384.0),
    ("rtx 5070 ti", 896.0),
    ("rtx 5070", 672.0),
    ("rtx 5060 laptop", 384.0),
    ("rtx 5060", 448.0),
    ("rtx 4090 laptop", 576.0),
    ("rtx 4090", 1008.0),
    ("rtx 4080 laptop", 432.0),
    ("rtx 4080 super", 736.0),
    ("rtx 4080", 717.0),
    ("rtx 4070 laptop", 256.0),
    ("rtx 4070 ti super", 672.0),
    ("rtx 4070", 504.0),
    ("rtx 4060 laptop", 256.0),
    ("rtx 4060 ti", 288.0),
    ("rtx 4060", 272.0),
    ("rtx 3090 ti", 1008.0),
    ("rtx 3090", 936.0),
    ("rtx 3080 laptop", 448.0),
    ("rtx 3080 ti", 912.0),
    ("rtx 3080", 760.0),
    ("rtx 3070 ti", 608.0),
    ("rtx 3070", 448.0),
    ("rtx 3060 laptop", 336.0),
    ("rtx 3060 ti", 448.0),
    ("rtx 3060", 360.0),
    ("rtx 2080 ti", 616.0),
    ("rtx 2080", 448.0),
    ("rtx 2070", 448.0),
    ("gtx 1080 ti", 484.0),
    // AMD.
    ("mi325x", 6000.0),
    ("mi300x", 5300.0),
    ("mi300a", 5300.0),
    ("mi250x", 3277.0),
    ("mi210", 1638.0),
    ("rx 9070", 640.0),
    ("rx 7900 xtx", 960.0),
    ("rx 7900 xt", 800.0),
    ("rx 7800 xt", 624.0),
    ("rx 6900 xt", 512.0),
    ("rx 6800", 512.0),
    ("ai max 395", 256.0),
];

/// Bandwidth of the device that runs models: the slowest of the GPUs, since a model split over several waits for it;
/// else that of a chip with unified memory. `None` = not in the table.
pub(crate) fn memory_bandwidth_gbps(gpus: &[wire::Gpu], chip: &str) -> Option<f64> {
    if gpus.is_empty() {
        return lookup(chip);
    }
    gpus.iter().map(|gpu| lookup(&gpu.name)).try_fold(f64::INFINITY, |slowest, one| Some(slowest.min(one?)))
}

/// Whole words only: an RTX A1000 is not an A100, an L40 not an L4.
fn lookup(name: &str) -> Option<f64> {
    let name = name.to_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let all_in = |wanted: &str| wanted.split(' ').all(|word| words.contains(&word));
    TABLE.iter().find(|(wanted, _)| all_in(wanted)).map(|(_, gbps)| *gbps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<f64>) {
        assert_eq!(lookup(name), expected, "{name}");
    }

    #[test]
    fn names_match_by_whole_words() {
        check("Apple M3 Ultra", Some(819.0));
        check("Apple M4", Some(120.0));
        check("NVIDIA H200", Some(4800.0));
        check("NVIDIA A100-SXM4-80GB", Some(2039.0));
        check("NVIDIA RTX A1000 6GB Laptop GPU", Some(192.0));
        check("NVIDIA L4", Some(300.0));
        check("NVIDIA L40S", Some(864.0));
        check("NVIDIA GeForce RTX 4090", Some(1008.0));
        check("NVIDIA GeForce RTX 4090 Laptop GPU", Some(576.0));
        check("NVIDIA RTX 6000 Ada Generation", Some(960.0));
        check("AMD Radeon RX 7900 XTX", Some(960.0));
        check("AMD EPYC 7B13", None);
        check("", None);
    }

    #[test]
    fn no_line_hides_a_later_one() {
        for (index, (name, gbps)) in TABLE.iter().enumerate() {
            assert_eq!(lookup(name), Some(*gbps), "line {index} {name} is hidden by an earlier one");
        }
    }

    #[test]
    fn several_gpus_are_as_fast_as_the_slowest_and_unknown_when_one_is() {
        let gpu = |name: &str| wire::Gpu { name: name.to_owned(), ..wire::Gpu::default() };
        let both = [gpu("NVIDIA GeForce RTX 3090"), gpu("NVIDIA GeForce RTX 4090")];
        assert_eq!(memory_bandwidth_gbps(&both, "AMD EPYC"), Some(936.0));
        assert_eq!(memory_bandwidth_gbps(&[gpu("NVIDIA H100"), gpu("new")], ""), None);
        assert_eq!(memory_bandwidth_gbps(&[], "Apple M1 Max"), Some(400.0));
    }
}
