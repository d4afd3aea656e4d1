//! How much memory there is to work with, and how short it is: limits of cgroups, and Linux' pressure stall figures.

use std::fs;
use std::path::{Path, PathBuf};

use herd_core::wire::{MemoryBytes, Pressure};

const GIB: u64 = 1 << 30;
/// Share of time in which *some* task waited for memory over the last ten seconds, per cent.
const SOME_STALLED_WARN: f64 = 10.0;
/// Share of time in which *all* tasks waited for memory over the last ten seconds, per cent.
const ALL_STALLED_CRITICAL: f64 = 10.0;

/// Pressure by what is left. Both the share and the amount must be low: 5 % of a 512 GiB machine is no emergency.
pub(super) fn pressure_by_share(available_bytes: u64, total_bytes: u64) -> Pressure {
    let share = available_bytes as f64 / total_bytes.max(1) as f64;
    match (share, available_bytes) {
        (share, bytes) if share <= 0.05 && bytes < 8 * GIB => Pressure::Critical,
        (share, bytes) if share <= 0.15 && bytes < 24 * GIB => Pressure::Warn,
        _ => Pressure::Normal,
    }
}

/// Pressure by `/proc/pressure/memory`; `None` when the text is not that.
pub(super) fn pressure_by_stalls(psi: &str) -> Option<Pressure> {
    let avg10 = |kind: &str| -> Option<f64> {
        let line = psi.lines().find(|line| line.split(' ').next() == Some(kind))?;
        line.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
    };
    Some(match (avg10("some")?, avg10("full").unwrap_or(0.0)) {
        (_, all) if all >= ALL_STALLED_CRITICAL => Pressure::Critical,
        (some, _) if some >= SOME_STALLED_WARN => Pressure::Warn,
        _ => Pressure::Normal,
    })
}

/// Pressure by macOS' `kern.memorystatus_vm_pressure_level`.
pub(super) fn pressure_by_level(level: &str) -> Option<Pressure> {
    match level.trim() {
        "1" => Some(Pressure::Normal),
        "2" => Some(Pressure::Warn),
        "4" => Some(Pressure::Critical),
        _ => None,
    }
}

/// The worse of two.
pub(super) fn worse(one: Pressure, other: Pressure) -> Pressure {
    match (one, other) {
        (Pressure::Critical, _) | (_, Pressure::Critical) => Pressure::Critical,
        (Pressure::Warn, _) | (_, Pressure::Warn) => Pressure::Warn,
        (Pressure::Normal, Pressure::Normal) => Pressure::Normal,
    }
}

/// A ceiling on memory that a cgroup sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    max_bytes: u64,
    used_bytes: u64,
}

impl Limit {
    /// `memory` as seen from inside the limit.
    pub(super) fn apply(self, memory: MemoryBytes) -> MemoryBytes {
        let left = self.max_bytes.saturating_sub(self.used_bytes);
        MemoryBytes {
            total_bytes: memory.total_bytes.min(self.max_bytes),
            available_bytes: memory.available_bytes.min(left),
            ..memory
        }
    }
}

/// The tightest limit above a process. `membership` is its `/proc/PID/cgroup`, `root` is `/sys/fs/cgroup`.
///
/// `None` when nothing limits it.
pub(super) fn cgroup_limit(root: &Path, membership: &str) -> Option<Limit> {
    membership
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            match controllers {
                "" => Some(tightest(root, path, &V2)),
                list if list.split(',').any(|one| one == "memory") => Some(tightest(&root.join("memory"), path, &V1)),
                _ => None,
            }
        })
        .flatten()
        .min_by_key(|limit| limit.max_bytes)
}

/// File names of one version of cgroups.
struct Layout {
    max: &'static str,
    used: &'static str,
    reclaimable: &'static str,
}

const V2: Layout = Layout { max: "memory.max", used: "memory.current", reclaimable: "inactive_file" };
const V1: Layout =
    Layout { max: "memory.limit_in_bytes", used: "memory.usage_in_bytes", reclaimable: "total_inactive_file" };

/// A limit binds everything below it, so every folder up to the root counts. Inside a container the path may lead
/// outside of what is mounted; then only the root, which is the container's own, has files.
fn tightest(root: &Path, path: &str, layout: &Layout) -> Option<Limit> {
    let path = PathBuf::from(path.trim_start_matches('/'));
    path.ancestors().filter_map(|part| limit_of(&root.join(part), layout)).min_by_key(|limit| limit.max_bytes)
}

fn limit_of(dir: &Path, layout: &Layout) -> Option<Limit> {
    let number = |file: &str| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
    // "max" is not a number; version 1 says 2^63 or so instead.
    let max_bytes = number(layout.max).filter(|max| *max < 1 << 60)?;
    let reclaimable = fs::read_to_string(dir.join("memory.stat"))
        .ok()
        .and_then(|stat| stat.lines().find_map(|line| line.strip_prefix(layout.reclaimable)?.trim().parse().ok()))
        .unwrap_or(0);
    Some(Limit { max_bytes, used_bytes: number(layout.used)?.saturating_sub(reclaimable) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn pressure_needs_a_low_share_and_a_low_amount() {
        assert_eq!(pressure_by_share(GIB / 2, 16 * GIB), Pressure::Critical);
        assert_eq!(pressure_by_share(2 * GIB, 16 * GIB), Pressure::Warn);
        assert_eq!(pressure_by_share(8 * GIB, 16 * GIB), Pressure::Normal);
        assert_eq!(pressure_by_share(20 * GIB, 512 * GIB), Pressure::Warn);
        assert_eq!(pressure_by_share(60 * GIB, 512 * GIB), Pressure::Normal);
        assert_eq!(pressure_by_share(0, 0), Pressure::Critical);
    }

    #[test]
    fn stalls_are_read_from_psi() {
        let psi = |some: &str, full: &str| {
            pressure_by_stalls(&format!("some avg10={some} avg60=0.1 total=9\nfull avg10={full} avg60=0 total=9\n"))
        };
        assert_eq!(psi("0.00", "0.00"), Some(Pressure::Normal));
        assert_eq!(psi("12.50", "3.00"), Some(Pressure::Warn));
        assert_eq!(psi("40.00", "22.00"), Some(Pressure::Critical));
        assert_eq!(pressure_by_stalls("some avg10=11.00 avg60=0 total=1\n"), Some(Pressure::Warn));
        assert_eq!(pressure_by_stalls("nonsense"), None);
    }

    #[test]
    fn macos_levels_are_known() {
        assert_eq!(pressure_by_level("2\n"), Some(Pressure::Warn));
        assert_eq!(pressure_by_level("3"), None);
    }

    #[test]
    fn the_tightest_cgroup_up_the_tree_binds() {
        let dir = TestDir::new();
        dir.write("a/memory.max", "8000\n");
        dir.write("a/memory.current", "5000\n");
        dir.write("a/memory.stat", "anon 100\ninactive_file 1000\n");
        dir.write("a/b/memory.max", "max\n");
        dir.write("a/b/memory.current", "10\n");
        let limit = cgroup_limit(dir.path(), "0::/a/b\n").unwrap();
        assert_eq!(limit, Limit { max_bytes: 8000, used_bytes: 4000 });
        let memory = MemoryBytes { total_bytes: 100_000, available_bytes: 50_000, ..MemoryBytes::default() };
        let seen = limit.apply(memory);
        assert_eq!((seen.total_bytes, seen.available_bytes), (8000, 4000));
    }

    #[test]
    fn version_1_is_read_and_its_no_limit_is_none() {
        let dir = TestDir::new();
        dir.write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        dir.write("memory/memory.usage_in_bytes", "5\n");
        assert_eq!(cgroup_limit(dir.path(), "4:memory:/gone\n1:cpu:/\n"), None);
        dir.write("memory/memory.limit_in_bytes", "4096\n");
        assert_eq!(cgroup_limit(dir.path(), "4:memory:/gone\n"), Some(Limit { max_bytes: 4096, used_bytes: 5 }));
        assert_eq!(cgroup_limit(dir.path(), "garbage"), None);
    }
}
