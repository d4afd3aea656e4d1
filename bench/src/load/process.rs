//! What processes take: CPU time and memory, as Linux tells in `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process and all its children have taken so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// CPU time in user space and kernel.
    pub cpu: Duration,
    /// CPU time of the threads that live now, by their names without numbers.
    pub threads: BTreeMap<String, Duration>,
}

impl Usage {
    /// What `pid` and its children have taken; what is gone meanwhile counts nothing.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let mut usage = Self::default();
        for pid in tree(pid) {
            usage.cpu += read(pid, "stat").and_then(|text| cpu_of_stat(&text)).unwrap_or_default();
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let text = |name| fs::read_to_string(task.path().join(name)).ok();
                if let (Some(name), Some(cpu)) =
                    (text("comm"), text("schedstat").and_then(|text| cpu_of_schedstat(&text)))
                {
                    *usage.threads.entry(family(&name)).or_default() += cpu;
                }
            }
        }
        usage
    }

    /// What was taken since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let threads = self.threads.iter().map(|(name, cpu)| {
            let earlier = before.threads.get(name).copied().unwrap_or_default();
            (name.clone(), cpu.saturating_sub(earlier))
        });
        Self { cpu: self.cpu.saturating_sub(before.cpu), threads: threads.collect() }
    }
}

/// Most memory that `pid` and its children have had in RAM since they began, bytes.
#[must_use]
pub fn peak_bytes(pid: u32) -> u64 {
    tree(pid).into_iter().filter_map(|pid| peak_of_status(&read(pid, "status")?)).sum()
}

/// Lets this process, and those that it starts, have as many files open as the system allows; returns how many. With
/// `wanted` beyond the hard limit that is raised as well, where that may be done.
///
/// # Errors
/// When the system refuses.
pub fn raise_open_files(wanted: u64) -> std::io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    if hard < wanted {
        let raised = Rlimit { current: Some(wanted), maximum: Some(wanted) };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return Ok(wanted);
        }
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(hard)
}

fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(pid) = all.get(at).copied() {
        let children = read(pid, &format!("task/{pid}/children")).unwrap_or_default();
        all.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        at += 1;
    }
    all
}

fn read(pid: u32, name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/{name}")).ok()
}

/// User and system time in `/proc/PID/stat`, all threads together, those that have ended too.
fn cpu_of_stat(text: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses, and may have anything in it.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let per_s = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_nanos(ticks * 1_000_000_000 / per_s))
}

/// Nanoseconds on a CPU: the first number.
fn cpu_of_schedstat(text: &str) -> Option<Duration> {
    text.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn peak_of_status(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// A thread's name without the number that tells it from its like.
fn family(name: &str) -> String {
    let name = name.trim();
    let family = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['-', ' ', '#']);
    if family.is_empty() { name.to_owned() } else { family.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let text = "1234 (a) b (c)) S 1 1234 1234 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 8 0 100 1000 50";
        let ms = |ticks: u64| Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second());
        assert_eq!(cpu_of_stat(text), Some(ms(300)));
        assert_eq!(cpu_of_stat("1 (a) S 1"), None);
        assert_eq!(cpu_of_stat("garbage"), None);
        assert_eq!(cpu_of_schedstat("123456 789 4\n"), Some(Duration::from_nanos(123_456)));
        assert_eq!(cpu_of_schedstat(""), None);
    }

    #[test]
    fn peak_memory_is_in_bytes() {
        assert_eq!(peak_of_status("Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t   2048 kB\n"), Some(2 << 20));
        assert_eq!(peak_of_status("Name:\tx\n"), None);
    }

    #[test]
    fn threads_of_one_kind_are_counted_together() {
        assert_eq!(family("tokio-rt-worker\n"), "tokio-rt-worker");
        assert_eq!(family("edge 12"), "edge");
        assert_eq!(family("7"), "7");
    }

    #[test]
    fn this_process_is_seen() {
        let before = Usage::of(std::process::id());
        assert!(!before.threads.is_empty() && peak_bytes(std::process::id()) > 0);
        let mut number = 1_u64;
        while Usage::of(std::process::id()).since(&before).cpu.is_zero() {
            (0..1_000_000).for_each(|_| number = std::hint::black_box(number.wrapping_mul(3)));
        }
    }
}
