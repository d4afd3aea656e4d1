//! Host facts by `sysinfo`; its only caller. Blocking.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use herd_core::wire;
use reqwest::Url;
use sysinfo::{
    Components, DiskRefreshKind, Disks, MINIMUM_CPU_UPDATE_INTERVAL, Networks, Pid, ProcessRefreshKind, ProcessStatus,
    ProcessesToUpdate, System, UpdateKind,
};

use super::activity::{Activity, Usage, Work};
use super::gpu::{self, Gpus};
use super::process::{self, Process};
use super::{CpuFacts, MachineFacts, Survey, Temperature, is_local, memory};

/// Sensors of the CPU itself, before anything else that may be hotter, like a disk.
const CPU_SENSORS: &[&str] = &["coretemp", "k10temp", "zenpower", "cpu_thermal", "CPU"];

/// The machine, with what must be kept from one survey to the next.
pub(super) struct Machine {
    system: Option<System>,
    cpu_read: Option<Instant>,
    cpu_pct: f64,
    gpus: Gpus,
    activity: Activity,
    ollama: Url,
    agent_env: wire::OllamaEnv,
    chip: String,
}

impl Machine {
    pub(super) fn new(ollama: Url, agent_env: wire::OllamaEnv) -> Self {
        let system = System::new().inspect_err(|error| tracing::warn!(%error, "host facts cannot be read")).ok();
        let (gpus, activity) = (Gpus::new(), Activity::default());
        Self { system, cpu_read: None, cpu_pct: 0.0, gpus, activity, ollama, agent_env, chip: String::new() }
    }

    /// Reads everything anew.
    pub(super) fn survey(&mut self) -> Survey {
        let port = local_port(&self.ollama);
        let processes = if port.is_some() { self.processes() } else { Vec::new() };
        let server = port.and_then(|port| process::server(&processes, port));
        let cpu = self.cpu();
        let memory = self.memory(server.map(|server| server.pid));
        let facts = MachineFacts {
            host: host(),
            arch: arch().to_owned(),
            chip: self.chip.clone(),
            cpu,
            memory,
            disk: disk(&models_dir(server)),
            temperature: temperature(),
            gpus: gpu::visible(self.gpus.read(&self.chip, memory.as_ref()), |name| server?.variable(name)),
            ollama_env: server.filter(|s| !s.env.is_empty()).map_or(self.agent_env, Process::ollama_env),
            ..MachineFacts::default()
        };
        let runners = server.map(|server| process::runners(&processes, server.pid));
        let work = server.map(|server| self.work(&processes, server.pid, &facts.gpus)).unwrap_or_default();
        Survey { facts, runners, work }
    }

    /// Every process with its command line, and `ollama` with its environment.
    fn processes(&mut self) -> Vec<Process> {
        let Some(system) = &mut self.system else { return Vec::new() };
        let commands = ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always).without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, commands);
        let servers: Vec<Pid> =
            system.processes().values().filter(|p| process_of(p).is_ollama()).map(sysinfo::Process::pid).collect();
        let environment = commands.with_environ(UpdateKind::Always);
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&servers), true, environment);
        system.processes().values().map(process_of).collect()
    }

    /// What the runners of the Ollama `server` have done since the last survey.
    fn work(&mut self, processes: &[Process], server: u32, gpus: &[wire::Gpu]) -> Vec<Work> {
        let Some(system) = &mut self.system else { return Vec::new() };
        let pids: Vec<Pid> = process::family(processes, server).into_iter().map(Pid::from_u32).collect();
        let usage = ProcessRefreshKind::nothing().with_cpu().with_disk_usage().with_memory().without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&pids), true, usage);
        let usage = |pid| system.process(Pid::from_u32(pid)).map(usage_of).unwrap_or_default();
        self.activity.look(&process::workers(processes, server, usage), gpus, Instant::now())
    }

    fn cpu(&mut self) -> Option<CpuFacts> {
        let system = self.system.as_mut()?;
        // The share is a difference of two readings; too close together they say nothing, so the last one stands.
        if self.cpu_read.is_none_or(|at| at.elapsed() >= MINIMUM_CPU_UPDATE_INTERVAL) {
            system.refresh_cpu_usage();
            self.cpu_pct = f64::from(system.global_cpu_usage());
            self.cpu_read = Some(Instant::now());
        }
        if self.chip.is_empty() {
            self.chip = chip(system);
        }
        let cores = System::physical_core_count().unwrap_or(system.cpus().len());
        Some(CpuFacts { cores_physical: u32::try_from(cores).ok()?, utilization_pct: self.cpu_pct })
    }

    /// Memory, within the limits of Ollama's cgroup; without such a process, of the agent's own.
    fn memory(&mut self, ollama: Option<u32>) -> Option<wire::MemoryBytes> {
        let system = self.system.as_mut()?;
        system.refresh_memory();
        let memory = wire::MemoryBytes {
            total_bytes: system.total_memory(),
            available_bytes: system.available_memory(),
            swap_total_bytes: system.total_swap(),
            swap_used_bytes: system.used_swap(),
            pressure: wire::Pressure::Normal,
        };
        if memory.total_bytes == 0 {
            return None;
        }
        let memory = match cgroup_membership(ollama) {
            Some(text) => {
                memory::cgroup_limit(Path::new("/sys/fs/cgroup"), &text).map_or(memory, |limit| limit.apply(memory))
            }
            None => memory,
        };
        Some(wire::MemoryBytes { pressure: pressure(&memory), ..memory })
    }
}

/// Port of an Ollama on this very machine; `None` = it is elsewhere, and processes here say nothing about it.
fn local_port(ollama: &Url) -> Option<u16> {
    let port = ollama.port_or_known_default()?;
    let host = ollama.host_str()?.trim_matches(['[', ']']);
    let mut addresses = (host, port).to_socket_addrs().ok()?;
    addresses.any(|address| is_local(address.ip())).then_some(port)
}

fn process_of(process: &sysinfo::Process) -> Process {
    let text = |list: &[std::ffi::OsString]| list.iter().map(|item| item.to_string_lossy().into_owned()).collect();
    Process {
        pid: process.pid().as_u32(),
        parent: process.parent().map(Pid::as_u32),
        name: process.name().to_string_lossy().into_owned(),
        cmd: text(process.cmd()),
        env: text(process.environ()),
    }
}

fn usage_of(process: &sysinfo::Process) -> Usage {
    Usage {
        cpu_ms: process.accumulated_cpu_time(),
        read_bytes: process.disk_usage().total_read_bytes,
        memory_bytes: process.memory(),
        stopped: matches!(process.status(), ProcessStatus::Stop | ProcessStatus::Zombie | ProcessStatus::Dead),
    }
}

fn host() -> wire::Host {
    wire::Host {
        hostname: host_name().unwrap_or_default(),
        os: std::env::consts::OS.to_owned(),
        os_version: System::os_version().unwrap_or_default(),
    }
}

/// The addresses of this machine's interfaces, each with the length of its network's prefix.
#[must_use]
pub fn interfaces() -> Vec<(IpAddr, u8)> {
    let Ok(interfaces) = Networks::new_with_refreshed_list() else { return Vec::new() };
    let addresses = interfaces.values().flat_map(sysinfo::NetworkData::ip_networks);
    addresses.map(|network| (network.addr, network.prefix)).collect()
}

/// The machine's name; `None` = it has none.
#[must_use]
pub fn host_name() -> Option<String> {
    System::host_name().ok().filter(|name| !name.is_empty())
}

/// The Python project's word for the architecture.
fn arch() -> &'static str {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("macos", "aarch64") => "apple_silicon",
        (_, "aarch64") => "arm64",
        (_, arch) => arch,
    }
}

fn chip(system: &System) -> String {
    let brand = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default();
    if brand.is_empty() { sysctl("machdep.cpu.brand_string").unwrap_or_default() } else { brand }
}

fn temperature() -> Option<Temperature> {
    let mut components = Components::new().ok()?;
    components.refresh(true);
    let readings: Vec<Temperature> = components
        .iter()
        .filter_map(|one| Some((one.label().to_owned(), f64::from(one.temperature()?))))
        .filter(|(_, celsius)| celsius.is_finite())
        .map(|(source, celsius)| Temperature { celsius, source })
        .collect();
    let hottest = |only_cpu: bool| {
        let wanted = |one: &&Temperature| !only_cpu || CPU_SENSORS.iter().any(|name| one.source.contains(name));
        readings.iter().filter(wanted).max_by(|a, b| a.celsius.total_cmp(&b.celsius)).cloned()
    };
    hottest(true).or_else(|| hottest(false))
}

/// Where Ollama keeps models: as its own process says; else where its installer or a user's start would have put them.
fn models_dir(server: Option<&Process>) -> PathBuf {
    let told = server.and_then(|server| {
        let home = || Some(Path::new(server.variable("HOME")?).join(".ollama/models"));
        server.variable("OLLAMA_MODELS").map(PathBuf::from).or_else(home)
    });
    let own = || std::env::var_os("OLLAMA_MODELS").map(PathBuf::from);
    told.or_else(own).unwrap_or_else(|| {
        let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from("/")).join(".ollama/models");
        // The Linux installer's service user.
        let service = PathBuf::from("/usr/share/ollama/.ollama/models");
        if !home.exists() && service.exists() { service } else { home }
    })
}

/// The file system that holds `dir`, or will hold it.
fn disk(dir: &Path) -> Option<wire::DiskBytes> {
    let existing = dir.ancestors().find_map(|path| path.canonicalize().ok())?;
    let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage()).ok()?;
    let holder = disks
        .iter()
        .filter(|disk| existing.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().components().count())?;
    Some(wire::DiskBytes {
        path: dir.to_string_lossy().into_owned(),
        total_bytes: holder.total_space(),
        available_bytes: holder.available_space(),
    })
}

fn cgroup_membership(pid: Option<u32>) -> Option<String> {
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()
}

fn pressure(memory: &wire::MemoryBytes) -> wire::Pressure {
    if let Some(pressure) = sysctl("kern.memorystatus_vm_pressure_level").and_then(|l| memory::pressure_by_level(&l)) {
        return pressure;
    }
    let by_share = memory::pressure_by_share(memory.available_bytes, memory.total_bytes);
    let stalls = std::fs::read_to_string("/proc/pressure/memory").ok();
    let by_stalls = stalls.and_then(|text| memory::pressure_by_stalls(&text));
    memory::worse(by_share, by_stalls.unwrap_or_default())
}

/// A value of macOS' `sysctl`; `None` elsewhere.
fn sysctl(name: &str) -> Option<String> {
    if !cfg!(target_os = "macos") {
        return None;
    }
    let output = Command::new("/usr/sbin/sysctl").args(["-n", name]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_cpu_memory_and_a_disk() {
        let mut machine = Machine::new("http://127.0.0.1:1/".parse().unwrap(), wire::OllamaEnv::default());
        let survey = machine.survey();
        assert!(survey.facts.cpu.unwrap().cores_physical > 0);
        let memory = survey.facts.memory.unwrap();
        assert!(memory.available_bytes > 0 && memory.available_bytes <= memory.total_bytes, "{memory:?}");
        assert!(survey.facts.disk.unwrap().total_bytes > 0);
        assert_eq!(survey.runners, None, "no Ollama listens on port 1");
    }

    /// A process that looks like an Ollama with one runner, which computes for ever.
    #[cfg(target_os = "linux")]
    struct Pretence(std::process::Child);

    #[cfg(target_os = "linux")]
    impl Pretence {
        fn start(dir: &Path, port: u16) -> Self {
            // A shell by another name runs scripts that are called like Ollama's subcommands.
            std::fs::copy("/bin/sh", dir.join("ollama")).unwrap();
            std::fs::write(dir.join("serve"), "./ollama runner --model /m/blobs/sha256-ab &\nwait\n").unwrap();
            std::fs::write(dir.join("runner"), "while :; do :; done\n").unwrap();
            let mut command = Command::new(dir.join("ollama"));
            command.arg("serve").current_dir(dir).env("OLLAMA_HOST", format!("127.0.0.1:{port}"));
            Self(std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn().unwrap())
        }

        fn signal(&self, signal: &str) {
            Command::new("kill").args([signal, "--", &format!("-{}", self.0.id())]).status().unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    impl Drop for Pretence {
        fn drop(&mut self) {
            self.signal("-KILL");
            drop(self.0.wait());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_runner_that_computes_is_seen_at_work_and_one_that_is_stopped_is_not() {
        let dir = crate::test_dir::TestDir::new();
        // Nobody needs to listen there: the environment of the process says that it would.
        let port = 23_434;
        let ollama = Pretence::start(dir.path(), port);
        let mut machine = Machine::new(format!("http://127.0.0.1:{port}").parse().unwrap(), wire::OllamaEnv::default());
        let mut look = move || machine.survey().work.first().cloned().unwrap_or_default();
        let began = Instant::now();
        while look().steps < 3 {
            assert!(began.elapsed().as_secs() < 30, "no work is seen");
        }
        assert_eq!(look().model, "/m/blobs/sha256-ab");
        ollama.signal("-STOP");
        let (stopped, at) = (look(), Instant::now());
        while at.elapsed().as_secs() < 2 {
            assert_eq!(look().steps, stopped.steps);
        }
        ollama.signal("-CONT");
        let began = Instant::now();
        while look().steps == stopped.steps {
            assert!(began.elapsed().as_secs() < 30, "no work is seen again");
        }
    }
}
